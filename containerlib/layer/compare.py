"""Two stacks of layer directories, compared by what each shows.

Layers that both stacks end with are not read, except where one stack hides some of them and the other does
not. Nothing is followed, and nothing but directories and regular files is opened.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, Literal

import attrs

from containerlib.layer import marks
from containerlib.layer.merged import Found, Stack, join

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from containerlib.layer.merged import Kind, Where

__all__ = ["Change", "ChangeKind", "compare"]

ChangeKind = Literal["added", "modified", "deleted"]

_NANOSECONDS = 1_000_000_000
_CHUNK_BYTES = 1 << 20


@attrs.frozen
class Change:
    """One path at which two file systems differ.

    Attributes:
        kind: Whether the path is added, modified or deleted.
        path: Absolute path.
        type: What lies there; what lay there if it is deleted.
        size_bytes: Content of a file; 0 for anything else.
    """

    kind: ChangeKind
    path: str
    type: Kind
    size_bytes: int


def compare(
    new: Sequence[str], old: Sequence[str], *, prefixes: Collection[str] = (marks.TRUSTED, marks.USER)
) -> list[Change]:
    """Return how what `new` shows differs from what `old` shows, by path.

    A path is modified if its type, mode, owner, extended attributes, link target or device number differ, or
    its content. Two files of one size are read, unless they have the same time to the nanosecond; a time that
    differs is by itself no change. Everything below a directory that is added or deleted is listed, too.

    Args:
        new: Layer directories, top-most first.
        old: The same.
        prefixes: Which marks of overlayfs count; see `marks.is_opaque`.

    Cost: a system call or two for each name in layers that only one of both has.
    """
    directories = list(dict.fromkeys([*new, *old]))
    numbers = {directory: number for number, directory in enumerate(directories)}
    with Stack(directories, prefixes=prefixes) as stack:
        comparison = _Comparison(stack)
        tops = [stack.top(tuple(numbers[directory] for directory in side)) for side in (new, old)]
        comparison.run(*tops)
    return sorted(comparison.changes, key=lambda change: os.fsencode(change.path).split(b"/"))


class _Comparison:
    """One run over two stacks."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self.changes: list[Change] = []

    def run(self, new: Where, old: Where) -> None:
        """Compare everything below the root; the root has no name and is no change."""
        pending = [(b"", new, old)]
        while pending:
            path, new, old = pending.pop()
            for name in self._names(path, new, old):
                below = self._compare(path, name, new, old)
                if below[0] != below[1]:
                    pending.append((join(path, name), *below))

    def _names(self, path: bytes, new: Where, old: Where) -> set[bytes]:
        """Return the names that may differ: those in layers that only one side has."""
        shared = 0
        while shared < min(len(new), len(old)) and new[-1 - shared] == old[-1 - shared]:
            shared += 1
        own = {*new[: len(new) - shared], *old[: len(old) - shared]}
        return self._stack.names(path, tuple(sorted(own)))

    def _compare(self, path: bytes, name: bytes, new: Where, old: Where) -> tuple[Where, Where]:
        """Compare one name; return where its directories go on, the same twice if nowhere."""
        mine, theirs = self._visible(path, name, new), self._visible(path, name, old)
        full = join(path, name)
        if mine is not None and theirs is None:
            self._add("added", full, mine)
        elif mine is None and theirs is not None:
            self._add("deleted", full, theirs)
        elif mine is not None and theirs is not None and self._differ(full, mine, theirs):
            self._add("modified", full, mine)
        return (
            self._stack.below(path, name, new) if mine is not None and mine.is_directory else (),
            self._stack.below(path, name, old) if theirs is not None and theirs.is_directory else (),
        )

    def _visible(self, path: bytes, name: bytes, where: Where) -> Found | None:
        found = self._stack.find(path, name, where)
        return None if found is None or found.is_whiteout or found.kind is None else found

    def _add(self, kind: ChangeKind, path: bytes, found: Found) -> None:
        if found.kind is not None:
            size = found.info.st_size if found.kind == "file" else 0
            self.changes.append(Change(kind, os.fsdecode(b"/" + path), found.kind, size))

    def _differ(self, path: bytes, mine: Found, theirs: Found) -> bool:
        if mine.layer == theirs.layer:
            return False
        if _said(mine.info) != _said(theirs.info):
            return True
        if mine.kind == "symlink":
            return self._stack.link_target(mine.layer, path) != self._stack.link_target(theirs.layer, path)
        if mine.kind not in {"file", "directory"}:
            return False
        if self._stack.xattrs(mine.layer, path) != self._stack.xattrs(theirs.layer, path):
            return True
        return mine.kind == "file" and self._content_differs(path, mine, theirs)

    def _content_differs(self, path: bytes, mine: Found, theirs: Found) -> bool:
        time = mine.info.st_mtime_ns
        # Archives have whole seconds, and often one time for all: only a fraction tells two files apart.
        if time == theirs.info.st_mtime_ns and time % _NANOSECONDS:
            return False
        fds = []
        try:
            for found in (mine, theirs):
                fds.append(self._stack.open_file(found.layer, path, found.info))  # noqa: PERF401 - all get closed
            while True:
                first, second = (_read(fd) for fd in fds)
                if first != second or not first:
                    return first != second
        finally:
            for fd in fds:
                os.close(fd)


def _said(info: os.stat_result) -> tuple[int, ...]:
    """Return what is compared without a look inside."""
    size = info.st_size if stat.S_ISREG(info.st_mode) else 0
    device = info.st_rdev if stat.S_ISCHR(info.st_mode) or stat.S_ISBLK(info.st_mode) else 0
    return info.st_mode, info.st_uid, info.st_gid, size, device


def _read(fd: int) -> bytes:
    """Read a whole chunk, so that two files are compared at the same places."""
    data = os.read(fd, _CHUNK_BYTES)
    while data and len(data) < _CHUNK_BYTES and (more := os.read(fd, _CHUNK_BYTES - len(data))):
        data += more
    return data
