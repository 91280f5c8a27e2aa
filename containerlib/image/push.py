"""Pushing an image: from the store to a registry, byte for byte as it is.

Blobs go first, then the manifests that need them, and the tag last: whoever pulls meanwhile gets the old
image or the new one.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import functools
import threading
from typing import TYPE_CHECKING, BinaryIO

from containerlib.errors import BlobNotFound
from containerlib.image.image_record import MAX_INDEX_DEPTH
from containerlib.image.naming import tell
from containerlib.image.progress import TransferEvent, ignore
from containerlib.oci import media_type
from containerlib.oci.manifest import MAX_MANIFEST_BYTES, Index, Manifest, parse_manifest
from containerlib.registry.upload import has_blob, put_blob, put_manifest

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from containerlib.image.image_record import ImageRecord
    from containerlib.image.mount_sources import MountSources
    from containerlib.image.progress import Phase, Progress
    from containerlib.oci.descriptor import Descriptor
    from containerlib.registry.client import RepositoryClient
    from containerlib.store.lease import Lease
    from containerlib.store.stores import Stores

__all__ = ["push_documents", "push_image"]

_WORKERS = 4


def push_image(
    stores: Stores,
    repository: RepositoryClient,
    image: ImageRecord,
    tag: str,
    *,
    progress: Progress = ignore,
    mounts: MountSources | None = None,
) -> Descriptor:
    """Upload `image` and let `tag` mean it; return what the tag means now.

    Args:
        stores: Where it is.
        repository: Where to.
        image: What is pushed; an index as a whole if all of it is in the store.
        tag: Its name there.
        progress: Told about each blob.
        mounts: Which other repositories of the registry may have a blob.

    Raises:
        RegistryError: The registry refuses or cannot be reached. What was uploaded by then has no name there.

    Source: OCI distribution-spec 1.1, "Push".
    """
    with stores.leases.acquire(f"push {repository.source.name}") as lease:
        pushed = _push_all(stores, repository, lease, _documents(stores, image), tag, progress, mounts)
    tell(stores, "push", image.id, f"{repository.source.name}:{tag}")
    return pushed


def push_documents(
    stores: Stores,
    repository: RepositoryClient,
    documents: Sequence[Index | Manifest],
    tag: str,
    *,
    progress: Progress = ignore,
    mounts: MountSources | None = None,
) -> Descriptor:
    """Upload manifests with their blobs, and let `tag` mean the last one, which points at the others.

    See `push_image`. The last one need not be in the store.
    """
    with stores.leases.acquire(f"push {repository.source.name}") as lease:
        return _push_all(stores, repository, lease, documents, tag, progress, mounts)


def _push_all(
    stores: Stores,
    repository: RepositoryClient,
    lease: Lease,
    documents: Sequence[Index | Manifest],
    tag: str,
    progress: Progress,
    mounts: MountSources | None,
) -> Descriptor:
    manifests = [document for document in documents if isinstance(document, Manifest)]
    blobs = {blob.digest: blob for each in manifests for blob in (each.config, *each.layers)}
    lease.protect([*blobs, *(document.digest for document in documents)])
    wanted = [blob for blob in blobs.values() if not media_type.is_foreign_layer(blob.media_type)]
    _Uploads(stores, repository, progress, mounts).run(wanted)
    for document in documents[:-1]:
        put_manifest(repository, document.raw, document.media_type, None)
    return put_manifest(repository, documents[-1].raw, documents[-1].media_type, tag)


def _documents(stores: Stores, image: ImageRecord) -> list[Index | Manifest]:
    """Return what has to be pushed, everything before what points at it."""
    try:
        return _walk(stores, image.target, 0)
    except BlobNotFound:
        return [image.manifest]  # of an index, only this platform was pulled


def _walk(stores: Stores, target: Descriptor, depth: int) -> list[Index | Manifest]:
    document = parse_manifest(stores.content.read(target.digest, limit=MAX_MANIFEST_BYTES), target.media_type)
    if isinstance(document, Manifest) or depth == MAX_INDEX_DEPTH:
        return [document]
    found: dict[str, Index | Manifest] = {}
    for entry in document.manifests:
        if entry.digest not in found:
            found.update({each.digest: each for each in _walk(stores, entry, depth + 1)})
    return [*found.values(), document]


class _ToldSource:
    """A blob that tells how far it has been read."""

    def __init__(self, source: BinaryIO, tell: Callable[[int], None]) -> None:
        self._source = source
        self._tell = tell
        self.close = source.close

    def read(self, size: int = -1, /) -> bytes:
        data = self._source.read(size)
        self._tell(self._source.tell())
        return data

    def seek(self, offset: int, /) -> int:
        return self._source.seek(offset)


class _Uploads:
    """The blobs of one push, several at a time."""

    def __init__(
        self,
        stores: Stores,
        repository: RepositoryClient,
        progress: Progress,
        mounts: MountSources | None,
    ) -> None:
        self._stores = stores
        self._repository = repository
        self._progress = progress
        self._mounts = mounts
        self._lock = threading.Lock()

    def run(self, blobs: Sequence[Descriptor]) -> None:
        """Upload what the repository does not have; the first failure ends it."""
        with concurrent.futures.ThreadPoolExecutor(_WORKERS, "containerlib-push") as pool:
            pending = [pool.submit(self._upload, blob) for blob in blobs]
            try:
                for upload in concurrent.futures.as_completed(pending):
                    upload.result()
            except BaseException:
                pool.shutdown(wait=True, cancel_futures=True)
                raise

    def _upload(self, blob: Descriptor) -> None:
        if has_blob(self._repository, blob):
            self._tell(blob, "exists", blob.size)
            return
        self._tell(blob, "uploading", 0)
        others = () if self._mounts is None else self._mounts.of(blob.digest)
        content = functools.partial(self._open, blob)
        was_sent = put_blob(self._repository, blob, content, others)
        self._tell(blob, "done" if was_sent else "exists", blob.size)

    def _open(self, blob: Descriptor) -> contextlib.closing[_ToldSource]:
        source = self._stores.content.open_verified(blob.digest)
        return contextlib.closing(_ToldSource(source, functools.partial(self._tell, blob, "uploading")))

    def _tell(self, blob: Descriptor, phase: Phase, current_bytes: int) -> None:
        with self._lock:
            self._progress(TransferEvent(str(blob.digest), phase, current_bytes, blob.size))
