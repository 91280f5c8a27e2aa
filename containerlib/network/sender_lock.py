"""Keeps containers that could send whatever they like from sending as somebody else.

Only those need it that may open raw sockets or change their devices; all others send what the kernel makes.
One table of nftables for what passes through bridges, with sets: names of devices, and what may come by them.

Source: nftables(8), family bridge.
"""

from __future__ import annotations

import contextlib
import errno
from typing import TYPE_CHECKING

from containerlib._native.netlink import Netlink, NetlinkError
from containerlib._util.failpoint import reach
from containerlib.errors import UnsupportedHost
from containerlib.network import nftables as nft

if TYPE_CHECKING:
    from ipaddress import IPv4Address

    from containerlib._native.netlink import Message

__all__ = ["lock_sender", "remove_locks", "unlock_sender"]

_TABLE = "containerlib"
_LOCKED, _MACS, _ADDRESSES = "locked", "macs", "addresses"
_PRIORITY = -300
_IP, _ARP = 0x0800, 0x0806
_IP_SENDER, _ARP_SENDER = 12, 14  # where they stand in those headers


def _rules() -> list[Message]:
    """The whole table, from nothing."""
    name = nft.load_name("in")
    chain = "prerouting"

    def rule(*expressions: bytes) -> Message:
        return nft.add_rule(_TABLE, chain, *expressions)

    def from_known(kind: int, offset: int) -> Message:
        known = (name, nft.load_sender(offset), nft.lookup(_ADDRESSES))
        return rule(*nft.protocol_is(kind), *known, nft.verdict(nft.ACCEPT))

    return [
        nft.add_table(_TABLE, is_new=True),
        nft.add_set(_TABLE, _LOCKED, nft.NAME),
        nft.add_set(_TABLE, _MACS, nft.NAME, nft.MAC),
        nft.add_set(_TABLE, _ADDRESSES, nft.NAME, nft.ADDRESS),
        nft.add_chain(_TABLE, chain, hook=chain, kind="filter", priority=_PRIORITY),
        rule(name, nft.lookup(_LOCKED, is_in=False), nft.verdict(nft.ACCEPT)),
        rule(name, nft.load_mac(), nft.lookup(_MACS, is_in=False), nft.verdict(nft.DROP)),
        from_known(_IP, _IP_SENDER),
        from_known(_ARP, _ARP_SENDER),
        rule(nft.verdict(nft.DROP)),
    ]


def _keys(device: str, mac: bytes, address: IPv4Address) -> tuple[tuple[str, bytes], ...]:
    name = nft.name_key(device)
    # The lock comes last: until then all comes through, and with it only the right.
    return (
        (_MACS, name + mac.ljust(nft.MAC[1], b"\0")),
        (_ADDRESSES, name + address.packed),
        (_LOCKED, name),
    )


def lock_sender(device: str, mac: bytes, address: IPv4Address) -> None:
    """Let nothing come by a device of the host but what has these addresses as its sender.

    Raises:
        UnsupportedHost: The kernel has no nftables for bridges, or this process may not use them.

    Cost: 0.1 ms.
    """
    elements = [nft.add_element(_TABLE, name, key) for name, key in _keys(device, mac, address)]
    reach("lock sender", device)
    try:
        with Netlink(nft.NETFILTER) as connection:
            try:
                _send(connection, elements)
            except NetlinkError as error:
                if error.errno != errno.ENOENT:
                    raise
                _make(connection, elements)
    except OSError as error:
        raise UnsupportedHost(
            "a container that may send as anybody in a network",
            needed="nftables of the family bridge, or no NET_RAW and NET_ADMIN",
            found=str(error.strerror),
        ) from None


def _make(connection: Netlink, elements: list[Message]) -> None:
    try:
        _send(connection, [*_rules(), *elements])
    except NetlinkError as error:
        if error.errno != errno.EEXIST:
            raise
        _send(connection, elements)  # somebody was faster


def _send(connection: Netlink, messages: list[Message]) -> None:
    connection.batch(nft.batch_begin(), [nft.of_bridges(each) for each in messages], nft.batch_end())


def unlock_sender(device: str, mac: bytes, address: IPv4Address) -> None:
    """Forget a device that is gone, or about to go; what is forgotten already is no error."""
    with contextlib.suppress(OSError), Netlink(nft.NETFILTER) as connection:
        for name, key in _keys(device, mac, address):
            reach("unlock sender", device)
            with contextlib.suppress(NetlinkError):
                _send(connection, [nft.delete_element(_TABLE, name, key)])


def remove_locks() -> None:
    """With the last network of the host: remove the table."""
    reach("unlock sender", _TABLE)
    with contextlib.suppress(OSError), Netlink(nft.NETFILTER) as connection:
        _send(connection, [nft.delete_table(_TABLE)])
