"""Reading a container's output and waiting for its end, at once and within bounds."""

from __future__ import annotations

import os
import select
import time
from typing import TYPE_CHECKING, BinaryIO, Protocol

from containerlib.errors import OperationTimeout, OutputLimitExceeded

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from containerlib.container.streams import Streams
    from containerlib.runtime.detached import DetachedProcess
    from containerlib.runtime.process import RunningProcess
    from containerlib.runtime.usage import ExitStatus

__all__ = ["DEFAULT_OUTPUT_LIMIT", "Conversation", "Partner", "communicate"]

DEFAULT_OUTPUT_LIMIT = 256 << 20
_CHUNK = 1 << 16


class Partner(Protocol):
    """What there can be a conversation with: a container, or a command in one."""

    @property
    def description(self) -> str:
        """What it is called in messages."""

    @property
    def process(self) -> RunningProcess | DetachedProcess | None:
        """Its first process, if it was started."""

    def wait(self) -> ExitStatus:
        """Wait for its end."""

    def end(self) -> None:
        """Kill it with everything that it has started, and wait."""


class Conversation:
    """Feeds and drains the pipes of one partner until it has ended. A context manager.

    Leaving the block before the end kills the partner, with everything that it has started; in every case the
    caller's ends of the streams are closed then.
    """

    def __init__(self, entry: Partner, streams: Streams, data: bytes, limit: int) -> None:
        self._entry = entry
        self._streams = streams
        self._left = memoryview(data)
        self._limit = limit
        self._total = 0
        self._readers: dict[int, tuple[BinaryIO, list[bytes]]] = {}
        self._outputs: dict[str, list[bytes]] = {"stdout": [], "stderr": []}
        self._writer = -1
        self._end_fd = -1
        self._is_over = False

    def __enter__(self) -> Self:
        try:
            self._poller = select.epoll()
        except OSError:  # there are too many descriptors
            self._entry.end()
            self._streams.close_outer()
            raise
        try:
            self._register()
            process = self._entry.process
            self._end_fd = -1 if process is None else process.duplicate()
            if self._end_fd >= 0:
                self._poller.register(self._end_fd, select.EPOLLIN)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._poller.close()
        fd, self._end_fd = self._end_fd, -1
        if fd >= 0:
            os.close(fd)
        try:
            if not self._is_over:
                self._entry.end()
        finally:
            self._streams.close_outer()

    def fileno(self) -> int:
        """A descriptor that is readable when `step` has something to do."""
        return self._poller.fileno()

    def _register(self) -> None:
        for name in ("stdout", "stderr"):
            stream: BinaryIO | None = getattr(self._streams, name)
            if stream is not None and not stream.closed:
                os.set_blocking(stream.fileno(), False)
                self._readers[stream.fileno()] = (stream, self._outputs[name])
                self._poller.register(stream.fileno(), select.EPOLLIN)
        stdin = self._streams.stdin
        if stdin is not None and not stdin.closed:
            if self._left:
                os.set_blocking(stdin.fileno(), False)
                self._writer = stdin.fileno()
                self._poller.register(self._writer, select.EPOLLOUT)
            else:
                stdin.close()

    def _drop(self, fd: int) -> None:
        self._poller.unregister(fd)
        self._readers.pop(fd)[0].close()

    def _read(self, fd: int) -> bool:
        """Take one chunk; whether there may be more at once."""
        try:
            chunk = os.read(fd, _CHUNK)
        except BlockingIOError:
            return False
        if not chunk:
            self._drop(fd)
            return False
        self._total += len(chunk)
        if self._total > self._limit:
            raise OutputLimitExceeded(
                f"{self._entry.description} wrote more than {self._limit} bytes; raise "
                "output_limit_bytes, or send the output to a file"
            )
        self._readers[fd][1].append(chunk)
        return True

    def _write(self) -> None:
        stdin = self._streams.stdin
        try:
            written = os.write(self._writer, self._left[:_CHUNK])
        except BlockingIOError:
            return
        except BrokenPipeError:
            written = len(self._left)
        self._left = self._left[written:]
        if not self._left and stdin is not None:
            self._poller.unregister(self._writer)
            self._writer = -1
            stdin.close()

    def _drain(self) -> None:
        """After the end nobody writes any more: what the pipes hold now is all there will be."""
        for fd in list(self._readers):
            while fd in self._readers and self._read(fd):
                pass
            if fd in self._readers:
                self._drop(fd)

    def step(self, timeout_s: float | None) -> bool:
        """Do what there is to do, waiting for it at most `timeout_s` seconds; whether it is over."""
        process = self._entry.process
        if process is None or self._end_fd < 0:
            self._drain()
            self._is_over = True
            return True
        for fd, _ in self._poller.poll(timeout_s):
            if fd == self._writer:
                self._write()
            elif fd in self._readers:
                self._read(fd)
            elif process.poll() is not None or process.has_ended:
                self._drain()
                self._is_over = True
        return self._is_over

    def output(self) -> tuple[bytes, bytes]:
        """What was read so far."""
        return b"".join(self._outputs["stdout"]), b"".join(self._outputs["stderr"])

    def timed_out(self, timeout_s: float | None) -> OperationTimeout:
        """The error for one that has taken too long, with what was read of it."""
        stdout, stderr = self.output()
        return OperationTimeout(
            f"{self._entry.description} did not end within {timeout_s} s and was killed",
            timeout_s=timeout_s or 0.0,
            stdout=stdout,
            stderr=stderr,
        )


def communicate(
    entry: Partner,
    streams: Streams,
    *,
    data: bytes = b"",
    timeout_s: float | None = None,
    limit_bytes: int = DEFAULT_OUTPUT_LIMIT,
) -> tuple[ExitStatus, bytes, bytes]:
    """Feed standard input, collect the outputs, and wait for the end.

    On a timeout, an error or an interrupt it is killed, with everything that it has started.

    Args:
        entry: A running container, or a command in one.
        streams: Its streams; those that are pipes are read. The caller's ends are closed in every case.
        data: What to write to standard input, if that is a pipe.
        timeout_s: Longest time in seconds.
        limit_bytes: Most output to keep, of both streams together.

    Returns:
        How it ended, standard output, standard error.

    Raises:
        OperationTimeout: It took longer; the error has what was captured.
        OutputLimitExceeded: It wrote more.
    """
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    with Conversation(entry, streams, data, limit_bytes) as conversation:
        left_s = timeout_s
        while left_s is None or left_s > 0:
            if conversation.step(left_s):
                return entry.wait(), *conversation.output()
            left_s = None if deadline is None else deadline - time.monotonic()
    raise conversation.timed_out(timeout_s)
