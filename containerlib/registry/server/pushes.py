"""Uploads over HTTP: beginning, adding to, asking after, closing and cancelling them, and mounting.

Source: OCI distribution-spec 1.1, "Pushing blobs".
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from typing import TYPE_CHECKING

from aiohttp import web

from containerlib.errors import InvalidDigest
from containerlib.oci.digest import Digest
from containerlib.oci.reference import is_repository
from containerlib.registry.server.refused import Refused
from containerlib.registry.server.route import as_digest
from containerlib.registry.server.service import body_length, receive

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from containerlib.registry.server.service import Call, Service
    from containerlib.registry.server.storage import Incoming
    from containerlib.registry.server.uploads import Upload

__all__ = ["begin_upload", "cancel_upload", "finish_upload", "patch_upload", "upload_status"]

_RANGE = re.compile(r"([0-9]{1,18})-([0-9]{1,18})")
_COPY_BYTES = 1 << 20
_EMPTY = {algorithm: Digest.of(b"", algorithm) for algorithm in ("sha256", "sha512")}


async def begin_upload(service: Service, call: Call) -> web.Response:
    """Answer ``POST``: mount a blob, take a whole one, or open an upload."""
    mounted = await _mount(service, call)
    if mounted is not None:
        return mounted
    text = call.parameter("digest")
    digest = None if text is None else as_digest(text)
    algorithm = call.parameter("digest-algorithm") or (digest.algorithm if digest is not None else "sha256")
    if algorithm not in _EMPTY:
        raise Refused(
            "DIGEST_INVALID", f"algorithm {algorithm[:40]!r} is not supported: use sha256 or sha512"
        )
    limits = service.uploads.limits

    async def make() -> Incoming:
        return await service.run(service.storage.begin, algorithm, limits.blob_bytes)

    upload = await service.uploads.begin(call.repository, make)
    # Who names a digest and sends nothing wants to be told where to send it.
    if digest is not None and (body_length(call.request) != 0 or digest == _EMPTY[digest.algorithm]):
        async with _used(service, upload, keep=False):
            await receive(service, call.request, upload.incoming)
            return await _close(service, call, upload, digest)
    headers = _place(upload)
    if limits.min_chunk_bytes:
        headers["OCI-Chunk-Min-Length"] = str(limits.min_chunk_bytes)
    return web.Response(status=202, headers=headers)


async def patch_upload(service: Service, call: Call) -> web.Response:
    """Answer ``PATCH``: add a chunk, or a stream of any length."""
    upload = service.uploads.get(call.repository, call.route.reference)
    async with _used(service, upload, keep=True):
        await _add(service, call, upload)
    return web.Response(status=202, headers=_place(upload))


async def finish_upload(service: Service, call: Call) -> web.Response:
    """Answer ``PUT``: add what is left, verify the whole, and publish it."""
    upload = service.uploads.get(call.repository, call.route.reference)
    digest = as_digest(call.parameter("digest") or "")
    async with _used(service, upload, keep=True):
        await _add(service, call, upload)
        return await _close(service, call, upload, digest)


async def upload_status(service: Service, call: Call) -> web.Response:
    """Answer ``GET``: how much has come."""
    upload = service.uploads.get(call.repository, call.route.reference)
    return web.Response(status=204, headers=_place(upload))


async def cancel_upload(service: Service, call: Call) -> web.Response:
    """Answer ``DELETE``: forget what has come."""
    upload = service.uploads.get(call.repository, call.route.reference)
    with service.uploads.use(upload):
        service.uploads.end(upload)
    return web.Response(status=204)


async def _mount(service: Service, call: Call) -> web.Response | None:
    """Mount the blob that is asked for, if its other repository has it and the sender may read that."""
    text, source = call.parameter("mount"), call.parameter("from")
    if text is None:
        return None
    try:
        digest = Digest(text)
    except InvalidDigest as error:
        raise Refused("DIGEST_INVALID", str(error)) from None
    if source is None or not is_repository(source) or not await call.grant.allows(source, "pull"):
        return None
    if not await service.run(service.storage.mount, call.repository, source, digest):
        return None
    return _created(call, digest)


@contextlib.asynccontextmanager
async def _used(service: Service, upload: Upload, *, keep: bool) -> AsyncIterator[None]:
    """Have an upload alone; one that fails is kept for another try, or not."""
    with service.uploads.use(upload):
        try:
            yield
        except asyncio.CancelledError:
            raise  # at the end of the service, which ends uploads when no thread writes them any more
        except OSError:
            service.uploads.end(upload)  # such as a full disk: what has come must not keep it full
            raise
        except BaseException:
            if not keep:
                service.uploads.end(upload)
            raise


async def _add(service: Service, call: Call, upload: Upload) -> None:
    """Append the body; with ``Content-Range`` it must begin where the last one ended."""
    text = call.request.headers.get("Content-Range")
    expected = None
    if text is not None:
        match = _RANGE.fullmatch(text)
        if match is None or int(match[2]) < int(match[1]):
            raise Refused("BLOB_UPLOAD_INVALID", f"Content-Range {text[:60]!r} is not of the form 0-99")
        expected = int(match[2]) - int(match[1]) + 1
        if int(match[1]) != upload.incoming.size:
            message = f"the chunk begins at {match[1]}, but {upload.incoming.size} bytes have come"
            raise Refused("BLOB_UPLOAD_INVALID", message, status=416, headers=_place(upload))
        if body_length(call.request) not in {None, expected}:
            raise Refused("SIZE_INVALID", f"Content-Range {text!r} does not go with Content-Length")
    try:
        came = await receive(service, call.request, upload.incoming)
    except Refused as refused:
        if refused.status == 413:  # noqa: PLR2004 - it will never fit
            service.uploads.end(upload)
        raise
    if expected not in {None, came}:
        raise Refused("SIZE_INVALID", f"{came} bytes came, {expected} were promised")


async def _close(service: Service, call: Call, upload: Upload, digest: Digest) -> web.Response:
    """Publish an upload, which ends it, whether that can be done or not."""
    try:
        if upload.incoming.digest.algorithm != digest.algorithm:
            await _rename(service, upload, digest.algorithm)
        _verify(upload.incoming.digest, digest)
        await service.run(service.storage.commit, call.repository, upload.incoming, digest)
    except asyncio.CancelledError:
        raise  # as in `_used`
    except BaseException:
        service.uploads.end(upload)
        raise
    service.uploads.end(upload)
    return _created(call, digest)


def _verify(actual: Digest, digest: Digest) -> None:
    if actual != digest:
        raise Refused("DIGEST_INVALID", f"the content has the digest {actual}, not {digest}")


async def _rename(service: Service, upload: Upload, algorithm: str) -> None:
    """Have an upload named by another algorithm than was announced."""
    old, upload.incoming = (
        upload.incoming,
        await service.run(_rehashed, service, upload.incoming, algorithm),
    )
    old.discard()


def _rehashed(service: Service, incoming: Incoming, algorithm: str) -> Incoming:
    """Return a copy of a blob that is named by another algorithm."""
    copy = service.storage.begin(algorithm, service.uploads.limits.blob_bytes)
    try:
        with incoming.open() as file:
            while data := file.read(_COPY_BYTES):
                copy.write(data)
    except BaseException:
        copy.discard()
        raise
    return copy


def _created(call: Call, digest: Digest) -> web.Response:
    headers = {
        "Location": f"/v2/{call.repository}/blobs/{digest}",
        "Docker-Content-Digest": str(digest),
    }
    return web.Response(status=201, headers=headers)


def _place(upload: Upload) -> dict[str, str]:
    return {
        "Location": f"/v2/{upload.repository}/blobs/uploads/{upload.id}",
        "Range": f"0-{max(0, upload.incoming.size - 1)}",
        "Docker-Upload-UUID": upload.id,
    }
