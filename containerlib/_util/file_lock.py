"""Advisory locks on files, between threads and processes alike.

A lock is a `flock` on an open file of its own, so the kernel drops it when the holder dies. Its holder may
unlink a lock file as the last thing it does under the lock: `acquire` notices that the file it locked has
lost its name and tries again.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from typing import TYPE_CHECKING

from containerlib._util.atomic_file import make_directory
from containerlib._util.disk_error import translated
from containerlib._util.failpoint import reach

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["acquire", "locked"]

_EXISTING = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
_FLAGS = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC


def acquire(path: str, *, shared: bool = False, blocking: bool = True, create: bool = True) -> int | None:
    """Lock the file at `path`, and return its descriptor.

    Args:
        path: The lock file.
        shared: Whether other shared holders are allowed.
        blocking: Whether to wait for the lock.
        create: Whether to make the file if it is missing. Without that nothing is written.

    Raises:
        FileNotFoundError: It is missing, and `create` is false.

    Returns:
        A descriptor whose closing releases the lock, or None if it is held and `blocking` is false.
    """
    operation = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    while True:
        fd = _open(path) if create else os.open(path, _EXISTING)
        try:
            fcntl.flock(fd, operation if blocking else operation | fcntl.LOCK_NB)
        except OSError as error:
            os.close(fd)
            if error.errno == errno.EWOULDBLOCK:
                return None
            raise
        if _is_current(fd, path):
            return fd
        os.close(fd)


@contextlib.contextmanager
def locked(path: str, *, shared: bool = False) -> Iterator[None]:
    """Hold the lock at `path` for the length of a block."""
    fd = acquire(path, shared=shared)
    if fd is None:  # pragma: no cover - a blocking acquire never returns None
        raise OSError(errno.EWOULDBLOCK, "lock not acquired", path)
    try:
        yield
    finally:
        os.close(fd)


def _open(path: str) -> int:
    with translated(path):
        reach("lock", path)
        try:
            return os.open(path, _FLAGS, 0o600)
        except FileNotFoundError:
            make_directory(os.path.dirname(path))
            return os.open(path, _FLAGS, 0o600)


def _is_current(fd: int, path: str) -> bool:
    """Say whether the locked file is still the one that has the name."""
    try:
        named = os.stat(path, follow_symlinks=False)
    except FileNotFoundError:
        return False
    held = os.fstat(fd)
    return (held.st_ino, held.st_dev) == (named.st_ino, named.st_dev)
