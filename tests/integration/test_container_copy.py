"""Files between a container and its host, whatever the container does meanwhile."""

from __future__ import annotations

import hashlib
import io
import os
import stat
import tarfile
import threading
from typing import TYPE_CHECKING

import pytest
from support import enosys
from support.engine import BUSYBOX, busybox_tree

import containerlib as cl

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from containerlib import Container, Engine, Image

pytestmark = [pytest.mark.root, pytest.mark.cgroup]

STATES = pytest.mark.parametrize(
    "state", ["created", pytest.param("running", marks=pytest.mark.enosys), "paused", "exited"]
)
# Every step that names a path, so that each rule is tested of each.
STEPS: dict[str, Callable[[Container, str, Path], object]] = {
    "put": lambda container, path, tmp: container.put(str(tmp / "file"), path),
    "put bytes": lambda container, path, _: container.put(b"new", path),
    "put archive": lambda container, path, _: container.put_archive(io.BytesIO(tar_of({"f": b"x"})), path),
    "get": lambda container, path, tmp: container.get(path, tmp / "out"),
    "get archive": lambda container, path, _: container.get_archive(path, io.BytesIO()),
    "read": lambda container, path, _: (container.fs / path).read_bytes(),
    "write": lambda container, path, _: (container.fs / path).write_bytes(b"x"),
    "stat": lambda container, path, _: (container.fs / path).stat(),
    "list": lambda container, path, _: list((container.fs / path).iterdir()),
}


@pytest.fixture
def box(engine: Engine, tmp_path: Path) -> Iterator[Image]:
    """Return an image with busybox, an absolute link and a relative one."""
    if not BUSYBOX.exists():
        pytest.skip("busybox is not installed")
    tree = busybox_tree(tmp_path / "tree")
    (tree / "data").mkdir()
    (tree / "data" / "old").write_text("old\n", encoding="ascii")
    (tree / "var").mkdir()
    (tree / "run").mkdir()
    (tree / "var" / "run").symlink_to("/run")
    (tree / "link").symlink_to("data/old")
    (tmp_path / "file").write_text("from the host\n", encoding="ascii")
    yield engine.images.from_directory(tree, reference="box:1")
    for container in engine.containers.list():
        container.remove(force=True)


def make(engine: Engine, box: Image, state: str, **options: object) -> Container:
    """Return a container in a state."""
    if "pidfd_open" not in enosys.ACTIVE:
        options["lifetime"] = "detached"
    container = engine.containers.create(box, ["sleep", "60"], **options)  # type: ignore[arg-type]
    if state != "created":
        container.start()
    if state == "paused":
        container.pause()
    if state == "exited":
        container.kill()
        container.wait()
    return container


