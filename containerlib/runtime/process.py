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
from containerlib.runtime.usage import ExitStatus, Usage

if TYPE_CHECKING:
    from collections.abc import Callable

    from containerlib._native.spawn import Channel, Exit
    from containerlib.runtime.cgroup_container import CgroupUsage, ContainerCgroup

__all__ = ["RunningProcess"]


class RunningProcess:
    """The first process of a container, from the moment its command was executed."""

    def __init__(
        self, channel: Channel, cgroup: ContainerCgroup | None, on_exit: Callable[[RunningProcess], None]
    ) -> None:
        """Take over the channel and the control group.

        Args:
            channel: From the spawner, started.
            cgroup: The container's control groups; None where the host has none to write.
            on_exit: Called once, by whoever first learns of the end, after the control group is gone.
        """
        self._channel = channel
        self._cgroup = cgroup
        self._on_exit = on_exit
        self._lock = threading.Lock()
        self._status: ExitStatus | None = None
        self.started_at = time.time()
        self.finished_at: float | None = None

    def fileno(self) -> int:
        """A descriptor that becomes readable at the end, for poll(2) and event loops."""
        return self._channel.fileno()

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
        fd = self._channel.pidfd
        if fd < 0 or self._status is not None:
            return None
        try:
            with open(f"/proc/self/fdinfo/{fd}", encoding="ascii") as info:
                for line in info:
                    if line.startswith("Pid:"):
                        pid = int(line.split()[1])
                        return pid if pid > 0 else None
        except OSError:
            return None
        return None

    def take_console(self) -> int:
        """The master side of the container's terminal; the caller owns it from now on."""
        while self._channel.console_fd < 0:
            if self._channel.exit is not None:
                raise InvalidState("the container has no terminal", expected="tty", actual="no tty")
            self._channel.receive()
        fd, self._channel.console_fd = self._channel.console_fd, -1
        return fd

    def poll(self) -> ExitStatus | None:
        """How it ended, or None while it runs. Never blocks."""
        return self.wait(0)

    def wait(self, timeout_s: float | None = None) -> ExitStatus | None:
        """Wait for the end; None if it did not come within `timeout_s` seconds."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while self._status is None:
            left = None if deadline is None else deadline - time.monotonic()
            if self._channel.exit is None:
                if not self._channel.wait_ready(left):
                    return None
                self._channel.receive()
            if self._channel.exit is not None:
                self._finish(self._channel.exit)
        return self._status

    def _finish(self, ended: Exit) -> None:
        with self._lock:
            if self._status is not None:
                return
            counted = None if self._cgroup is None else self._cgroup.usage()
            self.finished_at = time.time()
            self._remove_cgroup()
            self._channel.close()
            self._status = _exit_status(ended, counted)
        self._on_exit(self)

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
            if self._status is None:
                self._channel.kill(number)

    def lost(self) -> None:
        """Settle without the spawner: what it has said already counts, else nobody knows how it ended."""
        while self._channel.exit is None and self._channel.wait_ready(0):
            self._channel.receive()
        if self._channel.exit is None:
            self._channel.close()
        ended = self._channel.exit
        if ended is not None:
            self._finish(ended)

    def abandon(self) -> None:
        """In a forked child: give up the descriptors and touch nothing else."""
        for fd in (self._channel.fileno(), self._channel.pidfd):
            if fd >= 0:
                with contextlib.suppress(OSError):
                    os.close(fd)


def _exit_status(ended: Exit, counted: CgroupUsage | None) -> ExitStatus:
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
