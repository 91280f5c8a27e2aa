from __future__ import annotations

import io

import pytest
from support.archives import END, archive, directory, file, link, member, pax, symlink

from containerlib.errors import LayerError
from containerlib.layer.clamp import clamp_times
from containerlib.layer.tar_reader import TarEntry, TarReader


def clamped(data: bytes, latest: int) -> bytes:
    """Return the archive written again."""
    out = io.BytesIO()
    clamp_times(io.BytesIO(data), out, latest_mtime=latest)
    return out.getvalue()


def entries(data: bytes) -> list[TarEntry]:
    """Return what our reader sees."""
    return list(TarReader(io.BytesIO(data)))


MEMBERS = (
    directory(b"./", mode=0o700, mtime=500),
    directory(b"z", mtime=50),
    pax((b"mtime", b"777.25"), (b"SCHILY.xattr.user.x", b"\0=")),
    file(b"z/file", b"content" * 100, mode=0o4755, uid=7, gid=8),
    file(b"z/.wh.gone", b""),
    link(b"a", b"z/file"),
    symlink(b"b", b"../x"),
    member(b"c", b"3", major=1, minor=3, mtime=99),
    member(b"p", b"6", mtime=101),
)


def test_only_times_change() -> None:
    """Order, content, owners, modes, attributes, links and devices stay; times are not later than given."""
    data = archive(*MEMBERS)
    before, after = entries(data), entries(clamped(data, 100))
    assert [entry.mtime_ns for entry in after] == [
        min(entry.mtime_ns // 10**9, 100) * 10**9 for entry in before
    ]
    for old, new in zip(before, after, strict=True):
        assert new.name.rstrip(b"/") == old.name.rstrip(b"/")
        for name in ("kind", "mode", "uid", "gid", "size", "linkname", "major", "minor", "xattrs"):
            assert getattr(new, name) == getattr(old, name), (new.name, name)
    assert b"content" * 100 in clamped(data, 100)


def test_again_changes_nothing() -> None:
    """What was clamped stays as it is, and so does the digest of two archives that only times tell apart."""
    once = clamped(archive(*MEMBERS), 100)
    assert clamped(once, 100) == once
    assert clamped(archive(file(b"a", b"x", mtime=200)), 100) == clamped(
        archive(file(b"a", b"x", mtime=300)), 100
    )


@pytest.mark.parametrize(
    "data",
    [
        archive(file(b"../outside", b"x")),
        archive(link(b"a", b"../../outside")),
        archive(file(b"a", 1000 * b"x"))[:700],
        file(b"a", b"x") + b"not a header".ljust(512, b"x") + END,
    ],
)
def test_bad_archives_are_refused(data: bytes) -> None:
    """Names that lead outside and damaged archives are errors, as in every reader here."""
    with pytest.raises(LayerError):
        clamped(data, 100)
