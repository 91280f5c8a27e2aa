"""Reading one repository of a registry: manifests, blobs, tags.

Everything that comes back is checked against what was asked for before it is handed on. Knows nothing of
where it will be kept.

Source: OCI distribution-spec 1.1, "Pull" and "Content Discovery".
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Protocol

import attrs

from containerlib._util import strict_json
from containerlib.errors import (
    DigestMismatch,
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
from containerlib.registry.answers import refused
from containerlib.registry.auth import Authorizer
from containerlib.registry.challenge import parse_challenges
from containerlib.registry.transport import Transport, TransportSettings

if TYPE_CHECKING:
    from collections.abc import Callable

    from containerlib.registry.credentials import Credentials
    from containerlib.registry.source import Source
    from containerlib.registry.transport import Answer, Body

__all__ = ["BlobSink", "Registries", "RepositoryClient"]

_KINDS = (media_type.OCI_INDEX, media_type.DOCKER_INDEX, media_type.OCI_MANIFEST, media_type.DOCKER_MANIFEST)
_ACCEPT = ", ".join(_KINDS)
_OK, _PARTIAL, _UNAUTHORIZED, _NOT_FOUND = 200, 206, 401, 404
_COPY_BYTES = 1 << 20
_BREAKS = 8
_MAX_TAGS_BYTES = 4 << 20
_SHOWN_TAGS = 10
_RANGE = re.compile(r"bytes (\d{1,19})-\d{1,19}/(?:\d{1,19}|\*)")


class BlobSink(Protocol):
    """Where a blob goes: takes bytes in order, and checks them in the end."""

    @property
    def size(self) -> int:
        """How many bytes it has."""

    def write(self, data: bytes, /) -> int:
        """Take all of `data`."""


class Registries:
    """All registries, as one program reaches them. Shared by threads."""

    def __init__(self, credentials: Credentials, settings: TransportSettings | None = None) -> None:
        self._transport = Transport(settings)
        self._authorizer = Authorizer(self._transport, credentials)

    def repository(self, source: Source, actions: str = "pull") -> RepositoryClient:
        """Return the client of one repository. Contacts nobody.

        Args:
            source: Which one, and where.
            actions: What it is to be used for: ``pull`` or ``pull,push``.
        """
        return RepositoryClient(source, self._transport, self._authorizer, actions)

    def close(self) -> None:
        """Close every connection that is idle; new ones are made when they are needed."""
        self._transport.close()


@attrs.define(eq=False)
class RepositoryClient:
    """One repository."""

    source: Source
    _transport: Transport = attrs.field(repr=False)
    _authorizer: Authorizer = attrs.field(repr=False)
    _actions: str = "pull"
    _header: str = attrs.field(default="", init=False, repr=False)

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
            except RegistryUnavailable:
                # One that never gets further is given up soon; progress earns another chance.
                breaks = breaks + 1 if sink.size == before else 1
                if breaks >= _BREAKS:
                    raise
            else:
                return

    def tags(self) -> list[str]:
        """Return the tags of the repository, as many as the registry gives at once."""
        what = f"tags of {self.source.name}"
        with self.request("GET", "tags/list", what) as answer:
            if answer.status != _OK:
                raise refused(answer.refusal(), what)
            return _parse_tags(answer.read_all(_MAX_TAGS_BYTES), what)

    def _checked_manifest(
        self, answer: Answer, wanted: str | Descriptor, what: str
    ) -> tuple[Descriptor, bytes]:
        raw = answer.read_all(MAX_MANIFEST_BYTES)
        if len(raw) > MAX_MANIFEST_BYTES:
            raise InvalidManifest(f"{what}: larger than {MAX_MANIFEST_BYTES} bytes")
        kind = answer.headers.get("content-type", "").partition(";")[0].strip()
        if not (media_type.is_index(kind) or media_type.is_manifest(kind)):
            raise InvalidManifest(f"{what}: media type {kind[:120]!r} is not one of an image")
        promised = _promised_digest(answer, wanted)
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
        self, descriptor: Descriptor, sink: BlobSink, on_bytes: Callable[[int], None] | None
    ) -> None:
        offset = sink.size
        what = f"blob {descriptor.digest} of {self.source.name}"
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        with self.request("GET", f"blobs/{descriptor.digest}", what, headers) as answer:
            if answer.status not in {_OK, _PARTIAL}:
                raise refused(answer.refusal(), what)
            if answer.headers.get("content-encoding", "identity") != "identity":
                raise RegistryError(f"{what}: comes encoded although that was not asked for")
            skip = _start(answer, offset, what)
            while chunk := answer.read(_COPY_BYTES):
                fresh, skip = chunk[skip:], max(0, skip - len(chunk))
                if fresh:
                    sink.write(fresh)
                    if on_bytes is not None:
                        on_bytes(len(fresh))
        if sink.size < descriptor.size:
            raise RegistryUnavailable(
                f"{what}: ends after {sink.size} of {descriptor.size} bytes", method="GET"
            )

    def request(
        self,
        method: str,
        path: str,
        what: str,
        headers: dict[str, str] | None = None,
        body: Callable[[], Body] | None = None,
    ) -> Answer:
        """Make a request, and once again with what the registry asks to get in.

        Args:
            method: ``GET`` and so on.
            path: Below the repository, or an absolute path or URL that the registry gave.
            what: What is asked for, for messages.
            headers: Sent along.
            body: See `Transport.request`.
        """
        wanted = dict(headers or {})
        if self._header:
            wanted["Authorization"] = self._header
        is_given = path.startswith("/") or "://" in path
        url = path if is_given else f"/v2/{self.source.repository}/{path}"
        answer = self._transport.request(self.source, method, url, what=what, headers=wanted, body=body)
        if answer.status != _UNAUTHORIZED:
            return answer
        challenges = parse_challenges(answer.headers.get("www-authenticate", ""))
        if not challenges or answer.url.partition("/v2/")[0] != self._transport.base_url(self.source):
            return answer
        answer.close()
        self._authorizer.forget(self._header)
        scope = f"repository:{self.source.repository}:{self._actions}"
        self._header = self._authorizer.header(self.source, challenges, scope, what)
        wanted["Authorization"] = self._header
        return self._transport.request(self.source, method, url, what=what, headers=wanted, body=body)

    def _tags_hint(self) -> str:
        try:
            tags = self.tags()
        except RegistryError:
            return "; the registry shows no such repository"
        shown = ", ".join(sorted(tags)[:_SHOWN_TAGS]) or "none"
        return f"; tags there are: {shown}{', ...' if len(tags) > _SHOWN_TAGS else ''}"


def _promised_digest(answer: Answer, wanted: str | Descriptor) -> Digest | None:
    """Return the digest the bytes must have: the one that was asked for, else the one the answer names."""
    if isinstance(wanted, Descriptor):
        return wanted.digest
    text = wanted if ":" in wanted else answer.headers.get("docker-content-digest")
    return None if text is None else Digest(text)


def _start(answer: Answer, offset: int, what: str) -> int:
    """Return how many bytes of the answer are here already."""
    if answer.status == _OK:
        return offset  # the registry does not do ranges and begins anew
    match = _RANGE.fullmatch(answer.headers.get("content-range", ""))
    if match is None or int(match[1]) != offset:
        raise RegistryError(f"{what}: the registry answered with another range than was asked for")
    return 0


def _parse_tags(data: bytes, what: str) -> list[str]:
    found = strict_json.loads_object(data, limit=_MAX_TAGS_BYTES, what=what).get("tags")
    return [tag for tag in found if isinstance(tag, str)] if isinstance(found, list) else []
