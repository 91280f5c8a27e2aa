"""The pipes of a container that was started with some."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from containerlib.aio.streams import PipeReader, PipeWriter

if TYPE_CHECKING:
    from typing import BinaryIO

    from containerlib.api.container import Container as SyncContainer

__all__ = ["ContainerPipes"]


class ContainerPipes:
    """The caller's ends of the streams of a container; a part of `Container`."""

    sync: SyncContainer
    _pipes: dict[str, tuple[BinaryIO, Any]]

    def _pipe(self, name: str, make: type[PipeReader | PipeWriter]) -> Any:
        """The pipe of this name; another start of the container has another."""
        stream: BinaryIO | None = getattr(self.sync, name)
        if stream is None:
            return None
        pipes = self.__dict__.setdefault("_pipes", {})
        known = pipes.get(name)
        if known is None or known[0] is not stream:
            known = pipes[name] = (stream, make(stream))
        return known[1]

    @property
    def stdin(self) -> PipeWriter | None:
        """Where to write its standard input, if it was started with ``stdin=PIPE``."""
        pipe: PipeWriter | None = self._pipe("stdin", PipeWriter)
        return pipe

    @property
    def stdout(self) -> PipeReader | None:
        """Its standard output, if it was started with ``stdout=PIPE``."""
        pipe: PipeReader | None = self._pipe("stdout", PipeReader)
        return pipe

    @property
    def stderr(self) -> PipeReader | None:
        """Its standard error, if it was started with ``stderr=PIPE``."""
        pipe: PipeReader | None = self._pipe("stderr", PipeReader)
        return pipe
