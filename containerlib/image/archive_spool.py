"""The content of an image archive on its way into the content store.

An archive says what it holds before or after it holds it, so content is stored as it comes, verified where
its name promises a digest, and protected by a lease. What turns out to be of no use is discarded at the end.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from containerlib.errors import SizeMismatch
from containerlib.store.content import Blob

if TYPE_CHECKING:
    from collections.abc import Callable

    from containerlib.oci.descriptor import Descriptor
    from containerlib.oci.digest import Digest
    from containerlib.store.content import BlobWriter
    from containerlib.store.lease import Lease
    from containerlib.store.stores import Stores

__all__ = ["Spool"]

_COPY_BYTES = 1 << 20


class Spool:
    """Stores what an archive holds, and remembers it.

    Attributes:
        stored: Everything that was stored or was there already.
    """

    def __init__(self, stores: Stores, lease: Lease) -> None:
        self.stores = stores
        self.stored: set[Digest] = set()
        self._lease = lease

    def put(self, data: bytes) -> Blob:
        """Store a small document."""
        rest = [b"", data]
        return self.put_stream(lambda _: rest.pop(), size=len(data))

    def put_stream(self, read: Callable[[int], bytes], *, size: int, digest: Digest | None = None) -> Blob:
        """Store `size` bytes that `read` yields; what is here already under its promised digest is not read.

        Raises:
            DigestMismatch: The content is not what its name promises.
            SizeMismatch: It is longer or shorter than `size`.
        """
        if digest is not None and self.is_here(digest):
            self._check_size(digest, size)
            return Blob(digest, size)
        with self.writer(digest=digest, size=size) as writer:
            while chunk := read(_COPY_BYTES):
                writer.write(chunk)
            return self.commit(writer)

    def writer(self, *, digest: Digest | None = None, size: int | None = None) -> BlobWriter:
        """Begin content that `commit` will store."""
        return self.stores.content.writer(digest=digest, size=size)

    def commit(self, writer: BlobWriter) -> Blob:
        """Store what `writer` holds, protected."""
        self._lease.protect([writer.digest])
        # Before the commit: what is stored and then interrupted must be known, too.
        self.stored.add(writer.digest)
        return writer.commit()

    def is_here(self, digest: Digest) -> bool:
        """Say whether content is in the store, where from now on it stays as long as the lease."""
        if digest in self.stored:
            return True
        self._lease.protect([digest])
        if not self.stores.content.exists(digest):
            return False
        self.stored.add(digest)
        return True

    def has(self, descriptor: Descriptor) -> bool:
        """Say whether the content of `descriptor` is in the store.

        Raises:
            SizeMismatch: It is, but its size is not what the descriptor says.
        """
        if not self.is_here(descriptor.digest):
            return False
        self._check_size(descriptor.digest, descriptor.size)
        return True

    def _check_size(self, digest: Digest, size: int) -> None:
        actual = self.stores.content.size(digest)
        if actual != size:
            raise SizeMismatch(f"blob {digest}", expected=size, actual=actual)
