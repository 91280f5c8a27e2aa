"""Processes that can be told from later ones with the same number."""

from __future__ import annotations

import contextlib
import os
import select

from attrs import frozen

from containerlib.errors import UnsupportedHost
from containerlib.store.boot import boot_id

__all__ = ["ProcessIdentity", "is_readable", "pid_of"]

_STAT_BYTES = 4096
_STATE_FIELD, _START_FIELD = 0, 19  # fields 3 and 22 of /proc/PID/stat, counted from behind the name


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
        """The process that has this number now.

        Raises:
            ProcessLookupError: There is none.
        """
        return cls(pid, int(_fields(pid)[_START_FIELD]), boot_id())

    @property
    def is_alive(self) -> bool:
        """Whether it has not ended.

        Cost: a small file of /proc.
        """
        if self.boot_id != boot_id():
            return False
        try:
            fields = _fields(self.pid)
        except ProcessLookupError:
            return False
        return int(fields[_START_FIELD]) == self.start_ticks and fields[_STATE_FIELD] not in {b"Z", b"X"}

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
                "a container that outlives its process",
                needed="pidfd_open (Linux 5.3)",
                found=f"none: {error.strerror}",
            ) from None
        # What is compared after the opening cannot change any more.
        with contextlib.suppress(ProcessLookupError):
            if self.boot_id == boot_id() and ProcessIdentity.of(self.pid) == self:
                return fd
        os.close(fd)
        return -1


def _fields(pid: int) -> list[bytes]:
    try:
        fd = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise ProcessLookupError(pid) from None
    try:
        return os.read(fd, _STAT_BYTES).rpartition(b")")[2].split()
    finally:
        os.close(fd)


def pid_of(pidfd: int) -> int | None:
    """The number of a process as this one sees it; None if it has ended or is not in sight."""
    if pidfd < 0:
        return None
    try:
        with open(f"/proc/self/fdinfo/{pidfd}", encoding="ascii") as info:
            pids = [int(line.split()[1]) for line in info if line.startswith("Pid:")]
    except OSError:
        return None
    return pids[0] if pids and pids[0] > 0 else None


def is_readable(fd: int, timeout_s: float | None) -> bool:
    """Whether a descriptor becomes readable within `timeout_s` seconds; -1 is so at once."""
    if fd < 0:
        return True
    poller = select.poll()
    poller.register(fd, select.POLLIN)
    return bool(poller.poll(None if timeout_s is None else max(0.0, timeout_s * 1000)))
