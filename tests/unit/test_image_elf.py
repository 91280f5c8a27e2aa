"""The ELF reader: what it finds in good files, and that bad ones only ever give `InvalidInputError`."""

from __future__ import annotations

import contextlib
import os
import shutil
import struct
import subprocess
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from containerlib.errors import InvalidInputError
from containerlib.image.elf import Elf, Machine, dynamic_strings, identify, parse

if TYPE_CHECKING:
    from pathlib import Path

X86_64, AARCH64 = 62, 183
BASE_ADDRESS = 0x400000
HEADER_SIZE, SEGMENT_SIZE = 64, 56


def make_elf(
    *,
    tags: tuple[tuple[int, str], ...] = (),
    values: tuple[tuple[int, int], ...] = (),
    interpreter: bytes | None = None,
    machine: int = X86_64,
    kind: int = 3,
) -> bytes:
    """Build a file with one loaded segment that holds everything; `tags` are dynamic entries with strings."""
    strings, entries = bytearray(b"\0"), list(values)
    for tag, text in tags:
        entries.append((tag, len(strings)))
        strings += os.fsencode(text) + b"\0"
    count = 2 + (interpreter is not None)
    strings_offset = HEADER_SIZE + count * SEGMENT_SIZE
    interpreter_offset = strings_offset + len(strings)
    dynamic_offset = interpreter_offset + len(interpreter or b"")
    entries += [(5, BASE_ADDRESS + strings_offset), (10, len(strings)), (0, 0)]
    dynamic = b"".join(struct.pack("<qQ", tag, value) for tag, value in entries)
    size = dynamic_offset + len(dynamic)

    def segment(number: int, offset: int, length: int) -> bytes:
        return struct.pack("<IIQQQQQQ", number, 4, offset, BASE_ADDRESS + offset, 0, length, length, 8)

    segments = segment(1, 0, size) + segment(2, dynamic_offset, len(dynamic))
    if interpreter is not None:
        segments += segment(3, interpreter_offset, len(interpreter))
    ident = b"\x7fELF" + bytes([2, 1, 1]) + bytes(9)
    header = struct.pack("<HHIQQQIHHHHHH", kind, machine, 1, 0, 64, 0, 0, 64, SEGMENT_SIZE, count, 0, 0, 0)
    return ident + header + segments + bytes(strings) + (interpreter or b"") + dynamic


GOOD = make_elf(
    tags=((1, "libone.so.1"), (1, "libtwo.so.2"), (14, "libself.so"), (29, "$ORIGIN/../lib:/opt/lib")),
    values=((0x6FFFFFFB, 0x800),),
    interpreter=b"/lib64/ld-linux-x86-64.so.2\0",
)


def parse_bytes(content: bytes) -> Elf:
    """Parse content as if it were a file."""
    fd = os.memfd_create("elf")
    try:
        os.write(fd, content)
        return parse(fd, "sample")
    finally:
        os.close(fd)


def test_reads_all_the_loader_wants() -> None:
    """Interpreter, needed names in order, own name, search path and flags come out as they were put in."""
    found = parse_bytes(GOOD)
    assert found.machine is Machine.X86_64
    assert found.interpreter == "/lib64/ld-linux-x86-64.so.2"
    assert found.needed == ("libone.so.1", "libtwo.so.2")
    assert found.soname == "libself.so"
    assert found.runpath == ("$ORIGIN/../lib", "/opt/lib")
    assert found.rpath == ()
    assert found.ignores_defaults


def test_rpath_counts_only_without_runpath() -> None:
    """DT_RPATH is read alone and dropped beside a DT_RUNPATH."""
    assert parse_bytes(make_elf(tags=((15, "/a:/b"),))).rpath == ("/a", "/b")
    both = parse_bytes(make_elf(tags=((15, "/a"), (29, "/b"))))
    assert (both.rpath, both.runpath) == ((), ("/b",))


def test_reads_arm64() -> None:
    """The machine is told apart by the header."""
    assert parse_bytes(make_elf(machine=AARCH64)).machine is Machine.AARCH64


def test_long_strings_are_read() -> None:
    """A search path longer than the usual read comes out whole."""
    path = "/" + "x" * 5000
    assert parse_bytes(make_elf(tags=((29, path),))).runpath == (path,)


def test_static_program_needs_nothing() -> None:
    """A file without dynamic section and interpreter gives an empty result."""
    content = bytearray(make_elf())
    struct.pack_into("<I", content, HEADER_SIZE + SEGMENT_SIZE, 0)
    assert parse_bytes(bytes(content)) == Elf(machine=Machine.X86_64)


