"""The process that unpacks layers: what it may do, how it ends, and that it agrees with a plain unpacker."""

from __future__ import annotations

import errno
import io
import os
import signal
import stat
import subprocess
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import plain_applier
from support.archives import BLOCK, END, archive, base256, directory, file, header, link, member, pax, symlink

from containerlib._native.ffi import lib
from containerlib._native.unpack import Unpacker
from containerlib._util.remove_tree import remove_tree
from containerlib.errors import LayerError, UnsupportedHost, UnsupportedLayer
from containerlib.layer import apply
from containerlib.layer.apply import apply_layer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.root

PATIENCE = 2000
CAPABILITIES = {
    "CHOWN": 0,
    "DAC_OVERRIDE": 1,
    "FOWNER": 3,
    "FSETID": 4,
    "SYS_ADMIN": 21,
    "MKNOD": 27,
    "SETFCAP": 31,
}


@pytest.fixture
def root(tmp_path: Path) -> Iterator[int]:
    """Give a descriptor of an empty directory."""
    (tmp_path / "root").mkdir()
    fd = os.open(tmp_path / "root", os.O_RDONLY | os.O_DIRECTORY)
    yield fd
    os.close(fd)


def unpacker(root: int) -> Unpacker:
    """Start an unpacker without limits that matter."""
    return Unpacker(root, devices=False, entries=1000, total_bytes=1 << 40)


def pid_of(process: Unpacker) -> int:
    """Return the process id behind its pidfd."""
    with open(f"/proc/self/fdinfo/{process.pidfd}", encoding="ascii") as file:
        return int(next(line.split()[1] for line in file if line.startswith("Pid:")))


def status_of(pid: int) -> dict[str, str]:
    """Return the fields of its status in proc, once it has given up everything."""
    for _ in range(PATIENCE):
        with open(f"/proc/{pid}/status", encoding="ascii") as file:
            status = dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)
        if status["Seccomp"] == "2":
            return status
        os.sched_yield()
    raise AssertionError(f"the unpacker has no filter: {status}")


def test_it_has_given_up_what_it_does_not_need(root: int, tmp_path: Path) -> None:
    """While it waits for its archive it has a root, capabilities, system calls and descriptors of its own."""
    with unpacker(root) as process:
        pid = pid_of(process)
        status = status_of(pid)
        assert os.readlink(f"/proc/{pid}/root") == str(tmp_path / "root")
        assert int(status["CapEff"], 16) & ~sum(1 << bit for bit in CAPABILITIES.values()) == 0
        assert status["CapPrm"] == status["CapEff"]
        assert status["NoNewPrivs"].strip() == "1"
        assert os.path.getsize(f"/proc/{pid}/environ") == 0
        assert os.listdir(f"/proc/{pid}/task") == [str(pid)]
        with open(f"/proc/{pid}/environ", "rb") as environ:
            assert environ.read() == b""
        assert len(os.listdir(f"/proc/{pid}/fd")) <= len(("control", "root", "archive", "owner"))


def test_a_kill_is_an_error_and_no_signal_to_us(root: int) -> None:
    """An unpacker that is killed makes a typed error, whatever was to be written to it."""
    with unpacker(root) as process:
        signal.pidfd_send_signal(process.pidfd, signal.SIGKILL)
        while process.write(bytes(1 << 20)):
            pass
        with pytest.raises(UnsupportedHost, match="ended with 9"):
            process.finish()


def test_it_may_be_left_in_the_middle(root: int) -> None:
    """Leaving the context ends and reaps it; closing again does nothing."""
    with unpacker(root) as process:
        assert process.write(archive(file(b"a"))[:700])
        pidfd = os.dup(process.pidfd)
    process.close()
    with pytest.raises(ProcessLookupError):
        signal.pidfd_send_signal(pidfd, 0)
    os.close(pidfd)


def test_every_reason_has_words() -> None:
    """Each reason of the unpacker is turned into an error of its own kind."""
    names = {name.removeprefix("CTR_UNPACK_").lower() for name in dir(lib) if name.startswith("CTR_UNPACK_")}
    names -= {"text_bytes", "devices", "done", "implied", "system", "confine", "plain"}
    assert names ^ (apply._UNSAFE.keys() | apply._DAMAGED.keys()) == set()


