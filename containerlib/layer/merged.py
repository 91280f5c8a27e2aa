"""A stack of layer directories seen as overlayfs merges them, by descriptors and without a mount.

Upper entries hide lower ones, character devices 0:0 are whiteouts, opaque directories hide everything below.
Directories are named by their path and by the layers that take part in them; nothing follows a link. What
changes while it is read is an error and never a half truth.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from typing import TYPE_CHECKING, Literal, NoReturn

import attrs

from containerlib.errors import InvalidInputError
from containerlib.layer import marks
from containerlib.layer.names import shown
from containerlib.layer.tree import Tree

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence
    from typing import Self

__all__ = ["Found", "Kind", "Stack", "Where", "join"]

Kind = Literal["file", "directory", "symlink", "fifo", "character", "block"]

Where = tuple[int, ...]
"""The layers that take part in a merged directory, as indices, top-most first."""

_KINDS: dict[int, Kind] = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "symlink",
    stat.S_IFIFO: "fifo",
    stat.S_IFCHR: "character",
    stat.S_IFBLK: "block",
}
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_EXCHANGED = frozenset((errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENODATA, errno.ENXIO, errno.EINVAL))
_KEPT_DESCRIPTORS = 256
_LEAST_KEPT = 4
_MAX_TREES = 64
_MAX_XATTR_BYTES = 512 << 10  # what our own reader takes at most, with room for paths


@attrs.frozen
class Found:
    """What a name means in a merged directory.

    Attributes:
        layer: The layer that it comes from.
        info: What it is there.
    """

    layer: int
    info: os.stat_result

    @property
    def kind(self) -> Kind | None:
        """Its type; None for a socket, which no archive can hold."""
        return _KINDS.get(stat.S_IFMT(self.info.st_mode))

    @property
    def is_directory(self) -> bool:
        """Whether it is one."""
        return stat.S_ISDIR(self.info.st_mode)

    @property
    def is_whiteout(self) -> bool:
        """Whether it only says that the name is removed."""
        return marks.is_whiteout(self.info)


def join(directory: bytes, name: bytes) -> bytes:
    """Return the path of `name` in `directory`; the root is empty."""
    return directory + b"/" + name if directory else name


class Stack:
    """Layer directories, opened when they are needed. A context manager; not safe for several threads."""

    def __init__(self, directories: Sequence[str], *, prefixes: Collection[str]) -> None:
        """Take `directories`, whose paths are the caller's own and trusted.

        Args:
            directories: In any order: a `Where` says which lie on which.
            prefixes: Which marks of overlayfs count; see `marks.is_opaque`.
        """
        self._directories = directories
        self._prefixes = prefixes
        self._kept = max(_LEAST_KEPT, _KEPT_DESCRIPTORS // max(1, len(directories)))
        self._trees: dict[int, tuple[int, Tree]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        while self._trees:
            self._close(next(iter(self._trees)))

    def root(self, layer: int) -> tuple[os.stat_result, dict[str, bytes]]:
        """Return attributes and extended attributes of the root of one layer."""
        return os.fstat(self._directory(layer, b"")), self.xattrs(layer, b"")

    def top(self, layers: Where) -> Where:
        """Return those of `layers` that take part in the root of the stack."""
        for number, layer in enumerate(layers):
            if self.is_opaque(layer, b""):
                return layers[: number + 1]
        return layers

    def names(self, path: bytes, where: Where) -> set[bytes]:
        """Return every name that a layer of `where` has in the directory `path`, even if it is hidden."""
        found: set[bytes] = set()
        for layer in where:
            with self._opened(layer, path) as fd:
                found.update(map(os.fsencode, os.listdir(fd)))
        return found

    def listing(self, path: bytes, where: Where) -> dict[bytes, Found]:
        """Return what the merged directory `path` holds, whiteouts included."""
        found: dict[bytes, Found] = {}
        for layer in where:
            with self._opened(layer, path) as fd:
                for text in os.listdir(fd):
                    name = os.fsencode(text)
                    if name not in found:
                        found[name] = Found(layer, _stat(fd, path, name))
        return found

    def find(self, path: bytes, name: bytes, where: Where) -> Found | None:
        """Return what `name` is in the merged directory `path`, a whiteout included; None if nothing."""
        for layer in where:
            try:
                info = os.stat(name, dir_fd=self._directory(layer, path), follow_symlinks=False)
            except FileNotFoundError:
                continue
            return Found(layer, info)
        return None

    def below(self, path: bytes, name: bytes, where: Where) -> Where:
        """Return which layers of `where` take part in the directory `name` of the directory `path`."""
        taking_part: list[int] = []
        for layer in where:
            found = self.find(path, name, (layer,))
            if found is None:
                continue
            if not found.is_directory:
                break
            taking_part.append(layer)
            if self._is_opaque(self._directory(layer, path), name, join(path, name)):
                break
        return tuple(taking_part)

    def is_opaque(self, layer: int, path: bytes) -> bool:
        """Say whether the directory `path` of one layer hides what lies below."""
        head, _, name = path.rpartition(b"/")
        return self._is_opaque(self._directory(layer, head), name or b".", path)

    def xattrs(self, layer: int, path: bytes) -> dict[str, bytes]:
        """Return the extended attributes of `path` that a layer may hold.

        Raises:
            InvalidInputError: Its content lies in another layer, or they are too large for an archive.
        """
        head, _, name = path.rpartition(b"/")
        fd = self._directory(layer, head)
        with _ChangesNoticed(path):
            names = marks.xattr_names(fd, name or b".")
            if not names:
                return {}
            marks.refuse_elsewhere(path, names, self._prefixes)
            result = marks.read_xattrs(fd, name or b".", names)
        if sum(map(len, result.values())) > _MAX_XATTR_BYTES:
            raise InvalidInputError(
                f"{shown(path)!r}: more than {_MAX_XATTR_BYTES} bytes of extended attributes"
            )
        return result

    def link_target(self, layer: int, path: bytes) -> bytes:
        """Return where the symbolic link `path` points."""
        head, _, name = path.rpartition(b"/")
        with _ChangesNoticed(path):
            return os.readlink(name, dir_fd=self._directory(layer, head))

    def open_file(self, layer: int, path: bytes, info: os.stat_result) -> int:
        """Open the regular file `path`, which must be the one that `info` is about; the caller closes it.

        Raises:
            InvalidInputError: It is another file now.
        """
        head, _, name = path.rpartition(b"/")
        with _ChangesNoticed(path):
            directory_fd = self._directory(layer, head)
            # Looked at first: opening what has become a device could have an effect.
            if not _is_same(os.stat(name, dir_fd=directory_fd, follow_symlinks=False), info):
                _refuse_change(path)
            fd = os.open(name, _FILE, dir_fd=directory_fd)
        if not _is_same(os.fstat(fd), info):
            os.close(fd)
            _refuse_change(path)
        return fd

    def _is_opaque(self, directory_fd: int, name: bytes, path: bytes) -> bool:
        with _ChangesNoticed(path):
            names = marks.xattr_names(directory_fd, name)
            marks.refuse_elsewhere(path, names, self._prefixes)
            return marks.is_opaque(directory_fd, name, names, self._prefixes)

    def _directory(self, layer: int, path: bytes) -> int:
        with _ChangesNoticed(path):
            return self._tree(layer).directory(path, create=False)

    def _tree(self, layer: int) -> Tree:
        """Return the tree of one layer; there may be more layers than descriptors."""
        known = self._trees.get(layer)
        if known is not None:
            return known[1]
        if len(self._trees) >= _MAX_TREES:
            self._close(next(iter(self._trees)))
        root_fd = os.open(self._directories[layer], _DIRECTORY)
        tree = Tree(root_fd, follow=False, kept=self._kept)
        self._trees[layer] = (root_fd, tree)
        return tree

    def _close(self, layer: int) -> None:
        root_fd, tree = self._trees.pop(layer)
        tree.forget()
        os.close(root_fd)

    @contextlib.contextmanager
    def _opened(self, layer: int, path: bytes) -> Iterator[int]:
        with _ChangesNoticed(path):
            fd = os.open(".", _DIRECTORY, dir_fd=self._directory(layer, path))
        try:
            yield fd
        finally:
            os.close(fd)


def _stat(fd: int, path: bytes, name: bytes) -> os.stat_result:
    with _ChangesNoticed(join(path, name)):
        return os.stat(name, dir_fd=fd, follow_symlinks=False)


def _is_same(info: os.stat_result, known: os.stat_result) -> bool:
    is_same = (info.st_dev, info.st_ino) == (known.st_dev, known.st_ino)
    return is_same and stat.S_ISREG(info.st_mode)


class _ChangesNoticed:
    """Turns what only happens when names are exchanged between two looks into the error for that."""

    __slots__ = ("_path",)

    def __init__(self, path: bytes) -> None:
        self._path = path

    def __enter__(self) -> None:
        return

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, OSError) and error.errno in _EXCHANGED:
            _refuse_change(self._path)


def _refuse_change(path: bytes) -> NoReturn:
    raise InvalidInputError(
        f"{shown(path)!r} changed while it was read; stop what writes to it first"
    ) from None
