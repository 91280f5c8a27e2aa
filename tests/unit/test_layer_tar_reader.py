from __future__ import annotations

import io
import os
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.archives import BLOCK, END, archive, base256, directory, file, header, member, pax

from containerlib.errors import LayerError, UnsupportedLayer
from containerlib.layer.tar_reader import TarEntry, TarReader


def read(data: bytes) -> list[tuple[TarEntry, bytes]]:
    """Return every entry of an archive with its content."""
    reader = TarReader(io.BytesIO(data))
    return [(entry, reader.read(1 << 30)) for entry in reader]


def read_one(*members: bytes) -> TarEntry:
    """Return the only entry of an archive."""
    ((entry, _),) = read(archive(*members))
    return entry


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
def test_standard_library_archives(form: int) -> None:
    """What the standard library writes in each of its formats is read as it was meant."""
    out = io.BytesIO()
    long = "" if form == tarfile.USTAR_FORMAT else "x" * 120 + "/"
    with tarfile.open(fileobj=out, mode="w", format=form) as archive_file:
        for number in range(5):
            info = tarfile.TarInfo(f"{long}file{number}")
            info.size, info.mode, info.uid, info.mtime = number * 600, 0o640, 1000, 7
            archive_file.addfile(info, io.BytesIO(bytes([number]) * info.size))
        info = tarfile.TarInfo(f"{long}link")
        info.type, info.linkname = tarfile.SYMTYPE, "t" * (90 + len(long))
        archive_file.addfile(info)
    found = read(out.getvalue())
    assert [data for _, data in found[:5]] == [bytes([number]) * number * 600 for number in range(5)]
    entry = found[4][0]
    assert (entry.name.decode(), entry.mode, entry.uid, entry.mtime_ns) == (
        f"{long}file4",
        0o640,
        1000,
        7 * 10**9,
    )
    assert found[5][0].linkname == b"t" * (90 + len(long))


def test_unread_content_is_skipped() -> None:
    """Who does not read an entry's content gets to the next entry all the same."""
    reader = TarReader(io.BytesIO(archive(file(b"a", b"x" * 1000), file(b"b"))))
    assert [entry.name for entry in reader] == [b"a", b"b"]


def test_prefix_belongs_to_ustar_only() -> None:
    """The prefix field is part of the name in ustar, and something else in GNU archives."""
    assert read_one(file(b"name", prefix=b"dir")).name == b"dir/name"
    assert read_one(file(b"name", prefix=b"dir", magic=b"ustar  \0")).name == b"name"
    assert read_one(file(b"name", prefix=b"dir", magic=b"")).name == b"name"


def test_extended_header_overrides() -> None:
    """Extended records take the place of the fields they name."""
    entry = read_one(
        pax(
            (b"path", b"long/name"),
            (b"linkpath", b"target"),
            (b"uid", b"3000000000"),
            (b"mtime", b"1.25"),
            (b"SCHILY.xattr.user.a", b"v\n=\0"),
        ),
        member(b"short", b"2", linkname=b"x"),
    )
    assert (entry.name, entry.linkname, entry.uid, entry.mtime_ns, entry.xattrs) == (
        b"long/name",
        b"target",
        3_000_000_000,
        1_250_000_000,
        {"user.a": b"v\n=\0"},
    )


def test_extended_size_rules() -> None:
    """The size of an extended header is the size of the content."""
    ((entry, data), (second, _)) = read(
        pax((b"size", b"4")) + header(b"a") + b"data" + bytes(508) + file(b"b") + END
    )
    assert (entry.size, data, second.name) == (4, b"data", b"b")


def test_global_header_is_ignored() -> None:
    """A global header names nothing, as in Docker: it could rename every entry."""
    assert read_one(pax((b"path", b"evil"), kind=b"g"), file(b"good")).name == b"good"


def test_extended_header_is_for_one_entry() -> None:
    """The entry behind the next one has its own name again."""
    entries = read(archive(pax((b"path", b"a")), file(b"x"), file(b"b")))
    assert [entry.name for entry, _ in entries] == [b"a", b"b"]


