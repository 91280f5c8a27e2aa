from __future__ import annotations

import functools
import hashlib
import io
import os
import random
import tarfile
from typing import TYPE_CHECKING

import attrs
import pytest

from containerlib.errors import InvalidInputError
from containerlib.layer.archive import LayerEntry, LayerResult, write_layer
from containerlib.layer.tar_reader import TarEntry, TarReader

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

ENTRIES = [
    LayerEntry("etc/passwd", source=b"root:x:0:0::/:/bin/sh\n"),
    LayerEntry("/bin/sh", source=b"#!", mode=0o4755, uid=1, gid=2, mtime=5),
    LayerEntry("bin/link", "symlink", linkname="../etc/passwd"),
    LayerEntry("run/pipe", "fifo", mode=0o600),
    LayerEntry("etc", "directory", mode=0o700, uid=7),
    LayerEntry("bin/ping", source=b"x", xattrs={"security.capability": b"\x01\0\0\x02=\n\xff"}),
    LayerEntry("ä/" + "long" * 40, source=b"y"),
    LayerEntry("d" * 90 + "/" + "e" * 90, source=b""),
    LayerEntry("target", "symlink", linkname="t" * 200),
    LayerEntry("big-owner", source=b"", uid=5_000_000, gid=2**32 - 2),
]


def written(entries: Iterable[LayerEntry], mtime: int = 0) -> tuple[bytes, LayerResult]:
    """Return the archive of `entries`, with what writing it returned."""
    out = io.BytesIO()
    result = write_layer(entries, out, mtime=mtime)
    return out.getvalue(), result


def read_back(data: bytes) -> dict[str, TarEntry]:
    """Return the entries of an archive by name, as our own reader sees them."""
    return {entry.name.decode(): entry for entry in TarReader(io.BytesIO(data))}


def test_order_does_not_matter() -> None:
    """The same entries in any order give the same bytes, and the digest is over exactly these."""
    data, result = written(ENTRIES)
    shuffled = list(ENTRIES)
    for seed in range(5):
        random.Random(seed).shuffle(shuffled)  # noqa: S311 - an order, not a secret
        assert written(shuffled) == (data, result)
    assert result.diff_id == f"sha256:{hashlib.sha256(data).hexdigest()}"
    assert result.size == len(data)
    assert written([*ENTRIES, ENTRIES[0]])[0] == data


def test_digest_is_stable() -> None:
    """The form of an archive never changes, or every image made of host files would get a new id."""
    data, _ = written(ENTRIES[:5])
    assert (
        hashlib.sha256(data).hexdigest() == "69eee78af58aecef76645e3582d2b2b092315f5c882cd6a46141dfde54cba82b"
    )


def test_other_readers_agree() -> None:
    """The standard library reads the same archive as our reader."""
    data, result = written(ENTRIES)
    ours = read_back(data)
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        members = archive.getmembers()
    assert len(members) == len(ours) == result.entries
    for member in members:
        entry = ours[member.name + ("/" if member.isdir() else "")]
        assert (entry.mode, entry.uid, entry.gid, entry.size) == (
            member.mode,
            member.uid,
            member.gid,
            member.size,
        )
        assert entry.linkname.decode() == member.linkname
        assert entry.mtime_ns == member.mtime * 1_000_000_000
        assert (member.uname, member.gname) == ("", "")


def test_parents_come_first() -> None:
    """Missing parents are added with mode 0755, and every directory precedes its content."""
    names = list(read_back(written(ENTRIES)[0]))
    assert names == sorted(names)
    entries = read_back(written([LayerEntry("a/b/c", source=b"")])[0])
    assert [(name, entry.kind, entry.mode) for name, entry in entries.items()] == [
        ("a/", "directory", 0o755),
        ("a/b/", "directory", 0o755),
        ("a/b/c", "file", 0o644),
    ]


