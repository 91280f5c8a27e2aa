"""A registry of one's own, in this process: for tests, continuous integration, sites without a network."""

from __future__ import annotations

import os
import warnings
import weakref
from typing import TYPE_CHECKING

from containerlib.errors import InvalidOption, UnsupportedHost

if TYPE_CHECKING:
    import tempfile
    from collections.abc import Callable
    from types import TracebackType
    from typing import Self

    from containerlib.api.engine import Engine
    from containerlib.registry.server.cache import Cache
    from containerlib.registry.server.service import ServerSettings
    from containerlib.registry.server.start import Endpoint, Running
    from containerlib.registry.server.storage import Storage
    from containerlib.registry.server.uploads import UploadLimits

__all__ = ["RegistryServer", "serve"]


class RegistryServer:
    """A registry that serves until it is closed; a context manager.

    It has a thread of its own and nothing else of this process: no signal handler, no event loop of the
    caller's. Made by `Registry.serve`.
    """

    def __init__(
        self, running: Running, storage: str, temporary: tempfile.TemporaryDirectory[str] | None
    ) -> None:
        # Also at the end of the interpreter, when its other threads can still run; in __del__ it is too late.
        self._end = weakref.finalize(self, _end, running, temporary)
        self._scheme, self._host, self._port = running.scheme, running.host, running.port
        self._storage = storage

    def __repr__(self) -> str:
        state = "serves" if self._end.alive else "closed"
        return f"<RegistryServer {self.url} {self._storage} {state}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if self._end.alive:
            warnings.warn(f"{self!r} was not closed", ResourceWarning, stacklevel=2, source=self)
            self.close()

    @property
    def host(self) -> str:
        """Address that it is bound to."""
        return self._host

    @property
    def port(self) -> int:
        """Port that it is bound to."""
        return self._port

    @property
    def name(self) -> str:
        """Host and port, as they stand before the name of an image: ``127.0.0.1:5000``."""
        return f"[{self._host}]:{self._port}" if ":" in self._host else f"{self._host}:{self._port}"

    @property
    def url(self) -> str:
        """Scheme, host and port: ``http://127.0.0.1:5000``."""
        return f"{self._scheme}://{self.name}"

    def close(self) -> None:
        """Stop to serve; requests that are going on have some seconds to end. Safe to call again."""
        self._end()


def _end(running: Running, temporary: tempfile.TemporaryDirectory[str] | None) -> None:
    running.stop()
    if temporary is not None:
        temporary.cleanup()


def serve(
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    directory: str | os.PathLike[str] | None = None,
    engine: Engine | None = None,
    htpasswd: str | os.PathLike[str] | None = None,
    token_auth: bool = False,
    authorize: Callable[[str, str, str], bool] | None = None,
    tls_cert: str | os.PathLike[str] | None = None,
    tls_key: str | os.PathLike[str] | None = None,
    allow_anonymous: bool = False,
    public_url: str | None = None,
    read_only: bool = False,
    allow_delete: bool = True,
    upstream: str | None = None,
    max_blob_bytes: int = 64 << 30,
    max_uploads: int = 256,
    upload_expiry_s: float = 3600.0,
    min_chunk_bytes: int = 0,
    stall_timeout_s: float = 60.0,
) -> RegistryServer:
    """Serve images by the protocol that docker, podman, skopeo and this library speak.

    Returns when clients can connect. Every blob is verified before it is published. Nothing of an upload is
    visible before it is complete, and whatever kills this process leaves nothing by half.

    Args:
        host: Address or name to bind to.
        port: Port to bind to; 0 for a free one, which `RegistryServer.port` tells.
        directory: Where images are kept; made if it is missing. Without it and without `engine` they are in
            a temporary directory and go with the server.
        engine: Serve the images of this engine, and push into it: ``HOST/team/app:1`` is ``team/app:1``
            there.
        htpasswd: File of users, as ``htpasswd -B`` writes it; None lets everybody in.
        token_auth: Have clients fetch a short-lived token with their password, instead of sending the
            password with each request.
        authorize: Called with user, repository and ``pull``, ``push`` or ``delete``; returns whether that is
            allowed. Called from other threads. None allows every user everything.
        tls_cert: File of the certificate and its chain, in PEM form; None for plain http.
        tls_key: File of its key.
        allow_anonymous: Let everybody in on an address that is not this machine's own.
        public_url: Scheme and host by which clients come, such as ``https://registry.site``, if a proxy
            stands in between; tokens are fetched there.
        read_only: Refuse everything that changes something.
        allow_delete: Whether manifests, tags and blobs can be deleted.
        upstream: Be a cache of this registry, such as ``docker.io``: what is not here is fetched from there,
            verified and kept. Nothing can be pushed. Needs a directory of its own.
        max_blob_bytes: Size of the largest blob.
        max_uploads: How many uploads may be open at a time, or how many blobs a cache may be fetching.
        upload_expiry_s: How long an upload stays open without a request.
        min_chunk_bytes: Asks clients for chunks of at least this size; 0 says nothing about it.
        stall_timeout_s: How long a client may take for the next 16 KiB that it sends, and for the next bytes
            that it is sent.

    Raises:
        InvalidOption: Options contradict each other, a file cannot be used, or everybody would be let in on
            an address that others reach.
        UnsupportedHost: The extra ``containerlib[serve]`` is not installed.
        OSError: The address cannot be bound.

    Source: OCI distribution-spec 1.1.
    """
    _check(directory=directory, engine=engine, upstream=upstream, read_only=read_only)
    _check_numbers(stall_timeout_s=stall_timeout_s)
    _need_extra()
    from containerlib._util.http_service import HttpLimits  # noqa: PLC0415 - needs the extra
    from containerlib.registry.server.service import ServerSettings  # noqa: PLC0415
    from containerlib.registry.server.start import Endpoint  # noqa: PLC0415

    endpoint = Endpoint(
        host=host,
        port=port,
        htpasswd=_path(htpasswd),
        by_token=token_auth,
        authorize=authorize,
        tls_cert=_path(tls_cert),
        tls_key=_path(tls_key),
        allow_anonymous=allow_anonymous,
        public_url=public_url,
        limits=HttpLimits(stall_timeout_s=stall_timeout_s),
    )
    settings = ServerSettings(
        read_only=read_only,
        allow_delete=allow_delete,
        stall_timeout_s=stall_timeout_s,
        uploads=_uploads(max_blob_bytes, max_uploads, upload_expiry_s, min_chunk_bytes),
    )
    return _start(endpoint, settings, _storage(_path(directory), engine), upstream)


