"""Paths inside trees that somebody else may be changing, and copies of mounts, by descriptor."""

from __future__ import annotations

import os
from functools import lru_cache

from containerlib._native.ffi import check, lib

__all__ = ["clone_tree", "kernel_features", "open_in_root", "sync_filesystem"]


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
