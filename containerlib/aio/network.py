"""The networks of a store as the caller sees them."""

# made by containerlib.aio.generate; change the module of the same name in containerlib.api
from __future__ import annotations

from typing import TYPE_CHECKING

from containerlib.aio import wrap
from containerlib.aio.loop import call

if TYPE_CHECKING:
    import builtins
    import datetime as dt
    from collections.abc import Mapping, Sequence
    from ipaddress import IPv4Address, IPv4Network
    from types import TracebackType
    from typing import Self

    from containerlib.aio.container import Container
    from containerlib.aio.network_fault import NetworkFault
    from containerlib.api import network as sync_module
    from containerlib.network.inspection import NetworkInspection
__all__ = ["Network", "Networks"]


class Network:
    """A network of the store. As a context manager it removes itself, which nobody must be in then."""

    sync: sync_module.Network

    def __init__(self, sync: sync_module.Network) -> None:
        """Take over a handle."""
        self.sync = sync

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await call(lambda: self.sync.__exit__(kind, error, trace))

    def __repr__(self) -> str:
        return f"<aio {self.sync!r}>"

    @property
    def id(self) -> str:
        """64 hexadecimal digits."""
        return self.sync.id

    @property
    def name(self) -> str:
        """Its name, which no other network of the store has."""
        return self.sync.name

    @property
    def driver(self) -> str:
        """How it is made: ``"bridge"``."""
        return self.sync.driver

    @property
    def subnet(self) -> IPv4Network:
        """The addresses that its containers get theirs from."""
        return self.sync.subnet

    @property
    def gateway(self) -> IPv4Address:
        """The host's own address in it."""
        return self.sync.gateway

    @property
    def internal(self) -> bool:
        """Whether nothing but the host and its containers is reached through it."""
        return self.sync.internal

    @property
    def mtu(self) -> int:
        """Bytes of the largest packet."""
        return self.sync.mtu

    @property
    def labels(self) -> dict[str, str]:
        """What its maker has written on it."""
        return self.sync.labels

    @property
    def created_at(self) -> dt.datetime:
        """When it was made."""
        return self.sync.created_at

    @property
    def bridge(self) -> str:
        """The name of its device on the host."""
        return self.sync.bridge

    async def containers(self) -> dict[str, str]:
        """The containers in it, running or not: their addresses by their names; empty for none yet.

        Those of other processes are seen as soon as they have an address.

        Cost: one small file for each.
        """
        return await call(self.sync.containers)

    async def connect(
        self,
        container: Container | str,
        *,
        ip_address: str | None = None,
        mac_address: str | None = None,
        aliases: Sequence[str] = (),
    ) -> None:
        """Have a container in this network as well, at once if it runs, and at each start.

        Args:
            container: It, its name, or its id. It is one that was made in a network.
            ip_address: Its address here; a free one if left out.
            mac_address: That of its device; one that goes with the address if left out.
            aliases: What the others here find it by, besides its name.

        Raises:
            ResourceInUse: It is in this network already, or another one has the address.
            ContainerNotFound: There is no such container.
            InvalidOption: An address is none of this network's, or the container has no network of its own.
            NetworkNotFound: This network was removed.
            AddressesExhausted: No address is left.

        Cost: a millisecond and a half if it runs.
        """
        await call(
            lambda: self.sync.connect(
                wrap.unwrap(container), ip_address=ip_address, mac_address=mac_address, aliases=aliases
            )
        )

    async def disconnect(self, container: Container | str) -> None:
        """Have a container in this network no more, at once if it runs. Its address is free then.

        From the network in which it was made it is disconnected with its published ports; connect it again
        to have it there, and start it again to have its ports.

        Args:
            container: It, its name, or its id.

        Raises:
            InvalidState: It is not in this network.
            ContainerNotFound: There is no such container.

        Cost: ten milliseconds if it runs, which the kernel takes.
        """
        await call(lambda: self.sync.disconnect(wrap.unwrap(container)))

    async def faults(
        self,
        container: Container | str,
        *,
        partition: bool = False,
        drop: float = 0.0,
        delay_s: float = 0.0,
        rate_bytes_per_s: int | None = None,
    ) -> NetworkFault:
        """Have something wrong with a running container's place in this network, until it is cleared.

        It concerns what the container sends and what it gets, in this network only. Calling it again
        replaces what was wrong before. It goes with the container's place: with its end, or when it is
        disconnected.

        Args:
            container: It, its name, or its id.
            partition: Whether nothing goes through.
            drop: The part of the packets that is lost, from 0 to 1.
            delay_s: How much later packets arrive, in seconds.
            rate_bytes_per_s: How much goes through, each way.

        Returns:
            The fault; as a context manager it clears itself at the end of the block.

        Raises:
            InvalidState: The container does not run, or is not in this network.
            InvalidOption: A value is out of range.
            ContainerNotFound: There is no such container.
            UnsupportedHost: The kernel cannot do that: for a delay it has to have netem.
        """
        return wrap.network_fault(
            await call(
                lambda: self.sync.faults(
                    wrap.unwrap(container),
                    partition=partition,
                    drop=drop,
                    delay_s=delay_s,
                    rate_bytes_per_s=rate_bytes_per_s,
                ),
                undo=lambda made: made.clear(),
            )
        )

    async def inspect(self) -> NetworkInspection:
        """Everything that is known about it, now; `NetworkInspection.to_json` has it in Docker's form."""
        return await call(self.sync.inspect)

    async def remove(self) -> None:
        """Remove it with its bridge. Calling it again is an error.

        Raises:
            NetworkNotFound: It is gone already.
            ResourceInUse: Containers are in it, running or not; the message names them.
        """
        await call(self.sync.remove)


