"""Applying a layer, in plain Python: what the unpacker does, written a second time to be compared with it.

The archive is hostile. Every name is cleaned, every directory walked by `Tree`, every object made new by a
call relative to a directory descriptor, so nothing is written through a link or outside the root. Whiteouts
become the marks that overlayfs knows. What the archive does wrong is a `LayerError`; what the disk refuses
stays an `OSError`. On failure the directory is left half full and the caller removes it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from typing import TYPE_CHECKING, BinaryIO

from support import plain_attributes as attributes

from containerlib._util.remove_tree import remove_at
from containerlib.errors import UnsafePath, UnsupportedLayer
from containerlib.layer.apply import ApplyLimits, ApplyResult, Devices
from containerlib.layer.names import clean, shown
from containerlib.layer.tar_reader import TarEntry, TarReader
from containerlib.layer.tree import Tree

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

__all__ = ["apply_layer"]

_WHITEOUT_PREFIX = b".wh."
_WHITEOUT_META_PREFIX = b".wh..wh."
_OPAQUE = b".wh..wh..opq"
_NO_WHITEOUT = frozenset((b"", b".", b".."))

_COPY_BYTES = 1 << 20
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_MAX_MAJOR = 1 << 12
_MAX_MINOR = 1 << 20


def apply_layer(
    stream: BinaryIO, root_fd: int, *, devices: Devices = "refuse", limits: ApplyLimits | None = None
) -> ApplyResult:
    """Unpack the archive `stream` into the empty directory `root_fd`.

    Reads to the end mark of the archive, not further: whoever hashes the stream drains it.

    Args:
        stream: An uncompressed tar archive, best with a large buffer.
        root_fd: The directory, opened for reading; it stays open.
        devices: Whether device nodes are made or refused. Whiteouts are no devices in this sense.
        limits: How much the layer may hold.

    Raises:
        UnsafePath: An entry names or is something that could harm the host.
        UnsupportedLayer: The archive is damaged, over a limit or of a kind that is not read.

    Source: OCI image-spec 1.1, "Applying Changesets".
    """
    with _Applier(root_fd, TarReader(stream), devices, limits or ApplyLimits()) as applier:
        return applier.run()


class _Applier:
    """One run over one archive."""

    def __init__(self, root_fd: int, reader: TarReader, devices: Devices, limits: ApplyLimits) -> None:
        self._root_fd = root_fd
        self._reader = reader
        self._limits = limits
        self._tree = Tree(root_fd)
        self._set_owner = attributes.owner_setter()
        self._mtimes: dict[bytes, int] = {}
        self._whited_out: set[bytes] = set()
        self._opaque: set[bytes] = set()
        self._entries = 0
        self._size = 0
        self._makers: dict[str, Callable[[TarEntry, bytes, int, bytes], None]] = {
            "file": self._make_file,
            "directory": self._make_directory,
            "symlink": self._make_symlink,
            "hardlink": self._make_hardlink,
            "fifo": self._make_node,
            "character": self._make_device if devices == "create" else _refuse_device,
            "block": self._make_device if devices == "create" else _refuse_device,
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._tree.forget()

    def run(self) -> ApplyResult:
        """Apply every entry, then the times of the directories, which every entry in them changed."""
        for entry in self._reader:
            self._entries += 1
            self._size += entry.size
            if self._entries > self._limits.entries:
                raise UnsupportedLayer(f"archive: more than {self._limits.entries} entries")
            if self._size > self._limits.total_bytes:
                raise UnsupportedLayer(f"archive: more than {self._limits.total_bytes} bytes of files")
            self._apply(entry)
        self._set_directory_times()
        return ApplyResult(self._entries, self._size)

    def _apply(self, entry: TarEntry) -> None:
        path = clean(entry.name)
        if not path:
            self._apply_root(entry)
            return
        head, _, name = path.rpartition(b"/")
        if _WHITEOUT_PREFIX in path:
            if path.startswith(_WHITEOUT_META_PREFIX) and path != _OPAQUE:
                return  # records of an old union file system, which mean nothing to this one
            if name.startswith(_WHITEOUT_PREFIX):
                self._white_out(entry, head, name)
                return
            if any(part.startswith(_WHITEOUT_PREFIX) for part in head.split(b"/")):
                raise UnsafePath(entry.shown_name, "a whiteout cannot be a directory")
        if self._whited_out:
            self._restore_directories(head)
        parent_fd = self._tree.directory(head, create=True)
        self._makers[entry.kind](entry, path, parent_fd, name)

    def _restore_directories(self, path: bytes) -> None:
        """Replace whiteouts on the way to `path` by directories: removed below, made anew here."""
        end = path.find(b"/")
        while path:
            part = path if end < 0 else path[:end]
            if part in self._whited_out and part not in self._mtimes:
                head, _, name = part.rpartition(b"/")
                parent_fd = self._tree.directory(head, create=True)
                if _is_whiteout_at(parent_fd, name):
                    os.unlink(name, dir_fd=parent_fd)
                    self._make_opaque(self._tree.directory(part, create=True))
            if end < 0:
                return
            end = path.find(b"/", end + 1)

    def _apply_root(self, entry: TarEntry) -> None:
        if entry.kind != "directory":
            raise UnsafePath(entry.shown_name, "the root must be a directory")
        self._finish_directory(entry, b"", self._root_fd)

    def _make_file(self, entry: TarEntry, path: bytes, parent_fd: int, name: bytes) -> None:
        try:
            fd = os.open(name, _CREATE, 0o600, dir_fd=parent_fd)
        except FileExistsError:
            parent_fd = self._clear(path, name)
            fd = os.open(name, _CREATE, 0o600, dir_fd=parent_fd)
        try:
            left = entry.size
            while left:
                data = self._reader.read(min(left, _COPY_BYTES))
                left -= len(data)
                _write_all(fd, data)
            self._set_owner(fd, entry.uid, entry.gid)
            os.fchmod(fd, entry.mode)
            if entry.xattrs:
                attributes.set_xattrs(fd, entry.xattrs, entry.shown_name)
            os.utime(fd, ns=(entry.mtime_ns, entry.mtime_ns))
        finally:
            os.close(fd)

    def _make_directory(self, entry: TarEntry, path: bytes, parent_fd: int, name: bytes) -> None:
        try:
            os.mkdir(name, 0o700, dir_fd=parent_fd)
        except FileExistsError:
            parent_fd = self._clear(path, name, keep_directory=True)
            with contextlib.suppress(FileExistsError):
                os.mkdir(name, 0o700, dir_fd=parent_fd)
        fd = os.open(name, _DIRECTORY, dir_fd=parent_fd)
        try:
            self._finish_directory(entry, path, fd)
        except BaseException:
            os.close(fd)
            raise
        self._tree.adopt(path, fd)

    def _finish_directory(self, entry: TarEntry, path: bytes, fd: int) -> None:
        self._set_owner(fd, entry.uid, entry.gid)
        os.fchmod(fd, entry.mode)
        if entry.xattrs:
            attributes.set_xattrs(fd, entry.xattrs, entry.shown_name)
        if path in self._whited_out:
            attributes.set_opaque(fd)
        self._mtimes[path] = entry.mtime_ns

    def _make_symlink(self, entry: TarEntry, path: bytes, parent_fd: int, name: bytes) -> None:
        target = entry.linkname
        if not target or b"\0" in target:
            raise UnsupportedLayer(f"archive entry {entry.shown_name!r}: symbolic link to nothing")
        try:
            os.symlink(target, name, dir_fd=parent_fd)
        except FileExistsError:
            parent_fd = self._clear(path, name)
            os.symlink(target, name, dir_fd=parent_fd)
        except OSError as error:
            raise _refusal(entry, error) from None
        attributes.set_link_attributes(parent_fd, name, entry)

    def _make_hardlink(self, entry: TarEntry, path: bytes, parent_fd: int, name: bytes) -> None:
        target = clean(entry.linkname)
        target_head, _, target_name = target.rpartition(b"/")
        try:
            target_fd = os.dup(self._tree.directory(target_head, create=False))
        except FileNotFoundError:
            raise UnsafePath(entry.shown_name, f"hard link to {shown(target)!r}, which is missing") from None
        try:
            parent_fd = self._tree.directory(path.rpartition(b"/")[0], create=True)
            info = self._check_link_target(entry, target_fd, target_name)
            try:
                _link(target_fd, target_name, parent_fd, name)
            except FileExistsError:
                if not _is_same(parent_fd, name, info):
                    parent_fd = self._clear(path, name)
                    _link(target_fd, target_name, parent_fd, name)
        except FileNotFoundError:
            raise UnsafePath(entry.shown_name, "hard link replaces its own target") from None
        except OSError as error:
            raise _refusal(entry, error) from None
        finally:
            os.close(target_fd)

    def _check_link_target(self, entry: TarEntry, directory_fd: int, name: bytes) -> os.stat_result:
        try:
            info = os.stat(name or b".", dir_fd=directory_fd, follow_symlinks=False)
        except FileNotFoundError:
            raise UnsafePath(entry.shown_name, f"hard link to {shown(name)!r}, which is missing") from None
        if stat.S_ISDIR(info.st_mode):
            raise UnsafePath(entry.shown_name, "hard link to a directory")
        if _is_whiteout(info):
            raise UnsafePath(entry.shown_name, "hard link to a removed file")
        return info

    def _make_node(
        self,
        entry: TarEntry,
        path: bytes,
        parent_fd: int,
        name: bytes,
        kind: int = stat.S_IFIFO,
        device: int = 0,
    ) -> None:
        try:
            os.mknod(name, kind | 0o600, device, dir_fd=parent_fd)
        except FileExistsError:
            parent_fd = self._clear(path, name)
            os.mknod(name, kind | 0o600, device, dir_fd=parent_fd)
        attributes.set_node_attributes(parent_fd, name, entry)

    def _make_device(self, entry: TarEntry, path: bytes, parent_fd: int, name: bytes) -> None:
        major, minor = entry.major, entry.minor
        if not (0 <= major < _MAX_MAJOR and 0 <= minor < _MAX_MINOR):
            raise UnsafePath(entry.shown_name, f"device number {major}:{minor} does not exist")
        if entry.kind == "character" and major == minor == 0:
            raise UnsafePath(entry.shown_name, "a device that overlayfs takes for a whiteout")
        kind = stat.S_IFCHR if entry.kind == "character" else stat.S_IFBLK
        self._make_node(entry, path, parent_fd, name, kind, os.makedev(major, minor))

    def _white_out(self, entry: TarEntry, head: bytes, name: bytes) -> None:
        """Note that something below is removed: one name, or all names of the directory."""
        target = name.removeprefix(_WHITEOUT_PREFIX)
        if target in _NO_WHITEOUT or (target.startswith(_WHITEOUT_PREFIX) and name != _OPAQUE):
            raise UnsafePath(entry.shown_name, "not a valid whiteout")
        if entry.kind not in {"file", "hardlink"}:
            raise UnsafePath(entry.shown_name, "a whiteout must be a plain file")
        if name == _OPAQUE and head in self._opaque:
            return
        if self._whited_out:
            self._restore_directories(head)
        parent_fd = self._tree.directory(head, create=True)
        if not self._tree.is_plain(head):
            raise UnsafePath(entry.shown_name, "whiteout through a symbolic link")
        if name == _OPAQUE:
            self._make_opaque(parent_fd)
            self._opaque.add(head)
            return
        path = head + b"/" + target if head else target
        self._whited_out.add(path)
        try:
            os.mknod(target, stat.S_IFCHR, 0, dir_fd=parent_fd)
        except FileExistsError:
            # What this same layer brings stays; a directory must not let shine through what lies below.
            self._make_opaque_if_directory(parent_fd, target)

    def _make_opaque(self, directory_fd: int) -> None:
        fd = os.open(b".", _DIRECTORY, dir_fd=directory_fd)
        try:
            attributes.set_opaque(fd)
        finally:
            os.close(fd)

    def _make_opaque_if_directory(self, parent_fd: int, name: bytes) -> None:
        with contextlib.suppress(NotADirectoryError):
            fd = os.open(name, _DIRECTORY, dir_fd=parent_fd)
            try:
                attributes.set_opaque(fd)
            finally:
                os.close(fd)

    def _clear(self, path: bytes, name: bytes, *, keep_directory: bool = False) -> int:
        """Make room for an entry whose name is taken; return the descriptor of its directory.

        Source: OCI image-spec 1.1, "Changeset over existing files".
        """
        parent_fd = self._tree.directory(path.rpartition(b"/")[0], create=True)
        info = os.stat(name, dir_fd=parent_fd, follow_symlinks=False)
        if stat.S_ISDIR(info.st_mode) and keep_directory:
            return parent_fd
        # Kept descriptors may lead into what is removed now, or through a link that is.
        self._tree.forget()
        parent_fd = self._tree.directory(path.rpartition(b"/")[0], create=True)
        remove_at(parent_fd, name)
        if stat.S_ISDIR(info.st_mode):
            self._forget_below(path)
        return parent_fd

    def _forget_below(self, path: bytes) -> None:
        """Drop what is remembered of a directory that was removed; rare in real layers."""
        below = path + b"/"
        self._opaque = {name for name in self._opaque if name != path and not name.startswith(below)}

    def _set_directory_times(self) -> None:
        for path, mtime_ns in self._mtimes.items():
            if not path:
                os.utime(self._root_fd, ns=(mtime_ns, mtime_ns))
                continue
            head, _, name = path.rpartition(b"/")
            # A directory may since have been replaced by something else, which has its own time.
            with contextlib.suppress(FileNotFoundError, UnsafePath):
                parent_fd = self._tree.directory(head, create=False)
                if stat.S_ISDIR(os.stat(name, dir_fd=parent_fd, follow_symlinks=False).st_mode):
                    os.utime(name, ns=(mtime_ns, mtime_ns), dir_fd=parent_fd, follow_symlinks=False)


def _refuse_device(entry: TarEntry, path: bytes, parent_fd: int, name: bytes) -> None:
    del path, parent_fd, name
    raise UnsafePath(entry.shown_name, f"{entry.kind} device")


def _refusal(entry: TarEntry, error: OSError) -> Exception:
    """Tell what the archive asks wrongly from what the disk cannot do."""
    if error.errno in {errno.ENAMETOOLONG, errno.EMLINK, errno.EINVAL, errno.EXDEV, errno.EPERM}:
        return UnsupportedLayer(f"archive entry {entry.shown_name!r}: {error.strerror}")
    return error


def _link(source_fd: int, source: bytes, target_fd: int, target: bytes) -> None:
    os.link(source, target, src_dir_fd=source_fd, dst_dir_fd=target_fd, follow_symlinks=False)


def _is_same(directory_fd: int, name: bytes, info: os.stat_result) -> bool:
    present = os.stat(name, dir_fd=directory_fd, follow_symlinks=False)
    return (present.st_ino, present.st_dev) == (info.st_ino, info.st_dev)


def _is_whiteout_at(directory_fd: int, name: bytes) -> bool:
    """Whether a name says that it is removed; what the archive itself has replaced does not."""
    try:
        return _is_whiteout(os.stat(name, dir_fd=directory_fd, follow_symlinks=False))
    except FileNotFoundError:
        return False


def _is_whiteout(info: os.stat_result) -> bool:
    return stat.S_ISCHR(info.st_mode) and info.st_rdev == 0


def _write_all(fd: int, data: bytes) -> None:
    written = os.write(fd, data)
    while written < len(data):
        written += os.write(fd, memoryview(data)[written:])
