"""Directory trees as values: all that an archive can say about them, and what a real overlay shows."""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import io
import os
import stat
from typing import TYPE_CHECKING

from support.mounts import detach

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

__all__ = ["Overlay", "applied", "described", "overlay", "tree"]

MARKS = ("trusted.overlay.", "user.overlay.")


def described(path: Path, *, times: bool = True, keep_opaque: bool = False) -> tuple[object, ...]:
    """Return what there is to say about one file, without its names.

    Args:
        path: The file; a link is not followed.
        times: Whether its time, in whole seconds, is part of it; that of a directory never is.
        keep_opaque: Whether overlayfs' mark of opaque directories is part of it.
    """
    info = path.lstat()
    xattrs = {
        name: os.getxattr(path, name, follow_symlinks=False)
        for name in os.listxattr(path, follow_symlinks=False)
        if not name.startswith(MARKS) or (keep_opaque and name.endswith(".opaque"))
    }
    content: object = None
    if stat.S_ISREG(info.st_mode):
        content = (info.st_size, hashlib.sha256(path.read_bytes()).hexdigest())
    elif stat.S_ISLNK(info.st_mode):
        content = path.readlink()
    elif not stat.S_ISDIR(info.st_mode):
        content = info.st_rdev
    timed = times and not stat.S_ISDIR(info.st_mode) and not (stat.S_ISCHR(info.st_mode) and not info.st_rdev)
    # A whiteout says nothing but that it is one.
    owner = (info.st_mode, info.st_uid, info.st_gid) if content != 0 else ("whiteout",)
    return (*owner, int(info.st_mtime) if timed else None, content, tuple(sorted(xattrs.items())))


def tree(root: Path, *, times: bool = True, keep_opaque: bool = False) -> dict[str, tuple[object, ...]]:
    """Return everything below a directory by path, with the other names of each file."""
    names: dict[tuple[int, int], list[str]] = {}
    found: dict[str, Path] = {}
    for item in sorted(root.rglob("*")):
        try:
            info = item.lstat()
        except FileNotFoundError:
            continue  # the kernel lists whiteouts of directories that only one layer has
        if stat.S_ISSOCK(info.st_mode):
            continue
        name = str(item.relative_to(root))
        found[name] = item
        if not stat.S_ISDIR(info.st_mode) and info.st_rdev + stat.S_ISCHR(info.st_mode) != 1:
            names.setdefault((info.st_dev, info.st_ino), []).append(name)
    others = {name: tuple(group) for group in names.values() for name in group}
    return {
        name: (*described(item, times=times, keep_opaque=keep_opaque), others.get(name))
        for name, item in found.items()
    }


def applied(data: bytes, target: Path) -> Path:
    """Unpack a layer into a new directory, as the engine does, devices included."""
    from containerlib.layer.apply import apply_layer  # noqa: PLC0415 - unit tests run without the extension

    target.mkdir()
    fd = os.open(target, os.O_RDONLY | os.O_DIRECTORY)
    try:
        apply_layer(io.BytesIO(data), fd, devices="create")
    finally:
        os.close(fd)
    return target


@contextlib.contextmanager
def overlay(
    target: Path, lowers: Sequence[Path], *, upper: Path | None = None, work: Path | None = None
) -> Iterator[Path]:
    """Mount the kernel's own overlay, and unmount it again."""
    libc = ctypes.CDLL(None, use_errno=True)
    target.mkdir(exist_ok=True)
    options = f"lowerdir={':'.join(map(str, lowers))}"
    if upper is not None:
        options += f",upperdir={upper},workdir={work}"
    if libc.mount(b"overlay", os.fsencode(target), b"overlay", 0, options.encode()) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), options)
    try:
        yield target
    finally:
        detach(str(target))


class Overlay:
    """Directories for an overlay with one lower layer, on a file system that can be an upper layer."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.lower, self.upper, self.work = (base / name for name in ("lower", "upper", "work"))
        for directory in (self.lower, self.upper, self.work):
            directory.mkdir()
            directory.chmod(0o755)

    def diff(self, **options: object) -> bytes:
        """Return the layer of the upper directory."""
        out = io.BytesIO()
        from containerlib.layer.diff import write_diff  # noqa: PLC0415 - as above

        result = write_diff(str(self.upper), out, **options)  # type: ignore[arg-type]
        assert result.diff_id == f"sha256:{hashlib.sha256(out.getvalue()).hexdigest()}"
        return out.getvalue()

    def merged(self, **options: object) -> bytes:
        """Return the flat archive of both."""
        out = io.BytesIO()
        from containerlib.layer.diff import write_merged  # noqa: PLC0415 - as above

        write_merged([str(self.upper), str(self.lower)], out, **options)  # type: ignore[arg-type]
        return out.getvalue()
