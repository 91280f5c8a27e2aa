"""A directory tree that is in use becomes an archive: what the walk meets, as it is at that moment.

The walk is by descriptors and follows no link. What disappears meanwhile is left out; so are sockets and
devices. Unlike `layer.diff` this knows no marks of overlayfs: the tree is what programs see.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import stat
from typing import TYPE_CHECKING

import attrs

from containerlib.errors import InvalidInputError, UnsafePath
from containerlib.layer import marks
from containerlib.layer.archive import LayerEntry
from containerlib.layer.merged import join
from containerlib.layer.names import shown
from containerlib.layer.tree import Tree

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from containerlib.layer.archive import ArchiveWriter, EntryKind

__all__ = ["Taken", "write_object"]

_KINDS: dict[int, EntryKind] = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "symlink",
    stat.S_IFIFO: "fifo",
}
_LIST = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_NANOSECONDS = 1_000_000_000
_GONE = frozenset((errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO, errno.ENODATA))


@attrs.frozen(kw_only=True)
class Taken:
    """What of a tree is taken into an archive.

    Attributes:
        owner: User and group of everything; None for those that each has.
        modes: Which bits of modes are kept.
        xattrs: Whether extended attributes are.
        empty: Directories, by device and number, of which nothing but themselves is taken.
    """

    owner: tuple[int, int] | None = None
    modes: int = 0o7777
    xattrs: bool = False
    empty: Collection[tuple[int, int]] = ()


class _GoneError(Exception):
    """Somebody has removed or exchanged it."""


def write_object(writer: ArchiveWriter, fd: int, name: bytes, taken: Taken) -> None:
    """Write a file, link or directory with everything below it.

    Args:
        writer: The archive.
        fd: Descriptor of it, O_PATH is enough; stays open.
        name: What it is called in the archive; empty for only what a directory holds.
        taken: What of it is written.

    Raises:
        InvalidInputError: It is a device or a socket, or a file became shorter while it was read.
        OSError: The kernel refuses something else.
    """
    info = os.fstat(fd)
    if stat.S_ISDIR(info.st_mode):
        _write_directory(writer, fd, info, name, taken)
        return
    entry = _entry(name, info, taken)
    if entry is None:
        raise InvalidInputError(f"{shown(name)!r} is a device or a socket, which is not copied")
    if entry.kind == "symlink":
        entry = attrs.evolve(entry, linkname=os.fsdecode(os.readlink(b"", dir_fd=fd)))
    elif taken.xattrs:
        place = b"/proc/self/fd/%d" % fd
        names = marks.kept_xattrs(os.listxattr(place))
        entry = attrs.evolve(entry, xattrs={key: os.getxattr(place, key) for key in names})
    _write(writer, name, entry, functools.partial(_reopen, fd))


def _write_directory(writer: ArchiveWriter, fd: int, info: os.stat_result, name: bytes, taken: Taken) -> None:
    root_fd = os.open(b".", _LIST, dir_fd=fd)
    try:
        entry = _entry(name, info, taken)
        if name and entry is not None:
            writer.add(name, _with_xattrs(entry, root_fd, b".", taken))
        if _identity(info) in taken.empty:
            return
        with Tree(root_fd, follow=False, across=True) as tree:
            for path, found, opener in _Walk(tree, taken).entries():
                renamed = found
                if found.kind == "hardlink":
                    renamed = attrs.evolve(
                        found, linkname=os.fsdecode(join(name, os.fsencode(found.linkname)))
                    )
                with contextlib.suppress(_GoneError):
                    _write(writer, join(name, path), renamed, opener)
    finally:
        os.close(root_fd)


def _write(writer: ArchiveWriter, name: bytes, entry: LayerEntry, opener: Callable[[], int]) -> None:
    """Write one member. A file that has become longer meanwhile is cut where it ended."""
    if entry.kind != "file":
        writer.add(name, entry)
        return
    fd = opener()
    try:
        writer.add_stream(name, entry, os.fstat(fd).st_size, functools.partial(os.read, fd))
    finally:
        os.close(fd)


class _Walk:
    """One walk over a tree, and what it remembers."""

    def __init__(self, tree: Tree, taken: Taken) -> None:
        self._tree = tree
        self._taken = taken
        self._first_names: dict[tuple[int, int], bytes] = {}

    def entries(self) -> Iterator[tuple[bytes, LayerEntry, Callable[[], int]]]:
        """Yield everything below the root, each directory before what is in it."""
        pending = [b""]
        while pending:
            directory = pending.pop()
            below = []
            for name in self._names(directory):
                found = self._look(directory, name)
                if found is None:
                    continue
                path, info, entry = join(directory, name), *found
                yield path, entry, functools.partial(_open, self._tree, path, info)
                if entry.kind == "directory" and _identity(info) not in self._taken.empty:
                    below.append(path)
            pending += reversed(below)

    def _names(self, directory: bytes) -> list[bytes]:
        """What a directory holds, in order; nothing if it is gone."""
        try:
            fd = os.open(b".", _LIST, dir_fd=self._tree.directory(directory, create=False))
            try:
                return sorted(map(os.fsencode, os.listdir(fd)))
            finally:
                os.close(fd)
        except (OSError, UnsafePath) as error:
            _raise_unless_gone(error)
            return []

    def _look(self, directory: bytes, name: bytes) -> tuple[os.stat_result, LayerEntry] | None:
        """What a name is, and its entry; None for what is gone or left out."""
        try:
            parent_fd = self._tree.directory(directory, create=False)
            info = os.stat(name, dir_fd=parent_fd, follow_symlinks=False)
            entry = self._found(parent_fd, name, join(directory, name), info)
        except (OSError, UnsafePath) as error:
            _raise_unless_gone(error)
            return None
        return None if entry is None else (info, entry)

    def _found(self, parent_fd: int, name: bytes, path: bytes, info: os.stat_result) -> LayerEntry | None:
        entry = _entry(path, info, self._taken)
        if entry is None or entry.kind == "directory":
            return None if entry is None else _with_xattrs(entry, parent_fd, name, self._taken)
        if info.st_nlink > 1:
            first = self._first_names.setdefault(_identity(info), path)
            if first != path:
                return attrs.evolve(entry, kind="hardlink", linkname=os.fsdecode(first))
        if entry.kind == "symlink":
            return attrs.evolve(entry, linkname=os.fsdecode(os.readlink(name, dir_fd=parent_fd)))
        return _with_xattrs(entry, parent_fd, name, self._taken)


def _raise_unless_gone(error: OSError | UnsafePath) -> None:
    """Something that was removed, or has become something else, is none of an error."""
    if isinstance(error, OSError) and error.errno not in _GONE:
        raise error


def _entry(path: bytes, info: os.stat_result, taken: Taken) -> LayerEntry | None:
    """The entry without content; None for what is left out."""
    kind = _KINDS.get(stat.S_IFMT(info.st_mode))
    if kind is None:
        return None
    uid, gid = taken.owner or (info.st_uid, info.st_gid)
    return LayerEntry(
        os.fsdecode(path),
        kind,
        mode=stat.S_IMODE(info.st_mode) & taken.modes,
        uid=uid,
        gid=gid,
        mtime=info.st_mtime_ns // _NANOSECONDS,
    )


def _with_xattrs(entry: LayerEntry, directory_fd: int, name: bytes, taken: Taken) -> LayerEntry:
    if not taken.xattrs or entry.kind not in {"file", "directory"}:
        return entry
    names = marks.xattr_names(directory_fd, name)
    return attrs.evolve(entry, xattrs=marks.read_xattrs(directory_fd, name, names)) if names else entry


def _open(tree: Tree, path: bytes, info: os.stat_result) -> int:
    """Open a file that must be the one that was seen; looked at first, because opening may have an effect."""
    head, _, name = path.rpartition(b"/")
    try:
        fd = os.open(
            name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=tree.directory(head, create=False)
        )
    except (OSError, UnsafePath) as error:
        _raise_unless_gone(error)
        raise _GoneError from None
    try:
        now = os.fstat(fd)
        if not stat.S_ISREG(now.st_mode) or _identity(now) != _identity(info):
            raise _GoneError
        return _reopen(fd)
    finally:
        os.close(fd)


def _reopen(fd: int) -> int:
    """Open for reading what is known to be a regular file."""
    return os.open(b"/proc/self/fd/%d" % fd, _READ)


def _identity(info: os.stat_result) -> tuple[int, int]:
    return info.st_dev, info.st_ino
