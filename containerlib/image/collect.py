"""Deleting content that nothing relies on any more.

Everything that a reference leads to stays, and everything that a live lease protects. The collection lock is
held exclusively while it is found out what that is and while the rest is deleted; operations take it, shared,
only for the moment in which they begin to rely on something.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

import attrs

from containerlib._util import file_lock
from containerlib._util.atomic_file import collect_temporary_files, remove_file
from containerlib.errors import BlobNotFound, InvalidManifest, SizeMismatch, SnapshotNotFound, StoreCorrupted
from containerlib.oci.digest import chain_ids
from containerlib.oci.image_config import MAX_CONFIG_BYTES, ImageConfig
from containerlib.oci.manifest import MAX_MANIFEST_BYTES, Index, parse_manifest
from containerlib.store.snapshot import Snapshot

if TYPE_CHECKING:
    from collections.abc import Iterable

    from containerlib.oci.descriptor import Descriptor
    from containerlib.oci.digest import ChainId, Digest
    from containerlib.store.stores import Stores

__all__ = ["Collected", "collect", "discard", "image_digests", "needed_digests", "sweep"]

_MAX_INDEX_DEPTH = 4
_MAX_DESCRIPTORS = 10_000


@attrs.frozen
class Collected:
    """What was deleted.

    Attributes:
        blobs: Number of blobs.
        snapshots: Number of snapshots.
        freed_bytes: Size of both together.
        stale: Number of leftovers of dead processes.
    """

    blobs: int = 0
    snapshots: int = 0
    freed_bytes: int = 0
    stale: int = 0


def collect(stores: Stores, *, keep: Iterable[ChainId] = ()) -> Collected:
    """Delete all content that no reference and no lease needs, and what dead processes left behind.

    Args:
        stores: The stores.
        keep: Chain ids of snapshots that are used beyond references, by containers.
    """
    with file_lock.locked(stores.layout.collection_lock):
        swept = sweep(stores, keep=keep)
    stale = stores.content.collect_stale() + stores.snapshots.collect_stale(stores.leases)
    stale += collect_temporary_files(stores.layout.references)
    _collect_locks(stores)
    return attrs.evolve(swept, stale=stale)


def sweep(stores: Stores, *, keep: Iterable[ChainId] = ()) -> Collected:
    """Do the part of `collect` for which the caller holds the collection lock exclusively.

    Snapshots are only hidden, since deleting their files takes long; `empty_trash` follows when the lock is
    given up.
    """
    needed = _needed(stores, set(keep))
    snapshots = _unneeded_snapshots(stores, needed)
    blobs = [blob for blob in stores.content.list() if blob.digest not in needed]
    freed = sum(blob.size for blob in blobs)
    for snapshot in snapshots:
        freed += snapshot.size_bytes
        stores.snapshots.hide(snapshot.name)
    for blob in blobs:
        stores.content.delete(blob.digest)
    return Collected(len(blobs), len(snapshots), freed)


def discard(stores: Stores, digests: Iterable[Digest] = ()) -> None:
    """Delete what an operation that failed has left: the blobs `digests`, snapshots, and all else unneeded.

    What cannot be deleted now is a leftover: the error that led here matters more.
    """
    del digests
    with contextlib.suppress(OSError, StoreCorrupted):
        with file_lock.locked(stores.layout.collection_lock):
            sweep(stores)
        stores.snapshots.empty_trash()


def _needed(stores: Stores, keep: set[Digest]) -> set[Digest]:
    """Return every digest that a lease or a reference needs, and `keep`."""
    # The leases first: what sets its reference and drops its lease meanwhile is then found by the reference.
    return needed_digests(stores, stores.leases.protected() | keep)


def image_digests(stores: Stores, target: Descriptor) -> set[Digest]:
    """Return every digest, of blobs and of snapshots, that an image leads to."""
    needed = _Needed(stores, set())
    needed.add_image(target)
    return needed.digests


def needed_digests(stores: Stores, protected: set[Digest]) -> set[Digest]:
    """Return `protected`, and every digest that a reference leads to.

    Raises:
        StoreCorrupted: A reference is damaged, so that nobody knows what it leads to.
    """
    needed = _Needed(stores, protected)
    for target in stores.references.list().values():
        needed.add_image(target)
    return needed.digests


class _Needed:
    """The digests that something leads to."""

    def __init__(self, stores: Stores, digests: set[Digest]) -> None:
        self._stores = stores
        self.digests = digests
        self._walked: set[Digest] = set()

    def add_image(self, target: Descriptor, depth: int = 0) -> None:
        """Add a manifest or index and all that it leads to and that is in the store."""
        self.digests.add(target.digest)
        if target.digest in self._walked or depth > _MAX_INDEX_DEPTH or len(self._walked) > _MAX_DESCRIPTORS:
            return
        self._walked.add(target.digest)
        try:
            document = parse_manifest(
                self._stores.content.read(target.digest, limit=MAX_MANIFEST_BYTES), target.media_type
            )
        except (BlobNotFound, InvalidManifest, SizeMismatch, StoreCorrupted):
            return  # a damaged image leads nowhere; what it shares with others is found through them
        if isinstance(document, Index):
            for child in document.manifests:
                self.add_image(child, depth + 1)
            return
        self.digests.update(layer.digest for layer in document.layers)
        self._add_config(document.config)

    def _add_config(self, target: Descriptor) -> None:
        self.digests.add(target.digest)
        try:
            config = ImageConfig.parse(self._stores.content.read(target.digest, limit=MAX_CONFIG_BYTES))
        except (BlobNotFound, InvalidManifest, SizeMismatch, StoreCorrupted):
            return
        self.digests.update(chain_ids(config.diff_ids))


def _unneeded_snapshots(stores: Stores, needed: set[Digest]) -> list[Snapshot]:
    """Return snapshots that are neither needed nor below a needed one, those on top first.

    One whose record is damaged is of no use to anyone and counts as unneeded.
    """
    existing = {name: _snapshot(stores, name) for name in stores.snapshots.list()}
    kept: set[ChainId] = set()
    for name in existing:
        below: ChainId | None = name if name in needed else None
        while below is not None and below not in kept and below in existing:
            kept.add(below)
            below = existing[below].parent
    unneeded = {name: snapshot for name, snapshot in existing.items() if name not in kept}
    ordered: dict[ChainId, None] = {}
    for name in unneeded:
        path: list[ChainId] = []
        step: ChainId | None = name
        while step in unneeded and step not in ordered and step not in path:
            path.append(step)
            step = unneeded[step].parent
        # Bottom first here, so that no snapshot is ever left without its parent when this is reversed.
        ordered.update(dict.fromkeys(reversed(path)))
    return [unneeded[name] for name in reversed(ordered)]


def _snapshot(stores: Stores, name: ChainId) -> Snapshot:
    try:
        return stores.snapshots.get(name)
    except (SnapshotNotFound, StoreCorrupted):
        return Snapshot(name, None, 0, "")


def _collect_locks(stores: Stores) -> None:
    """Remove lock files that nobody holds; whoever waits for one notices and makes it anew."""
    paths = [f"{stores.layout.locks}/{name}" for name in _names(stores.layout.locks)]
    references = set(_names(stores.layout.references))
    paths += [
        f"{stores.layout.references}/{name}"
        for name in references
        if name.endswith(".lock") and name.replace(".lock", ".json") not in references
    ]
    for path in paths:
        if path == stores.layout.collection_lock:
            continue
        fd = file_lock.acquire(path, blocking=False)
        if fd is not None:
            remove_file(path)
            os.close(fd)


def _names(directory: str) -> list[str]:
    try:
        return os.listdir(directory)
    except FileNotFoundError:
        return []
