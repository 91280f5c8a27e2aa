"""What overlayfs writes into an upper directory beside files: the marks by which it hides what lies below.

All are read without opening what carries them, so nothing that lies there has an effect. Marks that make the
content of a file or directory depend on a lower layer (redirect, metacopy) are refused: the engine never
mounts with them, and content that is elsewhere cannot be read here.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING

from containerlib.errors import InvalidInputError
from containerlib.layer.names import shown

if TYPE_CHECKING:
    from collections.abc import Collection

__all__ = [
    "TRUSTED",
    "USER",
    "is_opaque",
    "is_whiteout",
    "kept_xattrs",
    "read_xattrs",
    "refuse_elsewhere",
    "xattr_names",
]

TRUSTED = "trusted.overlay."
"""Beginning of the marks of an overlay that was mounted with privilege."""

USER = "user.overlay."
"""Beginning of the marks of an overlay that was mounted with ``userxattr``."""

_ELSEWHERE = ("redirect", "metacopy", "whiteout")

# Those that no layer may bring when it is applied, either: see csrc/attribute.c.
_DROPPED_PREFIXES = (TRUSTED, USER, "user.fuseoverlayfs.", "user.containers.")
_DROPPED = frozenset(("security.selinux", "security.ima", "security.evm", "security.SMACK64"))


def is_whiteout(info: os.stat_result) -> bool:
    """Say whether a name is removed: overlayfs writes a character device 0:0 for it."""
    return stat.S_ISCHR(info.st_mode) and info.st_rdev == 0


def xattr_names(directory_fd: int, name: bytes) -> list[str]:
    """Return the names of the extended attributes of `name` itself, without opening or following it."""
    try:
        return os.listxattr(_place(directory_fd, name), follow_symlinks=False)
    except OSError as error:
        if error.errno == errno.ENOTSUP:
            return []
        raise


def is_opaque(directory_fd: int, name: bytes, names: Collection[str], prefixes: Collection[str]) -> bool:
    """Say whether the directory `name` hides what lies below it.

    Args:
        directory_fd: Where it lies.
        name: Its name.
        names: The names of its extended attributes.
        prefixes: `TRUSTED`, `USER` or both: which marks count.
    """
    present = [f"{prefix}opaque" for prefix in prefixes if f"{prefix}opaque" in names]
    return any(_read(directory_fd, name, mark) == b"y" for mark in present)


def refuse_elsewhere(path: bytes, names: Collection[str], prefixes: Collection[str]) -> None:
    """Refuse a file or directory of which a part lies in another layer.

    Raises:
        InvalidInputError: It has a mark that says so.
    """
    for prefix in prefixes:
        for mark in _ELSEWHERE:
            if f"{prefix}{mark}" in names:
                raise InvalidInputError(
                    f"{shown(path)!r} has overlayfs' mark {prefix}{mark}: its content lies elsewhere; "
                    "mount overlays with redirect_dir=off,metacopy=off"
                )


def read_xattrs(directory_fd: int, name: bytes, names: Collection[str]) -> dict[str, bytes]:
    """Return the extended attributes among `names` that a layer may hold."""
    return {key: _read(directory_fd, name, key) for key in kept_xattrs(names)}


def kept_xattrs(names: Collection[str]) -> list[str]:
    """Return those names of extended attributes that a layer may hold, in order."""
    return [key for key in sorted(names) if key not in _DROPPED and not key.startswith(_DROPPED_PREFIXES)]


def _read(directory_fd: int, name: bytes, key: str) -> bytes:
    return os.getxattr(_place(directory_fd, name), key, follow_symlinks=False)


def _place(directory_fd: int, name: bytes) -> bytes:
    """Return a path of `name` that leads through the descriptor and cannot be exchanged."""
    return b"/proc/self/fd/%d/%s" % (directory_fd, name)
