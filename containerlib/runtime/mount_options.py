"""What the options of a mount mean, as a table: bits of the mount, its propagation, or the file system's own.

Source: OCI runtime-spec 1.2, config.md, "Linux mount options"; mount(8), mount_setattr(2).
"""

from __future__ import annotations

import posixpath
from typing import TYPE_CHECKING

from attrs import frozen

from containerlib.errors import InvalidOption, UnsupportedHost

if TYPE_CHECKING:
    from collections.abc import Sequence

    from containerlib.oci.runtime_spec import SpecMount

__all__ = [
    "COPY_UP",
    "WORDS",
    "MountOptions",
    "is_bind",
    "is_remount",
    "propagation_flags",
    "read_options",
    "remounts_all",
]

# MOUNT_ATTR_* of linux/mount.h.
_ATTRIBUTES = {
    "ro": 0x1,
    "nosuid": 0x2,
    "nodev": 0x4,
    "noexec": 0x8,
    "noatime": 0x10,
    "strictatime": 0x20,
    "nodiratime": 0x80,
    "nosymfollow": 0x200000,
}
_ATIME = 0x70
# The same taken back; those of access times fall back to relatime, which is the kernel's default.
_CLEARS = {
    "rw": 0x1,
    "suid": 0x2,
    "dev": 0x4,
    "exec": 0x8,
    "atime": 0x10,
    "relatime": _ATIME,
    "norelatime": 0,
    "nostrictatime": 0x20,
    "diratime": 0x80,
    "symfollow": 0x200000,
}
_PROPAGATION = {"unbindable": 1 << 17, "private": 1 << 18, "slave": 1 << 19, "shared": 1 << 20}
_RECURSIVE = 0x4000
# Flags of a file system, which a bind mount does not have; those that say what holds anyway are left out.
_SUPERBLOCK = frozenset({"sync", "dirsync", "lazytime", "mand", "iversion"})
_NOTHING = frozenset(
    # What a kernel prints about a mount goes to nobody here.
    {"async", "defaults", "loud", "silent", "noiversion", "nolazytime", "nomand", "bind", "rbind"}
)
_REMOUNT = "remount"
# File systems of which each mount is a new one; those of the others are the host's as well.
_OWN_TYPES = frozenset({"tmpfs", "ramfs", "devpts", "overlay"})
_MAPPED = frozenset({"idmap", "ridmap"})
COPY_UP = "tmpcopyup"
"""The option of a tmpfs by which it begins with what it lies over."""
_UNSUPPORTED = frozenset({"copy-symlink", "dest-nofollow"})
_ELSEWHERE = _MAPPED | {COPY_UP, _REMOUNT}
WORDS = frozenset(
    {
        *(word for table in (_ATTRIBUTES, _CLEARS, _PROPAGATION) for word in table),
        *(f"r{word}" for table in (_ATTRIBUTES, _CLEARS, _PROPAGATION) for word in table),
        *(_SUPERBLOCK | _NOTHING | _ELSEWHERE),
    }
)
"""All options that are not the file system's own."""


@frozen
class MountOptions:
    """The options of one mount.

    Attributes:
        attributes: MOUNT_ATTR_* bits.
        is_below: Whether they are for the mounts below it, too.
        is_tree: Whether a bind takes those mounts along.
        propagation: MS_SHARED and the like, with MS_REC; 0 for private.
        rest: What the file system itself is told.
        id_mapped: ``"idmap"`` if it is shown with other owners, ``"ridmap"`` with the mounts below it.
    """

    attributes: int
    is_below: bool
    is_tree: bool
    propagation: int
    rest: tuple[str, ...]
    id_mapped: str = ""


def is_remount(mount: SpecMount) -> bool:
    """Whether it changes a mount that there is, and makes none."""
    return _REMOUNT in mount.options


def is_bind(mount: SpecMount) -> bool:
    """Whether it shows something that is there already."""
    return _is_of_a_mount(mount) and not is_remount(mount)


