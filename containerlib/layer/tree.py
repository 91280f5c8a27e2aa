"""A directory tree that hostile names are resolved in, through descriptors and never through host paths.

`Tree` walks one component at a time with ``O_NOFOLLOW`` from a descriptor of the root. A symbolic link in a
directory part is read and resolved inside the tree, as the tree's own programs would see it; so no name and
no link leads out. The descriptors of directories walked lately are kept, because archives are sorted by
directory.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING

from containerlib.errors import UnsafePath
from containerlib.layer.names import shown

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

__all__ = ["Tree"]

_MAX_LINKS = 40
_MAX_STEPS = 8192
_KEPT_DIRECTORIES = 64
_WALK = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NOT_A_DIRECTORY = frozenset((errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG))


class Tree:
    """The tree below one directory descriptor, which the caller keeps open and owns.

    Not safe for several threads; each thread makes its own.
    """

    def __init__(
        self, root_fd: int, *, follow: bool = True, kept: int = _KEPT_DIRECTORIES, across: bool = False
    ) -> None:
        """Take the tree below `root_fd`.

        Args:
            root_fd: The directory.
            follow: Whether links in directory parts are followed inside the tree, or refused.
            kept: Most descriptors that are kept.
            across: Whether what is mounted in the tree belongs to it.
        """
        self._root_fd = root_fd
        self._follow = follow
        self._most_kept = kept
        self._across = across
        self._device = os.fstat(root_fd).st_dev
        self._kept: dict[bytes, int] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.forget()

    def forget(self) -> None:
        """Close the kept directories; needed whenever a directory or a link was removed."""
        while self._kept:
            os.close(self._kept.popitem()[1])

    def directory(self, path: bytes, *, create: bool) -> int:
        """Return a descriptor of directory `path`, good until the next call; the tree owns it.

        Args:
            path: Cleaned path relative to the root.
            create: Whether missing directories are made, mode 0755.

        Raises:
            UnsafePath: A part is neither a directory nor a link to one that may be followed, links form a
                loop, or the path leaves the file system of the root.
            FileNotFoundError: A part is missing and `create` is false.
        """
        if not path:
            return self._root_fd
        fd = self._kept.get(path)
        if fd is not None:
            return fd
        head, _, name = path.rpartition(b"/")
        parent_fd = self._kept.get(head) if head else self._root_fd
        if parent_fd is not None:
            fd = self._step(parent_fd, name, create=create)
            if fd is not None:
                return self.adopt(path, fd)
        return self.adopt(path, self._walk(path, create=create))

    def is_plain(self, path: bytes) -> bool:
        """Say whether no part of the existing directory `path` is a link."""
        fd = os.dup(self._root_fd)
        try:
            for name in path.split(b"/") if path else ():
                child = self._step(fd, name, create=False)
                if child is None:
                    return False
                os.close(fd)
                fd = child
        finally:
            os.close(fd)
        return True

    def adopt(self, path: bytes, fd: int) -> int:
        """Keep `fd`, a descriptor of the directory `path`, so that it need not be walked to again."""
        old = self._kept.pop(path, None)
        if old is not None:
            os.close(old)
        elif len(self._kept) >= self._most_kept:
            os.close(self._kept.pop(next(iter(self._kept))))
        self._kept[path] = fd
        return fd

    def open_regular(self, path: bytes) -> int:
        """Open the regular file `path` for reading; the caller owns the descriptor.

        Raises:
            UnsafePath: It is not a regular file.
        """
        head, _, name = path.rpartition(b"/")
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            fd = os.open(name, flags, dir_fd=self.directory(head, create=False))
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise UnsafePath(shown(path), "not a regular file") from None
            raise
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise UnsafePath(shown(path), "not a regular file")
        return fd

    def _step(self, parent_fd: int, name: bytes, *, create: bool) -> int | None:
        """Open the directory `name` of `parent_fd`; None if it is something else, perhaps a link."""
        try:
            fd = os.open(name, _WALK, dir_fd=parent_fd)
        except FileNotFoundError:
            if not create:
                raise
            fd = _make(parent_fd, name)
        except OSError as error:
            if error.errno in _NOT_A_DIRECTORY:
                return None
            raise
        if not self._across and os.fstat(fd).st_dev != self._device:
            os.close(fd)
            raise UnsafePath(shown(name), "directory lies on another file system")
        return fd

    def _walk(self, path: bytes, *, create: bool) -> int:
        """Resolve `path` from the root, link by link; return a new descriptor.

        ``..`` in a link is resolved by walking again from the root along what was really walked, so the
        parent of a directory is never asked of the kernel and one descriptor is enough at any depth.
        """
        pending = path.split(b"/")[::-1]
        walked: list[bytes] = []
        links = steps = 0
        fd = os.dup(self._root_fd)
        try:
            while pending:
                name = pending.pop()
                steps += 1
                _check_effort(path, links, steps)
                if name != b"..":
                    child = self._step(fd, name, create=create)
                    if child is not None:
                        os.close(fd)
                        fd = child
                        walked.append(name)
                        continue
                    links += 1
                    target = self._link_target(fd, name, path)
                    pending += [part for part in target.split(b"/")[::-1] if part not in {b"", b"."}]
                    if not target.startswith(b"/"):
                        continue
                    walked.clear()
                # Back to the root: the way so far, without its last part, is walked again.
                pending += walked[-2::-1] if name == b".." else []
                walked.clear()
                os.close(fd)
                fd = os.dup(self._root_fd)
        except BaseException:
            os.close(fd)
            raise
        return fd

    def _link_target(self, parent_fd: int, name: bytes, path: bytes) -> bytes:
        try:
            target = os.readlink(name, dir_fd=parent_fd)
        except OSError:
            raise UnsafePath(shown(path), f"{shown(name)!r} is in the way and not a directory") from None
        if not self._follow:
            raise UnsafePath(shown(path), f"{shown(name)!r} is a symbolic link")
        return target


def _check_effort(path: bytes, links: int, steps: int) -> None:
    if links > _MAX_LINKS or steps > _MAX_STEPS:
        raise UnsafePath(shown(path), "its directory part leads through too many links")


def _make(parent_fd: int, name: bytes) -> int:
    os.mkdir(name, 0o755, dir_fd=parent_fd)
    fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent_fd)
    try:
        # Whatever the umask is, and whatever a set-group-id parent hands down.
        os.fchown(fd, os.geteuid(), os.getegid())
        os.fchmod(fd, 0o755)
    except OSError:
        os.close(fd)
        raise
    return fd
