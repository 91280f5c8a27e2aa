"""Who has which address of a network: a small file each, with its holder and what that holder lives by.

Below the run root, so that a reboot takes them with the networks themselves. A lease whose owner's directory
is gone is nobody's, and is given to the next who needs one.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
from typing import TYPE_CHECKING

from attrs import frozen

from containerlib._util import file_lock, strict_json
from containerlib._util.atomic_file import make_directory, remove_file, write_atomic
from containerlib._util.failpoint import reach
from containerlib._util.remove_tree import remove_tree
from containerlib.errors import AddressesExhausted, InvalidInputError, ResourceInUse

if TYPE_CHECKING:
    from collections.abc import Iterator
    from ipaddress import IPv4Address

    from containerlib.network.record import NetworkRecord
    from containerlib.store.layout import Layout

__all__ = ["AddressLeases", "Lease"]

_LIMIT = 1 << 16
_OF = "of-"


@frozen(kw_only=True)
class Lease:
    """One address.

    Attributes:
        address: It.
        container_id: Whose it is.
        container_name: The same, for people.
        owner: A directory; once it is gone, so is the holder.
    """

    address: IPv4Address
    container_id: str
    container_name: str
    owner: str

    @property
    def is_live(self) -> bool:
        """Whether its holder may be there still."""
        return os.path.isdir(self.owner)


class AddressLeases:
    """The addresses of one network that are given away."""

    def __init__(self, layout: Layout, record: NetworkRecord) -> None:
        self._record = record
        self._directory = f"{layout.run_root}/networks/{record.id}"
        self._lock = f"{layout.run_root}/networks/{record.id}.lock"

    def take(
        self, container_id: str, container_name: str, owner: str, wanted: IPv4Address | None = None
    ) -> IPv4Address:
        """Give a container an address: the one it has, the one it wants, or the first that is free.

        Raises:
            ResourceInUse: Another one has the address that it wants.
            AddressesExhausted: None is left.

        Cost: 0.2 ms, and what it takes to list those that are given away.
        """
        with file_lock.locked(self._lock):
            make_directory(self._directory)
            has = self.address_of(container_id)
            if has is not None and wanted in {None, has}:
                return has
            if has is not None:
                self._give_back(has, container_id)
            address = self._free() if wanted is None else self._claim(wanted)
            lease = {"container": container_id, "name": container_name, "owner": owner}
            write_atomic(f"{self._directory}/{address}", strict_json.dumps(lease), durable=False)
            write_atomic(f"{self._directory}/{_OF}{container_id}", str(address).encode(), durable=False)
            return address

    def address_of(self, container_id: str) -> IPv4Address | None:
        """The address of a container; None if it has none."""
        try:
            with open(f"{self._directory}/{_OF}{container_id}", encoding="ascii") as file:
                address = ipaddress.IPv4Address(file.read(_LIMIT))
        except (FileNotFoundError, ValueError):
            return None
        lease = self._read(str(address))
        return address if lease is not None and lease.container_id == container_id else None

    def give_back(self, container_id: str) -> None:
        """Take a container's address back; calling it again does nothing."""
        if not os.path.exists(f"{self._directory}/{_OF}{container_id}"):
            return
        with file_lock.locked(self._lock):
            address = self.address_of(container_id)
            if address is not None:
                self._give_back(address, container_id)

    def list(self) -> list[Lease]:
        """The leases whose holders may be there still, by address."""
        found = [lease for lease in self._all() if lease.is_live]
        return sorted(found, key=lambda lease: lease.address)

    def remove(self) -> None:
        """Forget them all; the network is gone."""
        remove_tree(self._directory)
        remove_file(self._lock)
        reach("remove directory", self._directory)
        with contextlib.suppress(OSError):  # another network has some
            os.rmdir(os.path.dirname(self._directory))

    def _all(self) -> Iterator[Lease]:
        for name in self._names():
            lease = self._read(name)
            if lease is not None:
                yield lease

    def _names(self) -> set[str]:
        with contextlib.suppress(FileNotFoundError):
            return {name for name in os.listdir(self._directory) if name[0].isdigit()}
        return set()

    def _read(self, name: str) -> Lease | None:
        try:
            with open(f"{self._directory}/{name}", "rb") as file:
                found = strict_json.loads_object(file.read(_LIMIT), limit=_LIMIT)
            return Lease(
                address=ipaddress.IPv4Address(name),
                container_id=str(found["container"]),
                container_name=str(found["name"]),
                owner=str(found["owner"]),
            )
        except (FileNotFoundError, InvalidInputError, KeyError, ValueError):
            return None  # given back meanwhile, or half of it is there after a power loss

    def _give_back(self, address: IPv4Address, container_id: str) -> None:
        remove_file(f"{self._directory}/{_OF}{container_id}")
        remove_file(f"{self._directory}/{address}")

    def _free(self) -> IPv4Address:
        address = self._first_free()
        if address is None:
            self._collect()
            address = self._first_free()
        if address is None:
            raise AddressesExhausted(
                f"network {self._record.name!r}: all addresses of {self._record.subnet} are given away; "
                "remove containers, or make a network with a larger subnet"
            )
        return address

    def _first_free(self) -> IPv4Address | None:
        taken = self._names() | {str(self._record.gateway)}
        return next((each for each in self._record.subnet.hosts() if str(each) not in taken), None)

    def _claim(self, wanted: IPv4Address) -> IPv4Address:
        lease = self._read(str(wanted))
        if wanted == self._record.gateway:
            raise ResourceInUse(f"address {wanted} is the gateway of network {self._record.name!r}")
        if lease is not None and lease.is_live:
            raise ResourceInUse(f"address {wanted} is that of container {lease.container_name!r}")
        return wanted

    def _collect(self) -> None:
        for lease in list(self._all()):
            if not lease.is_live:
                self._give_back(lease.address, lease.container_id)
