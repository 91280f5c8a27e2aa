"""Copying files between a container and its host, as ``docker cp`` does.

Either way an archive is written on one side and unpacked on the other, by a process that has the directory
there as its root. So neither side's links lead anywhere else, whatever a container does meanwhile.
"""

from __future__ import annotations

import errno
import os
import posixpath
import stat
from typing import TYPE_CHECKING, BinaryIO

from containerlib.container.root import check_path, opened_root
from containerlib.errors import InvalidInputError, PathNotFound
from containerlib.image.export import Exported
from containerlib.image.output import opened_output
from containerlib.layer.apply import apply_blocks, apply_written
from containerlib.layer.archive import LATEST, ArchiveWriter, LayerEntry
from containerlib.layer.walk import Taken, write_object

if TYPE_CHECKING:
    from collections.abc import Iterator

    from containerlib.container.entry import ContainerEntry
    from containerlib.container.root import ContainerRoot
    from containerlib.layer.archive import Sink

__all__ = ["get", "get_archive", "put", "put_archive", "put_bytes"]

_LIST = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_CHUNK_BYTES = 1 << 20
_NO_SET_ID = 0o1777


def put(
    entry: ContainerEntry,
    source: str,
    path: str,
    *,
    owner: tuple[int, int],
    archive: bool,
    follow_links: bool,
) -> None:
    """Copy a file or directory of the host into the container.

    Raises:
        InvalidInputError: The source does not exist, or a file became shorter meanwhile.
        InvalidOption: The path is not absolute.
        InvalidState: See `opened_root`.
        PathNotFound, ContainerFileError: The path is not one that something can be copied to.
    """
    check_path(path)
    contents = source.endswith("/.") or source == "."
    taken = Taken(xattrs=True) if archive else Taken(owner=owner)
    source_fd = _open_source(source, follow=follow_links or source.endswith(("/", "/.")) or contents)
    try:
        is_directory = stat.S_ISDIR(os.fstat(source_fd).st_mode)
        with opened_root(entry) as root:
            name = posixpath.basename(os.path.abspath(source))
            target_fd, called = _target(root, path, name, is_directory=is_directory, contents=contents)
            try:
                with root.telling(path):
                    apply_written(
                        lambda sink: _write(sink, source_fd, os.fsencode(called), taken),
                        target_fd,
                        plain=True,
                    )
            finally:
                os.close(target_fd)
    finally:
        os.close(source_fd)
    entry.tell("extract-to-dir", {"path": path})


def put_bytes(entry: ContainerEntry, data: bytes, path: str, *, owner: tuple[int, int], mode: int) -> None:
    """Write a file into the container, in the place of one that is there. Raises what `put` raises."""
    check_path(path)
    made = LayerEntry(path, "file", mode=mode, uid=owner[0], gid=owner[1], source=bytes(data))

    def write(sink: Sink) -> None:
        writer = ArchiveWriter(sink, LATEST)
        writer.add(os.fsencode(name), made)
        writer.finish()

    with opened_root(entry) as root:
        if path.endswith("/"):
            raise root.refusal(path, errno.EISDIR)
        fd, name = root.place(path)
        try:
            with root.telling(path):
                apply_written(write, fd, plain=True)
        finally:
            os.close(fd)
    entry.tell("extract-to-dir", {"path": path})


def put_archive(entry: ContainerEntry, source: BinaryIO, path: str) -> None:
    """Unpack an archive into a directory of the container. Raises what `put` raises, and LayerError."""
    check_path(path)
    with opened_root(entry) as root:
        fd = root.directory(path)
        try:
            with root.telling(path):
                apply_blocks(_blocks(source), fd, plain=True)
        finally:
            os.close(fd)
    entry.tell("extract-to-dir", {"path": path})


