"""Applying a layer: an uncompressed archive becomes the upper directory of an overlay.

The archive is hostile, so it is read by a process that has this directory as its root and can do nothing but
make files in it (`_native.unpack`). Here its report becomes an error. What the archive does wrong is a
`LayerError`; what the disk refuses stays an `OSError`. On failure the directory is left half full and the
caller removes it.
"""

from __future__ import annotations

import contextlib
import errno
import os
from typing import TYPE_CHECKING, BinaryIO, Literal

import attrs

from containerlib._native.unpack import Unpacker
from containerlib.errors import UnsafePath, UnsupportedHost, UnsupportedLayer
from containerlib.layer.names import MAX_COMPONENT_BYTES, MAX_PATH_BYTES, shown
from containerlib.layer.tar_reader import NO_ARCHIVE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from containerlib._native.unpack import UnpackReport
    from containerlib.layer.archive import Sink

__all__ = ["ApplyLimits", "ApplyResult", "apply_blocks", "apply_layer", "apply_written"]

_CHUNK_BYTES = 1 << 20

Devices = Literal["refuse", "create"]


@attrs.frozen
class ApplyLimits:
    """How much one layer may hold.

    Attributes:
        entries: Most members.
        total_bytes: Most bytes of file content, holes of sparse files included.
    """

    entries: int = 5_000_000
    total_bytes: int = 256 << 30


@attrs.frozen
class ApplyResult:
    """What a layer held.

    Attributes:
        entries: Number of members.
        size_bytes: Content of its regular files.
        implied: Directories that it needs and says nothing of; they are root's, with mode 0755.
    """

    entries: int
    size_bytes: int
    implied: tuple[bytes, ...] = ()


def apply_layer(
    stream: BinaryIO,
    root_fd: int,
    *,
    devices: Devices = "refuse",
    limits: ApplyLimits | None = None,
) -> ApplyResult:
    """Unpack the archive `stream` into the empty directory `root_fd`.

    Reads the whole stream, unless something is wrong.

    Args:
        stream: An uncompressed tar archive.
        root_fd: The directory, opened for reading; it stays open.
        devices: Whether device nodes are made or refused. Whiteouts are no devices in this sense.
        limits: How much the layer may hold.

    Raises:
        UnsafePath: An entry names or is something that could harm the host.
        UnsupportedLayer: The archive is damaged, over a limit or of a kind that is not read.
        UnsupportedHost: This process may not change its root, or memory files cannot be executed.

    Source: OCI image-spec 1.1, "Applying Changesets".
    """
    return apply_blocks(iter(lambda: stream.read(_CHUNK_BYTES), b""), root_fd, devices=devices, limits=limits)


def apply_blocks(
    blocks: Iterable[bytes],
    root_fd: int,
    *,
    devices: Devices = "refuse",
    limits: ApplyLimits | None = None,
    plain: bool = False,
) -> ApplyResult:
    """Do what `apply_layer` does with an archive that comes in blocks of any size.

    With `plain` the directory is one that is in use, and the archive no layer: see `Unpacker`.
    """

    def write(sink: Sink) -> None:
        for block in blocks:
            sink.write(block)

    return apply_written(write, root_fd, devices=devices, limits=limits, plain=plain)


class _RefusedError(Exception):
    """It wants no more."""


class _UnpackerSink:
    """What is written goes to an unpacker."""

    def __init__(self, unpacker: Unpacker) -> None:
        self._unpacker = unpacker

    def write(self, data: bytes, /) -> int:
        if not self._unpacker.write(data):
            raise _RefusedError
        return len(data)


def apply_written(
    write: Callable[[Sink], object],
    root_fd: int,
    *,
    devices: Devices = "refuse",
    limits: ApplyLimits | None = None,
    plain: bool = False,
) -> ApplyResult:
    """Do what `apply_blocks` does with the archive that `write` writes. It ends early if that is refused."""
    limits = limits or ApplyLimits()
    with Unpacker(
        root_fd,
        devices=devices == "create",
        entries=limits.entries,
        total_bytes=limits.total_bytes,
        plain=plain,
    ) as unpacker:
        with contextlib.suppress(_RefusedError):
            write(_UnpackerSink(unpacker))
        report = unpacker.finish()
    if report.reason != "done":
        raise _refusal(report, limits)
    return ApplyResult(report.entries, report.size_bytes, report.implied)


