"""Reading one file of an image without mounting it.

Walks the stack of layer directories as overlayfs would: upper entries hide lower ones, character devices 0:0
are whiteouts, opaque directories hide everything below. Links are resolved inside the stack, so no content of
an image can make this read a file of the host, block, or use unbounded memory.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

import attrs

from containerlib.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["read_file"]

_MAX_LINKS = 40
_MAX_COMPONENTS = 2048
_MAX_DEPTH = 128
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_OPAQUE_XATTRS = ("trusted.overlay.opaque", "user.overlay.opaque")


def read_file(lowers: Sequence[str], path: str, *, limit: int) -> bytes | None:
    """Return the content of `path` in the stack `lowers`, or None if it does not exist there.

    Args:
        lowers: Layer directories, top-most first.
        path: Path inside the image; relative means relative to its root.
        limit: Most bytes that are read.

    Raises:
        InvalidInputError: The path leads to something that is not a regular file, to a file over the
            limit, or through too many links.
    """
    view = _View(lowers)
    try:
        return view.read(path, limit)
    finally:
        view.close()


@attrs.frozen
class _Found:
    """What has a name in a merged directory: the descriptor of the layer's directory it lies in."""

    directory_fd: int
    info: os.stat_result


class _View:
    """The walk: a stack of merged directories, each a list of descriptors, top-most layer first."""

    def __init__(self, lowers: Sequence[str]) -> None:
        self._open: list[int] = []
        try:
            root = [self._keep(os.open(lower, _DIRECTORY & ~os.O_NOFOLLOW)) for lower in lowers]
        except OSError:
            self.close()
            raise
        self._stack: list[list[int]] = [root]

    def close(self) -> None:
        """Close every directory that was opened."""
        while self._open:
            os.close(self._open.pop())

    def read(self, path: str, limit: int) -> bytes | None:
        """Walk to `path` and read it."""
        if "\0" in path:
            raise InvalidInputError(f"path {path!r} holds a NUL character")
        pending = _components(path)
        links = 0
        while pending:
            name = pending.pop(0)
            if name == b"..":
                self._leave()
                continue
            found = self._find(name)
            if found is None:
                return None
            if stat.S_ISDIR(found.info.st_mode):
                self._enter(name)
                if len(self._stack) > _MAX_DEPTH:
                    raise InvalidInputError(f"path {path!r} leads too deep")
            elif stat.S_ISLNK(found.info.st_mode):
                links += 1
                pending = self._follow(found.directory_fd, name, path, links) + pending
            elif pending:
                return None
            else:
                return _read_regular(found, name, path, limit)
            if len(pending) > _MAX_COMPONENTS:
                raise InvalidInputError(f"path {path!r} expands to too many components")
        raise InvalidInputError(f"path {path!r} is a directory, not a regular file")

    def _find(self, name: bytes) -> _Found | None:
        """Look `name` up in the present merged directory."""
        for fd in self._stack[-1]:
            try:
                info = os.stat(name, dir_fd=fd, follow_symlinks=False)
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError as error:
                raise InvalidInputError(f"path component {name[:80]!r}: {error.strerror}") from None
            return None if _is_whiteout(info) else _Found(fd, info)
        return None

    def _enter(self, name: bytes) -> None:
        """Make the merged directory `name` the present one."""
        merged: list[int] = []
        for fd in self._stack[-1]:
            try:
                child = self._keep(os.open(name, _DIRECTORY, dir_fd=fd))
            except FileNotFoundError:
                continue
            except OSError:
                break  # not a directory: it hides what lies below
            merged.append(child)
            if _is_opaque(child):
                break
        self._stack.append(merged)

    def _leave(self) -> None:
        if len(self._stack) > 1:
            for fd in self._stack.pop():
                self._open.remove(fd)
                os.close(fd)

    def _follow(self, fd: int, name: bytes, path: str, links: int) -> list[bytes]:
        if links > _MAX_LINKS:
            raise InvalidInputError(f"path {path!r} leads through more than {_MAX_LINKS} symbolic links")
        target = os.readlink(name, dir_fd=fd)
        if target.startswith(b"/"):
            while len(self._stack) > 1:
                self._leave()
        return _components(target)

    def _keep(self, fd: int) -> int:
        self._open.append(fd)
        return fd


def _components(path: str | bytes) -> list[bytes]:
    return [part for part in os.fsencode(path).split(b"/") if part not in {b"", b"."}]


def _is_whiteout(info: os.stat_result) -> bool:
    return stat.S_ISCHR(info.st_mode) and info.st_rdev == 0


def _is_opaque(fd: int) -> bool:
    for name in _OPAQUE_XATTRS:
        try:
            if os.getxattr(fd, name) == b"y":
                return True
        except OSError:
            continue  # absent, or the file system has no such attributes
    return False


def _read_regular(found: _Found, name: bytes, path: str, limit: int) -> bytes:
    # The type is checked before the open, which on a device could have an effect, and again after it.
    if not stat.S_ISREG(found.info.st_mode):
        raise InvalidInputError(f"path {path!r} is not a regular file")
    fd = os.open(name, _FILE, dir_fd=found.directory_fd)
    try:
        info = os.fstat(fd)
        if not stat.S_ISREG(info.st_mode):
            raise InvalidInputError(f"path {path!r} is not a regular file")
        if info.st_size > limit:
            raise InvalidInputError(f"path {path!r}: {info.st_size} bytes, more than the limit of {limit}")
        chunks: list[bytes] = []
        room = limit + 1
        while room and (chunk := os.read(fd, min(room, 1 << 20))):
            chunks.append(chunk)
            room -= len(chunk)
    finally:
        os.close(fd)
    data = b"".join(chunks)
    if len(data) > limit:
        raise InvalidInputError(f"path {path!r}: more than the limit of {limit} bytes")
    return data
