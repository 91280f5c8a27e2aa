"""A container in the foreground: waits for its end, and passes signals on until then.

Signals arrive as bytes of a pipe, and never in the middle of something else: the engine's locks are not made
for a handler that comes back into the engine.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import time
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType, TracebackType
    from typing import Self

    from containerlib.runtime.usage import ExitStatus

__all__ = ["Foreground", "leaving_on_signals"]

FORWARDED = (
    signal.SIGHUP,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGTERM,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGALRM,
)
_ENDING = frozenset({signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM})


def _leave(number: int, _frame: FrameType | None) -> None:
    sys.exit(128 + number)


@contextlib.contextmanager
def leaving_on_signals() -> Iterator[None]:
    """Have signals that would end this process at once leave it by an exception, which cleans up."""
    numbers = [n for n in (signal.SIGHUP, signal.SIGTERM) if signal.getsignal(n) == signal.SIG_DFL]
    for number in numbers:
        signal.signal(number, _leave)
    try:
        yield
    finally:
        for number in numbers:
            signal.signal(number, signal.SIG_DFL)


class Waited(Protocol):
    """What can be waited for: a container, or a command in one."""

    @property
    def exit_status(self) -> ExitStatus | None:
        """How it ended; None before."""

    def fileno(self) -> int:
        """A descriptor that becomes readable at the end."""

    def kill(self, signal: int | str = "KILL") -> None:
        """Send a signal."""


class Foreground:
    """Takes over this process's signals while it is open as a context manager, in the main thread.

    It is opened before the container is started: what arrives during the start is passed on after it.
    """

    def __init__(self) -> None:
        self._poller = select.poll()
        self._actions: dict[int, Callable[[], object]] = {}
        self._handlers: dict[int, Callable[[int, FrameType | None], object] | int | None] = {}
        self._reader = self._writer = self._old_wakeup = -1
        self._container: Waited | None = None
        self._endings = self._early_endings = 0
        self.on_resize: Callable[[], None] | None = None

    def __enter__(self) -> Self:
        self._reader, self._writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._old_wakeup = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        for number in (*FORWARDED, signal.SIGWINCH):
            # What is ignored stays ignored: that is how nohup works.
            if signal.getsignal(number) != signal.SIG_IGN:
                self._handlers[number] = signal.signal(number, self._note)
        self.watch(self._reader, self._take_signals)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._old_wakeup)
        os.close(self._reader)
        os.close(self._writer)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        """Handle a signal, of which the wake-up descriptor tells already; a start that hangs is left."""
        if self._container is None and number in _ENDING:
            self._early_endings += 1
            if self._early_endings > 1:
                sys.exit(128 + number)

    def watch(self, fd: int, action: Callable[[], object], events: int = select.POLLIN) -> None:
        """Call `action` whenever `fd` is ready, in place of what was called before."""
        self._actions[fd] = action
        self._poller.register(fd, events)

    def unwatch(self, fd: int) -> None:
        """Do not look at `fd` any more; one that is not watched is not an error."""
        if self._actions.pop(fd, None) is not None:
            self._poller.unregister(fd)

    def wait(self, container: Waited, *, timeout_s: float | None = None) -> ExitStatus | None:
        """Wait for the end of `container`; None if it still runs after `timeout_s` seconds."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        self._container = container
        while (status := container.exit_status) is None:
            # The descriptor may have changed its number, or be gone, once the end was noticed.
            end_fd = container.fileno()
            self._poller.register(end_fd, select.POLLIN)
            left_ms = None if deadline is None else (deadline - time.monotonic()) * 1000
            if left_ms is not None and left_ms <= 0:
                return None
            for fd, _ in self._poller.poll(left_ms):
                if fd in self._actions:
                    self._actions[fd]()
        return status

    def _take_signals(self) -> None:
        for number in os.read(self._reader, 1024):
            if number == signal.SIGWINCH:
                if self.on_resize is not None:
                    self.on_resize()
            elif number in self._handlers:
                self._forward(number)

    def _forward(self, number: int) -> None:
        """Pass a signal on; from the second on, those that end a program are SIGKILL.

        The kernel drops a signal for which the first process of a container has no handler, so asking once
        may not be enough, and asking twice says that it is meant.
        """
        container = self._container
        if container is None or container.exit_status is not None:
            return
        self._endings += number in _ENDING
        is_final = number in _ENDING and self._endings > 1
        container.kill(signal.SIGKILL if is_final else number)
