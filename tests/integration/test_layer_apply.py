from __future__ import annotations

import hashlib
import io
import os
import stat
import time
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.archives import END, archive, base256, directory, file, link, member, pax, symlink

from containerlib._util.remove_tree import remove_tree
from containerlib.errors import LayerError, UnsafePath, UnsupportedLayer
from containerlib.layer.apply import ApplyLimits, ApplyResult, Devices, apply_layer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.root

OPAQUE = b".wh..wh..opq"


class Place:
    """A directory to apply layers to, and a canary tree beside it that nothing may touch."""

    def __init__(self, base: Path) -> None:
        self.root = base / "root"
        self.canary = base / "canary"
        self.root.mkdir(0o755)
        self.canary.mkdir(0o711)
        (self.canary / "file").write_bytes(b"safe")
        os.chmod(self.canary / "file", 0o640)
        (self.canary / "directory").mkdir(0o750)
        self._before = self.state(self.canary)

    def apply(
        self, *members: bytes, devices: Devices = "refuse", limits: ApplyLimits | None = None
    ) -> ApplyResult:
        """Apply an archive of these members."""
        return self.apply_raw(archive(*members), devices=devices, limits=limits)

    def apply_raw(
        self, data: bytes, *, devices: Devices = "refuse", limits: ApplyLimits | None = None
    ) -> ApplyResult:
        """Apply these bytes."""
        fd = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY)
        try:
            return apply_layer(io.BytesIO(data), fd, devices=devices, limits=limits)
        finally:
            os.close(fd)

    def paths(self) -> list[str]:
        """Return what is in the root, sorted."""
        return sorted(
            os.path.relpath(os.path.join(top, name), self.root)
            for top, directories, files in os.walk(self.root)
            for name in directories + files
        )

    def check_canary(self) -> None:
        """Assert that the canary and everything about it is as it was."""
        assert self.state(self.canary) == self._before

    @staticmethod
    def state(path: Path) -> list[tuple[object, ...]]:
        """Return all that could be changed about a tree."""
        result = []
        for item in sorted([path, *path.rglob("*")]):
            info = item.lstat()
            content = hashlib.sha256(item.read_bytes()).digest() if stat.S_ISREG(info.st_mode) else b""
            result.append(
                (
                    *(str(item), info.st_mode, info.st_uid, info.st_gid, info.st_nlink, info.st_mtime_ns),
                    *(info.st_ctime_ns, content, tuple(os.listxattr(item, follow_symlinks=False))),
                )
            )
        return result


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    """Give a place and check its canary at the end."""
    result = Place(tmp_path)
    yield result
    result.check_canary()


def is_whiteout(path: Path) -> bool:
    """Say whether `path` is what overlayfs takes for a removed file."""
    info = path.lstat()
    return stat.S_ISCHR(info.st_mode) and info.st_rdev == 0


def is_opaque(path: Path) -> bool:
    """Say whether overlayfs shows nothing from below in directory `path`."""
    return (
        "trusted.overlay.opaque" in os.listxattr(path) and os.getxattr(path, "trusted.overlay.opaque") == b"y"
    )


