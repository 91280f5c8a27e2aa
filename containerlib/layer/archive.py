"""Writing layers: the same entries always give the same bytes.

Entries are sorted, missing parents added, times clamped, names of users left out; the form is ustar with PAX
headers only where ustar has no room. So the digest of a layer depends on what is in it and on nothing else.
"""

from __future__ import annotations

import functools
import hashlib
import os
import stat
from typing import TYPE_CHECKING, BinaryIO, Literal, Protocol

import attrs

from containerlib.errors import InvalidInputError
from containerlib.layer import pax
from containerlib.layer.names import MAX_COMPONENT_BYTES, MAX_PATH_BYTES, shown
from containerlib.oci.digest import DiffId, Digest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

__all__ = ["LATEST", "ArchiveWriter", "EntryKind", "LayerEntry", "LayerResult", "Sink", "write_layer"]

EntryKind = Literal["file", "directory", "symlink", "hardlink", "fifo", "character", "block"]

LATEST = 2**33 - 1
"""The latest time that a header can hold: files keep the times that they have."""

_BLOCK_BYTES = 512
_COPY_BYTES = 1 << 20
_SMALL_BYTES = 64 << 10
_NAME_BYTES = 100
_PREFIX_BYTES = 155
_MAX_OCTAL_7 = 0o7777777
_MAX_OCTAL_11 = 0o77777777777
_TYPE_FLAGS: dict[str, bytes] = {
    "file": b"0",
    "hardlink": b"1",
    "symlink": b"2",
    "directory": b"5",
    "character": b"3",
    "block": b"4",
    "fifo": b"6",
}
_DEFAULT_MODES: dict[str, int] = {"directory": 0o755, "symlink": 0o777}


class Sink(Protocol):
    """Where an archive goes: anything with the `write` of a binary file."""

    def write(self, data: bytes, /) -> int:
        """Take all of `data`."""


@attrs.frozen
class LayerEntry:
    """One member of a layer.

    Attributes:
        path: Where it goes, relative to the root of the image; ``usr/bin/env``. A leading slash is ignored.
            ``.`` is the root itself, which must be a directory.
        kind: What it is.
        mode: Permission bits; None means 0755 for directories, 0644 for files.
        linkname: Target of a symbolic link as it is; path in the layer of a hard link's target.
        source: Content of a file: a host path, the bytes, or a function that opens a descriptor or a binary
            file for reading.
        size: Ignored for bytes; for a host file what it is expected to hold, None to take what it has. A
            binary file needs it.
        mtime: Seconds since 1970; later than the layer's own time is clamped to that. None means that time.
        xattrs: Extended attributes, such as ``security.capability``.
        device: Major and minor number of a device.
    """

    path: str
    kind: EntryKind = "file"
    mode: int | None = None
    uid: int = 0
    gid: int = 0
    linkname: str = ""
    source: str | bytes | Callable[[], int | BinaryIO] | None = attrs.field(default=None, repr=False)
    size: int | None = None
    mtime: int | None = None
    xattrs: Mapping[str, bytes] = attrs.field(factory=dict)
    device: tuple[int, int] = (0, 0)


@attrs.frozen
class LayerResult:
    """What was written: digest and size of the uncompressed archive, and its number of members."""

    diff_id: DiffId
    size: int
    entries: int


_NOTHING = LayerEntry("nothing", "directory")


def write_layer(entries: Iterable[LayerEntry], out: Sink, *, mtime: int = 0) -> LayerResult:
    """Write the archive of `entries` to `out`.

    Entries may come in any order. The same entry twice is written once. Of several names of one file the
    first in order becomes the file and the others hard links to it.

    Args:
        entries: What the layer holds.
        out: Where the archive goes.
        mtime: Latest time an entry may have, in seconds since 1970.

    Raises:
        InvalidInputError: A path is not safe, two different entries have one path, a hard link has no
            target, or a file changed while it was read.
    """
    writer = ArchiveWriter(out, mtime)
    ordered = _ordered(entries)
    for name, entry in ordered:
        writer.add(name, entry)
    writer.finish()
    return LayerResult(DiffId(Digest(f"sha256:{writer.hash.hexdigest()}")), writer.size, len(ordered))


def _ordered(entries: Iterable[LayerEntry]) -> list[tuple[bytes, LayerEntry]]:
    """Return the entries by path, with parents, and with the targets of hard links first."""
    by_path: dict[bytes, LayerEntry] = {}
    for entry in entries:
        path = _path(entry.path)
        known = by_path.setdefault(path, entry)
        if known is not entry and known != entry:
            raise InvalidInputError(f"layer has two different entries {entry.path!r}")
    for path in list(by_path):
        for parent in _parents(path):
            known = by_path.setdefault(parent, LayerEntry(os.fsdecode(parent), "directory"))
            if known.kind != "directory":
                raise InvalidInputError(
                    f"layer entry {known.path!r} is no directory but holds {shown(path)!r}"
                )
    if by_path.get(b"", _NOTHING).kind != "directory":
        raise InvalidInputError("layer entry '.' is the root, which must be a directory")
    _move_targets_first(by_path)
    return sorted(by_path.items(), key=_order)


