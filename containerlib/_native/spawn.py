"""The Python side of the processes that start containers: launch them, send them requests.

In: a `NativeSpec` and descriptors. Out: a `Channel` of one container. Two kinds: the spawner of an engine,
which takes all its containers with it, and a supervisor (`_native.supervisor`), which stays with its one
container when we go.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import signal
import threading
from typing import TYPE_CHECKING, Literal

from attrs import frozen

from containerlib._native.channel import Channel, close_all, new_pair
from containerlib._native.ffi import ffi, lib
from containerlib._native.message import encode
from containerlib._native.program import WALL, open_owner, sealed_program
from containerlib.errors import EngineClosed, UnsupportedHost

if TYPE_CHECKING:
    from collections.abc import Sequence

    from containerlib._native.spec import NativeSpec

__all__ = ["DetachedStarter", "SpawnRequest", "Spawner", "Starter", "send_request"]

_NEW_PID_NAMESPACE = 0x20000000  # CLONE_NEWPID


@frozen(kw_only=True)
class SpawnRequest:
    """One container to start.

    Attributes:
        spec: Decisions.
        stdio: Descriptors for standard input, output and error; the caller closes them.
        join_fds: Open `tasks` files of cgroup v1.
        cgroup_fd: Directory of a cgroup2 group to be born in.
        mount_fds: Unattached mounts that the spec's mounts refer to by index.
        namespace_fds: Namespaces to join instead of making new ones, the mount namespace last.
        kept_fds: What the command has open beside the three streams, from 3 up.
        gate_fd: What a byte comes through when the command shall be executed; None to go on at once.
    """

    spec: NativeSpec
    stdio: tuple[int, int, int]
    join_fds: Sequence[int] = ()
    cgroup_fd: int | None = None
    mount_fds: Sequence[int] = ()
    namespace_fds: Sequence[int] = ()
    kept_fds: Sequence[int] = ()
    gate_fd: int | None = None


class Starter:
    """A process of ours that starts containers, and the socket on which it is asked to."""

    def __init__(
        self,
        role: Literal["ctr-spawner", "ctr-supervisor", "ctr-creator", "ctr-companion"],
        second_fd: int,
        join_fds: Sequence[int],
        *,
        owner_is_pidfd: bool = False,
        namespaces: int = 0,
    ) -> None:
        ours, theirs = new_pair()
        program = sealed_program()
        pidfd = ffi.new("int *", -1)
        error = ffi.new("struct ctr_error *")
        result = lib.ctr_launch(
            role.encode(),
            program,
            theirs,
            second_fd,
            owner_is_pidfd,
            namespaces,
            list(join_fds),
            len(join_fds),
            pidfd,
            error,
        )
        close_all([theirs])
        self.pidfd: int = pidfd[0]
        self.pid = 0  # in its own PID namespace
        self._control = ours
        self._lock = threading.Lock()
        self._pid = os.getpid()
        if result < 0:
            self._end()
            raise _launch_error(error.step, -result)
        self._receive_ready()

    def __del__(self) -> None:
        # Only the descriptors: what becomes of the process is for `close` and `release` to say.
        close_all([fd for fd in (getattr(self, "_control", -1), getattr(self, "pidfd", -1)) if fd >= 0])

    def _receive_ready(self) -> None:
        status = ffi.new("struct ctr_status *")
        fd = ffi.new("int *", -1)
        poller = select.poll()
        poller.register(self._control, select.POLLIN)
        poller.poll()
        if lib.ctr_receive(self._control, status, fd) <= 0:
            code = self._reap()
            self._end()
            raise UnsupportedHost(
                "starting containers", needed="a helper process that comes up", found=f"exit code {code}"
            )
        self.pid = int(status.pid)
        self._take_pidfd(fd[0])

    def _take_pidfd(self, pidfd: int) -> None:
        """A pidfd of the process from itself; we have one already."""
        close_all([pidfd])

    def _reap(self) -> int | None:
        if self.pidfd < 0:
            return None
        result = os.waitid(os.P_PIDFD, self.pidfd, os.WEXITED | WALL)
        return result.si_status if result else None

    @property
    def is_usable(self) -> bool:
        """Whether this is the process that started it, and it was not closed."""
        return self._control >= 0 and self._pid == os.getpid()

    def spawn(self, request: SpawnRequest) -> Channel:
        """Ask for one container; returns without waiting for it to come up.

        Raises:
            EngineClosed: The spawner is gone or was closed.
        """
        return send_request(self._control, request)

    def _end(self) -> None:
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
                os.waitid(os.P_PIDFD, pidfd, os.WEXITED | WALL)
        os.close(pidfd)


# What this process, or the host, has too little of at the moment.
_SCARCE = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN))


def send_request(
    control: int, request: SpawnRequest, head: bytes = bytes(4), extra_fds: Sequence[int] = ()
) -> Channel:
    """Send a request to whoever listens on `control`; returns without waiting for what becomes of it.

    Args:
        control: The socket.
        request: What to start.
        head: The message that goes with it.
        extra_fds: Descriptors behind those of the request.

    Raises:
        EngineClosed: Nobody listens.
    """
    message = encode(
        request.spec,
        join_count=len(request.join_fds),
        cgroup_fd=request.cgroup_fd is not None,
        namespace_count=len(request.namespace_fds),
        kept_count=len(request.kept_fds),
    )
    ours: list[int] = []
    theirs: list[int] = []
    try:
        for ends in (new_pair, _new_pipe):
            mine, other = ends()
            ours.append(mine)
            theirs.append(other)
        spec_fd = os.memfd_create("ctr-spec", os.MFD_CLOEXEC)
        status_theirs, error_theirs = theirs
        theirs.append(spec_fd)
        os.write(spec_fd, message)
        fds = [spec_fd, status_theirs, error_theirs, *request.stdio, *request.join_fds]
        if request.cgroup_fd is not None:
            fds.append(request.cgroup_fd)
        fds += [*request.mount_fds, *request.namespace_fds, *request.kept_fds]
        if request.gate_fd is not None:
            fds.append(request.gate_fd)
        fds += extra_fds
        result = lib.ctr_send(control, head, len(head), fds, len(fds))
    except BaseException:
        close_all(ours)
        raise
    finally:
        close_all(theirs)
    if result < 0:
        close_all(ours)
        raise EngineClosed(
            f"the spawner does not take requests ({os.strerror(-result).lower()}); open a new engine"
        )
    return Channel(ours[0], ours[1])


def _new_pipe() -> tuple[int, int]:
    return os.pipe2(os.O_CLOEXEC)


class DetachedStarter(Starter):
    """One that is nobody's child: what was launched has made it and is over."""

    def _take_pidfd(self, pidfd: int) -> None:
        self._reap()
        os.close(self.pidfd)
        self.pidfd = pidfd


class Spawner(Starter):
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
        owner, is_pidfd = open_owner()
        try:
            super().__init__(
                "ctr-spawner", owner, join_fds, owner_is_pidfd=is_pidfd, namespaces=_NEW_PID_NAMESPACE
            )
        finally:
            os.close(owner)

    def close(self) -> None:
        """End the spawner and with it every container it started. Calling it again does nothing.

        In a forked child of the owner it only gives up the descriptors.
        """
        self._end()


def _launch_error(step: int, number: int) -> Exception:
    found = os.strerror(number)
    if number in _SCARCE:
        return OSError(number, found)
    if step == lib.CTR_LAUNCH_EXEC:
        return UnsupportedHost("starting containers", needed="execution of a memory file", found=found)
    return UnsupportedHost("starting containers", needed="CAP_SYS_ADMIN, to make PID namespaces", found=found)