def tar_of(files: dict[str, bytes]) -> bytes:
    """Return an archive of files."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return out.getvalue()


def members(data: bytes) -> dict[str, tarfile.TarInfo]:
    """Return what an archive holds."""
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        return {member.name: member for member in archive}


def archived(container: Container, path: str) -> bytes:
    """Return the archive of a path."""
    out = io.BytesIO()
    written = container.get_archive(path, out)
    assert written.digest == f"sha256:{hashlib.sha256(out.getvalue()).hexdigest()}"
    assert written.entries == len(members(out.getvalue()))
    return out.getvalue()


@STATES
def test_files_and_bytes(box: Image, engine: Engine, tmp_path: Path, state: str) -> None:
    """Files go in and come out in every state, and what runs sees them."""
    container = make(engine, box, state)
    container.put(tmp_path / "file", "/data/new")
    container.put(b"bytes\n", "/data/bytes", owner=(5, 6), mode=0o640)
    container.put(tmp_path / "file", "/data/old")
    container.put(str(tmp_path / "file"), "/data")
    assert (container.fs / "data/old").read_text() == "from the host\n"
    assert [path.name for path in (container.fs / "data").iterdir()] == ["bytes", "file", "new", "old"]
    found = (container.fs / "data" / "bytes").stat()
    assert (stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid) == (0o640, 5, 6)
    container.get("/data/new", tmp_path / "back")
    container.get("/data/bytes", tmp_path)
    assert (tmp_path / "back").read_bytes() == (tmp_path / "file").read_bytes()
    assert (tmp_path / "bytes").read_bytes() == b"bytes\n"
    assert (tmp_path / "bytes").stat().st_uid == os.geteuid()
    assert container.state == state
    if state == "paused":
        container.unpause()
    if state in {"created", "exited"}:
        container.start()
    assert container.exec(["cat", "/data/new", "/data/bytes"]).stdout == b"from the host\nbytes\n"
    assert {change.path for change in container.changes()} >= {"/data/new", "/data/bytes", "/data/old"}


@STATES
def test_directories(box: Image, engine: Engine, tmp_path: Path, state: str) -> None:
    """Docker's rules for directories: into one that exists under its own name, otherwise it becomes that."""
    container = make(engine, box, state)
    source = tmp_path / "source"
    (source / "deep" / "er").mkdir(parents=True)
    (source / "a").write_bytes(b"a")
    os.link(source / "a", source / "b")
    (source / "s").symlink_to("../nowhere")
    (source / "deep" / "er" / "x").write_bytes(b"x" * 100_000)
    (source / "a").chmod(0o4755)
    os.mkfifo(source / "pipe")
    container.put(source, "/data")
    container.put(source, "/new")
    container.put(f"{source}/.", "/tmp")
    for place in ("data/source", "new", "tmp"):
        at = container.fs / place
        assert (at / "deep/er/x").read_bytes() == b"x" * 100_000
        assert (at / "s").readlink() == "../nowhere"
        assert (at / "a").stat().st_ino == (at / "b").stat().st_ino
        assert stat.S_IMODE((at / "a").stat().st_mode) == 0o4755
        assert stat.S_ISFIFO((at / "pipe").stat().st_mode)
    assert stat.S_IMODE((container.fs / "tmp").stat().st_mode) == 0o1777
    container.get("/new", tmp_path / "one")
    container.get("/new", tmp_path / "one")
    container.get("/new/.", tmp_path / "two")
    for place in (tmp_path / "one", tmp_path / "one" / "new", tmp_path / "two"):
        assert (place / "deep/er/x").read_bytes() == b"x" * 100_000
        assert (place / "s").readlink().as_posix() == "../nowhere"
        assert stat.S_IMODE((place / "a").stat().st_mode) == 0o755
    container.get("/new", tmp_path / "kept", archive=True)
    assert stat.S_IMODE((tmp_path / "kept" / "a").stat().st_mode) == 0o4755
    found = members(archived(container, "/new"))
    assert set(found) == {"new"} | {
        f"new/{name}" for name in ("a", "b", "s", "pipe", "deep", "deep/er", "deep/er/x")
    }
    assert found["new/b"].islnk()
    assert found["new/b"].linkname == "new/a"
    assert set(members(archived(container, "/new/."))) == {name[4:] for name in found if "/" in name}


def test_archives(box: Image, engine: Engine, tmp_path: Path) -> None:
    """An archive keeps owners, and members that would lead out of the directory are refused."""
    container = make(engine, box, "running")
    container.put(b"x", "/data/x", owner=(7, 8))
    data = archived(container, "/data")
    assert (members(data)["data/x"].uid, members(data)["data/x"].gid) == (7, 8)
    (container.fs / "copy").mkdir()
    container.put_archive(io.BytesIO(data), "/copy")
    assert (container.fs / "copy/data/x").stat().st_uid == 7
    container.put_archive(io.BytesIO(tar_of({".wh.x": b"plain", ".wh..wh..opq": b"too"})), "/copy/data")
    assert {path.name for path in (container.fs / "copy/data").iterdir()} == {
        "x",
        "old",
        ".wh.x",
        ".wh..wh..opq",
    }
    for name in ("../out", "a/../../out"):
        with pytest.raises(cl.UnsafePath):
            container.put_archive(io.BytesIO(tar_of({name: b""})), "/copy")
    with pytest.raises(cl.UnsupportedLayer, match="archive"):
        container.put_archive(io.BytesIO(b"no archive" * 100), "/copy")
    assert not (container.fs / "out").exists()
    assert container.get_archive("/data", tmp_path / "data.tar").entries == 3
    assert (tmp_path / "data.tar").stat().st_size == len(archived(container, "/data"))


