"""A blob that is coming into a directory: hashed and measured on the way, invisible until it is published."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from containerlib._util.atomic_file import PendingFile, make_directory
from containerlib.errors import SizeMismatch
from containerlib.oci.digest import Digest

if TYPE_CHECKING:
    from typing import BinaryIO

__all__ = ["FileIncoming"]


class FileIncoming:
    """One blob, in a file without a lasting name.

    Attributes:
        size: How many bytes have come.
    """

    def __init__(self, directory: str, algorithm: str, limit: int) -> None:
        self._algorithm = algorithm
        self._limit = limit
        self._hash = hashlib.new(algorithm)
        self._pending = PendingFile(directory)
        self.size = 0

    @property
    def digest(self) -> Digest:
        """Digest of what has come."""
        return Digest(f"{self._algorithm}:{self._hash.hexdigest()}")

    def write(self, data: bytes, /) -> int:
        """Append `data`.

        Raises:
            SizeMismatch: That is more than allowed; nothing of it is kept.
        """
        if self.size + len(data) > self._limit:
            raise SizeMismatch("blob", expected=self._limit, actual=self.size + len(data))
        self._hash.update(data)
        self._pending.write(data)
        self.size += len(data)
        return len(data)

    def open(self) -> BinaryIO:
        """Open what has come for reading."""
        return self._pending.open()

    def publish(self, directory: str, name: str) -> None:
        """Give the complete file its lasting name."""
        make_directory(directory)
        self._pending.commit(f"{directory}/{name}", durable=True)

    def discard(self) -> None:
        """Remove the file, unless it was published; safe to call again."""
        self._pending.discard()
