"""Layers with one of everything that a layer may hold, written by GNU tar from directories made here."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

from support.engine import busybox_tree

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["MANY", "PROGRAMS", "fill_base", "fill_changes", "tar_of", "zoo_layers"]

PROGRAMS = ("tar", "setcap", "setfattr", "busybox")
MANY = 1200
_TAR = ["tar", "--create", "--format=posix", "--numeric-owner", "--sort=name"]
_XATTRS = ["--xattrs", "--xattrs-include=*"]


def zoo_layers(work: Path) -> list[bytes]:
    """Return three layers: everything, changes with all kinds of whiteouts, and one after that."""
    trees = [work / name for name in ("base", "changes", "again")]
    for tree in trees:
        tree.mkdir()
    fill_base(trees[0])
    fill_changes(trees[1])
    (trees[2] / "etc").mkdir()
    (trees[2] / "etc" / "gone").write_text("back again", encoding="ascii")
    (trees[2] / "opaque").mkdir()
    (trees[2] / "opaque" / ".wh.new").touch()
    (trees[2] / "opaque" / "newer").write_text("newer", encoding="ascii")
    return [tar_of(tree, "--sparse") for tree in trees]


def tar_of(tree: Path, *options: str) -> bytes:
    """Return an archive of a tree, with extended attributes, as GNU tar writes it.

    ``--sparse`` is none of what is always given: podman and docker cannot push again what has sparse files.
    """
    return subprocess.run(
        [*_TAR, *_XATTRS, *options, "-C", tree, "."], check=True, capture_output=True
    ).stdout


def fill_base(tree: Path) -> None:
    """Make a tree with busybox and one of everything."""
    busybox_tree(tree)
    for number in range(MANY):
        path = tree / "many" / f"d{number // 100}" / f"file-{number}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{number}\n" * (number % 50), encoding="ascii")
    for name in ("gone", "kept", "replaced"):
        (tree / "etc" / name).write_text(name, encoding="ascii")
    for name in ("gone-directory/below", "opaque/below", "becomes-file/below", "mode/below"):
        (tree / name).mkdir(parents=True)
        (tree / name / "file").write_text(name, encoding="ascii")
    (tree / "becomes-directory").write_text("file", encoding="ascii")
    (tree / "becomes-link").write_text("file", encoding="ascii")
    _fill_names(tree / "names")
    _fill_links(tree / "links")
    _fill_attributes(tree / "attributes")


def _fill_names(tree: Path) -> None:
    long = tree / ("d" * 120) / ("e" * 120)
    long.mkdir(parents=True)
    (long / ("f" * 255)).write_text("long", encoding="ascii")
    for name in ("with space", "umlaut-äöü-漢字", "new\nline", "back\\slash", ".hidden", "-dash", "*"):
        (tree / name).write_text(name, encoding="utf-8")


def _fill_links(tree: Path) -> None:
    (tree / "sub").mkdir(parents=True)
    (tree / "first").write_text("many names", encoding="ascii")
    (tree / "second").hardlink_to(tree / "first")
    (tree / "sub" / "third").hardlink_to(tree / "first")
    for name, target in (("relative", "first"), ("absolute", "/etc/kept"), ("dangling", "/no/where")):
        (tree / name).symlink_to(target)
    (tree / "long").symlink_to("x/" * 150)
    (tree / "to-directory").symlink_to("sub")
    (tree / "second-link").symlink_to("relative")
    os.link(tree / "second-link", tree / "same-link", follow_symlinks=False)


def _fill_attributes(tree: Path) -> None:
    tree.mkdir()
    for mode in (0o4755, 0o2755, 0o1755, 0o000, 0o777):
        path = tree / f"mode-{mode:o}"
        path.write_text("mode", encoding="ascii")
        path.chmod(mode)
    (tree / "sticky").mkdir()
    (tree / "sticky").chmod(0o3777)
    for uid, gid in ((1000, 1001), (65534, 65534), (3_000_000, 2_000_000_000)):
        path = tree / f"owner-{uid}"
        path.write_text("owner", encoding="ascii")
        os.chown(path, uid, gid)
    for stamp in (0, 1_000_000_000, 4_500_000_000):
        path = tree / f"time-{stamp}"
        path.write_text("time", encoding="ascii")
        os.utime(path, (stamp, stamp))
    os.utime(tree / "time-0", ns=(1_234_567_890, 1_234_567_890))
    os.mkfifo(tree / "fifo", 0o640)
    with (tree / "sparse").open("wb") as file:
        file.seek(5_000_000)
        file.write(b"end")
        file.truncate(8_000_000)
    for name in ("capable", "marked"):
        (tree / name).write_bytes(b"\x7fELF")
        (tree / name).chmod(0o755)
    subprocess.run(["setcap", "cap_net_bind_service,cap_chown+ep", tree / "capable"], check=True)
    subprocess.run(["setfattr", "-n", "user.note", "-v", "a note", tree / "marked"], check=True)
    # Not one without a value: to the archives of the Go language that means that there is none.
    subprocess.run(["setfattr", "-n", "user.on.directory", "-v", "1", tree / "sticky"], check=True)


def fill_changes(tree: Path) -> None:
    """Make a layer over what `fill_base` makes: whiteouts, and one kind of file in the place of another."""
    for name in ("etc", "opaque", "becomes-directory", "mode", "many/d1"):
        (tree / name).mkdir(parents=True)
    (tree / "etc" / ".wh.gone").touch()
    (tree / ".wh.gone-directory").touch()
    (tree / "opaque" / ".wh..wh..opq").touch()
    (tree / "opaque" / "new").write_text("new", encoding="ascii")
    (tree / "etc" / "replaced").write_text("in the second layer", encoding="ascii")
    (tree / "becomes-file").write_text("now a file", encoding="ascii")
    (tree / "becomes-directory" / "inside").write_text("now a directory", encoding="ascii")
    (tree / "becomes-link").symlink_to("etc/kept")
    (tree / "mode").chmod(0o700)
    os.chown(tree / "mode", 12, 34)
    for number in range(100, 200, 2):
        (tree / "many" / "d1" / f".wh.file-{number}").touch()