def sparse_header(name: bytes, spans: list[tuple[int, int]], size: int, *, more: bool = False) -> bytes:
    """Return a header of GNU's type for sparse files, with up to four spans."""
    block = bytearray(header(name, b"S", size=sum(length for _, length in spans), magic=b"ustar  \0"))
    for number, (offset, length) in enumerate(spans[:4]):
        block[386 + 24 * number : 386 + 24 * number + 24] = b"%011o\0%011o\0" % (offset, length)
    block[482] = more
    block[483:495] = b"%011o\0" % size
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def padded(data: bytes) -> bytes:
    """Fill up to whole blocks."""
    return data + bytes(-len(data) % BLOCK)


def sparse_0_0(spans: list[tuple[int, int]], size: int, data: bytes) -> bytes:
    """Return a sparse file in PAX form 0.0."""
    records = [(b"GNU.sparse.size", b"%d" % size), (b"GNU.sparse.numblocks", b"%d" % len(spans))]
    for offset, length in spans:
        records += [(b"GNU.sparse.offset", b"%d" % offset), (b"GNU.sparse.numbytes", b"%d" % length)]
    return pax(*records) + file(b"sparse", data)


def sparse_0_1(spans: list[tuple[int, int]], size: int, data: bytes) -> bytes:
    """Return a sparse file in PAX form 0.1."""
    numbers = b",".join(b"%d,%d" % span for span in spans)
    records = [
        (b"GNU.sparse.size", b"%d" % size),
        (b"GNU.sparse.name", b"sparse"),
        (b"GNU.sparse.map", numbers),
    ]
    return pax(*records) + file(b"GNUSparseFile.1/sparse", data)


def sparse_1_0(spans: list[tuple[int, int]], size: int, data: bytes) -> bytes:
    """Return a sparse file in PAX form 1.0."""
    lines = b"".join(b"%d\n%d\n" % span for span in spans)
    records = [
        *((b"GNU.sparse.major", b"1"), (b"GNU.sparse.minor", b"0")),
        *((b"GNU.sparse.name", b"sparse"), (b"GNU.sparse.realsize", b"%d" % size)),
    ]
    return pax(*records) + file(b"GNUSparseFile.1/sparse", padded(b"%d\n" % len(spans) + lines) + data)


def sparse_gnu(spans: list[tuple[int, int]], size: int, data: bytes) -> bytes:
    """Return a sparse file in GNU's own form, with as many continuations as it takes."""
    result = sparse_header(b"sparse", spans, size, more=len(spans) > 4)
    if len(spans) > 4:
        # The size of the header counts all spans; only four fit.
        result = sparse_header(b"sparse", spans, size, more=True)
    rest = spans[4:]
    while rest:
        block = b"".join(b"%011o\0%011o\0" % span for span in rest[:21]).ljust(504, b"\0")
        rest = rest[21:]
        result += block + bytes([bool(rest)]) + bytes(7)
    return result + padded(data)


FORMS = {"0.0": sparse_0_0, "0.1": sparse_0_1, "1.0": sparse_1_0, "gnu": sparse_gnu}
MANY = [(number * 8192, 3) for number in range(60)]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("spans", [[], [(0, 5)], [(4096, 5), (1 << 20, 700)], MANY], ids=len)
def test_sparse_files_have_their_holes(
    root: int, tmp_path: Path, form: str, spans: list[tuple[int, int]]
) -> None:
    """A sparse file of every form has its content where it belongs, and the size that it says."""
    size = 2 << 20
    data = os.urandom(sum(length for _, length in spans))
    result = apply_layer(io.BytesIO(archive(FORMS[form](spans, size, data), file(b"after"))), root)
    expected, position = bytearray(size), 0
    for offset, length in spans:
        expected[offset : offset + length] = data[position : position + length]
        position += length
    assert (tmp_path / "root/sparse").read_bytes() == expected
    assert (tmp_path / "root/after").read_bytes() == b"data"
    assert (tmp_path / "root/sparse").stat().st_blocks * 512 < size
    assert result.size_bytes == len(data) + len(b"data")


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("spans", "size", "data"),
    [
        ([(0, 5), (3, 5)], 100, 10),
        ([(10, 5), (0, 5)], 100, 10),
        ([(98, 5)], 100, 5),
        ([(0, 5)], 100, 4),
        ([(0, 5)], 100, 6),
        ([(1 << 40, 5)], 100, 5),
    ],
)
def test_wrong_maps_of_sparse_files_are_refused(
    root: int, form: str, spans: list[tuple[int, int]], size: int, data: int
) -> None:
    """Spans that overlap, are out of order or outside, or do not make up what is stored."""
    made = FORMS[form](spans, size, bytes(data))
    if form == "gnu":  # whose header was made to say as much as its spans do
        made = header(b"sparse", b"S", size=data, magic=b"ustar  \0")[:124] + b"%011o\0" % data + made[136:]
        made = made[:148] + b"%06o\0 " % (sum(made[:148]) + sum(made[156:BLOCK]) + 256) + made[156:]
    with pytest.raises(UnsupportedLayer, match="sparse"):
        apply_layer(io.BytesIO(archive(made)), root)


