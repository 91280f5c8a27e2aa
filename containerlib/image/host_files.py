"""Files of the host as a program in it would see them: links followed in user space, answers remembered.

In: a root directory and paths. Out: `HostFile` values and contents. Nothing is executed.
"""

from __future__ import annotations

import contextlib
import errno
import glob
import os
import stat
from typing import TYPE_CHECKING, Final

import attrs

from containerlib.image import elf

if TYPE_CHECKING:
    from collections.abc import Iterator

    from containerlib.image.elf import Elf

__all__ = ["HostFile", "HostFiles"]

_MAX_LINKS: Final = 40  # the kernel's own limit, path_resolution(7)
_ABSENCE: Final = frozenset((errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG))
_HEAD_BYTES: Final = 256  # what the kernel looks at to tell the format of a program


@attrs.frozen(eq=False)
class HostFile:
    """What a path on the host leads to.

    Attributes:
        path: Absolute path without symbolic links.
        status: `lstat` of that path.
        trail: Each directory and symbolic link passed on the way, and `path` last; paths without links before
            their last component. An image with all of them leads from the original path to the same file.
    """

    path: str
    status: os.stat_result
    trail: tuple[str, ...]

    @property
    def identity(self) -> tuple[int, int]:
        """What two names of one file have in common."""
        return (self.status.st_dev, self.status.st_ino)

    @property
    def is_regular(self) -> bool:
        """It is a regular file."""
        return stat.S_ISREG(self.status.st_mode)

    @property
    def is_directory(self) -> bool:
        """It is a directory."""
        return stat.S_ISDIR(self.status.st_mode)


class HostFiles:
    """Read-only view of the files below `root`, each looked at once.

    Symbolic links are followed the way a process with this root directory would. An instance is a snapshot
    for one collection: it does not notice later changes.

    Args:
        root: Directory that is taken for `/`; empty for the real one.
    """

    def __init__(self, root: str = "") -> None:
        self._root = root.rstrip("/")
        self._statuses: dict[str, os.stat_result | None] = {}
        self._targets: dict[str, str] = {}
        self._resolved: dict[str, HostFile | None] = {}
        self._elves: dict[tuple[int, int], Elf] = {}

    def status(self, path: str) -> os.stat_result | None:
        """Give `lstat` of a path without links before its last component; `None` when nothing is there."""
        if path not in self._statuses:
            try:
                self._statuses[path] = os.lstat(self.host_path(path))
            except OSError as error:
                if error.errno not in _ABSENCE:
                    raise
                self._statuses[path] = None
        return self._statuses[path]

    def target(self, path: str) -> str:
        """Give the text of the symbolic link at `path`."""
        if path not in self._targets:
            self._targets[path] = os.readlink(self.host_path(path))
        return self._targets[path]

    def host_path(self, path: str) -> str:
        """Give the name by which this process reaches `path`."""
        return self._root + path

    def resolve(self, path: str) -> HostFile | None:
        """Follow `path` to its end; `None` when something on the way is missing or links go in a circle."""
        if path not in self._resolved:
            self._resolved[path] = None if "\0" in path else self._walk(path)
        return self._resolved[path]

    def _walk(self, path: str) -> HostFile | None:
        pending = path.split("/")[::-1]
        current, links, trail = "", 0, []
        while pending:
            part = pending.pop()
            if part in ("", "."):
                continue
            if part == "..":
                current = current.rpartition("/")[0]
                continue
            child = f"{current}/{part}"
            status = self.status(child)
            if status is None:
                return None
            trail.append(child)
            if not stat.S_ISLNK(status.st_mode):
                current = child
                continue
            links += 1
            if links > _MAX_LINKS:
                return None
            target = self.target(child)
            current = "" if target.startswith("/") else current
            pending.extend(target.split("/")[::-1])
        status = self.status(current or "/")
        if status is None or (path.endswith("/") and not stat.S_ISDIR(status.st_mode)):
            return None
        return HostFile(path=current or "/", status=status, trail=tuple(trail))

    @contextlib.contextmanager
    def open(self, file: HostFile) -> Iterator[int]:
        """Open a regular file for reading; neither a link nor a pipe put there meanwhile does any harm."""
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY
        fd = os.open(self.host_path(file.path), flags)
        try:
            yield fd
        finally:
            os.close(fd)

    def head(self, file: HostFile) -> bytes:
        """Read the bytes from which the kernel tells what a program is."""
        with self.open(file) as fd:
            return os.pread(fd, _HEAD_BYTES, 0)

    def content(self, path: str, limit: int) -> bytes | None:
        """Read the file that `path` leads to; `None` when there is none or it is larger than `limit`."""
        file = self.resolve(path)
        if file is None or not file.is_regular or file.status.st_size > limit:
            return None
        with self.open(file) as fd:
            return os.pread(fd, limit, 0)

    def elf(self, file: HostFile) -> Elf:
        """Read what the loader needs to know about a program or library.

        Raises:
            InvalidInputError: It is no ELF file that we read.
        """
        if file.identity not in self._elves:
            with self.open(file) as fd:
                self._elves[file.identity] = elf.parse(fd, file.path)
        return self._elves[file.identity]

    def glob(self, pattern: str) -> list[str]:
        """Give the paths that match `pattern`, sorted."""
        matches = glob.glob(glob.escape(self._root) + pattern)
        return sorted(match.removeprefix(self._root) for match in matches)
