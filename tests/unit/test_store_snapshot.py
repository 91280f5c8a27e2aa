from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from containerlib._util import file_lock
from containerlib.errors import SnapshotNotFound, StoreCorrupted
from containerlib.oci.digest import ChainId, Digest
from containerlib.store.boot import boot_id
from containerlib.store.lease import Holder
from containerlib.store.stores import Stores

if TYPE_CHECKING:
    from pathlib import Path

BASE = ChainId(Digest.of(b"base"))
TOP = ChainId(Digest.of(b"top"))


@pytest.fixture
def stores(tmp_path: Path) -> Stores:
    """Give empty stores."""
    return Stores.open(f"{tmp_path}/root", f"{tmp_path}/run", durable=False)


def make(stores: Stores, name: ChainId, parent: ChainId | None = None) -> str:
    """Commit a snapshot with one file; return its directory."""
    with stores.leases.acquire("test") as lease:
        active = stores.snapshots.prepare(lease)
        with open(f"{active.path}/file", "w", encoding="ascii") as file:
            file.write(active.key)
        return stores.snapshots.commit(active.key, name=name, parent=parent, size_bytes=5).path


def names(stores: Stores) -> list[str]:
    """Return what lies in the directory of snapshots."""
    return os.listdir(stores.layout.snapshots)


def test_nothing_is_made_by_opening(stores: Stores) -> None:
    """Opening a store, and looking into it, writes nothing."""
    assert list(stores.snapshots.list()) == []
    assert stores.references.list() == {}
    assert list(stores.content.list()) == []
    assert not os.path.exists(stores.layout.root)


def test_stack(stores: Stores) -> None:
    """The directories of a stack come top-most first, as overlay wants them."""
    base, top = make(stores, BASE), make(stores, TOP, BASE)
    assert stores.snapshots.lowers(TOP) == [top, base]
    assert stores.snapshots.lowers(BASE) == [base]
    assert set(stores.snapshots.list()) == {BASE, TOP}
    snapshot = stores.snapshots.get(TOP)
    assert (snapshot.parent, snapshot.size_bytes, snapshot.path) == (BASE, 5, top)
    assert os.path.isabs(top)


def test_modes(stores: Stores) -> None:
    """The layer's root is what containers see as ``/``; everything above it is closed to others."""
    path = make(stores, BASE)
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o755
    while path != os.path.dirname(stores.layout.root):
        path = os.path.dirname(path)
        if path.startswith(stores.layout.root):
            assert stat.S_IMODE(os.stat(path).st_mode) == 0o700


def test_first_commit_wins(stores: Stores) -> None:
    """A name that is committed already keeps its content, and the second attempt leaves nothing."""
    path = make(stores, BASE)
    with open(f"{path}/file", encoding="ascii") as file:
        first = file.read()
    assert make(stores, BASE) == path
    with open(f"{path}/file", encoding="ascii") as file:
        assert file.read() == first
    assert len(names(stores)) == 1


def test_unknown_snapshots(stores: Stores) -> None:
    """What is not committed is not found, as a snapshot or as a parent."""
    with pytest.raises(SnapshotNotFound):
        stores.snapshots.get(BASE)
    with pytest.raises(SnapshotNotFound):
        stores.snapshots.commit("unknown", name=BASE)
    with pytest.raises(SnapshotNotFound, match="parent"):
        make(stores, TOP, BASE)
    assert not stores.snapshots.remove(BASE)
    stores.snapshots.abort("unknown")


def test_remove(stores: Stores) -> None:
    """A removed snapshot is gone with its files."""
    make(stores, BASE)
    assert stores.snapshots.remove(BASE)
    assert names(stores) == []


@pytest.mark.parametrize("damage", [b"", b"[]", b"{}", b'{"parent":"x","size_bytes":1}'])
def test_damage_is_reported(stores: Stores, damage: bytes) -> None:
    """A damaged record is reported, not taken for an absent snapshot."""
    path = make(stores, BASE)
    with open(os.path.join(os.path.dirname(path), "snapshot.json"), "wb") as file:
        file.write(damage)
    with pytest.raises(StoreCorrupted):
        stores.snapshots.lowers(BASE)


def test_own_ancestor_is_reported(stores: Stores) -> None:
    """A stack that leads back to itself is reported instead of walked for ever."""
    path = make(stores, BASE)
    with open(os.path.join(os.path.dirname(path), "snapshot.json"), "wb") as file:
        file.write(b'{"parent":"%s","size_bytes":1}' % BASE.encode())
    with pytest.raises(StoreCorrupted, match="ancestor"):
        stores.snapshots.lowers(BASE)


