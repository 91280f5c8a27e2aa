"""A container's network: what it joins when it starts, its address, and the way in for others.

What concerns the networks of the store is in `named_network`, which those without one never load.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from containerlib.container.state import check_state
from containerlib.errors import InvalidOption, InvalidState
from containerlib.runtime.defaults import SHARED_NETWORK
from containerlib.runtime.files import JoinedNetwork
from containerlib.runtime.join import open_network

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from containerlib.container.entry import ContainerEntry
    from containerlib.container.session import Session
    from containerlib.network_options import NetworkAttachment, PortMapping

__all__ = [
    "address_of",
    "addresses_of",
    "entered_network",
    "give_back_address",
    "give_up_ports",
    "is_named",
    "joined_network",
    "note_name",
    "ports_of",
    "require_network",
]

_UNNAMED = frozenset({"none", "host"})


def is_named(network: str) -> bool:
    """Whether it is a network of the store, and not one of those that every host has, or a container's."""
    return network not in _UNNAMED and not network.startswith(SHARED_NETWORK)


def require_network(session: Session, network: str, more: Sequence[NetworkAttachment] = ()) -> None:
    """Look whether a container could be in it, before anything is made.

    Raises:
        NetworkNotFound: There is no such network.
        ContainerNotFound: There is no such container.
        InvalidOption: That container has no network of its own to share.
    """
    if is_named(network):
        from containerlib.container import named_network  # noqa: PLC0415 - needed by few

        named_network.find(session, network)
        for each in more:
            named_network.find(session, each.network)
    elif network not in _UNNAMED:
        other = session.find(network.removeprefix(SHARED_NETWORK))
        if other.config.network == "host":
            raise InvalidOption("network", network, "that container uses the host's network; give 'host'")


@contextlib.contextmanager
def joined_network(entry: ContainerEntry) -> Iterator[JoinedNetwork | None]:
    """What a container joins when it starts; for the length of a block, after which it holds that itself.

    Raises:
        NetworkNotFound: The network was removed.
        AddressesExhausted: It has no address left.
        InvalidState: The container whose network it shares does not run.
        UnsupportedHost: This process may not do that.

    Cost: nothing without a network, otherwise some 1.8 ms.
    """
    network = entry.config.network
    if network in _UNNAMED:
        yield None
    elif is_named(network):
        from containerlib.container import named_network  # noqa: PLC0415 - needed by few

        with named_network.endpoint(entry) as joined:
            yield joined
    else:
        other = entry.session.find(network.removeprefix(SHARED_NETWORK))
        with entered_network(other) as fd:
            yield _shared(other, fd)


def give_back_address(entry: ContainerEntry) -> None:
    """After its removal: let others have its address."""
    if is_named(entry.config.network):
        from containerlib.container import named_network  # noqa: PLC0415 - needed by few

        named_network.give_back(entry)


def give_up_ports(entry: ContainerEntry) -> None:
    """After its end: let others have its ports of the host."""
    if entry.config.ports:
        from containerlib.container import published  # noqa: PLC0415 - needed by few

        published.give_up(entry)


def ports_of(entry: ContainerEntry) -> tuple[PortMapping, ...]:
    """What is published of it; empty if it does not run."""
    if not entry.config.ports or not entry.refresh().is_alive:
        return ()
    from containerlib.container import published  # noqa: PLC0415 - needed by few

    return published.mappings_of(entry)


def note_name(entry: ContainerEntry) -> None:
    """After it was renamed: have the others in its network find it by that name."""
    if is_named(entry.config.network):
        from containerlib.container import named_network  # noqa: PLC0415 - needed by few

        named_network.rename(entry)


def address_of(entry: ContainerEntry) -> str | None:
    """Its address in its network; None if it has none, or none yet."""
    network = entry.config.network
    if network in _UNNAMED:
        return None
    if not is_named(network):
        return address_of(entry.session.find(network.removeprefix(SHARED_NETWORK)))
    from containerlib.container import named_network  # noqa: PLC0415 - needed by few

    return named_network.address_of(entry)


def addresses_of(entry: ContainerEntry) -> dict[str, str]:
    """Its addresses by its networks; of those that have none yet none."""
    if not is_named(entry.config.network):
        return {}
    from containerlib.container import named_network  # noqa: PLC0415 - needed by few

    return named_network.addresses_of(entry)


def _shared(other: ContainerEntry, fd: int) -> JoinedNetwork:
    """What another container has."""
    network = other.config.network
    if network in _UNNAMED:
        return JoinedNetwork(namespace_fd=fd)
    if not is_named(network):
        return _shared(other.session.find(network.removeprefix(SHARED_NETWORK)), fd)
    from containerlib.container import named_network  # noqa: PLC0415 - needed by few

    return named_network.joined(other, fd)


@contextlib.contextmanager
def entered_network(entry: ContainerEntry) -> Iterator[int]:
    """The network namespace of a running container, opened for the length of a block.

    Raises:
        InvalidState: It does not run.
    """
    with entry.lock:
        check_state("reach the network of", entry.refresh(), entry.name, "start it first")
        process = entry.process
        if process is None:
            raise InvalidState(
                f"container {entry.name!r} has no process here", expected="running", actual=str(entry.state)
            )
        fd = open_network(process, entry.name)
    try:
        yield fd
    finally:
        os.close(fd)
