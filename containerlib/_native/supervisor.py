"""The process that stays with one detached container: launch it, tell it what to do, read what it leaves.

Its word is the file ``state`` in the container's directory; whoever wants something of it connects to the
socket ``control`` there.
"""

from __future__ import annotations

import errno
import os
import select
from typing import TYPE_CHECKING, Any, Literal, Self

from attrs import field, frozen

from containerlib._native.channel import Exit, close_all, exit_of
from containerlib._native.ffi import ffi, lib
from containerlib._native.message import encode
from containerlib._native.spawn import DetachedStarter, send_request
from containerlib.errors import InvalidState

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from containerlib._native.channel import Channel
    from containerlib._native.spawn import SpawnRequest
    from containerlib._native.spec import NativeSpec

__all__ = ["Control", "HealthOrder", "HealthResult", "Order", "Supervisor", "SupervisorState"]

Phase = Literal["running", "restarting", "ended"]
Health = Literal["none", "starting", "healthy", "unhealthy"]
Restart = Literal["no", "on-failure", "always"]

_PHASES: dict[int, Phase] = {
    lib.CTR_PHASE_RUNNING: "running",
    lib.CTR_PHASE_RESTARTING: "restarting",
    lib.CTR_PHASE_ENDED: "ended",
}
_HEALTH: tuple[Health, ...] = ("none", "starting", "healthy", "unhealthy")
_RESTART: dict[str, int] = {
    "no": lib.CTR_RESTART_NO,
    "on-failure": lib.CTR_RESTART_ON_FAILURE,
    "always": lib.CTR_RESTART_ALWAYS,
}
_STATE_SIZE = ffi.sizeof("struct ctr_state")
_RESULT_SIZE = ffi.sizeof("struct ctr_health_result")
_READS = 100
_STATE, _CONTROL, _HEALTH_FILE = "state", "control", "health"


@frozen(kw_only=True)
class HealthOrder:
    """How the health of a container is checked; times in milliseconds."""

    spec: NativeSpec
    interval_ms: int
    timeout_ms: int
    retries: int
    start_period_ms: int
    start_interval_ms: int


@frozen(kw_only=True)
class Order:
    """What a supervisor does besides starting its container once.

    Attributes:
        restart: When it starts it again.
        restart_most: How often after failures; 0 for any number.
        reads_stdout: Whether it reads standard output, for the log and for who attaches.
        reads_stderr: The same of standard error.
        keeps_stdin: Whether who attaches can write to standard input.
        log_limit_bytes: When a file of the log is full; 0 for never; None for no log.
        log_keep: How many files are kept.
        remove: Whether it removes the container's directory at the end.
        cgroups: Directories of control groups to remove then, too.
        health: How its health is checked.
        container_id: What the journal calls the container.
    """

    restart: Restart = "no"
    restart_most: int = 0
    reads_stdout: bool = False
    reads_stderr: bool = False
    keeps_stdin: bool = False
    log_limit_bytes: int | None = None
    log_keep: int = 1
    remove: bool = False
    cgroups: tuple[str, ...] = ()
    health: HealthOrder | None = None
    container_id: str = ""

    def encode(self, *, events: bool = False) -> bytes:
        """The message; with `events` the journal's directory goes with it."""
        order = ffi.new("struct ctr_order *")
        order.size = ffi.sizeof("struct ctr_order")
        chosen = (
            (self.reads_stdout, lib.CTR_ORDER_LOG_OUT),
            (self.reads_stderr, lib.CTR_ORDER_LOG_ERR),
            (self.log_limit_bytes is not None, lib.CTR_ORDER_LOG),
            (self.keeps_stdin, lib.CTR_ORDER_INPUT),
            (self.remove, lib.CTR_ORDER_REMOVE),
            (self.health is not None, lib.CTR_ORDER_HEALTH),
            (events, lib.CTR_ORDER_EVENTS),
        )
        order.flags = sum(flag for wanted, flag in chosen if wanted)
        order.restart = _RESTART[self.restart]
        order.restart_most = self.restart_most
        order.log_limit_bytes = self.log_limit_bytes or 0
        order.log_keep = self.log_keep
        order.id = self.container_id.encode()[:64].ljust(64, b"\0")
        self._add_cgroups(order)
        if self.health is not None:
            order.health_interval_ms = self.health.interval_ms
            order.health_timeout_ms = self.health.timeout_ms
            order.health_retries = self.health.retries
            order.health_start_period_ms = self.health.start_period_ms
            order.health_start_interval_ms = self.health.start_interval_ms
        return bytes(ffi.buffer(order))

    def _add_cgroups(self, order: Any) -> None:
        text = b"".join(os.fsencode(path) + b"\0" for path in self.cgroups)
        # What does not fit is collected by the next engine.
        if len(text) <= lib.CTR_ORDER_TEXT_BYTES:
            order.cgroups[0 : len(text)] = text
            order.cgroups_size = len(text)


