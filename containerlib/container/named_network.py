"""Containers in the networks of the store: their addresses and endpoints, and who is in one."""

from __future__ import annotations

import contextlib
import os
from functools import partial
from typing import TYPE_CHECKING

from attrs import evolve, frozen

from containerlib._native.netlink import Netlink
from containerlib.container import published
from containerlib.container.network import is_named
from containerlib.errors import ContainerlibError, NetworkNotFound, ResourceInUse
from containerlib.network.address import AddressLeases, Holder, Lease
from containerlib.network.attend import attend, leave
from containerlib.network.endpoint import (
    Place,
    forget_device,
    join_network,
    leave_network,
    new_device,
    new_namespace,
    raise_loopback,
)
from containerlib.network.link import remove_device
from containerlib.network.networks import find_network, remove_network
from containerlib.network.record import NetworkRecords
from containerlib.network.subnet import parse_address
from containerlib.network_options import NetworkAttachment, mac_bytes
from containerlib.runtime import capability
from containerlib.runtime.files import JoinedNetwork

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from containerlib.container.entry import ContainerEntry
    from containerlib.container.session import Session
    from containerlib.network.publish import HeldPorts
    from containerlib.network.record import NetworkRecord
    from containerlib.options import Security
    from containerlib.runtime.config import ContainerConfig

__all__ = [
    "TakenPlace",
    "address_of",
    "addresses_of",
    "attachments",
    "containers_in",
    "discard",
    "endpoint",
    "find",
    "give_back",
    "joined",
    "list_all",
    "rename",
    "take_place",
]

_SHOWN, _SHORT_ID = 5, 12
_PRETENDING = frozenset({"CAP_NET_RAW", "CAP_NET_ADMIN"})


def find(session: Session, key: str) -> NetworkRecord:
    """The network of this name or id.

    Raises:
        NetworkNotFound: There is none.
    """
    return find_network(session.stores.layout, key)


def list_all(session: Session) -> list[NetworkRecord]:
    """The networks of the store, by name."""
    return NetworkRecords(session.stores.layout).list()


def attachments(config: ContainerConfig) -> tuple[NetworkAttachment, ...]:
    """The networks that a container is in, the one that it was made in first."""
    if config.is_disconnected or not is_named(config.network):
        return config.networks
    own = NetworkAttachment(
        network=config.network,
        ip_address=config.ip_address,
        mac_address=config.mac_address,
        aliases=config.network_aliases,
    )
    return (own, *config.networks)


@contextlib.contextmanager
def endpoint(entry: ContainerEntry) -> Iterator[JoinedNetwork]:
    """Places in the container's networks, for the length of a block; see `network.joined_network`."""
    config = entry.config
    first = find(entry.session, config.network)
    with contextlib.ExitStack() as undo:
        is_published = bool(config.ports) and not config.is_disconnected
        held = published.held_ports(entry, first) if is_published else published.NO_PORTS
        undo.callback(held.close)
        namespace = new_namespace()
        undo.callback(os.close, namespace)
        with contextlib.ExitStack() as failed:
            taken: list[TakenPlace] = []
            for number, each in enumerate(attachments(config)):
                ports = published.NO_PORTS if taken else held
                taken.append(take_place(entry, each, namespace, f"eth{number}", ports))
                failed.callback(taken[-1].undo)
            if held.mappings:
                failed.callback(published.give_up, entry)
                published.publish(entry, first, str(taken[0].place.address), held)
            if not taken:
                raise_loopback(namespace)
            yield _joined(first, namespace, str(taken[0].place.address) if taken else "")
            failed.pop_all()


@frozen(kw_only=True)
class TakenPlace:
    """A place in a network that a container has got just now.

    Attributes:
        record: The network.
        place: The container's place in it.
    """

    record: NetworkRecord
    place: Place
    _leases: AddressLeases
    _container_id: str
    _is_new: bool

    def undo(self) -> None:
        """Take it back; an address that the container had before is kept for it."""
        lease = self._leases.find(self._container_id)
        if lease is not None:
            with contextlib.suppress(OSError), Netlink() as connection:
                leave_network(connection, lease)
        if self._is_new:
            self._leases.give_back(self._container_id)


