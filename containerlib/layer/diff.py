"""Directories to archives: the upper directory of a container to a layer, a stack of layers to one flat tree.

The same tree gives the same bytes. The walk is by descriptors and follows no link; nothing is opened but
directories and regular files. What is not content of the tree, overlayfs' own marks above all, does not get
into the archive. Sockets are left out, as Docker does, because no archive can hold one.
"""

from __future__ import annotations

import functools
import os
import stat
from typing import TYPE_CHECKING, Literal

from containerlib.errors import InvalidInputError
from containerlib.layer import marks
from containerlib.layer.archive import LATEST, LayerEntry, write_layer
from containerlib.layer.merged import Stack, join
from containerlib.layer.names import shown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from containerlib.layer.archive import EntryKind, LayerResult, Sink
    from containerlib.layer.merged import Found, Where

__all__ = ["DiffDevices", "write_diff", "write_merged"]

DiffDevices = Literal["refuse", "include"]

_WHITEOUT = b".wh."
_OPAQUE = b".wh..wh..opq"
_NANOSECONDS = 1_000_000_000
_MAX_XATTR_BYTES = 64 << 20
_USUAL_ROOT = (0o755, 0, 0)


def write_diff(
    upper: str,
    out: Sink,
    *,
    latest_mtime: int = LATEST,
    devices: DiffDevices = "refuse",
    user_marks: bool = False,
) -> LayerResult:
    """Write what the upper directory of an overlay holds as a layer, with whiteouts for what it hides.

    Applied to the layers below it gives what the overlay showed. The root directory is an entry only if its
    owner, its mode or its extended attributes are not the usual ones, so that a container that changed
    nothing has an empty layer.

    Args:
        upper: The directory. Nobody should write to it meanwhile: a container is stopped or paused first.
        out: Where the uncompressed archive goes.
        latest_mtime: Later times become this one, in seconds since 1970.
        devices: Whether device nodes are refused or become entries.
        user_marks: Whether the overlay was mounted with ``userxattr``. The attributes ``user.overlay.*`` of
            another one are the container's own affair; they say nothing and are left out.

    Raises:
        InvalidInputError: Something changed meanwhile, cannot be in a layer (a name that begins with
            ``.wh.``, a device), or has its content in a lower layer.
        UnsafePath: Another file system is mounted in the directory.

    Cost: each file is read once; in memory is one small record for each entry.
    Source: OCI image-spec 1.1, "Creating"; Documentation/filesystems/overlayfs.rst.
    """
    with Stack([upper], prefixes=(marks.USER if user_marks else marks.TRUSTED,)) as stack:
        walk = _Walk(stack, devices=devices, is_diff=True)
        return write_layer(walk.entries((0,)), out, mtime=latest_mtime)


def write_merged(
    directories: Sequence[str],
    out: Sink,
    *,
    latest_mtime: int = LATEST,
    devices: DiffDevices = "include",
    user_marks: bool = True,
) -> LayerResult:
    """Write what an overlay of `directories` shows as one archive without whiteouts.

    Args:
        directories: Layer directories, top-most first; an upper directory may be the first.
        out: Where the uncompressed archive goes.
        latest_mtime: Later times become this one, in seconds since 1970.
        devices: Whether device nodes are refused or become entries.
        user_marks: Whether marks in the form ``user.overlay.*`` count besides the others. False if there is
            an upper directory of a mount without ``userxattr``.

    Raises:
        InvalidInputError: As for `write_diff`.
        UnsafePath: Another file system is mounted in a directory.

    Cost: as for `write_diff`; a descriptor for each directory.
    """
    prefixes = (marks.TRUSTED, marks.USER) if user_marks else (marks.TRUSTED,)
    with Stack(directories, prefixes=prefixes) as stack:
        walk = _Walk(stack, devices=devices, is_diff=False)
        top = stack.top(tuple(range(len(directories))))
        return write_layer(walk.entries(top) if top else (), out, mtime=latest_mtime)


