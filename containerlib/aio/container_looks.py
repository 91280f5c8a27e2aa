"""A container looked at from outside."""

# made by containerlib.aio.generate; change the module of the same name in containerlib.api
from __future__ import annotations

from typing import TYPE_CHECKING

from containerlib.aio import waiting
from containerlib.aio.container_handle import ContainerHandle
from containerlib.aio.loop import call

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from containerlib.api import container_looks as sync_module
    from containerlib.container.inspection import ContainerInspection
    from containerlib.runtime.process_table import ProcessInfo
    from containerlib.runtime.stats import ContainerStats
__all__ = ["ContainerLooks"]


class ContainerLooks(ContainerHandle):
    """What can be found out about a container; a part of `Container`. Nothing is executed in it for that."""

    sync: sync_module.ContainerLooks

    async def inspect(self) -> ContainerInspection:
        """Everything that is known about it, now; `ContainerInspection.to_json` has it in Docker's form.

        Raises:
            InvalidState: It was removed.
        """
        return await call(self.sync.inspect)

    async def stats(self) -> ContainerStats:
        """What it uses now. What it has used in all is in `exit_status`, once it has ended.

        Raises:
            InvalidState: It does not run.

        Cost: some twenty small files, and three for each of its processes.
        """
        return await call(self.sync.stats)

    def stats_stream(self, *, interval_s: float = 1.0) -> AsyncIterator[ContainerStats]:
        """What it uses, at once and then every `interval_s` seconds, until it ends.

        Raises:
            InvalidState: It does not run.
            InvalidOption: The interval is not above 0.
        """
        return waiting.stats_stream(self.sync, interval_s=interval_s)

    async def top(self) -> list[ProcessInfo]:
        """Its processes, those of further commands included, in the order of their numbers.

        Raises:
            InvalidState: It does not run.

        Cost: three small files for each process.
        """
        return await call(self.sync.top)
