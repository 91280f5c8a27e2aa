"""Making networks, and removing them."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from containerlib._native.netlink import Netlink
from containerlib._util import file_lock
from containerlib.errors import InvalidOption, NameInUse, NetworkNotFound
from containerlib.network import link
from containerlib.network.address import AddressLeases
from containerlib.network.bridge import ensure_bridge, remove_bridge
from containerlib.network.firewall import admit_changing, changing, expel
from containerlib.network.record import DEFAULT, RESERVED, NetworkRecord, NetworkRecords
from containerlib.network.subnet import choose_subnet, gateway_of, parse_subnet
from containerlib.store.layout import checked_name

if TYPE_CHECKING:
    from collections.abc import Mapping

    from containerlib.store.layout import Layout

__all__ = ["create_network", "find_network", "remove_network", "take_down"]

_LEAST_MTU, _USUAL_MTU, _MOST_MTU = 576, 1500, 65535


def create_network(
    layout: Layout,
    name: str,
    *,
    subnet: str | None,
    gateway: str | None,
    internal: bool,
    mtu: int,
    labels: Mapping[str, str],
) -> NetworkRecord:
    """Make a network and its bridge. After a failure nothing of it is left.

    Raises:
        InvalidOption: A value that no host could honour, or a subnet that is in use.
        NameInUse: There is one with this name.
        AddressesExhausted: No subnet is left.
        UnsupportedHost: This process may not, or the kernel has no bridges or nftables.
    """
    _check(name, mtu)
    return _create(layout, name, subnet=subnet, gateway=gateway, internal=internal, mtu=mtu, labels=labels)


def find_network(layout: Layout, key: str) -> NetworkRecord:
    """The network of this name or id; the default one is made if it is not there.

    Raises:
        NetworkNotFound: There is none.
        AddressesExhausted, UnsupportedHost: See `create_network`.
    """
    records = NetworkRecords(layout)
    try:
        return records.get(key)
    except NetworkNotFound:
        if key != DEFAULT:
            raise
    with contextlib.suppress(NameInUse):  # somebody was faster
        _create(layout, key, subnet=None, gateway=None, internal=False, mtu=_USUAL_MTU, labels={})
    return records.get(key)


def _create(
    layout: Layout,
    name: str,
    *,
    subnet: str | None,
    gateway: str | None,
    internal: bool,
    mtu: int,
    labels: Mapping[str, str],
) -> NetworkRecord:
    records = NetworkRecords(layout)
    # One after the other, or two would choose the same subnet.
    with file_lock.locked(f"{layout.locks}/networks"), Netlink() as connection:
        taken = [
            *(each for each, _ in link.list_subnets(connection)),
            *(each.subnet for each in records.list()),
        ]
        chosen = choose_subnet(taken) if subnet is None else parse_subnet(subnet, taken)
        record = NetworkRecord(
            id=os.urandom(32).hex(),
            name=name,
            subnet=chosen,
            gateway=gateway_of(chosen, gateway),
            internal=internal,
            mtu=mtu,
            labels=labels,
        )
        try:
            records.add(record)
            with records.locked(record), changing():
                admit_changing(record)
                ensure_bridge(connection, record)
        except NameInUse:
            raise
        except BaseException:
            # Also of one that was written down, and then the disk failed.
            with contextlib.suppress(Exception), records.locked(record), changing():
                expel(remove_bridge(connection, record))
                records.remove(record)
            raise
    return record


def remove_network(layout: Layout, record: NetworkRecord) -> None:
    """Remove a network with its bridge; the caller holds its lock, and nobody is in it."""
    _remove_bridge(record)
    AddressLeases(layout, record).remove()
    NetworkRecords(layout).remove(record)


def _remove_bridge(record: NetworkRecord) -> None:
    with changing(), Netlink() as connection:
        expel(remove_bridge(connection, record))


def take_down(layout: Layout, record: NetworkRecord) -> None:
    """Remove the bridge of a network in which nobody has an address; the next start has another one.

    Nothing happens if somebody has one, or is about to get it.
    """
    leases = AddressLeases(layout, record)
    # Without a store there is nobody to ask, and no lock to be made.
    there = leases.nobody() if os.path.isdir(leases.directory) else contextlib.nullcontext(enter_result=True)
    with there as is_empty:
        if is_empty:
            _remove_bridge(record)


def _check(name: str, mtu: int) -> None:
    checked_name(name, "network name")
    if name in RESERVED:
        raise InvalidOption(
            "name", name, f"is one of {', '.join(sorted(RESERVED))}, which mean something else"
        )
    if not _LEAST_MTU <= mtu <= _MOST_MTU:
        raise InvalidOption("mtu", mtu, f"must be from {_LEAST_MTU} to {_MOST_MTU} bytes")
