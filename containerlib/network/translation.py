"""What the kernel does for published ports: where packets to ports of the host really go."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
from typing import TYPE_CHECKING, TypeAlias

from containerlib._native.netlink import Netlink, NetlinkError
from containerlib._util.failpoint import reach
from containerlib.network import nftables as nft
from containerlib.network.firewall import ALL_PORTS, ONE_ADDRESS_PORTS, TABLE, admit
from containerlib.network_options import ANY_ADDRESS, EVERY_ADDRESS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from containerlib.network.record import NetworkRecord

__all__ = ["Port", "add_translations", "remove_translations"]

Port: TypeAlias = tuple[str, str, int, int]
"""Protocol, address of the host, port of the host, port in the container."""

_ANY = frozenset({EVERY_ADDRESS, ANY_ADDRESS})
_EXISTS = frozenset({errno.EEXIST, errno.EBUSY})


def _is_translated(host: str) -> bool:
    """Whether the kernel sends on what comes to an address of the host, instead of us: not on loopback."""
    if host in _ANY:
        return True
    try:
        return not ipaddress.IPv4Address(host).is_loopback
    except ValueError:
        return False


def _elements(ports: Iterable[Port]) -> Iterator[tuple[str, bytes, int]]:
    for protocol, host, host_port, port in ports:
        if host in _ANY:
            yield ALL_PORTS, nft.port_key(protocol, host_port), port
        elif _is_translated(host):
            packed = ipaddress.IPv4Address(host).packed
            yield ONE_ADDRESS_PORTS, nft.port_key(protocol, host_port, packed), port


def add_translations(record: NetworkRecord, address: str, ports: Iterable[Port]) -> None:
    """Have ports of the host lead to a container, in the place of whoever had them.

    Args:
        record: The container's network.
        address: The container's.
        ports: Which the caller holds: what is there of somebody else's is of one that is dead.

    Raises:
        UnsupportedHost: The kernel has no nftables, or this process may not use them.

    Cost: 60 us.
    """
    elements = list(_elements(ports))
    if not elements:
        return
    target = ipaddress.IPv4Address(address).packed
    with Netlink(nft.NETFILTER) as connection:
        for is_last in (False, True):
            reach("firewall", TABLE)
            try:
                _put(connection, target, elements)
            except NetlinkError as error:
                if is_last or error.errno != errno.ENOENT:
                    raise
                admit(record)  # somebody has flushed the rules
            else:
                return


def _put(connection: Netlink, target: bytes, elements: list[tuple[str, bytes, int]]) -> None:
    for name, key, port in elements:
        add = nft.add_element(TABLE, name, key, target + nft.port_word(port))
        try:
            connection.batch(nft.batch_begin(), [add], nft.batch_end())
        except NetlinkError as error:
            if error.errno not in _EXISTS:
                raise
            delete = nft.delete_element(TABLE, name, key)
            connection.batch(nft.batch_begin(), [delete, add], nft.batch_end())


def remove_translations(ports: Iterable[Port]) -> None:
    """Have ports of the host lead to nobody. The caller holds them still; what is gone is no error."""
    elements = list(_elements(ports))
    if not elements:
        return
    with Netlink(nft.NETFILTER) as connection:
        for name, key, _ in elements:
            reach("firewall", TABLE)
            with contextlib.suppress(NetlinkError):
                delete = nft.delete_element(TABLE, name, key)
                connection.batch(nft.batch_begin(), [delete], nft.batch_end())
