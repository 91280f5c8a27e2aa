"""A root file system by copying layers, where no overlay can be mounted.

Slow and correct: layers are applied from the lowest up, whiteouts and opaque directories as overlayfs reads
them. Names come from committed snapshots, which nobody else changes.
"""

from __future__ import annotations

import os
import shutil
import stat
from typing import TYPE_CHECKING

from containerlib._util.remove_tree import remove_tree

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["copy_root"]

_OPAQUE = "trusted.overlay.opaque"


def _is_whiteout(info: os.stat_result) -> bool:
    return stat.S_ISCHR(info.st_mode) and info.st_rdev == 0


def _is_opaque(path: str) -> bool:
    try:
        return os.getxattr(path, _OPAQUE, follow_symlinks=False) == b"y"
    except OSError:
        return False


def _copy_metadata(source: str, target: str, info: os.stat_result) -> None:
    os.chown(target, info.st_uid, info.st_gid, follow_symlinks=False)
    if stat.S_ISLNK(info.st_mode):
        return
    for name in os.listxattr(source, follow_symlinks=False):
        if not name.startswith("trusted.overlay."):
            os.setxattr(target, name, os.getxattr(source, name, follow_symlinks=False))
    os.chmod(target, stat.S_IMODE(info.st_mode))
    os.utime(target, ns=(info.st_atime_ns, info.st_mtime_ns))


def _replace(target: str) -> None:
    if os.path.islink(target) or not os.path.isdir(target):
        if os.path.lexists(target):
            os.unlink(target)
    else:
        remove_tree(target)


def _copy_file(source: str, target: str, info: os.stat_result, links: dict[tuple[int, int], str]) -> None:
    known = links.get((info.st_dev, info.st_ino))
    if known is not None:
        os.link(known, target, follow_symlinks=False)
        return
    if stat.S_ISLNK(info.st_mode):
        os.symlink(os.readlink(source), target)
    elif stat.S_ISREG(info.st_mode):
        shutil.copyfile(source, target, follow_symlinks=False)
    else:
        os.mknod(target, info.st_mode, info.st_rdev)
    _copy_metadata(source, target, info)
    if info.st_nlink > 1:
        links[info.st_dev, info.st_ino] = target


def _copy_directory(source: str, target: str, links: dict[tuple[int, int], str]) -> None:
    info = os.lstat(source)
    if _is_opaque(source) or os.path.islink(target) or not os.path.isdir(target):
        _replace(target)
        os.mkdir(target, 0o700)
    with os.scandir(source) as entries:
        for entry in entries:
            below = f"{target}/{entry.name}"
            entry_info = entry.stat(follow_symlinks=False)
            if stat.S_ISDIR(entry_info.st_mode):
                _copy_directory(entry.path, below, links)
                continue
            _replace(below)
            if not _is_whiteout(entry_info):
                _copy_file(entry.path, below, entry_info, links)
    _copy_metadata(source, target, info)


def copy_root(lowers: Sequence[str], target: str) -> None:
    """Make `target` a complete copy of the layers.

    Args:
        lowers: Layer directories, top-most first.
        target: Directory that does not exist yet. After a failure the caller removes it.

    Raises:
        OSError: The disk is full, or a file cannot be read.

    Cost: proportional to the size of the image.
    """
    os.mkdir(target, 0o755)
    for lower in reversed(lowers):
        _copy_directory(lower, target, {})
