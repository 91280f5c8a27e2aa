"""Waiting for something else than the end of a container."""

from __future__ import annotations

import contextlib
import os
import time
from typing import TYPE_CHECKING, Literal, Self

from containerlib._native.watch import Watch
from containerlib.container.state import ContainerState
from containerlib.errors import InvalidOption, InvalidState, OperationTimeout
from containerlib.runtime.detached import DetachedProcess

if TYPE_CHECKING:
    from containerlib.container.entry import ContainerEntry

__all__ = ["Condition", "Waiting", "wait_until"]

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
    with Waiting(entry, condition, timeout_s) as waiting:
        while not waiting.is_met():
            waiting.wait()


class Waiting:
    """One waiting for a condition, in steps; a context manager."""

    def __init__(self, entry: ContainerEntry, condition: Condition, timeout_s: float | None) -> None:
        """Begin.

        Raises:
            InvalidOption: There is no such condition.
        """
        if condition not in {"running", "healthy", "exited", "removed"}:
            raise InvalidOption("condition", condition, "give 'running', 'healthy', 'exited' or 'removed'")
        self._entry = entry
        self._condition = condition
        self._timeout_s = timeout_s
        self._deadline = None if timeout_s is None else time.monotonic() + timeout_s
        self._watch: Watch | None = None

    def __enter__(self) -> Self:
        entry = self._entry
        place = entry.layers.directory if entry.is_detached else os.path.dirname(entry.record_path)
        with contextlib.suppress(FileNotFoundError):  # gone; the first look tells
            self._watch = Watch(place or "/")
        return self

    def __exit__(self, *_: object) -> None:
        if self._watch is not None:
            self._watch.close()

    def is_met(self) -> bool:
        """Whether the condition holds.

        Raises:
            InvalidState: It can no longer come about.
            OperationTimeout: It has not, and the time is up.
        """
        if _is_met(self._entry, self._condition):
            return True
        if self._watch is None:
            raise _never(self._entry, self._condition)
        if self.left_s <= 0:
            raise OperationTimeout(
                f"container {self._entry.name!r} is not {self._condition} after {self._timeout_s} s",
                timeout_s=self._timeout_s or 0.0,
            )
        return False

    @property
    def left_s(self) -> float:
        """How long to wait for `fds` at most."""
        if self._deadline is None:
            return _LOOK_AGAIN_S
        return min(_LOOK_AGAIN_S, self._deadline - time.monotonic())

    @property
    def fds(self) -> list[int]:
        """Descriptors of which one becomes readable when it is time to look again."""
        end_fd = self._entry.process.fileno() if self._entry.process is not None else -1
        return [fd for fd in (end_fd, -1 if self._watch is None else self._watch.fileno()) if fd >= 0]

    def settle(self) -> None:
        """After waiting for `fds`: from now on they tell of what is new."""
        if self._watch is not None:
            self._watch.wait(timeout_s=0)

    def wait(self) -> None:
        """Wait until it is time to look again."""
        if self._watch is not None:
            process = self._entry.process
            self._watch.wait(process.fileno() if process is not None else -1, self.left_s)
