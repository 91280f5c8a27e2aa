"""A container looked at from outside."""

from __future__ import annotations

from typing import TYPE_CHECKING

from containerlib.api.container_handle import ContainerHandle

if TYPE_CHECKING:
    from collections.abc import Iterator

    from containerlib.container.inspection import ContainerInspection
    from containerlib.runtime.process_table import ProcessInfo
    from containerlib.runtime.stats import ContainerStats

__all__ = ["ContainerLooks"]


class ContainerLooks(ContainerHandle):
    """What can be found out about a container; a part of `Container`. Nothing is executed in it for that."""

    def inspect(self) -> ContainerInspection:
        """Everything that is known about it, now; `ContainerInspection.to_json` has it in Docker's form.

        Raises:
            InvalidState: It was removed.
        """
        from containerlib.container.inspection import inspect_container  # noqa: PLC0415 - needed by few

        return inspect_container(self._entry)

    def stats(self) -> ContainerStats:
        """What it uses now. What it has used in all is in `exit_status`, once it has ended.

        Raises:
            InvalidState: It does not run.

        Cost: some twenty small files, and three for each of its processes.
        """
        from containerlib.container.stats import stats  # noqa: PLC0415 - needed by few

        return stats(self._entry)

    def stats_stream(self, *, interval_s: float = 1.0) -> Iterator[ContainerStats]:
        """What it uses, at once and then every `interval_s` seconds, until it ends.

        Raises:
            InvalidState: It does not run.
            InvalidOption: The interval is not above 0.
        """
        from containerlib.container.stats import stats_stream  # noqa: PLC0415 - needed by few

        return stats_stream(self._entry, interval_s)

    def top(self) -> list[ProcessInfo]:
        """Its processes, those of further commands included, in the order of their numbers.

        Raises:
            InvalidState: It does not run.

        Cost: three small files for each process.
        """
        from containerlib.container.stats import processes  # noqa: PLC0415 - needed by few

        return processes(self._entry)
