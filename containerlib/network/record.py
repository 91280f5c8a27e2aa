"""What is written down of a network, and the networks of a store by their names.

A record lasts over reboots; the bridge is made when a container needs it.
"""

from __future__ import annotations

import contextlib
import ipaddress
import time
from typing import TYPE_CHECKING, Any

from attrs import field, frozen

from containerlib.errors import (
    InvalidInputError,
    NameInUse,
    NetworkNotFound,
    NotFoundError,
    StoreCorrupted,
)
from containerlib.store.record import FORMAT, RecordStore

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from ipaddress import IPv4Address, IPv4Network

    from containerlib.store.layout import Layout

__all__ = ["DEFAULT", "RESERVED", "NetworkRecord", "NetworkRecords"]

DEFAULT = "bridge"
"""The network that each store has when somebody wants to be in it."""

RESERVED = frozenset({"none", "host", DEFAULT, "default"})
"""Names of networks that are not made by `create`."""

_MIN_PREFIX = 4


@frozen(kw_only=True)
class NetworkRecord:
    """One network.

    Attributes:
        id: 64 hexadecimal digits.
        name: Unique in the store.
        subnet: The addresses that its containers get theirs from.
        gateway: The host's own address in it.
        internal: Whether nothing but the host and its containers is reached through it.
        mtu: Bytes of the largest packet.
        labels: Of the caller.
        created_at: Seconds since the epoch.
    """

    id: str
    name: str
    subnet: IPv4Network
    gateway: IPv4Address
    internal: bool
    mtu: int = 1500
    labels: Mapping[str, str] = field(factory=dict)
    created_at: float = field(factory=time.time)

    @property
    def bridge(self) -> str:
        """The name of its bridge on the host."""
        # The firewall tells the two kinds apart by this.
        return f"cl-{'i' if self.internal else 'o'}{self.id[:11]}"

    def document(self) -> dict[str, object]:
        """As it is written down."""
        return {
            "format": FORMAT,
            "id": self.id,
            "name": self.name,
            "subnet": str(self.subnet),
            "gateway": str(self.gateway),
            "internal": self.internal,
            "mtu": self.mtu,
            "labels": dict(self.labels),
            "created_at": self.created_at,
        }

    @classmethod
    def parse(cls, document: Mapping[str, Any], path: str) -> NetworkRecord:
        """What was written down.

        Raises:
            StoreCorrupted: It cannot be read as that.
        """
        try:
            return cls(
                id=str(document["id"]),
                name=str(document["name"]),
                subnet=ipaddress.IPv4Network(document["subnet"]),
                gateway=ipaddress.IPv4Address(document["gateway"]),
                internal=bool(document["internal"]),
                mtu=int(document["mtu"]),
                labels=dict(document["labels"]),
                created_at=float(document["created_at"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise StoreCorrupted(path, f"is no record of a network: {error!r}") from None


class NetworkRecords:
    """The networks of a store."""

    def __init__(self, layout: Layout) -> None:
        self._records = RecordStore(layout.networks, "network")

    def add(self, record: NetworkRecord) -> None:
        """Write down a new one.

        Raises:
            NameInUse: There is one with this name.
        """
        try:
            self._records.create(record.name, record.document())
        except NameInUse:
            raise NameInUse(
                f"network name {record.name!r} is in use; remove that one or take another name"
            ) from None

    def get(self, key: str) -> NetworkRecord:
        """The network with this name, id, or unambiguous beginning of an id (4 digits or more).

        Raises:
            NetworkNotFound: None, or several.
        """
        with contextlib.suppress(NotFoundError, InvalidInputError):
            return self._read(key)
        found = [each for each in self.list() if len(key) >= _MIN_PREFIX and each.id.startswith(key)]
        if len(found) == 1:
            return found[0]
        what = "is the beginning of several ids" if found else "does not exist in this store"
        known = ", ".join(self._records.list()[:10]) or "none"
        raise NetworkNotFound(f"network {key!r} {what}; there are: {known}")

    def list(self) -> list[NetworkRecord]:
        """All of them, by name."""
        found = []
        for name in self._records.list():
            with contextlib.suppress(NotFoundError):
                found.append(self._read(name))
        return found

    def remove(self, record: NetworkRecord) -> None:
        """Forget one; the caller holds its lock."""
        self._records.remove_locked(record.name)

    @contextlib.contextmanager
    def locked(self, record: NetworkRecord) -> Iterator[None]:
        """Hold the lock of one for the length of a block.

        Raises:
            NetworkNotFound: It is gone.
        """
        with self._records.lock(record.name):
            try:
                is_there = self._read(record.name).id == record.id
            except NotFoundError:
                is_there = False
            if not is_there:
                raise NetworkNotFound(f"network {record.name!r} has been removed")
            yield

    def _read(self, name: str) -> NetworkRecord:
        return NetworkRecord.parse(self._records.get(name), f"{self._records.directory}/{name}.json")