def lasting(tmp_path: Path) -> Stores:
    """Give stores that have to survive a power loss."""
    return Stores.open(f"{tmp_path}/root", f"{tmp_path}/run")


def reboot(path: str) -> None:
    """Let a snapshot be one of an earlier boot."""
    record = os.path.join(os.path.dirname(path), "snapshot.json")
    with open(record, encoding="ascii") as file:
        text = file.read()
    with open(record, "w", encoding="ascii") as file:
        file.write(text.replace(boot_id(), "another boot"))


def test_what_was_not_synced_is_gone_after_a_reboot(tmp_path: Path) -> None:
    """A snapshot whose files may be lost is not found in a later boot, and can be made again."""
    stores = lasting(tmp_path)
    reboot(make(stores, BASE))
    assert not stores.snapshots.exists(BASE)
    with pytest.raises(SnapshotNotFound, match="power loss"):
        stores.snapshots.get(BASE)
    with pytest.raises(SnapshotNotFound, match="parent"):
        make(stores, TOP, BASE)
    make(stores, BASE)
    assert stores.snapshots.exists(BASE)
    assert stores.snapshots.empty_trash() == 1


def test_what_was_synced_stays(tmp_path: Path) -> None:
    """A snapshot that is marked after a sync is there in every later boot."""
    stores = lasting(tmp_path)
    path = make(stores, BASE)
    stores.snapshots.mark_durable([BASE])
    reboot(path)
    assert stores.snapshots.exists(BASE)
    assert stores.snapshots.lowers(BASE) == [path]


KILLED = """
import os, sys
from containerlib.store.stores import Stores
stores = Stores.open(sys.argv[1], sys.argv[2], durable=False)
with stores.leases.acquire("dies") as lease:
    active = stores.snapshots.prepare(lease)
    open(active.path + "/half", "w").close()
    print(lease.id, flush=True)
    sys.stdin.read()
"""


def test_killed_operation_is_collected(stores: Stores) -> None:
    """A lease ends with its process, and only then its active snapshot is collected."""
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, stores.layout.root, stores.layout.run_root],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        lease_id = process.stdout.readline().strip()
        assert stores.leases.is_alive(lease_id)
        assert stores.snapshots.collect_stale(stores.leases) == 0
        assert len(names(stores)) == 1
        process.send_signal(signal.SIGKILL)
    assert not stores.leases.is_alive(lease_id)
    assert stores.snapshots.collect_stale(stores.leases) == 1
    assert names(stores) == []


def test_leases_protect(stores: Stores) -> None:
    """What a lease protects is known while it lives, and its file goes with it."""
    with stores.leases.acquire("test") as lease:
        lease.protect([BASE, TOP])
        assert stores.leases.is_alive(lease.id)
        assert stores.leases.protected() == {BASE, TOP}
    assert stores.leases.protected() == set()
    assert not stores.leases.is_alive(lease.id)
    assert os.listdir(stores.layout.leases) == []


def test_dead_leases_are_removed(stores: Stores) -> None:
    """A lease file that nobody holds protects nothing and is removed."""
    with stores.leases.acquire("alive"):
        path = f"{stores.layout.leases}/0123456789abcdef"
        with open(path, "w", encoding="ascii") as file:
            file.write(f"{{}}\n{BASE}\n")
        assert stores.leases.protected() == set()
        assert not os.path.exists(path)
        assert len(os.listdir(stores.layout.leases)) == 1


def test_lease_names_its_holder(stores: Stores) -> None:
    """A lease file says which process holds it, so that a reused number is not mistaken for it."""
    with (
        stores.leases.acquire("purpose") as lease,
        open(f"{stores.layout.leases}/{lease.id}", encoding="ascii") as file,
    ):
        text = file.readline()
    holder = Holder.current()
    assert holder.pid == os.getpid()
    for part in ("purpose", str(holder.pid), str(holder.start_ticks), holder.boot_id):
        assert part in text


def test_protection_waits_for_a_collection(stores: Stores) -> None:
    """Protecting waits while content is being deleted, so that nothing found is deleted afterwards."""
    done = threading.Event()
    with stores.leases.acquire("test") as lease:

        def protect() -> None:
            lease.protect([BASE])
            done.set()

        with file_lock.locked(stores.layout.collection_lock):
            thread = threading.Thread(target=protect)
            thread.start()
            assert not done.wait(0.1)
            assert stores.leases.protected() == set()
        thread.join()
        assert stores.leases.protected() == {BASE}
