"""The files of a container, seen from outside."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, BinaryIO

from containerlib.api.container_handle import ContainerHandle

if TYPE_CHECKING:
    from collections.abc import Sequence

    from containerlib.api.image import Image
    from containerlib.image.export import Exported
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

    def export(self, out: str | os.PathLike[str] | BinaryIO) -> Exported:
        """Write the files that it finds below its root, but for what is mounted there, as one tar archive.

        A container that runs may change them meanwhile; pause it first for files that belong together. Times
        later than ``SOURCE_DATE_EPOCH``, if that is set, become it.

        Args:
            out: Path of the archive, which appears or is replaced when it is complete; or a binary stream,
                which is not closed.

        Returns:
            Digest and size of the archive.

        Raises:
            InvalidState: It was removed, or its layer is in memory; ``layer="disk"`` keeps one.
            InvalidInputError: The path is a directory, or lies in none; or a file was exchanged while read.
            ImageNotFound: The image was removed meanwhile.
        """
        from containerlib.api.source_date import source_date_epoch  # noqa: PLC0415 - rarely needed
        from containerlib.container.commit import export  # noqa: PLC0415

        opened = os.fspath(out) if isinstance(out, (str, os.PathLike)) else out
        return export(self._entry, opened, latest_mtime=source_date_epoch())

    def commit(
        self,
        reference: str | None = None,
        *,
        changes: Sequence[str] = (),
        author: str = "",
        message: str = "",
        pause: bool = True,
    ) -> Image:
        """Make an image of its image and of what it has changed; what is mounted is no part of it.

        Environment, working directory, user and labels are the container's, command and entrypoint the
        image's. Another container with the same changes gives another image, because images have a time;
        set ``SOURCE_DATE_EPOCH`` for the same one.

        Args:
            reference: Name for the image; None leaves it without a name.
            changes: Instructions of a Dockerfile that change the image, such as ``CMD ["sh"]``.
            author: Who has made it.
            message: What it is.
            pause: Whether a container that runs is paused for that time.

        Raises:
            InvalidState: It was removed, or its layer is in memory; ``layer="disk"`` keeps one.
            InvalidOption: A change is no instruction.
            InvalidReference: The name is none.
            InvalidInputError: A file was exchanged while it was read.
            ImageNotFound: Its image was removed meanwhile.
            UnsupportedHost: Its root was copied, for lack of overlays.

        Cost: reads and writes each file that it has changed, twice.
        """
        from containerlib.api.image import Image  # noqa: PLC0415 - it imports this module
        from containerlib.api.source_date import created_text, source_date_epoch  # noqa: PLC0415 - rarely needed
        from containerlib.container.commit import commit  # noqa: PLC0415

        epoch = source_date_epoch()
        record = commit(
            self._entry,
            reference=reference,
            changes=changes,
            author=author,
            message=message,
            pauses=pause,
            created=created_text(int(time.time()) if epoch is None else epoch),
            latest_mtime=epoch,
        )
        return Image(self._entry.session, self._remote, record)
