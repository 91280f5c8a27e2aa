"""Network devices, addresses and routes as messages to the kernel. What `Netlink` sends and what it answers.

Source: rtnetlink(7), veth(4); linux/if_link.h, linux/if_bridge.h.
"""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import struct
from typing import TYPE_CHECKING

from attrs import frozen

from containerlib._native.netlink import Message, attribute, attributes, text_attribute
from containerlib._util.failpoint import reach

if TYPE_CHECKING:
    from collections.abc import Iterator
    from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network

    from containerlib._native.netlink import Netlink

__all__ = [
    "Link",
    "add_address",
    "add_bridge",
    "add_default_route",
    "add_pair",
    "delete",
    "find",
    "has_device",
    "interface_of",
    "label",
    "list_links",
    "list_subnets",
    "mac_of",
    "raise_link",
    "raise_named",
    "remove_device",
    "set_master",
]

_NEW_LINK, _DELETE_LINK, _GET_LINK, _NEW_ADDRESS, _NEW_ROUTE, _GET_ROUTE = 16, 17, 18, 20, 24, 26
_CREATE, _EXCLUSIVE, _REPLACE = 0x400, 0x200, 0x100
_LINK = struct.Struct("=BxHiII")
_ADDRESS = struct.Struct("=BBBBI")
_ROUTE = struct.Struct("=BBBBBBBBI")
_UP = 0x1
_MAC, _NAME, _MTU, _MASTER, _LINK_INFO, _ALIAS, _NAMESPACE_FD = 1, 3, 4, 10, 18, 20, 28
_KIND, _DATA, _PEER = 1, 2, 1
_FORWARD_DELAY, _MULTICAST_SNOOPING = 1, 23
_LOCAL, _BROADCAST, _ADDRESS_FLAGS, _NO_DUPLICATE_CHECK = 2, 4, 8, 0x2
_DESTINATION, _OUT, _GATEWAY = 1, 4, 5
_MAIN_TABLE, _BY_BOOT, _UNIVERSE, _UNICAST = 254, 3, 0, 1
_FAMILIES = {4: 2, 6: 10}


@frozen
class Link:
    """A network device.

    Attributes:
        index: Its number.
        name: Its name.
        alias: What whoever made it has written on it.
        master: The number of the bridge that it is a port of; 0 for none.
        mac: Its address.
    """

    index: int
    name: str
    alias: str = ""
    master: int = 0
    mac: bytes = b""


def mac_of(address: IPv4Address | IPv6Address) -> bytes:
    """The MAC address that goes with an address, so that no neighbour ever remembers a wrong one."""
    # Locally administered, unicast.
    return b"\x02\x63" + address.packed[-4:]


def add_bridge(name: str, *, mac: bytes, mtu: int) -> Message:
    """Make a bridge that forwards at once; it is down."""
    data = attribute(_DATA, [attribute(_FORWARD_DELAY, struct.pack("=I", 0))])
    return Message(
        _NEW_LINK,
        _CREATE | _EXCLUSIVE,
        _LINK.pack(0, 0, 0, 0, 0)
        + text_attribute(_NAME, name)
        + attribute(_MAC, mac)
        + attribute(_MTU, struct.pack("=I", mtu))
        + attribute(_LINK_INFO, [text_attribute(_KIND, "bridge"), data]),
    )


def add_pair(
    name: str,
    *,
    master: int,
    mtu: int,
    peer: str,
    peer_mac: bytes,
    network_fd: int,
) -> Message:
    """Make a pair of devices, both down: one a port of a bridge, the other in another namespace."""
    inside = (
        _LINK.pack(0, 0, 0, 0, 0)
        + text_attribute(_NAME, peer)
        + attribute(_MAC, peer_mac)
        + attribute(_MTU, struct.pack("=I", mtu))
        + attribute(_NAMESPACE_FD, struct.pack("=I", network_fd))
    )
    info = [text_attribute(_KIND, "veth"), attribute(_DATA, [attribute(_PEER, inside)])]
    return Message(
        _NEW_LINK,
        _CREATE | _EXCLUSIVE,
        _LINK.pack(0, 0, 0, 0, 0)
        + text_attribute(_NAME, name)
        + attribute(_MTU, struct.pack("=I", mtu))
        + attribute(_MASTER, struct.pack("=I", master))
        + attribute(_LINK_INFO, info),
    )


def raise_link(index: int) -> Message:
    """Set a device up."""
    return Message(_NEW_LINK, 0, _LINK.pack(0, 0, index, _UP, _UP))


