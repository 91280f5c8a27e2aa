"""Firewalls of others that pass on nothing unless they are told, such as that of another engine.

What one table accepts another one can still drop. Chains of others that drop what they do not know get two
rules in front that let our networks by; what may pass between those our own table says. The rules are known
by a comment, and go with the last network.

Source: linux/netfilter/nf_tables.h.
"""

from __future__ import annotations

import contextlib
import struct
from typing import TYPE_CHECKING

from attrs import frozen

from containerlib._native.netlink import Message, Netlink, NetlinkError, attribute, attributes, text_attribute
from containerlib._util.failpoint import reach
from containerlib.network import nftables as nft

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["close_way", "open_way"]

_OURS = b"containerlib"
_DEVICES = "cl-"
_UNSPECIFIED, _INET, _IP = 0, 1, 2
_SUBSYSTEM = 10
_GET_CHAIN, _NEW_RULE, _GET_RULE, _DELETE_RULE = 4, 6, 7, 8
_CREATE = 0x400
_FORWARD, _DROP = 2, 0
_HEADER_BYTES = 4


@frozen
class _Chain:
    family: int
    table: str
    name: str


@frozen
class _Rule:
    chain: _Chain
    handle: bytes


def open_way(connection: Netlink) -> None:
    """Let our networks by where others pass on nothing; nothing happens where that is done, or not needed.

    Raises:
        NetlinkError: The kernel refused.

    Cost: 60 us, and some for each rule of the host.
    """
    chains = [each for each in _strict_chains(connection) if not each.table.startswith(_OURS.decode())]
    if not chains:
        return
    done = {rule.chain for rule in _rules(connection)}
    messages = [message for chain in chains if chain not in done for message in _ways(chain)]
    if messages:
        reach("firewall", "others")
        connection.batch(nft.batch_begin(), messages, nft.batch_end())


def close_way(connection: Netlink) -> None:
    """Take the rules back; what is gone is no error."""
    for rule in list(_rules(connection)):
        reach("firewall", "others")
        where = text_attribute(1, rule.chain.table) + text_attribute(2, rule.chain.name)
        body = where + attribute(3, rule.handle)
        with contextlib.suppress(NetlinkError):
            message = _message(_DELETE_RULE, 0, rule.chain.family, body)
            connection.batch(nft.batch_begin(), [message], nft.batch_end())


def _message(kind: int, flags: int, family: int, body: bytes = b"") -> Message:
    return Message(_SUBSYSTEM << 8 | kind, flags, struct.pack("!BBH", family, 0, 0) + body)


def _strict_chains(connection: Netlink) -> Iterator[_Chain]:
    """Those that packets of version 4 come through when they are passed on, and that drop them by default."""
    for body in connection.dump(_message(_GET_CHAIN, 0, _UNSPECIFIED)):
        found = attributes(body[_HEADER_BYTES:])
        hook = attributes(found.get(4, b"")).get(1)
        if (
            body[0] in {_INET, _IP}
            and hook == struct.pack("!I", _FORWARD)
            and found.get(5) == struct.pack("!I", _DROP)
        ):
            yield _Chain(body[0], _text(found[1]), _text(found[3]))


def _rules(connection: Netlink) -> Iterator[_Rule]:
    """Those that we have put into chains of others."""
    for body in connection.dump(_message(_GET_RULE, 0, _UNSPECIFIED)):
        found = attributes(body[_HEADER_BYTES:])
        if _OURS in found.get(7, b""):
            yield _Rule(_Chain(body[0], _text(found[1]), _text(found[2])), found[3])


def _ways(chain: _Chain) -> Iterator[Message]:
    comment = _OURS + b"\0"
    for side in ("in", "out"):
        expressions = [*nft.name_begins(side, _DEVICES), nft.verdict(nft.ACCEPT)]
        body = (
            text_attribute(1, chain.table)
            + text_attribute(2, chain.name)
            + attribute(4, expressions)
            # What nft shows as a comment.
            + attribute(7, bytes([0, len(comment)]) + comment)
        )
        yield _message(_NEW_RULE, _CREATE, chain.family, body)


def _text(value: bytes) -> str:
    return value.rstrip(b"\0").decode(errors="replace")
