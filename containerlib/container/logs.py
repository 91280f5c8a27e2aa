"""What a container has written, line by line."""

from __future__ import annotations

import datetime as dt
import os
import time
from collections import deque
from typing import TYPE_CHECKING, Literal, Self

from attrs import field, frozen

from containerlib._native.watch import Watch
from containerlib.container.log_files import LOST, START, STDERR, LogFiles, Piece
from containerlib.container.state import ContainerState
from containerlib.errors import InvalidOption, InvalidState
from containerlib.options import LogFile
from containerlib.runtime.detached import DetachedProcess

if TYPE_CHECKING:
    from collections.abc import Iterator

    from containerlib.container.entry import ContainerEntry

__all__ = ["LogLine", "LogReader", "LogSelection", "read_logs"]

_LONGEST_LINE = 1 << 20


@frozen(kw_only=True)
class LogLine:
    """One line of output.

    Attributes:
        time_ns: When its beginning was read, in nanoseconds since the epoch; never less than that of the line
            before.
        stream: ``"stdout"``, ``"stderr"``, or ``"lost"`` for a gap that a full disk has left.
        data: The line without its end.
        is_partial: Whether the line goes on in the next one of its stream: it is longer than 1 MiB. Or the
            container has ended within it, or it is still being written.
    """

    time_ns: int
    stream: Literal["stdout", "stderr", "lost"]
    data: bytes = field(repr=False)
    is_partial: bool = False

    @property
    def text(self) -> str:
        """The line as text; what is not UTF-8 becomes U+FFFD."""
        return self.data.decode(errors="replace")

    @property
    def time(self) -> dt.datetime:
        """When its beginning was read."""
        return dt.datetime.fromtimestamp(self.time_ns / 1e9, dt.UTC)


@frozen(kw_only=True)
class LogSelection:
    """Which lines are wanted; times in seconds since the epoch."""

    stdout: bool = True
    stderr: bool = True
    since_s: float | None = None
    until_s: float | None = None
    tail: int | None = None
    follow: bool = False

    def __attrs_post_init__(self) -> None:
        if self.tail is not None and self.tail < 0:
            raise InvalidOption("tail", self.tail, "give 0 or more lines, or None for all")
        if not self.stdout and not self.stderr:
            raise InvalidOption("stdout", self.stdout, "choose one stream at least")

    def has(self, line: LogLine) -> bool:
        """Whether the line is one of them."""
        if self.since_s is not None and line.time_ns < self.since_s * 1e9:
            return False
        if self.until_s is not None and line.time_ns > self.until_s * 1e9:
            return False
        return line.stream == "lost" or (self.stdout if line.stream == "stdout" else self.stderr)

    def is_over(self, now_s: float) -> bool:
        """Whether nothing that comes later can be wanted."""
        return self.until_s is not None and now_s > self.until_s


class _Lines:
    """Makes lines of pieces, for each stream; no line grows beyond `_LONGEST_LINE`."""

    def __init__(self) -> None:
        self._open: dict[int, tuple[int, bytearray]] = {}

    def add(self, piece: Piece) -> Iterator[LogLine]:
        """The lines that a piece completes."""
        if piece.stream == LOST:
            count = int.from_bytes(piece.data[:8], "little")
            yield LogLine(time_ns=piece.time_ns, stream="lost", data=b"%d bytes could not be written" % count)
            return
        if piece.stream == START:
            yield from self.rest()
            return
        time_ns, line = self._open.pop(piece.stream, (piece.time_ns, bytearray()))
        start = 0
        while (end := piece.data.find(b"\n", start)) >= 0:
            line += piece.data[start:end]
            yield _line(time_ns, piece.stream, line)
            time_ns, line, start = piece.time_ns, bytearray(), end + 1
        line += piece.data[start:]
        while len(line) > _LONGEST_LINE:
            yield _line(time_ns, piece.stream, line[:_LONGEST_LINE], is_partial=True)
            del line[:_LONGEST_LINE]
        if line:
            self._open[piece.stream] = time_ns, line

    def rest(self) -> Iterator[LogLine]:
        """What has no end."""
        for stream, (time_ns, line) in sorted(self._open.items(), key=lambda item: item[1][0]):
            yield _line(time_ns, stream, line, is_partial=True)
        self._open.clear()


def _line(time_ns: int, stream: int, data: bytearray, *, is_partial: bool = False) -> LogLine:
    return LogLine(
        time_ns=time_ns,
        stream="stderr" if stream == STDERR else "stdout",
        data=bytes(data),
        is_partial=is_partial,
    )