def test_every_kind_of_entry(place: Place) -> None:
    """Files, directories, links and fifos come out with owner, mode, time and attributes."""
    result = place.apply(
        directory(b"./", mode=0o711, mtime=9),
        directory(b"./d/", mode=0o2750, uid=3, gid=4, mtime=11),
        pax((b"SCHILY.xattr.user.note", b"x\0y"), (b"mtime", b"5.5")),
        file(b"./d/f", b"content", mode=0o4755, uid=1000, gid=1001),
        link(b"./d/hard", b"./d/f"),
        symlink(b"./d/soft", b"../../../etc/passwd"),
        link(b"./d/hardsoft", b"./d/soft"),
        member(b"./d/pipe", b"6", mode=0o606, uid=5, gid=6),
    )
    assert result == ApplyResult(entries=7, size_bytes=7)
    info = os.stat(place.root / "d/f")
    assert (place.root / "d/f").read_bytes() == b"content"
    assert (info.st_mode, info.st_uid, info.st_gid) == (stat.S_IFREG | 0o4755, 1000, 1001)
    assert (info.st_mtime_ns, info.st_nlink) == (5_500_000_000, 2)
    assert os.getxattr(place.root / "d/f", "user.note") == b"x\0y"
    assert os.stat(place.root / "d/hard").st_ino == info.st_ino
    assert os.readlink(place.root / "d/hardsoft") == "../../../etc/passwd"
    assert os.lstat(place.root / "d/hardsoft").st_ino == os.lstat(place.root / "d/soft").st_ino
    pipe = os.lstat(place.root / "d/pipe")
    assert (pipe.st_mode, pipe.st_uid, pipe.st_gid) == (stat.S_IFIFO | 0o606, 5, 6)
    top = os.stat(place.root / "d")
    assert (stat.S_IMODE(top.st_mode), top.st_uid, top.st_gid) == (0o2750, 3, 4)
    assert top.st_mtime_ns == 11 * 10**9
    assert (stat.S_IMODE(os.stat(place.root).st_mode), os.stat(place.root).st_mtime) == (0o711, 9)


def test_modes_do_not_depend_on_the_umask(place: Place) -> None:
    """The archive's modes hold under any umask, and implied directories are 0755 and root's."""
    for mask in (0o000, 0o777):
        old = os.umask(mask)
        try:
            place.apply(directory(b"s", mode=0o2777, gid=7), file(b"s/implied/%o" % mask, mode=0o666))
        finally:
            os.umask(old)
        assert stat.S_IMODE(os.stat(place.root / f"s/implied/{mask:o}").st_mode) == 0o666
    info = os.stat(place.root / "s/implied")
    assert (stat.S_IMODE(info.st_mode), info.st_uid, info.st_gid) == (0o755, 0, 0)


HARMLESS = {
    "nothing": ([], []),
    "absolute name": ([file(b"/etc/x")], ["etc", "etc/x"]),
    "many slashes": ([file(b"//a///b")], ["a", "a/b"]),
    "dots inside": ([file(b"a/./b/../c")], ["a", "a/c"]),
    "root entry ./": ([directory(b"./")], []),
    "root entry .": ([directory(b".")], []),
    "root entry /": ([directory(b"/")], []),
    "root twice": ([directory(b"./"), file(b"a"), directory(b"./")], ["a"]),
    "name with newline": ([file(b"a\nb")], ["a\nb"]),
    "name not UTF-8": ([file(b"\xff\xfe")], ["\udcff\udcfe"]),
    "right-to-left name": ([file("\u202egpj.exe".encode())], ["\u202egpj.exe"]),
    "case collision": ([file(b"A"), file(b"a")], ["A", "a"]),
    "name of 255 bytes": ([pax((b"path", b"n" * 255)), file(b"x")], ["n" * 255]),
    "absolute link inside": (
        [directory(b"run"), symlink(b"var", b"/run"), file(b"var/x")],
        ["run", "run/x", "var"],
    ),
    "relative link inside": (
        [directory(b"usr/bin"), symlink(b"bin", b"usr/bin"), file(b"bin/sh")],
        ["bin", "usr", "usr/bin", "usr/bin/sh"],
    ),
    "link above the root": (
        [directory(b"x"), symlink(b"up", b"../../../../x"), file(b"up/f")],
        ["up", "x", "x/f"],
    ),
    "link to missing directory": (
        [symlink(b"lib", b"/usr/lib"), file(b"lib/x")],
        ["lib", "usr", "usr/lib", "usr/lib/x"],
    ),
    "chain of 40 links": (
        [directory(b"l0"), *(symlink(b"l%d" % n, b"l%d" % (n - 1)) for n in range(1, 41)), file(b"l40/f")],
        sorted(["l0/f", *(f"l{n}" for n in range(41))]),
    ),
    "file twice": ([file(b"a", b"1"), file(b"a", b"2")], ["a"]),
    "file then directory": ([file(b"a"), directory(b"a"), file(b"a/b")], ["a", "a/b"]),
    "directory then file": ([file(b"a/b/c"), file(b"a")], ["a"]),
    "directory then link": (
        [file(b"a/b"), directory(b"c"), symlink(b"a", b"c"), file(b"a/d")],
        ["a", "c", "c/d"],
    ),
    "link then directory": (
        [directory(b"c"), symlink(b"a", b"c"), directory(b"a"), file(b"a/d")],
        ["a", "a/d", "c"],
    ),
    "link then file": ([symlink(b"a", b"/canary"), file(b"a")], ["a"]),
    "link to itself replaced": ([symlink(b"a", b"a"), file(b"a")], ["a"]),
    "hard link twice": ([file(b"a"), link(b"b", b"a"), link(b"b", b"a")], ["a", "b"]),
    "hard link to itself": ([file(b"a"), link(b"a", b"a")], ["a"]),
    "hard link over a file": ([file(b"a"), file(b"b"), link(b"b", b"a")], ["a", "b"]),
    "hard link over a directory": ([file(b"a"), file(b"b/c"), link(b"b", b"a")], ["a", "b"]),
    "hard link through a link": (
        [file(b"d/a"), symlink(b"l", b"/d"), link(b"b", b"l/a")],
        ["b", "d", "d/a", "l"],
    ),
    "hard link with dots": ([file(b"d/a"), link(b"b", b"/./d/x/../a")], ["b", "d", "d/a"]),
    "fifo replaced": ([member(b"a", b"6"), file(b"a")], ["a"]),
    "old records": ([directory(b".wh..wh.plnk"), file(b".wh..wh.plnk/1"), file(b".wh..wh.aufs")], []),
    "concatenated archives": ([file(b"a"), END, file(b"b")], ["a"]),
    "trailing garbage": ([file(b"a"), END, b"garbage" * 100], ["a"]),
    "negative time": ([file(b"a", mtime=base256(-1, 12))], ["a"]),
    "huge time": ([file(b"a", mtime=base256(2**62, 12))], ["a"]),
}


