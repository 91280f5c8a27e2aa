"""Looking at everything in the store without knowing what it means: is each thing what its place says?

Changes nothing. What happens at the same time in other processes is not damage: what is being written is
locked, what is being used has a lease. What an image needs is the business of ``image.check``.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
from typing import TYPE_CHECKING

from containerlib._util import file_lock
from containerlib._util.atomic_file import TEMPORARY_PREFIX
from containerlib._util.remove_tree import MOVED_PREFIX
from containerlib.errors import InvalidDigest, SnapshotNotFound, StoreCorrupted
from containerlib.oci.digest import Digest
from containerlib.store.damage import Damage
from containerlib.store.reference import reference_key
from containerlib.store.snapshot import ACTIVE_PREFIX, TRASH_PREFIX

if TYPE_CHECKING:
    from collections.abc import Iterator

    from containerlib.oci.digest import ChainId
    from containerlib.store.stores import Stores

__all__ = [
    "check_blobs",
    "check_leases",
    "check_places",
    "check_references",
    "check_snapshots",
    "is_newer",
    "leftover",
]

_ALGORITHMS = frozenset({"sha256", "sha512"})
_PLACES = frozenset(
    {
        *("blobs", "container-names", "containers", "frozen-layers", "ingest", "leases", "locks"),
        *("networks", "quarantine", "references", "snapshots", "volumes"),
    }
)
_FOREIGN = frozenset({"lost+found"})
_REFERENCE = re.compile(r"[0-9a-f]{64}\.(json|lock)")
_ALL, _OTHERS, _OTHERS_WRITE = 0o700, 0o077, 0o022


def is_newer(error: StoreCorrupted) -> bool:
    """Say whether a document is not damaged, but of a later version of this library."""
    return "newer version" in str(error)


def check_places(stores: Stores) -> Iterator[Damage]:
    """Yield what is wrong with the directories of the store, and what has no business in it."""
    root = stores.layout.root
    yield from _permissions(root, _OTHERS_WRITE)
    for entry in _entries(root):
        if entry.name in _PLACES:
            yield from _permissions(entry.path, _OTHERS)
        elif entry.name not in _FOREIGN:
            yield _unknown(entry.path)
    for path in (stores.layout.blobs, stores.layout.snapshots):
        for entry in _entries(path):
            if entry.is_dir(follow_symlinks=False) and _is_own(entry.name):
                yield from _permissions(entry.path, _OTHERS)


def check_blobs(stores: Stores, *, deep: bool) -> Iterator[Damage]:
    """Yield what is wrong with blobs: the file only, or with `deep` also each byte."""
    for directory in _entries(stores.layout.blobs):
        if directory.name not in _ALGORITHMS:
            yield _unknown(directory.path)
            continue
        for entry in _entries(directory.path):
            if entry.name.startswith(TEMPORARY_PREFIX):
                yield from _temporary(entry.path)
                continue
            try:
                digest = Digest(f"{directory.name}:{entry.name}")
            except InvalidDigest:
                yield _unknown(entry.path)
                continue
            if not entry.is_file(follow_symlinks=False):
                yield Damage("blob-kind", entry.path, "not a file", "repair")
            elif deep and not stores.content.matches(digest) and os.path.lexists(entry.path):
                yield Damage("blob-content", entry.path, "content does not match its digest", "repair")


def check_references(stores: Stores) -> Iterator[Damage]:
    """Yield what is wrong with the files of references."""
    directory = stores.layout.references
    entries = _entries(directory)
    names = {entry.name for entry in entries}
    for entry in entries:
        if entry.name.startswith(TEMPORARY_PREFIX):
            yield from _temporary(entry.path)
        elif _REFERENCE.fullmatch(entry.name) is None:
            yield _unknown(entry.path)
        elif entry.name.endswith(".lock"):
            if entry.name.replace(".lock", ".json") not in names and _is_abandoned(entry.path):
                yield leftover(entry.path, "lock of a reference that is gone")
        else:
            yield from _reference(stores, entry.path)


def _reference(stores: Stores, path: str) -> Iterator[Damage]:
    key = os.path.basename(path).removesuffix(".json")
    try:
        name = stores.references.read(key)
    except StoreCorrupted as error:
        if is_newer(error):
            yield Damage("format", path, _reason(error), "look")
        else:
            yield Damage("reference", path, _reason(error), "repair")
    else:
        if name is not None and reference_key(name) != key:
            yield Damage("reference", path, f"the file of another name than {name[:80]!r}", "repair")


def check_snapshots(stores: Stores) -> Iterator[Damage]:
    """Yield what is wrong with snapshots, but for the files in them."""
    for entry in _entries(stores.layout.snapshots):
        if entry.name.startswith((TRASH_PREFIX, MOVED_PREFIX)):
            yield leftover(entry.path, "layer that is being removed")
        elif entry.name.startswith(ACTIVE_PREFIX):
            if not stores.leases.is_alive(entry.name.removeprefix(ACTIVE_PREFIX).partition("-")[0]):
                yield leftover(entry.path, "layer that a dead process was unpacking")
        elif not _is_own(entry.name):
            yield _unknown(entry.path)
    for name in stores.snapshots.list():
        yield from _snapshot(stores, name)


def _snapshot(stores: Stores, name: ChainId) -> Iterator[Damage]:
    path = stores.layout.snapshot(name)
    try:
        snapshot = stores.snapshots.get(name)
    except SnapshotNotFound:
        if os.path.lexists(f"{path}/snapshot.json"):
            yield Damage("snapshot-record", path, "did not survive a power loss", "repair")
        elif os.path.lexists(path):
            yield Damage("snapshot-record", path, "its record is missing", "repair")
        return
    except StoreCorrupted as error:
        kind, remedy = ("format", "look") if is_newer(error) else ("snapshot-record", "repair")
        yield Damage(kind, path, _reason(error), remedy)  # type: ignore[arg-type]  # pairs of literals
        return
    try:
        is_tree = stat.S_ISDIR(os.lstat(snapshot.path).st_mode)
    except FileNotFoundError:
        is_tree = False
    if not is_tree:
        yield Damage("snapshot-tree", snapshot.path, "its files are missing", "repair")
    if snapshot.parent is not None:
        yield from _parents(stores, name, path)


def _parents(stores: Stores, name: ChainId, path: str) -> Iterator[Damage]:
    seen: set[ChainId] = set()
    below: ChainId | None = name
    while below is not None and below not in seen:
        seen.add(below)
        try:
            below = stores.snapshots.get(below).parent
        except SnapshotNotFound:
            yield Damage("snapshot-parent", path, f"snapshot {below} below it is missing", "repair")
            return
        except (StoreCorrupted, OSError):
            return  # a finding of its own
    if below is not None:
        yield Damage("snapshot-parent", path, "is its own ancestor", "repair")


def check_leases(stores: Stores) -> Iterator[Damage]:
    """Yield leases whose holders are dead, and downloads that nobody goes on with."""
    for entry in _entries(stores.layout.ingests):
        if _is_abandoned(entry.path):
            yield leftover(entry.path, "download that nobody goes on with")
    for entry in _entries(stores.layout.leases):
        if _is_abandoned(entry.path):
            yield leftover(entry.path, "lease of a process that is dead")


def _permissions(path: str, forbidden: int) -> Iterator[Damage]:
    try:
        info = os.stat(path)
    except FileNotFoundError:
        return
    mode = stat.S_IMODE(info.st_mode)
    if not stat.S_ISDIR(info.st_mode):
        yield Damage("unknown", path, "not a directory", "look")
    elif mode & forbidden or mode & _ALL != _ALL:
        yield Damage("permissions", path, f"mode {mode:o}: others than the owner have access", "repair")
    elif info.st_uid != os.geteuid():
        yield Damage("permissions", path, f"belongs to user {info.st_uid}", "repair")


def _is_own(name: str) -> bool:
    """Whether a directory of blobs or of a snapshot has this name."""
    if name in _ALGORITHMS:
        return True
    algorithm, _, digits = name.partition("-")
    with contextlib.suppress(InvalidDigest):
        Digest(f"{algorithm}:{digits}")
        return True
    return False


def _temporary(path: str) -> Iterator[Damage]:
    if _is_abandoned(path):
        yield leftover(path, "file that a dead process was writing")


def _is_abandoned(path: str) -> bool:
    """Whether nobody holds the lock of a file that its user would hold."""
    try:
        fd = file_lock.acquire(path, blocking=False, create=False)
    except OSError:
        return False
    if fd is None:
        return False
    os.close(fd)
    return True


def leftover(path: str, reason: str) -> Damage:
    """Return the finding for something that does no harm."""
    return Damage("leftover", path, reason, "collect")


def _unknown(path: str) -> Damage:
    return Damage("unknown", path, "not a part of the store", "look")


def _reason(error: StoreCorrupted) -> str:
    return str(error).removeprefix(f"{error.path}: ")


def _entries(directory: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(directory) as listing:
            return sorted(listing, key=lambda entry: entry.name)
    except (FileNotFoundError, NotADirectoryError):
        return []
