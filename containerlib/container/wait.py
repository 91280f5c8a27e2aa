"""Waiting for the end of a container."""

from __future__ import annotations

import time
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
        timeout_s: Longest wait in seconds; None for no limit. The container goes on when it is over. One that
            has ended meanwhile counts as such, though a `LogCallback` may not have had all lines.

    Raises:
        OperationTimeout: It still runs after `timeout_s`.
        InvalidState: It was never started, so it will not end.
    """
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    if entry.is_detached:
        entry.refresh()
    if entry.exit_status is not None and not entry.state.is_alive:
        _finish_log(entry, deadline)
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
    _finish_log(entry, deadline)
    return status


def _finish_log(entry: ContainerEntry, deadline: float | None) -> None:
    """Wait until the function that gets its lines has had all of them, if there is one."""
    if entry.pump is not None:
        entry.pump.join(None if deadline is None else max(0.0, deadline - time.monotonic()))