def test_dynamic_strings_gives_the_whole_table() -> None:
    """The string table can be searched for a symbol version."""
    fd = os.memfd_create("elf")
    try:
        os.write(fd, make_elf(tags=((1, "libone.so.1"), (14, "GLIBC_2.34"))))
        assert b"\0GLIBC_2.34\0" in dynamic_strings(fd, "sample", parse(fd, "sample"))
    finally:
        os.close(fd)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        pytest.param(b"", "outside the file", id="empty"),
        pytest.param(b"#!/bin/sh\n" * 20, "not begin like", id="script"),
        pytest.param(GOOD[:100], "outside the file", id="truncated"),
        pytest.param(GOOD[:4] + b"\1" + GOOD[5:], "64-bit", id="32-bit"),
        pytest.param(GOOD[:5] + b"\2" + GOOD[6:], "little-endian", id="big-endian"),
        pytest.param(make_elf(machine=8), "x86-64 and arm64", id="mips"),
        pytest.param(make_elf(kind=4), "neither a program", id="core"),
        pytest.param(make_elf(tags=((1, ""),)), "empty name", id="empty-name"),
        pytest.param(make_elf(values=((1, 99999),)), "outside the string table", id="string-offset"),
        pytest.param(make_elf(interpreter=b"ld.so\0"), "not absolute", id="relative-loader"),
        pytest.param(make_elf(interpreter=b"/lib/ld.so"), "terminated", id="endless-loader"),
        pytest.param(
            make_elf(interpreter=b"/" + b"x" * 5000 + b"\0"), "path of its loader has", id="long-loader"
        ),
    ],
)
def test_bad_files_are_refused_by_name(content: bytes, reason: str) -> None:
    """Each kind of damage is refused with the file's name and what is wrong."""
    with pytest.raises(InvalidInputError, match=reason) as caught:
        parse_bytes(content)
    assert "'sample'" in str(caught.value)


def test_identify_needs_twenty_bytes() -> None:
    """The beginning of a file is enough, anything less is no ELF file."""
    assert identify(GOOD[:20]) is Machine.X86_64
    assert identify(GOOD[:19]) is None
    assert identify(b"!<arch>\n" * 4) is None


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    flips=st.lists(st.tuples(st.integers(0, len(GOOD) - 1), st.integers(0, 255)), min_size=1, max_size=8),
    length=st.integers(0, len(GOOD)),
)
def test_damaged_files_raise_nothing_else(flips: list[tuple[int, int]], length: int) -> None:
    """Whatever bytes change and wherever the file ends, it is read or refused."""
    content = bytearray(GOOD)
    for position, value in flips:
        content[position] = value
    for candidate in (bytes(content), bytes(content[:length])):
        with contextlib.suppress(InvalidInputError):
            parse_bytes(candidate)


@settings(max_examples=300, deadline=None)
@given(
    field=st.sampled_from(
        [(32, 8), (54, 2), (56, 2)]
        + [(64 + 56 * index + at, 8) for index in range(3) for at in (8, 16, 32)]
        + [(64 + 56 * index, 4) for index in range(3)]
        + [(len(GOOD) - 16 * entry + at, 8) for entry in range(1, 8) for at in (0, 8)]
    ),
    value=st.integers(0, 2**64 - 1) | st.sampled_from([2**63, 2**64 - 1, 2**32, 2**31 - 1, len(GOOD)]),
)
def test_extreme_fields_raise_nothing_else(field: tuple[int, int], value: int) -> None:
    """Offsets, sizes, counts and tags may say anything."""
    position, width = field
    content = bytearray(GOOD)
    content[position : position + width] = (value % 256**width).to_bytes(width, "little")
    with contextlib.suppress(InvalidInputError):
        parse_bytes(bytes(content))


@settings(max_examples=200, deadline=None)
@given(tail=st.binary(max_size=600))
def test_random_files_raise_nothing_else(tail: bytes) -> None:
    """A good identification followed by noise is read or refused."""
    with contextlib.suppress(InvalidInputError):
        parse_bytes(GOOD[:20] + tail)


@pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is not installed")
def test_agrees_with_the_linker(tmp_path: Path) -> None:
    """What the linker was told to write is what is read, for a library and a static program."""
    source, library, program = tmp_path / "a.c", tmp_path / "liba.so", tmp_path / "static"
    source.write_text("int answer(void) { return 42; }\nvoid _start(void) { for (;;) ; }\n")
    flags = ["-Wl,-soname,liba.so.7", "-Wl,-rpath,/x:/y", "-Wl,--disable-new-dtags"]
    subprocess.run(["gcc", "-shared", "-nostdlib", *flags, "-o", library, source], check=True)
    subprocess.run(["gcc", "-static", "-nostdlib", "-o", program, source], check=True)
    found = parse_bytes(library.read_bytes())
    assert (found.soname, found.rpath, found.interpreter) == ("liba.so.7", ("/x", "/y"), None)
    assert parse_bytes(program.read_bytes()) == Elf(machine=found.machine)