def _uploads(
    max_blob_bytes: int, max_uploads: int, upload_expiry_s: float, min_chunk_bytes: int
) -> UploadLimits:
    from containerlib.registry.server.uploads import UploadLimits  # noqa: PLC0415 - needs the extra

    _check_numbers(max_blob_bytes=max_blob_bytes, max_uploads=max_uploads, upload_expiry_s=upload_expiry_s)
    if min_chunk_bytes < 0:
        raise InvalidOption("min_chunk_bytes", min_chunk_bytes, "give 0 or more")
    return UploadLimits(
        blob_bytes=max_blob_bytes,
        open_uploads=max_uploads,
        expiry_s=upload_expiry_s,
        min_chunk_bytes=min_chunk_bytes,
    )


def _check_numbers(**numbers: float) -> None:
    for option, value in numbers.items():
        if not value > 0:
            raise InvalidOption(option, value, "give more than 0")


def _start(
    endpoint: Endpoint,
    settings: ServerSettings,
    place: tuple[Storage, str, tempfile.TemporaryDirectory[str] | None],
    upstream: str | None,
) -> RegistryServer:
    """Start a server over its storage, or give the storage up again."""
    from containerlib.registry.server.start import start  # noqa: PLC0415 - needs the extra

    storage, where, temporary = place
    try:
        running = start(endpoint, storage, settings, _cache(upstream, storage, settings.uploads))
    except BaseException:
        storage.close()
        if temporary is not None:
            temporary.cleanup()
        raise
    return RegistryServer(running, where, temporary)


def _check(*, directory: object, engine: Engine | None, upstream: str | None, read_only: bool) -> None:
    if directory is not None and engine is not None:
        raise InvalidOption("directory", directory, "give a directory or an engine, not both")
    if upstream is not None and engine is not None:
        raise InvalidOption("upstream", upstream, "a cache has a directory of its own, and no engine")
    if upstream is not None and read_only:
        raise InvalidOption(
            "read_only", read_only, "a cache takes nothing from clients, and has to keep things"
        )


def _need_extra() -> None:
    from importlib.util import find_spec  # noqa: PLC0415 - needed by who serves

    missing = [name for name in ("aiohttp", "bcrypt") if find_spec(name) is None]
    if missing:
        raise UnsupportedHost(
            "serving a registry",
            needed="pip install 'containerlib[serve]'",
            found=f"no {' and no '.join(missing)}",
        )


def _path(path: str | os.PathLike[str] | None) -> str | None:
    return None if path is None else os.path.abspath(os.fspath(path))


def _cache(upstream: str | None, storage: Storage, limits: UploadLimits) -> Callable[[], Cache] | None:
    """Return what makes the cache before `storage`; None without another registry."""
    if upstream is None:
        return None
    from containerlib.registry.client import Registries  # noqa: PLC0415 - as above
    from containerlib.registry.credentials import Credentials  # noqa: PLC0415
    from containerlib.registry.mirrors import RegistriesConfig  # noqa: PLC0415
    from containerlib.registry.server.cache import Cache, check_upstream  # noqa: PLC0415
    from containerlib.registry.transport import TransportSettings  # noqa: PLC0415

    check_upstream(upstream)
    config = RegistriesConfig.load()
    credentials = Credentials.load(default_helpers=config.credential_helpers)
    # Clients wait meanwhile, so this is less patient than they are.
    settings = TransportSettings(stall_timeout_s=20.0, attempts=2, max_wait_s=2.0)

    def make() -> Cache:
        registries = Registries(credentials, settings)
        return Cache(
            upstream,
            storage,
            registries,
            config,
            max_blob_bytes=limits.blob_bytes,
            max_downloads=limits.open_uploads,
        )

    return make


def _storage(
    directory: str | None, engine: Engine | None
) -> tuple[Storage, str, tempfile.TemporaryDirectory[str] | None]:
    """Return where images are kept, how that is called, and what has to be removed in the end."""
    import tempfile  # noqa: PLC0415 - needed by who serves

    from containerlib.registry.server.directory import DirectoryStorage  # noqa: PLC0415

    if directory is not None:
        return DirectoryStorage(directory), directory, None
    if engine is not None:
        from containerlib.image.served import ServedImages  # noqa: PLC0415

        return ServedImages(engine._session.stores), engine.root, None  # noqa: SLF001 - a part of the engine
    temporary = tempfile.TemporaryDirectory(prefix="containerlib-registry-")
    return DirectoryStorage(temporary.name), temporary.name, temporary