def read_logs(entry: ContainerEntry, wanted: LogSelection) -> Iterator[LogLine]:
    """The lines that are there, and with `follow` those that come, until the container has ended.

    Raises:
        InvalidState: The container was removed, or has no log.
        StoreCorrupted: A file is no part of a log.
    """
    return _read(LogReader(entry, wanted))


def _read(reader: LogReader) -> Iterator[LogLine]:
    with reader:
        yield from reader.present()
        while not reader.is_over:
            yield from reader.step()
            if not reader.is_over:
                reader.wait()


class LogReader:
    """One reading of a log, in steps of which none waits; a context manager."""

    def __init__(self, entry: ContainerEntry, wanted: LogSelection) -> None:
        """Look at nothing yet but whether there can be a log.

        Raises:
            InvalidState: The container was removed, or has no log.
        """
        if entry.refresh() == ContainerState.REMOVED:
            raise InvalidState(
                f"container {entry.name!r} was removed, and its log with it",
                expected="a log",
                actual="removed",
            )
        if not entry.is_detached:
            raise InvalidState(
                f"container {entry.name!r} has no log: what it writes goes where `stdout` and `stderr` say;"
                " create it with lifetime='detached'",
                expected="a log",
                actual="none",
            )
        log = entry.config.log
        if isinstance(log, LogFile) and not log.max_files:
            raise InvalidState(
                f"container {entry.name!r} keeps no log; create it with log=LogFile(max_files=1) or more",
                expected="a log",
                actual="none",
            )
        self._entry = entry
        self._wanted = wanted
        self._lines = _Lines()
        self._directory = f"{entry.layers.directory}/log"
        self._files: LogFiles | None = None
        self._watch: Watch | None = None
        self._end_fd = -1
        self.is_over = False

    def __enter__(self) -> Self:
        self._files = LogFiles(self._directory)
        return self

    def __exit__(self, *_: object) -> None:
        self.is_over = True
        if self._files is not None:
            self._files.close()
        if self._watch is not None:
            self._watch.close()
        fd, self._end_fd = self._end_fd, -1
        if fd >= 0:
            os.close(fd)

    def present(self) -> Iterator[LogLine]:
        """What is there; it is over then, unless it is to be followed."""
        assert self._files is not None  # noqa: S101 - of a block
        wanted, lines = self._wanted, self._lines
        present = (line for piece in self._files.read() for line in lines.add(piece))
        chosen = filter(wanted.has, present)
        if wanted.tail is None:
            yield from chosen
        elif wanted.follow and self._entry.state.is_alive:
            yield from deque(chosen, maxlen=wanted.tail)
        else:
            last = deque(chosen, maxlen=wanted.tail)
            last.extend(filter(wanted.has, lines.rest()))
            yield from last
        if not (wanted.follow and self._begin_to_follow()):
            yield from filter(wanted.has, lines.rest())
            self.is_over = True

    def _begin_to_follow(self) -> bool:
        process = self._entry.process
        self._end_fd = process.duplicate() if isinstance(process, DetachedProcess) else -1
        if self._end_fd < 0:
            return False
        try:
            self._watch = Watch(self._directory)
        except FileNotFoundError:
            return False  # removed meanwhile
        return True

    def step(self) -> list[LogLine]:
        """What has come since; it is over when the container has ended, or nothing later is wanted."""
        assert self._files is not None  # noqa: S101 - of a block
        process = self._entry.process
        has_ended = process is None or process.has_ended
        found = [line for piece in self._files.read() for line in self._lines.add(piece)]
        if has_ended or self._wanted.is_over(time.time()):
            found += self._lines.rest()
            self.is_over = True
        return list(filter(self._wanted.has, found))

    @property
    def left_s(self) -> float | None:
        """How long it may take until the next step has something to do, at most."""
        until_s = self._wanted.until_s
        return None if until_s is None else max(0.0, until_s - time.time() + 0.001)

    @property
    def fds(self) -> list[int]:
        """Descriptors of which one becomes readable when the next step has something to do."""
        return [fd for fd in (self._end_fd, -1 if self._watch is None else self._watch.fileno()) if fd >= 0]

    def settle(self) -> None:
        """After waiting for `fds`: from now on they tell of what is new."""
        if self._watch is not None:
            self._watch.wait(timeout_s=0)

    def wait(self) -> None:
        """Wait until the next step has something to do."""
        if self._watch is not None:
            self._watch.wait(self._end_fd, self.left_s)
