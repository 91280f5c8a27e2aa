"""The user's terminal and the container's: bytes both ways, window size, raw mode and its end."""

from __future__ import annotations

import errno
import os
import select
import termios
import tty
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from containerlib.cli.foreground import Foreground

__all__ = ["TerminalProxy", "find_terminal", "window_size"]

_CHUNK = 1 << 16
_KEYS = 1 << 12


def find_terminal() -> int | None:
    """The first of our standard streams that is a terminal."""
    return next((fd for fd in (0, 1, 2) if os.isatty(fd)), None)


def window_size(terminal: int | None) -> tuple[int, int]:
    """Columns and rows; zeros where nobody knows."""
    if terminal is None:
        return 0, 0
    try:
        size = os.get_terminal_size(terminal)
    except OSError:
        return 0, 0
    return size.columns, size.lines


class TerminalProxy:
    """Connects the container's terminal with ours while it is open as a context manager.

    With input, our terminal is in raw mode for that time, so that each key reaches the container, and is put
    back however the time ends.
    """

    def __init__(self, loop: Foreground, master: int, *, has_input: bool) -> None:
        """Take over `master`.

        Args:
            loop: Tells when something is ready.
            master: The master side of the container's terminal; closed at the end.
            has_input: Whether our standard input, a terminal, goes to the container.
        """
        self._loop = loop
        self._master = master
        self._has_input = has_input
        self._saved: list[Any] | None = None
        self._keys = b""

    def __enter__(self) -> Self:
        try:
            self._enter()
        except BaseException:
            self._leave()
            raise
        return self

    def _enter(self) -> None:
        os.set_blocking(self._master, False)
        self._loop.on_resize = self.resize
        self.resize()
        self._watch_master()
        if self._has_input:
            self._saved = termios.tcgetattr(0)
            tty.setraw(0, termios.TCSANOW)
            self._loop.watch(0, self._read_keys)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._drain()
        finally:
            self._leave()

    def _leave(self) -> None:
        self._loop.on_resize = None
        self._loop.unwatch(0)
        self._loop.unwatch(self._master)
        os.close(self._master)
        saved, self._saved = self._saved, None
        if saved is not None:
            # Not later: a terminal whose output is stopped would never let us go.
            termios.tcsetattr(0, termios.TCSANOW, saved)

    def resize(self) -> None:
        """Give the container's terminal the size of ours; the kernel tells the programs in it."""
        columns, rows = window_size(find_terminal())
        if columns and rows:
            termios.tcsetwinsize(self._master, (rows, columns))

    def _watch_master(self) -> None:
        events = select.POLLIN | (select.POLLOUT if self._keys else 0)
        self._loop.watch(self._master, self._serve_master, events)

    def _serve_master(self) -> None:
        if self._keys:
            self._write_keys()
        self._read_output()

    def _read_output(self) -> bool:
        """Show one chunk; whether there may be more."""
        try:
            data = os.read(self._master, _CHUNK)
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            data = b""  # nobody in the container has the terminal open any more
        view = memoryview(data)
        while view:
            view = view[os.write(1, view) :]
        if not data:
            self._loop.unwatch(self._master)
        return bool(data)

    def _drain(self) -> None:
        while self._read_output():
            pass

    def _read_keys(self) -> None:
        try:
            keys = os.read(0, _KEYS)
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            keys = b""  # our terminal has gone; SIGHUP tells the container
        if not keys:
            self._loop.unwatch(0)
            return
        self._keys += keys
        self._write_keys()

    def _write_keys(self) -> None:
        """Pass on what the container's terminal takes; read no further keys before the rest is gone."""
        try:
            written = os.write(self._master, self._keys)
        except BlockingIOError:
            written = 0
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            written = len(self._keys)
        was_waiting = bool(self._keys[written:])
        self._keys = self._keys[written:]
        self._watch_master()
        if was_waiting:
            self._loop.unwatch(0)
        else:
            self._loop.watch(0, self._read_keys)
