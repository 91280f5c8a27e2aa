"""Where an archive goes: a path or a stream."""

from __future__ import annotations

import contextlib
import os
import stat
from typing import TYPE_CHECKING, BinaryIO

from containerlib._util.atomic_file import PendingFile
from containerlib.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from containerlib.layer.archive import Sink

__all__ = ["opened_output"]


@contextlib.contextmanager
def opened_output(out: str | BinaryIO, *, durable: bool = False) -> Iterator[Sink]:
    """Give a sink for `out`.

    A file appears under its path, or is replaced, when the block ends without an error, and not before. A
    path of a pipe or device is written to as a stream.

    Args:
        out: A path, or a binary stream, which is not closed.
        durable: Whether content and name must survive a power loss once the block has ended.

    Raises:
        InvalidInputError: `out` is a directory, or lies in none.
    """
    if not isinstance(out, str):
        yield _Whole(out)
        return
    path = os.path.abspath(out)
    if not os.path.isdir(os.path.dirname(path)):
        raise InvalidInputError(f"{os.path.dirname(path)!r} is not a directory")
    mode = _mode(path)
    if stat.S_ISDIR(mode):
        raise InvalidInputError(f"{out!r} is a directory, not a file")
    if mode and not stat.S_ISREG(mode):
        with open(path, "wb", buffering=0) as stream:
            yield _Whole(stream)
        return
    # The target of a link is replaced, not the link.
    path = os.path.realpath(path)
    with PendingFile(os.path.dirname(path)) as pending:
        yield pending
        pending.commit(path, durable=durable)


def _mode(path: str) -> int:
    """Return type and mode of `path`; 0 if it does not exist."""
    try:
        return os.stat(path).st_mode
    except FileNotFoundError:
        return 0


class _Whole:
    """A sink that writes everything even to a raw stream, which may take less at a time."""

    def __init__(self, out: BinaryIO) -> None:
        self._out = out

    def write(self, data: bytes, /) -> int:
        rest = memoryview(data)
        while rest:
            rest = rest[self._out.write(rest) or 0 :]
        return len(data)
