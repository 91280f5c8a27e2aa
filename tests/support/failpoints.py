"""Killing a process in front of each durable step of an operation, and breaking the disk there.

Which steps an operation has is recorded from the operation itself, so none can be forgotten. The operation
runs in a forked child; nothing is synced there: the death of a process loses nothing that was written.
"""

from __future__ import annotations

import os
import signal
from collections import Counter
from typing import TYPE_CHECKING
from unittest import mock

import attrs

from containerlib._native import path
from containerlib._util import failpoint

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Step", "died_at", "failing_at", "hooked", "record_steps", "recording"]


@attrs.frozen
class Step:
    """One durable step.

    Attributes:
        name: What happens, and in which part of the store, such as ``"rename references"``.
        number: The how many-th of this name.
    """

    name: str
    number: int

    def __str__(self) -> str:
        return f"{self.name} {self.number}"


class _Namer:
    """Names steps as they come."""

    def __init__(self, root: str) -> None:
        self._root = root
        self._counts: Counter[str] = Counter()

    def name(self, step: str, where: str) -> Step:
        place = os.path.relpath(where, self._root) if where.startswith("/") else ""
        head = "outside" if place.startswith("..") else place.partition("/")[0]
        head = head.removeprefix(".")
        if head == "locks":
            # Whether a lock has to be made depends on who has held it before.
            head = "locks/" + place.partition("/")[2].partition("-")[0]
        name = f"{step} {head}".strip()
        self._counts[name] += 1
        return Step(name, self._counts[name])


def _in_child(operation: Callable[[], object], hook: failpoint.Hook) -> int:
    """Run an operation in a forked child under a hook, and return its wait status."""
    pid = os.fork()
    if pid == 0:
        code = 99
        try:
            with mock.patch.object(path, "sync_filesystem"), mock.patch.object(os, "fsync"):
                failpoint.set_hook(hook)
                operation()
            code = 0
        finally:
            os._exit(code)
    return os.waitpid(pid, 0)[1]


def record_steps(operation: Callable[[], object], root: str) -> list[Step]:
    """Run an operation to its end in a child, and return its steps."""
    read_end, write_end = os.pipe()
    namer = _Namer(root)
    with open(read_end, "rb") as stream:
        status = _in_child(
            operation, lambda step, where: void(os.write(write_end, f"{namer.name(step, where)}\n".encode()))
        )
        os.close(write_end)
        lines = stream.read().decode().splitlines()
    assert os.waitstatus_to_exitcode(status) == 0, "the operation fails even if nobody kills it"
    return [Step(line.rpartition(" ")[0], int(line.rpartition(" ")[2])) for line in lines]


def void(value: object) -> None:
    """Take a value and do nothing with it."""
    del value


def died_at(operation: Callable[[], object], root: str, step: Step) -> bool:
    """Run an operation in a child that is killed in front of `step`; say whether it came so far."""
    namer = _Namer(root)

    def hook(name: str, where: str) -> None:
        if namer.name(name, where) == step:
            os.kill(os.getpid(), signal.SIGKILL)

    code = os.waitstatus_to_exitcode(_in_child(operation, hook))
    assert code in {0, -signal.SIGKILL}, code
    return code == -signal.SIGKILL


def failing_at(step: Step, root: str, number: int) -> failpoint.Hook:
    """Return a hook that makes `step` fail with the error `number`."""
    namer = _Namer(root)

    def hook(name: str, where: str) -> None:
        if namer.name(name, where) == step:
            raise OSError(number, os.strerror(number), where)

    return hook


def recording(root: str) -> tuple[list[Step], failpoint.Hook]:
    """Return a list, and a hook that appends each step to it."""
    namer, steps = _Namer(root), list[Step]()
    return steps, lambda name, where: steps.append(namer.name(name, where))


class hooked:  # noqa: N801 - used like a function
    """A hook for the length of a block."""

    def __init__(self, hook: failpoint.Hook) -> None:
        self._hook = hook

    def __enter__(self) -> None:
        failpoint.set_hook(self._hook)

    def __exit__(self, *exc_info: object) -> None:
        failpoint.set_hook(None)
