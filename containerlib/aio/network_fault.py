"""What is wrong with a container's place in a network, as the caller sees it."""

# made by containerlib.aio.generate; change the module of the same name in containerlib.api
from __future__ import annotations

from typing import TYPE_CHECKING

from containerlib.aio.loop import call

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from containerlib.api import network_fault as sync_module
__all__ = ["NetworkFault"]


class NetworkFault:
    """Something that is wrong, until it is cleared. As a context manager it clears itself."""

    sync: sync_module.NetworkFault

    def __init__(self, sync: sync_module.NetworkFault) -> None:
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

    async def clear(self) -> None:
        """Have nothing wrong there any more. Calling it again does nothing, nor after the container's end."""
        await call(self.sync.clear)
