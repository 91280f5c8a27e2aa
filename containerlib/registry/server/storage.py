"""What the registry needs of whatever keeps its content: the contract, and the values that go through it.

All methods may block and may be called from several threads at once. Names, tags and digests were checked
before. Bytes are given back exactly as they came, and nothing is there before it is verified and complete.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import attrs

from containerlib.oci.manifest import Manifest

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import BinaryIO

    from containerlib.oci.descriptor import Descriptor
    from containerlib.oci.digest import Digest
    from containerlib.oci.manifest import Index

__all__ = ["Incoming", "Storage", "StoredManifest", "referrer"]


@attrs.frozen
class StoredManifest:
    """A manifest or index, as it came."""

    media_type: str
    digest: Digest
    raw: bytes = attrs.field(repr=False)


class Incoming(Protocol):
    """A blob that is coming: nobody sees it before `Storage.commit`."""

    @property
    def size(self) -> int:
        """How many bytes it has."""

    @property
    def digest(self) -> Digest:
        """Digest of what has come."""

    def write(self, data: bytes, /) -> int:
        """Append `data`; `SizeMismatch` if that is more than allowed."""

    def open(self) -> BinaryIO:
        """Open what has come for reading, from its beginning."""

    def discard(self) -> None:
        """Remove it, unless it was committed; safe to call again."""


class Storage(Protocol):
    """Repositories with their manifests, tags and blobs."""

    @property
    def deletes_blobs(self) -> bool:
        """Whether blobs can be deleted one by one."""

    def repositories(self) -> list[str]:
        """Return the repositories that have a manifest, sorted."""

    def has_repository(self, repository: str) -> bool:
        """Say whether there is anything in a repository."""

    def tags(self, repository: str) -> list[str]:
        """Return the tags of a repository, sorted."""

    def find_manifest(self, repository: str, reference: str | Digest) -> StoredManifest | None:
        """Return what a tag or digest means in a repository."""

    def has_manifest(self, repository: str, digest: Digest) -> bool:
        """Say whether a repository has a manifest."""

    def put_manifest(
        self, repository: str, document: Manifest | Index, digest: Digest, tags: Sequence[str]
    ) -> None:
        """Keep a manifest under `digest`, which was checked, and let `tags` mean it."""

    def remove_tag(self, repository: str, tag: str) -> bool:
        """Remove a tag; return whether it was there."""

    def remove_manifest(self, repository: str, digest: Digest) -> bool:
        """Remove a manifest and every tag that means it; return whether it was there."""

    def referrers(self, repository: str, subject: Digest) -> list[Descriptor]:
        """Return the manifests of a repository with this subject, sorted by digest; see `referrer`."""

    def blob_size(self, repository: str, digest: Digest) -> int | None:
        """Return the size of a blob in bytes; None if the repository does not have it."""

    def open_blob(self, repository: str, digest: Digest) -> BinaryIO:
        """Open a blob; `BlobNotFound` if the repository does not have it."""

    def begin(self, algorithm: str, limit: int) -> Incoming:
        """Begin a blob of at most `limit` bytes that will be named by `algorithm`."""

    def commit(self, repository: str, incoming: Incoming, digest: Digest) -> None:
        """Publish a blob whose digest was compared; one that is there already is not an error."""

    def mount(self, repository: str, source: str, digest: Digest) -> bool:
        """Let `repository` have a blob that `source` has; return whether `source` has it."""

    def remove_blob(self, repository: str, digest: Digest) -> bool:
        """Remove a blob from a repository; return whether it was there."""

    def close(self) -> None:
        """Give up what is held for the time of the service."""


def referrer(document: Manifest | Index, digest: Digest) -> Descriptor:
    """Return how a list of referrers shows a manifest or index.

    Source: OCI distribution-spec 1.1, "Listing Referrers".
    """
    kind = document.artifact_type
    if not kind and isinstance(document, Manifest):
        kind = document.config.media_type
    return attrs.evolve(
        document.descriptor, digest=digest, artifact_type=kind, annotations=dict(document.annotations)
    )
