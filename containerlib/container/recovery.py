"""Collects what engines that died have left: control groups, copied trees, container layers, their marks.

Mounts, namespaces and processes are not here: the kernel has ended those with the spawner.
"""

from __future__ import annotations

import contextlib
import os
import time
from typing import TYPE_CHECKING

from attrs import frozen

from containerlib._util import file_lock, strict_json
from containerlib._util.atomic_file import collect_temporary_files, remove_file, write_atomic
from containerlib._util.remove_tree import MOVED_PREFIX, remove_tree
from containerlib.container.frozen import FrozenLayers
from containerlib.container.name_index import NameIndex
from containerlib.errors import InvalidInputError, ReadOnlyStore
from containerlib.store.journal import Journal
from containerlib.store.lease import Holder, LeaseStore

if TYPE_CHECKING:
    from collections.abc import Iterator

    from containerlib.store.layout import Layout

__all__ = [
    "Recovered",
    "is_abandoned",
    "is_alive",
    "is_owned",
    "live_engines",
    "recover",
    "tidy",
    "write_owner",
]

_MARK_LIMIT = 4096
_MAKING_S = 60.0


@frozen
class Recovered:
    """What was collected.

    Attributes:
        engines: Ids of engines that were gone.
        containers: Names of the containers that ended with them.
    """

    engines: tuple[str, ...] = ()
    containers: tuple[str, ...] = ()

    def __add__(self, other: Recovered) -> Recovered:
        """Both."""
        return Recovered(self.engines + other.engines, self.containers + other.containers)


def _list(path: str) -> list[str]:
    try:
        return sorted(os.listdir(path))
    except (FileNotFoundError, NotADirectoryError):
        return []


def _read_mark(path: str) -> dict[str, object]:
    try:
        with open(path, "rb") as file:
            return strict_json.loads_object(file.read(_MARK_LIMIT), limit=_MARK_LIMIT)
    except (OSError, InvalidInputError):
        return {}


def _process_is_gone(mark: dict[str, object]) -> bool:
    """Whether the process that made the mark has certainly ended.

    A forked child keeps its parent's lock, so the lock alone would keep a dead engine alive.
    """
    pid = mark.get("pid")
    if mark.get("boot_id") != Holder.current().boot_id or not isinstance(pid, int):
        return True
    if mark.get("pid_namespace") != os.stat("/proc/self/ns/pid").st_ino:
        return False
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return True
    return fields[0] in {b"Z", b"X"} or int(fields[19]) != mark.get("start_ticks")


def is_alive(directory: str) -> bool:
    """Whether the engine with this run-time directory is running."""
    path = f"{directory}/alive"
    if not os.path.exists(path):
        return False
    try:
        fd = file_lock.acquire(path, blocking=False)
    except FileNotFoundError:
        return False
    if fd is not None:
        os.close(fd)
        return False
    return not _process_is_gone(_read_mark(path))


def live_engines(layout: Layout) -> list[str]:
    """Run-time directories of the running engines of a store."""
    engines = f"{layout.run_root}/engines"
    return [f"{engines}/{name}" for name in _list(engines) if is_alive(f"{engines}/{name}")]


def _collect_engines(layout: Layout, stuck: frozenset[str]) -> Recovered:
    """Remove the marks of dead engines, but for those of whose control groups something is left."""
    engines = f"{layout.run_root}/engines"
    found = Recovered()
    for name in _list(engines):
        directory = f"{engines}/{name}"
        wanted = _is_in_the_making(directory) if name.startswith(".new-") else is_alive(directory)
        if not wanted and name not in stuck:
            ended = tuple(_tell_ends(layout, directory))
            found += Recovered(() if name.startswith(".") else (name,), ended)
            with contextlib.suppress(OSError):
                remove_tree(directory)
    return found


def _tell_ends(layout: Layout, directory: str) -> Iterator[str]:
    """Write into the journal that the containers of a dead engine have ended with it, nobody knows how.

    Yields:
        Their names.
    """
    from containerlib.container.listing import read_file  # noqa: PLC0415 - it imports this module

    journal = Journal(layout.events)
    for name in _list(f"{directory}/containers"):
        path = f"{directory}/containers/{name}"
        found = read_file(path, "")
        try:
            if not remove_file(path):
                continue  # of several processes that are here one tells it
        except (OSError, ReadOnlyStore):
            continue
        if found is not None:
            attributes = {"image": found.image}
            if found.state.is_alive:
                journal.record("container", "die", found.id, found.name, {**attributes, "exitCode": ""})
            journal.record("container", "destroy", found.id, found.name, attributes)
            yield found.name