def test_holes_count_against_the_limit(root: int) -> None:
    """A sparse file is as large as it says, for the limit of all files together."""
    made = archive(sparse_0_1([(0, 1)], 1 << 50, b"x"))
    with pytest.raises(UnsupportedLayer, match="bytes of files"):
        apply_layer(io.BytesIO(made), root)


def test_a_global_header_makes_nothing_sparse(root: int) -> None:
    """Records of sparse files are refused where they would count for all files."""
    made = pax((b"GNU.sparse.size", b"5"), kind=b"g") + file(b"a", b"12345")
    with pytest.raises(UnsupportedLayer, match="sparse"):
        apply_layer(io.BytesIO(archive(made)), root)


def test_a_replaced_file_hides_what_is_below_when_it_becomes_a_directory(root: int, tmp_path: Path) -> None:
    """A file that becomes a directory within one archive hid the directory below it, so the new one does."""
    apply_layer(io.BytesIO(archive(file(b"a"), directory(b"a"), file(b"a/b"))), root)
    assert os.getxattr(tmp_path / "root/a", "trusted.overlay.opaque") == b"y"


def test_deep_directories(root: int, tmp_path: Path) -> None:
    """A tree deeper than descriptors are kept open is made, changed at all levels, and removed again."""
    deep = b"/".join([b"d"] * 900)
    names = [deep + b"/file", *(b"d/" * depth + b"f" for depth in (1, 200, 5, 130, 128, 127, 1))]
    apply_layer(io.BytesIO(archive(*(pax((b"path", name)) + file(b"x") for name in names))), root)
    path = tmp_path / "root"
    assert sum(1 for _ in path.rglob("f")) == 6
    apply_layer(io.BytesIO(archive(file(b"d"))), root)
    assert (path / "d").read_bytes() == b"data"


