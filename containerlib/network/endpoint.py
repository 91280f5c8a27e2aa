"""A container's place in a network: a namespace with a device in it that leads to its bridge.

The namespace is made before the container, which then joins it. Only descriptors and processes hold it: when
all are gone the kernel takes it away, and both devices with it.
"""

from __future__ import annotations

import contextlib
import errno
import os
from typing import TYPE_CHECKING

from attrs import frozen

from containerlib._native.netlink import Netlink, NetlinkError, new_network, open_in_network
from containerlib._util.failpoint import reach
from containerlib.errors import AddressesExhausted, UnsupportedHost
from containerlib.network import link
from containerlib.network.bridge import bridge_index, ensure_bridge, write_setting
from containerlib.network.firewall import admit, admit_changing, changing

if TYPE_CHECKING:
    from ipaddress import IPv4Address

    from containerlib.network.record import NetworkRecord, NetworkRecords

__all__ = ["INTERFACE", "Endpoint", "make_endpoint", "new_device"]

INTERFACE = "eth0"
"""The device's name in the container."""

_LOOPBACK = 1


@frozen(kw_only=True)
class Endpoint:
    """A place in a network that nobody has taken yet.

    Attributes:
        namespace_fd: The namespace; whoever has the endpoint closes it.
    """

    namespace_fd: int

    def close(self) -> None:
        """Give up the namespace, which stays as long as a process is in it."""
        os.close(self.namespace_fd)


def new_device() -> str:
    """A name for a container's device on the host, which nobody else has."""
    return f"cl-v{os.urandom(5).hex()}"


def make_endpoint(
    connection: Netlink,
    records: NetworkRecords,
    record: NetworkRecord,
    address: IPv4Address,
    container_id: str,
    device: str,
) -> Endpoint:
    """Make a namespace that is connected to a network. After a failure nothing of it is left.

    Args:
        connection: To this process's namespace.
        records: The networks of the store.
        record: The network.
        address: One of its addresses, which nobody else has.
        container_id: Whose it is to be, for who looks at the host's devices.
        device: What its device on the host is called; see `new_device`.

    Raises:
        NetworkNotFound: The network was removed meanwhile.
        AddressesExhausted: The bridge takes no more devices.
        UnsupportedHost: This process may not do that.

    Cost: a millisecond and a half, most of it the kernel's; one bridge takes 1,023 devices.
    """
    reach("make endpoint", container_id)
    admit(record)
    try:
        fd = new_network()
    except OSError as error:
        raise _refused(record, error) from None
    try:
        _connect(connection, records, record, address, container_id, device, fd)
        _set_up(record, address, fd)
    except OSError as error:
        os.close(fd)
        raise _refused(record, error) from None
    except BaseException:
        os.close(fd)
        raise
    return Endpoint(namespace_fd=fd)


def _connect(
    connection: Netlink,
    records: NetworkRecords,
    record: NetworkRecord,
    address: IPv4Address,
    container_id: str,
    device: str,
    fd: int,
) -> None:
    """Make the pair of devices; the bridge as well if it was taken away."""
    for is_last in (False, True):
        bridge = bridge_index(connection, record)
        if bridge is None:
            with records.locked(record), changing():
                admit_changing(record)
                bridge = ensure_bridge(connection, record)
        reach("connect endpoint", container_id)
        try:
            connection.call(
                link.add_pair(
                    device,
                    master=bridge,
                    mtu=record.mtu,
                    peer=INTERFACE,
                    peer_mac=link.mac_of(address),
                    network_fd=fd,
                )
            )
            write_setting(device, "ipv6", "disable_ipv6", "1")
            connection.call(link.raise_named(device, alias=f"containerlib container {container_id}"))
        except NetlinkError as error:
            if is_last or error.errno not in {errno.ENODEV, errno.EINVAL}:
                raise
        else:
            return


def _set_up(record: NetworkRecord, address: IPv4Address, fd: int) -> None:
    reach("set endpoint up", str(address))
    with contextlib.suppress(FileNotFoundError):  # a kernel without version 6
        setting = open_in_network(fd, f"/proc/sys/net/ipv6/conf/{INTERFACE}/disable_ipv6", os.O_WRONLY)
        try:
            os.write(setting, b"1")
        finally:
            os.close(setting)
    with Netlink(namespace_fd=fd) as inside:
        index = inside.index_of(INTERFACE)
        messages = [
            link.raise_link(_LOOPBACK),
            link.add_address(index, link.interface_of(f"{address}/{record.subnet.prefixlen}")),
            link.raise_link(index),
        ]
        if not record.internal:
            messages.append(link.add_default_route(index, record.gateway))
        inside.call(*messages)


def _refused(record: NetworkRecord, error: OSError) -> Exception:
    if error.errno in {errno.EPERM, errno.EACCES}:
        return UnsupportedHost("a network of its own", needed="CAP_NET_ADMIN", found="a process without it")
    if error.errno == errno.EXFULL:
        return AddressesExhausted(
            f"network {record.name!r}: its bridge takes 1,023 containers, and has them; make another network"
        )
    return error
