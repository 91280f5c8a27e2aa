"""What a real overlay leaves in its upper directory becomes a layer that gives the same tree again."""

from __future__ import annotations

import hashlib
import io
import os
import resource
import shutil
import socket
import stat
import tracemalloc
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.session import temporary_directory
from support.trees import Overlay, applied, overlay, tree

import containerlib as cl
from containerlib.errors import InvalidInputError
from containerlib.layer.diff import write_diff, write_merged
from containerlib.layer.tar_reader import TarReader

if TYPE_CHECKING:
    from collections.abc import Iterator

    from containerlib import Image

pytestmark = pytest.mark.root

CAPABILITY = b"\x01\0\0\x02\0\x20\0\0" + bytes(12)


@pytest.fixture
def place() -> Iterator[Overlay]:
    """Give an overlay's directories, and check that no descriptor stays open."""
    before = len(os.listdir("/proc/self/fd"))
    with temporary_directory("v") as base:
        yield Overlay(base)
    assert len(os.listdir("/proc/self/fd")) == before


def fill(root: Path) -> None:
    """Make a tree to change."""
    for name in ("gone", "replaced", "kept", "moved"):
        (root / name / "below").mkdir(parents=True)
        (root / name / "below" / "file").write_bytes(name.encode())
    (root / "kept" / "removed").write_bytes(b"x")
    (root / "file").write_bytes(b"lower")
    (root / "becomes-directory").write_bytes(b"x")
    (root / "becomes-file").mkdir()
    (root / "becomes-file" / "x").write_bytes(b"x")


def change(root: Path) -> None:
    """Change the tree in every way that leaves a mark."""
    for name in ("gone", "replaced", "becomes-file"):
        shutil.rmtree(root / name)
    (root / "replaced").mkdir(0o750)
    (root / "replaced" / "new").write_bytes(b"new")
    (root / "kept" / "removed").unlink()
    (root / "becomes-directory").unlink()
    (root / "becomes-directory").mkdir()
    (root / "becomes-file").write_bytes(b"file")
    (root / "file").write_bytes(b"upper")
    os.chown(root / "file", 12, 34)
    (root / "set").write_bytes(b"#!")
    (root / "set").chmod(0o6755)
    os.setxattr(root / "set", "security.capability", CAPABILITY)
    os.setxattr(root / "set", "user.note", b"\0\n=\xff")
    os.setxattr(root / "kept", "user.directory", b"yes")
    os.link(root / "set", root / "another-name")
    os.symlink("/etc/../x" * 30, root / "link")
    os.link(root / "link", root / "kept" / "second-link", follow_symlinks=False)
    os.mkfifo(root / "pipe", 0o620)
    (root / ("ä" * 120)).write_bytes(b"")
    os.close(os.open(os.fsencode(root) + b"/\xff\n", os.O_CREAT | os.O_WRONLY))
    (root / "deep").joinpath(*["d" * 100] * 9).mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(root / "socket"))


def test_layer_gives_the_same_tree(place: Overlay) -> None:
    """Unpacked again the layer is the upper directory; over the lower one it shows what the overlay did."""
    fill(place.lower)
    with overlay(place.base / "seen", [place.lower], upper=place.upper, work=place.work) as seen:
        change(seen)
        shown = tree(seen)
    again = applied(place.diff(), place.base / "again")
    assert tree(again, keep_opaque=True) == tree(place.upper, keep_opaque=True)
    assert "kept/removed" in tree(again)
    with overlay(place.base / "seen", [again, place.lower]) as seen:
        assert tree(seen) == shown
    flat = applied(place.merged(), place.base / "flat")
    assert tree(flat) == shown


def test_layer_is_deterministic(place: Overlay) -> None:
    """Two reads give the same bytes, whiteouts stand first, and nothing of overlayfs is in it."""
    fill(place.lower)
    with overlay(place.base / "seen", [place.lower], upper=place.upper, work=place.work) as seen:
        change(seen)
    data = place.diff()
    assert place.diff() == data
    assert b"overlay." not in data
    names = [entry.name for entry in TarReader(io.BytesIO(data))]
    assert names[:2] == [b".wh.gone", b"another-name"]
    assert names[names.index(b"replaced/") + 1 :][:2] == [b"replaced/.wh..wh..opq", b"replaced/new"]
    assert b"kept/.wh.removed" in names
    assert not any(b"socket" in name for name in names)


def test_unchanged_container_has_an_empty_layer(place: Overlay) -> None:
    """An upper directory that nobody wrote to has no entry; one of the root's own attributes makes one."""
    assert place.diff() == bytes(1024)
    place.upper.chmod(0o1711)
    os.chown(place.upper, 5, 6)
    (entry,) = TarReader(io.BytesIO(place.diff()))
    assert (entry.name, entry.mode, entry.uid, entry.gid) == (b"./", 0o1711, 5, 6)
    assert stat.S_IMODE(applied(place.diff(), place.base / "again").stat().st_mode) == 0o1711


