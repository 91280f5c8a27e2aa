"""Containers in the networks of the store: their addresses and endpoints, and who is in one."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from attrs import evolve

from containerlib._native.netlink import Netlink
from containerlib.container import published
from containerlib.errors import ContainerlibError, NetworkNotFound, ResourceInUse
from containerlib.network.address import AddressLeases, Holder
from containerlib.network.attend import attend, leave
from containerlib.network.endpoint import make_endpoint, new_device
from containerlib.network.link import remove_device
from containerlib.network.networks import remove_network
from containerlib.network.record import NetworkRecords
from containerlib.network.subnet import parse_address
from containerlib.runtime.files import JoinedNetwork

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from containerlib.container.entry import ContainerEntry
    from containerlib.container.session import Session
    from containerlib.network.publish import HeldPorts
    from containerlib.network.record import NetworkRecord

__all__ = [
    "address_of",
    "containers_in",
    "discard",
    "endpoint",
    "find",
    "give_back",
    "joined",
    "list_all",
    "rename",
]

_SHOWN, _SHORT_ID = 5, 12


def find(session: Session, key: str) -> NetworkRecord:
    """The network of this name or id.

    Raises:
        NetworkNotFound: There is none.
    """
    return NetworkRecords(session.stores.layout).get(key)


def list_all(session: Session) -> list[NetworkRecord]:
    """The networks of the store, by name."""
    return NetworkRecords(session.stores.layout).list()


@contextlib.contextmanager
def endpoint(entry: ContainerEntry) -> Iterator[JoinedNetwork]:
    """A place in the container's network, for the length of a block; see `network.joined_network`."""
    layout = entry.session.stores.layout
    records = NetworkRecords(layout)
    record = records.get(entry.config.network)
    leases = AddressLeases(layout, record)
    is_new = leases.address_of(entry.id) is None
    wanted = entry.config.ip_address
    chosen = None if wanted is None else parse_address("ip_address", wanted, record.subnet)
    with contextlib.closing(published.held_ports(entry, record)) as held:
        holder = _holder(entry, held)
        # Who removes a network holds its lock: afterwards it is gone, or has somebody in it.
        with records.locked(record):
            address, former = leases.take(holder, chosen)
        try:
            with Netlink() as connection:
                remove_device(connection, former)
                made = make_endpoint(connection, records, record, address, entry.id, holder.device)
            try:
                attend(layout, record, leases.directory)
                published.publish(layout, record, str(address), holder, held)
                yield _joined(record, made.namespace_fd, str(address))
            finally:
                made.close()
        except BaseException:
            published.give_up(entry)
            if is_new:
                leases.give_back(entry.id)
            raise


def _holder(entry: ContainerEntry, held: HeldPorts) -> Holder:
    """What its network knows of a container that is about to start."""
    return Holder(
        container_id=entry.id,
        container_name=entry.name,
        owner=_owner(entry),
        device=new_device(),
        names=_names(entry.name, entry.id),
        dns=entry.config.dns,
        ports=published.ports_of(held),
    )


def _names(name: str, container_id: str) -> tuple[str, ...]:
    return name, container_id[:_SHORT_ID]


def rename(entry: ContainerEntry) -> None:
    """After it got another name: have it found by that."""

    def change(holder: Holder) -> Holder:
        return evolve(holder, container_name=entry.name, names=_names(entry.name, entry.id))

    with contextlib.suppress(ContainerlibError, OSError):
        _leases(entry).change(entry.id, change)


def joined(entry: ContainerEntry, namespace_fd: int) -> JoinedNetwork:
    """The network of a running container, for another one that shares it."""
    record = find(entry.session, entry.config.network)
    return _joined(record, namespace_fd, address_of(entry) or "")


def _joined(record: NetworkRecord, namespace_fd: int, address: str) -> JoinedNetwork:
    return JoinedNetwork(
        namespace_fd=namespace_fd,
        address=address,
        gateway=str(record.gateway),
        is_open=not record.internal,
    )


def _owner(entry: ContainerEntry) -> str:
    """What an address is kept for: a container that stays, or this engine."""
    if entry.is_detached and entry.layers.directory is not None:
        return entry.layers.directory
    return entry.session.directory


def give_back(entry: ContainerEntry) -> None:
    """After the container's removal: let others have its address."""
    with contextlib.suppress(ContainerlibError, OSError):
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
    mine = {
        each.id: each.name for each in session.entries() if each.config.network in {record.name, record.id}
    }
    found = {
        mine.pop(lease.holder.container_id, lease.holder.container_name): str(lease.address)
        for lease in AddressLeases(session.stores.layout, record).list()
    }
    return dict(sorted({**dict.fromkeys(mine.values(), ""), **found}.items()))


def discard(session: Session, record: NetworkRecord) -> None:
    """Remove a network.

    Raises:
        NetworkNotFound: It is gone already.
        ResourceInUse: A container is in it, running or not.
    """
    # Containers are locked by who looks at them, and whoever starts one wants the lock of its network.
    _require_nobody(record, containers_in(session, record))
    with NetworkRecords(session.stores.layout).locked(record):
        leases = AddressLeases(session.stores.layout, record).list()
        _require_nobody(record, [lease.holder.container_name for lease in leases])
        leave(session.stores.layout, record)
        remove_network(session.stores.layout, record)
    session.stores.journal.record("network", "destroy", record.id, record.name, dict(record.labels))


def _require_nobody(record: NetworkRecord, names: Collection[str]) -> None:
    if names:
        shown = ", ".join(list(names)[:_SHOWN]) + (" and others" if len(names) > _SHOWN else "")
        raise ResourceInUse(f"network {record.name!r} is that of {shown}; remove them first")
