"""A strict reader of tar archives: bytes in, `TarEntry` values out; touches no file system.

Reads what layers are made of: ustar, PAX, GNU long names, and Go's and old Unix' variants of them. Where two
readers could see two different archives it refuses (sparse files, numbers that do not fit, archives cut off).
Every refusal is `UnsupportedLayer`. Names stay bytes; judging them is the business of `apply`.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, BinaryIO, NoReturn

import attrs

from containerlib.errors import UnsupportedLayer
from containerlib.layer import pax
from containerlib.layer.names import shown

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["BLOCK_BYTES", "NO_ARCHIVE", "TarEntry", "TarReader"]

BLOCK_BYTES = 512
MAX_NAME_BYTES = 4096
MAX_ID = 2**32 - 2
_MAX_META_BYTES = 1 << 20
_COPY_BYTES = 1 << 20
_ZERO_BLOCK = bytes(BLOCK_BYTES)
NO_ARCHIVE = "it is none: it does not begin with the header of a tar archive"
_MAX_MTIME_NS = 2**63 - 1

# name mode uid gid size mtime checksum type linkname magic(with version) uname gname major minor prefix
_HEADER = struct.Struct("100s8s8s8s12s12s8sc100s8s32s32s8s8s155s12x")
_USTAR = b"ustar\x0000"
_GNU = b"ustar  \0"

_REGULAR = frozenset((b"0", b"\0", b"7"))
_HEADER_ONLY = frozenset((b"1", b"2", b"3", b"4", b"5", b"6"))
_KINDS = {
    b"0": "file",
    b"\0": "file",
    b"7": "file",
    b"1": "hardlink",
    b"2": "symlink",
    b"3": "character",
    b"4": "block",
    b"5": "directory",
    b"6": "fifo",
}
_REFUSED = {
    b"S": "sparse file",
    b"M": "continuation of another volume",
    b"V": "volume label",
    b"D": "incremental dump",
}


@attrs.define
class TarEntry:
    """One member of an archive, as it says itself.

    Attributes:
        kind: ``file``, ``directory``, ``symlink``, ``hardlink``, ``character``, ``block`` or ``fifo``.
        mtime_ns: Nanoseconds since 1970; times outside what that can hold are 0.
    """

    name: bytes
    kind: str
    mode: int
    uid: int
    gid: int
    size: int
    mtime_ns: int
    linkname: bytes
    major: int
    minor: int
    xattrs: dict[str, bytes]

    @property
    def shown_name(self) -> str:
        """The name for messages."""
        return shown(self.name)


class TarReader:
    """Iterates over the entries of an archive; between two steps the data of the present one can be read."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._left = 0
        self._padding = 0
        self._numbers: dict[bytes, int] = {}
        self._is_at_start = True

    def __iter__(self) -> Iterator[TarEntry]:
        while (entry := self._next()) is not None:
            yield entry

    def read(self, size: int) -> bytes:
        """Read up to `size` bytes of the present entry; empty at its end."""
        wanted = min(size, self._left)
        if not wanted:
            return b""
        data = self._stream.read(wanted)
        if not data:
            _refuse("it ends in the middle of a file")
        self._left -= len(data)
        return data

    def _next(self) -> TarEntry | None:
        self._skip_rest()
        extra: dict[str, bytes] = {}
        long_name = long_link = None
        while (header := self._header(after_meta=bool(extra or long_name or long_link))) is not None:
            kind = header[7]
            if kind == b"x":
                extra = pax.parse(self._meta(header))
            elif kind == b"g":
                pax.parse(self._meta(header))  # like Docker: checked, then ignored
            elif kind == b"L":
                long_name = self._meta(header).partition(b"\0")[0]
            elif kind == b"K":
                long_link = self._meta(header).partition(b"\0")[0]
            else:
                return self._entry(header, extra, long_name, long_link)
        return None

    def _header(self, *, after_meta: bool) -> tuple[bytes, ...] | None:
        """Read one header block; None at the end of the archive."""
        block = self._exactly(BLOCK_BYTES, at_end=not after_meta)
        if not block:
            return None
        if block == _ZERO_BLOCK:
            second = self._exactly(BLOCK_BYTES, at_end=True)
            if after_meta or (second and second != _ZERO_BLOCK):
                _refuse("it goes on behind its end mark")
            return None
        header: tuple[bytes, ...] = _HEADER.unpack(block)
        try:
            self._check_sum(block, header[6])
        except UnsupportedLayer:
            if self._is_at_start:
                _refuse(NO_ARCHIVE)
            raise
        self._is_at_start = False
        return header

    def _check_sum(self, block: bytes, field: bytes) -> None:
        stored = self._number(field)
        unsigned = sum(block) - sum(block[148:156]) + 256
        if stored != unsigned:
            # Some old programs summed signed characters.
            signed = unsigned - 256 * sum(byte > 127 for byte in block[:148] + block[156:])  # noqa: PLR2004
            if stored != signed:
                _refuse("a header has a wrong checksum")

    def _entry(
        self,
        header: tuple[bytes, ...],
        extra: dict[str, bytes],
        long_name: bytes | None,
        long_link: bytes | None,
    ) -> TarEntry:
        flag = header[7]
        name = long_name or extra.get("path") or _ustar_name(header)
        kind = _KINDS.get(flag)
        if kind is None:
            _refuse(f"entry {shown(name)!r} is a {_REFUSED.get(flag, f'member of unknown type {flag!r}')}")
        size = 0 if flag in _HEADER_ONLY else self._size(header, extra, name)
        if flag == b"\0" and name.endswith(b"/"):
            kind = "directory"
        if kind == "directory" and size:
            _refuse(f"entry {shown(name)!r} is a directory with content")
        self._left, self._padding = size, -size % BLOCK_BYTES
        linkname = long_link or extra.get("linkpath") or header[8].partition(b"\0")[0]
        if len(name) > MAX_NAME_BYTES or len(linkname) > MAX_NAME_BYTES:
            _refuse(f"entry {shown(name)[:64]!r}... has a name of more than {MAX_NAME_BYTES} bytes")
        is_device = kind in {"character", "block"}
        return TarEntry(
            name,
            kind,
            self._number(header[1]) & 0o7777,
            self._identity(header[2], extra.get("uid"), name),
            self._identity(header[3], extra.get("gid"), name),
            size,
            self._mtime_ns(header[5], extra.get("mtime")),
            linkname,
            self._number(header[12]) if is_device else 0,
            self._number(header[13]) if is_device else 0,
            pax.xattrs(extra) if extra else {},
        )

    def _size(self, header: tuple[bytes, ...], extra: dict[str, bytes], name: bytes) -> int:
        size = pax.decimal(extra["size"]) if "size" in extra else self._number(header[4])
        if not 0 <= size < 1 << 62:
            _refuse(f"entry {shown(name)!r} claims a size of {size} bytes")
        return size

    def _identity(self, field: bytes, override: bytes | None, name: bytes) -> int:
        number = self._number(field) if override is None else pax.decimal(override)
        if not 0 <= number <= MAX_ID:
            _refuse(f"entry {shown(name)!r} has the user or group {number}, which does not exist")
        return number

    def _mtime_ns(self, field: bytes, override: bytes | None) -> int:
        time_ns = self._number(field) * 1_000_000_000 if override is None else pax.seconds_ns(override)
        return time_ns if 0 <= time_ns <= _MAX_MTIME_NS else 0

    def _number(self, field: bytes) -> int:
        """Return a numeric field; the same few values come again and again, so they are remembered."""
        number = self._numbers.get(field)
        if number is None:
            number = _parse_number(field)
            if len(self._numbers) < 4096:  # noqa: PLR2004
                self._numbers[field] = number
        return number

    def _meta(self, header: tuple[bytes, ...]) -> bytes:
        size = self._number(header[4])
        if not 0 <= size <= _MAX_META_BYTES:
            _refuse(f"an extended header claims {size} bytes, more than the limit of {_MAX_META_BYTES}")
        return self._exactly(size + -size % BLOCK_BYTES)[:size]

    def _exactly(self, size: int, *, at_end: bool = False) -> bytes:
        """Read `size` bytes; nothing at all is allowed only `at_end`."""
        data = self._stream.read(size)
        while len(data) < size:
            more = self._stream.read(size - len(data))
            if not more:
                if at_end and not data:
                    return data
                _refuse("it ends too early")
            data += more
        return data

    def _skip_rest(self) -> None:
        padding, self._padding = self._padding, 0
        left, self._left = self._left + padding, 0
        while left:
            data = self._stream.read(min(left, _COPY_BYTES))
            if not data and left <= padding:
                return  # programs in Go leave it out at the end, as "umoci insert" does
            if not data:
                _refuse("it ends in the middle of a file")
            left -= len(data)


def _refuse(reason: str) -> NoReturn:
    raise UnsupportedLayer(f"archive: {reason}")


def _ustar_name(header: tuple[bytes, ...]) -> bytes:
    name = header[0].partition(b"\0")[0]
    if header[9] == _USTAR:
        prefix = header[14].partition(b"\0")[0]
        if prefix:
            return prefix + b"/" + name
    return name


def _parse_number(field: bytes) -> int:
    """Return an octal field, or one in the base-256 form of large and negative numbers."""
    if field[0] & 0x80:
        number = int.from_bytes(field, "big", signed=False) & ((1 << (8 * len(field) - 1)) - 1)
        negative = bool(field[0] & 0x40)
        return number - (1 << (8 * len(field) - 1)) if negative else number
    digits = field.strip(b" \0")
    if not digits:
        return 0
    if digits.strip(b"01234567"):
        _refuse(f"a header has the number {shown(digits)!r}")
    return int(digits, 8)
