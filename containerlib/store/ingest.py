"""Blobs that are still coming: each a file that grows, and that a later process may go on with.

The file is locked for as long as somebody writes it. What a crash leaves of it is a beginning of the blob, or
not: whoever goes on hashes it again, and the commit checks everything.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
from typing import TYPE_CHECKING

from containerlib._util.atomic_file import (
    append,
    empty_file,
    make_directory,
    open_lasting,
    publish_file,
    remove_file,
)
from containerlib.errors import DigestMismatch, SizeMismatch
from containerlib.oci.digest import Digest
from containerlib.store.quarantine import put_aside

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from containerlib.store.layout import Layout

__all__ = ["Ingest", "collect_ingests", "drop_ingest"]

_CHUNK_BYTES = 1 << 20


class Ingest:
    """One blob that is coming; a context manager whose end without `commit` keeps what has come.

    Attributes:
        size: How many bytes have come.
        resumed_bytes: How many of them were here when it began.
    """

    def __init__(self, layout: Layout, digest: Digest, size: int) -> None:
        self._layout = layout
        self._digest = digest
        self._expected_size = size
        self._path = layout.ingest(digest)
        self._hash = hashlib.new(digest.algorithm)
        self._fd = self._open()
        self.size = 0
        try:
            self._resume()
        except BaseException:
            self._close()
            raise
        self.resumed_bytes = self.size

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._fd >= 0:
            if not self.size:
                remove_file(self._path)
            self._close()

    def open(self) -> int:
        """Return a descriptor for reading what has come, and what comes; the caller closes it."""
        return os.open(f"/proc/self/fd/{self._fd}", os.O_RDONLY | os.O_CLOEXEC)

    def write(self, data: bytes | memoryview) -> int:
        """Append `data`.

        Raises:
            SizeMismatch: The blob is now longer than promised; what has come is dropped.
        """
        if self.size + len(data) > self._expected_size:
            self._drop()
            raise SizeMismatch(
                f"blob {self._digest}", expected=self._expected_size, actual=self.size + len(data)
            )
        self._hash.update(data)
        append(self._fd, data, self._path)
        self.size += len(data)
        return len(data)

    def commit(self) -> None:
        """Verify and publish, as `BlobWriter.commit` does.

        Raises:
            SizeMismatch: The blob is shorter than promised; what has come is kept.
            DigestMismatch: The bytes hash to another digest; they are dropped.
        """
        if self.size != self._expected_size:
            raise SizeMismatch(f"blob {self._digest}", expected=self._expected_size, actual=self.size)
        actual = Digest(f"{self._digest.algorithm}:{self._hash.hexdigest()}")
        if actual != self._digest:
            self._drop()
            raise DigestMismatch("blob", expected=self._digest, actual=actual)
        make_directory(self._layout.blob_directory(self._digest.algorithm))
        target = self._layout.blob(self._digest)
        try:
            publish_file(self._path, target)
        except IsADirectoryError:
            # No blob is a directory: whatever it is, it must not keep the right content out.
            put_aside(self._layout, target)
            publish_file(self._path, target)
        self._close()

    def _open(self) -> int:
        fd = open_lasting(self._path)
        fcntl.flock(fd, fcntl.LOCK_EX)
        if os.fstat(fd).st_nlink:
            return fd
        os.close(fd)  # collected between the two calls
        return self._open()

    def _resume(self) -> None:
        while self.size <= self._expected_size and (data := os.read(self._fd, _CHUNK_BYTES)):
            self._hash.update(data)
            self.size += len(data)
        if self.size > self._expected_size:
            self._hash = hashlib.new(self._digest.algorithm)
            self.size = 0
            empty_file(self._fd, self._path)

    def _drop(self) -> None:
        remove_file(self._path)
        self._close()

    def _close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


def collect_ingests(layout: Layout) -> int:
    """Remove what has come of blobs that nobody goes on with; return how many there were."""
    count = 0
    with contextlib.suppress(FileNotFoundError):
        for name in os.listdir(layout.ingests):
            with contextlib.suppress(FileNotFoundError, BlockingIOError):
                _collect(f"{layout.ingests}/{name}")
                count += 1
    return count


def drop_ingest(layout: Layout, digest: Digest) -> None:
    """Remove what has come of a blob, unless somebody is writing it."""
    with contextlib.suppress(FileNotFoundError, BlockingIOError):
        _collect(layout.ingest(digest))


def _collect(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        remove_file(path)
    finally:
        os.close(fd)
