"""Snapshots of containers as the caller sees them."""

# made by containerlib.aio.generate; change the module of the same name in containerlib.api
from __future__ import annotations

from typing import TYPE_CHECKING

from containerlib.aio import wrap
from containerlib.aio.loop import call

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType
    from typing import Self, Unpack

    from containerlib.aio.container import Container
    from containerlib.api import snapshot as sync_module
    from containerlib.api.options import RunOptions
    from containerlib.container.streams import Input, Output
__all__ = ["Snapshot"]


class Snapshot:
    """What a container had written at one moment, for others to begin with; see `Container.snapshot`.

    It is there until it is removed or its engine ends. Containers of it stay as long as any others. As a
    context manager it removes itself.
    """

    sync: sync_module.Snapshot

    def __init__(self, sync: sync_module.Snapshot) -> None:
        """Take over a handle."""
        self.sync = sync

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await call(lambda: self.sync.__exit__(kind, error, trace))

    def __repr__(self) -> str:
        return f"<aio {self.sync!r}>"

    @property
    def id(self) -> str:
        """32 hexadecimal digits."""
        return self.sync.id

    @property
    def container_name(self) -> str:
        """What the container was called that it was made of."""
        return self.sync.container_name

    async def fork(self, *, name: str | None = None) -> Container:
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
        return wrap.container(
            await call(lambda: self.sync.fork(name=name), undo=lambda made: made.remove(force=True))
        )

    async def create(self, command: Sequence[str] | None = None, **options: Unpack[RunOptions]) -> Container:
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
        return wrap.container(
            await call(
                lambda: self.sync.create(command, **options), undo=lambda made: made.remove(force=True)
            )
        )

    async def run(
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
        return wrap.container(
            await call(
                lambda: self.sync.run(command, stdin=stdin, stdout=stdout, stderr=stderr, **options),
                undo=lambda made: made.remove(force=True),
            )
        )

    async def remove(self) -> None:
        """Give it up. Containers that were made of it keep what it holds; again does nothing."""
        await call(self.sync.remove)