@STATES
def test_links_stay_inside(box: Image, engine: Engine, tmp_path: Path, state: str) -> None:
    """Absolute links of the image mean the container's own root."""
    container = make(engine, box, state)
    container.put(b"pid", "/var/run/pid")
    assert (container.fs / "run/pid").read_bytes() == b"pid"
    container.put(tmp_path / "file", "/link")
    assert (container.fs / "data/old").read_text() == "from the host\n"
    assert (container.fs / "link").is_symlink()
    container.get("/link", tmp_path / "itself")
    container.get("/link", tmp_path / "followed", follow_links=True)
    assert (tmp_path / "itself").is_symlink()
    assert (tmp_path / "followed").read_text(encoding="ascii") == "from the host\n"
    (container.fs / "out").symlink_to(f"{tmp_path}/../..")
    (container.fs / "loop").symlink_to("loop")
    (container.fs / "up").symlink_to("../../../../../../data")
    assert (container.fs / "up/old").read_text() == "from the host\n"
    with pytest.raises(cl.PathNotFound):
        container.put(b"x", "/out/x")
    with pytest.raises(cl.ContainerFileError, match="loop") as caught:
        (container.fs / "loop").read_bytes()
    assert caught.value.errno == 40
    with pytest.raises(cl.ContainerFileError):
        container.put(b"x", "/loop")


@pytest.mark.parametrize("step", STEPS)
def test_bad_paths(box: Image, engine: Engine, tmp_path: Path, step: str) -> None:
    """What is no path, leads through a file, is not there or is the kernel's is refused."""
    container = make(engine, box, "running")
    act = STEPS[step]
    if step not in {"read", "write", "stat", "list"}:
        for path in ("relative", "", "data/old"):
            with pytest.raises(cl.InvalidOption, match="path"):
                act(container, path, tmp_path)
    with pytest.raises(cl.InvalidOption, match="path"):
        act(container, "/a\0b", tmp_path)
    with pytest.raises((cl.PathNotFound, FileNotFoundError), match="missing"):
        act(container, "/missing/x", tmp_path)
    with pytest.raises(cl.ContainerFileError, match="Not a directory"):
        act(container, "/data/old/x", tmp_path)
    with pytest.raises(cl.ContainerFileError, match="too long"):
        act(container, "/" + "x" * 300, tmp_path)
    is_for_directories = step in {"put archive", "list"}
    for path in (
        ("/proc", "/proc/sys") if is_for_directories else ("/proc/1/status", "/sys/kernel/uevent_seqnum")
    ):
        with pytest.raises(cl.ContainerFileError, match="kernel"):
            act(container, path, tmp_path)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("step", STEPS)
def test_wrong_states(box: Image, engine: Engine, tmp_path: Path, step: str) -> None:
    """A container that is gone, or whose layer is, has no files."""
    container = engine.containers.create(box, ["sleep", "60"], layer="memory")
    with pytest.raises(cl.InvalidState, match="in memory"):
        STEPS[step](container, "/data", tmp_path)
    container.remove()
    with pytest.raises(cl.InvalidState, match="removed"):
        STEPS[step](container, "/data", tmp_path)


