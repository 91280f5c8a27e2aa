"""Writing to a repository: blobs and manifests.

A blob is asked for first, and uploaded only if it is missing. An upload that fails on the way is begun anew.

Source: OCI distribution-spec 1.1, "Push".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, BinaryIO
from urllib.parse import urlencode

from containerlib.errors import DigestMismatch, RegistryError, RegistryUnavailable
from containerlib.oci.descriptor import Descriptor
from containerlib.oci.digest import Digest
from containerlib.registry.answers import refused

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from containerlib.registry.client import RepositoryClient

__all__ = ["has_blob", "put_blob", "put_manifest"]

_OK, _CREATED, _ACCEPTED, _NOT_FOUND = 200, 201, 202, 404
_ATTEMPTS = 3


def has_blob(repository: RepositoryClient, descriptor: Descriptor) -> bool:
    """Say whether the repository has a blob of this digest and size."""
    what = f"blob {descriptor.digest} of {repository.source.name}"
    with repository.request("HEAD", f"blobs/{descriptor.digest}", what) as answer:
        if answer.status == _OK:
            return answer.headers.get("content-length", str(descriptor.size)) == str(descriptor.size)
        if answer.status == _NOT_FOUND:
            return False
        raise refused(answer.refusal(), what)


def put_blob(
    repository: RepositoryClient,
    descriptor: Descriptor,
    open_source: Callable[[], AbstractContextManager[BinaryIO]],
) -> None:
    """Upload a blob.

    Args:
        repository: Where to.
        descriptor: Its digest and size, which the registry checks.
        open_source: Opens its content, from the beginning each time.

    Raises:
        RegistryUnavailable: The connection breaks again and again.
        RegistryError: The registry refuses; see `Transport.request`.
    """
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            _upload(repository, descriptor, open_source)
        except RegistryUnavailable:
            # It may have arrived although the answer did not.
            if attempt == _ATTEMPTS:
                raise
            if has_blob(repository, descriptor):
                return
        else:
            return


def put_manifest(repository: RepositoryClient, raw: bytes, media_type: str, tag: str | None) -> Descriptor:
    """Upload a manifest or index whose blobs and manifests are there, under a tag or only its digest.

    Raises:
        DigestMismatch: The registry took something else for it.
        RegistryError: The registry refuses; see `Transport.request`.
    """
    descriptor = Descriptor(media_type, Digest.of(raw), len(raw))
    name = tag or descriptor.digest
    what = f"manifest {name!r} of {repository.source.name}"
    headers = {"Content-Type": media_type, "Content-Length": str(len(raw))}
    with repository.request("PUT", f"manifests/{name}", what, headers, lambda: raw) as answer:
        if answer.status not in {_OK, _CREATED, _ACCEPTED}:
            raise refused(answer.refusal(), what)
        seen = answer.headers.get("docker-content-digest", str(descriptor.digest))
    if seen != descriptor.digest:
        raise DigestMismatch(what, expected=descriptor.digest, actual=seen[:160])
    return descriptor


def _upload(
    repository: RepositoryClient,
    descriptor: Descriptor,
    open_source: Callable[[], AbstractContextManager[BinaryIO]],
) -> None:
    what = f"upload of {descriptor.digest} to {repository.source.name}"
    place = _begin(repository, what)
    query = urlencode({"digest": descriptor.digest})
    url = f"{place}{'&' if '?' in place else '?'}{query}"
    headers = {"Content-Type": "application/octet-stream", "Content-Length": str(descriptor.size)}
    with open_source() as source:

        def body() -> BinaryIO:
            source.seek(0)
            return source

        with repository.request("PUT", url, what, headers, body) as answer:
            if answer.status not in {_CREATED, _ACCEPTED}:
                raise refused(answer.refusal(), what)


def _begin(repository: RepositoryClient, what: str) -> str:
    """Begin an upload, and return where its content has to go."""
    with repository.request("POST", "blobs/uploads/", what, {"Content-Length": "0"}) as answer:
        if answer.status != _ACCEPTED:
            raise refused(answer.refusal(), what)
        place = answer.headers.get("location", "")
    if not (place.startswith(("/", "http://", "https://")) and place.isprintable() and " " not in place):
        raise RegistryError(f"{what}: the registry does not say where to: {place[:200]!r}")
    return place
