"""Checking a whole store: each thing by itself, and whether images have what they need."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

import attrs

from containerlib._util import file_lock
from containerlib.errors import DigestMismatch, LayerError, ReadOnlyStore, SnapshotNotFound, StoreCorrupted
from containerlib.image.collect import needed_digests
from containerlib.image.compare import difference
from containerlib.image.survey import Survey
from containerlib.image.unpack import unpack_aside
from containerlib.store.check import (
    check_blobs,
    check_leases,
    check_places,
    check_references,
    check_snapshots,
    leftover,
)
from containerlib.store.damage import Damage

if TYPE_CHECKING:
    from collections.abc import Iterator

    from containerlib.image.survey import SnapshotSource
    from containerlib.oci.digest import ChainId
    from containerlib.store.lease import Lease
    from containerlib.store.stores import Stores

__all__ = ["check"]


def check(stores: Stores, *, deep: bool = False) -> tuple[Damage, ...]:
    """Return everything that is wrong with a store, the worst first and leftovers last.

    Safe while others use the store.

    Args:
        stores: The store.
        deep: Also read each blob, and compare each unpacked layer with its blob, file by file.

    Raises:
        ReadOnlyStore: With `deep`: layers to compare with must be unpacked somewhere.

    Cost: without `deep` a look at each file of the store itself and a read of each small document; with it,
        reading and unpacking everything, and room for the largest layer.
    """
    if not os.path.isdir(stores.layout.root):
        return ()
    with _nothing_is_deleted(stores):
        found = [*_shallow(stores)]
        survey = Survey(stores)
    if deep:
        # It takes long, so others must be allowed to delete meanwhile; what is gone by then is no finding.
        found += [damage for damage in check_blobs(stores, deep=True) if damage.kind == "blob-content"]
        bad = {damage.path for damage in found} | {damage.path for damage in survey.damages}
        found += _compare(stores, survey, bad)
    return _merged(survey, found)


def _shallow(stores: Stores) -> Iterator[Damage]:
    yield from check_places(stores)
    yield from check_leases(stores)
    yield from check_blobs(stores, deep=False)
    yield from check_snapshots(stores)
    broken_references = [*check_references(stores)]
    yield from broken_references
    if not any(damage.kind in {"reference", "format"} for damage in broken_references):
        # Else nobody knows what is needed.
        yield from _unneeded(stores)


def _unneeded(stores: Stores) -> Iterator[Damage]:
    needed = needed_digests(stores, stores.leases.survey())
    for blob in stores.content.list():
        if blob.digest not in needed:
            yield leftover(stores.layout.blob(blob.digest), "content that no image needs")
    below: set[ChainId] = set()
    for name in stores.snapshots.list():
        if name in needed:
            with contextlib.suppress(SnapshotNotFound, StoreCorrupted):
                below |= {snapshot.name for snapshot in stores.snapshots.stack(name)}
    for name in stores.snapshots.list():
        if name not in needed and name not in below:
            yield leftover(stores.layout.snapshot(name), "layer that no image needs")


def _compare(stores: Stores, survey: Survey, bad: set[str]) -> Iterator[Damage]:
    with stores.leases.acquire("check") as lease:
        lease.protect([*survey.sources, *survey.blobs])
        for source in survey.sources.values():
            path = stores.layout.snapshot(source.name)
            blob = stores.layout.blob(source.blob.digest)
            if {path, f"{path}/fs", blob} & bad or not source.is_here(stores):
                continue
            if not stores.snapshots.exists(source.name):
                continue
            problem = _layer_problem(stores, lease, source)
            if problem is not None:
                yield Damage("snapshot-content", path, problem, "repair")


def _layer_problem(stores: Stores, lease: Lease, source: SnapshotSource) -> str | None:
    try:
        with unpack_aside(stores, lease, source.blob.digest, source.diff_id, parent=source.parent) as fresh:
            return difference(fresh, stores.snapshots.get(source.name).path)
    except (SnapshotNotFound, StoreCorrupted):
        return None  # a layer below is missing or damaged, which is found by itself
    except (DigestMismatch, LayerError):
        return None  # the blob is no witness; if it is damaged, that is found when it is hashed
    except FileNotFoundError:
        return "changes while it is looked at"


def _merged(survey: Survey, found: list[Damage]) -> tuple[Damage, ...]:
    """One finding for each path, with the images that suffer from it."""
    by_path: dict[str, Damage] = {}
    for damage in (*found, *survey.damages):
        known = by_path.get(damage.path)
        if known is None or known.kind in {"leftover", "snapshot-parent"}:
            by_path[damage.path] = attrs.evolve(damage, images=survey.owners(damage.path))
    return tuple(sorted(by_path.values(), key=lambda damage: (damage.is_leftover, damage)))


@contextlib.contextmanager
def _nothing_is_deleted(stores: Stores) -> Iterator[None]:
    try:
        fd = file_lock.acquire(stores.layout.collection_lock, shared=True)
    except ReadOnlyStore:
        fd = None  # then nobody deletes anything
    try:
        yield
    finally:
        if fd is not None:
            os.close(fd)
