"""Published ports of containers: taken before a start, given up after the end."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from attrs import evolve

from containerlib.errors import ContainerlibError, InvalidOption, ResourceInUse
from containerlib.network.address import AddressLeases
from containerlib.network.attend import give_up_ended, hand_over, release
from containerlib.network.link import has_device
from containerlib.network.publish import HeldPorts, PortInUse, hold_ports, user_of
from containerlib.network.record import NetworkRecords
from containerlib.network.translation import add_translations, remove_translations
from containerlib.network_options import LOOPBACK, PortMapping

if TYPE_CHECKING:
    from containerlib.container.entry import ContainerEntry
    from containerlib.network.address import Holder
    from containerlib.network.record import NetworkRecord
    from containerlib.network.translation import Port
    from containerlib.store.layout import Layout

__all__ = ["NO_PORTS", "give_up", "held_ports", "mappings_of", "ports_of", "publish"]


NO_PORTS = HeldPorts(mappings=(), listeners=[])
"""Of a container that publishes none."""


def held_ports(entry: ContainerEntry, record: NetworkRecord) -> HeldPorts:
    """Take the ports of the host that a container wants, before anything is made.

    Raises:
        ResourceInUse: Somebody has one of them; the message says who, where that can be known.
        InvalidOption: Its network is internal, and it wants to be reached from elsewhere.
        UnsupportedHost: None is free, or this process may not take it.
    """
    wanted = entry.config.ports
    for mapping in wanted:
        if record.internal and not mapping.is_local:
            remedy = f"network {record.name!r} is internal; only {LOOPBACK!r} leads into it"
            raise InvalidOption("ports", str(mapping), remedy)
    has_looked = False
    while True:
        try:
            return hold_ports(wanted)
        except PortInUse as error:
            found = _holder_of(entry, error.mapping)
            if found is not None and _give_up_if_ended(entry, *found):
                continue
            if has_looked:
                raise _in_use(error.mapping, None if found is None else found[1]) from None
            # Of one that has ended a moment ago, wherever that was.
            give_up_ended(entry.session.stores.layout)
            has_looked = True


def publish(entry: ContainerEntry, record: NetworkRecord, address: str, held: HeldPorts) -> None:
    """Have the ports lead to a container whose place in its network is made.

    Raises:
        UnsupportedHost: The kernel has no nftables, or this process may not use them.
    """
    ports = ports_of(held)
    hand_over(entry.session.stores.layout, record, entry.id, address, held.listeners, ports)
    add_translations(record, address, ports)


def ports_of(held: HeldPorts) -> tuple[Port, ...]:
    """The ports as a lease has them."""
    return tuple(
        (each.protocol, each.host, each.host_port or 0, each.container_port) for each in held.mappings
    )


def give_up(entry: ContainerEntry) -> None:
    """After its end: let others have its ports of the host. Calling it again does nothing."""
    with contextlib.suppress(ContainerlibError, OSError):
        layout = entry.session.stores.layout
        record = NetworkRecords(layout).get(entry.config.network)
        leases = AddressLeases(layout, record)
        lease = leases.find(entry.id)
        if lease is not None and lease.holder.ports:
            _give_up(layout, leases, lease.holder)


def _give_up(layout: Layout, leases: AddressLeases, holder: Holder) -> None:
    if not release(layout, holder.container_id):
        remove_translations(holder.ports)
    leases.change(holder.container_id, lambda has: evolve(has, ports=()))


def mappings_of(entry: ContainerEntry) -> tuple[PortMapping, ...]:
    """What is published of a running container, with the ports of the host."""
    layout = entry.session.stores.layout
    lease = AddressLeases(layout, NetworkRecords(layout).get(entry.config.network)).find(entry.id)
    if lease is None:
        return ()
    return tuple(
        PortMapping(
            protocol="udp" if protocol == "udp" else "tcp",
            host=host,
            host_port=host_port,
            container_port=port,
        )
        for protocol, host, host_port, port in lease.holder.ports
    )


def _holder_of(entry: ContainerEntry, mapping: PortMapping) -> tuple[AddressLeases, Holder] | None:
    """Which container of the store has a port of the host, and where that is written down."""
    layout = entry.session.stores.layout
    wanted = (mapping.protocol, mapping.host_port)
    for record in NetworkRecords(layout).list():
        leases = AddressLeases(layout, record)
        for lease in leases.list():
            has = {(protocol, host_port) for protocol, _, host_port, _ in lease.holder.ports}
            if wanted in has and has_device(lease.holder.device):
                return leases, lease.holder
    return None


def _give_up_if_ended(entry: ContainerEntry, leases: AddressLeases, holder: Holder) -> bool:
    """Take the ports from a container whose end nobody has noticed yet."""
    with contextlib.suppress(ContainerlibError):
        other = entry.session.find(holder.container_id)
        if not other.refresh().is_alive:
            _give_up(entry.session.stores.layout, leases, holder)
            return True
    return False


def _in_use(mapping: PortMapping, holder: Holder | None) -> ResourceInUse:
    whose = f"container {holder.container_name!r}" if holder is not None else user_of(mapping)
    said = f"is that of {whose}" if whose else "is in use"
    return ResourceInUse(
        f"port {mapping.host_port}/{mapping.protocol} of this host {said}; take another one, or leave "
        "host_port out for a free one"
    )
