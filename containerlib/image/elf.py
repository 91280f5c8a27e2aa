"""What the dynamic loader would read from an ELF file, and nothing else.

Takes an open file and its name, gives an `Elf`: machine, interpreter, needed libraries and search paths. Only
64-bit little-endian programs and libraries for x86-64 and arm64 are read. The file is hostile input: every
offset is checked against the file's size before it is used, every count and length is bounded, and whatever
is wrong becomes an `InvalidInputError` with the file's name. Knows nothing about where libraries are looked
for.
"""

from __future__ import annotations

import enum
import os
import struct
from typing import Final

import attrs

from containerlib.errors import InvalidInputError

__all__ = ["MAGIC", "Elf", "Machine", "dynamic_strings", "identify", "parse"]

MAGIC: Final = b"\x7fELF"

_HEADER: Final = struct.Struct("<4s12xHHIQQQIHHHHHH")
_SEGMENT: Final = struct.Struct("<IIQQQQQQ")
_DYNAMIC: Final = struct.Struct("<qQ")

_CLASS_64: Final = 2
_LITTLE_ENDIAN: Final = 1
_ET_EXEC: Final = 2
_ET_DYN: Final = 3
_PT_LOAD: Final = 1
_PT_DYNAMIC: Final = 2
_PT_INTERP: Final = 3
_DT_NULL: Final = 0
_DT_NEEDED: Final = 1
_DT_STRTAB: Final = 5
_DT_STRSZ: Final = 10
_DT_SONAME: Final = 14
_DT_RPATH: Final = 15
_DT_RUNPATH: Final = 29
_DT_FLAGS_1: Final = 0x6FFFFFFB
_DF_1_NODEFLIB: Final = 0x800

# Real files stay far below these: about 15 segments, 40 dynamic entries, search paths of a few kilobytes.
_MAX_SEGMENTS: Final = 1024
_MAX_DYNAMIC_BYTES: Final = 256 * 1024
_MAX_INTERPRETER_BYTES: Final = 4096
_MAX_STRING_BYTES: Final = 64 * 1024
_USUAL_STRING_BYTES: Final = 256
_MAX_STRING_TABLE_BYTES: Final = 16 * 1024 * 1024
# One read of this size holds header, segments and interpreter of nearly every file.
_FIRST_READ_BYTES: Final = 4096


class Machine(enum.Enum):
    """A processor whose programs are understood; the value is what `uname -m` and `$PLATFORM` say."""

    X86_64 = "x86_64"
    AARCH64 = "aarch64"


_MACHINES: Final = {62: Machine.X86_64, 183: Machine.AARCH64}


@attrs.frozen
class Elf:
    """One program or shared library, as the dynamic loader sees it.

    Attributes:
        machine: Processor it is for.
        interpreter: Absolute path of its dynamic loader, or `None` for static programs and most libraries.
        needed: Names of the libraries it asks for, in the order of the file.
        soname: Name a library gives itself.
        rpath: DT_RPATH elements before expansion; empty when there is a DT_RUNPATH, which overrides it.
        runpath: DT_RUNPATH elements before expansion, or `None` when there is none.
        ignores_defaults: DF_1_NODEFLIB is set: default directories are not searched for its libraries.
        string_table: Offset and size of the dynamic string table in the file; size 0 when there is none.
    """

    machine: Machine
    interpreter: str | None = None
    needed: tuple[str, ...] = ()
    soname: str | None = None
    rpath: tuple[str, ...] = ()
    runpath: tuple[str, ...] | None = None
    ignores_defaults: bool = False
    string_table: tuple[int, int] = (0, 0)


@attrs.frozen
class _Segment:
    kind: int
    offset: int
    address: int
    file_size: int


def identify(head: bytes) -> Machine | None:
    """Say which machine a file beginning with `head` is for.

    Args:
        head: The first 20 bytes of the file, or more.

    Returns:
        The machine, or `None` when this is not a 64-bit little-endian ELF file for a machine we know. This is
        the test by which a loader passes over a library and looks on.
    """
    if len(head) < 20 or head[:4] != MAGIC or head[4] != _CLASS_64 or head[5] != _LITTLE_ENDIAN:  # noqa: PLR2004
        return None
    return _MACHINES.get(int.from_bytes(head[18:20], "little"))


def parse(fd: int, name: str) -> Elf:
    """Read what the dynamic loader needs to know about the ELF file open at `fd`.

    The file offset of `fd` is neither used nor moved.

    Args:
        fd: Descriptor of a regular file, open for reading.
        name: What to call the file in an error.

    Returns:
        The parsed file. A static program has no interpreter and needs nothing.

    Raises:
        InvalidInputError: The file is no ELF program or library, is for another machine, or is malformed.

    Cost: one or two reads plus one for each string, independent of the size of the file.
    Source: System V ABI, chapters 4 and 5 (elf(5)).
    """
    reader = _Reader(fd, name)
    machine, segments = _read_segments(reader)
    interpreter = _read_interpreter(reader, segments)
    dynamic = _read_dynamic(reader, segments)
    if not dynamic:
        return Elf(machine=machine, interpreter=interpreter)
    table = _locate_string_table(reader, dynamic, segments)

    def strings(tag: int) -> list[str]:
        return [_read_string(reader, table, offset) for entry, offset in dynamic if entry == tag]

    needed = strings(_DT_NEEDED)
    if "" in needed:
        raise reader.malformed("a needed library has an empty name")
    runpath = strings(_DT_RUNPATH)
    rpath = [] if runpath else strings(_DT_RPATH)
    flags = [value for entry, value in dynamic if entry == _DT_FLAGS_1]
    return Elf(
        machine=machine,
        interpreter=interpreter,
        needed=tuple(needed),
        soname=next(iter(strings(_DT_SONAME)), None),
        # The loader keeps the last entry of each tag.
        rpath=tuple(rpath[-1].split(":")) if rpath else (),
        runpath=tuple(runpath[-1].split(":")) if runpath else None,
        ignores_defaults=bool(flags) and bool(flags[-1] & _DF_1_NODEFLIB),
        string_table=table,
    )


