"""Containers in the networks of the store: their addresses and endpoints, and who is in one."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from containerlib._native.netlink import Netlink
from containerlib.errors import NetworkNotFound, ResourceInUse
from containerlib.network.address import AddressLeases
from containerlib.network.endpoint import make_endpoint
from containerlib.network.networks import remove_network
from containerlib.network.record import NetworkRecords
from containerlib.runtime.files import JoinedNetwork

if TYPE_CHECKING:
    from collections.abc import Iterator

    from containerlib.container.entry import ContainerEntry
    from containerlib.container.session import Session
    from containerlib.network.record import NetworkRecord

__all__ = ["address_of", "containers_in", "discard", "endpoint", "find", "give_back"]

_SHOWN = 5


def find(session: Session, key: str) -> NetworkRecord:
    """The network of this name or id.

    Raises:
        NetworkNotFound: There is none.
    """
    return NetworkRecords(session.stores.layout).get(key)


@contextlib.contextmanager
def endpoint(entry: ContainerEntry) -> Iterator[JoinedNetwork]:
    """A place in the container's network, for the length of a block; see `network.joined_network`."""
    session = entry.session
    record = find(session, entry.config.network)
    leases = AddressLeases(session.stores.layout, record)
    is_new = leases.address_of(entry.id) is None
    address = leases.take(entry.id, entry.name, _owner(entry))
    try:
        with Netlink() as connection:
            made = make_endpoint(connection, NetworkRecords(session.stores.layout), record, address, entry.id)
        try:
            yield JoinedNetwork(
                namespace_fd=made.namespace_fd, address=str(address), is_open=not record.internal
            )
        finally:
            made.close()
    except BaseException:
        if is_new:
            leases.give_back(entry.id)
        raise


def _owner(entry: ContainerEntry) -> str:
    """What an address is kept for: a container that stays, or this engine."""
    if entry.is_detached and entry.layers.directory is not None:
        return entry.layers.directory
    return entry.session.directory


def give_back(entry: ContainerEntry) -> None:
    """After the container's removal: let others have its address."""
    with contextlib.suppress(NetworkNotFound, OSError):
        _leases(entry).give_back(entry.id)


def address_of(entry: ContainerEntry) -> str | None:
    """The container's address; None before its first start, or if the network is gone."""
    with contextlib.suppress(NetworkNotFound):
        found = _leases(entry).address_of(entry.id)
        return None if found is None else str(found)
    return None


def _leases(entry: ContainerEntry) -> AddressLeases:
    return AddressLeases(entry.session.stores.layout, find(entry.session, entry.config.network))


def containers_in(session: Session, record: NetworkRecord) -> dict[str, str]:
    """The containers in a network, running or not: their addresses by their names; empty for none yet."""
    leases = AddressLeases(session.stores.layout, record).list()
    found = {lease.container_name: str(lease.address) for lease in leases}
    for entry in session.entries():
        if entry.config.network in {record.name, record.id}:
            found.setdefault(entry.name, "")
    return dict(sorted(found.items()))


def discard(session: Session, record: NetworkRecord) -> None:
    """Remove a network.

    Raises:
        NetworkNotFound: It is gone already.
        ResourceInUse: A container is in it, running or not.
    """
    with NetworkRecords(session.stores.layout).locked(record):
        names = list(containers_in(session, record))
        if names:
            shown = ", ".join(names[:_SHOWN]) + (" and others" if len(names) > _SHOWN else "")
            raise ResourceInUse(f"network {record.name!r} is that of {shown}; remove them first")
        remove_network(session.stores.layout, record)
