"""What every view of a container has: the entry behind it, and who it is."""

# made by containerlib.aio.generate; change the module of the same name in containerlib.api
from __future__ import annotations

from typing import TYPE_CHECKING

from containerlib.aio import wrap

if TYPE_CHECKING:
    from collections.abc import Mapping

    from containerlib.api import container_handle as sync_module
__all__ = ["ContainerHandle"]


class ContainerHandle:
    """A handle of one container; two are equal if they are of the same container."""

    sync: sync_module.ContainerHandle

    def __init__(self, sync: sync_module.ContainerHandle) -> None:
        """Take over a handle."""
        self.sync = sync

    def __repr__(self) -> str:
        return f"<aio {self.sync!r}>"

    def __eq__(self, other: object) -> bool:
        return bool(self.sync == wrap.unwrap(other))

    def __hash__(self) -> int:
        return self.sync.__hash__()

    @property
    def id(self) -> str:
        """64 hexadecimal digits."""
        return self.sync.id

    @property
    def name(self) -> str:
        """Its name within this engine."""
        return self.sync.name

    @property
    def labels(self) -> Mapping[str, str]:
        """The image's labels and its own."""
        return self.sync.labels
