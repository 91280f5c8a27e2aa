"""The networks of a store as the caller sees them."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

from containerlib.container import named_network
from containerlib.network.networks import create_network
from containerlib.network_options import NetworkAttachment, as_names

if TYPE_CHECKING:
    import builtins
    from collections.abc import Mapping, Sequence
    from ipaddress import IPv4Address, IPv4Network
    from types import TracebackType
    from typing import Self

    from containerlib.api.container import Container
    from containerlib.api.network_fault import NetworkFault
    from containerlib.container.entry import ContainerEntry
    from containerlib.container.session import Session
    from containerlib.network.inspection import NetworkInspection
    from containerlib.network.record import NetworkRecord

__all__ = ["Network", "Networks"]


class Network:
    """A network of the store. As a context manager it removes itself, which nobody must be in then."""

    def __init__(self, session: Session, record: NetworkRecord) -> None:
        """Take a record."""
        self._session = session
        self._record = record

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove()

    def __repr__(self) -> str:
        return f"<Network {self.name} {self.subnet}>"

    @property
    def id(self) -> str:
        """64 hexadecimal digits."""
        return self._record.id

    @property
    def name(self) -> str:
        """Its name, which no other network of the store has."""
        return self._record.name

    @property
    def driver(self) -> str:
        """How it is made: ``"bridge"``."""
        return "bridge"

    @property
    def subnet(self) -> IPv4Network:
        """The addresses that its containers get theirs from."""
        return self._record.subnet

    @property
    def gateway(self) -> IPv4Address:
        """The host's own address in it."""
        return self._record.gateway

    @property
    def internal(self) -> bool:
        """Whether nothing but the host and its containers is reached through it."""
        return self._record.internal

    @property
    def mtu(self) -> int:
        """Bytes of the largest packet."""
        return self._record.mtu

    @property
    def labels(self) -> dict[str, str]:
        """What its maker has written on it."""
        return dict(self._record.labels)

    @property
    def created_at(self) -> dt.datetime:
        """When it was made."""
        return dt.datetime.fromtimestamp(self._record.created_at, dt.UTC)

    @property
    def bridge(self) -> str:
        """The name of its device on the host."""
        return self._record.bridge

    def containers(self) -> dict[str, str]:
        """The containers in it, running or not: their addresses by their names; empty for none yet.

        Those of other processes are seen as soon as they have an address.

        Cost: one small file for each.
        """
        return named_network.containers_in(self._session, self._record)

    def connect(
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
        from containerlib.container.membership import connect  # noqa: PLC0415 - needed by few

        attachment = NetworkAttachment(
            network=self.name, ip_address=ip_address, mac_address=mac_address, aliases=as_names(aliases)
        )
        connect(self._entry(container), attachment, self._record)

    def disconnect(self, container: Container | str) -> None:
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
        from containerlib.container.membership import disconnect  # noqa: PLC0415 - needed by few

        disconnect(self._entry(container), self._record)

    def faults(
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
        from containerlib.api.network_fault import NetworkFault  # noqa: PLC0415 - needed by few
        from containerlib.container.network_fault import begin  # noqa: PLC0415 - needed by few
        from containerlib.network.fault import Fault  # noqa: PLC0415 - needed by few

        entry = self._entry(container)
        chosen = Fault(drop=1.0 if partition else drop, delay_s=delay_s, rate_bytes_per_s=rate_bytes_per_s)
        begin(entry, self._record, chosen)
        return NetworkFault(entry, self._record, chosen)

    def _entry(self, container: Container | str) -> ContainerEntry:
        # By its id it is found whichever engine's handle it is.
        return self._session.find(container if isinstance(container, str) else container.id)

    def inspect(self) -> NetworkInspection:
        """Everything that is known about it, now; `NetworkInspection.to_json` has it in Docker's form."""
        from containerlib.network.inspection import NetworkInspection  # noqa: PLC0415 - needed by few

        return NetworkInspection(record=self._record, containers=self.containers())

    def remove(self) -> None:
        """Remove it with its bridge. Calling it again is an error.

        Raises:
            NetworkNotFound: It is gone already.
            ResourceInUse: Containers are in it, running or not; the message names them.
        """
        named_network.discard(self._session, self._record)


class Networks:
    """The networks of a store. They stay until they are removed; bridges are made anew after a reboot."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def create(
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
        self._session.enter()
        record = create_network(
            self._session.stores.layout,
            name,
            subnet=subnet,
            gateway=gateway,
            internal=internal,
            mtu=mtu,
            labels=dict(labels or {}),
        )
        self._session.stores.journal.record("network", "create", record.id, name, dict(record.labels))
        return Network(self._session, record)

    def get(self, name: str) -> Network:
        """The network with this name, id, or unambiguous beginning of an id (4 digits or more).

        Raises:
            NetworkNotFound: None, or several; the message names those there are.
        """
        return Network(self._session, named_network.find(self._session, name))

    def list(self) -> builtins.list[Network]:
        """All networks of the store, by name."""
        return [Network(self._session, record) for record in named_network.list_all(self._session)]

    def prune(
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
        from containerlib.container.prune import prune_networks  # noqa: PLC0415 - needed by few
        from containerlib.image.prune import ImageFilter  # noqa: PLC0415 - as above

        chosen = ImageFilter.make(until=until, labels=labels, without_labels=without_labels)
        return list(prune_networks(self._session, chosen))
