"""Blobs over HTTP: reading them, whole or in parts, and deleting them.

Source: OCI distribution-spec 1.1, "Pulling blobs", "Deleting Blobs".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web

from containerlib.errors import BlobNotFound
from containerlib.registry.server.refused import Refused
from containerlib.registry.server.route import as_digest
from containerlib.registry.server.sending import send_file

if TYPE_CHECKING:
    from containerlib.oci.digest import Digest
    from containerlib.registry.server.service import Call, Service

__all__ = ["delete_blob", "get_blob"]


async def get_blob(service: Service, call: Call) -> web.StreamResponse:
    """Answer ``GET`` and ``HEAD`` of a blob, with ranges."""
    digest = as_digest(call.route.reference)
    if service.cache is not None:
        answer = await service.cache.blob(call, digest)
        if answer is not None:
            return answer
    try:
        file = await service.run(service.storage.open_blob, call.repository, digest)
    except BlobNotFound:
        raise await service.unknown(call.repository, _blob_unknown(call.repository, digest)) from None
    with file:
        return await send_file(call.request, file, digest)


async def delete_blob(service: Service, call: Call) -> web.Response:
    """Answer ``DELETE`` of a blob."""
    digest = as_digest(call.route.reference)
    if not service.storage.deletes_blobs:
        raise Refused("UNSUPPORTED", "blobs go when no manifest needs them, and not one by one")
    if not await service.run(service.storage.remove_blob, call.repository, digest):
        raise await service.unknown(call.repository, _blob_unknown(call.repository, digest))
    return web.Response(status=202)


def _blob_unknown(repository: str, digest: Digest) -> Refused:
    return Refused("BLOB_UNKNOWN", f"{repository} has no blob {digest}", detail={"digest": str(digest)})
