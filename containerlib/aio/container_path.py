"""Paths in a container, used as those of `pathlib` are."""

# made by containerlib.aio.generate; change the module of the same name in containerlib.api
from __future__ import annotations

from typing import TYPE_CHECKING

from containerlib.aio import wrap
from containerlib.aio.loop import call, each

if TYPE_CHECKING:
    import os
    from collections.abc import AsyncIterator

    from containerlib.api import container_path as sync_module
__all__ = ["ContainerPath"]


class ContainerPath:
    """A path in a container, running or not; made from `Container.fs` with ``/``.

    It is no path of the host, so `open` and `os` do not take it. Links are followed inside the container,
    whatever it makes of them meanwhile. Steps raise `PathNotFound`, which is a `FileNotFoundError`, and
    `ContainerFileError`, which is an `OSError` with its ``errno``.
    """

    sync: sync_module.ContainerPath

    def __init__(self, sync: sync_module.ContainerPath) -> None:
        """Take over a handle."""
        self.sync = sync

    def __str__(self) -> str:
        return self.sync.__str__()

    def __repr__(self) -> str:
        return f"<aio {self.sync!r}>"

    def __eq__(self, other: object) -> bool:
        return bool(self.sync == wrap.unwrap(other))

    def __hash__(self) -> int:
        return self.sync.__hash__()

    def __truediv__(self, part: str) -> ContainerPath:
        """The path `part` from here; an absolute one begins at the container's root.

        Raises:
            InvalidOption: It holds a NUL character.
        """
        return wrap.container_path(self.sync.__truediv__(part))

    @property
    def name(self) -> str:
        """The last part; empty for the root."""
        return self.sync.name

    @property
    def suffix(self) -> str:
        """The end of the name from its last dot on."""
        return self.sync.suffix

    @property
    def parent(self) -> ContainerPath:
        """The path without its last part."""
        return wrap.container_path(self.sync.parent)

    async def stat(self) -> os.stat_result:
        """What it names, links followed."""
        return await call(self.sync.stat)

    async def lstat(self) -> os.stat_result:
        """The same, or the link itself."""
        return await call(self.sync.lstat)

    async def exists(self) -> bool:
        """Whether it names something, links followed."""
        return await call(self.sync.exists)

    async def is_file(self) -> bool:
        """Whether it names a regular file, links followed."""
        return await call(self.sync.is_file)

    async def is_dir(self) -> bool:
        """Whether it names a directory, links followed."""
        return await call(self.sync.is_dir)

    async def is_symlink(self) -> bool:
        """Whether it is a link itself."""
        return await call(self.sync.is_symlink)

    def iterdir(self) -> AsyncIterator[ContainerPath]:
        """What a directory holds, in the order of names."""
        return each(self.sync.iterdir, wrap.container_path)

    async def readlink(self) -> str:
        """Where a link points, as it is."""
        return await call(self.sync.readlink)

    async def read_bytes(self) -> bytes:
        """The content of a regular file."""
        return await call(self.sync.read_bytes)

    async def read_text(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        """The content of a regular file as text."""
        return await call(lambda: self.sync.read_text(encoding, errors))

    async def write_bytes(self, data: bytes, *, append: bool = False) -> None:
        """Replace the content of a regular file, or with `append` add to it; one that is not there is made.

        A new file is root's, with mode 0644. The change is not atomic: `Container.put` replaces the file.
        """
        await call(lambda: self.sync.write_bytes(data, append=append))

    async def write_text(self, text: str, encoding: str = "utf-8", *, append: bool = False) -> None:
        """Replace the content of a regular file by text, or add to it; see `write_bytes`."""
        await call(lambda: self.sync.write_text(text, encoding, append=append))

    async def mkdir(self, mode: int = 493, *, parents: bool = False, exist_ok: bool = False) -> None:
        """Make a directory, root's.

        Args:
            mode: Its permission bits, whatever the mask of this process is.
            parents: Whether directories are made in which it is to lie, with mode 0755.
            exist_ok: Whether a directory that is there is no error.
        """
        await call(lambda: self.sync.mkdir(mode, parents=parents, exist_ok=exist_ok))

    async def symlink_to(self, target: str) -> None:
        """Make a link here that points to `target`, a path in the container."""
        await call(lambda: self.sync.symlink_to(target))

    async def unlink(self, *, missing_ok: bool = False) -> None:
        """Remove a file or link; with `missing_ok` nothing there is no error."""
        await call(lambda: self.sync.unlink(missing_ok=missing_ok))

    async def rmdir(self) -> None:
        """Remove an empty directory."""
        await call(self.sync.rmdir)

    async def rename(self, target: ContainerPath | str) -> ContainerPath:
        """Give it another name, which is taken from what has it, and return the new path."""
        return wrap.container_path(await call(lambda: self.sync.rename(wrap.unwrap(target))))

    async def chmod(self, mode: int) -> None:
        """Set the permission bits of a file or directory."""
        await call(lambda: self.sync.chmod(mode))

    async def chown(self, uid: int, gid: int) -> None:
        """Set user and group of a file or directory, by number; -1 leaves one as it is."""
        await call(lambda: self.sync.chown(uid, gid))
