"""The bridge of a network on the host: made when it is missing, never one of somebody else's."""

from __future__ import annotations

import contextlib
import errno
import os
from typing import TYPE_CHECKING

from containerlib._native.netlink import NetlinkError
from containerlib._util.failpoint import reach
from containerlib.errors import ResourceInUse, UnsupportedHost
from containerlib.network import link

if TYPE_CHECKING:
    from containerlib._native.netlink import Netlink
    from containerlib.network.record import NetworkRecord

__all__ = ["alias_of", "bridge_index", "ensure_bridge", "remove_bridge", "write_setting"]

_ALIAS = "containerlib network "
# Of addresses of version 6 the network has none, and nobody on it may hand some out.
_SETTINGS = (("ipv6", "disable_ipv6", "1"), ("ipv6", "accept_ra", "0"), ("ipv4", "accept_redirects", "0"))


def alias_of(record: NetworkRecord) -> str:
    """What is written on the bridges of a network."""
    return _ALIAS + record.id


def bridge_index(connection: Netlink, name: str) -> int | None:
    """The number of a bridge; None if it is not there, or not yet as it is to be."""
    try:
        return connection.index_of(name) if connection.is_up(name) else None
    except OSError:
        return None


def ensure_bridge(connection: Netlink, record: NetworkRecord) -> int:
    """Make the bridge unless it is there, with the gateway's address; return its number.

    The caller holds the lock of the network.

    Raises:
        ResourceInUse: Another network has its subnet, or its name.
        UnsupportedHost: This process may not make one.
    """
    index = bridge_index(connection, record.bridge)
    if index is not None:
        return index
    try:
        return _make(connection, record)
    except OSError as error:
        raise _refused(record, error) from None


def _make(connection: Netlink, record: NetworkRecord) -> int:
    """Make it, or go on where somebody was killed who made it: it is set up last."""
    found = link.find(connection, record.bridge)
    if found is None:
        reach("make bridge", record.bridge)
        mac = link.mac_of(record.gateway)
        connection.call(
            link.add_bridge(record.bridge, mac=mac, mtu=record.mtu),
            link.label(record.bridge, alias_of(record)),
        )
    elif found.alias != alias_of(record):
        raise ResourceInUse(
            f"network {record.name!r}: somebody else has made a device {record.bridge}; remove that"
        )
    index = connection.index_of(record.bridge)
    try:
        _set_up(connection, record, index)
    except BaseException:
        with contextlib.suppress(OSError):
            connection.call(link.delete(index))
        raise
    return index


def _set_up(connection: Netlink, record: NetworkRecord, index: int) -> None:
    for family, name, value in _SETTINGS:
        write_setting(record.bridge, family, name, value)
    reach("set bridge up", record.bridge)
    interface = f"{record.gateway}/{record.subnet.prefixlen}"
    connection.call(link.add_address(index, link.interface_of(interface)), link.raise_link(index))
    for subnet, other in link.list_subnets(connection):
        # Two stores may have chosen the same at the same moment.
        if other != index and subnet.version == record.subnet.version and subnet.overlaps(record.subnet):
            raise ResourceInUse(
                f"network {record.name!r}: its subnet {record.subnet} overlaps with {subnet}, to which this "
                "host has another way; remove the network and make it anew"
            )


def remove_bridge(connection: Netlink, record: NetworkRecord) -> set[str]:
    """Remove the bridges, if they are there and ours, with the devices of containers that have ended.

    Such a device may stay for minutes: as long as a connection of the container waits for an answer.

    Returns:
        What they were called; see `firewall.expel`.
    """
    links = list(link.list_links(connection))
    owned = {each.index: each.name for each in links if each.alias == alias_of(record)}
    for each in links:
        if each.master in owned and each.index not in owned:
            link.remove_device(connection, each.name)
    for index, name in owned.items():
        reach("remove bridge", name)
        with contextlib.suppress(OSError):  # gone meanwhile
            connection.call(link.delete(index))
    return {record.bridge, *owned.values()}


def write_setting(device: str, family: str, name: str, value: str) -> None:
    """Change a setting of a device of the host; a kernel without that family has none to change."""
    path = f"/proc/sys/net/{family}/conf/{device}/{name}"
    reach("network setting", path)
    with contextlib.suppress(FileNotFoundError):
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, value.encode())
        finally:
            os.close(fd)


def _refused(record: NetworkRecord, error: OSError) -> Exception:
    if error.errno in {errno.EPERM, errno.EACCES}:
        return UnsupportedHost("a network of its own", needed="CAP_NET_ADMIN", found="a process without it")
    if error.errno == errno.EOPNOTSUPP:
        return UnsupportedHost(
            "a network of its own", needed="the kernel's bridge device", found=str(error.strerror)
        )
    if error.errno == errno.EEXIST and isinstance(error, NetlinkError):
        return ResourceInUse(
            f"network {record.name!r}: a device {record.bridge} appeared meanwhile; try again"
        )
    return error