def get(entry: ContainerEntry, path: str, target: str, *, archive: bool, follow_links: bool) -> None:
    """Copy a file or directory of the container to the host.

    Raises:
        InvalidInputError: The target lies in no directory, or a file became shorter meanwhile.
        InvalidOption: The path is not absolute.
        InvalidState: See `opened_root`.
        PathNotFound, ContainerFileError: There is nothing of that path that could be copied.
    """
    check_path(path)
    contents = path.endswith("/.")
    with opened_root(entry) as root:
        taken = Taken(xattrs=True, empty=root.kernel)
        if not archive:
            taken = Taken(owner=(os.geteuid(), os.getegid()), modes=_NO_SET_ID, empty=root.kernel)
        source_fd = root.open(path, follow=follow_links or path.endswith(("/", "/.")))
        try:
            is_directory = stat.S_ISDIR(os.fstat(source_fd).st_mode)
            name = posixpath.basename(posixpath.normpath(path))
            target_fd, called = _host_target(target, name, is_directory=is_directory, contents=contents)
            try:
                with root.telling(path):
                    apply_written(
                        lambda sink: _write(sink, source_fd, os.fsencode(called), taken),
                        target_fd,
                        plain=True,
                    )
            finally:
                os.close(target_fd)
        finally:
            os.close(source_fd)
    entry.tell("archive-path", {"path": path})


def get_archive(entry: ContainerEntry, path: str, out: str | BinaryIO, *, follow_links: bool) -> Exported:
    """Write a file or directory of the container as an archive. Raises what `get` raises."""
    check_path(path)
    name = b"" if path.endswith("/.") else os.fsencode(posixpath.basename(posixpath.normpath(path)))
    with opened_root(entry) as root:
        fd = root.open(path, follow=follow_links or path.endswith(("/", "/.")))
        try:
            with root.telling(path), opened_output(out) as sink:
                writer = _write(sink, fd, name, Taken(xattrs=True, empty=root.kernel))
        finally:
            os.close(fd)
    entry.tell("archive-path", {"path": path})
    return Exported(f"sha256:{writer.hash.hexdigest()}", writer.size, writer.entries)


def _write(sink: Sink, fd: int, name: bytes, taken: Taken) -> ArchiveWriter:
    writer = ArchiveWriter(sink, LATEST)
    write_object(writer, fd, name, taken)
    writer.finish()
    return writer


def _target(
    root: ContainerRoot, path: str, name: str, *, is_directory: bool, contents: bool
) -> tuple[int, str]:
    """Where something goes that is to be copied to `path`: the open directory, and what it is called there.

    It is called nothing where the contents of a directory go into one that is there.
    """
    try:
        fd = root.open(path)
    except PathNotFound:
        if path.endswith("/") and not is_directory:
            raise
        return root.place(path)
    try:
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            return root.directory(path), "" if contents else name
    finally:
        os.close(fd)
    if is_directory or path.endswith("/"):
        raise root.refusal(path, errno.ENOTDIR)
    return root.place(path)


def _host_target(target: str, name: str, *, is_directory: bool, contents: bool) -> tuple[int, str]:
    """The same on the host, whose paths are the caller's own.

    Raises:
        InvalidInputError: It lies in no directory, or is a file where a directory has to be.
    """
    if os.path.isdir(target):
        return os.open(target, _LIST), "" if contents else name
    if target.endswith("/") and not is_directory:
        raise InvalidInputError(f"{target!r} is not a directory")
    if os.path.lexists(target) and is_directory:
        raise InvalidInputError(f"{target!r} is there and not a directory")
    parent, called = os.path.split(os.path.abspath(target))
    if not os.path.isdir(parent):
        raise InvalidInputError(f"{parent!r} is not a directory")
    return os.open(parent, _LIST), called


def _open_source(source: str, *, follow: bool) -> int:
    """Open what is to be copied; what a path of the host names is the caller's own affair.

    Raises:
        InvalidInputError: There is nothing, or nothing that may be read.
    """
    try:
        return os.open(source, os.O_PATH | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW))
    except OSError as error:
        raise InvalidInputError(f"cannot copy {source!r}: {error.strerror}") from None


def _blocks(stream: BinaryIO) -> Iterator[bytes]:
    return iter(lambda: stream.read(_CHUNK_BYTES), b"")