def _order(item: tuple[bytes, LayerEntry]) -> bytes:
    """Sort by path, but what is removed from a directory before what is added.

    Source: OCI image-spec 1.1, "Whiteouts".
    """
    return (b"/" + item[0]).replace(b"/.wh.", b"/\0.wh.")


def _move_targets_first(by_path: dict[bytes, LayerEntry]) -> None:
    """Where a hard link sorts before its target, let the two change places."""
    groups: dict[bytes, list[bytes]] = {}
    for path, entry in by_path.items():
        if entry.kind == "hardlink":
            groups.setdefault(_path(entry.linkname), []).append(path)
    for target, links in groups.items():
        entry = by_path.get(target, _NOTHING)
        if entry.kind in {"directory", "hardlink"}:
            raise InvalidInputError(
                f"hard link {shown(links[0])!r} to {shown(target)!r}, which is no file here"
            )
        first = min(links)
        if first < target:
            by_path[first] = attrs.evolve(entry, path=os.fsdecode(first))
            by_path[target] = attrs.evolve(entry, kind="hardlink", source=None, xattrs={})
            links.append(target)
            target = first  # noqa: PLW2901 - the group has a new head
        for link in links:
            if link != target:
                by_path[link] = attrs.evolve(by_path[link], linkname=os.fsdecode(target))


def _path(text: str) -> bytes:
    """Return a checked path relative to the root."""
    path = os.fsencode(text).strip(b"/")
    if path == b".":
        return b""
    parts = path.split(b"/")
    if not path or b"\0" in path or any(part in {b"", b".", b".."} for part in parts):
        raise InvalidInputError(f"layer path {text!r} is not a plain path below the root")
    if len(path) > MAX_PATH_BYTES or any(len(part) > MAX_COMPONENT_BYTES for part in parts):
        raise InvalidInputError(f"layer path {text[:80]!r}... is too long")
    return path


def _parents(path: bytes) -> Iterator[bytes]:
    end = path.rfind(b"/")
    while end > 0:
        yield path[:end]
        end = path.rfind(b"/", 0, end)


class ArchiveWriter:
    """The archive being written, its hash and its size."""

    def __init__(self, out: Sink, mtime: int) -> None:
        """Begin an archive in which no time is later than `mtime`, in seconds since 1970."""
        self._out = out
        self._mtime = mtime
        self.hash = hashlib.sha256()
        self.size = 0
        self.entries = 0

    def add(self, name: bytes, entry: LayerEntry) -> None:
        """Write one member."""
        self.entries += 1
        if entry.kind != "file":
            self._write(_header(name, entry, 0, self._time(entry)))
            return
        if isinstance(entry.source, bytes):
            padding = bytes(-len(entry.source) % _BLOCK_BYTES)
            self._write(_header(name, entry, len(entry.source), self._time(entry)) + entry.source + padding)
            return
        fd = _open_source(entry)
        if not isinstance(fd, int):
            with fd as file:
                self._add_stream(name, entry, entry.size or 0, file.read)
            return
        try:
            self._add_file(name, entry, fd)
        finally:
            os.close(fd)

    def add_stream(self, name: bytes, entry: LayerEntry, size: int, read: Callable[[int], bytes]) -> None:
        """Write one member whose content, `size` bytes, comes from `read`, which returns some or none."""
        self.entries += 1
        self._add_stream(name, entry, size, read)

    def _add_stream(self, name: bytes, entry: LayerEntry, size: int, read: Callable[[int], bytes]) -> None:
        self._write(_header(name, entry, size, self._time(entry)))
        left = size
        while left:
            data = read(min(left, _COPY_BYTES))
            if not data:
                raise InvalidInputError(f"layer entry {entry.path!r}: its source changed while it was read")
            self._write(data)
            left -= len(data)
        self._write(bytes(-size % _BLOCK_BYTES))

    def finish(self) -> None:
        """Write the end mark."""
        self._write(bytes(2 * _BLOCK_BYTES))

    def _add_file(self, name: bytes, entry: LayerEntry, fd: int) -> None:
        info = os.fstat(fd)
        size = info.st_size
        if not stat.S_ISREG(info.st_mode) or (entry.size is not None and entry.size != size):
            raise InvalidInputError(f"layer entry {entry.path!r}: its source is not the file it was")
        if size <= _SMALL_BYTES:
            data = os.read(fd, size + 1)
            if len(data) != size:
                raise InvalidInputError(f"layer entry {entry.path!r}: its source changed while it was read")
            header = _header(name, entry, size, self._time(entry))
            self._write(header + data + bytes(-size % _BLOCK_BYTES))
            return
        self._add_stream(name, entry, size, functools.partial(os.read, fd))

    def _time(self, entry: LayerEntry) -> int:
        return self._mtime if entry.mtime is None else max(0, min(entry.mtime, self._mtime))

    def _write(self, data: bytes) -> None:
        if data:
            self.hash.update(data)
            self.size += len(data)
            self._out.write(data)


