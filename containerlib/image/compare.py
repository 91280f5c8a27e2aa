"""Comparing two directory trees: is an unpacked layer still what its archive says?"""

from __future__ import annotations

import os
import stat

__all__ = ["difference"]

_CHUNK_BYTES = 1 << 20
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def difference(expected: str, actual: str) -> str | None:
    """Return the first difference between two trees in words, or None if they are alike.

    Compares names, kinds, modes, owners, devices, targets of links, extended attributes, numbers of hard
    links, and of files also times and each byte. The trees must not change meanwhile.

    Args:
        expected: How it should be.
        actual: How it is.

    Cost: reads both trees.
    """
    pending = [""]
    while pending:
        path = pending.pop()
        here, there = os.path.join(expected, path), os.path.join(actual, path)
        problem = _entry(here, there)
        if problem is not None:
            return f"{path or '/'!r} {problem}"
        if stat.S_ISDIR(os.lstat(here).st_mode):
            names, found = set(os.listdir(here)), set(os.listdir(there))
            if names != found:
                name = min(names ^ found)
                return f"{os.path.join(path, name)!r} is {'missing' if name in names else 'too much'}"
            pending += [os.path.join(path, name) for name in names]
    return None


def _entry(expected: str, actual: str) -> str | None:
    left, right = os.lstat(expected), os.lstat(actual)
    for field, word in (
        ("st_mode", "kind or mode"),
        ("st_uid", "owner"),
        ("st_gid", "group"),
        ("st_rdev", "device number"),
    ):
        if getattr(left, field) != getattr(right, field):
            return f"has another {word}"
    if _xattrs(expected) != _xattrs(actual):
        return "has other extended attributes"
    if stat.S_ISLNK(left.st_mode) and os.readlink(expected) != os.readlink(actual):
        return "leads elsewhere"
    if stat.S_ISREG(left.st_mode):
        return _file(expected, actual, left, right)
    return None


def _file(expected: str, actual: str, left: os.stat_result, right: os.stat_result) -> str | None:
    if left.st_nlink != right.st_nlink:
        return "has another number of hard links"
    if left.st_size != right.st_size:
        return f"has {right.st_size} bytes instead of {left.st_size}"
    if left.st_mtime_ns != right.st_mtime_ns:
        return "has another time"
    with open(os.open(expected, _FILE), "rb", 0) as one, open(os.open(actual, _FILE), "rb", 0) as other:
        while chunk := one.read(_CHUNK_BYTES):
            if other.read(len(chunk)) != chunk:
                return "has other content"
    return None


def _xattrs(path: str) -> dict[str, bytes]:
    try:
        names = os.listxattr(path, follow_symlinks=False)
    except OSError:
        return {}
    return {name: os.getxattr(path, name, follow_symlinks=False) for name in names}