def test_kinds_never_take_each_others_place(box: Image, engine: Engine, tmp_path: Path) -> None:
    """A file does not replace a directory, nor the other way round, on either side."""
    container = make(engine, box, "running")
    (tmp_path / "d").mkdir()
    with pytest.raises(cl.ContainerFileError, match="Not a directory"):
        container.put(tmp_path / "d", "/data/old")
    (container.fs / "data/file").mkdir()
    with pytest.raises(cl.UnsafePath, match="directory"):
        container.put(tmp_path / "file", "/data")
    with pytest.raises(cl.UnsafePath, match="directory"):
        container.put(b"x", "/data")
    (tmp_path / "host").mkdir()
    (tmp_path / "host" / "old").mkdir()
    with pytest.raises(cl.UnsafePath, match="directory"):
        container.get("/data/old", tmp_path / "host")
    with pytest.raises(cl.InvalidInputError, match="not a directory"):
        container.get("/data", tmp_path / "file")
    with pytest.raises(cl.InvalidInputError, match="not a directory"):
        container.get("/data/old", tmp_path / "nowhere" / "x")
    with pytest.raises(cl.InvalidInputError, match="missing"):
        container.put(tmp_path / "missing", "/data")
    with pytest.raises(cl.ContainerFileError):
        container.put(tmp_path / "file", "/data/old/")
    with pytest.raises(cl.PathNotFound):
        container.put(tmp_path / "file", "/data/newdir/")
    assert (container.fs / "data/old").read_text() == "old\n"


def test_mounts(box: Image, engine: Engine, tmp_path: Path) -> None:
    """Mounts of one that runs are reached, through links, too; what is read-only or not mounted is said."""
    (tmp_path / "rw").mkdir()
    (tmp_path / "ro").mkdir()
    (tmp_path / "ro" / "x").write_text("kept", encoding="ascii")
    mounts = [
        cl.Mount.bind(str(tmp_path / "rw"), "/run/rw"),
        cl.Mount.bind(str(tmp_path / "ro"), "/ro", read_only=True),
        cl.Mount.tmpfs("/memory"),
    ]
    container = engine.containers.create(box, ["sleep", "60"], mounts=mounts, lifetime="detached")
    for path in ("/ro/x", "/ro", "/run/rw/x", "/var/run/rw/x", "/memory/x"):
        for step in ("put bytes", "get"):
            if (path, step) == ("/var/run/rw/x", "put bytes"):
                continue
            with pytest.raises((cl.ContainerFileError, cl.PathNotFound)):
                STEPS[step](container, path, tmp_path)
    container.start()
    container.put(b"in", "/var/run/rw/x")
    assert (tmp_path / "rw" / "x").read_bytes() == b"in"
    container.put(b"in", "/memory/x")
    assert container.exec(["cat", "/memory/x"]).stdout == b"in"
    for step in ("put bytes", "write", "put archive"):
        with pytest.raises(cl.ContainerFileError, match="read-only"):
            STEPS[step](container, "/ro" if step == "put archive" else "/ro/x", tmp_path)
    assert (container.fs / "ro/x").read_text() == "kept"
    container.kill()
    container.wait()
    for path in ("/ro/x", "/run/rw/x", "/var/run/rw/x", "/memory/x"):
        with pytest.raises(cl.ContainerFileError, match="mounted only while it runs"):
            container.put(b"x", path)
    assert (tmp_path / "rw" / "x").read_bytes() == b"in"


def test_a_read_only_root(box: Image, engine: Engine) -> None:
    """That the container may not write to its root is no matter of its files: it is said."""
    container = engine.containers.run(box, ["sleep", "60"], read_only=True)
    with pytest.raises(cl.ContainerFileError, match="read-only"):
        container.put(b"x", "/data/x")
    assert (container.fs / "data/old").read_bytes() == b"old\n"