def dynamic_strings(fd: int, name: str, elf: Elf) -> bytes:
    """Read the whole dynamic string table of a file that `parse` has read before.

    It holds the names of all symbol versions, which tell one C library from another.

    Raises:
        InvalidInputError: The table is larger than 16 MiB, or the file has changed since.
    """
    offset, size = elf.string_table
    reader = _Reader(fd, name)
    if size > _MAX_STRING_TABLE_BYTES:
        raise reader.malformed(f"the string table has {size} bytes")
    return reader.read(offset, size)


class _Reader:
    """Reads of a file that stay within it."""

    def __init__(self, fd: int, name: str) -> None:
        self._fd = fd
        self._name = name
        self._size = os.fstat(fd).st_size
        self._head = os.pread(fd, _FIRST_READ_BYTES, 0)

    def malformed(self, reason: str) -> InvalidInputError:
        return InvalidInputError(f"ELF file {self._name!r}: {reason}")

    def read(self, offset: int, length: int) -> bytes:
        if offset + length <= len(self._head):
            return self._head[offset : offset + length]
        if offset + length > self._size:
            raise self.malformed(f"{length} bytes at offset {offset} lie outside the file")
        chunk = os.pread(self._fd, length, offset)
        if len(chunk) != length:
            raise self.malformed("it became shorter while it was read")
        return chunk


def _read_segments(reader: _Reader) -> tuple[Machine, list[_Segment]]:
    """Check the file header and read the program headers."""
    head = reader.read(0, _HEADER.size)
    if head[:4] != MAGIC:
        raise reader.malformed("it does not begin like an ELF file")
    machine = identify(head)
    if machine is None:
        raise reader.malformed("only 64-bit little-endian files for x86-64 and arm64 are supported")
    (_, kind, _, _, _, table_offset, _, _, _, entry_size, count, *_) = _HEADER.unpack(head)
    if kind not in (_ET_EXEC, _ET_DYN):
        raise reader.malformed(f"type {kind} is neither a program nor a shared library")
    if count > _MAX_SEGMENTS:
        raise reader.malformed(f"it has {count} segments")
    if count and entry_size != _SEGMENT.size:
        raise reader.malformed(f"segment headers have {entry_size} bytes instead of {_SEGMENT.size}")
    table = reader.read(table_offset, count * _SEGMENT.size)
    return machine, [
        _Segment(kind=kind, offset=offset, address=address, file_size=file_size)
        for kind, _, offset, address, _, file_size, _, _ in _SEGMENT.iter_unpack(table)
    ]


def _read_interpreter(reader: _Reader, segments: list[_Segment]) -> str | None:
    segment = next((segment for segment in segments if segment.kind == _PT_INTERP), None)
    if segment is None:
        return None
    if segment.file_size > _MAX_INTERPRETER_BYTES:
        raise reader.malformed(f"the path of its loader has {segment.file_size} bytes")
    # The kernel, too, wants the terminating NUL to be the last byte (binfmt_elf.c).
    path = reader.read(segment.offset, segment.file_size)
    if not path.startswith(b"/") or not path.endswith(b"\0"):
        raise reader.malformed(f"the path of its loader, {path[:64]!r}, is not absolute and terminated")
    return os.fsdecode(path.partition(b"\0")[0])


def _read_dynamic(reader: _Reader, segments: list[_Segment]) -> list[tuple[int, int]]:
    """Read tags and values of the dynamic section up to its end mark."""
    segment = next((segment for segment in segments if segment.kind == _PT_DYNAMIC), None)
    if segment is None:
        return []
    if segment.file_size > _MAX_DYNAMIC_BYTES:
        raise reader.malformed(f"the dynamic section has {segment.file_size} bytes")
    section = reader.read(segment.offset, segment.file_size - segment.file_size % _DYNAMIC.size)
    entries: list[tuple[int, int]] = []
    for tag, value in _DYNAMIC.iter_unpack(section):
        if tag == _DT_NULL:
            return entries
        entries.append((tag, value))
    raise reader.malformed("the dynamic section has no end mark")


def _locate_string_table(
    reader: _Reader, dynamic: list[tuple[int, int]], segments: list[_Segment]
) -> tuple[int, int]:
    """Turn the address of the string table into an offset: it is found by what PT_LOAD maps there."""
    values = dict(dynamic)
    address, size = values.get(_DT_STRTAB), values.get(_DT_STRSZ)
    if address is None or size is None:
        return (0, 0)
    for segment in segments:
        start = address - segment.address
        if segment.kind == _PT_LOAD and 0 <= start < segment.file_size:
            if start + size > segment.file_size:
                raise reader.malformed("the string table reaches over the end of its segment")
            return (segment.offset + start, size)
    raise reader.malformed("the string table lies in no loaded segment")


def _read_string(reader: _Reader, table: tuple[int, int], offset: int) -> str:
    start, size = table
    if offset >= size:
        raise reader.malformed(f"string {offset} lies outside the string table of {size} bytes")
    for limit in (_USUAL_STRING_BYTES, _MAX_STRING_BYTES):
        text, end, _ = reader.read(start + offset, min(size - offset, limit)).partition(b"\0")
        if end:
            return os.fsdecode(text)
    raise reader.malformed(f"string {offset} has no end")
