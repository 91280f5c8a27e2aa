"""An image made of a directory of this host.

The walk follows no link and holds a descriptor of the directory, so what is in the image is what is in the
directory. Owners and modes are kept; times are not, so that the same tree gives the same image. Sockets are
left out, as Docker does, because no archive can hold one; devices are refused.
"""

from __future__ import annotations

import functools
import os
import stat
from typing import TYPE_CHECKING

from containerlib.errors import InvalidInputError
from containerlib.image.assemble import assemble_image
from containerlib.layer.archive import LayerEntry
from containerlib.layer.tree import Tree

if TYPE_CHECKING:
    from collections.abc import Iterator

    from containerlib.image.image_record import ImageRecord
    from containerlib.oci.image_config import Config
    from containerlib.oci.platform import Platform
    from containerlib.store.stores import Stores

__all__ = ["directory_entries", "from_directory"]

_WALK = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_CAPABILITY = "security.capability"


def from_directory(
    stores: Stores,
    path: str,
    *,
    config: Config | None = None,
    reference: str | None = None,
    platform: Platform | None = None,
    mtime: int = 0,
    created: str = "",
) -> ImageRecord:
    """Make an image whose root is a copy of the directory `path`.

    Args:
        stores: Where the image goes.
        path: The directory; it may be a link to one.
        config: Defaults for containers of the image.
        reference: Name for the image.
        platform: What it runs on; this host if None.
        mtime: The time of every file, in seconds since 1970.
        created: When the image says it was made, in RFC 3339; empty leaves it out.

    Raises:
        InvalidInputError: There is a device in it, it is not a directory, or it changed meanwhile.
        UnsafePath: Another file system is mounted in it.
    """
    try:
        root_fd = os.open(path, _WALK & ~os.O_NOFOLLOW)
    except (FileNotFoundError, NotADirectoryError):
        raise InvalidInputError(f"{path!r} is not a directory") from None
    try:
        with Tree(root_fd, follow=False) as tree:
            entries = directory_entries(tree)
            return assemble_image(
                stores,
                entries,
                config=config,
                reference=reference,
                platform=platform,
                latest_mtime=mtime,
                created=created,
            )
    finally:
        os.close(root_fd)


def directory_entries(tree: Tree) -> Iterator[LayerEntry]:
    """Yield what lies in `tree`; the files are read through it when they are written."""
    first_names: dict[tuple[int, int], str] = {}
    pending = [""]
    while pending:
        directory = pending.pop()
        for name, info in _listing(tree, directory):
            path = f"{directory}/{name}" if directory else name
            if stat.S_ISDIR(info.st_mode):
                pending.append(path)
            if not stat.S_ISSOCK(info.st_mode):
                yield _entry(tree, path, info, first_names)


def _listing(tree: Tree, directory: str) -> list[tuple[str, os.stat_result]]:
    """Return names and attributes, sorted by name so that hard links find the same first name each time."""
    fd = os.open(".", _WALK, dir_fd=tree.directory(os.fsencode(directory), create=False))
    try:
        return [(name, os.stat(name, dir_fd=fd, follow_symlinks=False)) for name in sorted(os.listdir(fd))]
    finally:
        os.close(fd)


def _entry(
    tree: Tree, path: str, info: os.stat_result, first_names: dict[tuple[int, int], str]
) -> LayerEntry:
    make = functools.partial(
        LayerEntry, path, mode=stat.S_IMODE(info.st_mode), uid=info.st_uid, gid=info.st_gid
    )
    if stat.S_ISDIR(info.st_mode):
        return make("directory")
    if info.st_nlink > 1:
        first = first_names.setdefault((info.st_dev, info.st_ino), path)
        if first != path:
            return make("hardlink", linkname=first)
    if stat.S_ISLNK(info.st_mode):
        return make("symlink", linkname=_link_target(tree, path))
    if stat.S_ISFIFO(info.st_mode):
        return make("fifo")
    if not stat.S_ISREG(info.st_mode):
        raise InvalidInputError(f"{path!r} is a device; an image made of a directory cannot hold it")
    return make(
        source=functools.partial(tree.open_regular, os.fsencode(path)),
        size=info.st_size,
        xattrs=_capabilities(tree, path),
    )


def _link_target(tree: Tree, path: str) -> str:
    head, _, name = path.rpartition("/")
    return os.readlink(name, dir_fd=tree.directory(os.fsencode(head), create=False))


def _capabilities(tree: Tree, path: str) -> dict[str, bytes]:
    """Return the file capabilities; other extended attributes belong to this host."""
    fd = tree.open_regular(os.fsencode(path))
    try:
        return {_CAPABILITY: os.getxattr(fd, _CAPABILITY)}
    except OSError:
        return {}
    finally:
        os.close(fd)
