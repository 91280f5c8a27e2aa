"""The dynamic loader's cache, ld.so.cache of glibc: reading the host's, and making a small one.

In and out: the bytes of the file and a mapping from library name to path.

Source: glibc, elf/cache.c and sysdeps/generic/dl-cache.h.
"""

from __future__ import annotations

import os
import re
import struct
from typing import TYPE_CHECKING, Final

from containerlib.image.elf import Machine

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["build_cache", "parse_cache"]

_OLD_MAGIC: Final = b"ld.so-1.7.0"
_OLD_HEADER: Final = struct.Struct("<11sxI")
_OLD_ENTRY_BYTES: Final = 12
_NEW_MAGIC: Final = b"glibc-ld.so.cache1.1"
_NEW_HEADER: Final = struct.Struct("<20sIIB3xI12x")
_NEW_ENTRY: Final = struct.Struct("<iIIIQ")
_LITTLE_ENDIAN: Final = 2
_CACHE_KINDS: Final = {Machine.X86_64: 0x0303, Machine.AARCH64: 0x0A03}


def parse_cache(content: bytes, machine: Machine) -> dict[str, str] | None:
    """Read the loader's cache, `/etc/ld.so.cache`.

    Entries for other machines, and for variants that need a newer processor, are left out. Entries that point
    outside the file are left out too: the loader would not use them either.

    Args:
        content: The whole file.
        machine: Whose libraries to keep.

    Returns:
        Path for each library name, or `None` when this is no cache in the format that glibc 2.2 introduced
        (a damaged cache is no cache to the loader).
    """
    start = 0
    if content.startswith(_OLD_MAGIC) and len(content) >= _OLD_HEADER.size:
        _, count = _OLD_HEADER.unpack_from(content)
        start = (_OLD_HEADER.size + count * _OLD_ENTRY_BYTES + 7) & ~7
    if not content.startswith(_NEW_MAGIC, start) or len(content) < start + _NEW_HEADER.size:
        return None
    _, count, _, flags, _ = _NEW_HEADER.unpack_from(content, start)
    content = content[start:]
    end = _NEW_HEADER.size + count * _NEW_ENTRY.size
    if end > len(content) or flags not in (0, _LITTLE_ENDIAN):
        return None
    paths: dict[str, str] = {}
    for kind, key, value, _, capabilities in _NEW_ENTRY.iter_unpack(content[_NEW_HEADER.size : end]):
        if kind != _CACHE_KINDS[machine] or capabilities:
            continue
        name_end, path_end = content.find(b"\0", key), content.find(b"\0", value)
        if name_end >= 0 and path_end >= 0:
            paths.setdefault(os.fsdecode(content[key:name_end]), os.fsdecode(content[value:path_end]))
    return paths


def build_cache(paths: Mapping[str, str], machine: Machine) -> bytes:
    """Write a loader's cache with exactly these libraries.

    Args:
        paths: Path for each library name.
        machine: Processor that all of them are for.

    Returns:
        Content for `/etc/ld.so.cache`, the same for the same arguments; every glibc since 2.2 reads it.
    """
    names = sorted(paths, key=_cache_order, reverse=True)
    strings = bytearray()
    entries = bytearray()
    start = _NEW_HEADER.size + len(names) * _NEW_ENTRY.size
    for name in names:
        key = start + len(strings)
        strings += os.fsencode(name) + b"\0"
        value = start + len(strings)
        strings += os.fsencode(paths[name]) + b"\0"
        entries += _NEW_ENTRY.pack(_CACHE_KINDS[machine], key, value, 0, 0)
    header = _NEW_HEADER.pack(_NEW_MAGIC, len(names), len(strings), _LITTLE_ENDIAN, 0)
    return header + bytes(entries) + bytes(strings)


def _cache_order(name: str) -> tuple[tuple[int, int], ...]:
    """Key of the order in which the loader bisects: numbers by value, and after all other characters."""
    return tuple(
        (1, int(token)) if token.isdigit() else (0, ord(token))
        for token in re.findall(r"[0-9]+|[^0-9]", name)
    )


# musl
