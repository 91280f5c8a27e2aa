"""One started container: its channel, its control group, and how it ended.

The only object that reads a channel. Safe to use from several threads.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from typing import TYPE_CHECKING

from containerlib.errors import CgroupError, InvalidState
from containerlib.runtime.identity import is_readable, pid_of
from containerlib.runtime.usage import ExitStatus, Usage

if TYPE_CHECKING:
    from collections.abc import Callable

    from containerlib._native.channel import Channel, Exit
    from containerlib.runtime.cgroup_container import CgroupUsage, ContainerCgroup

__all__ = ["RunningProcess", "exit_status"]


class RunningProcess:
    """The first process of a container, from the moment its command was executed."""

    def __init__(
        self,
        channel: Channel,
        cgroup: ContainerCgroup | None,
        on_exit: Callable[[ExitStatus], None],
    ) -> None:
        """Take over the channel and the control group.

        Args:
            channel: From the spawner, started.
            cgroup: The container's control groups; None where the host has none to write.
            on_exit: Called once, by whoever first learns of the end, before anybody is told.
        """
        self._channel = channel
        self._cgroup = cgroup
        self._on_exit = on_exit
        # A signal handler may call `signal` while this thread is in `_finish`.
        self._lock = threading.RLock()
        self._status: ExitStatus | None = None
        self._is_finishing = False
        self._console_taken = False
        self._noted = threading.Event()
        self.started_at = time.time()
        self.finished_at: float | None = None

    def fileno(self) -> int:
        """A descriptor that becomes readable at the end, for poll(2) and event loops."""
        return self._channel.fileno()

    def duplicate(self) -> int:
        """A descriptor like `fileno` that the caller owns and closes; -1 after the end."""
        return self._channel.duplicate()

    @property
    def pidfd(self) -> int:
        """The pidfd of the first process; -1 after the end."""
        return self._channel.pidfd

    @property
    def cgroup(self) -> ContainerCgroup | None:
        """The control groups; None after the end, and where the host has none to write."""
        return self._cgroup

    @property
    def pid(self) -> int | None:
        """Process id as this process sees it; None after the end."""
        return None if self._status is not None else pid_of(self._channel.pidfd)

    @property
    def is_alive(self) -> bool:
        """Whether the first process runs, as the kernel says."""
        fd = self._channel.pidfd
        return fd >= 0 and not is_readable(fd, 0)

    def take_console(self) -> int:
        """The master side of the container's terminal; the caller owns it from now on."""
        while self._channel.console_fd < 0:
            if self._channel.exit is not None or self._console_taken:
                raise InvalidState("the container's terminal is gone", expected="tty", actual="no tty")
            self._channel.wait_ready(None)
            self._channel.receive()
        self._console_taken = True
        fd, self._channel.console_fd = self._channel.console_fd, -1
        return fd

    @property
    def has_ended(self) -> bool:
        """Whether the end was reported, even if another thread is still taking note of it."""
        return self._channel.exit is not None

    def poll(self) -> ExitStatus | None:
        """How it ended, or None while it runs or while another thread is taking note of its end."""
        if self._status is None and self._channel_says_ended(0):
            self._finish()
        return self._status

    def wait(self, timeout_s: float | None = None) -> ExitStatus | None:
        """Wait for the end; None if it did not come within `timeout_s` seconds."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        if self._status is None and self._channel_says_ended(timeout_s):
            self._finish()
            # Another thread may be at it; that takes a moment, and no report follows.
            self._noted.wait(None if deadline is None else max(0.0, deadline - time.monotonic()))
        return self._status

    def _channel_says_ended(self, timeout_s: float | None) -> bool:
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while self._channel.exit is None:
            if not self._channel.wait_ready(None if deadline is None else deadline - time.monotonic()):
                return False
            self._channel.receive()
        return True

    def _finish(self) -> None:
        """Take note of the end, in the first thread that gets here; the others go on."""
        ended = self._channel.exit
        with self._lock:
            if self._is_finishing or ended is None:
                return
            self._is_finishing = True
            counted = None if self._cgroup is None else self._cgroup.usage()
            self.finished_at = time.time()
            self._remove_cgroup()
            self._channel.close()
        status = exit_status(ended, counted)
        # Outside the lock, because the owner has one of its own, under which it calls us.
        self._on_exit(status)
        self._status = status
        self._noted.set()

    def _remove_cgroup(self) -> None:
        cgroup, self._cgroup = self._cgroup, None
        if cgroup is not None:
            # What is busy for a moment longer is removed with the engine's next container.
            with contextlib.suppress(CgroupError):
                cgroup.remove()

    def signal(self, number: int = signal.SIGKILL) -> None:
        """Send a signal to the first process; one that has ended is not an error.

        SIGKILL ends every process of the container: the kernel does not let a PID namespace outlive its
        first process.
        """
        with self._lock:
            if not self._is_finishing:
                self._channel.kill(number)

    def lost(self) -> None:
        """Settle without the spawner: what it has said already counts, else nobody knows how it ended."""
        if not self._channel_says_ended(0):
            self._channel.give_up()
        self._finish()

    def abandon(self) -> None:
        """In a forked child, or when it shall go on without us: give up the descriptors, nothing else."""
        for fd in (self._channel.fileno(), self._channel.pidfd):
            if fd >= 0:
                with contextlib.suppress(OSError):
                    os.close(fd)


def exit_status(ended: Exit, counted: CgroupUsage | None) -> ExitStatus:
    """What the kernel said of the first process, together with what its control groups counted."""
    peak = counted.memory_peak_bytes if counted else None
    usage = Usage(
        cpu_user_s=ended.user_us / 1e6,
        cpu_system_s=ended.system_us / 1e6,
        memory_peak_bytes=ended.max_rss_bytes if peak is None else peak,
        pids_peak=counted.pids_peak if counted else None,
    )
    return ExitStatus(
        exit_code=ended.exit_code,
        signal=ended.signal,
        oom_killed=bool(counted and counted.oom_kills),
        usage=usage,
    )
