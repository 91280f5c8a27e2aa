"""Paths in a container, used as those of `pathlib` are."""

from __future__ import annotations

import posixpath
import stat
from typing import TYPE_CHECKING

from containerlib.errors import ContainerFileError, InvalidOption, PathNotFound

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator

    from containerlib.container.entry import ContainerEntry

__all__ = ["ContainerPath"]


class ContainerPath:
    """A path in a container, running or not; made from `Container.fs` with ``/``.

    It is no path of the host, so `open` and `os` do not take it. Links are followed inside the container,
    whatever it makes of them meanwhile. Steps raise `PathNotFound`, which is a `FileNotFoundError`, and
    `ContainerFileError`, which is an `OSError` with its ``errno``.
    """

    def __init__(self, entry: ContainerEntry, path: str = "/") -> None:
        """Look at nothing yet."""
        self._entry = entry
        self._path = path

    def __str__(self) -> str:
        return self._path

    def __repr__(self) -> str:
        return f"<ContainerPath {self._entry.name}:{self._path}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ContainerPath) and (other._entry.id, other._path) == (
            self._entry.id,
            self._path,
        )

    def __hash__(self) -> int:
        return hash((self._entry.id, self._path))

    def __truediv__(self, part: str) -> ContainerPath:
        """The path `part` from here; an absolute one begins at the container's root.

        Raises:
            InvalidOption: It holds a NUL character.
        """
        if "\0" in part:
            raise InvalidOption("path", part, "a path holds no NUL character")
        joined = posixpath.join(self._path, part)
        # Dots stay: what ".." means behind a link is for the container's file system to say.
        names = (name for name in joined.split("/") if name not in {"", "."})
        return ContainerPath(self._entry, f"/{'/'.join(names)}")

    @property
    def name(self) -> str:
        """The last part; empty for the root."""
        return posixpath.basename(self._path)

    @property
    def suffix(self) -> str:
        """The end of the name from its last dot on."""
        return posixpath.splitext(self.name)[1]

    @property
    def parent(self) -> ContainerPath:
        """The path without its last part."""
        return ContainerPath(self._entry, posixpath.dirname(self._path))

    def stat(self) -> os.stat_result:
        """What it names, links followed."""
        from containerlib.container.file_system import look  # noqa: PLC0415 - needed by few

        return look(self._entry, self._path, follow=True)

    def lstat(self) -> os.stat_result:
        """The same, or the link itself."""
        from containerlib.container.file_system import look  # noqa: PLC0415 - needed by few

        return look(self._entry, self._path, follow=False)

    def exists(self) -> bool:
        """Whether it names something, links followed."""
        return self._mode() != 0

    def is_file(self) -> bool:
        """Whether it names a regular file, links followed."""
        return stat.S_ISREG(self._mode())

    def is_dir(self) -> bool:
        """Whether it names a directory, links followed."""
        return stat.S_ISDIR(self._mode())

    def is_symlink(self) -> bool:
        """Whether it is a link itself."""
        try:
            return stat.S_ISLNK(self.lstat().st_mode)
        except (PathNotFound, ContainerFileError):
            return False

    def _mode(self) -> int:
        try:
            return self.stat().st_mode
        except (PathNotFound, ContainerFileError):
            return 0

    def iterdir(self) -> Iterator[ContainerPath]:
        """What a directory holds, in the order of names."""
        from containerlib.container.file_system import list_directory  # noqa: PLC0415 - needed by few

        return iter([self / f"./{name}" for name in list_directory(self._entry, self._path)])

    def readlink(self) -> str:
        """Where a link points, as it is."""
        from containerlib.container.file_system import read_link  # noqa: PLC0415 - needed by few

        return read_link(self._entry, self._path)

    def read_bytes(self) -> bytes:
        """The content of a regular file."""
        from containerlib.container.file_system import read_bytes  # noqa: PLC0415 - needed by few

        return read_bytes(self._entry, self._path)

    def read_text(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        """The content of a regular file as text."""
        return self.read_bytes().decode(encoding, errors)

    def write_bytes(self, data: bytes, *, append: bool = False) -> None:
        """Replace the content of a regular file, or with `append` add to it; one that is not there is made.

        A new file is root's, with mode 0644. The change is not atomic: `Container.put` replaces the file.
        """
        from containerlib.container.file_system import write_bytes  # noqa: PLC0415 - needed by few

        write_bytes(self._entry, self._path, data, append=append)

    def write_text(self, text: str, encoding: str = "utf-8", *, append: bool = False) -> None:
        """Replace the content of a regular file by text, or add to it; see `write_bytes`."""
        self.write_bytes(text.encode(encoding), append=append)

    def mkdir(self, mode: int = 0o755, *, parents: bool = False, exist_ok: bool = False) -> None:
        """Make a directory, root's.

        Args:
            mode: Its permission bits, whatever the mask of this process is.
            parents: Whether directories are made in which it is to lie, with mode 0755.
            exist_ok: Whether a directory that is there is no error.
        """
        from containerlib.container.file_system import make_directory  # noqa: PLC0415 - needed by few

        make_directory(self._entry, self._path, mode=mode, parents=parents, exist_ok=exist_ok)

    def symlink_to(self, target: str) -> None:
        """Make a link here that points to `target`, a path in the container."""
        from containerlib.container.file_system import make_link  # noqa: PLC0415 - needed by few

        make_link(self._entry, self._path, str(target))

    def unlink(self, *, missing_ok: bool = False) -> None:
        """Remove a file or link; with `missing_ok` nothing there is no error."""
        from containerlib.container.file_system import remove_file  # noqa: PLC0415 - needed by few

        try:
            remove_file(self._entry, self._path)
        except PathNotFound:
            if not missing_ok:
                raise

    def rmdir(self) -> None:
        """Remove an empty directory."""
        from containerlib.container.file_system import remove_directory  # noqa: PLC0415 - needed by few

        remove_directory(self._entry, self._path)

    def rename(self, target: ContainerPath | str) -> ContainerPath:
        """Give it another name, which is taken from what has it, and return the new path."""
        from containerlib.container.file_system import rename  # noqa: PLC0415 - needed by few

        new = self.parent / str(target)
        rename(self._entry, self._path, str(new))
        return new

    def chmod(self, mode: int) -> None:
        """Set the permission bits of a file or directory."""
        from containerlib.container.file_system import change_mode  # noqa: PLC0415 - needed by few

        change_mode(self._entry, self._path, mode)

    def chown(self, uid: int, gid: int) -> None:
        """Set user and group of a file or directory, by number; -1 leaves one as it is."""
        from containerlib.container.file_system import change_owner  # noqa: PLC0415 - needed by few

        change_owner(self._entry, self._path, uid, gid)
