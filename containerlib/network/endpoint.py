"""A container's place in a network: a namespace with a device in it that leads to its bridge.

The namespace is made before the container, which then joins it. Only descriptors and processes hold it: when
all are gone the kernel takes it away, and both devices with it.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from attrs import frozen

from containerlib._native.netlink import Netlink, NetlinkError, new_network
from containerlib._util.failpoint import reach
from containerlib.errors import AddressesExhausted, UnsupportedHost
from containerlib.network import link
from containerlib.network.bridge import write_setting
from containerlib.network.fault import clear_fault
from containerlib.network.firewall import admit, admit_changing, changing
from containerlib.network.segment import bridge_at, ensure_bridge_at
from containerlib.network.sender_lock import lock_sender, unlock_sender

if TYPE_CHECKING:
    from ipaddress import IPv4Address

    from containerlib.network.address import Lease
    from containerlib.network.record import NetworkRecord, NetworkRecords

__all__ = [
    "Place",
    "forget_device",
    "interfaces_of",
    "join_network",
    "leave_network",
    "new_device",
    "new_namespace",
    "raise_loopback",
    "restore_route",
]

_LOOPBACK = 1


@frozen(kw_only=True)
class Place:
    """Where a container is in a network.

    Attributes:
        address: Its address, which nobody else has.
        mac: The address of its device.
        device: What its device on the host is called; see `new_device`.
        interface: What the device is called in the container.
        is_locked: Whether nothing may come from it but what has these addresses as its sender.
    """

    address: IPv4Address
    mac: bytes
    device: str
    interface: str
    is_locked: bool = False


def new_device() -> str:
    """A name for a container's device on the host, which nobody else has."""
    return f"cl-v{os.urandom(5).hex()}"


def new_namespace() -> int:
    """Make a network namespace, with a loopback device that is down; the caller closes its descriptor.

    Raises:
        UnsupportedHost: This process may not do that.
    """
    reach("make network namespace", "")
    try:
        return new_network()
    except OSError as error:
        if error.errno not in {errno.EPERM, errno.EACCES}:
            raise
        raise _not_allowed() from None


def raise_loopback(namespace_fd: int) -> None:
    """Set the loopback device of a namespace up."""
    with Netlink(namespace_fd=namespace_fd) as inside:
        inside.call(link.raise_link(_LOOPBACK))


def join_network(
    connection: Netlink,
    records: NetworkRecords,
    record: NetworkRecord,
    place: Place,
    container_id: str,
    namespace_fd: int,
) -> None:
    """Connect a namespace to a network. After a failure its device may be there; see `leave_network`.

    What goes elsewhere goes by this network if it has a way out and the namespace has none yet.

    Args:
        connection: To this process's namespace.
        records: The networks of the store.
        record: The network.
        place: What the namespace gets there.
        container_id: Whose it is to be, for who looks at the host's devices.
        namespace_fd: The namespace.

    Raises:
        NetworkNotFound: The network was removed meanwhile.
        AddressesExhausted: The bridge takes no more devices.
        UnsupportedHost: This process may not do that.

    Cost: a millisecond, most of it the kernel's.
    """
    admit(record)
    try:
        _connect(connection, records, record, place, container_id, namespace_fd)
        _set_up(record, place, namespace_fd)
    except OSError as error:
        raise _refused(record, error) from None


def leave_network(connection: Netlink, lease: Lease) -> None:
    """Take a container's device away, if it is there, and what is said of it."""
    link.remove_device(connection, lease.holder.device)
    forget_device(lease)


def forget_device(lease: Lease) -> None:
    """Forget what is said of a device that is gone, or about to go."""
    if lease.holder.is_faulty:
        clear_fault(lease.holder.device)
    if lease.holder.is_locked:
        unlock_sender(lease.holder.device, lease.mac, lease.address)


def _connect(
    connection: Netlink,
    records: NetworkRecords,
    record: NetworkRecord,
    place: Place,
    container_id: str,
    fd: int,
) -> None:
    """Make the pair of devices; the bridge as well if it was taken away."""
    for is_last in (False, True):
        bridge = bridge_at(connection, record, place.address)
        if bridge is None:
            with records.locked(record), changing():
                admit_changing(record)
                bridge = ensure_bridge_at(connection, record, place.address)
        reach("connect endpoint", container_id)
        try:
            connection.call(
                link.add_pair(
                    place.device,
                    master=bridge,
                    mtu=record.mtu,
                    peer=place.interface,
                    peer_mac=place.mac,
                    network_fd=fd,
                )
            )
            if place.is_locked:
                lock_sender(place.device, place.mac, place.address)
            write_setting(place.device, "ipv6", "disable_ipv6", "1")
            connection.call(link.raise_named(place.device, alias=f"containerlib container {container_id}"))
        except NetlinkError as error:
            if is_last or error.errno not in {errno.ENODEV, errno.EINVAL}:
                raise
        else:
            return


def _set_up(record: NetworkRecord, place: Place, fd: int) -> None:
    reach("set endpoint up", str(place.address))
    with Netlink(namespace_fd=fd) as inside:
        index = inside.index_of(place.interface)
        inside.call(
            link.raise_link(_LOOPBACK),
            link.add_address(index, link.interface_of(f"{place.address}/{record.subnet.prefixlen}")),
            link.raise_link(index),
        )
        if not record.internal:
            _route(inside, index, record.gateway)


def _route(inside: Netlink, index: int, gateway: IPv4Address) -> None:
    try:
        inside.call(link.add_default_route(index, gateway))
    except NetlinkError as error:
        if error.errno != errno.EEXIST:
            raise


def restore_route(namespace_fd: int, interface: str, gateway: IPv4Address) -> None:
    """Send what goes elsewhere by a network, if nothing else is said any more."""
    with Netlink(namespace_fd=namespace_fd) as inside:
        _route(inside, inside.index_of(interface), gateway)


def interfaces_of(namespace_fd: int) -> dict[str, bytes]:
    """The devices of a namespace, with their addresses."""
    with Netlink(namespace_fd=namespace_fd) as inside:
        return {each.name: each.mac for each in link.list_links(inside)}


def _refused(record: NetworkRecord, error: OSError) -> Exception:
    if error.errno in {errno.EPERM, errno.EACCES}:
        return _not_allowed()
    if error.errno == errno.EXFULL:
        return AddressesExhausted(
            f"network {record.name!r}: its bridge has 1,023 devices, some of them not ours; remove those"
        )
    return error


def _not_allowed() -> UnsupportedHost:
    return UnsupportedHost("a network of its own", needed="CAP_NET_ADMIN", found="a process without it")
