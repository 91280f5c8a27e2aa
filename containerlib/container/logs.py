"""What a container has written, line by line."""

from __future__ import annotations

import datetime as dt
import os
import time
from collections import deque
from typing import TYPE_CHECKING, Literal

from attrs import field, frozen

from containerlib._native.watch import Watch
from containerlib.container.log_files import LOST, START, STDERR, LogFiles, Piece
from containerlib.container.state import ContainerState
from containerlib.errors import InvalidOption, InvalidState
from containerlib.runtime.detached import DetachedProcess

if TYPE_CHECKING:
    from collections.abc import Iterator

    from containerlib.container.entry import ContainerEntry

__all__ = ["LogLine", "LogSelection", "read_logs"]

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
    if entry.refresh() == ContainerState.REMOVED:
        raise InvalidState(
            f"container {entry.name!r} was removed, and its log with it", expected="a log", actual="removed"
        )
    if not entry.is_detached:
        raise InvalidState(
            f"container {entry.name!r} has no log: what it writes goes where `stdout` and `stderr` say;"
            " create it with lifetime='detached'",
            expected="a log",
            actual="none",
        )
    directory = f"{entry.layers.directory}/log"
    return _read(entry, directory, wanted)


def _read(entry: ContainerEntry, directory: str, wanted: LogSelection) -> Iterator[LogLine]:
    files = LogFiles(directory)
    try:
        lines = _Lines()
        present = (line for piece in files.read() for line in lines.add(piece))
        chosen = filter(wanted.has, present)
        if wanted.tail is None:
            yield from chosen
        elif wanted.follow and entry.state.is_alive:
            yield from deque(chosen, maxlen=wanted.tail)
        else:
            last = deque(chosen, maxlen=wanted.tail)
            last.extend(filter(wanted.has, lines.rest()))
            yield from last
        if wanted.follow:
            yield from filter(wanted.has, _follow(entry, directory, files, lines, wanted))
        yield from filter(wanted.has, lines.rest())
    finally:
        files.close()


def _follow(
    entry: ContainerEntry, directory: str, files: LogFiles, lines: _Lines, wanted: LogSelection
) -> Iterator[LogLine]:
    process = entry.process
    end_fd = process.duplicate() if isinstance(process, DetachedProcess) else -1
    if end_fd < 0:
        return
    try:
        with Watch(directory) as watch:
            while True:
                has_ended = process is None or process.has_ended
                for piece in files.read():
                    yield from lines.add(piece)
                if has_ended or wanted.is_over(time.time()):
                    return
                left_s = None if wanted.until_s is None else max(0.0, wanted.until_s - time.time() + 0.001)
                watch.wait(end_fd, left_s)
    except FileNotFoundError:
        return  # removed meanwhile
    finally:
        os.close(end_fd)