class _Walk:
    """One walk over a stack, and what it remembers."""

    def __init__(self, stack: Stack, *, devices: DiffDevices, is_diff: bool) -> None:
        self._stack = stack
        self._devices = devices
        self._is_diff = is_diff
        self._first_names: dict[tuple[int, int], str] = {}
        self._xattr_bytes = 0

    def entries(self, top: Where) -> Iterator[LayerEntry]:
        """Yield everything below the root, and the root if there is something to say of it."""
        info, xattrs = self._stack.root(top[0])
        if xattrs or (stat.S_IMODE(info.st_mode), info.st_uid, info.st_gid) != _USUAL_ROOT:
            yield self._entry(b".", "directory", info, xattrs=self._counted(b".", xattrs))
        pending: list[tuple[bytes, Where]] = [(b"", top)]
        while pending:
            path, where = pending.pop()
            if self._is_diff and path and self._stack.is_opaque(0, path):
                yield _whiteout(join(path, _OPAQUE))
            # In order, so that of several names of one file the same one is met first each time.
            for name, found in sorted(self._stack.listing(path, where).items()):
                yield from self._take(path, name, found)
                if found.is_directory:
                    pending.append((join(path, name), self._stack.below(path, name, where)))

    def _take(self, directory: bytes, name: bytes, found: Found) -> Iterator[LayerEntry]:
        """Yield the entry of one name, if it has one."""
        path = join(directory, name)
        if name.startswith(_WHITEOUT):
            raise InvalidInputError(f"{shown(path)!r}: a layer can hold no name that begins with '.wh.'")
        if found.is_whiteout:
            if self._is_diff:
                yield _whiteout(join(directory, _WHITEOUT + name))
            return
        if found.kind is not None:
            yield self._entry_of(path, found.kind, found)

    def _entry_of(self, path: bytes, kind: EntryKind, found: Found) -> LayerEntry:
        info, layer = found.info, found.layer
        if kind in {"character", "block"} and self._devices == "refuse":
            raise InvalidInputError(f"{shown(path)!r} is a device; it must be removed, or devices allowed")
        if kind != "directory" and info.st_nlink > 1:
            text = os.fsdecode(path)
            first = self._first_names.setdefault((info.st_dev, info.st_ino), text)
            if first != text:
                return self._entry(path, "hardlink", info, linkname=first)
        if kind == "symlink":
            return self._entry(path, kind, info, linkname=os.fsdecode(self._stack.link_target(layer, path)))
        if kind not in {"file", "directory"}:
            return self._entry(path, kind, info)
        xattrs = self._counted(path, self._stack.xattrs(layer, path))
        if kind == "directory":
            return self._entry(path, kind, info, xattrs=xattrs)
        source = functools.partial(self._stack.open_file, layer, path, info)
        return self._entry(path, kind, info, xattrs=xattrs, source=source)

    def _entry(
        self,
        path: bytes,
        kind: EntryKind,
        info: os.stat_result,
        *,
        linkname: str = "",
        xattrs: Mapping[str, bytes] | None = None,
        source: Callable[[], int] | None = None,
    ) -> LayerEntry:
        return LayerEntry(
            os.fsdecode(path),
            kind,
            mode=stat.S_IMODE(info.st_mode),
            uid=info.st_uid,
            gid=info.st_gid,
            linkname=linkname,
            source=source,
            mtime=info.st_mtime_ns // _NANOSECONDS,
            xattrs=xattrs or {},
            device=(os.major(info.st_rdev), os.minor(info.st_rdev)),
        )

    def _counted(self, path: bytes, xattrs: dict[str, bytes]) -> dict[str, bytes]:
        """Return `xattrs`, unless all together would take too much memory."""
        self._xattr_bytes += sum(map(len, xattrs.values()))
        if self._xattr_bytes > _MAX_XATTR_BYTES:
            raise InvalidInputError(
                f"more than {_MAX_XATTR_BYTES} bytes of extended attributes, {shown(path)!r} included"
            )
        return xattrs


def _whiteout(path: bytes) -> LayerEntry:
    return LayerEntry(os.fsdecode(path), source=b"", mode=0o600, mtime=0)