class Supervisor(DetachedStarter):
    """The process that starts one container and stays with it, whatever happens to us."""

    def __init__(self, join_fds: Sequence[int] = ()) -> None:
        """Start the process.

        Args:
            join_fds: Open `tasks` files of cgroup v1 into which it moves itself.

        Raises:
            UnsupportedHost: A memory file cannot be executed here.
        """
        super().__init__("ctr-supervisor", -1, join_fds)

    def supervise(
        self, request: SpawnRequest, order: Order, directory_fd: int, events_fd: int = -1
    ) -> Channel:
        """Ask it to start its container; it then goes on by itself.

        Args:
            request: The container.
            order: What else it does.
            directory_fd: The container's directory.
            events_fd: The directory of the journal; -1 for none.

        Raises:
            EngineClosed: It is gone.
        """
        listener = lib.ctr_listen(directory_fd, _CONTROL.encode())
        if listener < 0:
            raise OSError(-listener, os.strerror(-listener), _CONTROL)
        extra = [directory_fd, listener]
        check_fd = -1
        try:
            if order.health is not None:
                check_fd = os.memfd_create("ctr-health", os.MFD_CLOEXEC)
                has_cgroup = request.cgroup_fd is not None
                joins = len(request.join_fds)
                os.write(
                    check_fd,
                    encode(
                        order.health.spec, join_count=joins, cgroup_fd=has_cgroup, namespace_count=_NAMESPACES
                    ),
                )
                extra.append(check_fd)
            if events_fd >= 0:
                extra.append(events_fd)
            return send_request(self._control, request, order.encode(events=events_fd >= 0), extra)
        finally:
            close_all([fd for fd in (listener, check_fd) if fd >= 0])
            self.release()

    def release(self) -> None:
        """Let it go on by itself: after the one request, or to end without any."""
        with self._lock:
            control, self._control = self._control, -1
        if control >= 0:
            os.close(control)

    def wait(self) -> None:
        """Wait for its end, which follows its container's."""
        self.release()
        if self.pidfd >= 0:
            poller = select.poll()
            poller.register(self.pidfd, select.POLLIN)
            poller.poll()

    def close(self) -> None:
        """Give up the descriptors; it goes on."""
        self.release()
        with self._lock:
            pidfd, self.pidfd = self.pidfd, -1
        if pidfd >= 0:
            os.close(pidfd)


_NAMESPACES = 6  # of `health.c` and `runtime.join`


@frozen(kw_only=True)
class HealthResult:
    """One check of a container's health.

    Attributes:
        started_at: Seconds since the epoch.
        ended_at: The same.
        exit_code: 0 for healthy; None when it took too long.
        output: What it wrote, at most 4 KiB.
    """

    started_at: float
    ended_at: float
    exit_code: int | None
    output: bytes = field(repr=False)


