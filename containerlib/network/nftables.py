"""Tables, chains, rules and sets of nftables as messages to the kernel.

Source: linux/netfilter/nf_tables.h, linux/netfilter/nfnetlink.h.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from attrs import evolve

from containerlib._native.netlink import Message, attribute, attributes, text_attribute

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

__all__ = [
    "ACCEPT",
    "ADDRESS",
    "DROP",
    "MAC",
    "NAME",
    "NETFILTER",
    "add_chain",
    "add_element",
    "add_port_map",
    "add_rule",
    "add_set",
    "add_table",
    "batch_begin",
    "batch_end",
    "by_chance",
    "compare",
    "connection_is",
    "delete_element",
    "delete_table",
    "get_element",
    "has_elements",
    "is_change",
    "is_rule",
    "list_elements",
    "list_rules",
    "list_tables",
    "load_mac",
    "load_name",
    "load_sender",
    "lookup",
    "masquerade",
    "name_begins",
    "name_key",
    "of_bridges",
    "port_key",
    "port_word",
    "protocol_is",
    "table_names",
    "translate_destination",
    "verdict",
]

NETFILTER = 12
"""The protocol of the connection that takes these."""

NAME, MAC, ADDRESS = (41, 16), (9, 8), (7, 4)
"""Kinds of keys: what nft prints them as, and how many bytes they take."""

DROP, ACCEPT = 0, 1
_INET, _BRIDGE, _SUBSYSTEM = 1, 7, 10
_NEW_TABLE, _GET_TABLE, _DELETE_TABLE, _NEW_CHAIN, _NEW_RULE, _GET_RULE = 0, 1, 2, 3, 6, 7
_NEW_SET, _NEW_ELEMENT, _GET_ELEMENT, _DELETE_ELEMENT = 9, 12, 13, 14
# That of tables, chains, rules and sets; and a new chain, which may be one that drops what it does not know.
_TOLD = frozenset({2, 5, 8, 11, 3})
_CREATE, _EXCLUSIVE, _APPEND = 0x400, 0x200, 0x800
_TYPE_BITS = 6
_FAMILY_BYTES, _ELEMENTS = 4, 3
_FIRST_REGISTER = 1
_ITEM = 1
# NFT_META_*
_INTERFACES = {"in": 6, "out": 7}
# NF_INET_*
_HOOKS = {"prerouting": 0, "forward": 2, "output": 3, "postrouting": 4}
_WORD_REGISTER = 8  # the first of 4 bytes; the first of 16 bytes is the same
_BEHIND_NAME = 12
_LOCAL = 2  # RTN_LOCAL
_STATE, _STATUS = 0, 2  # NFT_CT_*
_PROTOCOLS = {"tcp": 6, "udp": 17}
_MAP = 8
# What nft prints.
_PROTOCOL_TYPE, _ADDRESS_TYPE, _PORT_TYPE = 12, 7, 13


def _number(kind: int, value: int) -> bytes:
    return attribute(kind, struct.pack("!i", value))


def _message(kind: int, flags: int, *parts: bytes) -> Message:
    return Message(_SUBSYSTEM << 8 | kind, flags, struct.pack("!BBH", _INET, 0, 0) + b"".join(parts))


def batch_begin() -> Message:
    """Open a batch."""
    return Message(0x10, 0, struct.pack("!BBH", 0, 0, _SUBSYSTEM))


def batch_end() -> Message:
    """Close a batch."""
    return Message(0x11, 0, struct.pack("!BBH", 0, 0, _SUBSYSTEM))


def add_table(name: str, *, is_new: bool = False) -> Message:
    """Make a table unless it is there; `is_new` makes it an error if it is."""
    return _message(_NEW_TABLE, _CREATE | (_EXCLUSIVE if is_new else 0), text_attribute(1, name))


def delete_table(name: str) -> Message:
    """Remove a table with all that is in it."""
    return _message(_DELETE_TABLE, 0, text_attribute(1, name))


def add_chain(
    table: str, name: str, *, hook: str, kind: str, priority: int, is_strict: bool = False
) -> Message:
    """Make a chain that packets come through, and that accepts, or drops, what it says nothing of."""
    return _message(
        _NEW_CHAIN,
        _CREATE,
        text_attribute(1, table),
        text_attribute(3, name),
        attribute(4, [_number(1, _HOOKS[hook]), _number(2, priority)]),
        _number(5, DROP if is_strict else ACCEPT),
        text_attribute(7, kind),
    )


def of_bridges(message: Message) -> Message:
    """The same for a table of what passes through bridges, instead of through the host."""
    return evolve(message, body=bytes([_BRIDGE]) + message.body[1:])


def add_set(table: str, name: str, *types: tuple[int, int]) -> Message:
    """Make a set; its keys are one or more of `NAME`, `MAC` and `ADDRESS`, one behind the other."""
    return _message(
        _NEW_SET,
        _CREATE,
        text_attribute(1, table),
        text_attribute(2, name),
        _number(3, 0),
        _number(4, _concatenated([kind for kind, _ in types])),
        _number(5, sum(size for _, size in types)),
        _number(10, 1),
        # Only nft reads this: in which order to print the bytes of a key.
        attribute(13, b"\x00\x04" + struct.pack("=I", 1)),
    )


def add_port_map(table: str, name: str, *, with_address: bool) -> Message:
    """Make a map from protocol, address if wanted, and port to address and port; see `port_key`."""
    key_types = [_PROTOCOL_TYPE, *([_ADDRESS_TYPE] if with_address else []), _PORT_TYPE]
    return _message(
        _NEW_SET,
        _CREATE,
        text_attribute(1, table),
        text_attribute(2, name),
        _number(3, _MAP),
        _number(4, _concatenated(key_types)),
        _number(5, 4 * len(key_types)),
        _number(6, _concatenated([_ADDRESS_TYPE, _PORT_TYPE])),
        _number(7, 8),
        _number(10, 2 if with_address else 3),
    )


def _concatenated(types: Sequence[int]) -> int:
    found = 0
    for each in types:
        found = found << _TYPE_BITS | each
    return found


def port_key(protocol: str, port: int, address: bytes = b"") -> bytes:
    """The key of a port map."""
    return bytes([_PROTOCOLS[protocol], 0, 0, 0]) + address + port_word(port)


def port_word(port: int) -> bytes:
    """A port as maps have it."""
    return struct.pack("!HH", port, 0)


def _elements(kind: int, flags: int, table: str, name: str, key: bytes, value: bytes = b"") -> Message:
    data = [attribute(2, [attribute(1, value)])] if value else []
    element = attribute(_ITEM, [attribute(1, [attribute(1, key)]), *data])
    return _message(kind, flags, text_attribute(1, table), text_attribute(2, name), attribute(3, [element]))


def name_key(name: str) -> bytes:
    """The name of an interface as sets have it; of two, one behind the other."""
    return name.encode().ljust(NAME[1], b"\0")


def add_element(table: str, name: str, key: bytes, value: bytes = b"") -> Message:
    """Put a key into a set, or with its value into a map, if it is not there."""
    return _elements(_NEW_ELEMENT, _CREATE, table, name, key, value)


def delete_element(table: str, name: str, key: bytes) -> Message:
    """Take a key out of a set."""
    return _elements(_DELETE_ELEMENT, 0, table, name, key)


def get_element(table: str, name: str, key: bytes) -> Message:
    """Ask whether a key is in a set; it is an error if it is not."""
    return _elements(_GET_ELEMENT, 0, table, name, key)


def list_elements(table: str, name: str) -> Message:
    """Ask for all keys of a set."""
    return _message(_GET_ELEMENT, 0, text_attribute(1, table), text_attribute(2, name))


def has_elements(body: bytes) -> bool:
    """Whether an answer to `list_elements` has any."""
    return bool(attributes(body[_FAMILY_BYTES:]).get(_ELEMENTS))


def by_chance(part: int, whole: int) -> tuple[bytes, bytes, bytes]:
    """Go on with so many packets of so many, whichever these are."""
    return (
        _expression("numgen", _number(1, _FIRST_REGISTER), _number(2, whole), _number(3, 1)),
        _expression(
            "byteorder",
            _number(1, _FIRST_REGISTER),
            _number(2, _FIRST_REGISTER),
            *(_number(3, 1), _number(4, 4), _number(5, 4)),
        ),
        _expression(
            "cmp",
            _number(1, _FIRST_REGISTER),
            _number(2, 2),
            attribute(3, [attribute(1, struct.pack("!I", part))]),
        ),
    )


def list_tables() -> Message:
    """Ask for all tables."""
    return _message(_GET_TABLE, 0)


def table_names(bodies: Iterable[bytes]) -> Iterator[str]:
    """The names of the tables in answers to `list_tables`."""
    for body in bodies:
        yield attributes(body[_FAMILY_BYTES:]).get(1, b"").rstrip(b"\0").decode(errors="replace")


def list_rules(table: str) -> Message:
    """Ask for all rules of a table."""
    return _message(_GET_RULE, 0, text_attribute(1, table))


def is_rule(message: Message) -> bool:
    """Whether a message adds a rule."""
    return message.kind == _SUBSYSTEM << 8 | _NEW_RULE


def is_change(kind: int) -> bool:
    """Whether the kernel tells by a message of this type of something that concerns us, whoever did it."""
    return kind >> 8 == _SUBSYSTEM and kind & 0xFF in _TOLD


def add_rule(table: str, chain: str, *expressions: bytes) -> Message:
    """Put a rule at the end of a chain."""
    return _message(
        _NEW_RULE,
        _CREATE | _APPEND,
        text_attribute(1, table),
        text_attribute(2, chain),
        attribute(4, list(expressions)),
    )


def _expression(name: str, *parts: bytes) -> bytes:
    return attribute(_ITEM, [text_attribute(1, name), attribute(2, list(parts))])


def load_name(side: str, register: int = _FIRST_REGISTER) -> bytes:
    """Put the name of the interface that a packet comes ``"in"`` or goes ``"out"`` by into a register."""
    return _expression("meta", _number(1, register), _number(2, _INTERFACES[side]))


def compare(data: bytes, *, is_equal: bool = True) -> bytes:
    """Go on if the first bytes of the first register are these, or are not."""
    return _expression(
        "cmp",
        _number(1, _FIRST_REGISTER),
        _number(2, 0 if is_equal else 1),
        attribute(3, [attribute(1, data)]),
    )


def name_begins(side: str, prefix: str, *, is_equal: bool = True) -> tuple[bytes, bytes]:
    """Go on if the name of an interface begins like this, or does not."""
    return load_name(side), compare(prefix.encode(), is_equal=is_equal)


def lookup(name: str, *, is_in: bool = True) -> bytes:
    """Go on if what is in the registers is in a set, or is not."""
    flags = [] if is_in else [_number(5, 1)]
    return _expression("lookup", text_attribute(1, name), _number(2, _FIRST_REGISTER), *flags)


def load_mac() -> bytes:
    """Put the sender's address of a frame behind a name."""
    return _payload(_BEHIND_NAME, base=0, offset=6, size=6)