def _open_source(entry: LayerEntry) -> int | BinaryIO:
    if isinstance(entry.source, str):
        return os.open(entry.source, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if entry.source is None or isinstance(entry.source, bytes):
        raise InvalidInputError(f"layer entry {entry.path!r} is a file without content")
    return entry.source()


def _header(name: bytes, entry: LayerEntry, size: int, mtime: int) -> bytes:
    """Return the ustar header, with a PAX header before it if something does not fit."""
    linkname = os.fsencode(entry.linkname) if entry.kind in {"symlink", "hardlink"} else b""
    if entry.kind == "hardlink":
        linkname = linkname.strip(b"/")
    if entry.kind == "directory":
        name = name + b"/" if name else b"./"
    records = _xattr_records(entry)
    prefix, short = _split_name(name)
    if short is None:
        records["path"] = name
        prefix, short = b"", name[:_NAME_BYTES]
    if len(linkname) > _NAME_BYTES or not linkname.isascii():
        records["linkpath"] = linkname
    numbers = {
        "uid": (entry.uid, _MAX_OCTAL_7),
        "gid": (entry.gid, _MAX_OCTAL_7),
        "size": (size, _MAX_OCTAL_11),
    }
    for key, (number, limit) in numbers.items():
        if number > limit:
            records[key] = str(number).encode()
    block = _block(
        _TYPE_FLAGS[entry.kind],
        (short, prefix, linkname[:_NAME_BYTES]),
        _mode(entry),
        tuple(number if number <= limit else 0 for number, limit in numbers.values()),
        mtime,
        entry.device if entry.kind in {"character", "block"} else None,
    )
    return _pax_header(records) + block if records else block


def _xattr_records(entry: LayerEntry) -> dict[str, bytes]:
    for name in entry.xattrs:
        # The first '=' of a record ends its key, and there is no way to write another one.
        if "=" in name:
            raise InvalidInputError(f"layer entry {entry.path!r}: no archive can hold attribute {name!r}")
    return {f"{pax.XATTR_PREFIX}{name}": value for name, value in entry.xattrs.items()}


def _mode(entry: LayerEntry) -> int:
    mode = entry.mode if entry.mode is not None else _DEFAULT_MODES.get(entry.kind, 0o644)
    return mode & 0o7777


def _split_name(name: bytes) -> tuple[bytes, bytes | None]:
    """Divide a name into ustar's prefix and name; None if it does not fit."""
    if not name.isascii():
        return b"", None
    if len(name) <= _NAME_BYTES:
        return b"", name
    cut = name.rfind(b"/", 0, _PREFIX_BYTES + 1)
    # The slash at the cut is implied; the name behind it must not be empty.
    if cut <= 0 or not 0 < len(name) - cut - 1 <= _NAME_BYTES:
        return b"", None
    return name[:cut], name[cut + 1 :]


def _pax_header(records: dict[str, bytes]) -> bytes:
    data = pax.encode(records)
    block = _block(b"x", (b"PaxHeaders.0/entry", b"", b""), 0o644, (0, 0, len(data)), 0)
    return block + data + bytes(-len(data) % _BLOCK_BYTES)


def _block(
    flag: bytes,
    names: tuple[bytes, bytes, bytes],
    mode: int,
    numbers: tuple[int, ...],
    mtime: int,
    device: tuple[int, int] | None = None,
) -> bytes:
    name, prefix, linkname = names
    uid, gid, size = numbers
    block = bytearray(_BLOCK_BYTES)
    block[0 : len(name)] = name
    block[100:148] = b"%07o\0%07o\0%07o\0%011o\0%011o\0" % (mode, uid, gid, size, mtime)
    block[148:157] = b"        " + flag
    block[157 : 157 + len(linkname)] = linkname
    block[257:265] = b"ustar\00000"
    if device is not None:
        block[329:345] = b"%07o\0%07o\0" % device
    block[345 : 345 + len(prefix)] = prefix
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)
