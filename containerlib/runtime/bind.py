"""Opens the sources of bind mounts, and the host's devices, before anything of a container exists.

A source is opened once; what is mounted later is that object, whatever the path says by then. Where the
kernel lets us, the mount itself is copied here, in the caller's view of the file system.
"""

from __future__ import annotations

import contextlib
import os
import stat
from typing import TYPE_CHECKING

from attrs import define, field

from containerlib._native.path import clone_tree, kernel_features
from containerlib.errors import InvalidOption, UnsupportedHost
from containerlib.oci.runtime_spec import DeviceNode
from containerlib.runtime.device_rules import DeviceKind, DeviceRule
from containerlib.runtime.lower import BindSource

if TYPE_CHECKING:
    from collections.abc import Sequence

    from containerlib.options import Device, Mount

__all__ = ["Binds", "open_binds", "open_devices"]

_MAX_BINDS = 200  # descriptors that fit into one message, with room for the others


@define
class Binds:
    """Opened sources by destination and path. Close it when the container has started."""

    sources: dict[tuple[str, str], BindSource] = field(factory=dict)
    fds: list[int] = field(factory=list)

    def add(self, target: str, source: str, *, recursive: bool = True) -> int:
        """Open a source.

        Returns:
            The unattached copy of its mount; -1 where there is none.

        Args:
            target: Where it is to be mounted.
            source: Its path.
            recursive: Whether the mounts below it come along.

        Raises:
            InvalidOption: It cannot be opened, or is there twice.
        """
        if (target, source) in self.sources:
            raise InvalidOption("mounts", source, f"is to be mounted on {target} twice")
        try:
            fd = os.open(source, os.O_PATH | os.O_CLOEXEC)
        except OSError as error:
            reason = f"cannot be mounted on {target}: {(error.strerror or '').lower()}; make it first"
            raise InvalidOption("mounts", source, reason) from None
        try:
            info = os.fstat(fd)
            tree = clone_tree(fd, recursive=recursive)
        finally:
            os.close(fd)
        index = -1
        if tree is not None:
            index = len(self.fds)
            self.fds.append(tree)
        self.sources[target, source] = BindSource(
            is_directory=stat.S_ISDIR(info.st_mode), fd_index=index, device=info.st_dev, inode=info.st_ino
        )
        return -1 if tree is None else tree

    def take(self, target: str, source: str, tree: int) -> None:
        """Take over an unattached directory that somebody has made.

        Args:
            target: Where it is to be mounted.
            source: What it is called there.
            tree: Its descriptor, which is closed with the others.
        """
        self.sources[target, source] = BindSource(is_directory=True, fd_index=len(self.fds))
        self.fds.append(tree)

    def close(self) -> None:
        """Give up the descriptors; mounts made from them stay."""
        for fd in self.fds:
            with contextlib.suppress(OSError):
                os.close(fd)
        self.fds.clear()


def _has_mounts_below(path: str) -> bool:
    prefix = os.path.realpath(path).rstrip("/") + "/"
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as table:
        return any(line.split()[4].replace("\\040", " ").startswith(prefix) for line in table)


def _check_recursive_read_only(mount: Mount) -> None:
    if mount.read_only and "mount_setattr" not in kernel_features() and _has_mounts_below(mount.source or ""):
        raise UnsupportedHost(
            f"a read-only bind of {mount.source!r}, which has mounts below it",
            needed="mount_setattr (Linux 5.12)",
            found="a kernel without it",
        )


def open_binds(mounts: Sequence[Mount]) -> Binds:
    """Open the source of every bind mount.

    Raises:
        InvalidOption: A source is missing or cannot be opened, or there are more than 200.
        UnsupportedHost: A mount cannot be made read-only with everything below it.
    """
    wanted = [mount for mount in mounts if mount.kind == "bind"]
    if len(wanted) > _MAX_BINDS:
        raise InvalidOption("mounts", len(wanted), f"one container can have {_MAX_BINDS} bind mounts")
    binds = Binds()
    try:
        for mount in wanted:
            _check_recursive_read_only(mount)
            binds.add(mount.target, mount.source or "")
    except BaseException:
        binds.close()
        raise
    return binds


def open_devices(devices: Sequence[Device]) -> tuple[list[DeviceNode], list[DeviceRule]]:
    """What to make in /dev and to allow, for the host devices that were asked for.

    Raises:
        InvalidOption: A path is no device, or its place in the container is not below /dev.
    """
    nodes: list[DeviceNode] = []
    rules: list[DeviceRule] = []
    for device in devices:
        target = os.path.normpath(device.target or device.source)
        if not target.startswith("/dev/"):
            raise InvalidOption("devices", target, "a device's place in the container is below /dev")
        try:
            info = os.stat(device.source)
        except OSError as error:
            raise InvalidOption("devices", device.source, (error.strerror or "").lower()) from None
        if not (stat.S_ISCHR(info.st_mode) or stat.S_ISBLK(info.st_mode)):
            raise InvalidOption("devices", device.source, "is not a device; use a bind mount")
        kind: DeviceKind = "b" if stat.S_ISBLK(info.st_mode) else "c"
        major, minor = os.major(info.st_rdev), os.minor(info.st_rdev)
        nodes.append(
            DeviceNode(
                path=target,
                type=kind,
                major=major,
                minor=minor,
                file_mode=stat.S_IMODE(info.st_mode),
                uid=info.st_uid,
                gid=info.st_gid,
            )
        )
        rules.append(DeviceRule(True, kind, major, minor, device.access))
    return nodes, rules
