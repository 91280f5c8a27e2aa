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
from containerlib.network.link import has_device, mac_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping
    from ipaddress import IPv4Address
    from typing import Any

    from containerlib.network.record import NetworkRecord
    from containerlib.store.layout import Layout

__all__ = ["AddressLeases", "Holder", "Lease"]

_LIMIT = 1 << 16
_OF, _FORMER = "of-", "former-"
_MOST_FORMER = 32


@frozen(kw_only=True)
class Holder:
    """Who has an address, and what others on its network know of it.

    Attributes:
        container_id: The container.
        container_name: The same, for people.
        owner: A directory; once it is gone, so is the holder.
        device: Its device on the host, which is there as long as it runs.
        names: What it is called by the others.
        mac: The address of its device in it in hexadecimal digits, if that is no usual one; else empty.
        is_locked: Whether nothing else may come by that device, in which case the kernel has to be told.
        is_faulty: Whether somebody has wished that something is wrong with that device.
        dns: The servers that it wants to be asked for other names, instead of the host's.
        ports: What is published of it: protocol, host address, host port, port in it.
    """

    container_id: str
    container_name: str
    owner: str
    device: str = ""
    names: tuple[str, ...] = ()
    mac: str = ""
    is_locked: bool = False
    is_faulty: bool = False
    dns: tuple[str, ...] = ()
    ports: tuple[tuple[str, str, int, int], ...] = ()

    @property
    def is_live(self) -> bool:
        """Whether it may be there still."""
        return os.path.isdir(self.owner)

    def document(self) -> dict[str, object]:
        """As it is written down, and read by the process of the networks."""
        return {
            "container": self.container_id,
            "name": self.container_name,
            "owner": self.owner,
            "device": self.device,
            "names": list(self.names),
            "mac": self.mac,
            "locked": self.is_locked,
            "faulty": self.is_faulty,
            "dns": list(self.dns),
            "ports": [list(port) for port in self.ports],
        }

    @classmethod
    def parse(cls, document: Mapping[str, Any]) -> Holder:
        """What was written down; raises KeyError, TypeError or ValueError if it is something else."""
        return cls(
            container_id=str(document["container"]),
            container_name=str(document["name"]),
            owner=str(document["owner"]),
            device=str(document["device"]),
            names=tuple(document["names"]),
            mac=str(document["mac"]),
            is_locked=bool(document["locked"]),
            is_faulty=bool(document["faulty"]),
            dns=tuple(document["dns"]),
            ports=tuple((str(a), str(b), int(c), int(d)) for a, b, c, d in document["ports"]),
        )


@frozen(kw_only=True)
class Lease:
    """One address, and who has it."""

    address: IPv4Address
    holder: Holder

    @property
    def mac(self) -> bytes:
        """The address of its holder's device."""
        return bytes.fromhex(self.holder.mac) or mac_of(self.address)


