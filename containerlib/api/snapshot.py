"""Snapshots of containers as the caller sees them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Unpack

from containerlib.runtime import config

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType
    from typing import Self

    from containerlib.api.container import Container
    from containerlib.api.options import RunOptions
    from containerlib.api.remote import Remote
    from containerlib.container.snapshot import SnapshotEntry
    from containerlib.container.streams import Input, Output

__all__ = ["Snapshot"]


class Snapshot:
    """What a container had written at one moment, for others to begin with; see `Container.snapshot`.

    It is there until it is removed or its engine ends. Containers of it stay as long as any others. As a
    context manager it removes itself.
    """

    def __init__(self, entry: SnapshotEntry, remote: Remote) -> None:
        """Take an entry, and how the images that are made of its containers reach registries."""
        self._entry = entry
        self._remote = remote

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove()

    def __repr__(self) -> str:
        return f"<Snapshot {self.id[:12]} of {self.container_name}>"

    @property
    def id(self) -> str:
        """32 hexadecimal digits."""
        return self._entry.id

    @property
    def container_name(self) -> str:
        """What the container was called that it was made of."""
        return self._entry.container_name

    def fork(self, *, name: str | None = None) -> Container:
        """Make a container as the first one was, with what that had written, without starting it.

        Command, environment, mounts, limits and all other options are the first one's. What is mounted is
        shared with it, not copied.

        Args:
            name: Its name; one is made up if left out.

        Raises:
            InvalidState: This snapshot was removed.
            InvalidOption: The name cannot be one.
            NameInUse: Another container has the name.
            ImageNotFound: The image was removed meanwhile.
        """
        from containerlib.api.container import Container  # noqa: PLC0415 - it imports this module

        return Container(self._entry.fork(name), self._remote)

    def create(self, command: Sequence[str] | None = None, **options: Unpack[RunOptions]) -> Container:
        """Make a container of the same image with what the snapshot holds, without starting it.

        Nothing but the files comes from the first container.

        Args:
            command: Replaces the image's command.
            options: See `RunOptions`.

        Raises:
            InvalidState: This snapshot was removed.
            InvalidOption: A value that no host could honour, or ``layer="memory"``; nothing was made.
            NameInUse: Another container has the name.
            ImageNotFound: The image was removed meanwhile.
        """
        return self._create(command, options, starts_now=False)

    def _create(self, command: Sequence[str] | None, options: RunOptions, *, starts_now: bool) -> Container:
        from containerlib.api.container import Container  # noqa: PLC0415 - it imports this module

        merged = config.merge(self._entry.image.config.config, command=command, **options)
        return Container(self._entry.create(merged, starts_now=starts_now), self._remote)

    def run(
        self,
        command: Sequence[str] | None = None,
        *,
        stdin: Input = None,
        stdout: Output = None,
        stderr: Output = None,
        **options: Unpack[RunOptions],
    ) -> Container:
        """Make a container as `create` does and start it. If it cannot be started, nothing of it is left.

        Args:
            command: Replaces the image's command.
            stdin: See `Container.start`.
            stdout: See `Container.start`.
            stderr: See `Container.start`.
            options: See `RunOptions`.
        """
        container = self._create(command, options, starts_now=True)
        try:
            container.start(stdin=stdin, stdout=stdout, stderr=stderr)
        except BaseException:
            container.remove(force=True)
            raise
        return container

    def remove(self) -> None:
        """Give it up. Containers that were made of it keep what it holds; again does nothing."""
        self._entry.remove()