def take_place(
    entry: ContainerEntry,
    attachment: NetworkAttachment,
    namespace_fd: int,
    interface: str,
    held: HeldPorts = published.NO_PORTS,
) -> TakenPlace:
    """Connect a container's namespace to a network. After a failure nothing of it is left.

    Raises:
        NetworkNotFound: The network was removed.
        ResourceInUse: Somebody has the address that it wants.
        AddressesExhausted: No address is left.
        InvalidOption: The address is none of that network.
        UnsupportedHost: This process may not do that.
    """
    layout = entry.session.stores.layout
    records = NetworkRecords(layout)
    record = find_network(layout, attachment.network)
    leases = AddressLeases(layout, record)
    before = leases.find(entry.id)
    if before is not None:
        forget_device(before)
    wanted = attachment.ip_address
    chosen = None if wanted is None else parse_address("ip_address", wanted, record.subnet)
    holder = _holder(entry, attachment, held)
    # Who removes a network holds its lock: afterwards it is gone, or has somebody in it.
    with records.locked(record):
        address, former = leases.take(holder, chosen)
    taken = TakenPlace(
        record=record,
        place=Place(
            address=address,
            mac=Lease(address=address, holder=holder).mac,
            device=holder.device,
            interface=interface,
            is_locked=holder.is_locked,
        ),
        leases=leases,
        container_id=entry.id,
        is_new=before is None,
    )
    try:
        with Netlink() as connection:
            remove_device(connection, former)
            join_network(connection, records, record, taken.place, entry.id, namespace_fd)
        attend(layout, record, leases.directory)
    except BaseException:
        taken.undo()
        raise
    return taken


def _holder(entry: ContainerEntry, attachment: NetworkAttachment, held: HeldPorts) -> Holder:
    """What a network knows of a container that is about to come into it."""
    return Holder(
        container_id=entry.id,
        container_name=entry.name,
        owner=_owner(entry),
        device=new_device(),
        names=_names(entry, attachment),
        mac="" if attachment.mac_address is None else mac_bytes(attachment.mac_address).hex(),
        is_locked=_could_pretend(entry.config.security),
        dns=entry.config.dns,
        ports=published.ports_of(held),
    )


def _could_pretend(security: Security) -> bool:
    """Whether its processes could send what the kernel would not send for them."""
    return bool(capability.apply(frozenset(), security.cap_add, security.cap_drop) & _PRETENDING)


def _names(entry: ContainerEntry, attachment: NetworkAttachment) -> tuple[str, ...]:
    return entry.name, entry.id[:_SHORT_ID], *attachment.aliases


def rename(entry: ContainerEntry) -> None:
    """After it got another name: have it found by that."""
    for attachment in attachments(entry.config):
        change = partial(evolve, container_name=entry.name, names=_names(entry, attachment))
        with contextlib.suppress(ContainerlibError, OSError):
            _leases(entry, attachment).change(entry.id, change)


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
    """After the container's removal: let others have its addresses."""
    for attachment in attachments(entry.config):
        with contextlib.suppress(ContainerlibError, OSError):
            leases = _leases(entry, attachment)
            lease = leases.find(entry.id)
            if lease is not None:
                forget_device(lease)
                leases.give_back(entry.id)


def addresses_of(entry: ContainerEntry) -> dict[str, str]:
    """The container's addresses by its networks; of those that have none yet, or are gone, none."""
    found = {}
    for attachment in attachments(entry.config):
        with contextlib.suppress(NetworkNotFound):
            address = _leases(entry, attachment).address_of(entry.id)
            if address is not None:
                found[attachment.network] = str(address)
    return found


def address_of(entry: ContainerEntry) -> str | None:
    """The container's address in the first of its networks; None before its first start."""
    return next(iter(addresses_of(entry).values()), None)


def _leases(entry: ContainerEntry, attachment: NetworkAttachment) -> AddressLeases:
    return AddressLeases(entry.session.stores.layout, find(entry.session, attachment.network))


def containers_in(session: Session, record: NetworkRecord) -> dict[str, str]:
    """The containers in a network, running or not: their addresses by their names; empty for none yet."""
    mine = {
        each.id: each.name
        for each in session.entries()
        if any(place.network in {record.name, record.id} for place in attachments(each.config))
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
