"""Further bridges of large networks: the kernel gives a bridge 1,023 ports, and a subnet may have more.

At which bridge a container is follows from its address, a thousand for each. All of them are connected with
the first one by a pair of devices, so that together they are one network; only the first one has an address.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from containerlib._util.failpoint import reach
from containerlib.errors import ResourceInUse
from containerlib.network import link
from containerlib.network.bridge import alias_of, bridge_index, ensure_bridge, write_setting
from containerlib.network.firewall import admit_bridge

if TYPE_CHECKING:
    from ipaddress import IPv4Address

    from containerlib._native.netlink import Netlink
    from containerlib.network.record import NetworkRecord

__all__ = ["bridge_at", "ensure_bridge_at"]

_ADDRESSES = 1000


def _name(record: NetworkRecord, address: IPv4Address) -> str:
    number = (int(address) - int(record.subnet.network_address)) // _ADDRESSES
    return f"{record.bridge[:10]}-{number:04x}" if number else record.bridge


def bridge_at(connection: Netlink, record: NetworkRecord, address: IPv4Address) -> int | None:
    """The number of the bridge at which an address is; None if it is not there, or not yet as it is to be."""
    return bridge_index(connection, _name(record, address))


def ensure_bridge_at(connection: Netlink, record: NetworkRecord, address: IPv4Address) -> int:
    """Make the bridge at which an address is unless it is there; return its number.

    The caller holds the lock of the network, and is inside `firewall.changing`.

    Raises:
        ResourceInUse, UnsupportedHost: See `ensure_bridge`.
    """
    first = ensure_bridge(connection, record)
    name = _name(record, address)
    if name == record.bridge:
        return first
    index = bridge_index(connection, name)
    if index is not None:
        return index
    admit_bridge(name)
    reach("make bridge", name)
    found = link.find(connection, name)
    if found is not None and found.alias not in {"", alias_of(record)}:
        raise ResourceInUse(
            f"network {record.name!r}: device {name} is somebody else's; make another network"
        )
    # Of somebody who was killed who made it: it is set up last.
    link.remove_device(connection, name)
    try:
        return _make(connection, record, name, first)
    except BaseException:
        with contextlib.suppress(OSError):
            link.remove_device(connection, name)
        raise


def _make(connection: Netlink, record: NetworkRecord, name: str, first: int) -> int:
    mac = b"\x02" + os.urandom(5)
    connection.call(link.add_bridge(name, mac=mac, mtu=record.mtu), link.label(name, alias_of(record)))
    index = connection.index_of(name)
    write_setting(name, "ipv6", "disable_ipv6", "1")
    here = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    ends = [f"cl-s{os.urandom(5).hex()}" for _ in range(2)]
    try:
        connection.call(
            link.add_pair(
                ends[0],
                master=index,
                mtu=record.mtu,
                peer=ends[1],
                peer_mac=b"\x02" + os.urandom(5),
                network_fd=here,
            )
        )
    finally:
        os.close(here)
    for end in ends:
        write_setting(end, "ipv6", "disable_ipv6", "1")
        connection.call(link.raise_named(end, alias=alias_of(record)))
    connection.call(link.set_master(connection.index_of(ends[1]), first))
    reach("set bridge up", name)
    connection.call(link.raise_link(index))
    return index
