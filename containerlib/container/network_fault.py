"""Faults of containers' places in networks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import evolve

from containerlib.container.network import entered_network
from containerlib.errors import InvalidOption, InvalidState
from containerlib.network.address import AddressLeases
from containerlib.network.endpoint import interfaces_of
from containerlib.network.fault import clear_fault, set_fault

if TYPE_CHECKING:
    from containerlib.container.entry import ContainerEntry
    from containerlib.network.address import Lease
    from containerlib.network.fault import Fault
    from containerlib.network.record import NetworkRecord

__all__ = ["begin", "end"]

_MOST_DELAY_S = 3600.0
_MOST_RATE = (1 << 32) - 1


def begin(entry: ContainerEntry, record: NetworkRecord, fault: Fault) -> None:
    """Have a fault at a container's place in a network; see `Network.faults`."""
    _check(fault)
    with entered_network(entry) as namespace:
        lease = _lease(entry, record)
        if lease is None:
            raise InvalidState(
                f"container {entry.name!r} is not in network {record.name!r}",
                expected="connected",
                actual="not connected",
            )
        leases = AddressLeases(entry.session.stores.layout, record)
        # Written down first: who cleans up after us has to know.
        leases.change(entry.id, lambda holder: evolve(holder, is_faulty=True))
        set_fault(fault, lease.holder.device, _interface(namespace, lease), namespace)


def end(entry: ContainerEntry, record: NetworkRecord) -> None:
    """Have nothing wrong there any more; nothing happens if it does not run."""
    lease = _lease(entry, record)
    if lease is None:
        return
    try:
        with entered_network(entry) as namespace:
            clear_fault(lease.holder.device, _interface(namespace, lease), namespace)
    except InvalidState:
        clear_fault(lease.holder.device)


def _lease(entry: ContainerEntry, record: NetworkRecord) -> Lease | None:
    return AddressLeases(entry.session.stores.layout, record).find(entry.id)


def _interface(namespace_fd: int, lease: Lease) -> str:
    found = [name for name, mac in interfaces_of(namespace_fd).items() if mac == lease.mac]
    return found[0] if found else ""


def _check(fault: Fault) -> None:
    if not _is_between(fault.drop, 0, 1):
        raise InvalidOption("drop", fault.drop, "give a part from 0 to 1")
    if not _is_between(fault.delay_s, 0, _MOST_DELAY_S):
        raise InvalidOption("delay_s", fault.delay_s, f"give seconds, from 0 to {_MOST_DELAY_S:g}")
    rate: object = fault.rate_bytes_per_s
    if rate is not None and not (isinstance(rate, int) and _is_between(rate, 1, _MOST_RATE)):
        raise InvalidOption("rate_bytes_per_s", rate, "give a number of bytes, at least 1")


def _is_between(value: object, least: float, most: float) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and least <= value <= most
