"""A disk that is full at any write, out of inodes, read-only or broken: typed errors, and nothing is left."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import pytest
from support.archives import archive, file
from support.capabilities import need
from support.docker_registry import docker_registry
from support.failpoints import failing_at, record_steps
from support.session import temporary_directory, tracked_root
from support.stock import load_two_layers, two_layers

import containerlib as cl
from containerlib._native import path
from containerlib._util import failpoint

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from containerlib import Engine

pytestmark = [pytest.mark.root]

PAGE = 4096
ROOMY = "size=64m,nr_inodes=10000"
OLD, NEW = "docker.io/library/old:1", "docker.io/library/new:1"


@attrs.frozen
class Disk:
    """A store on a file system of its own, whose size can be changed."""

    mount: Path
    engine: Engine

    def resize(self, options: str) -> None:
        """Change size, number of inodes, or whether it can be written."""
        command = ["mount", "-o", f"remount,{options}", str(self.mount)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    def room(self, pages: int) -> None:
        """Leave so many pages."""
        info = os.statvfs(self.mount)
        self.resize(f"size={(info.f_blocks - info.f_bfree + pages) * PAGE}")

    def inodes(self, number: int) -> None:
        """Leave so many inodes."""
        info = os.statvfs(self.mount)
        self.resize(f"nr_inodes={info.f_files - info.f_ffree + number}")

    def files(self) -> set[str]:
        """Return everything on it but locks, which come and go."""
        return {
            str(found.relative_to(self.mount))
            for found in self.mount.rglob("*")
            if found.parent.name != "locks"
            and found.suffix != ".lock"
            and found.name not in {"locks", "leases"}
        }


@pytest.fixture(autouse=True)
def _no_sync(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spare the other disks of this host: nothing here depends on what survives a power loss."""
    monkeypatch.setattr(path, "sync_filesystem", lambda _: None)


@pytest.fixture
def disk() -> Iterator[Disk]:
    """Return a store with an image on a disk of its own."""
    with temporary_directory("k") as base, tracked_root(base / "n"):
        mount = base / "m"
        mount.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", ROOMY, "tmpfs", mount], check=True)
        try:
            with cl.Engine(mount / "r", base / "n") as engine:
                load_two_layers(engine, OLD, b"one")
                yield Disk(mount, engine)
        finally:
            subprocess.run(["umount", mount], check=True)


def from_tar(engine: Engine) -> object:
    """Make an image of an archive."""
    data = io.BytesIO(archive(file(b"a", os.urandom(20000)), *(file(b"f%d" % n) for n in range(5))))
    return engine.images.from_tar(data, reference=NEW)


def load(engine: Engine) -> object:
    """Load an image, which shares a layer."""
    from containerlib.image import archive_load  # noqa: PLC0415

    return archive_load.load(engine._session.stores, two_layers(NEW, os.urandom(20000)))


def tag(engine: Engine) -> object:
    """Give the image one more name."""
    return engine.images.tag(OLD, NEW)


def untag(engine: Engine) -> object:
    """Remove what the operations have made, if they have."""
    with contextlib.suppress(cl.ImageNotFound):
        engine.images.remove(NEW)
    return engine.images.prune()


OPERATIONS = [from_tar, load, tag]


def sweep(disk: Disk, run: Callable[[Engine], object], shrink: Callable[[int], None]) -> int:
    """Run an operation with more and more room until it succeeds; return how often it failed."""
    before = disk.files()
    for room in range(400):
        shrink(room)
        try:
            run(disk.engine)
        except cl.StoreFull as error:
            seen = error
        else:
            seen = None
        if seen is not None:
            assert isinstance(seen, OSError)
            assert seen.errno == errno.ENOSPC
            assert str(disk.mount) in str(seen)
            assert disk.files() == before, room
            assert disk.engine.check() == (), room
            assert disk.engine.images.get(OLD).references == (OLD,)
        else:
            disk.resize(ROOMY)
            assert disk.engine.images.get(NEW).references
            assert disk.engine.check(deep=True) == ()
            return room
        disk.resize(ROOMY)
    raise AssertionError("it never succeeds")


