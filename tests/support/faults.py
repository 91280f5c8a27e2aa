"""Starts that fail at a chosen step, or stand still there until they are told to go on.

The fault travels in the request; the C side plays it in exactly that step. A start that stands still is run
in a thread of its own, because it does not return before its command was executed.
"""

from __future__ import annotations

import contextlib
import errno
import os
import queue
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from unittest import mock

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from containerlib import Container, Image
    from containerlib._native.channel import Channel
    from containerlib._native.spawn import SpawnRequest

__all__ = ["DEADLINE_S", "TRUE", "HeldExec", "HeldStart", "failing", "held", "held_exec", "step_number"]

DEADLINE_S = 30.0
TRUE = ("/bin/true",)


def step_number(step: str) -> int:
    """Return the number of a step by its name."""
    from containerlib._native.explain import STEPS  # noqa: PLC0415 - unit tests have no compiled extension

    return next(number for number, name in STEPS.items() if name == step)


def failing(step: str, *, number: int = errno.EIO, index: int = -1) -> dict[str, Any]:
    """Return the options of a container whose start fails at `step`, for the element `index` of its list."""
    from containerlib._native.ffi import lib  # noqa: PLC0415 - see above

    return {"fault": (int(lib.CTR_FAULT_FAIL), step_number(step), number, index)}


def process_id(pidfd: int) -> int:
    """Return the number of the process behind a pidfd, -1 when it has ended."""
    with open(f"/proc/self/fdinfo/{pidfd}", encoding="ascii") as info:
        return next(int(line.split()[1]) for line in info if line.startswith("Pid:"))


def children(pid: int) -> list[int]:
    """Return the process ids of the children of a process."""
    found = []
    for name in filter(str.isdecimal, os.listdir("/proc")):
        with (
            contextlib.suppress(OSError),
            open(f"/proc/{name}/stat", encoding="utf-8", errors="replace") as stat,
        ):
            if int(stat.read().rpartition(")")[2].split()[1]) == pid:
                found.append(int(name))
    return found


@dataclass
class HeldStart:
    """A start that stands still.

    Attributes:
        image: What is started.
        options: Options of the container, the fault among them.
        channel: The start's connection to the spawner.
        container: The container, once the start has succeeded.
        error: What the start raised.
        has_pidfd: Whether the process is known when it stands still.
    """

    image: Image
    command: Sequence[str]
    options: dict[str, Any]
    container: Container | None = None
    error: BaseException | None = None
    has_pidfd: bool = True
    _channels: queue.SimpleQueue[Channel | None] = field(default_factory=queue.SimpleQueue)
    _channel: Channel | None = None
    _thread: threading.Thread | None = None

    @property
    def channel(self) -> Channel:
        """The start's connection to the spawner."""
        assert self._channel is not None, self.error
        return self._channel

    @property
    def first(self) -> int:
        """Process id of the container's process 1."""
        return process_id(self.channel.pidfd)

    @property
    def pid(self) -> int:
        """Process id of the process that stands still: the command's, also below an init."""
        below = children(self.first) if self.options.get("init") else []
        return below[0] if below else self.first

    def _start(self) -> None:
        self.container = self.image.run(self.command, **self.options)

    def _run(self) -> None:
        try:
            self._start()
        except BaseException as error:  # noqa: BLE001 - the test looks at it
            self.error = error
        finally:
            self._channels.put(None)

    def begin(self) -> None:
        """Start, and return when the process stands still.

        The engine must have started a container before.
        """
        from containerlib._native.spawn import Spawner  # noqa: PLC0415 - see above

        spawner = self.image._session.runner._spawner
        assert spawner is not None, "the engine has no spawner yet"

        def spawn(request: SpawnRequest) -> Channel:
            channel = Spawner.spawn(spawner, request)
            self._channels.put(channel)
            return channel

        with mock.patch.object(spawner, "spawn", spawn):
            self._thread = threading.Thread(target=self._run, name="held start")
            self._thread.start()
            self._channel = self._channels.get(timeout=DEADLINE_S)
        while self.channel.held_step == 0 or (self.has_pidfd and self.channel.pidfd < 0):
            assert self.channel.exit is None, self.channel.exit
            assert self.channel.wait_ready(DEADLINE_S), "the start does not come to the step"
            self.channel.receive()

    def finish(self) -> None:
        """Let the process go on, at every further element of the step as well, until the start is over."""
        assert self._thread is not None
        while self._thread.is_alive():
            if self.channel.held_step:
                self.channel.held_step = 0
                with contextlib.suppress(OSError):
                    self.channel.release()
            if self.channel.wait_ready(0.01):
                self.channel.receive()
            self._thread.join(0.001)

    def kill(self) -> None:
        """Kill the container in the midst of its start, and wait until the start is over."""
        assert self._thread is not None
        self.channel.kill()
        self._thread.join(DEADLINE_S)
        assert not self._thread.is_alive()


@dataclass(kw_only=True)
class HeldExec(HeldStart):
    """A command that stands still before it has joined a running container."""

    box: Container

    def _start(self) -> None:
        from containerlib.container.exec import start_exec  # noqa: PLC0415 - see above

        start_exec(self.box.entry, self.command, **self.options)


@contextlib.contextmanager
def held_exec(
    image: Image, box: Container, step: str, *, command: Sequence[str] = TRUE, **streams: Any
) -> Iterator[HeldExec]:
    """Start a command in `box`, of `image`, that stands still at `step` while the context is open."""
    from containerlib import DEVNULL  # noqa: PLC0415 - see above
    from containerlib._native.ffi import lib  # noqa: PLC0415

    options = {"stdin": DEVNULL, "stdout": DEVNULL, "stderr": DEVNULL, **streams}
    options["fault"] = (int(lib.CTR_FAULT_HOLD), step_number(step), 0, -1)
    start = HeldExec(image, command, options, has_pidfd=False, box=box)
    try:
        start.begin()
        yield start
    finally:
        start.finish()


@contextlib.contextmanager
def held(
    image: Image, step: str, *, index: int = -1, command: Sequence[str] = TRUE, **options: Any
) -> Iterator[HeldStart]:
    """Start a container that stands still at `step` for as long as the context is open.

    Args:
        image: What to start.
        step: Name of the step.
        index: Which element of the step's list; -1 for each of them.
        command: The container's command.
        options: Further options of the container.
    """
    from containerlib import DEVNULL  # noqa: PLC0415 - see above
    from containerlib._native.ffi import lib  # noqa: PLC0415

    chosen = {"stdin": DEVNULL, "stdout": DEVNULL, "stderr": DEVNULL, "layer": "memory", **options}
    chosen["fault"] = (int(lib.CTR_FAULT_HOLD), step_number(step), 0, index)
    start = HeldStart(image, command, chosen)
    try:
        start.begin()
        yield start
    finally:
        start.finish()
        if start.container is not None:
            start.container.remove(force=True)
