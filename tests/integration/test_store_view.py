from __future__ import annotations

import os
import socket
import stat
from typing import TYPE_CHECKING

import pytest

from containerlib.errors import InvalidInputError
from containerlib.store.view import read_file

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.root

LIMIT = 1 << 16


@pytest.fixture
def layers(tmp_path: Path) -> list[Path]:
    """Give three layer directories, top-most first, with a canary beside them."""
    (tmp_path / "canary").write_bytes(b"host")
    result = [tmp_path / name for name in ("top", "middle", "base")]
    for layer in result:
        layer.mkdir()
    return result


def write(path: Path, data: bytes = b"data") -> None:
    """Write a file and its parents."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def white_out(path: Path) -> None:
    """Make what overlayfs takes for a removed file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    os.mknod(path, stat.S_IFCHR, 0)


def read(layers: list[Path], path: str) -> bytes | None:
    """Read a file of the stack, and check that no descriptor stays open."""
    before = len(os.listdir("/proc/self/fd"))
    try:
        return read_file([str(layer) for layer in layers], path, limit=LIMIT)
    finally:
        assert len(os.listdir("/proc/self/fd")) == before


def test_upper_hides_lower(layers: list[Path]) -> None:
    """The top-most file of a name is read, wherever the others are."""
    write(layers[2] / "etc/passwd", b"base")
    write(layers[2] / "etc/group", b"base")
    write(layers[0] / "etc/passwd", b"top")
    write(layers[1] / "etc/shadow", b"middle")
    assert read(layers, "/etc/passwd") == b"top"
    assert read(layers, "etc//./group") == b"base"
    assert read(layers, "/etc/../etc/shadow") == b"middle"
    assert read(layers, "/../../etc/passwd") == b"top"
    assert read(layers, "/etc/missing") is None
    assert read(layers, "/missing/passwd") is None
    assert read(layers, "/etc/passwd/x") is None


def test_whiteouts_hide(layers: list[Path]) -> None:
    """A removed file or directory is not seen, unless it was made again above."""
    write(layers[2] / "file")
    write(layers[2] / "dir/file")
    white_out(layers[1] / "file")
    white_out(layers[1] / "dir")
    assert read(layers, "/file") is None
    assert read(layers, "/dir/file") is None
    write(layers[0] / "dir/other", b"new")
    assert read(layers, "/dir/file") is None
    assert read(layers, "/dir/other") == b"new"


def test_opaque_directories_hide(layers: list[Path]) -> None:
    """An opaque directory shows nothing from below; other directories are merged."""
    write(layers[2] / "dir/file")
    write(layers[0] / "dir/other")
    assert read(layers, "/dir/file") == b"data"
    os.setxattr(layers[0] / "dir", "trusted.overlay.opaque", b"y")
    assert read(layers, "/dir/file") is None
    assert read(layers, "/dir/other") == b"data"


def test_file_over_directory_hides(layers: list[Path]) -> None:
    """A file or a link above a directory hides all of it."""
    write(layers[2] / "dir/file")
    write(layers[1] / "dir")
    assert read(layers, "/dir/file") is None
    write(layers[0] / "dir/other")
    assert read(layers, "/dir/file") is None


def test_links_stay_inside(layers: list[Path]) -> None:
    """Links are resolved in the whole stack from its root, and none reaches the host."""
    write(layers[2] / "real/file", b"inside")
    write(layers[2] / "canary", b"inside too")
    for number, target in enumerate(
        ["/real/file", "real/file", "../../../real/file", "dir2/file", "/canary"]
    ):
        os.symlink(target, layers[0] / f"link{number}")
    os.symlink("/real", layers[1] / "dir2")
    assert [read(layers, f"/link{number}") for number in range(4)] == [b"inside"] * 4
    assert read(layers, "/link4") == b"inside too"
    os.symlink("../canary", layers[0] / "out")
    os.symlink(str(layers[0].parent / "canary"), layers[0] / "abs")
    os.symlink("/proc/self/environ", layers[0] / "environ")
    assert read(layers, "/out") == b"inside too"
    assert read(layers, "/abs") is None
    assert read(layers, "/environ") is None


def test_link_parents(layers: list[Path]) -> None:
    """Behind a link ``..`` is the parent of the link's target, not of the link."""
    write(layers[2] / "a/b/c/file")
    write(layers[2] / "a/b/other", b"right")
    write(layers[2] / "x/other", b"wrong")
    (layers[0] / "x").mkdir(exist_ok=True)
    os.symlink("/a/b/c", layers[0] / "x/link")
    assert read(layers, "/x/link/../other") == b"right"


def test_link_limits(layers: list[Path]) -> None:
    """Forty links are followed; a loop and a longer chain are refused."""
    write(layers[0] / "l0")
    for number in range(1, 50):
        os.symlink(f"l{number - 1}", layers[0] / f"l{number}")
    os.symlink("loop", layers[0] / "loop")
    assert read(layers, "/l40") == b"data"
    for path in ("/l41", "/loop"):
        with pytest.raises(InvalidInputError, match="links"):
            read(layers, path)


def test_only_regular_files_are_read(layers: list[Path]) -> None:
    """Fifos, devices, sockets and directories are refused at once, without being opened."""
    os.mkfifo(layers[0] / "fifo")
    os.mknod(layers[0] / "zero", stat.S_IFCHR | 0o666, os.makedev(1, 5))
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(layers[0] / "socket"))
    (layers[0] / "dir").mkdir()
    for name in ("fifo", "zero", "socket", "dir", ""):
        with pytest.raises(InvalidInputError, match="regular"):
            read(layers, f"/{name}")


def test_size_is_bounded(layers: list[Path]) -> None:
    """A file of the limit is read, a larger one is refused without being read."""
    write(layers[0] / "fits", b"x" * LIMIT)
    write(layers[0] / "sparse")
    os.truncate(layers[0] / "sparse", 1 << 40)
    assert read(layers, "/fits") == b"x" * LIMIT
    with pytest.raises(InvalidInputError, match="limit"):
        read(layers, "/sparse")


@pytest.mark.parametrize("path", ["\0", "/etc/\0passwd", "n" * 300, "/" + "n" * 300])
def test_bad_paths(layers: list[Path], path: str) -> None:
    """A path that no file can have is refused."""
    with pytest.raises(InvalidInputError):
        read(layers, path)


def test_long_links(layers: list[Path]) -> None:
    """Links that expand to more and more components are refused in bounded time."""
    (layers[0] / "d").mkdir()
    os.symlink("d", layers[0] / "l0")
    for number in range(1, 12):
        os.symlink("/".join([f"l{number - 1}", ".."] * 100), layers[0] / f"l{number}")
    with pytest.raises(InvalidInputError):
        read(layers, "/l11/x")


def test_deep_directories(layers: list[Path]) -> None:
    """A path through more directories than any system has does not use up descriptors."""
    deep = "d/" * 200
    write(layers[0] / deep / "file")
    with pytest.raises(InvalidInputError, match="deep"):
        read(layers, deep + "file")


def test_missing_layer(tmp_path: Path) -> None:
    """A layer directory that is gone is an error of the disk, not an absent file."""
    with pytest.raises(FileNotFoundError):
        read([tmp_path / "missing"], "/x")
