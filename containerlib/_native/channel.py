"""What connects us to one started container: reading what the spawner and the container itself report.

Steps and numbers become words in `_native.explain`.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import signal
import threading
import time
from typing import TYPE_CHECKING, Any

from attrs import define, field, frozen

from containerlib._native.explain import explain, step_name
from containerlib._native.ffi import check, ffi, lib
from containerlib.errors import EngineClosed, OperationTimeout

if TYPE_CHECKING:
    from collections.abc import Sequence

    from containerlib._native.spec import NativeSpec

__all__ = ["Channel", "Exit", "close_all", "exit_of", "new_pair"]

_ERROR_SIZE = ffi.sizeof("struct ctr_error")


@frozen(kw_only=True)
class Exit:
    """How a container's first process ended, as its parent saw it.

    Attributes:
        exit_code: 0 to 255; 128 + n for signal n; None when the spawner was lost, so that nobody knows.
        signal: The signal that killed it, else 0.
        user_us: Processor time of it and all its waited-for descendants, in user mode.
        system_us: The same in the kernel.
        max_rss_bytes: Largest resident set of any one of them.
    """

    exit_code: int | None
    signal: int = 0
    user_us: int = 0
    system_us: int = 0
    max_rss_bytes: int = 0


def exit_of(status: Any) -> Exit:
    """What a `struct ctr_status` says of an end."""
    return Exit(
        exit_code=status.value,
        signal=status.code,
        user_us=status.user_us,
        system_us=status.system_us,
        max_rss_bytes=status.max_rss_bytes,
    )


def close_all(fds: Sequence[int]) -> None:
    """Close descriptors, whatever state they are in."""
    for fd in fds:
        with contextlib.suppress(OSError):
            os.close(fd)


def new_pair() -> tuple[int, int]:
    """A connected pair of sockets that keep records apart."""
    pair = ffi.new("int[2]")
    check(lib.ctr_channel(pair), "socketpair")
    return pair[0], pair[1]


@define(eq=False)
class Channel:
    """What connects us to one started container: its pidfd and the socket on which its end is told.

    Safe to use from several threads. Close it, or it warns when collected.
    """

    _status_fd: int
    _error_fd: int
    pidfd: int = -1
    console_fd: int = -1
    listener_fd: int = -1
    exit: Exit | None = None
    held_step: int = 0
    _waiters: int = 0
    _is_closing: bool = False
    _lock: threading.Lock = field(factory=threading.Lock)

    def fileno(self) -> int:
        """A descriptor that becomes readable when something is to be received, at the latest at the end."""
        return self._status_fd

    def receive(self) -> None:
        """Read one report if there is one. The end of them without an exit is `Exit(None)`."""
        with self._lock:
            if self.exit is not None:
                return
            status = ffi.new("struct ctr_status *")
            fd = ffi.new("int *", -1)
            more = lib.ctr_receive(self._status_fd, status, fd)
            if more == -errno.EAGAIN:
                return
            if more <= 0:
                self.exit = Exit(exit_code=None)
                return
            self._take(status, fd[0])

    def _take(self, status: Any, fd: int) -> None:
        kind = status.kind
        if kind == lib.CTR_STATUS_STARTED:
            self.pidfd = fd
        elif kind == lib.CTR_STATUS_CONSOLE:
            self.console_fd = fd
        elif kind == lib.CTR_STATUS_LISTENER:
            self.listener_fd = fd
        elif kind == lib.CTR_STATUS_HELD:
            self.held_step = status.code
        elif kind == lib.CTR_STATUS_EXITED:
            self.exit = exit_of(status)

    def wait_ready(self, timeout_s: float | None) -> bool:
        """Whether a report can be read without blocking, after waiting at most `timeout_s` seconds."""
        with self._lock:
            if self.exit is not None or self._status_fd < 0:
                return True
            self._waiters += 1
        try:
            poller = select.poll()
            poller.register(self._status_fd, select.POLLIN)
            return bool(poller.poll(None if timeout_s is None else max(0.0, timeout_s * 1000)))
        finally:
            with self._lock:
                self._waiters -= 1
                self._close_status()

    def duplicate(self) -> int:
        """A descriptor like `fileno` that the caller owns; -1 after the end."""
        with self._lock:
            return -1 if self.exit is not None or self._status_fd < 0 else os.dup(self._status_fd)

    def _close_status(self) -> None:
        """Close the socket once nobody waits on it: a waiter would else wait on whatever has its number next.

        The spawner has closed its side by then, so that no waiter stays.
        """
        if self._is_closing and self._waiters == 0 and self._status_fd >= 0:
            os.close(self._status_fd)
            self._status_fd = -1

    def release(self) -> None:
        """Let a container go on that a fault of action HOLD has stopped."""
        os.write(self._status_fd, b"\0")

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send a signal to the container's first process; SIGKILL ends every process of the container.

        A container that has ended is not an error.
        """
        with contextlib.suppress(ProcessLookupError):
            if self.pidfd >= 0 and self.exit is None:
                signal.pidfd_send_signal(self.pidfd, number)

    def give_up(self) -> None:
        """Say that nobody will ever know how it ended, if it is not known."""
        with self._lock:
            if self.exit is None:
                self.exit = Exit(exit_code=None)

    def close(self) -> None:
        """Give up the descriptors. A running container goes on; its end can no longer be learnt."""
        with self._lock:
            fds = [self._error_fd, self.pidfd, self.console_fd, self.listener_fd]
            self._error_fd = self.pidfd = self.console_fd = self.listener_fd = -1
            if self.exit is None:
                self.exit = Exit(exit_code=None)
            self._is_closing = True
            self._close_status()
        close_all([fd for fd in fds if fd >= 0])

    def finish_start(self, spec: NativeSpec, timeout_s: float) -> None:
        """Wait until the command was executed, and raise what prevented it; then `abort` is due.

        Raises:
            SpawnError: A step failed; its subclasses for a command that is missing or not executable.
            OperationTimeout: The steps took longer than `timeout_s`.
            EngineClosed: The spawner is gone.
        """
        poller = select.poll()
        poller.register(self._error_fd, select.POLLIN)
        if not poller.poll(timeout_s * 1000):
            raise OperationTimeout(f"the container did not start within {timeout_s} s", timeout_s=timeout_s)
        data = os.read(self._error_fd, _ERROR_SIZE)
        while self.pidfd < 0 and self.exit is None and self.wait_ready(0 if data else None):
            self.receive()
        if len(data) == _ERROR_SIZE:
            error = ffi.from_buffer("struct ctr_error *", data)
            raise explain(spec, error.step, error.err, error.index)
        if self.pidfd < 0:
            raise EngineClosed("the spawner ended while the container was being started; open a new engine")
        os.close(self._error_fd)
        self._error_fd = -1

    def wait_held(self, spec: NativeSpec, timeout_s: float) -> str:
        """Wait until the process stands still, or has executed its command.

        Returns:
            The step before which it stands; empty if the command was executed.

        Raises:
            SpawnError: A step failed; its subclasses for a command that is missing or not executable.
            OperationTimeout: It took longer than `timeout_s`.
            EngineClosed: Who should have started it is gone.
        """
        deadline = time.monotonic() + timeout_s
        poller = select.poll()
        poller.register(self._error_fd, select.POLLIN)
        poller.register(self._status_fd, select.POLLIN)
        self.held_step = 0
        while not self.held_step or self.pidfd < 0:
            ready = dict(poller.poll(max(0.0, deadline - time.monotonic()) * 1000))
            if not ready:
                raise OperationTimeout(
                    f"the container did not start within {timeout_s} s", timeout_s=timeout_s
                )
            if self._status_fd in ready:
                self.receive()
                if self.exit is not None:  # the last of them has closed its side
                    poller.unregister(self._status_fd)
            elif self._error_fd in ready:
                self.finish_start(spec, 0)
                return ""
        return step_name(self.held_step)

    def abort(self) -> None:
        """Kill what was started, wait until it is gone, and close. A start that failed is over already."""
        while self.pidfd < 0 and self.exit is None and self.wait_ready(None):
            self.receive()
        self.kill()
        while self.exit is None and self.wait_ready(None):
            self.receive()
        self.close()