def test_times_are_clamped(place: Overlay) -> None:
    """No time in the layer is later than the one given; earlier ones stay."""
    for name, mtime in (("old", 1000), ("new", 3000)):
        (place.upper / name).write_bytes(b"")
        os.utime(place.upper / name, (mtime, mtime))
    entries = TarReader(io.BytesIO(place.diff(latest_mtime=2000)))
    assert {entry.name: entry.mtime_ns // 10**9 for entry in entries} == {b"old": 1000, b"new": 2000}


def test_devices(place: Overlay) -> None:
    """A device is refused, or becomes an entry where that is allowed; a whiteout is none."""
    os.mknod(place.upper / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.mknod(place.upper / "disk", stat.S_IFBLK | 0o660, os.makedev(259, 70000))
    os.mknod(place.upper / "gone", stat.S_IFCHR, 0)
    with pytest.raises(InvalidInputError, match="device"):
        place.diff()
    data = place.diff(devices="include")
    assert tree(applied(data, place.base / "again")) == tree(place.upper)


@pytest.mark.parametrize("mark", ["redirect", "metacopy", "whiteout"])
def test_content_elsewhere_is_refused(place: Overlay, mark: str) -> None:
    """What depends on a lower layer by its name or content cannot be read from the upper one alone."""
    for name in ("file", "directory"):
        path = place.upper / name
        path.mkdir() if name == "directory" else path.write_bytes(b"")
        os.setxattr(path, f"trusted.overlay.{mark}", b"/other")
        for write in (place.diff, place.merged):
            with pytest.raises(
                InvalidInputError, match=f"'{name}' has overlayfs' mark trusted.overlay.{mark}"
            ):
                write()
        os.removexattr(path, f"trusted.overlay.{mark}")


def test_real_redirect_is_refused(place: Overlay) -> None:
    """A directory that was renamed by a mount with redirects is refused, not written without its content."""
    fill(place.lower)
    lowers = [f"{place.lower},redirect_dir=on"]
    with overlay(place.base / "seen", lowers, upper=place.upper, work=place.work) as seen:  # type: ignore[arg-type]
        (seen / "moved").rename(seen / "renamed")
    with pytest.raises(InvalidInputError, match=r"redirect_dir=off"):
        place.diff()


def test_marks_of_the_container_itself_say_nothing(place: Overlay) -> None:
    """What a container calls user.overlay is left out, unless the mount used such marks."""
    (place.lower / "etc").mkdir()
    (place.lower / "etc" / "passwd").write_bytes(b"root")
    (place.upper / "etc").mkdir()
    os.setxattr(place.upper / "etc", "user.overlay.opaque", b"y")
    assert [entry.name for entry in TarReader(io.BytesIO(place.diff()))] == [b"etc/"]
    assert b"etc/.wh..wh..opq" in place.diff(user_marks=True)
    assert b"etc/passwd" in place.merged(user_marks=False)
    assert b"etc/passwd" not in place.merged()


def test_attributes_of_this_host_are_left_out(place: Overlay) -> None:
    """What no layer may bring is not written into one either; everything else is, on directories as well."""
    (place.upper / "file").write_bytes(b"")
    (place.upper / "directory").mkdir()
    kept = {"user.note": b"1", "trusted.note": b"2"}
    dropped = [
        "trusted.overlay.origin",
        "user.overlay.x",
        "user.containers.override_stat",
        "security.selinux",
    ]
    for name in ("file", "directory"):
        for key in (*kept, *dropped, "user.fuseoverlayfs.opaque"):
            os.setxattr(place.upper / name, key, kept.get(key, b"x"))
    found = {entry.name: entry.xattrs for entry in TarReader(io.BytesIO(place.diff()))}
    assert found == {b"directory/": kept, b"file": kept}


@pytest.mark.parametrize("name", [".wh.file", ".wh..wh..opq", ".wh.", "x" * 252])
def test_names_that_no_layer_can_hold(place: Overlay, name: str) -> None:
    """A file whose name would be read as a whiteout is refused, and a whiteout whose name is too long."""
    if name.startswith(".wh."):
        (place.upper / name).write_bytes(b"")
    else:
        os.mknod(place.upper / name, stat.S_IFCHR, 0)
    with pytest.raises(InvalidInputError, match=r"begins with '\.wh\.'|too long"):
        place.diff()


def test_attributes_that_no_archive_can_hold(place: Overlay) -> None:
    """An extended attribute whose name has the sign that ends a key is refused."""
    (place.upper / "file").write_bytes(b"")
    os.setxattr(place.upper / "file", "user.a=b", b"c")
    with pytest.raises(InvalidInputError, match=r"user\.a=b"):
        place.diff()


def test_large_and_sparse_files_need_no_memory(place: Overlay) -> None:
    """A file of 200 MB, nearly all of it hole, is written whole within a few megabytes."""
    with open(place.upper / "sparse", "wb") as file:
        file.truncate(200 << 20)
        file.seek(100 << 20)
        file.write(b"middle")
    written = 0
    sums = hashlib.sha256()

    class Counter:
        def write(self, data: bytes, /) -> int:
            nonlocal written
            written += len(data)
            sums.update(data)
            return len(data)

    tracemalloc.start()
    try:
        result = write_diff(str(place.upper), Counter())
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert result.size == written == (200 << 20) + 3 * 512
    assert result.diff_id == f"sha256:{sums.hexdigest()}"
    assert peak < 8 << 20


def test_more_layers_than_descriptors(place: Overlay) -> None:
    """As many layers as an image may have are read with few descriptors."""
    layers = [place.base / f"layer-{number}" for number in range(500)]
    for layer in layers:
        (layer / "shared" / layer.name).mkdir(parents=True)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (500, hard))
    try:
        out = io.BytesIO()
        assert write_merged(list(map(str, layers)), out).entries == 501
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_paths_that_no_archive_can_hold(place: Overlay) -> None:
    """A path that is longer than Linux allows, made step by step, is refused."""
    fd = os.open(place.upper, os.O_RDONLY)
    for _ in range(20):
        os.mkdir("d" * 250, dir_fd=fd)
        below = os.open("d" * 250, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(fd)
    with pytest.raises(InvalidInputError, match="too long"):
        place.diff()


def test_opaque_directory_in_the_middle(place: Overlay) -> None:
    """In a stack of three an opaque directory hides the lowest and not the top-most."""
    layers = [place.base / name for name in ("top", "middle", "bottom")]
    for layer in layers:
        (layer / "d" / layer.name).mkdir(parents=True)
    os.setxattr(layers[1] / "d", "trusted.overlay.opaque", b"y")
    out = io.BytesIO()
    write_merged(list(map(str, layers)), out)
    assert [entry.name for entry in TarReader(io.BytesIO(out.getvalue()))] == [b"d/", b"d/middle/", b"d/top/"]


def test_container_of_the_engine(busybox_image: Image) -> None:
    """The upper directory of a container gives a layer that holds what the container did."""
    script = (
        "echo new > /new; rm /etc/group; rm -r /root && mkdir /root && echo x > /root/x;"
        "ln /new /linked; ln -s nowhere /dangling; mkfifo /pipe; chown 7:8 /new; chmod 4711 /new"
    )
    containers = cl.Containers(busybox_image._session, busybox_image._remote)
    with containers.create(busybox_image, ["sh", "-c", script], layer="disk") as container:
        container.start(stdin=cl.DEVNULL, stdout=cl.DEVNULL, stderr=None)
        assert container.wait().exit_code == 0
        upper = Path(str(container.entry.layers.directory)) / "upper"
        out = io.BytesIO()
        write_diff(str(upper), out)
        entries = {entry.name: entry for entry in TarReader(io.BytesIO(out.getvalue()))}
        with temporary_directory("a") as base:
            again = applied(out.getvalue(), base / "again")
            assert tree(again, keep_opaque=True) == tree(upper, keep_opaque=True)
    assert entries.keys() >= {b"etc/.wh.group", b"root/.wh..wh..opq", b"root/x", b"dangling", b"pipe"}
    assert (entries[b"linked"].mode, entries[b"linked"].uid, entries[b"linked"].gid) == (0o4711, 7, 8)
    assert (entries[b"new"].kind, entries[b"new"].linkname) == ("hardlink", b"linked")


NAMES = st.sampled_from(["a", "b", "c", "a-", "ä", "x" * 101])
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["file", "directory", "remove", "link", "symlink", "chmod", "rename", "xattr"]),
        st.lists(NAMES, min_size=1, max_size=3),
        st.lists(NAMES, min_size=1, max_size=3),
        st.integers(0, 0o7777),
    ),
    max_size=12,
)