def test_links_have_no_content() -> None:
    """A size in the header of a link is no content, or two readers would see different entries."""
    entries = read(archive(member(b"a", b"1", linkname=b"b", size=512), file(b"c")))
    assert [entry.name for entry, _ in entries] == [b"a", b"c"]


def test_numbers() -> None:
    """Octal numbers with any padding and binary ones are read."""
    assert read_one(file(b"a", uid=b" 17\0", gid=base256(2**32 - 2, 8))).gid == 2**32 - 2
    assert read_one(file(b"a", uid=b" 17 \0\0\0\0")).uid == 15
    assert read_one(file(b"a", mtime=base256(-5, 12))).mtime_ns == 0
    assert read_one(file(b"a", mtime=base256(2**60, 12))).mtime_ns == 0
    assert read_one(pax((b"mtime", b"-1.5")), file(b"a")).mtime_ns == 0
    assert read_one(file(b"a", mode=0o107755)).mode == 0o7755


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(archive(member(b"a", b"S")), id="sparse GNU"),
        pytest.param(archive(pax((b"GNU.sparse.major", b"1")), file(b"a")), id="sparse PAX"),
        pytest.param(archive(pax((b"GNU.sparse.map", b"0,-1")), file(b"a")), id="sparse map"),
        pytest.param(archive(member(b"a", b"V")), id="volume"),
        pytest.param(archive(member(b"a", b"s")), id="socket type"),
        pytest.param(archive(member(b"a", b"\xff")), id="unknown type"),
        pytest.param(archive(file(b"a", checksum=b"0000000\0")), id="checksum"),
        pytest.param(archive(file(b"a", checksum=b"99999999")), id="checksum not octal"),
        pytest.param(archive(file(b"a", size=base256(-1, 12), data=b"")), id="negative size"),
        pytest.param(archive(file(b"a", size=base256(2**63, 12), data=b"")), id="8 EiB"),
        pytest.param(archive(file(b"a", size=2000, data=b"x")), id="size beyond the end"),
        pytest.param(archive(file(b"a", uid=base256(2**32 - 1, 8))), id="uid -1"),
        pytest.param(archive(file(b"a", gid=base256(2**32, 8))), id="gid over"),
        pytest.param(archive(file(b"a", uid=base256(-2, 8))), id="negative uid"),
        pytest.param(archive(file(b"a", uid=b"1_0\0")), id="underscore"),
        pytest.param(archive(file(b"a", uid=b"-1\0")), id="minus"),
        pytest.param(archive(pax((b"uid", b"-1")), file(b"a")), id="PAX uid -1"),
        pytest.param(archive(pax((b"uid", b"4294967295")), file(b"a")), id="PAX uid over"),
        pytest.param(archive(pax((b"uid", b"0x10")), file(b"a")), id="PAX uid hex"),
        pytest.param(archive(pax((b"size", b"99999999999999999999")), file(b"a")), id="PAX size"),
        pytest.param(archive(pax((b"mtime", b"1e9")), file(b"a")), id="PAX mtime"),
        pytest.param(archive(pax((b"path", b"a\0b")), file(b"a")), id="PAX path NUL"),
        pytest.param(archive(pax((b"path", b"a" * 4097)), file(b"a")), id="PAX path long"),
        pytest.param(archive(pax((b"", b"x")), file(b"a")), id="PAX without key"),
        pytest.param(archive(pax((b"SCHILY.xattr.", b"x")), file(b"a")), id="xattr without name"),
        pytest.param(archive(pax((b"SCHILY.xattr." + b"n" * 256, b"x")), file(b"a")), id="xattr name"),
        pytest.param(archive(pax((b"SCHILY.xattr.user.a", bytes(70_000))), file(b"a")), id="xattr value"),
        pytest.param(archive(member(b"x", b"x", b"5 a=b\n"), file(b"a")), id="PAX length short"),
        pytest.param(archive(member(b"x", b"x", b"999 a=b\n"), file(b"a")), id="PAX length long"),
        pytest.param(archive(member(b"x", b"x", b"-6 a=b\n"), file(b"a")), id="PAX length negative"),
        pytest.param(archive(member(b"x", b"x", b"0 a=b\n"), file(b"a")), id="PAX length zero"),
        pytest.param(archive(member(b"x", b"x", b"6 a=bX"), file(b"a")), id="PAX no newline"),
        pytest.param(archive(member(b"x", b"x", b"6 abc\n"), file(b"a")), id="PAX no equals"),
        pytest.param(archive(member(b"x", b"x", "٦ a=b\n".encode()), file(b"a")), id="PAX other digits"),
        pytest.param(archive(pax((b"a", b"x" * (1 << 20))), file(b"a")), id="PAX 1 MiB"),
        pytest.param(archive(member(b"x", b"L", b"n" * ((1 << 20) + 1)), file(b"a")), id="long name 1 MiB"),
        pytest.param(archive(member(b"x", b"L", b"n" * 5000), file(b"a")), id="long name"),
        pytest.param(archive(header(b"x", b"L", size=2**40)), id="long name claims 1 TiB"),
        pytest.param(archive(pax((b"path", b"b"))), id="PAX before the end"),
        pytest.param(pax((b"path", b"b")), id="PAX at the end"),
        pytest.param(
            archive(directory(b"d/", size=4), b"data".ljust(512, b"\0")), id="directory with content"
        ),
        pytest.param(archive(member(b"d/", b"\0", b"data")), id="old directory with content"),
        pytest.param(bytes(BLOCK) + file(b"a") + END, id="one zero block"),
        pytest.param(b"not an archive at all", id="text"),
        pytest.param(os.urandom(2048), id="noise"),
    ],
)
def test_damaged_archives_are_refused(data: bytes) -> None:
    """Whatever is wrong with an archive, reading it raises UnsupportedLayer."""
    with pytest.raises(UnsupportedLayer):
        read(data)