def test_a_full_disk_is_an_error_of_the_disk(tmp_path: Path) -> None:
    """What the kernel refuses for want of room stays an OSError that says so."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(tmp_path)], check=True)
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with pytest.raises(OSError, match="No space left") as caught:
            apply_layer(io.BytesIO(archive(file(b"a", bytes(1 << 20)))), fd)
    finally:
        os.close(fd)
        subprocess.run(["umount", str(tmp_path)], check=True)
    assert caught.value.errno == errno.ENOSPC


def test_what_an_archive_says_nothing_of(root: int) -> None:
    """Directories that were made on the way are told, unless they have an entry of their own as well."""
    members = [
        *(file(b"a/b/c/f"), file(b"d/e/f"), directory(b"d/e"), directory(b"g"), file(b"g/h/i")),
        *(file(b"x/y"), file(b"x"), symlink(b"l", b"m/n"), file(b"l/o")),
    ]
    result = apply_layer(io.BytesIO(archive(*members)), root)
    assert result.implied == (b"a", b"a/b", b"a/b/c", b"d", b"g/h", b"m", b"m/n")


def test_many_of_them(root: int) -> None:
    """More of them than a socket holds at a time."""
    members = [file(b"d%d/e%d/f" % (number, number)) for number in range(5000)]
    members += [directory(b"d%d" % number) for number in range(4000)]
    assert len(apply_layer(io.BytesIO(archive(*members)), root).implied) == 6000


NAMES = st.sampled_from(
    [
        b"a",
        b"b",
        b"a/b",
        b"b/a",
        b"a/b/c",
        b"l/x",
        b"l",
        b".wh.a",
        b"a/.wh.b",
        b"b/.wh..wh..opq",
        b"../x",
        b"./",
        b"/a//b/",
    ]
)
TARGETS = st.sampled_from([b"a", b"b", b"..", b"/", b"../a", b"a/b", b"/b", b"l", b".", b"x/../b"])
MEMBERS = st.one_of(
    st.tuples(NAMES, st.sampled_from([0o644, 0o4755])).map(lambda pair: file(pair[0], pair[0], mode=pair[1])),
    st.tuples(NAMES, st.sampled_from([0o755, 0o2750])).map(
        lambda pair: directory(pair[0], mode=pair[1], mtime=7)
    ),
    st.tuples(NAMES, TARGETS).map(lambda pair: symlink(*pair)),
    st.tuples(NAMES, TARGETS).map(lambda pair: link(*pair)),
    NAMES.map(lambda name: member(name, b"6", uid=5, mtime=3)),
    NAMES.map(
        lambda name: pax((b"path", name), (b"mtime", b"12.5"), (b"SCHILY.xattr.user.k", b"v")) + file(b"z")
    ),
    NAMES.map(lambda name: member(b"@", b"L", name + b"\0") + file(b"z", uid=base256(70000, 8))),
)


def outcome(run: object, base: Path, data: bytes) -> tuple[bool, list[tuple[object, ...]]]:
    """Apply an archive; say whether it was taken, and describe the tree if so."""
    base.mkdir()
    fd = os.open(base, os.O_RDONLY | os.O_DIRECTORY)
    try:
        run(io.BytesIO(data), fd)  # type: ignore[operator]
    except LayerError:
        return False, []
    finally:
        os.close(fd)
    return True, [describe(path, base) for path in sorted([base, *base.rglob("*")])]


def describe(path: Path, base: Path) -> tuple[object, ...]:
    """Return all that counts about a file."""
    info = path.lstat()
    content = path.read_bytes() if stat.S_ISREG(info.st_mode) else b""
    target = os.readlink(path) if stat.S_ISLNK(info.st_mode) else ""
    is_whiteout = stat.S_ISCHR(info.st_mode)
    own = (
        (0, 0)
        if path == base or is_whiteout
        else (info.st_mtime_ns * (not stat.S_ISDIR(info.st_mode)), info.st_nlink)
    )
    xattrs = {
        name: os.getxattr(path, name, follow_symlinks=False)
        for name in os.listxattr(path, follow_symlinks=False)
    }
    xattrs.pop("trusted.overlay.opaque", None)
    return str(path.relative_to(base)), info.st_mode, info.st_uid, info.st_gid, content, target, own, xattrs


@settings(max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(MEMBERS, max_size=9))
def test_it_agrees_with_a_plain_unpacker(
    tmp_path_factory: pytest.TempPathFactory, members: list[bytes]
) -> None:
    """Any sequence of entries is taken or refused by both, and gives the same tree."""
    base = tmp_path_factory.mktemp("pair")
    data = archive(*members)
    try:
        expected = outcome(plain_applier.apply_layer, base / "plain", data)
        assert outcome(apply_layer, base / "confined", data) == expected
    finally:
        remove_tree(str(base))


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(MEMBERS, min_size=1, max_size=4), st.data())
def test_it_agrees_about_damaged_archives(
    tmp_path_factory: pytest.TempPathFactory, members: list[bytes], data: st.DataObject
) -> None:
    """An archive with a few bytes changed, or cut off, is taken or refused by both alike."""
    base = tmp_path_factory.mktemp("pair")
    made = bytearray(b"".join(members) + END)
    for _ in range(data.draw(st.integers(1, 3))):
        made[data.draw(st.integers(0, len(made) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(made)))
    damaged = bytes(made[:cut])
    try:
        expected = outcome(plain_applier.apply_layer, base / "plain", damaged)
        found = outcome(apply_layer, base / "confined", damaged)
        assert found == expected or (found[0] and b"S" in damaged)
    finally:
        remove_tree(str(base))