class Networks:
    """The networks of a store. They stay until they are removed; bridges are made anew after a reboot."""

    sync: sync_module.Networks

    def __init__(self, sync: sync_module.Networks) -> None:
        """Take over a handle."""
        self.sync = sync

    async def create(
        self,
        name: str,
        *,
        subnet: str | None = None,
        gateway: str | None = None,
        internal: bool = False,
        mtu: int = 1500,
        labels: Mapping[str, str] | None = None,
    ) -> Network:
        """Make a network. After a failure nothing of it is left.

        Args:
            name: Letters, digits, ``_.-``.
            subnet: Such as ``"10.5.0.0/16"``; one that nobody on this host uses if left out.
            gateway: The host's address in it; the first one if left out.
            internal: Whether nothing but the host and its containers is reached through it. Others reach what
                this host reaches, under its address.
            mtu: Bytes of the largest packet.
            labels: Texts by name.

        Raises:
            InvalidOption: A value that no host could honour, or a subnet that is in use.
            NameInUse: There is one with this name.
            AddressesExhausted: No subnet is left.
            UnsupportedHost: This process may not, or the kernel has no bridges or nftables.
        """
        return wrap.network(
            await call(
                lambda: self.sync.create(
                    name, subnet=subnet, gateway=gateway, internal=internal, mtu=mtu, labels=labels
                ),
                undo=lambda made: made.remove(),
            )
        )

    async def get(self, name: str) -> Network:
        """The network with this name, id, or unambiguous beginning of an id (4 digits or more).

        Raises:
            NetworkNotFound: None, or several; the message names those there are.
        """
        return wrap.network(await call(lambda: self.sync.get(name)))

    async def list(self) -> builtins.list[Network]:
        """All networks of the store, by name."""
        return [wrap.network(found) for found in await call(self.sync.list)]

    async def prune(
        self,
        *,
        until: dt.datetime | dt.timedelta | None = None,
        labels: Mapping[str, str | None] | None = None,
        without_labels: Mapping[str, str | None] | None = None,
    ) -> builtins.list[str]:
        """Remove the networks that no container is in; return their names.

        Args:
            until: Only what was made before that time, or longer ago than that.
            labels: Only what has all of these labels; None for any value.
            without_labels: Only what has none of these.

        Raises:
            InvalidOption: `until` lies before 1970.
        """
        return await call(lambda: self.sync.prune(until=until, labels=labels, without_labels=without_labels))
