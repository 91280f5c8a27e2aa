"""Waiting for something else than the end of a container."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Literal

from containerlib._native.watch import Watch
from containerlib.container.state import ContainerState
from containerlib.errors import InvalidOption, InvalidState, OperationTimeout
from containerlib.runtime.detached import DetachedProcess

if TYPE_CHECKING:
    from containerlib.container.entry import ContainerEntry

__all__ = ["Condition", "wait_until"]

Condition = Literal["running", "healthy", "exited", "removed"]

# What others do to a container is told by no file that a watch sees in every case, such as freezing.
_LOOK_AGAIN_S = 0.5


def _is_met(entry: ContainerEntry, condition: Condition) -> bool:
    """Whether the condition holds.

    Raises:
        InvalidState: It can no longer come about by itself.
    """
    state = entry.refresh()
    if condition == "removed":
        return state == ContainerState.REMOVED
    if state == ContainerState.REMOVED:
        raise _never(entry, condition)
    if condition == "running":
        return state == ContainerState.RUNNING
    if condition == "exited":
        return state == ContainerState.EXITED
    word = entry.process.state() if isinstance(entry.process, DetachedProcess) else None
    if entry.config.health is None:
        raise InvalidState(
            f"container {entry.name!r} has no health check; give it one: health=HealthCheck(...)",
            expected="health check",
            actual="none",
        )
    if not state.is_alive:
        raise _never(entry, condition)
    return word is not None and word.health == "healthy"


def _never(entry: ContainerEntry, condition: Condition) -> InvalidState:
    return InvalidState(
        f"container {entry.name!r} will not become {condition}: it is {entry.state}",
        expected=condition,
        actual=str(entry.state),
    )


def wait_until(entry: ContainerEntry, condition: Condition, *, timeout_s: float | None = None) -> None:
    """Wait until a condition holds.

    Raises:
        InvalidState: It can no longer come about.
        OperationTimeout: It has not within `timeout_s` seconds.
        InvalidOption: There is no such condition.
    """
    if condition not in {"running", "healthy", "exited", "removed"}:
        raise InvalidOption("condition", condition, "give 'running', 'healthy', 'exited' or 'removed'")
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    place = entry.layers.directory if entry.is_detached else os.path.dirname(entry.record_path)
    try:
        with Watch(place or "/") as watch:
            while not _is_met(entry, condition):
                left_s = _LOOK_AGAIN_S
                if deadline is not None:
                    left_s = min(left_s, deadline - time.monotonic())
                if left_s <= 0:
                    raise OperationTimeout(
                        f"container {entry.name!r} is not {condition} after {timeout_s} s",
                        timeout_s=timeout_s or 0.0,
                    )
                watch.wait(entry.process.fileno() if entry.process is not None else -1, left_s)
    except FileNotFoundError:
        if not _is_met(entry, condition):
            raise _never(entry, condition) from None