@pytest.mark.parametrize("case", HARMLESS)
@pytest.mark.parametrize("populated", [False, True])
def test_odd_archives_stay_inside(place: Place, case: str, populated: bool) -> None:  # noqa: FBT001
    """What is only odd is applied inside the root, and what is there already stays."""
    members, expected = HARMLESS[case]
    old = ["zz", "zz/old"] if populated else []
    if populated:
        place.apply(file(b"zz/old"))
    place.apply(*members)
    assert place.paths() == sorted(expected + old)


HOSTILE: dict[str, list[bytes]] = {
    "climbing name": [file(b"../canary/file")],
    "climbing name, deeper": [file(b"a/../../canary/file")],
    "climbing directory": [directory(b"../canary")],
    "climbing link": [symlink(b"../canary/link", b"x")],
    "climbing absolute name": [file(b"/../canary/file")],
    "name ..": [directory(b"..")],
    "climbing PAX name": [pax((b"path", b"../canary/file")), file(b"good")],
    "climbing GNU name": [member(b"x", b"L", b"../canary/file\0"), file(b"good")],
    "climbing prefix": [file(b"file", prefix=b"../canary")],
    "empty name": [file(b"")],
    "root as file": [file(b"./")],
    "root as link": [symlink(b".", b"../canary")],
    "root as hard link": [file(b"a"), link(b"/", b"a")],
    "root as fifo": [member(b"./", b"6")],
    "root by dots": [symlink(b"a/..", b"../canary")],
    "file as directory": [file(b"a"), file(b"a/b")],
    "fifo as directory": [member(b"a", b"6"), file(b"a/b")],
    "link to file as directory": [file(b"f"), symlink(b"a", b"f"), file(b"a/b")],
    "link loop": [symlink(b"a", b"b"), symlink(b"b", b"a"), file(b"a/x")],
    "link to itself": [symlink(b"a", b"a"), file(b"a/x")],
    "chain of 45 links": [
        directory(b"l0"),
        *(symlink(b"l%d" % n, b"l%d" % (n - 1)) for n in range(1, 46)),
        file(b"l45/f"),
    ],
    "links that explode": [
        directory(b"d"),
        *(symlink(b"l%d" % n, b"/".join([b"l%d" % (n - 1), b".."] * 20)) for n in range(1, 9)),
        symlink(b"l0", b"d"),
        file(b"l8/f"),
    ],
    "empty link": [symlink(b"a", b"")],
    "hard link climbing": [link(b"a", b"../canary/file")],
    "hard link climbing, deeper": [link(b"a", b"x/../../canary/file")],
    "hard link to absolute": [link(b"a", b"/canary/file")],
    "hard link through a link outside": [symlink(b"l", b"../canary"), link(b"a", b"l/file")],
    "hard link to later entry": [link(b"a", b"b"), file(b"b")],
    "hard link to whiteout": [file(b".wh.b"), link(b"a", b"b")],
    "hard link to directory": [directory(b"d"), link(b"a", b"d")],
    "hard link to root": [link(b"a", b".")],
    "hard link to nothing": [link(b"a", b"")],
    "hard link over its parent": [file(b"d/f"), link(b"d", b"d/f")],
    "PAX hard link climbing": [pax((b"linkpath", b"../canary/file")), link(b"a", b"a")],
    "whiteout of nothing": [file(b".wh.")],
    "whiteout of .": [file(b".wh..")],
    "whiteout of ..": [file(b".wh...")],
    "whiteout of .., deeper": [file(b"d/.wh...")],
    "whiteout of nothing, as directory": [directory(b".wh./")],
    "whiteout as directory": [directory(b".wh.a")],
    "whiteout as parent": [file(b".wh.a/b")],
    "whiteout as link": [symlink(b".wh.a", b"x")],
    "whiteout of a whiteout": [file(b"d/.wh..wh.x")],
    "whiteout through a link": [directory(b"d"), symlink(b"l", b"d"), file(b"l/.wh.x")],
    "whiteout through a link outside": [symlink(b"l", b"../canary"), file(b"l/.wh.file")],
    "opaque through a link": [directory(b"d"), symlink(b"l", b"d"), file(b"l/" + OPAQUE)],
    "opaque through a link outside": [symlink(b"l", b"../canary"), file(b"l/" + OPAQUE)],
    "device 1:3": [member(b"null", b"3", major=1, minor=3)],
    "device 8:0": [member(b"sda", b"4", major=8, minor=0)],
    "device 0:0": [member(b"zero", b"3", major=0, minor=0)],
    "socket": [member(b"sock", b"s")],
    "component of 256 bytes": [pax((b"path", b"n" * 256)), file(b"x")],
    "path of 5000 bytes": [pax((b"path", b"a/" * 2500 + b"f")), file(b"x")],
    "link target of 4096 bytes": [pax((b"linkpath", b"t" * 4096)), symlink(b"a", b"x")],
    "GNU link target with components of 300 bytes": [
        pax((b"linkpath", b"t" * 300)),
        symlink(b"a", b"x"),
        file(b"a/b"),
    ],
    "uid -1": [file(b"a", uid=base256(2**32 - 1, 8))],
    "uid over": [file(b"a", uid=base256(2**32, 8))],
    "uid negative": [file(b"a", uid=base256(-1, 8))],
    "sparse without what it says to hold": [member(b"a", b"S", b"x")],
    "sparse with negative map": [pax((b"GNU.sparse.map", b"-1,5")), file(b"a")],
    "8 EiB": [file(b"a", b"", size=base256(2**63, 12))],
    "1 EiB": [file(b"a", b"", size=base256(2**60, 12))],
    "capability of wrong form": [pax((b"SCHILY.xattr.security.capability", b"x")), file(b"a")],
    "xattr value too long": [pax((b"SCHILY.xattr.user.a", b"x" * 65_537)), file(b"a")],
}


