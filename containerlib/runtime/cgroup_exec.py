"""The control groups of one further process in a container: join, kill, remove.

On version 2, also beside version 1, it gets a group of its own inside the container's, by which it is killed
with everything it has started. Without version 2 that is found by sessions and parents.
"""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

from attrs import frozen

from containerlib._util.failpoint import reach
from containerlib.runtime.cgroup_files import kill_below, pids_below, remove_below

if TYPE_CHECKING:
    from containerlib.runtime.cgroup_v1 import BranchV1
    from containerlib.runtime.cgroup_v2 import BranchV2

__all__ = ["ExecCgroup", "Place"]

_PASSES = 100
_PARENT_FIELD, _SESSION_FIELD = 1, 3  # fields 4 and 6 of /proc/PID/stat, counted from the state


@frozen
class Place:
    """Where directories of containers are made: an open directory of the engine in one tree.

    `prefix` is its path below the engine's directory, empty or with a slash at the end.
    """

    branch: BranchV1 | BranchV2
    fd: int
    prefix: str = ""


class ExecCgroup:
    """What one process joins a container by.

    Attributes:
        join_fds: Open ``tasks`` files of version 1.
        cgroup2_fd: Open directory to be born in, or None without version 2.
    """

    def __init__(self, container_id: str, exec_id: str) -> None:
        self.join_fds: list[int] = []
        self.cgroup2_fd: int | None = None
        self._container_id = container_id
        self._path = f"{container_id}/exec-{exec_id}"
        self._own: Place | None = None
        self._tracking: Place | None = None

    def enter(self, place: Place) -> None:
        """Open one of the container's directories; on version 2, make one in it."""
        self._tracking = place
        if place.branch.version == 1:
            flags = os.O_WRONLY | os.O_CLOEXEC
            self.join_fds.append(os.open(f"{self._container_id}/tasks", flags, dir_fd=place.fd))
            return
        reach("make control group", self._path)
        os.mkdir(self._path, 0o755, dir_fd=place.fd)
        self._own = place
        self.cgroup2_fd = os.open(self._path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=place.fd)

    def close(self) -> None:
        """Close the descriptors. Closing twice is not an error."""
        fds, self.join_fds = self.join_fds, []
        if self.cgroup2_fd is not None:
            fds.append(self.cgroup2_fd)
            self.cgroup2_fd = None
        for fd in fds:
            os.close(fd)

    def kill(self, pid: int | None) -> None:
        """Kill everything that the process has started, itself included.

        Args:
            pid: The process, by its number here; None if it has ended.
        """
        if self._own is not None:
            kill_below(self._own.fd, self._path)
        elif self._tracking is not None and pid is not None:
            _kill_session(self._tracking.fd, self._container_id, pid)

    def remove(self) -> bool:
        """Remove the own group unless something that was left behind is still in it; whether it is gone."""
        own, self._own = self._own, None
        return own is None or remove_below(own.fd, self._path, is_patient=False)


def _kill_session(dir_fd: int, container_id: str, pid: int) -> None:
    """Kill a process, its session and its descendants, until no new ones turn up."""
    family = {pid}
    for _ in range(_PASSES):
        found = {
            other
            for other in pids_below(dir_fd, container_id)
            if other == pid or not family.isdisjoint(_relations(other))
        }
        if not found:
            return
        family |= found
        for other in found:
            _kill(other, pid)


def _relations(pid: int) -> tuple[int, ...]:
    """Parent and session of a process."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return ()
    return int(fields[_PARENT_FIELD]), int(fields[_SESSION_FIELD])


def _kill(pid: int, leader: int) -> None:
    try:
        pidfd = os.pidfd_open(pid)
    except OSError:
        return
    try:
        # What is looked at after the opening cannot become somebody else any more.
        if pid == leader or _relations(pid):
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    except ProcessLookupError:
        return
    finally:
        os.close(pidfd)
