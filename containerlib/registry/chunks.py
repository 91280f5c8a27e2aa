"""Sending a blob in chunks, and going on after a break where the registry says that it stands.

Source: OCI distribution-spec 1.1, "Pushing a blob in chunks".
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, BinaryIO
from urllib.parse import urlencode

import attrs

from containerlib.errors import RegistryError, RegistryUnavailable, RemoteNotFound
from containerlib.registry.answers import refused

if TYPE_CHECKING:
    from containerlib.oci.descriptor import Descriptor
    from containerlib.registry.client import RepositoryClient
    from containerlib.registry.transport import Answer, Readable

__all__ = ["Place", "UploadLostError", "send_chunks"]

_CHUNK_BYTES = 16 << 20
_LEAST_BYTES = 64 << 10
_OK, _CREATED, _ACCEPTED, _NO_CONTENT = 200, 201, 202, 204
_NOT_FOUND, _TOO_LARGE, _BAD_RANGE = 404, 413, 416
_BREAKS = 4
_RANGE = re.compile(r"(?:bytes[ =])?0-(\d{1,19})")


class UploadLostError(Exception):
    """The registry does not know the upload any more: it has to be begun anew.

    Attributes:
        cause: What it said.
    """

    def __init__(self, cause: RegistryError) -> None:
        super().__init__(str(cause))
        self.cause = cause


@attrs.frozen
class Place:
    """Where the content of an upload has to go, which changes with every answer.

    Attributes:
        url: As the registry gave it.
        least_bytes: How long its chunks must be; 0 if the registry does not ask for chunks.
    """

    url: str
    least_bytes: int = 0

    @classmethod
    def of(cls, answer: Answer, what: str, *, least_bytes: int = 0) -> Place:
        """Return the place that an answer names.

        Raises:
            RegistryError: It names none.
        """
        url = answer.headers.get("location", "")
        if not (url.startswith(("/", "http://", "https://")) and url.isprintable() and " " not in url):
            raise RegistryError(f"{what}: the registry does not say where to: {url[:200]!r}")
        return cls(url, least_bytes)

    def with_digest(self, digest: str) -> str:
        """Return the URL that ends the upload."""
        return f"{self.url}{'&' if '?' in self.url else '?'}{urlencode({'digest': digest})}"


def send_chunks(
    repository: RepositoryClient,
    descriptor: Descriptor,
    place: Place,
    source: BinaryIO | Readable,
    what: str,
) -> None:
    """Send a blob to an upload that was begun.

    Args:
        repository: Where to.
        descriptor: Its digest and size.
        place: Where the upload goes on.
        source: Its content; is moved to where the upload stands.
        what: What is being done, for messages.

    Raises:
        UploadLostError: The registry does not know the upload any more.
        RegistryUnavailable: The connection breaks again and again.
        RegistryError: The registry refuses; see `Transport.request`.
    """
    _Upload(repository, descriptor, place, source, what).run()


class _Section:
    """A part of the content, as the body of one request."""

    def __init__(self, source: BinaryIO | Readable, offset: int, size: int) -> None:
        self._source = source
        self._rest = size
        source.seek(offset)

    def read(self, size: int = -1, /) -> bytes:
        data = self._source.read(self._rest if size < 0 else min(size, self._rest))
        self._rest -= len(data)
        return data

    def seek(self, offset: int, /) -> int:
        raise AssertionError(f"a section is not moved to {offset}")


class _Upload:
    """One upload on its way."""

    def __init__(
        self,
        repository: RepositoryClient,
        descriptor: Descriptor,
        place: Place,
        source: BinaryIO | Readable,
        what: str,
    ) -> None:
        self._repository = repository
        self._blob = descriptor
        self._place = place
        self._source = source
        self._what = what
        self._offset = 0
        self._least_bytes = place.least_bytes or _LEAST_BYTES
        self._chunk_bytes = max(_CHUNK_BYTES, place.least_bytes)

    def run(self) -> None:
        """Send all of it and end the upload."""
        breaks = furthest = 0
        while self._offset < self._blob.size:
            try:
                self._send()
            except RegistryUnavailable:
                if breaks + 1 >= _BREAKS:
                    raise
                self._ask()
            # One that never gets further is given up; progress earns another chance.
            breaks = 0 if self._offset > furthest else breaks + 1
            furthest = max(furthest, self._offset)
            if breaks >= _BREAKS:
                raise RegistryError(f"{self._what}: the registry takes no more than {furthest} bytes")
        headers = {"Content-Length": "0"}
        url = self._place.with_digest(self._blob.digest)
        with self._repository.request("PUT", url, self._what, headers, lambda: b"") as answer:
            if answer.status not in {_CREATED, _NO_CONTENT}:
                self._refuse(answer)

    def _send(self) -> None:
        """Send one chunk, and note where the upload stands then."""
        start, end = self._offset, min(self._offset + self._chunk_bytes, self._blob.size)
        headers = {
            "Content-Type": "application/octet-stream",
            "Content-Length": str(end - start),
            "Content-Range": f"{start}-{end - 1}",
        }
        with self._repository.request(
            "PATCH", self._place.url, self._what, headers, lambda: _Section(self._source, start, end - start)
        ) as answer:
            if answer.status in {_ACCEPTED, _NO_CONTENT, _CREATED}:
                self._note(answer, end)
                return
            if answer.status == _TOO_LARGE and end - start > self._least_bytes:
                self._chunk_bytes = max((end - start) // 4, self._least_bytes)
            elif answer.status != _BAD_RANGE:
                self._refuse(answer)
        self._ask()

    def _ask(self) -> None:
        """Ask how far the upload is, and where it goes on."""
        with self._repository.request("GET", self._place.url, self._what) as answer:
            if answer.status not in {_OK, _NO_CONTENT}:
                self._refuse(answer)
            self._note(answer, 0)

    def _note(self, answer: Answer, otherwise: int) -> None:
        match = _RANGE.fullmatch(answer.headers.get("range", ""))
        # A range of the first byte alone is how registries say that they have none.
        offset = otherwise if match is None else int(match[1]) + 1 if int(match[1]) else 0
        if offset > self._blob.size:
            raise RegistryError(f"{self._what}: the registry has {offset} of {self._blob.size} bytes")
        self._offset = offset
        if "location" in answer.headers:
            self._place = Place.of(answer, self._what, least_bytes=self._place.least_bytes)

    def _refuse(self, answer: Answer) -> None:
        error = refused(answer.refusal(), self._what)
        raise UploadLostError(error) if isinstance(error, RemoteNotFound) else error