def test_times_are_clamped() -> None:
    """No time is later than the layer's, and an entry without one gets that."""
    entries = [LayerEntry("a", source=b"", mtime=50), LayerEntry("b", source=b"", mtime=500), LayerEntry("c")]
    entries[2] = attrs.evolve(entries[2], source=b"")
    times = [entry.mtime_ns // 10**9 for entry in read_back(written(entries, mtime=100)[0]).values()]
    assert times == [50, 100, 100]


def test_xattrs_are_kept() -> None:
    """Capabilities survive, whatever bytes they hold."""
    entry = read_back(written(ENTRIES)[0])["bin/ping"]
    assert entry.xattrs == {"security.capability": b"\x01\0\0\x02=\n\xff"}


def test_devices_and_the_root() -> None:
    """Devices keep their numbers, and the root itself can be an entry, which comes first."""
    entries = [
        LayerEntry("dev/null", "character", mode=0o666, device=(1, 3)),
        LayerEntry("dev/disk", "block", mode=0o660, device=(4095, (1 << 20) - 1)),
        LayerEntry(".", "directory", mode=0o700, uid=1),
    ]
    data, _ = written(entries)
    found = read_back(data)
    assert list(found) == ["./", "dev/", "dev/disk", "dev/null"]
    assert (found["dev/disk"].kind, found["dev/disk"].major, found["dev/disk"].minor) == (
        "block",
        4095,
        1048575,
    )
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        member = archive.getmember("dev/null")
        assert (member.ischr(), member.devmajor, member.devminor) == (True, 1, 3)


def test_whiteouts_come_first() -> None:
    """What is removed from a directory stands before what is added to it, but behind the directory."""
    names = ["a/!first", "a/.wh.gone", "a/.wh..wh..opq", "a", "!", ".wh.x", "a!"]
    entries = [
        LayerEntry(name, source=b"") if name != "a" else LayerEntry("a", "directory") for name in names
    ]
    assert list(read_back(written(entries)[0])) == [
        *(".wh.x", "!", "a/", "a!", "a/.wh..wh..opq", "a/.wh.gone", "a/!first"),
    ]


def test_hard_links_follow_their_target() -> None:
    """A link that sorts before its file becomes the file, and the others link to it."""
    entries = [
        LayerEntry("z", source=b"data", mode=0o755),
        LayerEntry("a", "hardlink", linkname="/z"),
        LayerEntry("m", "hardlink", linkname="z"),
    ]
    found = read_back(written(entries)[0])
    assert [(entry.kind, entry.linkname, entry.size) for entry in found.values()] == [
        ("file", b"", 4),
        ("hardlink", b"a", 0),
        ("hardlink", b"a", 0),
    ]
    assert found["a"].mode == 0o755


@pytest.mark.parametrize(
    "entries",
    [
        [LayerEntry("")],
        [LayerEntry("/")],
        [LayerEntry(".", source=b"")],
        [LayerEntry("a", source=b"", xattrs={"user.a=b": b"c"})],
        [LayerEntry("a/../b", source=b"")],
        [LayerEntry("./a", source=b"")],
        [LayerEntry("a//b", source=b"")],
        [LayerEntry("a\0", source=b"")],
        [LayerEntry("a" * 256, source=b"")],
        [LayerEntry("a/" * 2500 + "a", source=b"")],
        [LayerEntry("a")],
        [LayerEntry("a", source=b"1"), LayerEntry("a", source=b"2")],
        [LayerEntry("a", source=b"1"), LayerEntry("a/b", source=b"2")],
        [LayerEntry("a", "hardlink", linkname="missing")],
        [LayerEntry("d", "directory"), LayerEntry("a", "hardlink", linkname="d")],
        [LayerEntry("a", source="/dev/null")],
        [LayerEntry("a", source="/proc/self/exe", size=1)],
    ],
)
def test_impossible_entries_are_refused(entries: list[LayerEntry]) -> None:
    """Entries that no archive can hold, or that contradict each other, are refused."""
    with pytest.raises(InvalidInputError):
        written(entries)


def test_sources(tmp_path: Path) -> None:
    """Content comes from bytes, from a host file, or from a function, small or large, all alike."""
    for size in (0, 1, 511, 512, 513, 70_000, 2_000_000):
        content = os.urandom(size)
        path = tmp_path / "file"
        path.write_bytes(content)
        archives = {
            written([LayerEntry("f", source=source, size=size)])[0]
            for source in (content, str(path), functools.partial(os.open, path, os.O_RDONLY))
        }
        assert len(archives) == 1
        assert len(archives.pop()) % 512 == 0


def test_growing_file_is_noticed(tmp_path: Path) -> None:
    """A file that is shorter than it was when it was listed is refused."""
    path = tmp_path / "file"
    path.write_bytes(b"x" * 10)
    with pytest.raises(InvalidInputError, match="not the file it was"):
        written([LayerEntry("f", source=str(path), size=11)])
