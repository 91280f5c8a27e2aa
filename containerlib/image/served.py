"""The engine's store as the storage of a registry: its images are served, and what is pushed becomes one.

A repository of the registry is what the same name means to the engine: ``team/app`` is ``docker.io/team/app``
and ``python`` is ``docker.io/library/python``. A manifest that is pushed without a tag is called by its
digest, ``team/app@sha256:...``, which is how an image is called that was pulled so. A name points at an image
only when that is complete and, if it is one that this host can run, unpacked.

What belongs to a repository is what its names lead to, and what was pushed to it while it is being served. A
lease protects that until a name does.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from containerlib.errors import (
    BlobNotFound,
    InvalidManifest,
    InvalidReference,
    LayerError,
    VerificationError,
)
from containerlib.image.image_record import MAX_INDEX_DEPTH, load_config
from containerlib.image.naming import is_anonymous, point, release
from containerlib.image.reach import Reach
from containerlib.image.unpack import unpack_image
from containerlib.oci.descriptor import Descriptor
from containerlib.oci.digest import Digest, chain_ids
from containerlib.oci.manifest import Manifest
from containerlib.oci.reference import Reference, is_repository
from containerlib.registry.server.storage import StoredManifest, referrer
from containerlib.store.content import BlobWriter

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import BinaryIO

    from containerlib.oci.digest import ChainId
    from containerlib.oci.manifest import Index
    from containerlib.registry.server.storage import Incoming
    from containerlib.store.lease import Lease
    from containerlib.store.stores import Stores

__all__ = ["ServedImages"]


class ServedImages:
    """The images of one store; see `containerlib.registry.server.storage.Storage`."""

    deletes_blobs = False

    def __init__(self, stores: Stores) -> None:
        self._stores = stores
        self._lock = threading.Lock()
        self._lease_context = stores.leases.acquire("registry")
        self._lease: Lease = self._lease_context.__enter__()
        self._protected: set[Digest] = set()
        self._protecting = threading.Lock()
        self._pushed: dict[str, set[Digest]] = {}  # blobs that no name leads to yet, by repository
        self._reach = Reach(stores)

    def repositories(self) -> list[str]:
        """See `Storage`. Images of registries with a port in their name have no place here."""
        found = set()
        for name in self._stores.references.list(skip_damaged=True):
            reference = _parsed(name)
            if reference is not None and is_repository(reference.familiar_name):
                found.add(reference.familiar_name)
        return sorted(found)

    def has_repository(self, repository: str) -> bool:
        """See `Storage`."""
        return bool(self._pushed.get(_name(repository))) or any(True for _ in self._names(repository))

    def tags(self, repository: str) -> list[str]:
        """See `Storage`."""
        found = (name for name, _ in self._names(repository) if name.digest is None)
        return sorted({name.tag for name in found if name.tag is not None})

    def find_manifest(self, repository: str, reference: str | Digest) -> StoredManifest | None:
        """See `Storage`."""
        if isinstance(reference, Digest):
            kind = self._manifests(repository).get(reference)
            return None if kind is None else self._read(reference, kind)
        for found, target in self._names(repository):
            if found.tag == reference and found.digest is None:
                return self._read(target.digest, target.media_type)
        return None

    def has_manifest(self, repository: str, digest: Digest) -> bool:
        """See `Storage`."""
        return digest in self._manifests(repository) and self._stores.content.exists(digest)

    def put_manifest(
        self, repository: str, document: Manifest | Index, digest: Digest, tags: Sequence[str]
    ) -> None:
        """See `Storage`. Unpacks the image first, if it is one for this host.

        Raises:
            InvalidManifest: The image cannot be unpacked.
        """
        name = _name(repository)
        self._protect(digest)
        self._stores.content.put(document.raw, digest=digest)
        try:
            self._unpack(document)
        except (LayerError, VerificationError, InvalidManifest) as error:
            raise InvalidManifest(f"manifest {digest}: {error}") from None
        target = Descriptor(document.media_type, digest, len(document.raw))
        for tag in tags:
            point(self._stores, f"{name}:{tag}", target)
        if not tags:
            point(self._stores, f"{name}@{digest}", target)
        with self._lock:
            self._pushed.get(name, set()).difference_update(self._reach.of(digest, document.media_type).blobs)

    def remove_tag(self, repository: str, tag: str) -> bool:
        """See `Storage`. The image stays in the store, perhaps without a name."""
        return release(self._stores, f"{_name(repository)}:{tag}")

    def remove_manifest(self, repository: str, digest: Digest) -> bool:
        """See `Storage`. Only its names in the repository go; the image stays in the store."""
        was_there = False
        for reference, target in list(self._names(repository)):
            if target.digest == digest:
                was_there |= release(self._stores, reference.canonical)
        return was_there

    def referrers(self, repository: str, subject: Digest) -> list[Descriptor]:
        """See `Storage`. Cost: looks at every manifest of the repository."""
        found = []
        for digest, kind in sorted(self._manifests(repository).items()):
            document = self._reach.parse(digest, kind)
            if document is not None and document.subject is not None and document.subject.digest == subject:
                found.append(referrer(document, digest))
        return found

    def blob_size(self, repository: str, digest: Digest) -> int | None:
        """See `Storage`."""
        if not self._has_blob(repository, digest):
            return None
        try:
            return self._stores.content.size(digest)
        except BlobNotFound:
            return None

    def open_blob(self, repository: str, digest: Digest) -> BinaryIO:
        """See `Storage`."""
        if not self._has_blob(repository, digest):
            raise BlobNotFound(f"no blob {digest} in {repository}")
        return self._stores.content.open(digest, buffer_bytes=0)

    def begin(self, algorithm: str, limit: int) -> Incoming:
        """See `Storage`."""
        return self._stores.content.writer(algorithm=algorithm, limit=limit)

    def commit(self, repository: str, incoming: Incoming, digest: Digest) -> None:
        """See `Storage`."""
        if not isinstance(incoming, BlobWriter):
            raise TypeError(f"{type(incoming).__name__} did not come from this storage")
        name = _name(repository)
        self._protect(digest)
        incoming.commit()
        self._note(name, digest)

    def mount(self, repository: str, source: str, digest: Digest) -> bool:
        """See `Storage`."""
        name = _name(repository)
        if not self._has_blob(source, digest):
            return False
        self._protect(digest)
        if not self._stores.content.exists(digest):
            return False
        self._note(name, digest)
        return True

    def remove_blob(self, repository: str, digest: Digest) -> bool:  # noqa: ARG002 - see `deletes_blobs`
        """See `Storage`: blobs are not deleted one by one."""
        return False

    def close(self) -> None:
        """See `Storage`: what no name leads to is not protected any more."""
        self._lease_context.__exit__(None, None, None)

    def _names(self, repository: str) -> Iterator[tuple[Reference, Descriptor]]:
        """Yield the names of a repository and what they point at."""
        name = _name(repository)
        for text, target in self._stores.references.list(skip_damaged=True).items():
            if text.startswith((f"{name}:", f"{name}@")):
                reference = _parsed(text)
                if reference is not None and reference.name == name:
                    yield reference, target

    def _manifests(self, repository: str) -> dict[Digest, str]:
        found: dict[Digest, str] = {}
        for _, target in self._names(repository):
            found.update(self._reach.of(target.digest, target.media_type).manifests)
        return found

    def _has_blob(self, repository: str, digest: Digest) -> bool:
        with self._lock:
            if digest in self._pushed.get(_name(repository), ()):
                return True
        return any(
            digest in self._reach.of(target.digest, target.media_type).blobs
            for _, target in self._names(repository)
        )

    def _protect(self, digest: Digest) -> None:
        """Have the lease keep `digest`; it is written there once, for servers that run for long."""
        with self._protecting:
            if digest not in self._protected:
                self._lease.protect([digest])
                self._protected.add(digest)

    def _note(self, name: str, digest: Digest) -> None:
        with self._lock:
            self._pushed.setdefault(name, set()).add(digest)

    def _read(self, digest: Digest, kind: str) -> StoredManifest | None:
        raw = self._reach.read(digest)
        return None if raw is None else StoredManifest(kind, digest, raw)

    def _unpack(self, document: Manifest | Index) -> None:
        """Unpack an image, of an index that for this host, and make everything durable."""
        names: list[ChainId] = []
        for _ in range(MAX_INDEX_DEPTH):
            if isinstance(document, Manifest):
                break
            entry = document.select()
            below = None if entry is None else self._reach.parse(entry.digest, entry.media_type)
            if below is None:
                break
            document = below
        if isinstance(document, Manifest) and document.is_image:
            config = load_config(self._stores, document)
            unpack_image(self._stores, self._lease, document, config)
            names = chain_ids(config.diff_ids)
        self._stores.settle(names)


def _name(repository: str) -> str:
    return Reference.parse(repository, default_tag=None).name


def _parsed(name: str) -> Reference | None:
    if is_anonymous(name):
        return None
    try:
        return Reference.parse(name, default_tag=None)
    except InvalidReference:
        return None
