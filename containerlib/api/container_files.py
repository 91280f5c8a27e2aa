"""The files of a container, seen from outside."""

from __future__ import annotations

from typing import TYPE_CHECKING

from containerlib.api.container_handle import ContainerHandle

if TYPE_CHECKING:
    from containerlib.layer.compare import Change

__all__ = ["ContainerFiles"]


class ContainerFiles(ContainerHandle):
    """What can be done with the files of a container; a part of `Container`."""

    def changes(self) -> list[Change]:
        """What it has changed of its image's files, by path; sockets and what is mounted are left out.

        A path is modified if its type, mode, owner, extended attributes, link target, device number or
        content differ; a time alone is no change. Everything below a directory that is added or deleted is
        listed, too.

        Raises:
            InvalidState: It was removed, or its layer is in memory; ``layer="disk"`` keeps one.
            InvalidInputError: A file was exchanged while it was read; pause the container first.
            ImageNotFound: The image was removed meanwhile.

        Cost: a system call or two for each name in its layer; files of one size are read.
        """
        from containerlib.container.changes import container_changes  # noqa: PLC0415 - rarely needed

        return container_changes(self._entry)
