"""Checking and mending a whole store, what its containers have on disk included.

Nothing of a container is ever mended or removed; only what engines that are gone have left is collected.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

import attrs

from containerlib._util.remove_tree import MOVED_PREFIX
from containerlib.container.detached import read_record
from containerlib.container.frozen import FrozenLayers, read_base
from containerlib.container.recovery import is_abandoned, recover, tidy
from containerlib.errors import StoreCorrupted
from containerlib.image.check import check
from containerlib.image.repair import RepairReport, repair
from containerlib.store.check import leftover
from containerlib.store.damage import Damage

if TYPE_CHECKING:
    from collections.abc import Iterator

    from containerlib.store.stores import Stores

__all__ = ["check_store", "repair_store"]


def check_store(stores: Stores, *, deep: bool = False) -> tuple[Damage, ...]:
    """Return everything that is wrong with a store; see `image.check.check`."""
    found = (*check(stores, deep=deep), *_containers(stores))
    return tuple(sorted(found, key=lambda damage: (damage.is_leftover, damage)))


def repair_store(stores: Stores, *, deep: bool = False, forget: bool = False) -> RepairReport:
    """Mend a store, and collect what dead engines have left; see `image.repair.repair`."""
    before = [*_containers(stores)]
    recover(stores.layout)
    tidy(stores.layout)
    after = [*_containers(stores)]
    report = repair(stores, deep=deep, forget=forget)
    mended = (damage for damage in before if damage not in after)
    return attrs.evolve(report, mended=(*report.mended, *mended), left=(*report.left, *after))


def _containers(stores: Stores) -> Iterator[Damage]:
    """Yield containers that cannot be used, and what dead engines have left of theirs."""
    try:
        names = sorted(os.listdir(stores.layout.containers))
    except FileNotFoundError:
        return
    for name in names:
        path = f"{stores.layout.containers}/{name}"
        if name.startswith(MOVED_PREFIX) or is_abandoned(path, stores.leases):
            yield leftover(path, "layer of a container whose engine is gone")
            continue
        try:
            mode = os.lstat(path).st_mode
        except FileNotFoundError:
            continue  # removed since the directory was listed
        if not name.isalnum() or not stat.S_ISDIR(mode):
            yield Damage("unknown", path, "not a part of the store", "look")
        else:
            yield from _detached(stores, path, name)
            yield from _standing(stores, path)


def _standing(stores: Stores, path: str) -> Iterator[Damage]:
    """Yield what is wrong with the layers that a container stands on."""
    try:
        FrozenLayers(stores.layout).uppers(read_base(path))
    except (StoreCorrupted, OSError) as error:
        if os.path.isdir(path):  # else it was removed with what it stood on
            yield Damage("container-layer", path, f"stands on layers that are not there: {error}", "look")


def _detached(stores: Stores, path: str, name: str) -> Iterator[Damage]:
    try:
        record = read_record(stores.layout, name)
    except (StoreCorrupted, OSError) as error:
        yield Damage("container-record", f"{path}/record.json", f"cannot be read: {error}", "look")
        return
    # One that is being removed vanishes whole, perhaps just now.
    is_whole = os.path.isdir(f"{path}/upper") or not os.path.isdir(path)
    # Between two steps of a snapshot it has none; the next start makes it.
    is_whole = is_whole or os.path.exists(f"{path}/base")
    if record is not None and not is_whole:
        yield Damage("container-layer", path, f"the layer of container {record.name!r} is missing", "look")
