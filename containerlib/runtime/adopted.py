"""A container that another process started: known by its record, watched by pidfd, ended by signal.

Has the verbs of `RunningProcess`, for a container whose channel is elsewhere or gone.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import threading
from typing import TYPE_CHECKING

from attrs import evolve, frozen

from containerlib._native.channel import Exit, read_exit_record
from containerlib.errors import UnsupportedHost
from containerlib.runtime.cgroup_files import open_directory, remove_below
from containerlib.runtime.process import exit_status
from containerlib.store.lease import Holder

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from containerlib.runtime.usage import ExitStatus

__all__ = ["AdoptedProcess", "ProcessIdentity"]

_SUPERVISOR_S = 10.0
_NEVER = -1
_START_FIELD = 19  # field 22 of /proc/PID/stat, counted from the state, which follows the name


@frozen
class ProcessIdentity:
    """A process that can be told from a later one with the same number.

    Attributes:
        pid: Its number in this PID namespace.
        start_ticks: When it started, in clock ticks since boot.
        boot_id: Which boot of the machine.
    """

    pid: int
    start_ticks: int
    boot_id: str

    @classmethod
    def of(cls, pid: int) -> ProcessIdentity:
        """The process that has this number now; if there is none, an identity that fits no process."""
        try:
            start_ticks = _start_ticks(pid)
        except ProcessLookupError:
            start_ticks = _NEVER
        return cls(pid, start_ticks, Holder.current().boot_id)

    def ended(self) -> ProcessIdentity:
        """The identity of this process once it has ended: it fits no later one with the same number."""
        return evolve(self, start_ticks=_NEVER)

    def open(self) -> int:
        """A pidfd of this process, or -1 if it has ended.

        Raises:
            UnsupportedHost: The kernel gives none, so that nothing could be said of it for sure.
        """
        try:
            fd = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return -1
        except OSError as error:
            raise UnsupportedHost(
                "a container that another process has started",
                needed="pidfd_open (Linux 5.3)",
                found=f"none: {error.strerror}",
            ) from None
        # What is compared after the opening cannot change any more.
        with contextlib.suppress(OSError):
            if self.boot_id == Holder.current().boot_id and _start_ticks(self.pid) == self.start_ticks:
                return fd
        os.close(fd)
        return -1


def _start_ticks(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return int(file.read().rpartition(b")")[2].split()[_START_FIELD])
    except FileNotFoundError:
        raise ProcessLookupError(pid) from None


def _is_readable(fd: int, timeout_s: float | None) -> bool:
    if fd < 0:
        return True
    poller = select.poll()
    poller.register(fd, select.POLLIN)
    return bool(poller.poll(None if timeout_s is None else max(0.0, timeout_s * 1000)))


class AdoptedProcess:
    """The first process of a container that another process started."""

    def __init__(
        self,
        process: ProcessIdentity,
        supervisor: ProcessIdentity,
        exit_path: str,
        cgroup_paths: Sequence[str],
        on_exit: Callable[[ExitStatus], None],
    ) -> None:
        """Look for both processes.

        Args:
            process: The container's first process.
            supervisor: Its parent, which leaves the exit record.
            exit_path: Where the exit record is left.
            cgroup_paths: Directories to remove after the end.
            on_exit: Called once, by whoever first learns of the end, before anybody is told.
        """
        self._identity = process
        self._pidfd = process.open()
        self._supervisor_fd = supervisor.open()
        self._exit_path = exit_path
        self._cgroup_paths = cgroup_paths
        self._on_exit = on_exit
        self._lock = threading.Lock()
        self._status: ExitStatus | None = None
        self._noted = threading.Event()
        self._is_finishing = False

    def fileno(self) -> int:
        """A descriptor that becomes readable at the end."""
        return self._pidfd

    def duplicate(self) -> int:
        """A descriptor like `fileno` that the caller owns; -1 after the end."""
        return os.dup(self._pidfd) if self._pidfd >= 0 else -1

    @property
    def pid(self) -> int | None:
        """Process id; None after the end."""
        return None if self.has_ended else self._identity.pid

    @property
    def has_ended(self) -> bool:
        """Whether the first process has ended."""
        return _is_readable(self._pidfd, 0)

    def poll(self) -> ExitStatus | None:
        """How it ended, or None while it runs. Waits for the supervisor to say it, which takes a moment."""
        return self.wait(0)

    def wait(self, timeout_s: float | None = None) -> ExitStatus | None:
        """Wait for the end; None if it did not come within `timeout_s` seconds."""
        if self._status is None and _is_readable(self._pidfd, timeout_s):
            self._finish()
            self._noted.wait(timeout_s)
        return self._status

    def _finish(self) -> None:
        with self._lock:
            if self._is_finishing:
                return
            self._is_finishing = True
        # The supervisor ends when it has left the record; one that is killed leaves none.
        _is_readable(self._supervisor_fd, _SUPERVISOR_S)
        ended = read_exit_record(self._exit_path) or Exit(exit_code=None)
        for path in self._cgroup_paths:
            _remove_cgroup(path)
        status = exit_status(ended, None)
        self._on_exit(status)
        self._status = status
        self._noted.set()

    def signal(self, number: int = signal.SIGKILL) -> None:
        """Send a signal to the first process; one that has ended is not an error."""
        with contextlib.suppress(ProcessLookupError):
            if self._pidfd >= 0:
                signal.pidfd_send_signal(self._pidfd, number)

    def lost(self) -> None:
        """Nothing to settle: nobody here started it."""

    def abandon(self) -> None:
        """Give up the descriptors."""
        for fd in (self._pidfd, self._supervisor_fd):
            if fd >= 0:
                with contextlib.suppress(OSError):
                    os.close(fd)
        self._pidfd = self._supervisor_fd = -1

    def __del__(self) -> None:
        self.abandon()


def _remove_cgroup(path: str) -> None:
    parent, name = os.path.split(path)
    with contextlib.suppress(OSError):
        fd = open_directory(parent)
        try:
            remove_below(fd, name)
        finally:
            os.close(fd)
