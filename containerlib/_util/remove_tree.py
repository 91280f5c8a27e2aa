"""Delete a directory tree through descriptors, without following a link, at any depth.

Subdirectories that are not empty are first moved up beside the tree's top, so two descriptors and no
recursion are enough for a tree of any depth. Losing a race against another remover is not an error, and
whoever still writes into the tree is outlasted.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import time

from containerlib._util.failpoint import reach

__all__ = ["MOVED_PREFIX", "remove_at", "remove_at_once", "remove_tree"]

MOVED_PREFIX = ".rm-"
"""Subtrees being removed have such names for a moment; after a crash they may be deleted by anyone."""

_PATIENCE_S, _PAUSE_S = 5.0, 0.001
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def remove_tree(path: str) -> None:
    """Remove the file or directory at `path` with all that is below it; nothing there is not an error."""
    try:
        parent_fd = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        reach("remove tree", path)
        remove_at(parent_fd, os.fsencode(os.path.basename(path)))
    finally:
        os.close(parent_fd)


def remove_at_once(path: str) -> None:
    """Do what `remove_tree` does such that the tree disappears whole, by a rename, before it is deleted."""
    target = f"{os.path.dirname(path)}/{MOVED_PREFIX}{os.urandom(8).hex()}"
    reach("move", path)
    try:
        os.rename(path, target)
    except FileNotFoundError:
        return
    remove_tree(target)


def remove_at(parent_fd: int, name: bytes) -> None:
    """Remove entry `name` of the directory `parent_fd` with all that is below it.

    Symbolic links are removed, not followed. Unfinished subtrees may stay in `parent_fd` under random
    names that begin with ``.rm-`` if the process dies here.

    Raises:
        OSError: Something cannot be removed.
    """
    try:
        info = os.stat(name, dir_fd=parent_fd, follow_symlinks=False)
    except FileNotFoundError:
        return
    if not stat.S_ISDIR(info.st_mode):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=parent_fd)
        return
    pending = [name]
    deadline = time.monotonic() + _PATIENCE_S
    while pending:
        top = pending.pop()
        try:
            pending += _empty(parent_fd, top)
            reach("remove directory", os.fsdecode(top))
            os.rmdir(top, dir_fd=parent_fd)
        except FileNotFoundError:
            continue
        except OSError as error:
            # Somebody still writes into it: the helper of a process that was killed, which ends soon.
            if error.errno != errno.ENOTEMPTY or time.monotonic() > deadline:
                raise
            time.sleep(_PAUSE_S)
            pending.append(top)


def _empty(parent_fd: int, name: bytes) -> list[bytes]:
    """Empty directory `name`; return the names under which its full subdirectories now lie in the parent."""
    fd = _open_directory(parent_fd, name)
    moved: list[bytes] = []
    try:
        with os.scandir(fd) as listing:
            entries = [(os.fsencode(entry.name), entry.is_dir(follow_symlinks=False)) for entry in listing]
        for entry, is_directory in entries:
            with contextlib.suppress(FileNotFoundError):
                if not is_directory:
                    os.unlink(entry, dir_fd=fd)
                elif not _remove_empty(fd, entry):
                    target = f"{MOVED_PREFIX}{os.urandom(8).hex()}".encode()
                    os.rename(entry, target, src_dir_fd=fd, dst_dir_fd=parent_fd)
                    moved.append(target)
    finally:
        os.close(fd)
    return moved


def _remove_empty(parent_fd: int, name: bytes) -> bool:
    try:
        os.rmdir(name, dir_fd=parent_fd)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def _open_directory(parent_fd: int, name: bytes) -> int:
    try:
        return os.open(name, _DIRECTORY, dir_fd=parent_fd)
    except PermissionError:
        # A directory that its owner may not read; only a process without privileges comes here.
        os.chmod(name, 0o700, dir_fd=parent_fd)
        return os.open(name, _DIRECTORY, dir_fd=parent_fd)
