"""Paths inside trees that somebody else may be changing, and copies of mounts, by descriptor."""

from __future__ import annotations

import os
from functools import lru_cache
from typing import TYPE_CHECKING

from containerlib._native.ffi import check, ffi, lib

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "clone_tree",
    "filesystem_type",
    "kernel_features",
    "map_ids",
    "mount_overlay",
    "mount_tmpfs",
    "open_in_root",
    "sync_filesystem",
    "unmount",
]


def open_in_root(root_fd: int, path: str, flags: int, *, no_symlinks: bool = False) -> int:
    """Open `path` as if `root_fd` were the root directory, whatever symbolic links say.

    Absolute links and ``..`` stay inside; magic links such as those of /proc/self/fd are refused.

    Args:
        root_fd: Descriptor of the directory that acts as the root.
        path: Path below it; a leading slash means the same root.
        flags: Flags of open(2); O_CLOEXEC is added, O_CREAT is not supported.
        no_symlinks: Refuse every symbolic link (ELOOP).

    Returns:
        A descriptor that the caller closes.

    Raises:
        OSError: As open(2).

    Source: openat2(2), RESOLVE_IN_ROOT; a walk in user space where the call is missing.
    """
    return check(lib.ctr_open_in_root(root_fd, os.fsencode(path), flags, no_symlinks), path)


def clone_tree(fd: int, *, recursive: bool) -> int | None:
    """Copy the mount at `fd`, unattached, or return None where this process may not or cannot.

    Args:
        fd: Descriptor of a file or directory, O_PATH is enough.
        recursive: Take the mounts below along.

    Source: open_tree(2), OPEN_TREE_CLONE.
    """
    result: int = lib.ctr_clone_tree(fd, recursive)
    return result if result >= 0 else None


def map_ids(fd: int, user_namespace_fd: int, *, recursive: bool) -> None:
    """Show an unattached mount with other owners: those of a user namespace instead of those it has.

    Args:
        fd: What `clone_tree` returned.
        user_namespace_fd: The namespace; it may not be that of the host.
        recursive: Whether the mounts below it are shown so, too.

    Raises:
        OSError: As mount_setattr(2); EINVAL where the file system cannot do it.

    Source: mount_setattr(2), MOUNT_ATTR_IDMAP.
    """
    check(lib.ctr_map_ids(fd, user_namespace_fd, recursive), "")


def mount_overlay(lowers: Sequence[str], upper: str, work: str) -> int:
    """Mount an overlay that has no name, and return a descriptor of its root; closing it takes it away.

    Args:
        lowers: Layer directories, the top-most first.
        upper: Directory that takes what is written.
        work: Empty directory on the same file system.

    Raises:
        OSError: As fsconfig(2); ENOSYS where the newer mount calls are missing.
    """
    paths = [ffi.new("char[]", os.fsencode(path)) for path in lowers]
    return check(lib.ctr_mount_overlay(paths, len(paths), os.fsencode(upper), os.fsencode(work)), upper)


def mount_tmpfs(options: Sequence[str]) -> int:
    """Make a tmpfs that has no name, and return a descriptor of its root; closing it takes it away.

    Args:
        options: Of the file system, such as ``"mode=755"``.

    Raises:
        OSError: As fsconfig(2); ENOSYS where the newer mount calls are missing.
    """
    texts = [ffi.new("char[]", os.fsencode(option)) for option in options]
    return check(lib.ctr_mount_tmpfs(texts, len(texts)), "tmpfs")


def unmount(path: str) -> None:
    """Take away all that is mounted on `path`; nothing there is not an error.

    Whoever still uses it keeps it until the end.

    Raises:
        OSError: As umount2(2); ENOENT if there is no such file.
    """
    check(lib.ctr_unmount(os.fsencode(path)), path)


def filesystem_type(fd: int) -> int:
    """The number of the type of the file system that `fd` lies on; see statfs(2)."""
    return check(lib.ctr_filesystem_type(fd), "")


def sync_filesystem(path: str) -> None:
    """Make everything durable that was written to the file system of the directory `path`.

    Raises:
        OSError: Something could not be written.

    Source: syncfs(2); the standard library has only sync(2), which means all file systems of the host.
    """
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        check(lib.ctr_sync_filesystem(fd), path)
    finally:
        os.close(fd)


@lru_cache(maxsize=1)
def kernel_features() -> frozenset[str]:
    """Names of the newer system calls that answer here, such as ``"openat2"``. Probed once per process."""
    mask: int = lib.ctr_features()
    prefix = "CTR_FEATURE_"
    return frozenset(
        name.removeprefix(prefix).lower()
        for name in dir(lib)
        if name.startswith(prefix) and mask & getattr(lib, name)
    )