def test_truncation_at_every_block() -> None:
    """An archive cut off anywhere is an error, except between entries, where the end mark may be missing."""
    whole = [pax((b"path", b"p")) + file(b"a", b"x" * 1500), directory(b"d/"), file(b"e", b"y" * 512)]
    data = archive(*whole)
    boundaries = {sum(map(len, whole[:count])) for count in range(4)} | {len(data) - BLOCK, len(data)}
    for end in range(0, len(data) + 1, 256):
        if end in boundaries:
            assert len(read(data[:end])) <= 3
        else:
            with pytest.raises(UnsupportedLayer):
                read(data[:end])


def test_padding_may_be_missing_at_the_end() -> None:
    """The last file needs no padding if nothing follows, as programs in Go leave it, but all its content."""
    whole = directory(b"d/") + file(b"a", b"x" * 520)
    content = len(directory(b"d/")) + BLOCK + 520
    for end in (content, content + 1, len(whole) - 1):
        assert [entry.name for entry, _ in read(whole[:end])] == [b"d/", b"a"]
    with pytest.raises(UnsupportedLayer, match="middle of a file"):
        read(whole[: content - 1])


def test_what_follows_the_end_is_not_read() -> None:
    """The end mark ends an archive, even if another archive follows."""
    assert [entry.name for entry, _ in read(archive(file(b"a")) + archive(file(b"b")))] == [b"a"]


@given(st.data())
def test_damage_raises_nothing_else(data: st.DataObject) -> None:
    """An archive with random bytes changed is read or raises a LayerError."""
    raw = bytearray(
        archive(pax((b"path", b"p"), (b"mtime", b"1.5")), file(b"a"), member(b"b", b"2", linkname=b"a"))
    )
    for _ in range(data.draw(st.integers(1, 5))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    # Repair the checksums half of the time, or nothing behind them would ever be reached.
    if data.draw(st.booleans()):
        for start in range(0, len(raw) - len(END), BLOCK):
            if raw[start + 257 : start + 262] == b"ustar":
                raw[start + 148 : start + 156] = b" " * 8
                raw[start + 148 : start + 156] = b"%06o\0 " % sum(raw[start : start + BLOCK])
    try:
        read(bytes(raw))
    except LayerError:
        return
