"""Waiting for the end of a container."""

from __future__ import annotations

from typing import TYPE_CHECKING

from containerlib.container.state import ContainerState, check_state
from containerlib.errors import InvalidState, OperationTimeout

if TYPE_CHECKING:
    from containerlib.container.entry import ContainerEntry
    from containerlib.runtime.usage import ExitStatus

__all__ = ["wait"]


def wait(entry: ContainerEntry, *, timeout_s: float | None = None) -> ExitStatus:
    """Wait until the container has ended, and return how.

    Any number of threads may wait; a container that has ended already answers at once.

    Args:
        entry: The container.
        timeout_s: Longest wait in seconds; None for no limit. The container goes on when it is over.

    Raises:
        OperationTimeout: It still runs after `timeout_s`.
        InvalidState: It was never started, so it will not end.
    """
    if entry.is_detached:
        entry.refresh()
    if entry.exit_status is not None and not entry.state.is_alive:
        return entry.exit_status
    check_state("wait", entry.state, entry.name, "start it first")
    process = entry.process
    status = None if process is None else process.wait(timeout_s)
    if status is None and timeout_s is not None:
        raise OperationTimeout(
            f"container {entry.name!r} is still running after {timeout_s} s", timeout_s=timeout_s
        )
    if status is None:
        raise InvalidState(
            f"container {entry.name!r} has no process", expected="running", actual=str(ContainerState.EXITED)
        )
    return status
