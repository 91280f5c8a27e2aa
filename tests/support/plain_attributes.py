"""Owner, mode, times and extended attributes of what a layer unpacks, always set on a descriptor.

Attributes by which a layer could talk to overlayfs or to the host's security module are dropped.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from containerlib.errors import UnsupportedLayer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from containerlib.layer.tar_reader import TarEntry

__all__ = [
    "is_dropped_xattr",
    "owner_setter",
    "set_link_attributes",
    "set_node_attributes",
    "set_opaque",
    "set_xattrs",
]

_DROPPED_PREFIXES = ("trusted.overlay.", "user.overlay.", "user.fuseoverlayfs.", "user.containers.")
_DROPPED = frozenset(("security.selinux", "security.ima", "security.evm", "security.SMACK64"))
_CAPABILITY = "security.capability"
_OPAQUE_XATTR = "trusted.overlay.opaque"
_OPAQUE_USER_XATTR = "user.overlay.opaque"


def owner_setter() -> Callable[[int, int, int], None]:
    """Return the function that sets the owner of a descriptor.

    Without the privilege to give files away every file belongs to this process.
    """
    return os.fchown if os.geteuid() == 0 else _keep_owner


def _keep_owner(fd: int, uid: int, gid: int) -> None:
    del fd, uid, gid


def is_dropped_xattr(name: str) -> bool:
    """Say whether a layer may not bring the extended attribute `name`."""
    return name in _DROPPED or name.startswith(_DROPPED_PREFIXES)


def set_xattrs(fd: int, xattrs: Mapping[str, bytes], shown_name: str) -> None:
    """Set those extended attributes that a layer may bring.

    One that the file system cannot hold is left out, as Docker does; but a file that would lose its
    capabilities is refused, because it would fail later and elsewhere.

    Raises:
        UnsupportedLayer: A value is not valid, or capabilities cannot be stored.
    """
    for name, value in xattrs.items():
        if is_dropped_xattr(name):
            continue
        try:
            os.setxattr(fd, name, value)
        except OSError as error:
            if error.errno in {errno.ENOTSUP, errno.EPERM} and name != _CAPABILITY:
                continue
            if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EIO}:
                raise
            raise UnsupportedLayer(
                f"archive entry {shown_name!r}: extended attribute {name!r}: {error.strerror}"
            ) from None


def set_opaque(fd: int) -> None:
    """Mark a directory as hiding everything below it."""
    try:
        os.setxattr(fd, _OPAQUE_XATTR, b"y")
    except PermissionError:
        os.setxattr(fd, _OPAQUE_USER_XATTR, b"y")


def set_link_attributes(parent_fd: int, name: bytes, entry: TarEntry) -> None:
    """Set owner and time of a symbolic link itself; it has no mode, and no extended attributes here."""
    if os.geteuid() == 0:
        os.chown(name, entry.uid, entry.gid, dir_fd=parent_fd, follow_symlinks=False)
    os.utime(name, ns=(entry.mtime_ns, entry.mtime_ns), dir_fd=parent_fd, follow_symlinks=False)


def set_node_attributes(parent_fd: int, name: bytes, entry: TarEntry) -> None:
    """Set owner, mode and time of a fifo or device, without opening it."""
    set_owner = os.geteuid() == 0
    fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent_fd)
    try:
        # There is no fchmod for such a descriptor; its name below /proc cannot be exchanged.
        path = f"/proc/self/fd/{fd}"
        if set_owner:
            os.chown(path, entry.uid, entry.gid)
        os.chmod(path, entry.mode)
        os.utime(path, ns=(entry.mtime_ns, entry.mtime_ns))
    finally:
        os.close(fd)