def label(name: str, alias: str) -> Message:
    """Write on a device whose it is, which cannot be done where it is made."""
    body = _LINK.pack(0, 0, 0, 0, 0) + text_attribute(_NAME, name) + text_attribute(_ALIAS, alias)
    return Message(_NEW_LINK, 0, body)


def set_master(index: int, master: int) -> Message:
    """Make a device a port of a bridge."""
    body = _LINK.pack(0, 0, index, 0, 0) + attribute(_MASTER, struct.pack("=I", master))
    return Message(_NEW_LINK, 0, body)


def raise_named(name: str, *, alias: str) -> Message:
    """Set a device up, and write on it whose it is."""
    body = _LINK.pack(0, 0, 0, _UP, _UP) + text_attribute(_NAME, name) + text_attribute(_ALIAS, alias)
    return Message(_NEW_LINK, 0, body)


def delete(index: int) -> Message:
    """Remove a device; that of a pair with the other one."""
    return Message(_DELETE_LINK, 0, _LINK.pack(0, 0, index, 0, 0))


def remove_device(connection: Netlink, name: str) -> None:
    """Remove a device of this host, and the other one of its pair; nothing happens if it is gone.

    Cost: 15 us if it is gone, else some ten milliseconds.
    """
    if not has_device(name):
        return
    reach("remove device", name)
    with contextlib.suppress(OSError):
        connection.call(delete(connection.index_of(name)))


def add_address(index: int, interface: IPv4Interface | IPv6Interface) -> Message:
    """Give a device an address, unless it has it, which brings the route to its subnet."""
    packed = interface.ip.packed
    body = _ADDRESS.pack(_FAMILIES[interface.version], interface.network.prefixlen, 0, _UNIVERSE, index)
    body += attribute(_LOCAL, packed) + attribute(1, packed)
    if interface.version == 4:  # noqa: PLR2004
        body += attribute(_BROADCAST, interface.network.broadcast_address.packed)
    else:
        # Nobody else can have an address that we have given away.
        body += attribute(_ADDRESS_FLAGS, struct.pack("=I", _NO_DUPLICATE_CHECK))
    return Message(_NEW_ADDRESS, _CREATE | _REPLACE, body)


def add_default_route(index: int, gateway: IPv4Address | IPv6Address) -> Message:
    """Send what goes nowhere else to a gateway."""
    body = _ROUTE.pack(_FAMILIES[gateway.version], 0, 0, 0, _MAIN_TABLE, _BY_BOOT, _UNIVERSE, _UNICAST, 0)
    body += attribute(_GATEWAY, gateway.packed) + attribute(_OUT, struct.pack("=I", index))
    return Message(_NEW_ROUTE, _CREATE | _EXCLUSIVE, body)


def list_links(connection: Netlink) -> Iterator[Link]:
    """All devices of a network namespace."""
    for body in connection.dump(Message(_GET_LINK, 0, _LINK.pack(0, 0, 0, 0, 0))):
        index = _LINK.unpack_from(body)[2]
        found = attributes(body[_LINK.size :])
        master = struct.unpack("=I", found[_MASTER])[0] if _MASTER in found else 0
        yield Link(index, _text(found.get(_NAME)), _text(found.get(_ALIAS)), master, found.get(_MAC, b""))


def has_device(name: str) -> bool:
    """Whether this host has a device of this name. Source: netdevice(7)."""
    with contextlib.suppress(OSError):
        socket.if_nametoindex(name)
        return bool(name)
    return False


def find(connection: Netlink, name: str) -> Link | None:
    """The device of this name."""
    return next((link for link in list_links(connection) if link.name == name), None)


def list_subnets(connection: Netlink) -> Iterator[tuple[IPv4Network | IPv6Network, int]]:
    """The subnets to which the host has routes of its own, with the device they go by; no default route."""
    for body in connection.dump(Message(_GET_ROUTE, 0, _ROUTE.pack(0, 0, 0, 0, 0, 0, 0, 0, 0))):
        family, length, *_ = _ROUTE.unpack_from(body)
        found = attributes(body[_ROUTE.size :])
        if length and _DESTINATION in found and family in _FAMILIES.values():
            index = struct.unpack("=I", found[_OUT])[0] if _OUT in found else 0
            address = ipaddress.ip_address(found[_DESTINATION])
            yield ipaddress.ip_network(f"{address}/{length}", strict=False), index


def _text(value: bytes | None) -> str:
    return (value or b"").rstrip(b"\0").decode(errors="replace")


def interface_of(text: str) -> IPv4Interface | IPv6Interface:
    """An address with the length of its subnet's prefix."""
    return ipaddress.ip_interface(text)
