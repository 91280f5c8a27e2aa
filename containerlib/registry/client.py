"""One repository of a registry: its manifests and blobs, and removing them.

Everything that comes back is checked against what was asked for before it is handed on. Knows nothing of
where it will be kept.

Source: OCI distribution-spec 1.1, "Pull" and "Content Discovery".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import attrs

from containerlib.errors import (
    DigestMismatch,
    InvalidDigest,
    InvalidManifest,
    RegistryError,
    RegistryUnavailable,
    RemoteNotFound,
    SizeMismatch,
)
from containerlib.oci import media_type
from containerlib.oci.descriptor import Descriptor
from containerlib.oci.digest import Digest
from containerlib.oci.manifest import MAX_MANIFEST_BYTES
from containerlib.registry.access import RegistryAccess
from containerlib.registry.answers import refused
from containerlib.registry.auth import Authorizer
from containerlib.registry.blob_reader import bytes_to_skip
from containerlib.registry.listing import list_tags
from containerlib.registry.transport import Transport, TransportSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from containerlib.registry.credentials import Credentials
    from containerlib.registry.source import Source
    from containerlib.registry.transport import Answer

__all__ = ["BlobSink", "Registries", "RepositoryClient"]

_KINDS = (media_type.OCI_INDEX, media_type.DOCKER_INDEX, media_type.OCI_MANIFEST, media_type.DOCKER_MANIFEST)
_ACCEPT = ", ".join(_KINDS)
_OK, _ACCEPTED, _NO_CONTENT, _PARTIAL = 200, 202, 204, 206
_BAD_REQUEST, _NOT_FOUND, _NOT_ALLOWED, _NO_RANGE = 400, 404, 405, 416
_COPY_BYTES = 1 << 20
_BREAKS = 8
_PROGRESS_BYTES = 64 << 10
_MAX_SIZE_DIGITS = 12
_SAME_FOR_GET = 429  # a status from here on is no reason to ask for the content as well
_SHOWN_TAGS = 10


class BlobSink(Protocol):
    """Where a blob goes: takes bytes in order, and checks them in the end."""

    @property
    def size(self) -> int:
        """How many bytes it has."""

    def write(self, data: bytes, /) -> int:
        """Take all of `data`."""


class Registries:
    """All registries, as one program reaches them. Shared by threads."""

    def __init__(
        self,
        credentials: Credentials,
        settings: TransportSettings | None = None,
        *,
        token_services: Collection[str] = (),
        wants_identity: bool = False,
    ) -> None:
        """Prepare; contacts nobody. See `Authorizer` for the last two."""
        self._transport = Transport(settings)
        self._authorizer = Authorizer(
            self._transport, credentials, token_services=token_services, wants_identity=wants_identity
        )

    def access(self, source: Source, *scopes: str) -> RegistryAccess:
        """Return the way to a registry itself, for purposes as token services call them."""
        return RegistryAccess(source, self._transport, self._authorizer, scopes)

    def repository(self, source: Source, actions: str = "pull") -> RepositoryClient:
        """Return the client of one repository. Contacts nobody.

        Args:
            source: Which one, and where.
            actions: What it is to be used for: ``pull``, ``pull,push`` or ``pull,delete``.
        """
        scope = f"repository:{source.repository}:{actions}"
        return RepositoryClient(source, self._transport, self._authorizer, (scope,))

    def close(self) -> None:
        """Close every connection that is idle; new ones are made when they are needed."""
        self._transport.close()


@attrs.define(eq=False)
class RepositoryClient(RegistryAccess):
    """One repository."""

    def reading(self, repository: str) -> RepositoryClient:
        """Return a client of this repository that may also read another one of the same registry."""
        scopes = (*self._scopes, f"repository:{repository}:pull")
        other = RepositoryClient(self.source, self._transport, self._authorizer, scopes)
        other._challenges = self._challenges  # it is the same registry, which has said how to get in
        return other

    def fetch_manifest(self, wanted: str | Descriptor) -> tuple[Descriptor, bytes]:
        """Fetch a manifest or index: what it is, and its bytes.

        Args:
            wanted: A tag, a digest, or a descriptor, whose size and media type must then be right as well.

        Raises:
            RemoteNotFound: There is no such manifest; the message names tags that there are.
            DigestMismatch, SizeMismatch: It is not what was asked for.
            InvalidManifest: It is too large, or of a kind that is not read.
            RegistryError: See `Transport.request`.
        """
        name = str(wanted.digest) if isinstance(wanted, Descriptor) else wanted
        what = f"manifest {name!r} of {self.source.name}"
        with self.request("GET", f"manifests/{name}", what, {"Accept": _ACCEPT}) as answer:
            if answer.status == _NOT_FOUND:
                error = refused(answer.refusal(), what)
            elif answer.status != _OK:
                raise refused(answer.refusal(), what)
            else:
                return self._checked_manifest(answer, wanted, what)
        raise RemoteNotFound(
            f"{error}{self._tags_hint()}", method="GET", url=error.url, status=_NOT_FOUND, codes=error.codes
        )

    def download(
        self, descriptor: Descriptor, sink: BlobSink, on_bytes: Callable[[int], None] | None = None
    ) -> None:
        """Write a blob to `sink`; a connection that breaks is made anew for the rest.

        Args:
            descriptor: What is fetched.
            sink: Where it goes; it checks size and digest.
            on_bytes: Told how many bytes came each time; what it raises ends the download.

        Raises:
            RemoteNotFound: There is no such blob.
            RegistryUnavailable: The connection breaks again and again.
            RegistryError: See `Transport.request`.
        """
        breaks = 0
        while sink.size < descriptor.size or not descriptor.size:
            before = sink.size
            try:
                self._download_from(descriptor, sink, on_bytes)
            except RegistryUnavailable as error:
                if error.status is not None:
                    raise  # an answer, and not a broken connection: it has been asked for often enough
                # One that hardly gets further is given up soon; progress earns another chance.
                breaks = breaks + 1 if sink.size - before < _PROGRESS_BYTES else 1
                if breaks >= _BREAKS:
                    raise
            else:
                return

    def describe_manifest(self, name: str) -> Descriptor:
        """Return what a tag or a digest means, without fetching it if the registry tells enough.

        Raises:
            RemoteNotFound: There is no such manifest; the message names tags that there are.
            RegistryError: See `Transport.request`.
        """
        what = f"manifest {name!r} of {self.source.name}"
        with self.request("HEAD", f"manifests/{name}", what, {"Accept": _ACCEPT}) as answer:
            if answer.status >= _SAME_FOR_GET:
                raise refused(answer.refusal(), what)
            told = _told(answer, name) if answer.status == _OK else None
        # Of a refusal the body says why, and only the answer to GET has one.
        return self.fetch_manifest(name)[0] if told is None else told

    def delete_manifest(self, name: str) -> None:
        """Remove a manifest by its digest with all its tags, or one tag.

        Raises:
            RemoteNotFound: There is no such manifest.
            RegistryError: The registry does not do that; see `Transport.request`.
        """
        what = f"manifest {name!r} of {self.source.name}"
        with self.request("DELETE", f"manifests/{name}", what) as answer:
            if answer.status in {_OK, _ACCEPTED, _NO_CONTENT}:
                return
            error = refused(answer.refusal(), what)
        if ":" in name or error.status not in {_BAD_REQUEST, _NOT_ALLOWED}:
            raise error
        raise RegistryError(
            f"{error}; this registry cannot remove a single tag, but it can remove the image with all its "
            "tags, by its digest",
            method="DELETE",
            url=error.url,
            status=error.status,
            codes=error.codes,
        )

    def _checked_manifest(
        self, answer: Answer, wanted: str | Descriptor, what: str
    ) -> tuple[Descriptor, bytes]:
        raw = answer.read_all(MAX_MANIFEST_BYTES)
        if len(raw) > MAX_MANIFEST_BYTES:
            raise InvalidManifest(f"{what}: larger than {MAX_MANIFEST_BYTES} bytes")
        kind = answer.headers.get("content-type", "").partition(";")[0].strip()
        if not (media_type.is_index(kind) or media_type.is_manifest(kind)):
            raise InvalidManifest(f"{what}: media type {kind[:120]!r} is not one of an image")
        promised = _promised_digest(answer, wanted, what)
        actual = Digest.of(raw, promised.algorithm if promised is not None else "sha256")
        if promised is not None and actual != promised:
            raise DigestMismatch(what, expected=promised, actual=actual)
        if isinstance(wanted, Descriptor):
            if len(raw) != wanted.size:
                raise SizeMismatch(what, expected=wanted.size, actual=len(raw))
            if kind != wanted.media_type:
                raise InvalidManifest(f"{what}: media type is {kind!r}, expected {wanted.media_type!r}")
        return Descriptor(kind, actual, len(raw)), raw

    def _download_from(
        self,
        descriptor: Descriptor,
        sink: BlobSink,
        on_bytes: Callable[[int], None] | None,
        *,
        by_range: bool = True,
    ) -> None:
        offset = sink.size
        what = f"blob {descriptor.digest} of {self.source.name}"
        headers = {"Range": f"bytes={offset}-"} if offset and by_range else {}
        with self.request("GET", f"blobs/{descriptor.digest}", what, headers) as answer:
            is_whole_wanted = answer.status == _NO_RANGE and bool(headers)
            if not is_whole_wanted:
                _receive(answer, offset, sink, on_bytes, what)
        if is_whole_wanted:
            self._download_from(descriptor, sink, on_bytes, by_range=False)
        if sink.size < descriptor.size:
            raise RegistryUnavailable(
                f"{what}: ends after {sink.size} of {descriptor.size} bytes; try again", method="GET"
            )

    def _tags_hint(self) -> str:
        try:
            tags = list_tags(self, self.source.name)
        except RegistryError:
            return "; the registry shows no such repository"
        shown = ", ".join(sorted(tags)[:_SHOWN_TAGS]) or "none"
        return f"; tags there are: {shown}{', ...' if len(tags) > _SHOWN_TAGS else ''}"


def _promised_digest(answer: Answer, wanted: str | Descriptor, what: str) -> Digest | None:
    """Return the digest the bytes must have: the one that was asked for, else the one the answer names."""
    if isinstance(wanted, Descriptor):
        return wanted.digest
    text = wanted if ":" in wanted else answer.headers.get("docker-content-digest")
    try:
        return None if text is None else Digest(text)
    except InvalidDigest as error:
        raise InvalidDigest(f"{what}: {error}") from None


def _receive(
    answer: Answer, offset: int, sink: BlobSink, on_bytes: Callable[[int], None] | None, what: str
) -> None:
    """Write to `sink` what it does not have yet; it has `offset` bytes."""
    if answer.status == _NOT_FOUND:
        raise refused(answer.refusal(), what, "the image is incomplete there; push it again")
    if answer.status not in {_OK, _PARTIAL}:
        raise refused(answer.refusal(), what)
    if answer.headers.get("content-encoding", "identity") != "identity":
        raise RegistryError(f"{what}: comes encoded although that was not asked for")
    skip = bytes_to_skip(answer, offset, what)
    while chunk := answer.read(_COPY_BYTES):
        fresh, skip = chunk[skip:], max(0, skip - len(chunk))
        if fresh:
            sink.write(fresh)
            if on_bytes is not None:
                on_bytes(len(fresh))


def _told(answer: Answer, name: str) -> Descriptor | None:
    """Return what the headers say about a manifest, if they say all of it."""
    headers = answer.headers
    kind = headers.get("content-type", "").partition(";")[0].strip()
    size = headers.get("content-length", "")
    if not (media_type.is_index(kind) or media_type.is_manifest(kind)) or not size.isdecimal():
        return None
    try:
        digest = Digest(headers.get("docker-content-digest"))
        is_other = ":" in name and digest != Digest(name)
    except InvalidDigest:
        return None
    return None if is_other or len(size) > _MAX_SIZE_DIGITS else Descriptor(kind, digest, int(size))
