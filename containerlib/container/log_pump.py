"""What a container of this process writes, given to a function line by line."""

from __future__ import annotations

import collections
import contextlib
import os
import select
import threading
import time
from typing import TYPE_CHECKING, BinaryIO, Literal

from containerlib.container.logs import LogLine

if TYPE_CHECKING:
    from containerlib.options import LogCallback

__all__ = ["LogPump"]

_CHUNK_BYTES = 64 << 10
_LINE_BYTES = 1 << 20


class _Lines:
    """The lines of one stream, as they come in pieces."""

    def __init__(self, stream: Literal["stdout", "stderr"]) -> None:
        self._stream = stream
        self._rest = bytearray()
        self._since_ns = 0

    def feed(self, data: bytes) -> list[LogLine]:
        """Take more of it, and return the lines that are complete, or too long to be kept."""
        now_ns = time.time_ns()
        found = []
        self._since_ns = self._since_ns or now_ns
        self._rest += data
        *whole, rest = self._rest.split(b"\n")
        for line in whole:
            found.append(self._line(bytes(line)))
            self._since_ns = now_ns
        while len(rest) >= _LINE_BYTES:
            found.append(self._line(bytes(rest[:_LINE_BYTES]), is_partial=True))
            rest = rest[_LINE_BYTES:]
        self._rest = bytearray(rest)
        if not rest:
            self._since_ns = 0
        return found

    def end(self) -> list[LogLine]:
        """Return what is left, at the end of the stream."""
        return [self._line(bytes(self._rest), is_partial=True)] if self._rest else []

    def _line(self, data: bytes, *, is_partial: bool = False) -> LogLine:
        return LogLine(time_ns=self._since_ns, stream=self._stream, data=data, is_partial=is_partial)


class LogPump:
    """Reads two streams until both have ended, and calls the function of a `LogCallback` with each line.

    One thread reads and calls, so that a container waits for a function that is slow. If it shall not wait, a
    second thread calls: lines beyond `LogCallback.max_bytes` are then dropped, and counted.
    """

    def __init__(self, sink: LogCallback, stdout: BinaryIO | None, stderr: BinaryIO | None) -> None:
        """Begin.

        Args:
            sink: Where the lines go.
            stdout: The stream to be read, closed at its end; None if that goes elsewhere.
            stderr: The same.
        """
        self._sink = sink
        read = [
            (stream, lines)
            for stream, lines in ((stdout, _Lines("stdout")), (stderr, _Lines("stderr")))
            if stream is not None
        ]
        self._streams = {stream.fileno(): (stream, lines) for stream, lines in read}
        self._waiting: collections.deque[LogLine] = collections.deque()
        self._waiting_bytes = self._lost_lines = self._lost_bytes = 0
        self._changed = threading.Condition()
        self._has_ended = False
        work = [self._read] if sink.when_slow == "wait" else [self._read, self._call_waiting]
        self._threads = [threading.Thread(target=each, name="containerlib-log", daemon=True) for each in work]
        for thread in self._threads:
            thread.start()

    def join(self, timeout_s: float | None) -> bool:
        """Wait until the function has had every line; say whether that is so. Itself it does not wait."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        for thread in self._threads:
            if thread is threading.current_thread():
                return False
            thread.join(None if deadline is None else max(0.0, deadline - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    def _read(self) -> None:
        poller = select.poll()
        for fd in self._streams:
            poller.register(fd, select.POLLIN)
        while self._streams:
            for fd, _ in poller.poll():
                stream, lines = self._streams[fd]
                data = os.read(fd, _CHUNK_BYTES)
                for line in lines.feed(data) if data else lines.end():
                    self._take(line)
                if not data:
                    poller.unregister(fd)
                    del self._streams[fd]
                    stream.close()
        with self._changed:
            self._has_ended = True
            self._changed.notify_all()

    def _take(self, line: LogLine) -> None:
        if self._sink.when_slow == "wait":
            self._call(line)
            return
        with self._changed:
            if self._waiting_bytes + len(line.data) > self._sink.max_bytes:
                self._lost_lines += 1
                self._lost_bytes += len(line.data)
                return
            self._note_lost()
            self._waiting.append(line)
            self._waiting_bytes += len(line.data)
            self._changed.notify_all()

    def _note_lost(self) -> None:
        """Put a word about what was dropped in its place."""
        if self._lost_lines:
            text = f"{self._lost_lines} lines ({self._lost_bytes} bytes) dropped"
            self._waiting.append(LogLine(time_ns=time.time_ns(), stream="lost", data=text.encode()))
            self._lost_lines = self._lost_bytes = 0

    def _call_waiting(self) -> None:
        while True:
            with self._changed:
                while not self._waiting and not self._has_ended:
                    self._changed.wait()
                if self._has_ended:
                    self._note_lost()
                if not self._waiting:
                    return
                line = self._waiting.popleft()
                self._waiting_bytes -= 0 if line.stream == "lost" else len(line.data)
            self._call(line)

    def _call(self, line: LogLine) -> None:
        """Call the function. What it raises is its own affair: reported, and the next line follows."""
        try:
            self._sink.function(line)
        except Exception:
            import logging  # noqa: PLC0415 - hardly ever needed

            with contextlib.suppress(Exception):
                logging.getLogger("containerlib").exception("the function of a LogCallback failed")
