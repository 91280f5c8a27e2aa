"""Writing to a repository: blobs and manifests.

A blob is asked for first, by who calls, and uploaded only if it is missing. It is taken from another
repository of the registry if one is known to have it, otherwise sent in one piece, and in chunks if the
registry wants that or refuses the piece. An upload that fails on the way goes on where the registry says that
it stands, or is begun anew.

Source: OCI distribution-spec 1.1, "Push".
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, BinaryIO
from urllib.parse import urlencode

from containerlib.errors import DigestMismatch, RegistryError, RegistryUnavailable
from containerlib.oci.descriptor import Descriptor
from containerlib.oci.digest import Digest
from containerlib.registry.answers import refused
from containerlib.registry.chunks import Place, UploadLostError, send_chunks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from contextlib import AbstractContextManager

    from containerlib.registry.client import RepositoryClient
    from containerlib.registry.transport import Answer, Readable

__all__ = ["has_blob", "put_blob", "put_manifest"]

_OK, _CREATED, _ACCEPTED, _NO_CONTENT = 200, 201, 202, 204
_NOT_FOUND, _TOO_LARGE, _BAD_RANGE = 404, 413, 416
_IN_CHUNKS = frozenset((_NOT_FOUND, _TOO_LARGE, _BAD_RANGE))
_ATTEMPTS = 3
_MAX_DIGITS = 12


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
    open_source: Callable[[], AbstractContextManager[BinaryIO | Readable]],
    mount_from: Iterable[str] = (),
) -> bool:
    """Upload a blob.

    Args:
        repository: Where to.
        descriptor: Its digest and size, which the registry checks.
        open_source: Opens its content, from the beginning each time.
        mount_from: Repositories of the same registry that may have it.

    Returns:
        Whether its content was sent; False if the registry took it from a repository of its own.

    Raises:
        RegistryUnavailable: The connection breaks again and again.
        RegistryError: The registry refuses; see `Transport.request`.
    """
    what = f"upload of {descriptor.digest} to {repository.source.name}"
    place: Place | None = None
    for source in mount_from:
        is_mounted, place = _mount(repository, descriptor, source, what)
        if is_mounted:
            return False
    in_chunks = False
    for is_last in (*[False] * (_ATTEMPTS - 1), True):
        try:
            begun, place = place or _begin(repository, what), None
            _send(repository, descriptor, begun, open_source, what, in_chunks=in_chunks)
        except _OtherwiseError as error:
            if is_last:
                raise error.cause from None
            in_chunks |= error.in_chunks
        except RegistryUnavailable:
            # It may have arrived although the answer did not.
            if has_blob(repository, descriptor):
                break
            if is_last:
                raise
        else:
            break
    return True


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
    for is_last in (*[False] * (_ATTEMPTS - 1), True):
        try:
            with repository.request("PUT", f"manifests/{name}", what, headers, lambda: raw) as answer:
                if answer.status not in {_OK, _CREATED, _ACCEPTED}:
                    raise refused(answer.refusal(), what)
                seen = answer.headers.get("docker-content-digest", str(descriptor.digest))
            break
        except RegistryUnavailable as error:
            # Without an answer nobody knows whether it was taken; taking it twice changes nothing.
            if is_last or error.status is not None:
                raise
    if seen != descriptor.digest:
        raise DigestMismatch(what, expected=descriptor.digest, actual=seen[:160])
    return descriptor


class _OtherwiseError(Exception):
    """The upload has to be begun anew, in chunks if the registry does not take the blob in one piece."""

    def __init__(self, cause: RegistryError, *, in_chunks: bool) -> None:
        super().__init__(str(cause))
        self.cause = cause
        self.in_chunks = in_chunks


def _send(
    repository: RepositoryClient,
    descriptor: Descriptor,
    place: Place,
    open_source: Callable[[], AbstractContextManager[BinaryIO | Readable]],
    what: str,
    *,
    in_chunks: bool,
) -> None:
    with open_source() as source:
        if not (in_chunks or place.least_bytes):
            _send_whole(repository, descriptor, place, source, what)
            return
        try:
            send_chunks(repository, descriptor, place, source, what)
        except UploadLostError as error:
            raise _OtherwiseError(error.cause, in_chunks=True) from None


def _mount(
    repository: RepositoryClient, descriptor: Descriptor, source: str, what: str
) -> tuple[bool, Place | None]:
    """Let the registry take a blob from another of its repositories.

    Returns whether it did, and if not, where to upload the blob instead if the registry has begun that.
    Whatever goes wrong is no matter: the blob can be uploaded.
    """
    if source == repository.source.repository:
        return False, None
    query = urlencode({"mount": descriptor.digest, "from": source})
    with contextlib.suppress(RegistryError):
        reader = repository.reading(source)
        with reader.request("POST", f"blobs/uploads/?{query}", what, {"Content-Length": "0"}) as answer:
            if answer.status == _ACCEPTED:
                return False, Place.of(answer, what, least_bytes=_least(answer))
            return answer.status == _CREATED, None
    return False, None


def _send_whole(
    repository: RepositoryClient,
    descriptor: Descriptor,
    place: Place,
    source: BinaryIO | Readable,
    what: str,
) -> None:
    headers = {"Content-Type": "application/octet-stream", "Content-Length": str(descriptor.size)}

    def body() -> BinaryIO | Readable:
        source.seek(0)
        return source

    with repository.request("PUT", place.with_digest(descriptor.digest), what, headers, body) as answer:
        if answer.status in {_CREATED, _ACCEPTED, _NO_CONTENT}:
            return
        error = refused(answer.refusal(), what)
    if error.status in _IN_CHUNKS and descriptor.size:
        raise _OtherwiseError(error, in_chunks=True)
    raise error


def _begin(repository: RepositoryClient, what: str) -> Place:
    """Begin an upload, and return where its content has to go."""
    with repository.request("POST", "blobs/uploads/", what, {"Content-Length": "0"}) as answer:
        if answer.status != _ACCEPTED:
            raise refused(answer.refusal(), what)
        return Place.of(answer, what, least_bytes=_least(answer))


def _least(answer: Answer) -> int:
    """Return how long chunks must be that the registry asks for; 0 if it does not."""
    text = answer.headers.get("oci-chunk-min-length", "")
    return int(text) if text.isdecimal() and len(text) <= _MAX_DIGITS else 0
