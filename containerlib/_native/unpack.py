"""The Python side of the unpacker: a confined process that makes one archive a directory tree.

In: a directory, and the bytes of an archive. Out: what the process says became of it, in its own words;
`layer.apply` makes errors of those.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import select
import signal
import sys
from typing import TYPE_CHECKING

from attrs import frozen

from containerlib._native.channel import close_all, new_pair
from containerlib._native.ffi import ffi, lib
from containerlib._native.program import WALL, open_owner, sealed_program
from containerlib.errors import UnsupportedHost

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

__all__ = ["UnpackReport", "Unpacker"]

_PIPE_BYTES = 1 << 20
_RECORD_BYTES = 8192
_IMPLIED = lib.CTR_UNPACK_IMPLIED.to_bytes(4, sys.byteorder)
_PREFIX = "CTR_UNPACK_"
_OTHERS = {"CTR_UNPACK_TEXT_BYTES", "CTR_UNPACK_DEVICES", "CTR_UNPACK_PLAIN"}
_REASONS: dict[int, str] = {
    getattr(lib, name): name.removeprefix(_PREFIX).lower()
    for name in dir(lib)
    if name.startswith(_PREFIX) and name not in _OTHERS
}


@frozen
class UnpackReport:
    """What became of an archive.

    Attributes:
        reason: ``"done"``, or the name of what is wrong, as in `csrc/ctr.h`.
        errno: What the kernel said, where the reason is something that it said.
        entries: How many entries there were up to there.
        size_bytes: Content of its regular files, as far as it is stored.
        name: Name of the entry that is wrong, or the beginning of it.
        detail: What in particular is wrong, or the beginning of it.
        implied: Directories that were made only because something is in them, in the order of their making.
    """

    reason: str
    errno: int
    entries: int
    size_bytes: int
    name: bytes
    detail: bytes
    implied: tuple[bytes, ...] = ()


class Unpacker:
    """One unpacking; a context manager whose end without `finish` stops it where it is.

    The process has the directory as its root, and may do nothing but make files in it; see csrc/confine.c.
    Not safe for several threads.
    """

    def __init__(
        self, root_fd: int, *, devices: bool, entries: int, total_bytes: int, plain: bool = False
    ) -> None:
        """Start the process.

        Args:
            root_fd: The directory to unpack into; need not stay open.
            devices: Whether device nodes may be made.
            entries: Most members that the archive may have.
            total_bytes: Most bytes that its files may have together.
            plain: Whether the directory is no layer but in use: names are no whiteouts, what is mounted in it
                belongs to it, and no directory takes the place of something else or the other way round.

        Raises:
            UnsupportedHost: A memory file cannot be executed here.
        """
        self.pidfd = -1
        self._read_end, self._pipe = os.pipe2(os.O_CLOEXEC)
        self._control, theirs = new_pair()
        try:
            os.set_blocking(self._pipe, False)
            with contextlib.suppress(OSError):  # a smaller pipe is slower and nothing worse
                fcntl.fcntl(self._pipe, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
            self._launch(theirs, root_fd)
            order = ffi.new("struct ctr_unpack_order *")
            order.entries, order.total_bytes = entries, total_bytes
            order.flags = lib.CTR_UNPACK_DEVICES if devices else 0
            order.flags |= lib.CTR_UNPACK_PLAIN if plain else 0
            os.write(self._control, ffi.buffer(order))
        except BaseException:
            self.close()
            raise
        finally:
            os.close(theirs)
        self._poller = select.poll()
        self._poller.register(self._pipe, select.POLLOUT)
        self._poller.register(self._control, select.POLLIN)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def write(self, data: bytes | memoryview) -> bool:
        """Give it more of the archive; False if it wants no more, because it has failed or is gone.

        Waits until it has taken enough of what it was given before.
        """
        rest = memoryview(data)
        while rest:
            ready = dict(self._poller.poll())
            if self._control in ready:
                return False
            # Its end is open here too, so a process that is gone is no signal to us.
            with contextlib.suppress(BlockingIOError):
                rest = rest[os.write(self._pipe, rest) :]
        return True

    def finish(self) -> UnpackReport:
        """Say that the archive is complete, and wait for what became of it.

        Raises:
            UnsupportedHost: The process was killed.
        """
        close_all([self._pipe, self._read_end])
        self._pipe = self._read_end = -1
        result = ffi.new("struct ctr_unpack_result *")
        implied: list[bytes] = []
        while (data := self._record())[:4] == _IMPLIED:
            implied.append(data[4:])
        if len(data) != ffi.sizeof("struct ctr_unpack_result"):
            raise UnsupportedHost("unpacking layers", needed="a helper process that lives", found=self._end())
        ffi.memmove(result, data, len(data))
        return UnpackReport(
            _REASONS.get(result.reason, f"reason {result.reason}"),
            result.err,
            result.entries,
            result.size_bytes,
            bytes(ffi.buffer(result.name, min(result.name_size, len(result.name)))),
            bytes(ffi.buffer(result.detail, min(result.detail_size, len(result.detail)))),
            tuple(implied),
        )

    def _record(self) -> bytes:
        """Wait for what it says next; nothing if it is gone."""
        with contextlib.suppress(ConnectionResetError):  # it was killed before it had read what it was to do
            return os.read(self._control, _RECORD_BYTES)
        return b""

    def close(self) -> None:
        """End the process if it still runs; safe to call again."""
        fds = [fd for fd in (self._pipe, self._read_end, self._control) if fd >= 0]
        self._pipe = self._read_end = self._control = -1
        close_all(fds)
        self._end()

    def _launch(self, control: int, root_fd: int) -> None:
        program = sealed_program()
        owner, is_pidfd = open_owner()
        pidfd = ffi.new("int *", -1)
        error = ffi.new("struct ctr_error *")
        try:
            result = lib.ctr_launch(
                b"ctr-unpacker",
                program,
                control,
                root_fd,
                is_pidfd,
                0,
                [self._read_end, owner],
                2,
                pidfd,
                error,
            )
        finally:
            os.close(owner)
        self.pidfd = pidfd[0]
        if result < 0:
            raise UnsupportedHost(
                "unpacking layers", needed="execution of a memory file", found=os.strerror(-result)
            )

    def _end(self) -> str:
        """Kill and reap it; say how it ended."""
        pidfd, self.pidfd = self.pidfd, -1
        if pidfd < 0:
            return "none"
        try:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            ended = os.waitid(os.P_PIDFD, pidfd, os.WEXITED | WALL)
        except ChildProcessError:
            return "one that somebody else has waited for"
        except OSError as failure:
            return errno.errorcode.get(failure.errno or 0, "an error")
        finally:
            os.close(pidfd)
        return f"one that ended with {ended.si_status}" if ended else "none"
