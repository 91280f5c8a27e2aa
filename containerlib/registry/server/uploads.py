"""Uploads that are open: each a blob that is coming, which one request after another adds to.

They live in the memory of this process and end with it. Their number, their size and the time between two
requests are bounded. Everything here runs in the thread of the event loop.

Source: OCI distribution-spec 1.1, "Pushing blobs".
"""

from __future__ import annotations

import contextlib
import uuid
from typing import TYPE_CHECKING

import attrs

from containerlib.registry.server.refused import Refused

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from containerlib.registry.server.storage import Incoming

__all__ = ["Upload", "UploadLimits", "Uploads"]

_RETRY_S = 10


@attrs.frozen(kw_only=True)
class UploadLimits:
    """What uploads may take.

    Attributes:
        blob_bytes: Size of one blob.
        open_uploads: How many at a time.
        expiry_s: How long one stays open without a request.
        min_chunk_bytes: Chunks smaller than this are discouraged; 0 says nothing about it.
    """

    blob_bytes: int = 64 << 30
    open_uploads: int = 256
    expiry_s: float = 3600.0
    min_chunk_bytes: int = 0


@attrs.define(eq=False)
class Upload:
    """One upload."""

    id: str
    repository: str
    incoming: Incoming
    last_used: float
    is_busy: bool = False


class Uploads:
    """The uploads of one registry."""

    def __init__(self, limits: UploadLimits, clock: Callable[[], float]) -> None:
        """Begin without any.

        Args:
            limits: What they may take.
            clock: Monotonic time in seconds.
        """
        self._limits = limits
        self._clock = clock
        self._open: dict[str, Upload] = {}
        self._reserved = 0

    @property
    def limits(self) -> UploadLimits:
        """What uploads may take."""
        return self._limits

    async def begin(self, repository: str, make: Callable[[], Awaitable[Incoming]]) -> Upload:
        """Open an upload.

        Args:
            repository: Where to.
            make: Begins the blob.

        Raises:
            Refused: Too many are open.
        """
        if len(self._open) + self._reserved >= self._limits.open_uploads:
            raise Refused(
                "TOOMANYREQUESTS",
                f"{self._limits.open_uploads} uploads are open; end one, or try again later",
                headers={"Retry-After": str(_RETRY_S)},
            )
        self._reserved += 1
        try:
            incoming = await make()
        finally:
            self._reserved -= 1
        upload = Upload(str(uuid.uuid4()), repository, incoming, self._clock())
        self._open[upload.id] = upload
        return upload

    def get(self, repository: str, upload_id: str) -> Upload:
        """Return an open upload of a repository.

        Raises:
            Refused: There is none, or not any more.
        """
        upload = self._open.get(upload_id)
        if upload is None or upload.repository != repository:
            raise Refused("BLOB_UPLOAD_UNKNOWN", f"there is no upload {upload_id}; it may have expired")
        return upload

    @contextlib.contextmanager
    def use(self, upload: Upload) -> Iterator[None]:
        """Have an upload for the length of a block, alone.

        Raises:
            Refused: Another request has it.
        """
        if upload.is_busy:
            raise Refused("BLOB_UPLOAD_INVALID", "another request is adding to this upload", status=409)
        upload.is_busy = True
        try:
            yield
        finally:
            upload.is_busy = False
            upload.last_used = self._clock()

    def end(self, upload: Upload) -> None:
        """Forget an upload, and what has come of it unless that was committed."""
        self._open.pop(upload.id, None)
        upload.incoming.discard()

    def expire(self) -> int:
        """End the uploads that nobody has used for too long; return how many there were."""
        oldest = self._clock() - self._limits.expiry_s
        stale = [each for each in self._open.values() if not each.is_busy and each.last_used <= oldest]
        for upload in stale:
            self.end(upload)
        return len(stale)

    def close(self) -> None:
        """End all uploads."""
        for upload in list(self._open.values()):
            self.end(upload)
