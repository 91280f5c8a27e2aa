"""What one engine holds while it is open: its stores, its runner, its containers, its mark on the disk.

The mark is a directory below the run root with a locked file in it. Whoever opens the store later sees from
the lock whether the engine lives, and collects what a dead one left.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import threading
from typing import TYPE_CHECKING

from containerlib._util import file_lock, strict_json
from containerlib._util.atomic_file import append, make_directory, move
from containerlib._util.remove_tree import remove_tree
from containerlib.container.detached import list_detached, record_path
from containerlib.container.detached_entry import find_detached
from containerlib.container.frozen import FrozenLayers
from containerlib.container.holds import Holds
from containerlib.container.name_index import NameIndex
from containerlib.container.recovery import Recovered, is_owned, recover
from containerlib.container.state import ContainerState
from containerlib.errors import ContainerNotFound, EngineClosed, NameInUse, ReadOnlyStore, StoreCorrupted
from containerlib.runtime.config import is_name
from containerlib.runtime.runner import RootKind, Runner
from containerlib.store.lease import Holder
from containerlib.store.stores import Stores

if TYPE_CHECKING:
    from containerlib.container.entry import ContainerEntry
    from containerlib.container.snapshot import SnapshotEntry
    from containerlib.runtime.cgroup_manager import ManagerKind
    from containerlib.runtime.config import ContainerConfig
    from containerlib.store.lease import Lease

__all__ = ["Session"]

_MIN_PREFIX = 4
_ID_DIGITS = 64


class Session:
    """An open engine. Nothing is made on disk and no process is started before the first container."""

    def __init__(
        self,
        root: str,
        run_root: str,
        *,
        root_kind: RootKind,
        start_timeout_s: float,
        image_devices: bool = False,
        cgroup_manager: ManagerKind = "auto",
    ) -> None:
        """Prepare.

        Args:
            root: Directory of lasting state.
            run_root: Directory of state that a reboot may take.
            root_kind: How root file systems are made, see `Runner`.
            start_timeout_s: See `Runner`.
            image_devices: Whether images may hold device nodes.
            cgroup_manager: See `Runner`.
        """
        self.stores = Stores.open(root, run_root, image_devices=image_devices)
        self._root_kind = root_kind
        self._start_timeout_s = start_timeout_s
        self._cgroup_manager: ManagerKind = cgroup_manager
        self.names = NameIndex(self.stores.layout)
        self.frozen = FrozenLayers(self.stores.layout)
        self._lock = threading.RLock()
        self._closed = False
        self._reset()

    def _reset(self) -> None:
        self.pid = os.getpid()
        self.engine_id = os.urandom(8).hex()
        self.directory = f"{self.stores.layout.run_root}/engines/{self.engine_id}"
        self.runner = Runner(
            self.engine_id,
            self.directory,
            root_kind=self._root_kind,
            start_timeout_s=self._start_timeout_s,
            cgroup_manager=self._cgroup_manager,
        )
        self._entries: dict[str, ContainerEntry] = {}
        self._recovered = Recovered()
        self._mark_fd = -1
        self._undo = contextlib.ExitStack()
        self.snapshots: set[SnapshotEntry] = set()
        self._lease: Lease | None = None
        self.holds = Holds(self.stores, lambda image_id: bool(self.containers_of(image_id)))

    @property
    def is_open(self) -> bool:
        """Whether `close` has not been called."""
        return not self._closed

    def enter(self) -> Runner:
        """Make sure that the engine has its mark, and give its runner.

        In a forked child this starts afresh: the parent's containers stay the parent's.

        Raises:
            EngineClosed: The engine was closed.
        """
        with self._lock:
            if self._closed:
                raise EngineClosed("this engine is closed; open a new one")
            if self.pid != os.getpid():
                self._forget()
                self._reset()
            if self._mark_fd < 0:
                self._mark()
            return self.runner

    def _forget(self) -> None:
        """In a forked child: drop the parent's objects without a trace outside this process."""
        for entry in self._entries.values():
            if entry.process is not None:
                entry.process.abandon()
        if self._mark_fd >= 0:
            os.close(self._mark_fd)
        self._undo.pop_all()

    def _mark(self) -> None:
        self._recovered += recover(self.stores.layout)
        engines = os.path.dirname(self.directory)
        make_directory(engines)
        # Renamed only when it is locked, so that nobody ever sees a mark that looks dead.
        fresh = f"{engines}/.new-{self.engine_id}"
        make_directory(fresh)
        fd = file_lock.acquire(f"{fresh}/alive", blocking=False)
        if fd is None:
            raise EngineClosed(f"the mark of engine {self.engine_id} is held by somebody else")
        try:
            self._write_mark(fd, fresh)
        except BaseException:
            # So that the next call can try again.
            os.close(fd)
            with contextlib.suppress(OSError):
                remove_tree(fresh)
            raise
        self._mark_fd = fd
        atexit.register(self.close)
        with contextlib.suppress(ReadOnlyStore):
            _ = self.lease

    def _write_mark(self, fd: int, fresh: str) -> None:
        """Say in a locked mark who holds it, and put it where others look."""
        holder = Holder.current()
        mark = {
            "pid": holder.pid,
            "start_ticks": holder.start_ticks,
            "boot_id": holder.boot_id,
            "pid_namespace": os.stat("/proc/self/ns/pid").st_ino,
        }
        append(fd, strict_json.dumps(mark), f"{fresh}/alive")
        for name in ("staging", "containers", "copies"):
            make_directory(f"{fresh}/{name}")
        move(fresh, self.directory)

    def take_recovered(self) -> Recovered:
        """What was cleaned up when this engine made its mark; the second time nothing."""
        with self._lock:
            found, self._recovered = self._recovered, Recovered()
            return found

    def add(self, entry: ContainerEntry) -> None:
        """Enter a new container.

        Raises:
            NameInUse: Another container of this engine has the name.
        """
        with self._lock:
            if self.is_taken(entry.name):
                raise NameInUse(
                    f"container name {entry.name!r} is in use; remove that container or choose another"
                )
            self._entries[entry.id] = entry

    def is_taken(self, name: str, *, besides: ContainerEntry | None = None) -> bool:
        """Whether a container has a name, another one than `besides`."""
        with self._lock:
            entries = [each for each in self._entries.values() if not each.is_detached]
        if any(each.name == name and each is not besides for each in entries):
            return True
        holder = self.names.holder(name)
        return holder is not None and (besides is None or holder != besides.id)

    @property
    def lease(self) -> Lease:
        """This engine's lease on the store; whoever shares the store sees by it that the engine lives."""
        with self._lock:
            if self._lease is None:
                self._lease = self._undo.enter_context(self.stores.leases.acquire("engine"))
            return self._lease

    def containers_of(self, image_id: str) -> list[str]:
        """Names of the containers that are made of this image."""
        return [entry.name for entry in self.entries() if entry.image_id == image_id]

    def drop(self, entry: ContainerEntry) -> None:
        """Take a removed container out."""
        with self._lock:
            self._entries.pop(entry.id, None)

    def sweep_frozen(self) -> None:
        """Remove the frozen layers that nothing stands on any more."""
        self.frozen.sweep(lambda path: is_owned(path, self.stores.leases))

    def entries(self) -> list[ContainerEntry]:
        """All containers of this engine, and the store's detached ones, oldest first."""
        with self._lock:
            known = [entry for entry in self._entries.values() if entry.is_detached]
            for container_id in list_detached(self.stores.layout):
                # One whose record cannot be read is no reason to hide all others; `check` tells of it.
                with contextlib.suppress(StoreCorrupted):
                    if container_id not in self._entries:
                        self._adopt(container_id)
            for entry in known:
                entry.refresh()
            return sorted(self._entries.values(), key=lambda entry: entry.created_at)

    def _adopt(self, container_id: str) -> None:
        """Enter a detached container that another process has made."""
        entry = find_detached(self, container_id)
        if entry is not None and entry.state != ContainerState.REMOVED:
            self._entries[container_id] = entry

    def naming(self, config: ContainerConfig) -> contextlib.AbstractContextManager[None]:
        """For a detached container: nobody else may take a name meanwhile."""
        if config.lifetime != "detached":
            return contextlib.nullcontext()
        return file_lock.locked(f"{self.stores.layout.locks}/container-names")

    def find(self, key: str) -> ContainerEntry:
        """The container with this id, name, or unambiguous beginning of an id (4 digits or more).

        Raises:
            ContainerNotFound: None, or several.
        """
        with self._lock:
            candidates = self._ids_of(key)
            found = [entry for entry in map(self._known, candidates) if entry is not None]
        if len(found) == 1:
            return found[0]
        what = "is the beginning of several ids" if found else "does not exist in this engine"
        raise ContainerNotFound(f"container {key!r} {what}")

    def _ids_of(self, key: str) -> list[str]:
        """Ids that may be meant, without looking at any container that cannot be."""
        layout = self.stores.layout
        is_id = len(key) == _ID_DIGITS and is_name(key)
        if key in self._entries or (is_id and os.path.exists(record_path(layout, key))):
            return [key]
        named = [each.id for each in self._entries.values() if not each.is_detached and each.name == key]
        holder = None if named or not is_name(key) else self.names.holder(key)
        if named or holder is not None:
            return named or [str(holder)]
        if len(key) < _MIN_PREFIX:
            return []
        ids = {*self._entries, *list_detached(layout)}
        return [container_id for container_id in ids if container_id.startswith(key)]

    def _known(self, container_id: str) -> ContainerEntry | None:
        """The container with this id, as it is now; None if it is gone."""
        if container_id not in self._entries:
            self._adopt(container_id)
        entry = self._entries.get(container_id)
        if entry is not None and entry.is_detached and entry.refresh() == ContainerState.REMOVED:
            return None
        return entry

    def close(self) -> None:
        """Kill and remove every container, and give up the mark. Calling it again does nothing."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            atexit.unregister(self.close)
            if self.pid != os.getpid():
                self._forget()
                return
            entries = list(self._entries.values())
        self.runner.stop()
        for entry in entries:
            with contextlib.suppress(OSError):
                entry.settle_and_remove()
        for each in list(self.snapshots):
            each.remove()
        is_clean = self.runner.close()
        self._undo.close()
        self.holds.close()
        if self._mark_fd >= 0:
            if is_clean:  # else the next engine finds a mark that nobody holds, and goes on
                remove_tree(self.directory)
            os.close(self._mark_fd)
            self._mark_fd = -1
