"""Mount tables as values: one `MountEntry` per line of a mountinfo file.

Knows the text format of proc_pid_mountinfo(5) and nothing about containers.
"""

from __future__ import annotations

import ctypes
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Self

__all__ = ["MountEntry", "detach", "read_mounts", "unescape"]

MNT_DETACH = 2
UMOUNT_NOFOLLOW = 8


@dataclass(frozen=True, slots=True)
class MountEntry:
    """One mount, without the ids that the kernel reuses.

    Attributes:
        device: ``major:minor`` of the file system.
        root: Path inside the file system that is mounted here.
        target: Where it is mounted.
        options: Per-mount options.
        propagation: Optional fields, such as ``shared:1``.
        fstype: Type of the file system.
        source: What was mounted, as its owner named it.
        super_options: Options of the file system itself.
    """

    device: str
    root: str
    target: str
    options: frozenset[str]
    propagation: tuple[str, ...]
    fstype: str
    source: str
    super_options: frozenset[str]

    @classmethod
    def parse(cls, line: str) -> Self:
        """Parse one line of a mountinfo file."""
        left, _, right = line.partition(" - ")
        _mount_id, _parent_id, device, root, target, options, *propagation = left.split(" ")
        fstype, source, super_options = right.split(" ", 2)
        return cls(
            device=device,
            root=unescape(root),
            target=unescape(target),
            options=frozenset(options.split(",")),
            propagation=tuple(field for field in propagation if field),
            fstype=fstype,
            source=unescape(source),
            super_options=frozenset(super_options.split(",")),
        )


def unescape(field: str) -> str:
    r"""Undo the octal escapes of blank, tab, newline and backslash."""
    for code, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        field = field.replace(code, character)
    return field


def read_mounts(pid: int | str = "self") -> tuple[MountEntry, ...]:
    """Read the mount table that the process sees, in mount order."""
    text = Path(f"/proc/{pid}/mountinfo").read_text(encoding="utf-8", errors="surrogateescape")
    return tuple(MountEntry.parse(line) for line in text.splitlines())


def detach(target: str) -> None:
    """Take the topmost mount on `target` out of this mount namespace, busy or not."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.umount2(os.fsencode(target), MNT_DETACH | UMOUNT_NOFOLLOW) != 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error), target)
