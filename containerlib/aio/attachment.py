"""The streams of a container that was started before, in an event loop."""

from __future__ import annotations

from typing import TYPE_CHECKING

from containerlib.aio.streams import PipeReader, PipeWriter

if TYPE_CHECKING:
    from typing import Self

    from containerlib.api.attachment import Attachment as SyncAttachment

__all__ = ["Attachment"]


class Attachment:
    """The streams of a detached container, from the moment of `Container.attach` on.

    Both outputs end when the container does. As a context manager it closes the streams; the container goes
    on.

    Attributes:
        sync: The same without an event loop; its streams must not be used beside these.
        stdin: To write to; None if the container reads nothing.
        stdout: Its standard output; with a terminal, all there is.
        stderr: Its standard error; empty with a terminal.
        is_terminal: Whether it has a terminal.
        earlier: With ``logs=True``, what it has written since its start and before the attachment.
    """

    def __init__(self, sync: SyncAttachment) -> None:
        """Take over the streams."""
        self.sync = sync
        self.stdin = None if sync.stdin is None else PipeWriter(sync.stdin)
        self.stdout = PipeReader(sync.stdout)
        self.stderr = PipeReader(sync.stderr)
        self.is_terminal = sync.is_terminal
        self.earlier = sync.earlier

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    def resize(self, columns: int, rows: int) -> None:
        """Set the size of its terminal.

        Raises:
            InvalidState: It has none.
        """
        self.sync.resize(columns, rows)

    def close(self) -> None:
        """Let go of the streams. Again: nothing happens."""
        self.sync.close()
