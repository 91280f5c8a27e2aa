"""Frozen layers: what a container had written at one moment, which nobody changes any more.

Each is a directory of the store; overlays of several containers may lie on it. The file ``base`` in the
directory of a container, or of a frozen layer itself, names those that it stands on, top-most first. A frozen
layer stays as long as the base of a container names it, or that of one whose snapshot is open; the engine of
an open snapshot is named as that of a container is. Everything else is swept away.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from attrs import frozen

from containerlib._util import file_lock, strict_json
from containerlib._util.atomic_file import make_directory, move, write_atomic
from containerlib._util.disk_error import translated
from containerlib._util.failpoint import reach
from containerlib._util.remove_tree import MOVED_PREFIX, remove_at_once, remove_tree
from containerlib.errors import InvalidInputError, ReadOnlyStore, StoreCorrupted
from containerlib.runtime.config import is_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from containerlib.store.layout import Layout

__all__ = ["FrozenLayers", "RootLook", "make_upper", "read_base", "write_base"]

_LIMIT = 1 << 20
_OVERLAY = "trusted.overlay."
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def read_base(directory: str) -> tuple[str, ...]:
    """Ids of the frozen layers that what lies in `directory` stands on, top-most first.

    Raises:
        StoreCorrupted: It cannot be read.
    """
    path = f"{directory}/base"
    try:
        with open(path, "rb", buffering=0) as file:
            text = file.read(_LIMIT + 1) or b""
    except (FileNotFoundError, NotADirectoryError):
        return ()
    try:
        found = strict_json.loads_object(text, limit=_LIMIT)["layers"]
        names = tuple(map(str, found)) if isinstance(found, list) else ("/",)
    except (InvalidInputError, KeyError) as error:
        raise StoreCorrupted(path, f"does not name layers ({error}); remove its directory") from None
    if not all(map(is_name, names)):
        raise StoreCorrupted(path, "does not name layers; remove its directory")
    return names


def write_base(directory: str, names: Sequence[str]) -> None:
    """Say what the layer in `directory` stands on; it survives a power loss."""
    write_atomic(f"{directory}/base", strict_json.dumps({"layers": list(names)}), durable=True)


@frozen
class RootLook:
    """What a container sees of its root directory itself, which is its upper directory."""

    mode: int = 0o755
    uid: int = 0
    gid: int = 0
    attributes: tuple[tuple[str, bytes], ...] = ()

    @classmethod
    def of(cls, path: str) -> RootLook:
        """How the directory at `path` looks."""
        info = os.lstat(path)
        names = sorted(name for name in os.listxattr(path) if not name.startswith(_OVERLAY))
        pairs = tuple((name, os.getxattr(path, name)) for name in names)
        return cls(info.st_mode & 0o7777, info.st_uid, info.st_gid, pairs)


def make_upper(path: str, look: RootLook | None = None) -> None:
    """Make an upper directory; by default one that is open to every user, as the root of a system is.

    Raises:
        FileNotFoundError: The container is gone. Its directory is not made again.
    """
    look = look or RootLook()
    with translated(path):
        reach("make directory", path)
        with contextlib.suppress(FileExistsError):
            os.mkdir(path, 0o700)
    os.chmod(path, look.mode)
    if (look.uid, look.gid) != (0, 0):
        os.chown(path, look.uid, look.gid)
    for name, value in look.attributes:
        os.setxattr(path, name, value)


@frozen
class FrozenLayers:
    """The frozen layers of a store."""

    layout: Layout

    def directory(self, name: str) -> str:
        """Where a frozen layer lies, with what is known of it."""
        return f"{self.layout.frozen_layers}/{name}"

    def uppers(self, names: Sequence[str]) -> tuple[str, ...]:
        """Directories of frozen layers for an overlay, top-most first.

        Raises:
            StoreCorrupted: One is gone.
        """
        found = []
        for name in names:
            directory = self.directory(name)
            if os.path.isdir(f"{directory}/upper"):
                found.append(f"{directory}/upper")
            elif not os.path.isdir(directory):
                # One without a layer was being made when its maker was killed: the container still has it.
                raise StoreCorrupted(directory, "a layer that containers stand on is gone; remove those")
        return tuple(found)

    def locked(self) -> contextlib.AbstractContextManager[None]:
        """Nobody sweeps, or changes what stands on what, for the length of a block."""
        return file_lock.locked(f"{self.layout.locks}/frozen-layers")

    def make(self, base: Sequence[str], write_owner: Callable[[str], None]) -> str:
        """Make the directory of a further frozen layer, to stand on others, and return its id."""
        name = os.urandom(16).hex()
        with self.locked():
            make_directory(self.layout.frozen_layers)
            directory = self.directory(name)
            make_directory(directory)
            write_owner(directory)
            write_base(directory, base)
        return name

    def move(self, container: str, name: str, base: Sequence[str]) -> None:
        """Let the layer in the directory of a container, which does not run, become a frozen one.

        The container stands on it from then on, and has an empty layer. Whoever is killed in the midst of
        this leaves the container as it was, or with no upper directory, see `restack`.
        """
        look = RootLook.of(f"{container}/upper")
        with self.locked():
            write_base(container, (name, *base))
            move(f"{container}/upper", f"{self.directory(name)}/upper")
        make_upper(f"{container}/upper", look)

    def copy(self, upper: str, name: str) -> None:
        """Copy an upper directory that is mounted, but to which nobody writes, into a frozen layer.

        Raises:
            InvalidInputError: A name begins with ``.wh.``, or something was exchanged meanwhile.
            StoreFull: There is no room.
        """
        from containerlib.layer.apply import apply_written  # noqa: PLC0415 - rarely needed
        from containerlib.layer.diff import write_diff  # noqa: PLC0415

        target = f"{self.directory(name)}/upper"
        make_upper(target, RootLook.of(upper))
        root = os.open(target, _DIRECTORY)
        try:
            apply_written(lambda sink: write_diff(upper, sink, devices="include"), root, devices="create")
        finally:
            os.close(root)

    def sweep(self, is_open: Callable[[str], bool]) -> None:
        """Remove every layer that no container stands on, and no open snapshot.

        Args:
            is_open: Whether the directory of a layer belongs to an engine that lives.

        Cost: nothing if there are none; otherwise one small file of each container.
        """
        try:
            names = os.listdir(self.layout.frozen_layers)
        except FileNotFoundError:
            return
        if not names:
            return
        # Where nothing can be written, or nobody can say what is needed, nothing is removed.
        with contextlib.suppress(ReadOnlyStore, StoreCorrupted), self.locked():
            present = os.listdir(self.layout.frozen_layers)
            needed = set(self._needed(present, is_open))
            for name in present:
                with contextlib.suppress(OSError):
                    if name.startswith(MOVED_PREFIX):
                        remove_tree(self.directory(name))
                    elif name not in needed:
                        remove_at_once(self.directory(name))

    def _needed(self, present: Sequence[str], is_open: Callable[[str], bool]) -> Iterator[str]:
        for name in present:
            directory = self.directory(name)
            if not name.startswith(MOVED_PREFIX) and is_open(directory):
                yield name
                yield from read_base(directory)
        with contextlib.suppress(FileNotFoundError):
            for name in os.listdir(self.layout.containers):
                yield from read_base(f"{self.layout.containers}/{name}")
