"""What every view of a container has: the entry behind it, and who it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from containerlib.api.remote import Remote
    from containerlib.container.entry import ContainerEntry

__all__ = ["ContainerHandle"]


class ContainerHandle:
    """A handle of one container; two are equal if they are of the same container."""

    def __init__(self, entry: ContainerEntry, remote: Remote) -> None:
        """Take an entry, and how the images that are made of it reach registries."""
        self._entry = entry
        self._remote = remote

    def __repr__(self) -> str:
        return f"<Container {self.name} {self.id[:12]} {self._entry.refresh()}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ContainerHandle) and other.id == self.id

    def __hash__(self) -> int:
        return hash(self.id)

    @property
    def entry(self) -> ContainerEntry:
        """The container as the engine's inner parts know it."""
        return self._entry

    @property
    def id(self) -> str:
        """64 hexadecimal digits."""
        return self._entry.id

    @property
    def name(self) -> str:
        """Its name within this engine."""
        return self._entry.name

    @property
    def labels(self) -> Mapping[str, str]:
        """The image's labels and its own."""
        return self._entry.config.labels