def protocol_is(kind: int) -> tuple[bytes, bytes]:
    """Go on if a frame is of this type."""
    return _expression("meta", _number(1, _FIRST_REGISTER), _number(2, 1)), compare(struct.pack("!H", kind))


def load_sender(offset: int) -> bytes:
    """Put an address of version 4 behind a name, from the header that stands behind the frame's."""
    return _payload(_BEHIND_NAME, base=1, offset=offset, size=4)


def translate_destination(name: str, *, with_address: bool) -> Sequence[bytes]:
    """Send what comes for an address of the host to where a port map says; go on if it says nothing.

    Loopback addresses of version 4 are left alone, and all of version 6.
    """
    next_register = _WORD_REGISTER + 1
    key = [_expression("meta", _number(1, _WORD_REGISTER), _number(2, 16))]
    if with_address:
        key.append(_payload(next_register, base=1, offset=16, size=4))
        next_register += 1
    key.append(_payload(next_register, base=2, offset=2, size=2))
    return (
        _expression("meta", _number(1, _FIRST_REGISTER), _number(2, 15)),
        compare(b"\x02"),  # version 4
        _payload(_FIRST_REGISTER, base=1, offset=16, size=1),
        compare(b"\x7f", is_equal=False),
        _expression("fib", _number(1, _FIRST_REGISTER), _number(2, 3), _number(3, 2)),
        compare(struct.pack("=I", _LOCAL)),
        *key,
        _expression(
            "lookup", text_attribute(1, name), _number(2, _WORD_REGISTER), _number(3, _WORD_REGISTER)
        ),
        _expression(
            "nat",
            _number(1, 1),
            _number(2, 2),
            _number(3, _WORD_REGISTER),
            _number(5, _WORD_REGISTER + 1),
        ),
    )


def _payload(register: int, *, base: int, offset: int, size: int) -> bytes:
    """Bytes of the header of the frame (base 0), of the network (1) or of the transport (2)."""
    return _expression(
        "payload", _number(1, register), _number(2, base), _number(3, offset), _number(4, size)
    )


def connection_is(bits: int, *, of_status: bool = False) -> Sequence[bytes]:
    """Go on if the state of the connection, or its status, is or has one of these bits."""
    mask = struct.pack("=I", bits)
    return (
        _expression("ct", _number(1, _FIRST_REGISTER), _number(2, _STATUS if of_status else _STATE)),
        _expression(
            "bitwise",
            _number(1, _FIRST_REGISTER),
            _number(2, _FIRST_REGISTER),
            _number(3, len(mask)),
            attribute(4, [attribute(1, mask)]),
            attribute(5, [attribute(1, bytes(4))]),
        ),
        compare(bytes(4), is_equal=False),
    )


def verdict(code: int) -> bytes:
    """End the chain."""
    return _expression("immediate", _number(1, 0), attribute(2, [attribute(2, [_number(1, code)])]))


def masquerade() -> bytes:
    """Give what leaves the address of the interface that it leaves by."""
    return _expression("masq")
