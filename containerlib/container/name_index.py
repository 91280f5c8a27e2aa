"""Which detached container has a name: one symbolic link each, from the name to the id.

So neither making nor finding a container takes longer the more there are. What a link says counts only if
the container's record agrees: whoever made it may have been killed in between, and a container that removes
itself leaves its link.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from attrs import frozen

from containerlib._util.atomic_file import make_directory
from containerlib._util.disk_error import translated
from containerlib._util.failpoint import reach
from containerlib.container.detached import read_record, record_path
from containerlib.errors import NameInUse, StoreCorrupted
from containerlib.runtime.config import is_name

if TYPE_CHECKING:
    from containerlib.store.layout import Layout

__all__ = ["NameIndex"]


@frozen
class NameIndex:
    """The names of the detached containers of a store. Who changes it holds `Session.naming`."""

    layout: Layout

    def holder(self, name: str) -> str | None:
        """Id of the container that has this name; None if there is none.

        Cost: two small files.
        """
        container_id = self._said(name)
        if container_id is None:
            return None
        record = read_record(self.layout, container_id)
        return container_id if record is not None and record.name == name else None

    def claim(self, name: str, container_id: str) -> None:
        """Give a name to a container whose record will say so.

        Raises:
            NameInUse: Another one has it.
        """
        if self.holder(name) not in {None, container_id}:
            raise NameInUse(f"container name {name!r} is in use; remove that container or choose another")
        path = self._path(name)
        with translated(self.layout.root):
            reach("link", path)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            try:
                os.symlink(container_id, path)
            except FileNotFoundError:
                make_directory(self.layout.container_names)
                os.symlink(container_id, path)

    def release(self, name: str, container_id: str) -> None:
        """Take the name from a container; another one that has it keeps it."""
        if self._said(name) == container_id:
            with contextlib.suppress(OSError):
                reach("unlink", self._path(name))
                os.unlink(self._path(name))

    def sweep(self, *, thoroughly: bool = False) -> None:
        """Remove links to containers that are gone; thoroughly also those to containers of another name.

        Who does it thoroughly holds `Session.naming`: for a moment of `rename` two links are right.
        """
        with contextlib.suppress(FileNotFoundError):
            for name in os.listdir(self.layout.container_names):
                container_id = self._said(name)
                if container_id is None:
                    continue
                is_there = os.path.exists(record_path(self.layout, container_id))
                if is_there and thoroughly:
                    with contextlib.suppress(StoreCorrupted):
                        is_there = self.holder(name) is not None
                if not is_there:
                    self.release(name, container_id)

    def _path(self, name: str) -> str:
        return f"{self.layout.container_names}/{name}"

    def _said(self, name: str) -> str | None:
        """What the link says, if it can be an id."""
        try:
            said = os.readlink(self._path(name))
        except (OSError, ValueError):
            return None
        return said if is_name(said) else None
