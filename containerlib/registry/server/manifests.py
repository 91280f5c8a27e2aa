"""Manifests over HTTP: read and deleted by tag or digest, and taken only if nobody can misread them.

Source: OCI distribution-spec 1.1, "Pulling manifests", "Pushing Manifests", "Deleting Manifests".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web

from containerlib.errors import InvalidManifest
from containerlib.oci import media_type
from containerlib.oci.digest import Digest
from containerlib.oci.manifest import MAX_MANIFEST_BYTES, Manifest, parse_manifest
from containerlib.oci.reference import is_tag
from containerlib.registry.server.refused import Refused
from containerlib.registry.server.route import as_digest, as_reference
from containerlib.registry.server.service import read_body

if TYPE_CHECKING:
    from containerlib.oci.manifest import Index
    from containerlib.registry.server.service import Call, Service
    from containerlib.registry.server.storage import Storage

__all__ = ["delete_manifest", "get_manifest", "put_manifest"]

_MAX_TAGS = 20
_NOT_MODIFIED = 304


async def get_manifest(service: Service, call: Call) -> web.Response:
    """Answer ``GET`` and ``HEAD`` of a manifest: its bytes as they came, whatever is accepted."""
    reference = _asked(call)
    if service.cache is not None:
        stored = await service.cache.manifest(call.repository, reference)
    else:
        stored = await service.run(service.storage.find_manifest, call.repository, reference)
    if stored is None:
        raise await service.unknown(call.repository, _unknown(call))
    headers = {
        "Content-Type": stored.media_type,
        "Docker-Content-Digest": str(stored.digest),
        "ETag": f'"{stored.digest}"',
    }
    if call.request.headers.get("If-None-Match") == headers["ETag"]:
        return web.Response(status=_NOT_MODIFIED, headers=headers)
    return web.Response(body=stored.raw, headers=headers)


async def put_manifest(service: Service, call: Call) -> web.Response:
    """Answer ``PUT`` of a manifest."""
    reference = as_reference(call.route.reference)
    tags = call.query.get("tag", []) if isinstance(reference, Digest) else [reference]
    if len(tags) > _MAX_TAGS:
        raise Refused("MANIFEST_INVALID", f"more than {_MAX_TAGS} tags at once", status=414)
    for tag in tags:
        if not is_tag(tag):
            raise Refused("MANIFEST_INVALID", f"{tag[:140]!r} is not a tag")
    raw = await _body(service, call)
    document = _parsed(raw, call.request.headers.get("Content-Type", ""))
    digest = document.digest
    if isinstance(reference, Digest):
        digest = Digest.of(raw, reference.algorithm)
        if digest != reference:
            raise Refused("DIGEST_INVALID", f"the manifest has the digest {digest}, not {reference}")
    await service.run(_check_parts, service.storage, call.repository, document)
    try:
        await service.run(service.storage.put_manifest, call.repository, document, digest, tags)
    except InvalidManifest as error:
        raise Refused("MANIFEST_INVALID", str(error)) from None
    headers = {
        "Location": f"/v2/{call.repository}/manifests/{digest}",
        "Docker-Content-Digest": str(digest),
    }
    if document.subject is not None:
        headers["OCI-Subject"] = str(document.subject.digest)
    if isinstance(reference, Digest) and tags:
        headers["OCI-Tag"] = ", ".join(tags)
    return web.Response(status=201, headers=headers)


async def delete_manifest(service: Service, call: Call) -> web.Response:
    """Answer ``DELETE`` of a manifest, with all its tags, or of one tag."""
    reference = _asked(call)
    remove = service.storage.remove_manifest if isinstance(reference, Digest) else service.storage.remove_tag
    if not await service.run(remove, call.repository, reference):
        raise await service.unknown(call.repository, _unknown(call))
    return web.Response(status=202)


def _asked(call: Call) -> str | Digest:
    """Return what is asked for; what can be no tag is one that is not there."""
    text = call.route.reference
    if ":" in text:
        return as_digest(text)
    if not is_tag(text):
        raise _unknown(call)
    return text


def _unknown(call: Call) -> Refused:
    text = call.route.reference[:140]
    return Refused(
        "MANIFEST_UNKNOWN", f"{call.repository} has no manifest {text!r}", detail={"reference": text}
    )


async def _body(service: Service, call: Call) -> bytes:
    try:
        return await read_body(call.request, MAX_MANIFEST_BYTES, service.settings.stall_timeout_s)
    except Refused as refused:
        if refused.code == "SIZE_INVALID" and refused.status == 413:  # noqa: PLR2004 - as HTTP has it
            raise Refused("MANIFEST_INVALID", refused.message, status=413) from None
        raise


def _parsed(raw: bytes, content_type: str) -> Manifest | Index:
    kind = content_type.partition(";")[0].strip()
    try:
        return parse_manifest(raw, kind or None)
    except InvalidManifest as error:
        raise Refused("MANIFEST_INVALID", str(error)) from None


def _check_parts(storage: Storage, repository: str, document: Manifest | Index) -> None:
    """Refuse a manifest that needs what the repository does not have."""
    missing: list[str] = []
    if isinstance(document, Manifest):
        for part in (document.config, *document.layers):
            size = storage.blob_size(repository, part.digest)
            if size is None and not (part.urls or media_type.is_foreign_layer(part.media_type)):
                missing.append(str(part.digest))
            elif size not in {None, part.size}:
                raise Refused(
                    "MANIFEST_INVALID", f"blob {part.digest} has {size} bytes, not {part.size} as it says"
                )
    else:
        missing += [
            str(entry.digest)
            for entry in document.manifests
            if not storage.has_manifest(repository, entry.digest)
        ]
    if missing:
        raise Refused(
            "MANIFEST_BLOB_UNKNOWN",
            f"{repository} has no {missing[0]}; push what a manifest needs before it",
            detail={"digests": missing[:100]},
        )