@pytest.mark.parametrize("run", OPERATIONS)
def test_full_at_any_write(disk: Disk, run: Callable[[Engine], object]) -> None:
    """However little room there is, the operation fails cleanly, and succeeds as soon as there is enough."""
    assert sweep(disk, run, disk.room) >= 1
    untag(disk.engine)
    disk.room(0)
    with pytest.raises(cl.StoreFull):
        run(disk.engine)
    disk.resize(ROOMY)
    run(disk.engine)
    assert disk.engine.check(deep=True) == ()


@pytest.mark.parametrize("run", OPERATIONS)
def test_out_of_inodes_at_any_file(disk: Disk, run: Callable[[Engine], object]) -> None:
    """The same where it is not room that is missing but inodes."""
    untag(disk.engine)
    assert sweep(disk, run, disk.inodes) >= 1


def test_a_full_disk_while_pulling(disk: Disk, request: pytest.FixtureRequest) -> None:
    """A pull fails cleanly at any write, and succeeds as soon as there is enough room."""
    need(request.config, "peers", ("docker-registry",))
    with temporary_directory("g") as place, docker_registry(place) as registry:
        name = f"{registry.host}/box:1"
        with cl.Engine(place / "r", place / "n") as source:
            load_two_layers(source, name, os.urandom(20000)).push(name)
        before = disk.files()
        for room in range(0, 400, 2):
            disk.room(room)
            try:
                disk.engine.images.pull(name)
            except cl.StoreFull:
                disk.resize(ROOMY)
                left = {name for name in disk.files() - before if not name.startswith("r/ingest")}
                assert left == set(), room
                assert [found for found in disk.engine.check() if not found.is_leftover] == [], room
            else:
                break
        disk.resize(ROOMY)
        assert room > 0
        assert disk.engine.images.pull(name).references == (name,)
        assert disk.engine.check(deep=True) == ()


def test_removing_needs_no_room(disk: Disk) -> None:
    """Images can be removed and pruned on a disk without a free byte and without a free inode."""
    from_tar(disk.engine)
    load_two_layers(disk.engine, "third:1", b"three")
    (disk.mount / "ballast").write_bytes(bytes(PAGE))
    for use_up in (disk.room, disk.inodes):
        use_up(0)
        free = os.statvfs(disk.mount)
        assert free.f_bfree == 0 or free.f_ffree == 0
        disk.engine.images.remove(NEW if use_up == disk.room else "third:1")
        disk.engine.images.prune()
        disk.resize(ROOMY)
    disk.room(0)
    assert disk.engine.prune(all=True).images.untagged == (OLD,)
    disk.resize(ROOMY)
    assert disk.engine.check() == ()
    assert disk.engine.images.list() == []


def test_repairing_on_a_full_disk(disk: Disk) -> None:
    """A repair that has no room says so, and goes on where it stopped when there is some."""
    lowest = Path(disk.engine.images.get(OLD).record.lowers[-1]).parent
    (lowest / "snapshot.json").unlink()
    disk.room(0)
    with pytest.raises(cl.StoreFull):
        disk.engine.repair()
    disk.resize(ROOMY)
    assert disk.engine.repair().left == ()
    assert disk.engine.check(deep=True) == ()


CHANGING: dict[str, Callable[[Engine], object]] = {
    "from_tar": from_tar,
    "load": load,
    "tag": tag,
    "remove": lambda engine: engine.images.remove(OLD),
    "prune": lambda engine: engine.images.prune(all=True),
    "prune all": lambda engine: engine.prune(all=True),
    "deep check": lambda engine: engine.check(deep=True),
    "create": lambda engine: engine.containers.create(engine.images.get(OLD), ["x"], layer="disk"),
}


@pytest.mark.parametrize("name", CHANGING)
def test_changing_a_read_only_store(disk: Disk, name: str) -> None:
    """What would change a store on a read-only file system is refused by an error that says so."""
    before = disk.files()
    disk.resize("ro")
    with pytest.raises(cl.ReadOnlyStore, match="read-only") as caught:
        CHANGING[name](disk.engine)
    assert caught.value.errno == errno.EROFS
    assert isinstance(caught.value, OSError)
    disk.resize("rw")
    assert disk.files() == before
    assert disk.engine.check(deep=True) == ()