@pytest.mark.parametrize("case", HOSTILE)
@pytest.mark.parametrize("populated", [False, True])
def test_hostile_archives_are_refused(place: Place, case: str, populated: bool) -> None:  # noqa: FBT001
    """What could harm is refused by a LayerError, and nothing outside the root changes."""
    if populated:
        place.apply(file(b"old/file"), symlink(b"out", b"../canary"), directory(b"x/y"), file(b"f"))
    with pytest.raises(LayerError):
        place.apply(*HOSTILE[case])


def test_link_outside_is_resolved_inside(place: Place) -> None:
    """Writing through a link to the host ends up below the root, at the path the container sees."""
    target = os.fsencode(place.canary)
    place.apply(symlink(b"abs", target), symlink(b"rel", b"../canary"), file(b"abs/file"), file(b"rel/file"))
    assert (place.root / str(place.canary).lstrip("/") / "file").read_bytes() == b"data"
    assert (place.root / "canary/file").read_bytes() == b"data"


def test_device_error_names_the_entry(place: Place) -> None:
    """A refused device is reported by its name."""
    with pytest.raises(UnsafePath) as caught:
        place.apply(member(b"./dev/null", b"3", major=1, minor=3))
    assert caught.value.entry == "./dev/null"


def test_devices_can_be_made(place: Place) -> None:
    """Device nodes are made if the caller says so, but no whiteouts and no impossible numbers."""
    place.apply(member(b"null", b"3", major=1, minor=3, mode=0o666), devices="create")
    info = os.lstat(place.root / "null")
    assert (stat.S_ISCHR(info.st_mode), info.st_rdev) == (True, os.makedev(1, 3))
    assert stat.S_IMODE(info.st_mode) == 0o666
    for major, minor in ((0, 0), (4096, 0), (1, 1 << 20)):
        with pytest.raises(UnsafePath):
            place.apply(member(b"x", b"3", major=major, minor=base256(minor, 8)), devices="create")


