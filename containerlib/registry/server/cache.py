"""A cache of another registry: what is not in the storage is fetched from there, verified, and kept.

A digest is fetched once, however many ask for it at the same time. What a tag means is asked of the other
registry each time, which costs it a ``HEAD``; if it cannot be reached, what is here is served.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from aiohttp import web

from containerlib.errors import (
    AuthenticationFailed,
    ContainerlibError,
    DigestMismatch,
    InvalidInputError,
    InvalidOption,
    InvalidReference,
    RateLimited,
    RegistryBlocked,
    RegistryError,
    RegistryUnavailable,
    RemoteNotFound,
)
from containerlib.oci.descriptor import Descriptor
from containerlib.oci.digest import Digest
from containerlib.oci.manifest import parse_manifest
from containerlib.oci.reference import Reference
from containerlib.registry.answers import refused
from containerlib.registry.listing import list_tags
from containerlib.registry.referrers import list_referrers
from containerlib.registry.server.flight import Flight
from containerlib.registry.server.refused import Refused
from containerlib.registry.server.sending import blob_headers
from containerlib.registry.server.storage import StoredManifest

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from containerlib.registry.client import Registries, RepositoryClient
    from containerlib.registry.mirrors import RegistriesConfig
    from containerlib.registry.server.service import Call
    from containerlib.registry.server.storage import Storage

__all__ = ["Cache", "check_upstream"]

T = TypeVar("T")

_OCTETS = "application/octet-stream"
_OK, _NOT_FOUND = 200, 404
_WORKERS = 8
_DOWN = (RegistryUnavailable, RateLimited)


def check_upstream(host: str) -> None:
    """Refuse what is not the host of a registry.

    Raises:
        InvalidOption: It is not.
    """
    try:
        is_host = Reference.parse(f"{host}/a/b").registry == host
    except InvalidReference:
        is_host = False
    if not is_host:
        raise InvalidOption("upstream", host, "give the host of a registry, such as docker.io or host:5000")


class Cache:
    """The registry behind ours."""

    def __init__(
        self,
        host: str,
        storage: Storage,
        registries: Registries,
        config: RegistriesConfig,
        *,
        max_blob_bytes: int,
        max_downloads: int,
    ) -> None:
        """Prepare; contacts nobody.

        Args:
            host: Of the other registry.
            storage: Where what is fetched is kept.
            registries: How registries are reached; closed in the end.
            config: Where they are.
            max_blob_bytes: Size of the largest blob that is fetched.
            max_downloads: How many blobs may be on their way at a time.
        """
        self._host = host
        self._storage = storage
        self._registries = registries
        self._config = config
        self._max_blob_bytes = max_blob_bytes
        self._max_downloads = max_downloads
        self._pool = concurrent.futures.ThreadPoolExecutor(_WORKERS, "containerlib-upstream")
        self._asked: dict[tuple[str, str], asyncio.Task[Any]] = {}
        self._flights: dict[Digest, Flight] = {}

    async def manifest(self, repository: str, reference: str | Digest) -> StoredManifest | None:
        """Return what a tag or digest means; None if there is no such thing.

        Raises:
            Refused: It is not here, and cannot be fetched.
        """
        loop = asyncio.get_running_loop()
        stored = await loop.run_in_executor(None, self._storage.find_manifest, repository, reference)
        if stored is not None and isinstance(reference, Digest):
            return stored
        return await self._once(
            (repository, reference), lambda: self._elsewhere(self._refresh, repository, reference, stored)
        )

    async def tags(self, repository: str) -> list[str]:
        """Return the tags there; those that are here if it cannot be reached."""
        return await self._elsewhere(self._tags, repository)

    async def referrers(self, repository: str, subject: Digest) -> list[Descriptor]:
        """Return what refers to a manifest there; what is here if it cannot be reached."""
        return await self._elsewhere(self._referrers, repository, subject)

    async def blob(self, call: Call, digest: Digest) -> web.StreamResponse | None:
        """Answer with a blob while it is being fetched; None if it is in the storage by now.

        Raises:
            Refused: It is not here, and cannot be fetched.
        """
        loop = asyncio.get_running_loop()
        if await loop.run_in_executor(None, self._storage.blob_size, call.repository, digest) is not None:
            return None
        headers = blob_headers(digest)
        if call.request.method == "HEAD":
            size = await self._elsewhere(self._size, call.repository, digest)
            return web.Response(headers={**headers, "Content-Length": str(size)})
        flight = await self._once((call.repository, digest), lambda: self._begin(call.repository, digest))
        try:
            if flight.total and not flight.has_ended and "Range" not in call.request.headers:
                return await flight.send(call.request, headers)
            await flight.wait()
        except (ContainerlibError, ConnectionAbortedError) as error:
            _refuse(error)
        if flight.repository != call.repository:
            await loop.run_in_executor(None, self._storage.mount, call.repository, flight.repository, digest)
        return None

    def stop(self) -> None:
        """End what is being fetched, so that nobody waits for it."""
        for flight in list(self._flights.values()):
            flight.stop()

    async def close(self) -> None:
        """Wait for downloads to notice that they have ended."""
        self.stop()
        self._registries.close()
        await asyncio.get_running_loop().run_in_executor(
            None, lambda: self._pool.shutdown(wait=True, cancel_futures=True)
        )

    async def _once(self, key: tuple[str, str], make: Callable[[], Awaitable[T]]) -> T:
        """Do something once for all who want it at the same time."""
        task: asyncio.Task[T] | None = self._asked.get(key)
        if task is None:

            async def work() -> T:
                return await make()

            task = asyncio.create_task(work())
            self._asked[key] = task
            task.add_done_callback(
                lambda done: (self._asked.pop(key, None), done.cancelled() or done.exception())
            )
        return await asyncio.shield(task)

    async def _elsewhere(self, function: Callable[..., T], *args: object) -> T:
        """Call what asks the other registry, in a thread, and say what its failure means to clients."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, function, *args)
        except ContainerlibError as error:
            _refuse(error)

    async def _begin(self, repository: str, digest: Digest) -> Flight:
        """Begin to fetch a blob, or find it being fetched."""
        flight = self._flights.get(digest)
        if flight is not None:
            return flight
        if len(self._flights) >= self._max_downloads:
            raise Refused(
                "TOOMANYREQUESTS",
                f"{self._max_downloads} blobs are being fetched; try again later",
                headers={"Retry-After": "10"},
            )
        loop = asyncio.get_running_loop()
        size = await self._elsewhere(self._size, repository, digest)
        incoming = await loop.run_in_executor(None, self._storage.begin, digest.algorithm, size)
        other = self._flights.get(digest)
        if other is not None:
            incoming.discard()
            return other
        flight = self._flights[digest] = Flight(repository, digest, size, incoming)

        def fetch() -> None:
            try:
                self._client(repository).download(Descriptor(_OCTETS, digest, size), flight)
                if incoming.digest != digest:
                    raise DigestMismatch(f"blob of {self._host}", expected=digest, actual=incoming.digest)
                self._storage.commit(repository, incoming, digest)
            finally:
                incoming.discard()

        def ended(done: asyncio.Future[None]) -> None:
            self._flights.pop(digest, None)
            flight.end(ConnectionAbortedError("stopped") if done.cancelled() else done.exception())

        loop.run_in_executor(self._pool, fetch).add_done_callback(ended)
        return flight

    def _client(self, repository: str) -> RepositoryClient:
        reference = Reference.parse(f"{self._host}/{repository}", default_tag=None)
        return self._registries.repository(self._config.sources(reference)[-1])

    def _refresh(
        self, repository: str, reference: str | Digest, stored: StoredManifest | None
    ) -> StoredManifest | None:
        """Return what a reference means there, and keep it; what is here if it cannot be reached."""
        client = self._client(repository)
        try:
            if stored is not None and client.describe_manifest(reference).digest == stored.digest:
                return stored
            descriptor, raw = client.fetch_manifest(reference)
        except RemoteNotFound:
            return None
        except _DOWN:
            if stored is None:
                raise
            return stored
        document = parse_manifest(raw, descriptor.media_type)
        tags = [] if isinstance(reference, Digest) else [reference]
        self._storage.put_manifest(repository, document, descriptor.digest, tags)
        return StoredManifest(descriptor.media_type, descriptor.digest, raw)

    def _tags(self, repository: str) -> list[str]:
        client = self._client(repository)
        try:
            return sorted(list_tags(client, client.source.name))
        except RemoteNotFound:
            return []
        except _DOWN:
            return self._storage.tags(repository)

    def _referrers(self, repository: str, subject: Digest) -> list[Descriptor]:
        try:
            found = list_referrers(self._client(repository), subject)
        except _DOWN:
            return self._storage.referrers(repository, subject)
        return sorted(found, key=lambda each: each.digest)

    def _size(self, repository: str, digest: Digest) -> int:
        """Return the size of a blob there."""
        client = self._client(repository)
        what = f"blob {digest} of {client.source.name}"
        with client.request("HEAD", f"blobs/{digest}", what) as answer:
            if answer.status == _NOT_FOUND:
                raise RemoteNotFound(
                    f"{what}: not there", method="HEAD", status=_NOT_FOUND, codes=("BLOB_UNKNOWN",)
                )
            length = answer.headers.get("content-length", "")
            if answer.status != _OK or not length.isdecimal():
                raise refused(answer.refusal(), what)
        if int(length) > self._max_blob_bytes:
            raise InvalidInputError(
                f"{what}: {length} bytes, more than the {self._max_blob_bytes} allowed here"
            )
        return int(length)


def _refuse(error: BaseException) -> NoReturn:
    """Say to a client what went wrong between us and the other registry."""
    if isinstance(error, RemoteNotFound):
        code = "BLOB_UNKNOWN" if "BLOB_UNKNOWN" in error.codes else "MANIFEST_UNKNOWN"
        raise Refused(code, str(error)) from None
    if isinstance(error, (AuthenticationFailed, RegistryBlocked)):
        raise Refused("DENIED", str(error)) from None
    if isinstance(error, InvalidReference):
        raise Refused("NAME_INVALID", str(error)) from None
    status = 503 if isinstance(error, (RegistryError, ConnectionAbortedError)) else 502
    raise Refused("UNAVAILABLE", str(error), status=status) from None
