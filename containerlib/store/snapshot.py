"""Snapshots: the unpacked layers, each the upper directory of one layer, stacked by their parents.

An *active* snapshot, called by its `key`, is a directory being filled. `commit` gives it a `name`, its chain
id, by one rename; from then on it never changes and may be a `parent`. Nothing is mounted here: `lowers`
returns directories, and whoever starts a container stacks them. A crash leaves active directories only, which
`collect_stale` removes once their lease is dead.

Files are not synced one by one. A snapshot belongs to the boot in which it was made until `mark_durable` says
that its file system was synced; in a later boot, one that was not is none.
"""

from __future__ import annotations

import fcntl
import os
import struct
from typing import TYPE_CHECKING

import attrs

from containerlib._util import file_lock, strict_json
from containerlib._util.atomic_file import make_directory, move, rename_directory, write_atomic
from containerlib._util.remove_tree import MOVED_PREFIX, remove_tree
from containerlib.errors import InvalidDigest, InvalidInputError, SnapshotNotFound, StoreCorrupted
from containerlib.oci.digest import ChainId, Digest
from containerlib.store.boot import boot_id
from containerlib.store.record import check_format

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from contextlib import AbstractContextManager

    from containerlib.store.layout import Layout
    from containerlib.store.lease import Lease, LeaseStore

__all__ = ["ACTIVE_PREFIX", "TRASH_PREFIX", "ActiveSnapshot", "Snapshot", "SnapshotStore"]

_TREE = "fs"
_RECORD = "snapshot.json"
_DURABLE = "durable"
_RECORD_LIMIT = 64 << 10
TRASH_PREFIX = ".trash-"
ACTIVE_PREFIX = "active-"

# linux/fs.h; the numbers are the same on x86-64 and arm64.
_FS_IOC_GETFLAGS = 0x80086601
_FS_IOC_SETFLAGS = 0x40086602
_EXT4_TOPDIR_FL = 0x00020000


@attrs.frozen
class ActiveSnapshot:
    """A layer being unpacked.

    Attributes:
        key: Its name among the active ones. Not a path.
        path: The directory to fill; mode 0755, empty.
    """

    key: str
    path: str


@attrs.frozen
class Snapshot:
    """A committed layer.

    Attributes:
        name: Chain id of the stack that ends with this layer.
        parent: Chain id of the stack below, or None.
        size_bytes: Size of this layer's files alone.
        path: The layer's directory, read-only by convention.
    """

    name: ChainId
    parent: ChainId | None
    size_bytes: int
    path: str