# What the archive asks wrongly, if the kernel refuses it; anything else is for the disk to answer.
_WRONG = frozenset((errno.ENAMETOOLONG, errno.EMLINK, errno.EINVAL, errno.EXDEV, errno.EPERM))

_UNSAFE = {
    "outside": "{detail!r} leads out of the tree",
    "root": "the root must be a directory",
    "in_the_way": "{detail!r} is in the way and not a directory",
    "other_kind": "a directory would take the place of something else, or something else that of a directory",
    "links": "its directory part leads through too many links",
    "other_file_system": "directory {detail!r} lies on another file system",
    "device": "{detail} device, which images may hold only with EngineConfig(image_devices=True)",
    "device_number": "a device number that does not exist",
    "device_whiteout": "a device that overlayfs takes for a whiteout",
    "whiteout_name": "not a valid whiteout",
    "whiteout_kind": "a whiteout must be a plain file",
    "whiteout_parent": "a whiteout cannot be a directory",
    "whiteout_link": "whiteout through a symbolic link",
    "hardlink_missing": "hard link to {detail!r}, which is missing",
    "hardlink_directory": "hard link to a directory",
    "hardlink_removed": "hard link to a removed file",
    "hardlink_self": "hard link replaces its own target",
}

_DAMAGED = {
    "cut_off": "it ends too early",
    "cut_off_in_file": "it ends in the middle of a file",
    "behind_end": "it goes on behind its end mark",
    "checksum": "a header has a wrong checksum",
    "number": "a header has the number {detail!r}",
    "meta_size": "an extended header claims more bytes than the limit of 1048576",
    "pax_length": "extended header: record with a wrong length or without a key",
    "pax_nul": "extended header: record {detail!r} holds a NUL byte",
    "pax_number": "extended header: value {detail!r} is not a number",
    "pax_time": "extended header: value {detail!r} is not a time",
    "memory": "it has more directories than can be remembered",
    "entries": "more than {limits.entries} entries",
    "bytes": "more than {limits.total_bytes} bytes of files",
    "name_bytes": f"entry {{name!r}}... has a name of more than {MAX_PATH_BYTES} bytes",
    "component_bytes": f"entry {{name!r}}...: component over {MAX_COMPONENT_BYTES} bytes",
    "kind": "entry {name!r} is a member of unknown type {detail!r}",
    "directory_content": "entry {name!r} is a directory with content",
    "size": "entry {name!r} claims an impossible size",
    "owner": "entry {name!r} has a user or group that does not exist",
    "xattr_name": "entry {name!r}: extended attribute {detail!r} has a name of wrong length",
    "xattr_size": "entry {name!r}: extended attribute {detail!r} has more than 65536 bytes",
    "xattr": "entry {name!r}: extended attribute {detail!r}: {kernel}",
    "sparse": "entry {name!r} has a wrong map of a sparse file",
    "link_to_nothing": "entry {name!r}: symbolic link to nothing",
    "refused": "entry {name!r}: {kernel}",
}


def _refusal(report: UnpackReport, limits: ApplyLimits) -> Exception:
    """Turn what the unpacker says into words: the texts are here, not there."""
    reason, name, kernel = report.reason, shown(report.name), os.strerror(report.errno)
    values = {"name": name, "detail": shown(report.detail), "kernel": kernel, "limits": limits}
    if reason == "confine":
        return UnsupportedHost("unpacking layers", needed="CAP_SYS_CHROOT and seccomp filters", found=kernel)
    if reason in {"system", "refused"} and report.errno not in _WRONG:
        return OSError(report.errno, kernel, name)
    if reason in _UNSAFE:
        return UnsafePath(name, _UNSAFE[reason].format(**values))
    if reason in {"checksum", "number"} and report.entries == 0:
        return UnsupportedLayer(f"archive: {NO_ARCHIVE}")
    return UnsupportedLayer(
        f"archive: {_DAMAGED['refused' if reason == 'system' else reason].format(**values)}"
    )
