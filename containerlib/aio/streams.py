"""Pipes of containers, read and written in an event loop."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, BinaryIO, Self

from containerlib.aio.loop import ready

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

__all__ = ["PipeReader", "PipeWriter"]

_CHUNK_BYTES = 1 << 16


class PipeReader:
    """An output of a container. For one task at a time; as an asynchronous iterator it yields lines."""

    def __init__(self, stream: BinaryIO) -> None:
        """Take over a stream."""
        self._stream = stream
        self._rest = bytearray()
        self._is_over = False
        os.set_blocking(stream.fileno(), False)

    async def read(self, size: int = -1) -> bytes:
        """Read up to `size` bytes as soon as there are some; everything up to the end if it is negative.

        Empty at the end.
        """
        if size == 0:
            return b""
        while not self._is_over and (size < 0 or not self._rest):
            await self._fill()
        taken = bytes(self._rest if size < 0 else self._rest[:size])
        del self._rest[: len(taken)]
        return taken

    async def readline(self) -> bytes:
        """Read up to a newline, which is part of it, or to the end. Empty at the end."""
        start = 0
        while (end := self._rest.find(b"\n", start)) < 0 and not self._is_over:
            start = len(self._rest)
            await self._fill()
        size = len(self._rest) if end < 0 else end + 1
        line = bytes(self._rest[:size])
        del self._rest[:size]
        return line

    async def _fill(self) -> None:
        try:
            data = os.read(self._stream.fileno(), _CHUNK_BYTES)
        except BlockingIOError:
            await ready([self._stream.fileno()])
            return
        self._rest += data
        self._is_over = not data

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        line = await self.readline()
        if not line:
            raise StopAsyncIteration
        return line

    def close(self) -> None:
        """Close it; safe to call again."""
        self._stream.close()


class PipeWriter:
    """The input of a container. For one task at a time; as a context manager it is closed at the end."""

    def __init__(self, stream: BinaryIO) -> None:
        """Take over a stream."""
        self._stream = stream
        os.set_blocking(stream.fileno(), False)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    async def write(self, data: bytes) -> None:
        """Write all of it, waiting for the reader. A task that is cancelled has written a part.

        Raises:
            BrokenPipeError: Nobody reads it any more.
        """
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[os.write(self._stream.fileno(), rest[:_CHUNK_BYTES]) :]
            except BlockingIOError:
                await ready([], writable=self._stream.fileno())

    def close(self) -> None:
        """Close it, which is the end of the container's input; safe to call again."""
        self._stream.close()
