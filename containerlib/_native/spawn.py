"""The Python side of the spawner: start it, send it requests, read what it reports.

In: a `NativeSpec` and descriptors. Out: a `Channel` of one container. Steps and
numbers become words in `_native.explain`; nothing else in the package talks to C about processes.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import signal
import threading
from typing import TYPE_CHECKING

from attrs import define, field, frozen

from containerlib._native.explain import explain
from containerlib._native.ffi import PROGRAM_PATH, check, ffi, lib
from containerlib._native.message import encode
from containerlib.errors import EngineClosed, OperationTimeout, UnsupportedHost

if TYPE_CHECKING:
    from collections.abc import Sequence

    from containerlib._native.spec import NativeSpec

__all__ = ["Channel", "Exit", "SpawnRequest", "Spawner"]

_ERROR_SIZE = ffi.sizeof("struct ctr_error")
_WALL = 0x40000000  # __WALL of wait(2): the spawner gives its parent no SIGCHLD, so plain waits do not see it


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


@frozen(kw_only=True)
class SpawnRequest:
    """One container to start.

    Attributes:
        spec: Decisions.
        stdio: Descriptors for standard input, output and error; the caller closes them.
        join_fds: Open `tasks` files of cgroup v1.
        cgroup_fd: Directory of a cgroup2 group to be born in.
        mount_fds: Unattached mounts that the spec's mounts refer to by index.
    """

    spec: NativeSpec
    stdio: tuple[int, int, int]
    join_fds: Sequence[int] = ()
    cgroup_fd: int | None = None
    mount_fds: Sequence[int] = ()


def _close_all(fds: Sequence[int]) -> None:
    for fd in fds:
        with contextlib.suppress(OSError):
            os.close(fd)


def _new_pair() -> tuple[int, int]:
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

    def _take(self, status: object, fd: int) -> None:
        kind = status.kind  # type: ignore[attr-defined]  # a cffi structure
        if kind == lib.CTR_STATUS_STARTED:
            self.pidfd = fd
        elif kind == lib.CTR_STATUS_CONSOLE:
            self.console_fd = fd
        elif kind == lib.CTR_STATUS_HELD:
            self.held_step = status.code  # type: ignore[attr-defined]
        elif kind == lib.CTR_STATUS_EXITED:
            self.exit = Exit(
                exit_code=status.value,  # type: ignore[attr-defined]
                signal=status.code,  # type: ignore[attr-defined]
                user_us=status.user_us,  # type: ignore[attr-defined]
                system_us=status.system_us,  # type: ignore[attr-defined]
                max_rss_bytes=status.max_rss_bytes,  # type: ignore[attr-defined]
            )

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
            fds = [self._error_fd, self.pidfd, self.console_fd]
            self._error_fd = self.pidfd = self.console_fd = -1
            if self.exit is None:
                self.exit = Exit(exit_code=None)
            self._is_closing = True
            self._close_status()
        _close_all([fd for fd in fds if fd >= 0])

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

    def abort(self) -> None:
        """Kill what was started, wait until it is gone, and close. A start that failed is over already."""
        while self.pidfd < 0 and self.exit is None and self.wait_ready(None):
            self.receive()
        self.kill()
        while self.exit is None and self.wait_ready(None):
            self.receive()
        self.close()


def _seal_program() -> int:
    """A copy of our program that nobody can change, not even who finds it through /proc/PID/exe."""
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    try:
        fd = os.memfd_create("ctr-spawner", flags | 0x0010)  # MFD_EXEC, Linux 6.3
    except OSError:
        fd = os.memfd_create("ctr-spawner", flags)
    with open(PROGRAM_PATH, "rb") as program:
        os.sendfile(fd, program.fileno(), 0, os.fstat(program.fileno()).st_size)
    import fcntl  # noqa: PLC0415 - only needed once per engine

    seals = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
    try:
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals | 0x0020)  # F_SEAL_EXEC, Linux 6.3
    except OSError:
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
    return fd


def _open_owner() -> tuple[int, bool]:
    """A descriptor by which this process's death is seen, and whether it is a pidfd."""
    try:
        return os.pidfd_open(os.getpid()), True
    except OSError:
        return os.open("/proc/self", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC), False


