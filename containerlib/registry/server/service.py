"""What the handlers of the registry share: its storage, its rules, and how bodies are read."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar

import attrs
from aiohttp import ClientError, web

from containerlib.errors import SizeMismatch
from containerlib.registry.server.refused import Refused
from containerlib.registry.server.uploads import UploadLimits, Uploads

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from containerlib.registry.server.access import AccessControl, Grant
    from containerlib.registry.server.cache import Cache
    from containerlib.registry.server.route import Route
    from containerlib.registry.server.storage import Incoming, Storage

__all__ = ["Call", "ServerSettings", "Service", "body_length", "read_body", "receive"]

T = TypeVar("T")

_WRITE_BYTES = 1 << 18
_PACE_BYTES = 16 << 10


@attrs.frozen(kw_only=True)
class ServerSettings:
    """How a registry behaves.

    Attributes:
        read_only: Whether nothing can be pushed or deleted.
        allow_delete: Whether manifests, tags and blobs can be deleted.
        stall_timeout_s: For the next 16 KiB of a body, or for its end.
        uploads: What uploads may take.
    """

    read_only: bool = False
    allow_delete: bool = True
    stall_timeout_s: float = 60.0
    uploads: UploadLimits = attrs.field(factory=UploadLimits)


@attrs.frozen
class Call:
    """One request: what it is about, and what its sender may do."""

    request: web.Request
    route: Route
    query: Mapping[str, list[str]]
    grant: Grant

    @property
    def repository(self) -> str:
        """The repository it is about."""
        return self.route.repository

    def parameter(self, name: str) -> str | None:
        """Return one parameter of the query; the last if there are several."""
        return self.query.get(name, [None])[-1]


class Service:
    """One registry, in the thread of its event loop."""

    def __init__(
        self, storage: Storage, access: AccessControl, settings: ServerSettings, cache: Cache | None = None
    ) -> None:
        self.storage = storage
        self.access = access
        self.settings = settings
        self.cache = cache
        self.uploads = Uploads(settings.uploads, asyncio.get_running_loop().time)

    async def run(self, function: Callable[..., T], *args: Any) -> T:
        """Call what may block in another thread."""
        return await asyncio.get_running_loop().run_in_executor(None, function, *args)

    async def unknown(self, repository: str, otherwise: Refused) -> Refused:
        """Return the refusal for something that is not there: perhaps the repository is not."""
        if await self.run(self.storage.has_repository, repository):
            return otherwise
        return Refused("NAME_UNKNOWN", f"there is no repository {repository!r}")


def body_length(request: web.Request) -> int | None:
    """Return how long the body says it is; None if it does not.

    Raises:
        Refused: It comes encoded, so that its bytes are not those that are meant.
    """
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise Refused("UNSUPPORTED", "bodies must not be encoded", status=415)
    return request.content_length


async def read_body(request: web.Request, limit: int, stall_timeout_s: float) -> bytes:
    """Return a whole body that is small.

    Raises:
        Refused: It is larger than `limit`, stalls or breaks off.
    """
    length = body_length(request)
    data = bytearray()
    if length is None or length <= limit:
        body = _Body(request, stall_timeout_s)
        while chunk := await body.read():
            data += chunk
            if len(data) > limit:
                break
        else:
            return bytes(data)
    raise Refused("SIZE_INVALID", f"the body has more than {limit} bytes", status=413)


async def receive(service: Service, request: web.Request, incoming: Incoming) -> int:
    """Append the body of a request to a blob; return how many bytes came.

    What has come before the body breaks off is kept.

    Raises:
        Refused: The blob gets too large, or the body stalls or breaks off.
    """
    limit = service.settings.uploads.blob_bytes
    length = body_length(request)
    too_large = Refused("SIZE_INVALID", f"blobs have at most {limit} bytes here", status=413)
    if length is not None and incoming.size + length > limit:
        raise too_large
    try:
        return await _copy(service, request, incoming)
    except SizeMismatch:
        raise too_large from None


async def _copy(service: Service, request: web.Request, incoming: Incoming) -> int:
    before = incoming.size
    waiting: list[bytes] = []
    size = 0
    writing: asyncio.Task[int] | None = None  # hashing and writing go on while the next bytes come
    body = _Body(request, service.settings.stall_timeout_s)
    try:
        while chunk := await body.read():
            waiting.append(chunk)
            size += len(chunk)
            if size >= _WRITE_BYTES:
                data, waiting, size = b"".join(waiting), [], 0
                if writing is not None:
                    await writing
                writing = asyncio.create_task(service.run(incoming.write, data))
    finally:
        if writing is not None:
            await writing
        if waiting:
            await service.run(incoming.write, b"".join(waiting))
    return incoming.size - before


class _Body:
    """The body of a request, as long as it keeps a least pace."""

    def __init__(self, request: web.Request, stall_timeout_s: float) -> None:
        self._request = request
        self._stall_timeout_s = stall_timeout_s
        self._clock = asyncio.get_running_loop().time
        self._deadline = self._clock() + stall_timeout_s
        self._since = 0

    async def read(self) -> bytes:
        """Return the next bytes; empty at the end."""
        try:
            async with asyncio.timeout_at(self._deadline):
                data = await self._request.content.readany()
        except TimeoutError:
            headers = {"Connection": "close"}
            raise Refused("SIZE_INVALID", "the body stalls", status=408, headers=headers) from None
        except (ClientError, ConnectionError, web.RequestPayloadError):
            raise Refused("SIZE_INVALID", "the body breaks off") from None
        self._since += len(data)
        if self._since >= _PACE_BYTES:
            self._since, self._deadline = 0, self._clock() + self._stall_timeout_s
        return data
