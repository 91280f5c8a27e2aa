"""A blob on its way from the registry behind a cache to those who asked for it.

It is fetched once. Everybody who wants it reads along, all but its last byte, which is only given out when
the whole is verified: whoever gets all of it has the right bytes.
"""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

from aiohttp import web

from containerlib.registry.server.sending import finished_or_cut_off

if TYPE_CHECKING:
    from containerlib.oci.digest import Digest
    from containerlib.registry.server.storage import Incoming

__all__ = ["Flight"]

_CHUNK_BYTES = 1 << 20


class Flight:
    """One blob that is coming. Everything but `write` runs in the thread of the event loop.

    Attributes:
        repository: For which it is fetched.
        digest: Its digest.
        total: Its size in bytes, as it was announced.
    """

    def __init__(self, repository: str, digest: Digest, total: int, incoming: Incoming) -> None:
        self.repository = repository
        self.digest = digest
        self.total = total
        self._loop = asyncio.get_running_loop()
        self._incoming = incoming
        self._file = incoming.open()
        self._readers = 0
        self._available = 0
        self._ended: asyncio.Future[None] = self._loop.create_future()
        self._moved = asyncio.Event()
        self._is_stopped = False

    @property
    def size(self) -> int:
        """How many bytes have come; for the client, which resumes there."""
        return self._incoming.size

    @property
    def has_ended(self) -> bool:
        """Whether it has arrived, or never will; then there is nothing to read along."""
        return self._ended.done()

    def write(self, data: bytes, /) -> int:
        """Take bytes that came; called in the thread of the download."""
        if self._is_stopped:
            raise ConnectionAbortedError("the registry is being stopped")
        written = self._incoming.write(data)
        self._loop.call_soon_threadsafe(self._advance, self._incoming.size)
        return written

    def stop(self) -> None:
        """Let nobody wait any longer, and have the download end with the bytes that come next."""
        self._is_stopped = True
        self.end(ConnectionAbortedError("the registry is being stopped"))

    def end(self, error: BaseException | None) -> None:
        """Note that the blob is published, or why it is not."""
        if not self._ended.done():
            if error is None:
                self._ended.set_result(None)
            else:
                self._ended.set_exception(error)
                self._ended.exception()  # nobody has to wait for it
        self._moved.set()
        self._close_if_unused()

    async def wait(self) -> None:
        """Wait until the blob is published; raises why it is not."""
        await asyncio.shield(self._ended)

    async def send(self, request: web.Request, headers: dict[str, str]) -> web.StreamResponse:
        """Send the blob while it comes; an error before its first byte is raised, later the line is cut.

        It must not have ended yet.
        """
        self._readers += 1
        response = web.StreamResponse(headers={**headers, "Content-Length": str(self.total)})
        try:
            with finished_or_cut_off(request, response):
                await self._copy(request, response)
                await response.prepare(request)
                await response.write_eof()
        finally:
            self._readers -= 1
            self._close_if_unused()
        return response

    async def _copy(self, request: web.Request, response: web.StreamResponse) -> None:
        sent = 0
        while sent < self.total:
            limit = await self._readable(sent)
            if not response.prepared:
                await response.prepare(request)
            data = await self._loop.run_in_executor(
                None, os.pread, self._file.fileno(), min(limit - sent, _CHUNK_BYTES), sent
            )
            await response.write(data)
            sent += len(data)

    async def _readable(self, sent: int) -> int:
        """Wait for bytes beyond `sent`, and return up to where they may be given out."""
        while True:
            self._moved.clear()
            if self._ended.done():
                self._ended.result()
                return self.total
            limit = min(self._available, self.total - 1)
            if limit > sent:
                return limit
            await self._moved.wait()

    def _advance(self, size: int) -> None:
        self._available = size
        self._moved.set()

    def _close_if_unused(self) -> None:
        if self._ended.done() and not self._readers:
            self._file.close()