def test_special_files_are_never_opened(box: Image, engine: Engine, tmp_path: Path) -> None:
    """Fifos do not make anybody wait, devices and sockets are left out, and none is written to."""
    container = engine.containers.run(
        box, ["sh", "-c", "mkfifo /data/fifo; echo here; sleep 60"], stdout=cl.PIPE
    )
    assert container.stdout is not None
    assert container.stdout.readline() == b"here\n"
    os.mknod(f"/proc/{container.pid}/root/data/zero", stat.S_IFCHR | 0o666, os.makedev(1, 5))
    for name in ("fifo", "zero"):
        path = container.fs / "data" / name
        with pytest.raises(cl.ContainerFileError, match="regular"):
            path.read_bytes()
        with pytest.raises(cl.ContainerFileError, match="regular"):
            path.write_bytes(b"x")
    assert set(members(archived(container, "/data"))) == {"data", "data/old", "data/fifo"}
    container.get("/data", tmp_path / "copy")
    assert {path.name for path in (tmp_path / "copy").iterdir()} == {"old", "fifo"}
    for copy in (lambda: archived(container, "/data/zero"), lambda: container.get("/data/zero", tmp_path)):
        with pytest.raises(cl.InvalidInputError, match="device"):
            copy()
    with pytest.raises(cl.InvalidInputError, match="device"):
        container.put("/dev/null", "/data/null")


def test_the_kernels_trees_are_left_out(box: Image, engine: Engine) -> None:
    """The whole root can be archived while it runs: of /proc, /sys and /dev only the directories."""
    container = make(engine, box, "running")
    found = members(archived(container, "/."))
    assert {name for name in found if name.split("/")[0] in {"proc", "sys", "dev"}} == {"proc", "sys", "dev"}
    assert {"bin/busybox", "data/old", "etc/passwd"} <= set(found)


def test_paths_like_pathlib(box: Image, engine: Engine) -> None:
    """The path-like access makes, changes and removes as pathlib does."""
    container = make(engine, box, "running")
    fs = container.fs
    (fs / "a/b/c").mkdir(0o750, parents=True)
    assert stat.S_IMODE((fs / "a/b/c").stat().st_mode) == 0o750
    (fs / "a/b/c").mkdir(exist_ok=True)
    with pytest.raises(cl.ContainerFileError, match="exists"):
        (fs / "a/b").mkdir()
    path = fs / "a" / "b" / "text.txt"
    path.write_text("ä")
    path.write_text("ö", append=True)
    assert path.read_text() == "äö"
    path.write_bytes(b"short")
    assert path.read_bytes() == b"short"
    assert (path.name, path.suffix, str(path.parent)) == ("text.txt", ".txt", "/a/b")
    path.chmod(0o600)
    path.chown(3, 4)
    found = path.stat()
    assert (stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid) == (0o600, 3, 4)
    moved = path.rename("moved")
    assert (str(moved), path.exists(), moved.is_file()) == ("/a/b/moved", False, True)
    assert moved == fs / "/a/b/moved"
    assert len({moved, fs / "a/b/moved"}) == 1
    moved.unlink()
    moved.unlink(missing_ok=True)
    with pytest.raises(FileNotFoundError):
        moved.unlink()
    with pytest.raises(cl.ContainerFileError, match="not empty"):
        (fs / "a").rmdir()
    (fs / "a/b/c").rmdir()
    assert (fs / "a/b").is_dir()
    assert not (fs / "a/b/c").exists()
    assert not (fs / "nothing").is_symlink()
    assert str(fs / "../.." / "a") == "/../../a"
    assert (fs / "../.." / "a").is_dir()
    with pytest.raises(cl.ContainerFileError, match="directory"):
        fs.unlink()
    assert "ContainerPath" in repr(moved)


SWAPPER = """
    mkdir /swap
    cd /swap
    read go
    while :; do
        rm -rf at; ln -s $CANARY at
        rm -f at; mkdir at; echo inside > at/file
        ln -s $CANARY/file planted 2>/dev/null; mv -f planted at/file 2>/dev/null
    done
"""


