"""The files of a container's log, as `csrc/log.c` writes them: pieces of output, oldest first."""

from __future__ import annotations

import os
import struct
from typing import TYPE_CHECKING, NamedTuple

from containerlib._native.ffi import lib
from containerlib.errors import StoreCorrupted

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["LOST", "START", "STDERR", "LogFiles", "Piece"]

STDERR, LOST, START = lib.CTR_LOG_STDERR, lib.CTR_LOG_LOST, lib.CTR_LOG_START

_MAGIC = b"CTRLOG1\0"
_HEAD = struct.Struct("=8sQ")
_RECORD = struct.Struct("=QII")
_CHUNK = 1 << 18


class Piece(NamedTuple):
    """What was read at once from one stream; of `LOST`, how many bytes could not be written.

    `START` has nothing: what follows is of another start.
    """

    time_ns: int
    stream: int
    data: bytes


class LogFiles:
    """Reads a log from its beginning, as far as it goes, again and again; close it.

    A file that is dropped while it is read is read to its end.
    """

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._number = 0
        self._fd = -1
        self._rest = b""

    def close(self) -> None:
        """Give up the file. Again: nothing happens."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def read(self) -> Iterator[Piece]:
        """What there is behind what was read before.

        Raises:
            StoreCorrupted: A file is no part of a log.
        """
        while True:
            if self._fd < 0 and not self._open_next():
                return
            yield from self._read_file()
            if not self._numbers_after():
                return
            # Another one was begun, so this one does not grow any more.
            yield from self._read_file()
            self.close()

    def _numbers_after(self) -> list[int]:
        try:
            names = os.listdir(self._directory)
        except FileNotFoundError:
            return []
        return sorted(int(name) for name in names if name.isdigit() and int(name) > self._number)

    def _open_next(self) -> bool:
        for number in self._numbers_after():
            path = f"{self._directory}/{number:08}"
            try:
                self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            except FileNotFoundError:
                continue  # dropped since
            head = os.read(self._fd, _HEAD.size)
            if len(head) < _HEAD.size:
                # Just being begun, or on a full disk.
                self.close()
                return False
            if head[:8] != _MAGIC:
                self.close()
                raise StoreCorrupted(path, "is not a log of a container; remove it")
            self._number, self._rest = number, b""
            return True
        return False

    def _read_file(self) -> Iterator[Piece]:
        while chunk := os.read(self._fd, _CHUNK):
            data = self._rest + chunk
            at = 0
            while at + _RECORD.size <= len(data):
                time_ns, size, stream = _RECORD.unpack_from(data, at)
                if size > lib.CTR_LOG_PIECE_BYTES:
                    path = f"{self._directory}/{self._number:08}"
                    raise StoreCorrupted(path, f"has a record of {size} bytes; remove it")
                end = at + _RECORD.size + size
                if end > len(data):
                    break
                yield Piece(time_ns, stream, data[at + _RECORD.size : end])
                at = end
            self._rest = data[at:]
