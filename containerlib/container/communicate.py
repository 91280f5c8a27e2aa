"""Reading a container's output and waiting for its end, at once and within bounds."""

from __future__ import annotations

import os
import select
import time
from typing import TYPE_CHECKING, BinaryIO, Protocol

from containerlib.errors import OperationTimeout, OutputLimitExceeded

if TYPE_CHECKING:
    from containerlib.container.streams import Streams
    from containerlib.runtime.detached import DetachedProcess
    from containerlib.runtime.process import RunningProcess
    from containerlib.runtime.usage import ExitStatus

__all__ = ["DEFAULT_OUTPUT_LIMIT", "Partner", "communicate"]

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


class _Conversation:
    """Feeds and drains the pipes of one partner until it has ended."""

    def __init__(self, entry: Partner, streams: Streams, data: bytes, limit: int) -> None:
        self._entry = entry
        self._streams = streams
        self._left = memoryview(data)
        self._limit = limit
        self._total = 0
        self._poller = select.poll()
        self._readers: dict[int, tuple[BinaryIO, list[bytes]]] = {}
        self._outputs: dict[str, list[bytes]] = {"stdout": [], "stderr": []}
        self._writer = -1

    def _register(self) -> None:
        for name in ("stdout", "stderr"):
            stream: BinaryIO | None = getattr(self._streams, name)
            if stream is not None and not stream.closed:
                os.set_blocking(stream.fileno(), False)
                self._readers[stream.fileno()] = (stream, self._outputs[name])
                self._poller.register(stream.fileno(), select.POLLIN)
        stdin = self._streams.stdin
        if stdin is not None and not stdin.closed:
            if self._left:
                os.set_blocking(stdin.fileno(), False)
                self._writer = stdin.fileno()
                self._poller.register(self._writer, select.POLLOUT)
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

    def run(self, deadline: float | None) -> bool:
        """Whether the container ended before the deadline."""
        self._register()
        process = self._entry.process
        end_fd = -1 if process is None else process.duplicate()
        if process is None or end_fd < 0:
            self._drain()
            return True
        self._poller.register(end_fd, select.POLLIN)
        try:
            return self._converse(process, deadline)
        finally:
            os.close(end_fd)

    def _converse(self, process: RunningProcess | DetachedProcess, deadline: float | None) -> bool:
        while True:
            left = None if deadline is None else (deadline - time.monotonic()) * 1000
            if left is not None and left <= 0:
                return False
            for fd, _ in self._poller.poll(left):
                if fd == self._writer:
                    self._write()
                elif fd in self._readers:
                    self._read(fd)
                elif process.poll() is not None or process.has_ended:
                    self._drain()
                    return True

    def output(self) -> tuple[bytes, bytes]:
        """What was read so far."""
        return b"".join(self._outputs["stdout"]), b"".join(self._outputs["stderr"])


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
    conversation = _Conversation(entry, streams, data, limit_bytes)
    try:
        if conversation.run(deadline):
            return entry.wait(), *conversation.output()
        entry.end()
    except BaseException:
        entry.end()
        raise
    finally:
        streams.close_outer()
    stdout, stderr = conversation.output()
    raise OperationTimeout(
        f"{entry.description} did not end within {timeout_s} s and was killed",
        timeout_s=timeout_s or 0.0,
        stdout=stdout,
        stderr=stderr,
    )
