"""What a manifest or index leads to, as far as it is in the store; remembered, because servers ask often."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from containerlib._util.memo import Memo
from containerlib.errors import BlobNotFound, InvalidManifest, SizeMismatch, StoreCorrupted
from containerlib.image.image_record import MAX_INDEX_DEPTH
from containerlib.oci.manifest import MAX_MANIFEST_BYTES, Manifest, parse_manifest

if TYPE_CHECKING:
    from containerlib.oci.digest import Digest
    from containerlib.oci.manifest import Index
    from containerlib.store.stores import Stores

__all__ = ["Reach", "Reached"]


@attrs.frozen
class Reached:
    """What one document leads to, itself included.

    Attributes:
        manifests: Digests of manifests and indexes, with the media types they are known by.
        blobs: Digests of everything else.
    """

    manifests: dict[Digest, str]
    blobs: frozenset[Digest]


class Reach:
    """The documents of one store. Shared by threads."""

    def __init__(self, stores: Stores) -> None:
        self._stores = stores
        self._walked: Memo[Digest, Reached] = Memo()

    def of(self, digest: Digest, kind: str, depth: int = 0) -> Reached:
        """Return what the document `digest`, of media type `kind`, leads to."""
        known = self._walked.get(digest)
        if known is not None:
            return known
        document = self.parse(digest, kind)
        manifests = {} if document is None else {digest: kind}
        blobs: set[Digest] = set()
        is_complete = document is not None
        if isinstance(document, Manifest):
            blobs |= {document.config.digest, *(layer.digest for layer in document.layers)}
        elif document is not None and depth < MAX_INDEX_DEPTH:
            # Each once, however often a hostile index repeats it.
            for entry in {entry.digest: entry for entry in document.manifests}.values():
                below = self.of(entry.digest, entry.media_type, depth + 1)
                manifests.update(below.manifests)
                blobs |= below.blobs
                is_complete = is_complete and entry.digest in below.manifests
        found = Reached(manifests, frozenset(blobs))
        if is_complete:  # of an index, another platform may be pulled later
            self._walked.put(digest, found)
        return found

    def parse(self, digest: Digest, kind: str) -> Manifest | Index | None:
        """Return a document; None if it is not here, or damaged."""
        raw = self.read(digest)
        try:
            return None if raw is None else parse_manifest(raw, kind)
        except InvalidManifest:
            return None

    def read(self, digest: Digest) -> bytes | None:
        """Return the bytes of a document; None if it is not here, or damaged."""
        try:
            return self._stores.content.read(digest, limit=MAX_MANIFEST_BYTES)
        except (BlobNotFound, SizeMismatch, StoreCorrupted):
            return None