@attrs.frozen
class SnapshotStore:
    """All snapshots of one store, safe for any number of processes and threads.

    Attributes:
        layout: Where they lie.
        durable: Whether snapshots have to be synced to be good in a later boot.
    """

    layout: Layout
    durable: bool = True

    def prepare(self, lease: Lease) -> ActiveSnapshot:
        """Make an empty active snapshot that lives as long as `lease` unless it is committed."""
        key = f"{lease.id}-{os.urandom(4).hex()}"
        directory = self.layout.active_snapshot(key)
        if not os.path.isdir(self.layout.snapshots):
            make_directory(self.layout.snapshots)
            _spread_subdirectories(self.layout.snapshots)
        path = f"{directory}/{_TREE}"
        try:
            make_directory(directory)
            make_directory(path, 0o755)
        except BaseException:
            self._discard(directory)
            raise
        return ActiveSnapshot(key, path)

    def commit(
        self, key: str, *, name: ChainId, parent: ChainId | None = None, size_bytes: int = 0
    ) -> Snapshot:
        """Turn the active snapshot `key` into a committed one called `name`.

        After this the active snapshot is gone and `name` may be a parent. Committing a name that exists is
        not an error: the existing snapshot is returned and `key` is removed.

        Args:
            key: Active snapshot, from `prepare`. Not a path.
            name: Chain id of the stack including this layer.
            parent: Chain id of the stack without this layer; None for the lowest layer.
            size_bytes: Size of the files of this layer alone.

        Raises:
            SnapshotNotFound: `key` is not an active snapshot, or `parent` is not committed.

        Cost: one rename, independent of the size of the layer.
        """
        directory = self.layout.active_snapshot(key)
        if not os.path.isdir(f"{directory}/{_TREE}"):
            raise SnapshotNotFound(f"no active snapshot {key!r}")
        if parent is not None and not self.exists(parent):
            raise SnapshotNotFound(f"no snapshot {parent} to be the parent of {name}")
        boot = boot_id() if self.durable else None
        record = {"name": name, "parent": parent, "size_bytes": size_bytes, "boot_id": boot}
        write_atomic(f"{directory}/{_RECORD}", strict_json.dumps(record), durable=False)
        if not self.exists(name):
            self.hide(name)  # one that did not survive the last boot is in the way
        if not rename_directory(directory, self.layout.snapshot(name), durable=False):
            self._discard(directory)
        return self.get(name)

    def mark_durable(self, names: Iterable[ChainId]) -> None:
        """Note that the file system was synced after the snapshots `names` were committed."""
        for name in names if self.durable else ():
            path = f"{self.layout.snapshot(name)}/{_DURABLE}"
            if not os.path.exists(path):
                write_atomic(path, b"", durable=False)

    def abort(self, key: str) -> None:
        """Remove the active snapshot `key` with its content; one that does not exist is not an error."""
        self._discard(self.layout.active_snapshot(key))

    def exists(self, name: ChainId) -> bool:
        """Say whether `name` is committed."""
        directory = self.layout.snapshot(name)
        if not os.path.exists(f"{directory}/{_RECORD}"):
            return False
        if os.path.exists(f"{directory}/{_DURABLE}"):
            return True
        try:
            self.get(name)
        except (SnapshotNotFound, StoreCorrupted):
            return False
        return True

    def get(self, name: ChainId) -> Snapshot:
        """Return the committed snapshot `name`.

        Raises:
            SnapshotNotFound: There is none.
            StoreCorrupted: Its record is damaged.
        """
        directory = self.layout.snapshot(name)
        path = f"{directory}/{_RECORD}"
        try:
            with open(path, "rb", buffering=0) as file:
                record = strict_json.loads_object(file.read(), limit=_RECORD_LIMIT)
            check_format(record, path)
            parent, size_bytes = record["parent"], record["size_bytes"]
            if record.get("boot_id") not in {None, boot_id()} and not os.path.exists(
                f"{directory}/{_DURABLE}"
            ):
                raise SnapshotNotFound(f"snapshot {name} did not survive a power loss; pull its image again")
            return Snapshot(
                name,
                None if parent is None else ChainId(Digest(parent)),
                size_bytes if isinstance(size_bytes, int) else 0,
                f"{directory}/{_TREE}",
            )
        except FileNotFoundError:
            raise SnapshotNotFound(f"no snapshot {name}") from None
        except (NotADirectoryError, IsADirectoryError):
            raise StoreCorrupted(path, "not a file in a directory") from None
        except (KeyError, TypeError, InvalidInputError) as error:
            raise StoreCorrupted(path, f"damaged record: {error}") from None

    def stack(self, name: ChainId) -> list[Snapshot]:
        """Return snapshot `name` and everything below it, top-most first."""
        result: list[Snapshot] = []
        seen: set[ChainId] = set()
        below: ChainId | None = name
        while below is not None:
            if below in seen:
                raise StoreCorrupted(self.layout.snapshot(below), "snapshot is its own ancestor")
            seen.add(below)
            result.append(self.get(below))
            below = result[-1].parent
        return result

    def lowers(self, name: ChainId) -> list[str]:
        """Return the directories to stack for `name`, absolute, top-most first, as overlay wants them."""
        return [snapshot.path for snapshot in self.stack(name)]

    def remove(self, name: ChainId) -> bool:
        """Remove the committed snapshot `name`; return whether it was there.

        The caller knows that nothing uses it, as a parent or otherwise. It disappears at once, by a
        rename; its files are deleted afterwards.
        """
        return self._discard(self.layout.snapshot(name))

    def hide(self, name: ChainId) -> bool:
        """Do the first half of `remove`, at the cost of one rename; `empty_trash` does the other."""
        return self._hide(self.layout.snapshot(name)) is not None

    def hide_directory(self, directory: str) -> None:
        """Do what `hide` does for what lies where a snapshot should, whatever it is."""
        self._hide(directory)

    def empty_trash(self) -> int:
        """Delete the files of snapshots that were hidden, by whomever; return how many there were."""
        count = 0
        for entry in _names(self.layout.snapshots):
            if entry.startswith((TRASH_PREFIX, MOVED_PREFIX)):
                remove_tree(f"{self.layout.snapshots}/{entry}")
                count += 1
        return count

    def list(self) -> Iterator[ChainId]:
        """Yield the names of the committed snapshots."""
        for entry in _names(self.layout.snapshots):
            algorithm, dash, digits = entry.partition("-")
            if dash and algorithm in {"sha256", "sha512"}:
                try:
                    yield ChainId(Digest(f"{algorithm}:{digits}"))
                except InvalidDigest:
                    continue

    def lock(self, name: ChainId) -> AbstractContextManager[None]:
        """Return a lock under which to make snapshot `name`, so that several makers do the work once."""
        return file_lock.locked(f"{self.layout.locks}/snapshot-{name.hex}")

    def collect_stale(self, leases: LeaseStore) -> int:
        """Remove what dead operations left behind; return how many directories that were."""
        count = self.empty_trash()
        for entry in _names(self.layout.snapshots):
            if entry.startswith(ACTIVE_PREFIX):
                lease_id = entry.removeprefix(ACTIVE_PREFIX).partition("-")[0]
                if not leases.is_alive(lease_id):
                    count += self._discard(f"{self.layout.snapshots}/{entry}")
        return count

    def _discard(self, directory: str) -> bool:
        trash = self._hide(directory)
        if trash is None:
            return False
        remove_tree(trash)
        return True

    def _hide(self, directory: str) -> str | None:
        trash = f"{self.layout.snapshots}/{TRASH_PREFIX}{os.urandom(8).hex()}"
        return trash if move(directory, trash) else None


def _spread_subdirectories(path: str) -> None:
    """Ask ext4 to put each new subdirectory of `path` into a block group of its own.

    Without it every snapshot lands near its parent, where groups full of small files make each create up to
    twenty times slower. Other file systems have no such flag and no such trouble.
    """
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        flags = fcntl.ioctl(fd, _FS_IOC_GETFLAGS, bytes(8))
        (value,) = struct.unpack_from("I", flags)
        fcntl.ioctl(fd, _FS_IOC_SETFLAGS, struct.pack("Q", value | _EXT4_TOPDIR_FL))
    except OSError:
        return
    finally:
        os.close(fd)


def _names(directory: str) -> list[str]:
    try:
        return os.listdir(directory)
    except FileNotFoundError:
        return []
