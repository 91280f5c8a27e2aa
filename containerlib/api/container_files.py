"""The files of a container, seen from outside."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, BinaryIO

from containerlib.api.container_handle import ContainerHandle

if TYPE_CHECKING:
    from collections.abc import Sequence

    from containerlib.api.container import Container
    from containerlib.api.container_path import ContainerPath
    from containerlib.api.image import Image
    from containerlib.api.snapshot import Snapshot
    from containerlib.image.export import Exported
    from containerlib.layer.compare import Change

__all__ = ["ContainerFiles"]


class ContainerFiles(ContainerHandle):
    """What can be done with the files of a container; a part of `Container`."""

    @property
    def fs(self) -> ContainerPath:
        """Its root directory, for single files: ``(container.fs / "etc/passwd").read_text()``."""
        from containerlib.api.container_path import ContainerPath  # noqa: PLC0415 - needed by few

        return ContainerPath(self._entry)

    def put(
        self,
        source: str | os.PathLike[str] | bytes,
        path: str,
        *,
        owner: tuple[int, int] = (0, 0),
        mode: int = 0o644,
        archive: bool = False,
        follow_links: bool = False,
    ) -> None:
        """Copy a file or directory of the host into it, or write a file, by the rules of ``docker cp``.

        Into a directory that exists it goes under its own name, ``/.`` at the end of `source` means what the
        directory holds; otherwise `path` is what it becomes. The directory that it goes to must exist. Files
        that are there are replaced; a directory and something else never take each other's place. Sockets
        and devices are left out. After a failure part of it may have been copied.

        Args:
            source: Path on the host; or the content of one file, which is then called `path`.
            path: Absolute path in the container.
            owner: User and group of everything that is copied.
            mode: Permission bits, if `source` is content.
            archive: Whether owners and extended attributes are as on the host instead.
            follow_links: Whether a link that `source` names is followed.

        Raises:
            InvalidInputError: There is no source, or it became shorter meanwhile.
            InvalidOption: `path` is not absolute.
            InvalidState: It was removed, is just being started again, or does not run and has its layer in
                memory.
            PathNotFound: The directory to copy to does not exist.
            ContainerFileError: The place is read-only, is mounted only while it runs, or is none.
            UnsafePath: A directory would take the place of something else, or the other way round.

        Cost: a process that unpacks, some 2 ms; a mount of the container's layers if it does not run.
        """
        from containerlib.container import copy  # noqa: PLC0415 - needed by few

        if isinstance(source, bytes):
            copy.put_bytes(self._entry, source, path, owner=owner, mode=mode)
            return
        copy.put(
            self._entry, os.fspath(source), path, owner=owner, archive=archive, follow_links=follow_links
        )

    def put_archive(self, source: BinaryIO, path: str) -> None:
        """Unpack a tar archive into a directory of it; owners are those that the archive names.

        Args:
            source: A stream of an uncompressed archive; it is read to its end.
            path: Absolute path of a directory in the container.

        Raises:
            UnsupportedLayer: It is no archive that can be read.
            UnsafePath: A member leads out of the directory, is a device, or would take the place of a
                directory or the other way round.
            InvalidOption, InvalidState, PathNotFound, ContainerFileError: See `put`.
        """
        from containerlib.container import copy  # noqa: PLC0415 - needed by few

        copy.put_archive(self._entry, source, path)

    def get(
        self,
        path: str,
        target: str | os.PathLike[str],
        *,
        archive: bool = False,
        follow_links: bool = False,
    ) -> None:
        """Copy a file or directory of it to the host, by the rules of ``docker cp``; see `put`.

        What is copied belongs to the caller, and has no set-id bits. What disappears meanwhile is left out,
        and so is what the kernel shows in /proc, /sys and /dev.

        Args:
            path: Absolute path in the container.
            target: Path on the host: a directory that exists, or what it becomes.
            archive: Whether owners, set-id bits and extended attributes are as in the container instead.
            follow_links: Whether a link that `path` names is followed, inside the container.

        Raises:
            InvalidInputError: The target lies in no directory, or a file became shorter meanwhile.
            PathNotFound: There is nothing of that path.
            UnsafePath: On the host a directory would take the place of something else, or vice versa.
            InvalidOption, InvalidState, ContainerFileError: See `put`.
        """
        from containerlib.container import copy  # noqa: PLC0415 - needed by few

        copy.get(self._entry, path, os.fspath(target), archive=archive, follow_links=follow_links)

    def get_archive(
        self, path: str, out: str | os.PathLike[str] | BinaryIO, *, follow_links: bool = False
    ) -> Exported:
        """Write a file or directory of it as a tar archive, with the owners that it has; see `get`.

        Args:
            path: Absolute path in the container. Members begin with its last part; with ``/.`` at its end
                they are what the directory holds.
            out: Path of the archive, which appears when it is complete; or a binary stream, which is not
                closed.
            follow_links: Whether a link that `path` names is followed.

        Returns:
            Digest and size of the archive.
        """
        from containerlib.container import copy  # noqa: PLC0415 - needed by few

        opened = os.fspath(out) if isinstance(out, (str, os.PathLike)) else out
        return copy.get_archive(self._entry, path, opened, follow_links=follow_links)

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

    def snapshot(self) -> Snapshot:
        """Keep what it has written by now, as the start of other containers. It must not run, or be paused.

        The snapshot is there until it is removed or this engine ends; an image for longer is made by
        `commit`. What is mounted is no part of it.

        Raises:
            InvalidState: It runs, was removed, or its layer is in memory; ``layer="disk"`` keeps one.
            ImageNotFound: Its image was removed meanwhile.
            InvalidInputError: It is paused, and has a file whose name begins with ``.wh.``.
            StoreFull: It is paused, and there is no room for a copy.
            UnsupportedHost: Its root was copied, for lack of overlays; or it stands on some 500 layers
                already.

        Cost: if it does not run, a rename, whatever it has written; if it is paused, a copy of that.
        """
        from containerlib.api.snapshot import Snapshot  # noqa: PLC0415 - rarely needed
        from containerlib.container.snapshot import snapshot  # noqa: PLC0415

        return Snapshot(snapshot(self._entry), self._remote)

    def fork(self, *, name: str | None = None) -> Container:
        """Make a container like this one, with what it has written by now, without starting it.

        Both go on by themselves: what one writes the other does not see. What is mounted is shared. See
        `snapshot`, which this makes and removes, and `Snapshot.fork`.

        Args:
            name: Its name; one is made up if left out.

        Raises:
            InvalidState, ImageNotFound, InvalidInputError, StoreFull, UnsupportedHost: See `snapshot`.
            InvalidOption: The name cannot be one.
            NameInUse: Another container has the name.
        """
        from containerlib.api.container import Container  # noqa: PLC0415 - it imports this module
        from containerlib.container.snapshot import fork  # noqa: PLC0415 - rarely needed

        return Container(fork(self._entry, name), self._remote)