@frozen(kw_only=True)
class SupervisorState:
    """What a supervisor last said of its container.

    Attributes:
        generation: Grows with every change, over all starts of a container.
        phase: Whether it runs, waits to be started again, or has ended.
        restarts: How often it was started again.
        pid: Its first process; 0 if there is none.
        start_ticks: When that started, in clock ticks since boot.
        started_at: Seconds since the epoch.
        ended_at: The same; 0.0 before its first end.
        exit: How it last ended.
        failed_step: The step and errno of a start that failed; (0, 0) if none has.
        health: What the checks say.
        health_failures: How many have failed in a row.
        is_stopped: Whether it was told to stop, after which it is not started again.
    """

    generation: int
    phase: Phase
    restarts: int
    pid: int
    start_ticks: int
    started_at: float
    ended_at: float
    exit: Exit | None
    failed_step: tuple[int, int]
    health: Health
    health_failures: int
    is_stopped: bool

    @classmethod
    def read(cls, directory: str) -> Self | None:
        """What is said in a container's directory; None if nothing was said yet."""
        try:
            fd = os.open(f"{directory}/{_STATE}", os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except (FileNotFoundError, NotADirectoryError):
            return None
        try:
            return cls.read_fd(fd)
        finally:
            os.close(fd)

    @classmethod
    def read_fd(cls, fd: int) -> Self | None:
        """The same of an open file."""
        for _ in range(_READS):
            data = os.pread(fd, _STATE_SIZE, 0)
            if len(data) != _STATE_SIZE:
                return None
            state = ffi.from_buffer("struct ctr_state *", data)
            # Else it is being written at this moment.
            if state.generation == state.last_generation:
                return cls._of(state) if state.magic == lib.CTR_MAGIC and state.phase in _PHASES else None
        return None

    @classmethod
    def _of(cls, state: Any) -> Self:
        return cls(
            generation=state.generation,
            phase=_PHASES[state.phase],
            restarts=state.restarts,
            pid=state.pid,
            start_ticks=state.start_ticks,
            started_at=state.started_ns / 1e9,
            ended_at=state.ended_ns / 1e9,
            exit=exit_of(state.exit) if state.exit.kind == lib.CTR_STATUS_EXITED else None,
            failed_step=(state.error.step, state.error.err),
            health=_HEALTH[state.health] if state.health < len(_HEALTH) else "none",
            health_failures=state.health_failures,
            is_stopped=bool(state.is_stopped),
        )


def read_health(directory: str) -> list[HealthResult]:
    """The last results of a container's checks, oldest first."""
    try:
        with open(f"{directory}/{_HEALTH_FILE}", "rb") as file:
            data = file.read(_RESULT_SIZE * lib.CTR_HEALTH_RESULTS)
    except FileNotFoundError:
        return []
    rows = [
        ffi.from_buffer("struct ctr_health_result *", data[at : at + _RESULT_SIZE])
        for at in range(0, len(data) - _RESULT_SIZE + 1, _RESULT_SIZE)
    ]
    return [_result(row) for row in sorted(rows, key=lambda row: int(row.number)) if row.number]


def _result(row: Any) -> HealthResult:
    size = min(row.output_size, lib.CTR_HEALTH_OUTPUT_BYTES)
    return HealthResult(
        started_at=row.started_ns / 1e9,
        ended_at=row.ended_ns / 1e9,
        exit_code=None if row.exit_code < 0 else row.exit_code,
        output=bytes(ffi.buffer(row.output, size)),
    )


class Control:
    """A connection to a supervisor."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    @classmethod
    def connect(cls, directory: str) -> Self | None:
        """Connect to the supervisor of the container with this directory; None if there is none any more."""
        try:
            directory_fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            fd = lib.ctr_connect(directory_fd, _CONTROL.encode())
        finally:
            os.close(directory_fd)
        if fd in (-errno.ENOENT, -errno.ECONNREFUSED):
            return None
        if fd < 0:
            raise OSError(-fd, os.strerror(-fd), f"{directory}/{_CONTROL}")
        return cls(fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give it up. Again: nothing happens."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def stop(self, number: int, grace_s: float | None) -> bool:
        """Send a signal after which the container is not started again; SIGKILL after `grace_s` seconds.

        Returns:
            Whether the supervisor took it; False if it is just ending.
        """
        grace_ms = -1 if grace_s is None else int(grace_s * 1000)
        return self._ask(lib.CTR_COMMAND_STOP, number, grace_ms=grace_ms) is not None

    def set_restart(self, restart: Restart, most: int) -> bool:
        """Change the policy; see `stop`."""
        return self._ask(lib.CTR_COMMAND_RESTART, _RESTART[restart], most=most) is not None

    def set_paused(self, *, paused: bool) -> bool:
        """Say that the container stands still, or goes on; see `stop`."""
        return self._ask(lib.CTR_COMMAND_PAUSED, int(paused)) is not None

    def attach(self, out_fd: int, err_fd: int) -> tuple[int, bool, int]:
        """Have output passed on to the writing ends of two pipes, from now on.

        Returns:
            A descriptor to write input to, the caller's to close, or -1; whether that is a terminal; and the
            time of the last record in the log that does not go into the pipes, in nanoseconds.

        Raises:
            InvalidState: The container has ended, or too many are attached.
        """
        answer = self._ask(lib.CTR_COMMAND_ATTACH, 0, fds=[out_fd, err_fd])
        if answer is None or answer[0].code:
            why = "it has ended" if answer is None else os.strerror(answer[0].code).lower()
            raise InvalidState(f"cannot attach to the container: {why}", expected="running", actual="exited")
        return answer[1], bool(answer[0].value), int(answer[0].user_us)

    def join(self, request: SpawnRequest) -> Channel:
        """Start a further process in the container.

        Raises:
            EngineClosed: The supervisor is gone.
        """
        return send_request(self._fd, request, _command(lib.CTR_COMMAND_JOIN, 0))

    def _ask(
        self, kind: int, number: int, *, grace_ms: int = -1, most: int = 0, fds: Sequence[int] = ()
    ) -> tuple[Any, int] | None:
        head = _command(kind, number, grace_ms=grace_ms, most=most)
        if lib.ctr_send(self._fd, head, len(head), list(fds), len(fds)) < 0:
            return None
        answer = ffi.new("struct ctr_status *")
        fd = ffi.new("int *", -1)
        poller = select.poll()
        poller.register(self._fd, select.POLLIN)
        poller.poll()
        return (answer, int(fd[0])) if lib.ctr_receive(self._fd, answer, fd) > 0 else None


def _command(kind: int, number: int, *, grace_ms: int = -1, most: int = 0) -> bytes:
    command = ffi.new("struct ctr_command *")
    command.kind, command.signal, command.grace_ms, command.most = kind, number, grace_ms, most
    return bytes(ffi.buffer(command))