def _is_in_the_making(directory: str) -> bool:
    """Whether a mark without a lock yet may still get one: it takes its maker less than a second."""
    try:
        return time.time() - os.stat(directory).st_mtime < _MAKING_S
    except OSError:
        return True


def write_owner(directory: str, engine_directory: str, lease_id: str) -> None:
    """Say in a container's directory which engine it belongs to."""
    owner = {"directory": engine_directory, "lease": lease_id}
    write_atomic(f"{directory}/engine", strict_json.dumps(owner), durable=False)


def _owner_is_alive(directory: str, leases: LeaseStore) -> bool | None:
    """Whether the engine that a container belongs to lives; None for a container that belongs to none.

    Engines on one store may have different run roots. Where an engine's mark can be seen it decides; its
    lease, which lies in the store, decides elsewhere.
    """
    owner = _read_mark(f"{directory}/engine")
    mark, lease = owner.get("directory"), owner.get("lease")
    if not isinstance(mark, str) or not isinstance(lease, str):
        return None
    return is_alive(mark) if os.path.isdir(mark) else leases.is_alive(lease)


def is_abandoned(directory: str, leases: LeaseStore) -> bool:
    """Whether a container's directory belongs to an engine that is gone, or is half made and stays so."""
    alive = _owner_is_alive(directory, leases)
    if alive is None:
        # Between its making and its first file it has neither; it stays so only after a crash.
        alive = os.path.exists(f"{directory}/record.json") or _is_in_the_making(directory)
    return not alive


def is_owned(directory: str, leases: LeaseStore) -> bool:
    """Whether a directory belongs to an engine that lives."""
    return bool(_owner_is_alive(directory, leases))


def _collect_layers(layout: Layout) -> None:
    """Layers of containers whose engine is gone, and what a crash has left of making or removing one."""
    leases = LeaseStore(layout)
    for name in _list(layout.containers):
        directory = f"{layout.containers}/{name}"
        if name.startswith(MOVED_PREFIX) or is_abandoned(directory, leases):
            with contextlib.suppress(OSError):
                remove_tree(directory)


def tidy(layout: Layout) -> None:
    """Remove what dead processes have left in the directories of containers that stay, and of their names.

    Nothing depends on it: it takes room, and no more.

    Cost: a directory listing for each container, and a small file for each name.
    """
    for name in _list(layout.containers):
        directory = f"{layout.containers}/{name}"
        with contextlib.suppress(OSError, ReadOnlyStore):
            collect_temporary_files(directory)
            for each in _list(directory):
                if each.startswith(MOVED_PREFIX):
                    remove_tree(f"{directory}/{each}")
    if os.path.isdir(layout.container_names):
        with contextlib.suppress(ReadOnlyStore), file_lock.locked(f"{layout.locks}/container-names"):
            NameIndex(layout).sweep(thoroughly=True)


def recover(layout: Layout) -> Recovered:
    """Remove what dead engines of this store left, and say of whom it was. Safe in several processes at once.

    Cost: a few directory listings when there is nothing to do.
    """
    from containerlib.runtime.cgroup_host import CgroupHost  # noqa: PLC0415 - only here, once per engine
    from containerlib.runtime.cgroup_recovery import collect_orphans  # noqa: PLC0415

    engines = f"{layout.run_root}/engines"
    known = set(_list(engines))
    stuck = frozenset[str]()
    dead = {name for name in known if not name.startswith(".") and not is_alive(f"{engines}/{name}")}
    if dead:
        # Control groups of engines of other stores carry ids that are not ours to judge.
        orphans = collect_orphans(CgroupHost.probe(), lambda engine_id: engine_id not in dead)
        stuck = frozenset(orphans.left_engines)
    _collect_layers(layout)
    leases = LeaseStore(layout)
    FrozenLayers(layout).sweep(lambda path: is_owned(path, leases))
    NameIndex(layout).sweep()
    return _collect_engines(layout, stuck)
