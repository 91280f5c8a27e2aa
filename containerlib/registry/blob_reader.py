"""The content of a blob of a registry, read as if it were a file.

A connection that breaks is made anew for the rest. Who reads to the end has what the digest promised.
"""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING

from containerlib.errors import DigestMismatch, RegistryError, RegistryUnavailable, SizeMismatch
from containerlib.registry.answers import refused

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

    from containerlib.oci.descriptor import Descriptor
    from containerlib.registry.client import RepositoryClient
    from containerlib.registry.transport import Answer

__all__ = ["BlobReader", "UnreadableError", "bytes_to_skip"]

_OK, _PARTIAL = 200, 206
_BREAKS = 8
_CHUNK_BYTES = 1 << 20
_RANGE = re.compile(r"bytes (\d{1,19})-\d{1,19}/(?:\d{1,19}|\*)")


class UnreadableError(Exception):
    """The content cannot be had. Not an `OSError`, so that it is not taken for an error of who gets it.

    Attributes:
        cause: Why.
    """

    def __init__(self, cause: RegistryError) -> None:
        super().__init__(str(cause))
        self.cause = cause


class BlobReader:
    """One blob; a context manager. `seek` costs a request, but only if something is read after it."""

    def __init__(
        self, repository: RepositoryClient, descriptor: Descriptor, on_bytes: Callable[[int], None]
    ) -> None:
        """Prepare; contacts nobody. `on_bytes` is told the position after each part."""
        self._repository = repository
        self._blob = descriptor
        self._on_bytes = on_bytes
        self._what = f"blob {descriptor.digest} of {repository.source.name}"
        self._answer: Answer | None = None
        self._skip = 0
        self._position = 0
        self._hash: hashlib._Hash | None = None
        self.seek(0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._drop()

    def seek(self, offset: int, /) -> int:
        """Go to a position. Only what is read from the beginning on is checked against the digest."""
        if offset != self._position or self._hash is None:
            self._drop()
            self._hash = None if offset else hashlib.new(self._blob.digest.algorithm)
            self._position = offset
        return offset

    def read(self, size: int = -1, /) -> bytes:
        """Return up to `size` bytes; empty at the end.

        Raises:
            UnreadableError: The registry does not give it, or breaks off again and again.
            DigestMismatch, SizeMismatch: It is not what the descriptor promises.
        """
        for attempt in range(1, _BREAKS + 1):
            try:
                data = self._read_once(_CHUNK_BYTES if size < 0 else size)
            except RegistryUnavailable as error:
                self._drop()
                if attempt == _BREAKS:
                    raise UnreadableError(error) from error
            except RegistryError as error:
                raise UnreadableError(error) from error
            else:
                break
        self._position += len(data)
        if self._position > self._blob.size:
            raise SizeMismatch(self._what, expected=self._blob.size, actual=self._position)
        if self._hash is not None:
            self._hash.update(data)
            self._check(at_end=not data)
        self._on_bytes(self._position)
        return data

    def _check(self, *, at_end: bool) -> None:
        if not at_end or self._hash is None:
            return
        actual = f"{self._blob.digest.algorithm}:{self._hash.hexdigest()}"
        if actual != self._blob.digest:
            raise DigestMismatch(self._what, expected=self._blob.digest, actual=actual)

    def _read_once(self, size: int) -> bytes:
        if self._position == self._blob.size and self._answer is None:
            return b""
        answer = self._answer = self._answer or self._open()
        while self._skip:
            skipped = answer.read(min(self._skip, _CHUNK_BYTES))
            if not skipped:
                break
            self._skip -= len(skipped)
        data = answer.read(size)
        if not data and self._position < self._blob.size:
            raise RegistryUnavailable(f"{self._what}: ends after {self._position} of {self._blob.size} bytes")
        return data

    def _open(self) -> Answer:
        headers = {"Range": f"bytes={self._position}-"} if self._position else {}
        answer = self._repository.request("GET", f"blobs/{self._blob.digest}", self._what, headers)
        try:
            self._skip = self._checked(answer)
        except BaseException:
            answer.close()
            raise
        return answer

    def _checked(self, answer: Answer) -> int:
        """Return how many of the bytes that come are not wanted."""
        if answer.status not in {_OK, _PARTIAL}:
            raise refused(answer.refusal(), self._what)
        if answer.headers.get("content-encoding", "identity") != "identity":
            raise RegistryError(f"{self._what}: comes encoded although that was not asked for")
        return bytes_to_skip(answer, self._position, self._what)

    def _drop(self) -> None:
        answer, self._answer = self._answer, None
        if answer is not None:
            answer.close()


def bytes_to_skip(answer: Answer, offset: int, what: str) -> int:
    """Return how many bytes of an answer to a request from `offset` on are here already."""
    if answer.status == _OK:
        return offset  # the registry does not do ranges and begins anew
    match = _RANGE.fullmatch(answer.headers.get("content-range", ""))
    if match is None or int(match[1]) != offset:
        raise RegistryError(f"{what}: the registry answered with another range than was asked for")
    return 0
