"""One run of a detached container, seen by any process: through what its supervisor says, and pidfds.

Nothing stays open between two calls, so that a thousand of them may be looked at.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from typing import TYPE_CHECKING, Final

from containerlib._native.channel import Exit
from containerlib._native.supervisor import Control, SupervisorState
from containerlib.runtime.cgroup import EngineCgroup
from containerlib.runtime.cgroup_host import CgroupHost
from containerlib.runtime.cgroup_v1 import DEFAULT_NAME
from containerlib.runtime.identity import ProcessIdentity, is_readable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from containerlib.options import Resources
    from containerlib.runtime.cgroup import ContainerCgroup
    from containerlib.runtime.usage import ExitStatus

__all__ = ["DetachedProcess", "cgroup_name"]


def cgroup_name(container_id: str) -> str:
    """The name under which the control groups of a detached container are made."""
    return f"detached-{container_id[:16]}"


class DetachedProcess:
    """A container's processes from one `start` to the end of that run, restarts included."""

    def __init__(
        self,
        container_id: str,
        directory: str,
        supervisor: ProcessIdentity,
        generation: int,
        resources: Callable[[], Resources],
        cgroup_paths: Sequence[str],
        settle: Callable[[DetachedProcess, Exit], ExitStatus],
    ) -> None:
        """Look at nothing yet.

        Args:
            container_id: The container's id.
            directory: Its directory, in which the supervisor leaves its word.
            supervisor: The parent of its first process.
            generation: What the supervisor says has a greater one; what is not greater is of an earlier run.
            resources: Its limits.
            cgroup_paths: Where its control groups were made.
            settle: Called by who learns of the end, with how the kernel put it.
        """
        self.supervisor = supervisor
        self.generation = generation
        self._container_id = container_id
        self._directory = directory
        self._resources = resources
        self._cgroup_paths = tuple(cgroup_paths)
        self._settle = settle
        self._lock = threading.RLock()
        self._status: ExitStatus | None = None
        self._state: SupervisorState | None = None
        self._pidfd = -1
        self._cgroup: tuple[EngineCgroup, ContainerCgroup | None] | None = None

    def state(self) -> SupervisorState | None:
        """What the supervisor last said of this run; None before it has said anything."""
        self._note(SupervisorState.read(self._directory))
        return self._state

    def _note(self, found: SupervisorState | None) -> None:
        known = self.generation if self._state is None else self._state.generation
        if found is not None and found.generation > known:
            self._state = found

    @property
    def first_process(self) -> ProcessIdentity | None:
        """The container's first process, if there is one now."""
        state = self.state()
        if state is None or state.pid <= 0:
            return None
        return ProcessIdentity(state.pid, state.start_ticks, self.supervisor.boot_id)

    @property
    def pid(self) -> int | None:
        """Process id of the first process; None while there is none."""
        first = self.first_process
        return first.pid if first is not None and first.is_alive else None

    @property
    def is_alive(self) -> bool:
        """Whether there is a first process, as the kernel says."""
        return self.pid is not None

    @property
    def started_at(self) -> float:
        """When it was last started, in seconds since the epoch."""
        state = self.state()
        return 0.0 if state is None else state.started_at

    @property
    def finished_at(self) -> float | None:
        """When it last ended, in seconds since the epoch."""
        state = self.state()
        return None if state is None or not state.ended_at else state.ended_at

    @property
    def has_ended(self) -> bool:
        """Whether this run is over."""
        if self._status is not None:
            return True
        if self.supervisor.is_alive:
            return False
        # Said between the two looks, it would be missed the other way round.
        state = self.state()
        if state is None or state.phase == "ended":
            return True
        first = self.first_process
        return first is None or not first.is_alive

    def fileno(self) -> int:
        """A descriptor that becomes readable at the end, for poll(2) and event loops; -1 after it."""
        with self._lock:
            if self._pidfd < 0 and self._status is None:
                self._pidfd = self.duplicate()
            return self._pidfd

    def duplicate(self) -> int:
        """A descriptor like `fileno` that the caller owns; -1 after the end."""
        fd = self.supervisor.open()
        first = self.first_process
        if fd >= 0 or first is None:
            return fd
        return first.open()

    def poll(self) -> ExitStatus | None:
        """How it ended, or None while it runs."""
        if self._status is None and self.has_ended:
            self._finish()
        return self._status

    def wait(self, timeout_s: float | None = None) -> ExitStatus | None:
        """Wait for the end; None if it did not come within `timeout_s` seconds."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        with contextlib.ExitStack() as opened:
            word = self._open_word(opened)
            while self._status is None:
                fd = self.duplicate()
                try:
                    left_s = None if deadline is None else deadline - time.monotonic()
                    if fd >= 0 and not is_readable(fd, left_s):
                        return None
                finally:
                    if fd >= 0:
                        os.close(fd)
                if self.has_ended:
                    self._note(SupervisorState.read_fd(word) if word >= 0 else None)
                    self._finish()
        return self._status

    def _open_word(self, opened: contextlib.ExitStack) -> int:
        """The supervisor's word, kept open: a container that removes itself takes it away."""
        try:
            fd = os.open(f"{self._directory}/state", os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            return -1
        opened.callback(os.close, fd)
        return fd

    def _finish(self) -> None:
        with self._lock:
            if self._status is not None:
                return
            state = self.state()
            ended = state.exit if state is not None and state.phase == "ended" else None
            self._status = self._settle(self, ended or Exit(exit_code=None))
            self._close()

    @property
    def is_frozen(self) -> bool:
        """Whether its processes were stopped.

        Cost: a look for each tree of control groups.
        """
        for path in self._cgroup_paths:
            how = _freezing(path)
            if how is None:
                continue
            file, word, parents = how
            if any(_is_frozen(f"{path}/{parent}{self._container_id}/{file}", word) for parent in parents):
                return True
        return False

    @property
    def cgroup(self) -> ContainerCgroup | None:
        """Its control groups; None where the host has none to write."""
        with self._lock:
            if self._cgroup is None:
                host = CgroupHost.probe().moved(self._cgroup_paths)
                engine = EngineCgroup.create(host, cgroup_name(self._container_id))
                self._cgroup = engine, engine.reopen(self._container_id, self._resources())
            return self._cgroup[1]

    def remove_cgroup(self) -> bool:
        """Remove its control groups; say whether nothing is left of them."""
        with self._lock:
            cgroup = self.cgroup
            engine, self._cgroup = self._cgroup, None
            if cgroup is not None:
                cgroup.close()
                with contextlib.suppress(OSError):
                    if cgroup.pids():  # somebody else has put a process there
                        cgroup.kill()
                    cgroup.remove()
            return engine is None or not engine[0].close()

    def connect(self) -> Control | None:
        """A connection to its supervisor; None if that has ended."""
        return Control.connect(self._directory) if self.supervisor.is_alive else None

    def signal(self, number: int = signal.SIGKILL) -> None:
        """Send a signal to the first process; one that has ended is not an error."""
        first = self.first_process
        fd = -1 if first is None else first.open()
        if fd < 0:
            return
        try:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(fd, number)
        finally:
            os.close(fd)

    def _close(self) -> None:
        cgroup, self._cgroup = self._cgroup, None
        if cgroup is not None:
            if cgroup[1] is not None:
                cgroup[1].close()
            cgroup[0].release()
        fd, self._pidfd = self._pidfd, -1
        if fd >= 0:
            os.close(fd)

    def lost(self) -> None:
        """Nothing to settle: it goes on."""

    def abandon(self) -> None:
        """Give up the descriptors."""
        with self._lock:
            self._close()

    def __del__(self) -> None:
        if hasattr(self, "_lock"):
            self._close()


_Freezing = tuple[str, bytes, tuple[str, ...]]


def _freezing(path: str) -> _Freezing | None:
    """By which file a control group below `path` is stopped, what it says then, and where the group is."""
    tree = path.rpartition("/")[0]
    if tree not in _freezing_of:
        found = None
        for file, word, parents in _FREEZERS:
            if os.path.exists(f"{path}/{file}"):
                found = file, word, parents
        if found is None and not os.path.isdir(path):
            return None  # gone, so it says nothing about the others of its tree
        _freezing_of[tree] = found
    return _freezing_of[tree]


# Where a program decides on devices, the containers with the default rules are one level deeper.
_FREEZERS: Final = (("cgroup.freeze", b"1", (f"{DEFAULT_NAME}/", "")), ("freezer.state", b"FR", ("",)))
_freezing_of: dict[str, _Freezing | None] = {}


def _is_frozen(path: str, word: bytes) -> bool:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return os.read(fd, 16).startswith(word)
    except OSError:
        return False
    finally:
        os.close(fd)
