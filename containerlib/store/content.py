"""The content store: immutable blobs under the digest of their bytes.

A blob is written as a stream that is hashed and measured on the way; it gets its name only if both digest
and size are what was promised. So nothing is visible before it is complete, and what is visible is right.
Does not know what a blob means.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import os
import stat
from typing import TYPE_CHECKING, BinaryIO

import attrs

from containerlib._util.atomic_file import (
    TEMPORARY_PREFIX,
    PendingFile,
    collect_temporary_files,
    remove_file,
)
from containerlib.errors import BlobNotFound, DigestMismatch, InvalidDigest, SizeMismatch, StoreCorrupted
from containerlib.oci.digest import Digest
from containerlib.store.ingest import Ingest, collect_ingests, drop_ingest
from containerlib.store.quarantine import put_aside

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType
    from typing import Self

    from _typeshed import WriteableBuffer

    from containerlib.oci.descriptor import Descriptor
    from containerlib.store.layout import Layout

__all__ = ["Blob", "BlobWriter", "ContentStore"]

_CHUNK_BYTES = 1 << 20
_ALGORITHMS = ("sha256", "sha512")


@attrs.frozen
class Blob:
    """What was stored: its digest and its size in bytes."""

    digest: Digest
    size: int


class BlobWriter:
    """One blob being written; a context manager whose end without `commit` leaves nothing.

    Looks enough like a binary file for code that only writes.
    """

    def __init__(
        self,
        layout: Layout,
        *,
        digest: Digest | None,
        size: int | None,
        limit: int | None,
        algorithm: str = "sha256",
    ) -> None:
        algorithm = digest.algorithm if digest is not None else algorithm
        self._layout = layout
        self._algorithm = algorithm
        self._expected_digest = digest
        self._expected_size = size
        self._limit = size if size is not None else limit
        self._hash = hashlib.new(algorithm)
        self._pending = PendingFile(layout.blob_directory(algorithm))
        self.size = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.discard()

    def discard(self) -> None:
        """Remove it, unless it was committed; safe to call again."""
        self._pending.discard()

    def open(self) -> BinaryIO:
        """Open what was written for reading, from its beginning."""
        return self._pending.open()

    def write(self, data: bytes | memoryview) -> int:
        """Append `data`.

        Raises:
            SizeMismatch: The blob is now longer than promised or allowed.
        """
        self.size += len(data)
        if self._limit is not None and self.size > self._limit:
            raise SizeMismatch(self._what, expected=self._limit, actual=self.size)
        self._hash.update(data)
        return self._pending.write(data)

    def commit(self) -> Blob:
        """Verify and publish; a blob that exists already is not an error.

        It survives the death of this process at once, and a power loss after `Stores.sync`.

        Raises:
            SizeMismatch: The blob is shorter than promised.
            DigestMismatch: The bytes hash to another digest than promised.
        """
        if self._expected_size is not None and self.size != self._expected_size:
            raise SizeMismatch(self._what, expected=self._expected_size, actual=self.size)
        digest = self.digest
        if self._expected_digest is not None and digest != self._expected_digest:
            raise DigestMismatch("blob", expected=self._expected_digest, actual=digest)
        path = self._layout.blob(digest)
        try:
            self._pending.commit(path, durable=False)
        except IsADirectoryError:
            # No blob is a directory: whatever it is, it must not keep the right content out.
            put_aside(self._layout, path)
            self._pending.commit(path, durable=False)
        return Blob(digest, self.size)

    @property
    def digest(self) -> Digest:
        """Digest of what was written so far; nothing is stored under it before `commit`."""
        return Digest(f"{self._algorithm}:{self._hash.hexdigest()}")

    @property
    def _what(self) -> str:
        return f"blob {self._expected_digest}" if self._expected_digest is not None else "blob"


@attrs.frozen
class ContentStore:
    """Blobs below one directory, safe for any number of processes and threads.

    Attributes:
        layout: Where the blobs lie.
    """

    layout: Layout

    def writer(
        self,
        *,
        digest: Digest | None = None,
        size: int | None = None,
        limit: int | None = None,
        algorithm: str = "sha256",
    ) -> BlobWriter:
        """Begin a blob.

        Args:
            digest: The promised digest; None accepts any content.
            size: The promised size in bytes.
            limit: Most bytes that are accepted when no size was promised.
            algorithm: What names the content if no digest was promised.
        """
        return BlobWriter(self.layout, digest=digest, size=size, limit=limit, algorithm=algorithm)

    def put(self, data: bytes, *, digest: Digest | None = None) -> Blob:
        """Store `data`, verifying it against `digest` if one is given."""
        with self.writer(digest=digest, size=len(data)) as writer:
            writer.write(data)
            return writer.commit()

    def put_stream(
        self,
        stream: BinaryIO,
        *,
        digest: Digest | None = None,
        size: int | None = None,
        limit: int | None = None,
    ) -> Blob:
        """Store what `stream` yields up to its end; arguments as for `writer`."""
        with self.writer(digest=digest, size=size, limit=limit) as writer:
            while chunk := stream.read(_CHUNK_BYTES):
                writer.write(chunk)
            return writer.commit()

    def ingest(self, digest: Digest, size: int) -> Ingest:
        """Begin a blob, or go on with one that was begun before and broken off.

        The caller holds a lock for this digest: two must not write the same one.

        Args:
            digest: The promised digest.
            size: The promised size in bytes.
        """
        return Ingest(self.layout, digest, size)

    def has_begun(self, digest: Digest) -> bool:
        """Say whether a beginning of the blob is here, which `ingest` would go on with."""
        return os.path.exists(self.layout.ingest(digest))

    def forget(self, digest: Digest) -> None:
        """Remove the beginning of a blob that nobody is writing, because it may be of something else."""
        drop_ingest(self.layout, digest)

    def exists(self, digest: Digest, *, size: int | None = None) -> bool:
        """Say whether the blob is here; with `size`, one of another size does not count."""
        try:
            info = os.stat(self.layout.blob(digest), follow_symlinks=False)
        except (FileNotFoundError, NotADirectoryError):
            return False
        return stat.S_ISREG(info.st_mode) and size in {None, info.st_size}

    def matches(self, digest: Digest) -> bool:
        """Say whether the blob is here and still hashes to its name.

        Cost: reads all of it.
        """
        try:
            with self.open_verified(digest) as file:
                while file.read(_CHUNK_BYTES):
                    pass
        except (BlobNotFound, StoreCorrupted):
            return False
        return True

    def size(self, digest: Digest) -> int:
        """Return the size in bytes of a blob, which must exist."""
        try:
            return os.stat(self.layout.blob(digest), follow_symlinks=False).st_size
        except FileNotFoundError:
            raise BlobNotFound(f"no blob {digest}") from None

    def open(self, digest: Digest, *, buffer_bytes: int = _CHUNK_BYTES) -> BinaryIO:
        """Open a blob for reading. The bytes were verified when they were stored, not again here.

        Raises:
            BlobNotFound: There is no such blob.
            StoreCorrupted: Something else than a file is in its place.
        """
        fd = self._open(digest)
        return open(fd, "rb", buffering=buffer_bytes)

    def open_verified(self, digest: Digest) -> BinaryIO:
        """Open a blob such that whoever reads it to its end has read what it is named after.

        Reading raises `StoreCorrupted` in place of the last bytes if that is not so. Seeking costs reading
        what lies before.

        Raises:
            BlobNotFound: There is no such blob.
            StoreCorrupted: Something else than a file is in its place.

        Cost: hashing the content while it is read.
        """
        reader = _VerifyingReader(self._open(digest), self.layout.blob(digest), digest)
        return io.BufferedReader(reader, _CHUNK_BYTES)

    def _open(self, digest: Digest) -> int:
        path = self.layout.blob(digest)
        try:
            # Not to wait for a fifo, and not to follow a link, either of which has no business here.
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            raise BlobNotFound(f"no blob {digest}") from None
        except OSError as error:
            if error.errno in {errno.ELOOP, errno.ENXIO}:
                raise StoreCorrupted(path, "not a file; pull it again") from None
            raise
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise StoreCorrupted(path, "not a file; pull it again")
        return fd

    def read(self, digest: Digest, *, limit: int) -> bytes:
        """Return a whole small blob, verified again.

        Raises:
            BlobNotFound: There is no such blob.
            SizeMismatch: It is larger than `limit` bytes.
            StoreCorrupted: The file no longer holds what it is named after.
        """
        with self.open(digest, buffer_bytes=0) as file:
            size = os.fstat(file.fileno()).st_size
            if size > limit:
                raise SizeMismatch(f"blob {digest}", expected=limit, actual=size)
            data = file.read(size + 1)
        if Digest.of(data, digest.algorithm) != digest:
            raise StoreCorrupted(self.layout.blob(digest), "content does not match its digest; pull it again")
        return data

    def read_descriptor(self, descriptor: Descriptor, *, limit: int) -> bytes:
        """Return the content `descriptor` points at, which must have the size it says."""
        data = self.read(descriptor.digest, limit=limit)
        if len(data) != descriptor.size:
            raise SizeMismatch(f"blob {descriptor.digest}", expected=descriptor.size, actual=len(data))
        return data

    def delete(self, digest: Digest) -> bool:
        """Remove a blob; return whether it was there."""
        return remove_file(self.layout.blob(digest))

    def list(self) -> Iterator[Blob]:
        """Yield every blob."""
        for algorithm in _ALGORITHMS:
            for entry in _files(self.layout.blob_directory(algorithm)):
                # Others than files, and names that are no digests, are the business of a check.
                with contextlib.suppress(FileNotFoundError, InvalidDigest):
                    if entry.is_file(follow_symlinks=False) and not entry.name.startswith(TEMPORARY_PREFIX):
                        digest = Digest(f"{algorithm}:{entry.name}")
                        yield Blob(digest, entry.stat(follow_symlinks=False).st_size)

    def collect_stale(self) -> int:
        """Remove blobs whose writer died before the commit, and downloads that nobody goes on with.

        Returns:
            How many there were.
        """
        stale = sum(collect_temporary_files(self.layout.blob_directory(name)) for name in _ALGORITHMS)
        return stale + collect_ingests(self.layout)


class _VerifyingReader(io.RawIOBase):
    """A file that gives its last bytes to nobody before all of it was hashed."""

    def __init__(self, fd: int, path: str, digest: Digest) -> None:
        super().__init__()
        self._fd = fd
        self._path = path
        self._digest = digest
        self._size = os.fstat(fd).st_size
        self._restart()

    def _restart(self) -> None:
        self._hash = hashlib.new(self._digest.algorithm)
        self._position = os.lseek(self._fd, 0, os.SEEK_SET)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Go to `offset`; what lies before it is read and hashed for that."""
        if whence != os.SEEK_SET:
            raise io.UnsupportedOperation("content that is verified is sought from its beginning")
        if offset < self._position:
            self._restart()
        while self._position < offset and (
            data := os.read(self._fd, min(_CHUNK_BYTES, offset - self._position))
        ):
            self._take(data)
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        view = memoryview(buffer)
        count = os.readv(self._fd, [view])
        self._take(view[:count])
        return count

    def _take(self, data: bytes | memoryview) -> None:
        self._hash.update(data)
        self._position += len(data)
        is_end = not data or self._position >= self._size
        if is_end and self._hash.hexdigest() != self._digest.hex:
            raise StoreCorrupted(self._path, "content does not match its digest; pull it again")

    def close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)
        super().close()


def _files(directory: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(directory) as listing:
            return list(listing)
    except FileNotFoundError:
        return []