def test_whiteouts(place: Place) -> None:
    """A whiteout becomes a character device 0:0, an opaque marker an attribute of its directory."""
    place.apply(file(b".wh.gone"), file(b"d/.wh.x"), file(b"o/" + OPAQUE), file(b"o/new"), file(OPAQUE))
    assert is_whiteout(place.root / "gone")
    assert is_whiteout(place.root / "d/x")
    assert is_opaque(place.root / "o")
    assert is_opaque(place.root)
    assert place.paths() == ["d", "d/x", "gone", "o", "o/new"]


@pytest.mark.parametrize("whiteout_first", [True, False])
def test_whiteout_hides_only_what_is_below(place: Place, whiteout_first: bool) -> None:  # noqa: FBT001
    """What the same layer brings under a removed name stays, and a directory starts empty."""
    entries = [[file(b"a")], [directory(b"b", mode=0o700), file(b"b/x")], [file(b"c/x")]]
    for number, (name, brought) in enumerate(zip((b".wh.a", b".wh.b", b".wh.c"), entries, strict=True)):
        both = [[file(name)], brought] if whiteout_first else [brought, [file(name)]]
        place.apply(*both[0], *both[1])
        assert is_whiteout(place.root / "a") is False, number
    assert is_opaque(place.root / "b")
    assert is_opaque(place.root / "c")
    assert stat.S_IMODE(os.stat(place.root / "b").st_mode) == 0o700
    assert place.paths() == ["a", "b", "b/x", "c", "c/x"]


def test_many_opaque_markers_are_cheap(place: Place) -> None:
    """A hundred thousand opaque markers on a directory with ten thousand files take seconds."""
    files = [file(b"d/%d" % number, b"") for number in range(10_000)]
    start = time.monotonic()
    place.apply(*files, *([file(b"d/" + OPAQUE, b"")] * 100_000))
    assert time.monotonic() - start < 10
    assert is_opaque(place.root / "d")


def test_overlay_attributes_are_dropped(place: Place) -> None:
    """A layer cannot speak to overlayfs or to a security module; other attributes are kept."""
    place.apply(
        pax(
            (b"SCHILY.xattr.trusted.overlay.opaque", b"y"),
            (b"SCHILY.xattr.trusted.overlay.redirect", b"/canary"),
            (b"SCHILY.xattr.trusted.overlay.metacopy", b""),
            (b"SCHILY.xattr.user.overlay.opaque", b"y"),
            (b"SCHILY.xattr.security.selinux", b"x"),
            (b"SCHILY.xattr.user.kept", b"1"),
        ),
        directory(b"d"),
    )
    assert os.listxattr(place.root / "d") == ["user.kept"]