def test_reading_a_read_only_store(disk: Disk) -> None:
    """What only reads works, and damage is found that cannot be mended."""
    lowest = Path(disk.engine.images.get(OLD).record.lowers[-1]).parent
    disk.resize("ro")
    engine = cl.Engine(disk.engine.root, disk.engine.run_root)
    image = engine.images.get(OLD)
    assert engine.images.list() == [image]
    assert engine.images.get(image.id[:20]) == image
    assert engine.check() == ()
    assert engine.disk_usage().images.images[0].references == (OLD,)
    assert engine.repair() == cl.RepairReport()
    out = io.BytesIO()
    assert image.export(out).size_bytes == len(out.getvalue()) > 0
    assert image.changes(image) == []
    assert len(image.history()) == len(image.inspect().diff_ids) == len(image.layers)
    disk.resize("rw")
    (lowest / "snapshot.json").unlink()
    disk.resize("ro")
    assert "snapshot-record" in {found.kind for found in engine.check()}
    with pytest.raises(cl.ReadOnlyStore):
        engine.repair()
    disk.resize("rw")


@pytest.mark.cgroup
def test_running_from_a_read_only_store(disk: Disk) -> None:
    """Containers whose layers are in memory run, since nothing can take the image away."""
    disk.engine.images.from_host(["sh", "cat"], reference="shell:1")
    disk.resize("ro")
    with cl.Engine(disk.engine.root, disk.engine.run_root) as engine:
        with engine.images.hold("shell:1") as image:
            assert image.call(["/bin/sh", "-c", "echo x"], layer="memory").stdout == b"x\n"
        engine.close()
    disk.resize("rw")


BREAKABLE = ("append", "create", "lock", "make directory", "move", "rename", "sync", "unpack")


@pytest.mark.parametrize("run", OPERATIONS)
@pytest.mark.parametrize("number", [errno.EIO, errno.EDQUOT])
def test_errors_at_each_step(disk: Disk, run: Callable[[Engine], object], number: int) -> None:
    """An error of the disk at any step is raised, and what was stays whole; then it works again."""
    steps = record_steps(lambda: run(disk.engine), str(disk.mount / "r"))
    untag(disk.engine)
    raised = set()
    for step in dict.fromkeys(steps):
        if not step.name.startswith(BREAKABLE):
            continue
        failpoint.set_hook(failing_at(step, str(disk.mount / "r"), number))
        try:
            run(disk.engine)
        except OSError as error:
            errors = [error]
        else:
            errors = []
        finally:
            failpoint.set_hook(None)
        for error in errors:
            assert error.errno == number, step
            assert isinstance(error, cl.StoreFull) is (number == errno.EDQUOT), step
            raised.add(step.name)
        assert [found for found in disk.engine.check() if not found.is_leftover] == [], step
        untag(disk.engine)
        assert disk.engine.check() == (), step
    assert raised >= {"rename references", "lock locks/collection"}
    run(disk.engine)
    assert disk.engine.check(deep=True) == ()


SCRIPT = """
import io, sys
import containerlib as cl
cl.Engine(*sys.argv[1:3]).images.from_tar(sys.argv[3], reference="new:1")
"""


@pytest.mark.parametrize(
    ("call", "first"),
    [("fsync", 1), ("syncfs", 1), ("rename", 1), ("rename", 3), ("write", 1)],
)
def test_the_kernel_says_that_the_disk_is_broken(
    disk: Disk, call: str, first: int, request: pytest.FixtureRequest
) -> None:
    """A process whose system calls fail with EIO ends with that error, and leaves nothing that is half."""
    need(request.config, "peers", ("strace",))
    source = disk.mount.parent / "image.tar"
    source.write_bytes(archive(file(b"a", b"x" * 100000)))
    command = [
        *("strace", "-f", "-q", "--seccomp-bpf", "-o", "/dev/null"),
        *("-e", f"trace={call}", "-e", f"inject={call}:error=EIO:when={first}+"),
        *(sys.executable, "-c", SCRIPT, disk.engine.root, disk.engine.run_root, str(source)),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if call == "write":  # then it cannot say what is wrong either, for which Python has a status of its own
        assert done.returncode in {1, 120}
    else:
        assert done.returncode == 1, done.stderr
        assert "Input/output error" in done.stderr
    assert [found for found in disk.engine.check() if not found.is_leftover] == []
    disk.engine.images.prune()
    assert disk.engine.check(deep=True) == ()
    assert disk.engine.images.get(OLD).references == (OLD,)