class Spawner:
    """The process that starts containers for one engine, and takes all of them with it when it ends.

    Starting it costs about a millisecond; each container afterwards costs one message.
    """

    def __init__(self, join_fds: Sequence[int] = ()) -> None:
        """Start the process.

        Args:
            join_fds: Open `tasks` files of cgroup v1 into which it moves itself.

        Raises:
            UnsupportedHost: This process may not make PID namespaces.
        """
        ours, theirs = _new_pair()
        program = _seal_program()
        owner, is_pidfd = _open_owner()
        pidfd = ffi.new("int *", -1)
        error = ffi.new("struct ctr_error *")
        result = lib.ctr_launch(program, theirs, owner, is_pidfd, list(join_fds), len(join_fds), pidfd, error)
        _close_all([theirs, program, owner])
        self.pidfd: int = pidfd[0]
        self._control = ours
        self._lock = threading.Lock()
        self._pid = os.getpid()
        if result < 0:
            self.close()
            raise _launch_error(error.step, -result)
        self._receive_ready()

    def _receive_ready(self) -> None:
        status = ffi.new("struct ctr_status *")
        fd = ffi.new("int *", -1)
        poller = select.poll()
        poller.register(self._control, select.POLLIN)
        poller.poll()
        if lib.ctr_receive(self._control, status, fd) <= 0:
            code = self._reap()
            self.close()
            raise UnsupportedHost(
                "starting containers", needed="a spawner process that comes up", found=f"exit code {code}"
            )

    def _reap(self) -> int | None:
        if self.pidfd < 0:
            return None
        result = os.waitid(os.P_PIDFD, self.pidfd, os.WEXITED | _WALL)
        return result.si_status if result else None

    @property
    def is_usable(self) -> bool:
        """Whether this is the process that started it, and `close` was not called."""
        return self._control >= 0 and self._pid == os.getpid()

    def spawn(self, request: SpawnRequest) -> Channel:
        """Ask for one container; returns without waiting for it to come up.

        Raises:
            EngineClosed: The spawner is gone or was closed.
        """
        message = encode(
            request.spec, join_count=len(request.join_fds), cgroup_fd=request.cgroup_fd is not None
        )
        status_ours, status_theirs = _new_pair()
        error_ours, error_theirs = os.pipe2(os.O_CLOEXEC)
        spec_fd = os.memfd_create("ctr-spec", os.MFD_CLOEXEC)
        try:
            os.write(spec_fd, message)
            fds = [spec_fd, status_theirs, error_theirs, *request.stdio, *request.join_fds]
            if request.cgroup_fd is not None:
                fds.append(request.cgroup_fd)
            fds += request.mount_fds
            result = lib.ctr_send(self._control, fds, len(fds))
        except BaseException:
            _close_all([status_ours, error_ours])
            raise
        finally:
            _close_all([spec_fd, status_theirs, error_theirs])
        if result < 0:
            _close_all([status_ours, error_ours])
            raise EngineClosed(f"the spawner does not take requests: {os.strerror(-result)}")
        return Channel(status_ours, error_ours)

    def close(self) -> None:
        """End the spawner and with it every container it started. Calling it again does nothing.

        In a forked child of the owner it only gives up the descriptors.
        """
        with self._lock:
            control, self._control = self._control, -1
            pidfd, self.pidfd = self.pidfd, -1
        if control >= 0:
            os.close(control)
        if pidfd < 0:
            return
        if self._pid == os.getpid():
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitid(os.P_PIDFD, pidfd, os.WEXITED | _WALL)
        os.close(pidfd)


def _launch_error(step: int, number: int) -> UnsupportedHost:
    found = os.strerror(number)
    if step == lib.CTR_LAUNCH_EXEC:
        return UnsupportedHost("starting containers", needed="execution of a memory file", found=found)
    return UnsupportedHost(
        "starting containers", needed="CAP_SYS_ADMIN, to make PID namespaces", found=found
    )
