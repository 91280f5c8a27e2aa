"""Sending the bytes of a blob: the whole or the part that is asked for, from an open file.

An answer that has begun is finished or cut off: an error document behind half a blob would be taken for more
of the blob.

Source: RFC 9110, section 14.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from typing import TYPE_CHECKING

from aiohttp import web

from containerlib.registry.server.refused import Refused

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO

    from containerlib.oci.digest import Digest

__all__ = ["blob_headers", "finished_or_cut_off", "send_file"]

_LOG = logging.getLogger(__name__)
_OK, _PARTIAL, _UNSATISFIABLE = 200, 206, 416
_CHUNK_BYTES = 1 << 18


def blob_headers(digest: Digest) -> dict[str, str]:
    """Return the headers that go with the content of a blob."""
    return {
        "Content-Type": "application/octet-stream",
        "Docker-Content-Digest": str(digest),
        "ETag": f'"{digest}"',
        "Accept-Ranges": "bytes",
        "X-Content-Type-Options": "nosniff",
    }


async def send_file(request: web.Request, file: BinaryIO, digest: Digest) -> web.StreamResponse:
    """Send the content of `file`, or the part of it that is asked for.

    Raises:
        Refused: It has no such part.
    """
    size = os.fstat(file.fileno()).st_size
    start, stop = _part(request, size)
    headers = {**blob_headers(digest), "Content-Length": str(stop - start)}
    if "Range" in request.headers:
        headers["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
    response = web.StreamResponse(status=_PARTIAL if "Range" in request.headers else _OK, headers=headers)
    with finished_or_cut_off(request, response):
        await response.prepare(request)
        if request.method != "HEAD" and start < stop:
            await _send(request, response, file, start, stop - start)
        await response.write_eof()
    return response


@contextlib.contextmanager
def finished_or_cut_off(request: web.Request, response: web.StreamResponse) -> Iterator[None]:
    """Cut the connection if the block fails after it has begun to answer; that is the end of the failure."""
    try:
        yield
    except BaseException as error:
        if not response.prepared:
            raise
        if request.transport is not None:
            request.transport.abort()
        if not isinstance(error, Exception):
            raise
        if not isinstance(error, ConnectionError):  # that is only a client who has left
            _LOG.warning("%s %s was cut off: %s", request.method, request.rel_url.raw_path, error)


def _part(request: web.Request, size: int) -> tuple[int, int]:
    """Return which bytes are asked for: the first, and the one behind the last."""
    if "Range" not in request.headers:
        return 0, size
    unsatisfiable = Refused(
        "SIZE_INVALID",
        f"the blob has {size} bytes",
        status=_UNSATISFIABLE,
        headers={"Content-Range": f"bytes */{size}"},
    )
    try:
        start, stop, _ = request.http_range.indices(size)
    except ValueError:
        raise unsatisfiable from None
    if start >= stop:
        raise unsatisfiable
    return start, stop


async def _send(
    request: web.Request, response: web.StreamResponse, file: BinaryIO, start: int, count: int
) -> None:
    loop, transport = asyncio.get_running_loop(), request.transport
    if transport is None or transport.is_closing():
        raise ConnectionResetError("the client is gone")
    if transport.get_extra_info("sslcontext") is None:
        sent = await loop.sendfile(transport, file, start, count)
        if sent < count:
            raise EOFError(f"the file ends after {start + sent} bytes")
        return
    # The loop's own replacement for sendfile does not notice that the client is gone.
    end = start + count
    while start < end:
        data = await loop.run_in_executor(
            None, os.pread, file.fileno(), min(_CHUNK_BYTES, end - start), start
        )
        if not data:
            raise EOFError(f"the file ends after {start} bytes")
        await response.write(data)
        start += len(data)
