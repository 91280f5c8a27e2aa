"""Single steps on files of a container: what `pathlib` offers for those of the host.

Each opens the container's root anew. Links of the container are followed inside it, but for the last name
where the step is about the link itself. Special files are never opened.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from typing import TYPE_CHECKING

from containerlib.container.root import opened_root

if TYPE_CHECKING:
    from collections.abc import Iterator

    from containerlib.container.entry import ContainerEntry
    from containerlib.container.root import ContainerRoot

__all__ = [
    "change_mode",
    "change_owner",
    "list_directory",
    "look",
    "make_directory",
    "make_link",
    "read_bytes",
    "read_link",
    "remove_directory",
    "remove_file",
    "rename",
    "write_bytes",
]

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_CHUNK_BYTES = 1 << 20


def look(entry: ContainerEntry, path: str, *, follow: bool) -> os.stat_result:
    """What a path names."""
    with opened_root(entry) as root:
        fd = root.open(path, follow=follow)
        try:
            return os.fstat(fd)
        finally:
            os.close(fd)


def list_directory(entry: ContainerEntry, path: str) -> list[str]:
    """The names in a directory, in order."""
    with opened_root(entry) as root:
        fd = root.directory(path)
        try:
            with root.telling(path):
                return sorted(os.listdir(fd))
        finally:
            os.close(fd)


def read_link(entry: ContainerEntry, path: str) -> str:
    """Where a symbolic link points, as it is."""
    with opened_root(entry) as root, _placed(root, path) as (fd, name):
        return os.readlink(name, dir_fd=fd)


def read_bytes(entry: ContainerEntry, path: str) -> bytes:
    """The content of a regular file."""
    with opened_root(entry) as root, _opened_regular(root, path, os.O_RDONLY) as fd:
        data = bytearray()
        while chunk := os.read(fd, _CHUNK_BYTES):
            data += chunk
        return bytes(data)


def write_bytes(entry: ContainerEntry, path: str, data: bytes, *, append: bool = False) -> None:
    """Replace the content of a regular file, or make one, root's and with mode 0644."""
    with opened_root(entry) as root:
        flags = os.O_WRONLY | (os.O_APPEND if append else os.O_TRUNC)
        with _made_or_opened(root, path, flags) as fd:
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(fd, rest) :]


def make_directory(entry: ContainerEntry, path: str, *, mode: int, parents: bool, exist_ok: bool) -> None:
    """Make a directory, root's, and with `parents` those that it lies in."""
    with opened_root(entry) as root:
        parts = [part for part in path.split("/") if part]
        for count in range(1 if parents else len(parts), len(parts) + 1):
            at, is_last = "/" + "/".join(parts[:count]), count == len(parts)
            if (not is_last or exist_ok) and _is_directory(root, at):
                continue
            with _placed(root, at) as (fd, name):
                os.mkdir(name, 0o700, dir_fd=fd)
                made = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=fd)
                try:
                    # Whatever this process's mask is.
                    os.fchmod(made, mode if is_last else 0o755)
                finally:
                    os.close(made)


def make_link(entry: ContainerEntry, path: str, target: str) -> None:
    """Make a symbolic link that says `target`."""
    with opened_root(entry) as root, _placed(root, path) as (fd, name):
        os.symlink(target, name, dir_fd=fd)


def remove_file(entry: ContainerEntry, path: str) -> None:
    """Remove what is no directory."""
    with opened_root(entry) as root, _placed(root, path) as (fd, name):
        os.unlink(name, dir_fd=fd)


def remove_directory(entry: ContainerEntry, path: str) -> None:
    """Remove an empty directory."""
    with opened_root(entry) as root, _placed(root, path) as (fd, name):
        os.rmdir(name, dir_fd=fd)


def rename(entry: ContainerEntry, path: str, target: str) -> None:
    """Give something another name, taking that from what has it."""
    with (
        opened_root(entry) as root,
        _placed(root, path) as (fd, name),
        _placed(root, target) as (to_fd, to_name),
    ):
        os.rename(name, to_name, src_dir_fd=fd, dst_dir_fd=to_fd)


def change_mode(entry: ContainerEntry, path: str, mode: int) -> None:
    """Set the permission bits of a file or directory."""
    with opened_root(entry) as root:
        fd = root.open(path)
        try:
            with root.telling(path):
                os.chmod(f"/proc/self/fd/{fd}", mode)
        finally:
            os.close(fd)


def change_owner(entry: ContainerEntry, path: str, uid: int, gid: int) -> None:
    """Set user and group of a file or directory."""
    with opened_root(entry) as root:
        fd = root.open(path)
        try:
            with root.telling(path):
                os.chown(f"/proc/self/fd/{fd}", uid, gid)
        finally:
            os.close(fd)


def _is_directory(root: ContainerRoot, path: str) -> bool:
    try:
        os.close(root.directory(path))
    except FileNotFoundError:
        return False
    return True


@contextlib.contextmanager
def _placed(root: ContainerRoot, path: str) -> Iterator[tuple[int, str]]:
    """The directory that a name itself lies in, and the name; errors of the block are about the path."""
    fd, name = root.place(path, follow=False)
    try:
        with root.telling(path):
            yield fd, name
    finally:
        os.close(fd)


@contextlib.contextmanager
def _opened_regular(root: ContainerRoot, path: str, flags: int) -> Iterator[int]:
    """Open a file that is there; looked at first, because opening something else may have an effect."""
    found = root.open(path)
    try:
        mode = os.fstat(found).st_mode
        if not stat.S_ISREG(mode):
            number = errno.EISDIR if stat.S_ISDIR(mode) else errno.EINVAL
            raise root.refusal(path, number, "" if stat.S_ISDIR(mode) else "is no regular file")
        with root.telling(path):
            fd = os.open(f"/proc/self/fd/{found}", flags | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    finally:
        os.close(found)
    try:
        with root.telling(path):
            yield fd
    finally:
        os.close(fd)


@contextlib.contextmanager
def _made_or_opened(root: ContainerRoot, path: str, flags: int) -> Iterator[int]:
    parent_fd, name = root.place(path)
    try:
        with root.telling(path):
            try:
                fd = os.open(name, _NEW, 0o644, dir_fd=parent_fd)
            except FileExistsError:
                fd = -1
    finally:
        os.close(parent_fd)
    if fd < 0:
        with _opened_regular(root, path, flags) as opened:
            yield opened
        return
    try:
        with root.telling(path):
            os.fchmod(fd, 0o644)
            yield fd
    finally:
        os.close(fd)