@pytest.mark.enosys
@pytest.mark.parametrize("stays", ["dir", "link"])
def test_a_container_that_swaps_links(box: Image, engine: Engine, tmp_path: Path, stays: str) -> None:
    """While a container exchanges a part of the path for a link to a place of the host, nothing leaves it."""
    canary = tmp_path / "canary"
    canary.mkdir()
    (canary / "file").write_text("secret of the host", encoding="ascii")
    container = engine.containers.run(
        box, ["sh", "-c", SWAPPER], env={"CANARY": str(canary)}, init=True, stdin=cl.PIPE
    )
    if stays == "link":
        # The same path exists in the container, so that links lead somewhere.
        (container.fs / str(canary)).mkdir(parents=True)
        (container.fs / str(canary) / "file").write_text("inside")
    assert container.stdin is not None
    container.stdin.write(b"go\n")
    container.stdin.flush()
    before = _picture(canary)
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "file").write_text("put", encoding="ascii")
    done = dict.fromkeys(("put", "get", "archive", "write", "read"), 0)
    for number in range(120):
        out = io.BytesIO()
        target = tmp_path / f"out{number}"
        steps: dict[str, Callable[[], object]] = {
            "put": lambda: container.put(f"{tmp_path}/in/.", "/swap/at"),
            "get": lambda target=target: container.get("/swap/at", target, follow_links=True),  # type: ignore[misc]
            "archive": lambda out=out: container.get_archive("/swap/.", out),  # type: ignore[misc]
            "write": lambda: (container.fs / "swap/at/file").write_text("put"),
            "read": (container.fs / "swap/at/file").read_bytes,
        }
        for name, step in steps.items():
            try:
                result = step()
            except (cl.PathNotFound, cl.ContainerFileError, cl.LayerError, cl.InvalidInputError):
                continue
            done[name] += 1
            assert b"secret" not in out.getvalue()
            assert not isinstance(result, bytes) or b"secret" not in result
        for found in target.rglob("*") if target.is_dir() and not target.is_symlink() else ():
            assert found.is_symlink() or found.is_dir() or b"secret" not in found.read_bytes()
    assert _picture(canary) == before
    assert container.state == "running"
    assert all(done.values()), done


def _picture(directory: Path) -> list[tuple[str, int, int, bytes]]:
    """What a directory holds, and how."""
    return [
        (
            path.name,
            path.lstat().st_mode,
            path.lstat().st_mtime_ns,
            path.read_bytes() if path.is_file() else b"",
        )
        for path in sorted([directory, *directory.rglob("*")])
    ]


def test_one_that_is_copied_to_is_not_started(box: Image, engine: Engine) -> None:
    """A start waits until the files of a stopped container are no longer worked on, and sees all of them."""
    container = engine.containers.create(box, ["sh", "-c", "cat /data/big | wc -c"], lifetime="detached")
    source_end, sink = os.pipe()
    data = tar_of({"big": b"x" * 3_000_000})

    def put() -> None:
        with open(source_end, "rb") as stream:
            container.put_archive(stream, "/data")

    copying = threading.Thread(target=put)
    copying.start()
    with open(sink, "wb") as out:
        out.write(data[:2_000_000])
        starting = threading.Thread(target=container.start)
        starting.start()
        out.write(data[2_000_000:])
    copying.join()
    starting.join()
    assert container.wait(timeout_s=30).exit_code == 0
    assert [line.text.strip() for line in container.logs()] == ["3000000"]


def test_nothing_stays_open(box: Image, engine: Engine, tmp_path: Path) -> None:
    """Neither descriptors nor mounts nor processes are left of anything, be it of what failed."""
    container = make(engine, box, "exited")
    container.put(b"x", "/data/x")
    before = sorted(os.listdir("/proc/self/fd"))
    for _ in range(20):
        container.put(b"x", "/data/x")
        container.get("/data", tmp_path / "out")
        for step in STEPS.values():
            with pytest.raises((cl.ContainerFileError, cl.PathNotFound)):
                step(container, "/data/old/x", tmp_path)
    assert sorted(os.listdir("/proc/self/fd")) == before
    with open("/proc/self/mountinfo", encoding="utf-8") as mounts:
        assert container.id not in mounts.read()
