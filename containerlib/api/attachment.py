"""The streams of a container that was started before."""

from __future__ import annotations

import fcntl
import os
import struct
import termios
from typing import TYPE_CHECKING, BinaryIO

from containerlib.errors import InvalidState

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType
    from typing import Self

    from containerlib.container.attach import Attached, Stream

__all__ = ["Attachment"]


class Attachment:
    """The streams of a detached container, from the moment of `Container.attach` on.

    Both outputs end when the container does. Who does not read for ten seconds while there is output is left
    behind: its outputs end then; the container goes on, and its log has everything. As a context manager
    it closes the streams; the container goes on.

    Attributes:
        stdin: To write to; None if the container reads nothing.
        stdout: Its standard output; with a terminal, all there is.
        stderr: Its standard error; empty with a terminal.
        is_terminal: Whether it has a terminal.
        earlier: With ``logs=True``, what it has written since its start and before the attachment, in the
            pieces in which it came: the stream's name and the bytes.
    """

    def __init__(self, attached: Attached, earlier: Sequence[tuple[Stream, bytes]] = ()) -> None:
        self.earlier = tuple(earlier)
        # The caller closes them, by `close`.
        self.stdin: BinaryIO | None = os.fdopen(attached.stdin, "wb", 0) if attached.stdin >= 0 else None
        self.stdout: BinaryIO = os.fdopen(attached.stdout, "rb", 0)
        self.stderr: BinaryIO = os.fdopen(attached.stderr, "rb", 0)
        self.is_terminal = attached.is_terminal

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def resize(self, columns: int, rows: int) -> None:
        """Set the size of its terminal.

        Raises:
            InvalidState: It has none.
        """
        if not self.is_terminal or self.stdin is None:
            raise InvalidState(
                "the container has no terminal; create it with tty=True", expected="tty", actual="no tty"
            )
        fcntl.ioctl(self.stdin.fileno(), termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def take(self) -> tuple[int, int, int]:
        """Descriptors of the three streams, now the caller's; -1 for no input."""
        stdin = -1 if self.stdin is None else os.dup(self.stdin.fileno())
        fds = stdin, os.dup(self.stdout.fileno()), os.dup(self.stderr.fileno())
        self.close()
        return fds

    def close(self) -> None:
        """Let go of the streams. Again: nothing happens."""
        for stream in (self.stdin, self.stdout, self.stderr):
            if stream is not None:
                stream.close()