def test_capabilities_are_kept(place: Place) -> None:
    """File capabilities are set after the owner, which would take them away."""
    value = bytes.fromhex("0100000200200000000000000000000000000000")
    place.apply(pax((b"SCHILY.xattr.security.capability", value)), file(b"ping", uid=5, mode=0o755))
    assert os.getxattr(place.root / "ping", "security.capability") == value


def test_attributes_of_links_are_not_followed(place: Place) -> None:
    """Owner, mode, time and attributes in a link's entry never reach what the link points at."""
    place.apply(
        pax((b"SCHILY.xattr.user.a", b"1")),
        member(b"l", b"2", linkname=os.fsencode(place.canary / "file"), uid=5, mode=0o777, mtime=5),
    )
    assert os.lstat(place.root / "l").st_uid == 5


def test_limits(place: Place) -> None:
    """More entries or more bytes than allowed are refused before they are written."""
    with pytest.raises(UnsupportedLayer, match="3 entries"):
        place.apply(*(file(b"%d" % number) for number in range(4)), limits=ApplyLimits(entries=3))
    with pytest.raises(UnsupportedLayer, match="10 bytes"):
        place.apply(file(b"big", b"x" * 11), limits=ApplyLimits(total_bytes=10))
    assert not (place.root / "big").exists()


def test_deep_paths(place: Place) -> None:
    """The deepest path that the limit allows is made, without using up descriptors."""
    deep = b"d/" * 2000 + b"f"
    try:
        place.apply(pax((b"path", deep)), file(b"x"), pax((b"path", deep[2:])), file(b"x"))
        assert len(os.listdir("/proc/self/fd")) < 100
    finally:
        remove_tree(str(place.root))  # the standard library cannot


def test_truncation_at_every_block(place: Place) -> None:
    """An archive cut anywhere is a LayerError or complete up to an entry, and leaves no descriptor."""
    data = archive(
        directory(b"d"), file(b"d/f", b"x" * 3000), symlink(b"l", b"d"), pax((b"path", b"p")), file(b"x")
    )
    before = len(os.listdir("/proc/self/fd"))
    for end in range(0, len(data), 512):
        try:
            place.apply_raw(data[:end])
        except UnsupportedLayer:
            continue
    assert len(os.listdir("/proc/self/fd")) == before


def test_padding_may_be_missing_at_the_end(place: Place) -> None:
    """A layer may end with the last byte of its last file, as those of umoci insert do, and not before."""
    whole = file(b"f", b"x" * 520)
    with pytest.raises(UnsupportedLayer, match="middle of a file"):
        place.apply_raw(whole[: 512 + 519])
    (place.root / "f").unlink(missing_ok=True)
    place.apply_raw(whole[: 512 + 520])
    assert (place.root / "f").read_bytes() == b"x" * 520


def test_other_file_systems_are_not_entered(tmp_path: Path) -> None:
    """A directory that is a mount point of another file system is refused."""
    fd = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
    try:
        with pytest.raises(UnsafePath, match="another file system"):
            apply_layer(io.BytesIO(archive(file(b"proc/canary"))), fd)
    finally:
        os.close(fd)
    assert os.listdir(tmp_path) == []


NAMES = st.sampled_from(
    [b"a", b"b", b"c", b"a/b", b"b/c", b"a/b/c", b".wh.a", b"a/.wh.b", b"a/" + OPAQUE, b"../x", b"."]
)
TARGETS = st.sampled_from([b"a", b"b", b"..", b"/", b"../canary", b"a/b", b"/b", b"c/..", b"."])


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    st.lists(
        st.one_of(
            NAMES.map(file),
            NAMES.map(directory),
            st.tuples(NAMES, TARGETS).map(lambda pair: symlink(*pair)),
            st.tuples(NAMES, TARGETS).map(lambda pair: link(*pair)),
        ),
        max_size=8,
    )
)
def test_any_sequence_stays_inside(tmp_path_factory: pytest.TempPathFactory, members: list[bytes]) -> None:
    """Any sequence of entries is applied or refused by a LayerError, and the canary survives."""
    place = Place(tmp_path_factory.mktemp("place"))
    try:
        place.apply(*members)
    except LayerError:
        return
    finally:
        place.check_canary()
