"""Containers come into networks and leave them, running or not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import evolve

from containerlib._native.netlink import Netlink
from containerlib.container import named_network, published
from containerlib.container.named_network import attachments, take_place
from containerlib.container.network import entered_network, is_named
from containerlib.container.state import check_state
from containerlib.errors import InvalidOption, InvalidState, ResourceInUse
from containerlib.network.address import AddressLeases
from containerlib.network.endpoint import interfaces_of, leave_network, restore_route

if TYPE_CHECKING:
    from containerlib.container.entry import ContainerEntry
    from containerlib.network.record import NetworkRecord
    from containerlib.network_options import NetworkAttachment
    from containerlib.runtime.config import ContainerConfig

__all__ = ["connect", "disconnect"]


def connect(entry: ContainerEntry, attachment: NetworkAttachment, record: NetworkRecord) -> None:
    """Have a container in a network; see `Network.connect`."""
    with entry.exclusively():
        check_state("connect", entry.refresh(), entry.name)
        _require_named(entry)
        if _place_of(entry, record) is not None:
            raise ResourceInUse(f"container {entry.name!r} is in network {record.name!r} already")
        config = _with(entry.config, attachment, record)
        if not entry.state.is_alive:
            _change(entry, config)
        else:
            _sweep(entry, record)
            with entered_network(entry) as namespace:
                taken = take_place(entry, attachment, namespace, _next_interface(namespace))
                try:
                    _change(entry, config)
                except BaseException:
                    taken.undo()
                    raise
        _tell(entry, "connect", record)


def disconnect(entry: ContainerEntry, record: NetworkRecord) -> None:
    """Have a container in a network no more; see `Network.disconnect`."""
    with entry.exclusively():
        check_state("disconnect", entry.refresh(), entry.name)
        place = _place_of(entry, record)
        if place is None:
            raise InvalidState(
                f"container {entry.name!r} is not in network {record.name!r}",
                expected="connected",
                actual="not connected",
            )
        config = _without(entry.config, place)
        if config.is_disconnected and entry.config.ports:
            published.give_up(entry)
        leases = AddressLeases(entry.session.stores.layout, record)
        lease = leases.find(entry.id)
        if lease is not None and entry.state.is_alive:
            with Netlink() as connection:
                leave_network(connection, lease)
        leases.give_back(entry.id)
        _change(entry, config)
        if entry.state.is_alive:
            _restore_route(entry)
        _tell(entry, "disconnect", record)


def _sweep(entry: ContainerEntry, record: NetworkRecord) -> None:
    """Take away what somebody has left who was killed while connecting."""
    lease = AddressLeases(entry.session.stores.layout, record).find(entry.id)
    if lease is not None:
        with Netlink() as connection:
            leave_network(connection, lease)


def _require_named(entry: ContainerEntry) -> None:
    network = entry.config.network
    if not is_named(network):
        remedy = f"container {entry.name!r} was made for it; make one in a network of the store"
        raise InvalidOption("network", network, remedy)


def _place_of(entry: ContainerEntry, record: NetworkRecord) -> NetworkAttachment | None:
    names = {record.name, record.id}
    return next((each for each in attachments(entry.config) if each.network in names), None)


def _with(config: ContainerConfig, attachment: NetworkAttachment, record: NetworkRecord) -> ContainerConfig:
    if not config.is_disconnected or config.network not in {record.name, record.id}:
        return evolve(config, networks=(*config.networks, attachment))
    return evolve(
        config,
        is_disconnected=False,
        ip_address=attachment.ip_address,
        mac_address=attachment.mac_address,
        network_aliases=attachment.aliases,
    )


def _without(config: ContainerConfig, place: NetworkAttachment) -> ContainerConfig:
    if place.network == config.network:
        return evolve(config, is_disconnected=True)
    return evolve(config, networks=tuple(each for each in config.networks if each != place))


def _change(entry: ContainerEntry, config: ContainerConfig) -> None:
    former, entry.config = entry.config, config
    try:
        entry.write_record()
    except BaseException:
        entry.config = former
        raise


def _next_interface(namespace_fd: int) -> str:
    has = interfaces_of(namespace_fd)
    return next(name for name in (f"eth{number}" for number in range(len(has) + 1)) if name not in has)


def _restore_route(entry: ContainerEntry) -> None:
    """What goes elsewhere may have gone by the network that was left; now it goes by another one."""
    with entered_network(entry) as namespace:
        by_address = {mac: name for name, mac in interfaces_of(namespace).items()}
        for each in attachments(entry.config):
            record = named_network.find(entry.session, each.network)
            lease = AddressLeases(entry.session.stores.layout, record).find(entry.id)
            interface = None if lease is None else by_address.get(lease.mac)
            if interface is not None and not record.internal:
                restore_route(namespace, interface, record.gateway)
                return


def _tell(entry: ContainerEntry, action: str, record: NetworkRecord) -> None:
    attributes = {"container": entry.id, "name": record.name, **record.labels}
    entry.session.stores.journal.record("network", action, record.id, record.name, attributes)