def remounts_all(mount: SpecMount, earlier: Sequence[SpecMount]) -> bool:
    """Whether a remount is for the file system as well, and not for the mount alone.

    Args:
        mount: The remount.
        earlier: The mounts before it.

    Raises:
        InvalidOption: Nothing was mounted there, or its file system is the host's as well.
    """
    place = posixpath.normpath(mount.destination)
    there = [
        each for each in earlier if posixpath.normpath(each.destination) == place and not is_remount(each)
    ]
    if not there:
        raise InvalidOption("mounts", place, f"no mount before it is there for {_REMOUNT!r}; mount it first")
    if _is_of_a_mount(mount):
        return False
    if is_bind(there[-1]) or there[-1].type not in _OWN_TYPES:
        reason = "its file system is not the container's own; add 'bind' to change the mount alone"
        raise InvalidOption("mounts", f"{_REMOUNT} of {place}", reason)
    return True


def _is_of_a_mount(mount: SpecMount) -> bool:
    return mount.type == "bind" or bool({"bind", "rbind"} & set(mount.options))


def propagation_flags(word: str) -> int | None:
    """The flags of mount(2) for a word such as ``"rslave"``; None if it is none, 0 for private."""
    recursive = word not in _PROPAGATION
    flag = _PROPAGATION.get(word.removeprefix("r") if recursive else word)
    if flag is None:
        return None
    return 0 if flag == _PROPAGATION["private"] else flag | (_RECURSIVE if recursive else 0)


def read_options(mount: SpecMount) -> MountOptions:
    """Tell the options of a mount apart; of two that contradict each other the later one counts.

    Raises:
        InvalidOption: An option that a bind mount cannot have, or a mix that the kernel cannot do at once.
        UnsupportedHost: One that the specification has and this runtime has not.
    """
    attributes = propagation = 0
    scopes: set[bool] = set()
    rest: list[str] = []
    for option in mount.options:
        spread = propagation_flags(option)
        bits, clears, is_recursive = _bits(option)
        if spread is not None:
            propagation = spread
        elif bits or clears is not None:
            attributes = attributes & ~(clears or (_ATIME if bits & _ATIME else 0)) | bits
            scopes |= {is_recursive} if bits else set()
        elif option in _UNSUPPORTED:
            raise UnsupportedHost(
                f"option {option!r} of the mount on {mount.destination}",
                needed="a runtime that has it",
                found="containerlib, which has not",
            )
        elif option not in _NOTHING | _ELSEWHERE and not (_is_of_a_mount(mount) and option in _SUPERBLOCK):
            rest.append(option)
    if _is_of_a_mount(mount) and rest:
        raise InvalidOption("mounts", rest[0], f"is not an option of a bind mount (on {mount.destination})")
    if is_remount(mount) and (True in scopes or "rbind" in mount.options):
        raise InvalidOption("mounts", ",".join(mount.options), f"{_REMOUNT!r} is for one mount alone")
    if len(scopes) > 1:
        raise InvalidOption(
            "mounts", ",".join(mount.options), "options for all mounts below and for one alone do not mix"
        )
    is_tree = "rbind" in mount.options
    return MountOptions(attributes, scopes == {True}, is_tree, propagation, tuple(rest), _id_mapped(mount))


def _id_mapped(mount: SpecMount) -> str:
    """The word for it; and a look at the options that are for one kind of mount only."""
    words = [option for option in mount.options if option in _MAPPED]
    if (words or mount.uid_mappings) and not is_bind(mount):
        raise InvalidOption("mounts", mount.destination, "only a bind mount can have its ids mapped")
    if COPY_UP in mount.options and (mount.type != "tmpfs" or _is_of_a_mount(mount) or is_remount(mount)):
        raise InvalidOption("mounts", COPY_UP, f"is an option of a tmpfs (on {mount.destination})")
    return words[-1] if words else "idmap" if mount.uid_mappings else ""


def _bits(option: str) -> tuple[int, int | None, bool]:
    """What a word sets and takes back, and whether for the mounts below, too."""
    if option in _ATTRIBUTES or option in _CLEARS:
        return _ATTRIBUTES.get(option, 0), _CLEARS.get(option), False
    plain = option.removeprefix("r")
    if plain != option and (plain in _ATTRIBUTES or plain in _CLEARS):
        return _ATTRIBUTES.get(plain, 0), _CLEARS.get(plain), True
    return 0, None, False