class AddressLeases:
    """The addresses of one network that are given away; `directory` has a file for each."""

    def __init__(self, layout: Layout, record: NetworkRecord) -> None:
        self._record = record
        self.directory = f"{layout.run_root}/networks/{record.id}"
        self._lock = f"{layout.run_root}/networks/{record.id}.lock"

    def take(self, holder: Holder, wanted: IPv4Address | None = None) -> tuple[IPv4Address, str]:
        """Give a container an address: the one it has, the one it wants, or a free one.

        Returns:
            The address, and the device that had it before. That may be there still, for the kernel takes
            devices away some time after the last process; then it answers in the container's place.

        Raises:
            ResourceInUse: Another one has the address that it wants.
            AddressesExhausted: None is left.

        Cost: 0.2 ms, and what it takes to list those that are given away.
        """
        with file_lock.locked(self._lock):
            make_directory(self.directory)
            has = self.find(holder.container_id)
            if has is not None and wanted in {None, has.address}:
                self._write(has.address, holder)
                return has.address, has.holder.device
            if has is not None:
                self._give_back(has)
            address = self._free() if wanted is None else self._claim(wanted)
            former = self._forget_former(address)
            # In this order, so that a failure leaves an address that is free.
            write_atomic(f"{self.directory}/{_OF}{holder.container_id}", str(address).encode(), durable=False)
            self._write(address, holder)
            return address, former

    def find(self, container_id: str) -> Lease | None:
        """The lease of a container; None if it has none."""
        try:
            with open(f"{self.directory}/{_OF}{container_id}", encoding="ascii") as file:
                lease = self._read(str(ipaddress.IPv4Address(file.read(_LIMIT))))
        except (FileNotFoundError, ValueError):
            return None
        return lease if lease is not None and lease.holder.container_id == container_id else None

    def change(self, container_id: str, change: Callable[[Holder], Holder]) -> None:
        """Write something else down of a container, if it has an address."""
        if not os.path.exists(f"{self.directory}/{_OF}{container_id}"):
            return
        with file_lock.locked(self._lock):
            lease = self.find(container_id)
            if lease is not None:
                self._write(lease.address, change(lease.holder))

    def address_of(self, container_id: str) -> IPv4Address | None:
        """The address of a container; None if it has none."""
        lease = self.find(container_id)
        return None if lease is None else lease.address

    def give_back(self, container_id: str) -> None:
        """Take a container's address back; calling it again does nothing."""
        if not os.path.exists(f"{self.directory}/{_OF}{container_id}"):
            return
        with file_lock.locked(self._lock):
            lease = self.find(container_id)
            if lease is not None:
                self._give_back(lease)

    def list(self) -> list[Lease]:
        """The leases whose holders may be there still, by address."""
        found = [lease for lease in self._all() if lease.holder.is_live]
        return sorted(found, key=lambda lease: lease.address)

    @contextlib.contextmanager
    def nobody(self) -> Iterator[bool]:
        """Whether nobody has an address; for the length of a block nobody gets one.

        Somebody who is about to get one counts as well, so that nobody waits for that.
        """
        fd = file_lock.acquire(self._lock, blocking=False)
        if fd is None:
            yield False
            return
        try:
            yield not self.list()
        finally:
            os.close(fd)

    def remove(self) -> None:
        """Forget them all; the network is gone."""
        remove_tree(self.directory)
        remove_file(self._lock)
        reach("remove directory", self.directory)
        with contextlib.suppress(OSError):  # another network has some
            os.rmdir(os.path.dirname(self.directory))

    def _all(self) -> Iterator[Lease]:
        for name in self._names():
            lease = self._read(name)
            if lease is not None:
                yield lease

    def _names(self) -> set[str]:
        """The addresses that are given away."""
        with contextlib.suppress(FileNotFoundError):
            return {name for name in os.listdir(self.directory) if name[0].isdigit()}
        return set()

    def _read(self, name: str) -> Lease | None:
        try:
            with open(f"{self.directory}/{name}", "rb") as file:
                found = strict_json.loads_object(file.read(_LIMIT), limit=_LIMIT)
            return Lease(address=ipaddress.IPv4Address(name), holder=Holder.parse(found))
        except (FileNotFoundError, InvalidInputError, KeyError, TypeError, ValueError):
            return None  # given back meanwhile, or half of it is there after a power loss

    def _write(self, address: IPv4Address, holder: Holder) -> None:
        document = strict_json.dumps(holder.document())
        write_atomic(f"{self.directory}/{address}", document, durable=False)

    def _give_back(self, lease: Lease) -> None:
        device = lease.holder.device
        if has_device(device):
            write_atomic(f"{self.directory}/{_FORMER}{lease.address}", device.encode(), durable=False)
        # In this order, so that whoever is killed here leaves an address that is free.
        remove_file(f"{self.directory}/{lease.address}")
        remove_file(f"{self.directory}/{_OF}{lease.holder.container_id}")

    def _forget_former(self, address: IPv4Address) -> str:
        """The device that had an address last, for who takes it now."""
        lease = self._read(str(address))
        if lease is not None:  # of one that is dead
            remove_file(f"{self.directory}/{_OF}{lease.holder.container_id}")
            return lease.holder.device
        path = f"{self.directory}/{_FORMER}{address}"
        try:
            with open(path, encoding="ascii") as file:
                device = file.read(_LIMIT)
        except FileNotFoundError:
            return ""
        remove_file(path)
        return device

    def _free(self) -> IPv4Address:
        names = os.listdir(self.directory)
        taken = {name for name in names if name[0].isdigit()}
        former = {name.removeprefix(_FORMER) for name in names if name.startswith(_FORMER)}
        if len(former) > _MOST_FORMER:
            self._forget_gone(former)
        address = self._first_free(taken, former)
        if address is None:
            self._collect()
            address = self._first_free(self._names())
        if address is None:
            raise AddressesExhausted(
                f"network {self._record.name!r}: all addresses of {self._record.subnet} are given away; "
                "remove containers, or make a network with a larger subnet"
            )
        return address

    def _forget_gone(self, former: set[str]) -> None:
        for address in former:
            path = f"{self.directory}/{_FORMER}{address}"
            with contextlib.suppress(FileNotFoundError), open(path, encoding="ascii") as file:
                if not has_device(file.read(_LIMIT)):
                    remove_file(path)

    def _first_free(self, taken: set[str], avoided: Collection[str] = ()) -> IPv4Address | None:
        """One that nobody has, looked for from where it is if those before are all given away."""
        first = int(self._record.subnet.network_address) + 1
        count = int(self._record.subnet.broadcast_address) - first
        for step in range(count):
            candidate = ipaddress.IPv4Address(first + (len(taken) + step) % count)
            text = str(candidate)
            if text not in taken and text not in avoided and candidate != self._record.gateway:
                return candidate
        return None

    def _claim(self, wanted: IPv4Address) -> IPv4Address:
        lease = self._read(str(wanted))
        if wanted == self._record.gateway:
            raise ResourceInUse(f"address {wanted} is the gateway of network {self._record.name!r}")
        if lease is not None and lease.holder.is_live:
            raise ResourceInUse(f"address {wanted} is that of container {lease.holder.container_name!r}")
        return wanted

    def _collect(self) -> None:
        for lease in list(self._all()):
            if not lease.holder.is_live:
                self._give_back(lease)
