"""Mounts of tmpfs over directories that there are: with their mode, and with what is in them.

In: a mount of a configuration, the root file system. Out: the same mount with its mode; or an unattached
file system that has the directory's content. Others may change the root meanwhile: everything is opened by
descriptor, and no link is followed.

Source: OCI runtime-spec 1.2, config.md, "Linux mount options"; for the mode, runc and crun do it alike.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from typing import TYPE_CHECKING

from attrs import evolve

from containerlib._native.path import mount_tmpfs, open_in_root
from containerlib.errors import InvalidOption, UnsupportedHost
from containerlib.runtime.mount_options import COPY_UP, WORDS, read_options

if TYPE_CHECKING:
    from collections.abc import Sequence

    from containerlib.oci.runtime_spec import SpecMount

__all__ = ["as_bind", "copied", "copies_up", "with_mode"]

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_MOST_DEPTH = 128
_PIECE_BYTES = 1 << 30


def copies_up(mount: SpecMount) -> bool:
    """Whether what is below it is to be seen in it."""
    return COPY_UP in mount.options


def with_mode(mount: SpecMount, root: str, earlier: Sequence[SpecMount]) -> SpecMount:
    """Give a tmpfs the mode of the directory that it lies over, unless it has one of its own.

    Args:
        mount: The mount.
        root: The root file system.
        earlier: Mounts before it; of a directory in one of these nothing is known yet.
    """
    is_given = any(option.startswith("mode=") for option in mount.options)
    if mount.type != "tmpfs" or is_given or _is_covered(mount, earlier):
        return mount
    fd = _open(mount, root)
    if fd < 0:
        return mount
    try:
        mode = stat.S_IMODE(os.fstat(fd).st_mode)
    finally:
        os.close(fd)
    return evolve(mount, options=(*mount.options, f"mode={mode:o}"))


def copied(mount: SpecMount, root: str, earlier: Sequence[SpecMount]) -> int:
    """Make an unattached tmpfs with a copy of the directory that it will lie over.

    Returns:
        Its descriptor, which the caller closes.

    Raises:
        InvalidOption: The content is nested too deep, or has no room.
        UnsupportedHost: It would lie in another mount, or the kernel has no unattached mounts.

    Cost: proportional to the content.
    """
    if _is_covered(mount, earlier):
        raise UnsupportedHost(
            f"{COPY_UP} for the mount on {mount.destination}",
            needed="a place in the root file system itself",
            found="another mount above it",
        )
    try:
        target = mount_tmpfs(read_options(mount).rest)
    except OSError as error:
        if error.errno != errno.ENOSYS:
            raise InvalidOption("mounts", ",".join(mount.options), (error.strerror or "").lower()) from None
        raise UnsupportedHost(COPY_UP, needed="fsopen (Linux 5.2)", found="a kernel without it") from None
    source = _open(mount, root)
    if source < 0:
        return target
    try:
        _copy(source, target, depth=0)
        info = os.fstat(source)
        os.chown(".", info.st_uid, info.st_gid, dir_fd=target)
    except OSError as error:
        os.close(target)
        reason = f"cannot be copied into memory: {(error.strerror or '').lower()}"
        raise InvalidOption("mounts", mount.destination, reason) from None
    finally:
        os.close(source)
    return target


def as_bind(mount: SpecMount) -> SpecMount:
    """The mount that shows what `copied` has made."""
    kept = tuple(option for option in mount.options if option in WORDS and option != COPY_UP)
    return evolve(mount, type="bind", options=("bind", *kept))


def _is_covered(mount: SpecMount, earlier: Sequence[SpecMount]) -> bool:
    place = os.path.normpath(mount.destination)
    return any(
        place == above or place.startswith(f"{above.rstrip('/')}/")
        for above in (os.path.normpath(each.destination) for each in earlier)
    )


def _open(mount: SpecMount, root: str) -> int:
    """The directory that is there; -1 for none."""
    root_fd = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return open_in_root(root_fd, mount.destination, os.O_RDONLY | os.O_DIRECTORY | os.O_NONBLOCK)
    except OSError:
        return -1
    finally:
        os.close(root_fd)


def _copy(source: int, target: int, *, depth: int) -> None:
    if depth > _MOST_DEPTH:
        raise OSError(errno.ELOOP, f"more than {_MOST_DEPTH} directories in each other")
    for name in os.listdir(source):
        info = os.stat(name, dir_fd=source, follow_symlinks=False)
        if stat.S_ISDIR(info.st_mode):
            _copy_directory(source, target, name, depth)
        elif stat.S_ISREG(info.st_mode):
            _copy_file(source, target, name)
        elif stat.S_ISLNK(info.st_mode):
            os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=target)
            os.chown(name, info.st_uid, info.st_gid, dir_fd=target, follow_symlinks=False)
        elif not stat.S_ISSOCK(info.st_mode):
            os.mknod(name, info.st_mode, info.st_rdev, dir_fd=target)
            os.chown(name, info.st_uid, info.st_gid, dir_fd=target, follow_symlinks=False)


def _copy_directory(source: int, target: int, name: str, depth: int) -> None:
    with contextlib.ExitStack() as undo:
        below = os.open(name, _DIRECTORY, dir_fd=source)
        undo.callback(os.close, below)
        os.mkdir(name, 0o700, dir_fd=target)
        made = os.open(name, _DIRECTORY, dir_fd=target)
        undo.callback(os.close, made)
        _copy(below, made, depth=depth + 1)
        _copy_attributes(below, made)


def _copy_file(source: int, target: int, name: str) -> None:
    with contextlib.ExitStack() as undo:
        opened = os.open(name, _FILE, dir_fd=source)
        undo.callback(os.close, opened)
        if not stat.S_ISREG(os.fstat(opened).st_mode):
            raise OSError(errno.ESTALE, f"{name!r} was exchanged meanwhile")
        made = os.open(name, _NEW, 0o600, dir_fd=target)
        undo.callback(os.close, made)
        while os.sendfile(made, opened, None, _PIECE_BYTES):
            pass
        _copy_attributes(opened, made)


def _copy_attributes(source: int, target: int) -> None:
    info = os.fstat(source)
    os.fchown(target, info.st_uid, info.st_gid)
    for name in os.listxattr(source):
        # Of those that a disk has, tmpfs takes file capabilities and the like.
        with contextlib.suppress(OSError):
            os.setxattr(target, name, os.getxattr(source, name))
    os.fchmod(target, stat.S_IMODE(info.st_mode))
    os.utime(target, ns=(info.st_atime_ns, info.st_mtime_ns))
