"""Mending a store: what is wrong goes out of the way, what can be made again is made again.

Names of images stay, so that pulling makes their images whole; volumes and the layers of containers are never
touched. What nobody but a person can judge is put aside, not deleted.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

import attrs

from containerlib._util import file_lock
from containerlib._util.atomic_file import remove_file
from containerlib.errors import (
    ContainerlibError,
    DigestMismatch,
    InvalidInputError,
    LayerError,
    SizeMismatch,
    StoreCorrupted,
)
from containerlib.image.check import check
from containerlib.image.collect import collect, needed_digests
from containerlib.image.image_record import load_config
from containerlib.image.naming import point
from containerlib.image.survey import Survey
from containerlib.image.unpack import unpack_layer
from containerlib.oci import media_type
from containerlib.oci.manifest import MAX_MANIFEST_BYTES, Index, parse_manifest
from containerlib.store.quarantine import put_aside

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from containerlib.image.survey import SnapshotSource
    from containerlib.oci.descriptor import Descriptor
    from containerlib.oci.digest import ChainId, Digest
    from containerlib.store.damage import Damage
    from containerlib.store.lease import Lease
    from containerlib.store.stores import Stores

__all__ = ["RepairReport", "repair"]

_SNAPSHOT_KINDS = frozenset({"snapshot-content", "snapshot-record", "snapshot-tree"})


@attrs.frozen
class RepairReport:
    """What a repair did.

    Attributes:
        mended: The findings that are none any more.
        left: What a check would find now.
        pull_again: Names of images of which something is missing that only pulling or making them again
            brings back; digests of those without a name.
        freed_bytes: How much room it made.
    """

    mended: tuple[Damage, ...] = ()
    left: tuple[Damage, ...] = ()
    pull_again: tuple[str, ...] = ()
    freed_bytes: int = 0


def repair(stores: Stores, *, deep: bool = False, forget: bool = False) -> RepairReport:
    """Mend what `check` finds.

    Layers that are damaged are unpacked again, if their blobs are intact and no running engine uses them.
    Damaged blobs are deleted. Damaged references go into the quarantine; the images that lost their names so
    are kept without a name.

    Args:
        stores: The store.
        deep: As for `check`.
        forget: Whether to give up images that are not whole: to remove their names, and what only they need.

    Raises:
        ReadOnlyStore: Nothing can be mended.
        StoreFull: There is no room to unpack a layer again; what was mended so far stays.
    """
    report = _round(stores, deep=deep, forget=forget)
    # A layer cannot be compared with its blob before the layers below it are whole.
    while deep and any(damage.kind in _SNAPSHOT_KINDS for damage in report.mended):
        further = _round(stores, deep=True, forget=forget)
        report = attrs.evolve(
            further,
            mended=report.mended + further.mended,
            freed_bytes=report.freed_bytes + further.freed_bytes,
        )
        if not further.mended:
            break
    return report


def _round(stores: Stores, *, deep: bool, forget: bool) -> RepairReport:
    found = check(stores, deep=deep)
    if not found:
        return RepairReport()
    with stores.leases.acquire("repair") as lease:
        survey = Survey(stores)
        used = stores.leases.survey()
        lease.protect([*survey.blobs, *survey.sources])
        with file_lock.locked(stores.layout.collection_lock):
            kept = [damage for damage in found if _is_used(damage, used)]
            for damage in found:
                if damage.remedy == "repair" and damage not in kept:
                    _clear(stores, damage)
            if any(damage.kind == "reference" for damage in found):
                _keep_nameless(stores)
        # Only now is all that is known which the damaged things led to.
        survey = Survey(stores)
        lease.protect([*survey.blobs, *survey.sources])
        _unpack_again(stores, lease, survey.sources.values())
        if forget:
            _forget(stores)
    return _finish(stores, found, kept)


def _finish(stores: Stores, found: Sequence[Damage], kept: Sequence[Damage]) -> RepairReport:
    try:
        freed = collect(stores).freed_bytes
    except StoreCorrupted:
        freed = 0  # a reference of a newer version: nobody knows what it needs
    in_use = {
        damage.path: attrs.evolve(damage, reason=f"{damage.reason}; a running engine uses it")
        for damage in kept
    }
    left = (*in_use.values(), *(damage for damage in check(stores) if damage.path not in in_use))
    paths = {damage.path for damage in left}
    return RepairReport(
        mended=tuple(damage for damage in found if damage.path not in paths),
        left=left,
        pull_again=tuple(
            sorted({name for damage in left if damage.remedy == "pull" for name in damage.images})
        ),
        freed_bytes=freed,
    )


def _clear(stores: Stores, damage: Damage) -> None:
    """Take out of the way what is damaged. The collection lock is held."""
    path = damage.path
    if damage.kind == "permissions":
        os.chmod(path, 0o700)
        os.chown(path, os.geteuid(), os.getegid())
    elif damage.kind == "blob-content":
        remove_file(path)
    elif damage.kind in {"blob-kind", "reference"}:
        put_aside(stores.layout, path)
    elif damage.kind in _SNAPSHOT_KINDS:
        _let_go(stores, path.removesuffix("/fs"))
    elif damage.reason == "is its own ancestor":
        _let_go(stores, path)


def _let_go(stores: Stores, directory: str) -> None:
    """Let a snapshot go; it can be made again from its blob, so it is not kept."""
    if stat.S_ISDIR(os.lstat(directory).st_mode):
        stores.snapshots.hide_directory(directory)
    else:
        put_aside(stores.layout, directory)


def _is_used(damage: Damage, used: set[Digest]) -> bool:
    """Whether a layer must not be taken away now, since containers may run on it."""
    name = os.path.basename(damage.path.removesuffix("/fs")).replace("-", ":", 1)
    return damage.kind in _SNAPSHOT_KINDS and name in used


def _keep_nameless(stores: Stores) -> None:
    """Hold every whole image that no reference leads to any more."""
    needed = needed_digests(stores, set())
    lost = [target for target in _manifests(stores) if target.digest not in needed]
    inner = {entry.digest for target in lost for entry in _children(stores, target)}
    for target in lost:
        if target.digest not in inner:
            point(stores, None, target)


def _manifests(stores: Stores) -> list[Descriptor]:
    """Return every document of the store that could be an image."""
    found = []
    for blob in stores.content.list():
        if blob.size > MAX_MANIFEST_BYTES:
            continue
        for kind in (None, media_type.OCI_MANIFEST, media_type.OCI_INDEX):
            try:
                raw = stores.content.read(blob.digest, limit=MAX_MANIFEST_BYTES)
                document = parse_manifest(raw, kind)
                if not isinstance(document, Index):
                    load_config(stores, document)
            except (ContainerlibError, OSError):
                continue  # most blobs are none
            found.append(document.descriptor)
            break
    return found


def _children(stores: Stores, target: Descriptor) -> Iterable[Descriptor]:
    raw = stores.content.read(target.digest, limit=MAX_MANIFEST_BYTES)
    document = parse_manifest(raw, target.media_type)
    return document.manifests if isinstance(document, Index) else ()


def _unpack_again(stores: Stores, lease: Lease, sources: Iterable[SnapshotSource]) -> None:
    """Make the snapshots that are missing, lowest first, from the blobs that are here."""
    made: list[ChainId] = []
    for source in sources:
        whole_below = source.parent is None or stores.snapshots.exists(source.parent)
        if stores.snapshots.exists(source.name) or not whole_below or not source.is_here(stores):
            continue
        try:
            with stores.content.open(source.blob.digest) as stream:
                unpack_layer(
                    stores, lease, stream, diff_id=source.diff_id, name=source.name, parent=source.parent
                )
        except (DigestMismatch, LayerError, SizeMismatch, InvalidInputError):
            if not stores.content.matches(source.blob.digest):
                stores.content.delete(source.blob.digest)
        else:
            made.append(source.name)
    if made:
        stores.settle(made)


def _forget(stores: Stores) -> None:
    """Remove the references of images that are not whole."""
    with file_lock.locked(stores.layout.collection_lock):
        for name in {name for damage in Survey(stores).damages for name in damage.images}:
            stores.references.remove(name)
