"""What the static program is made of: nothing from outside, and nothing that can be rewritten."""

from __future__ import annotations

import os
import struct
import subprocess
from pathlib import Path

import pytest

from containerlib._native.ffi import PROGRAM_PATH

PROGRAM = Path(PROGRAM_PATH).read_bytes()
MOST_BYTES = 1 << 20

PT_LOAD, PT_DYNAMIC, PT_INTERP, PT_GNU_STACK = 1, 2, 3, 0x6474E551
SHT_SYMTAB = 2
EXECUTE, WRITE = 1, 2


def program_headers() -> list[tuple[int, int]]:
    """Type and flags of each segment of a 64-bit ELF file."""
    offset, size, count = struct.unpack_from("<Q", PROGRAM, 32)[0], *struct.unpack_from("<HH", PROGRAM, 54)
    return [struct.unpack_from("<II", PROGRAM, offset + size * number) for number in range(count)]


def section_types() -> list[int]:
    """Type of each section."""
    offset, size, count = struct.unpack_from("<Q", PROGRAM, 40)[0], *struct.unpack_from("<HH", PROGRAM, 58)
    return [struct.unpack_from("<I", PROGRAM, offset + size * number + 4)[0] for number in range(count)]


def test_the_program_needs_no_loader_and_no_library() -> None:
    """A container's own loader and libraries have no part in it."""
    assert PROGRAM[:5] == b"\x7fELF\x02"
    assert not {PT_INTERP, PT_DYNAMIC} & {kind for kind, _ in program_headers()}


def test_no_memory_is_writable_and_executable() -> None:
    """Neither a segment nor the stack can be written and executed."""
    headers = program_headers()
    assert PT_GNU_STACK in {kind for kind, _ in headers}
    both = [
        kind
        for kind, flags in headers
        if kind in {PT_LOAD, PT_GNU_STACK} and flags & EXECUTE and flags & WRITE
    ]
    assert both == []


def test_the_program_is_small_and_stripped() -> None:
    """It is copied into memory for each engine, so it has no symbols and stays below a megabyte."""
    assert len(PROGRAM) < MOST_BYTES
    assert SHT_SYMTAB not in section_types()


def test_no_path_of_the_builder_is_in_it() -> None:
    """The program says nothing about where it was built."""
    assert b"/csrc/" not in PROGRAM
    assert b"/home/" not in PROGRAM


@pytest.mark.parametrize("name", ["", "sh", "ctr-spawner", "ctr-init", "ctr-other"])
def test_started_by_hand_it_ends_at_once(name: str) -> None:
    """Who starts the program without what it expects gets an exit code and nothing else happens."""
    done = subprocess.run([name], executable=PROGRAM_PATH, capture_output=True, check=False, timeout=60)
    assert done.returncode in {125, 127}
    assert (done.stdout, done.stderr) == (b"", b"")


def test_the_program_is_executable() -> None:
    """It can also be run from its file."""
    assert os.access(PROGRAM_PATH, os.X_OK)
