"""Directories that a layer needs and says nothing of: they are what they are in the layers below.

An archive with ``tmp/file`` and no entry for ``tmp`` leaves the directory as it was. In an overlay the
uppermost directory decides about owner, mode and time, so these are copied up.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from containerlib.errors import UnsafePath
from containerlib.layer.tree import Tree

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["inherit"]

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_OVERLAY = ("trusted.overlay.", "user.overlay.")
_OPAQUE = frozenset(f"{prefix}opaque" for prefix in _OVERLAY)


def inherit(path: str, implied: Iterable[bytes], lowers: Sequence[str]) -> None:
    """Give the directories `implied` of the layer at `path` the attributes that they have below.

    One that is nowhere below keeps its own, with the beginning of 1970 for its time, so that the same layer
    is the same everywhere.

    Args:
        path: The layer's directory.
        implied: Directories in it, those above before those in them.
        lowers: Directories of the layers below, top-most first.

    Cost: some ten system calls for each directory and each layer down to the one that has it.
    """
    # From the bottom up: a change of one changes nothing of those that it lies in.
    for name in reversed(list(implied)):
        fd = _open(path, name)
        if fd is None:
            continue
        try:
            _copy(_find(name, lowers), fd)
        finally:
            os.close(fd)


def _open(root: str, name: bytes) -> int | None:
    """Open a directory of a layer, through no link; None if it is not there or something else."""
    root_fd = os.open(root, _DIRECTORY)
    try:
        with contextlib.suppress(FileNotFoundError, UnsafePath), Tree(root_fd, follow=False) as tree:
            return os.open(".", _DIRECTORY, dir_fd=tree.directory(name, create=False))
    finally:
        os.close(root_fd)
    return None


def _find(name: bytes, lowers: Sequence[str]) -> int | None:
    """Open the uppermost directory of this name that can be seen in the layers below."""
    for lower in lowers:
        fd = _open(lower, name)
        if fd is not None:
            return fd
        if _hides(lower, name):
            return None
    return None


def _hides(lower: str, name: bytes) -> bool:
    """Say whether a layer hides what those below it have at `name`."""
    parts = name.split(b"/")
    for count in range(len(parts), 0, -1):
        above = b"/".join(parts[: count - 1])
        fd = _open(lower, above)
        if fd is None:
            continue
        try:
            # The deepest part of the way that is here: what follows is missing, or not a directory.
            if _is_opaque(fd):
                return True
            with contextlib.suppress(FileNotFoundError):
                os.stat(parts[count - 1], dir_fd=fd, follow_symlinks=False)
                return True
        finally:
            os.close(fd)
    return False


def _is_opaque(fd: int) -> bool:
    return any(name in _OPAQUE and os.getxattr(fd, name) == b"y" for name in os.listxattr(fd))


def _copy(source: int | None, target: int) -> None:
    """Copy owner, mode, attributes and time, and close the source."""
    if source is None:
        os.utime(target, (0, 0))
        return
    try:
        info = os.fstat(source)
        os.fchown(target, info.st_uid, info.st_gid)
        os.fchmod(target, info.st_mode & 0o7777)
        for name in os.listxattr(source):
            if not name.startswith(_OVERLAY):
                os.setxattr(target, name, os.getxattr(source, name))
        os.utime(target, ns=(info.st_mtime_ns, info.st_mtime_ns))
    finally:
        os.close(source)