def do(root: Path, steps: list[tuple[str, list[str], list[str], int]]) -> None:
    """Do random things to a tree; those that are not possible are left out."""
    for action, first, second, number in steps:
        path, other = root.joinpath(*first), root.joinpath(*second)
        try:
            if action == "file":
                path.write_bytes(b"%d" % number)
            elif action == "directory":
                path.mkdir(mode=number | 0o700)
            elif action == "remove":
                path.unlink() if path.is_symlink() or not path.is_dir() else shutil.rmtree(path)
            elif action == "link":
                os.link(path, other, follow_symlinks=False)
            elif action == "symlink":
                path.symlink_to(other)
            elif action == "chmod":
                path.is_symlink() or path.chmod(number)
            elif action == "rename":
                path.rename(other)
            else:
                os.setxattr(path, "user.x", b"%d" % number, follow_symlinks=False)
        except OSError:
            continue


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lower=STEPS, upper=STEPS)
def test_any_changes_round_trip(
    place: Overlay,
    lower: list[tuple[str, list[str], list[str], int]],
    upper: list[tuple[str, list[str], list[str], int]],
) -> None:
    """Whatever is done in an overlay, its layer over the lower one shows the same; so does the flat tree."""
    with temporary_directory("h") as base:
        example = Overlay(base)
        do(example.lower, lower)
        with overlay(base / "seen", [example.lower], upper=example.upper, work=example.work) as seen:
            do(seen, upper)
            shown = tree(seen)
        again = applied(example.diff(), base / "again")
        with overlay(base / "seen", [again, example.lower]) as seen:
            assert tree(seen) == shown
        assert tree(applied(example.merged(), base / "flat")) == shown
    del place
