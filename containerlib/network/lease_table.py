"""The names of the running containers of one network, read from its leases whenever those have changed.

Loads little, because the process of the networks has little else to load.
"""

from __future__ import annotations

import json
import os
import time
from typing import Any

from containerlib.network.link import has_device

__all__ = ["LeaseTable"]

_LIMIT = 1 << 16
_MOMENT_NS = 50_000_000


class LeaseTable:
    """What the directory of the leases of one network says now. Who does not run has no name."""

    def __init__(self, directory: str, network: str) -> None:
        self._directory = directory
        self._network = network
        self._seen: tuple[int, int] = (-1, -1)
        self._leases: dict[str, dict[str, Any]] = {}
        self._by_name: dict[str, list[str]] = {}
        self._by_container: dict[str, str] = {}

    def addresses(self, name: str) -> list[str]:
        """The addresses of the containers that are called so, in any case of letters."""
        self._refresh()
        found = self._by_name.get(name.lower(), [])
        return [address for address in found if self._runs(self._leases[address])]

    def names(self, address: str) -> list[str]:
        """What the container with an address is called in full, if there is one: NAME.NETWORK."""
        self._refresh()
        lease = self._leases.get(address)
        return [f"{name}.{self._network}" for name in _names(lease)[:1]] if self._runs(lease) else []

    def container_of(self, address: str) -> str | None:
        """The id of the container with an address; None if nobody has it who runs."""
        self._refresh()
        lease = self._leases.get(address)
        return str(lease.get("container")) if lease is not None and self._runs(lease) else None

    def has(self, container_id: str) -> bool:
        """Whether a container is in this network, and runs."""
        self._refresh()
        return self._runs(self._leases.get(self._by_container.get(container_id, "")))

    def servers(self, address: str) -> list[str]:
        """The servers that the container with an address wants to be asked, instead of the host's."""
        self._refresh()
        return [str(each) for each in self._leases.get(address, {}).get("dns", ())]

    def running(self) -> list[dict[str, Any]]:
        """The leases of all who run."""
        self._refresh()
        running = {name: lease for name, lease in self._leases.items() if self._runs(lease)}
        return [{**lease, "address": name} for name, lease in running.items()]

    def _runs(self, lease: dict[str, Any] | None) -> bool:
        """Whether its device is there, which the kernel takes away with its last process."""
        device = str(lease.get("device", "")) if lease else ""
        return has_device(device)

    def _refresh(self) -> None:
        try:
            info = os.stat(self._directory)
            seen = (info.st_mtime_ns, info.st_ino)
            if seen == self._seen:
                return
            present = {name for name in os.listdir(self._directory) if name[:1].isdigit()}
        except FileNotFoundError:
            seen, present = (-1, -1), set()
        # Read before it is known whether more has changed meanwhile: then it is read once more.
        self._leases = {name: self._read(name) for name in present}
        self._by_name = {}
        self._by_container = {str(lease.get("container")): name for name, lease in self._leases.items()}
        for address, lease in sorted(self._leases.items()):
            for name in _names(lease):
                for known in (name, f"{name}.{self._network}"):
                    self._by_name.setdefault(known.lower(), []).append(address)
        # Times of files are coarse: what changes in the same moment would not be noticed.
        self._seen = seen if time.time_ns() - seen[0] > _MOMENT_NS else (-1, -1)

    def _read(self, name: str) -> dict[str, Any]:
        try:
            with open(f"{self._directory}/{name}", "rb") as file:
                found = json.loads(file.read(_LIMIT))
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}


def _names(lease: dict[str, Any] | None) -> list[str]:
    found = (lease or {}).get("names")
    return [str(name) for name in found] if isinstance(found, list) else []
