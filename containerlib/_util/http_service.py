"""An aiohttp application that serves from a thread of its own, with an event loop of its own.

The caller's process keeps its signals, its loop and its main thread. The sockets are bound by the caller, so
a port that was asked for, or given by the kernel, is held before the thread starts. Connections are bounded
in number, and in the time that a client may take for the header of a request and between two requests; how
long a body may take is the application's business. Knows nothing of what is served.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import socket
import threading
from typing import TYPE_CHECKING

import attrs
from aiohttp import web

if TYPE_CHECKING:
    import ssl
    from collections.abc import Awaitable, Callable, Sequence

__all__ = ["HttpLimits", "HttpService", "guarded", "listen"]

_WORKERS = 8
_BACKLOG = 128
_LINGERING_S = 5.0
_READ_BYTES = 1 << 18


@attrs.frozen(kw_only=True)
class HttpLimits:
    """What clients may take.

    Attributes:
        connections: How many at a time; more are dropped as they come.
        header_timeout_s: For the header of a request, from its first byte, and for the first one from the
            connection on; also for the handshake of TLS.
        idle_timeout_s: Between two requests.
        stall_timeout_s: For a client to take the next bytes of an answer.
        drain_timeout_s: For requests that are going on when the service stops.
    """

    connections: int = 256
    header_timeout_s: float = 15.0
    idle_timeout_s: float = 75.0
    stall_timeout_s: float = 60.0
    drain_timeout_s: float = 5.0


class HttpService:
    """One application on some sockets; started once, stopped once."""

    def __init__(
        self,
        make_app: Callable[[], web.Application],
        sockets: Sequence[socket.socket],
        *,
        ssl_context: ssl.SSLContext | None = None,
        limits: HttpLimits | None = None,
        name: str = "http",
    ) -> None:
        """Take over `sockets`, which are closed at the end.

        Args:
            make_app: Makes the application, in the thread that will serve it. Its outermost middleware must
                be `guarded`.
            sockets: Bound, of any family.
            ssl_context: For TLS.
            limits: What clients may take.
            name: Of the threads, for people.
        """
        self._make_app = make_app
        self._sockets = list(sockets)
        self._ssl = ssl_context
        self._limits = limits or HttpLimits()
        self._name = name
        self._thread = threading.Thread(target=self._main, name=f"containerlib-{name}", daemon=True)
        self._started: concurrent.futures.Future[None] = concurrent.futures.Future()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping: asyncio.Event | None = None
        self._guards: set[_Guard] = set()

    def start(self) -> None:
        """Start to serve; returns when connections are accepted, or raises what prevents it."""
        self._thread.start()
        try:
            self._started.result()
        except BaseException:
            self._thread.join()
            raise

    def stop(self) -> None:
        """Accept nothing more, let requests end for a while, and wait for the thread; safe to call again."""
        loop, stopping = self._loop, self._stopping
        if loop is not None and stopping is not None:
            with contextlib.suppress(RuntimeError):  # it is closed already
                loop.call_soon_threadsafe(stopping.set)
        if self._thread.ident is not None and self._thread is not threading.current_thread():
            self._thread.join()
        self._close_sockets()

    def _main(self) -> None:
        try:
            with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
                runner.run(self._serve())
        except BaseException as error:  # noqa: BLE001 - whoever starts it has to know
            if not self._started.done():
                self._started.set_exception(error)
        finally:
            self._close_sockets()

    async def _serve(self) -> None:
        loop = asyncio.get_running_loop()
        self._loop, self._stopping = loop, asyncio.Event()
        loop.set_default_executor(
            concurrent.futures.ThreadPoolExecutor(_WORKERS, f"containerlib-{self._name}-worker")
        )
        runner = web.AppRunner(
            self._make_app(),
            handle_signals=False,
            access_log=None,
            auto_decompress=False,
            read_bufsize=_READ_BYTES,
            lingering_time=_LINGERING_S,
            keepalive_timeout=self._limits.idle_timeout_s,
            shutdown_timeout=self._limits.drain_timeout_s,
        )
        await runner.setup()
        servers: list[asyncio.Server] = []
        try:
            servers += [await self._listen(loop, runner, each) for each in self._sockets]
            self._started.set_result(None)
            await self._stopping.wait()
        finally:
            for server in servers:
                server.close()
            # Ends what is idle, waits for requests that are going on, and then ends those, too.
            await runner.cleanup()
            for guard in list(self._guards):
                guard.abort()

    async def _listen(
        self, loop: asyncio.AbstractEventLoop, runner: web.AppRunner, sock: socket.socket
    ) -> asyncio.Server:
        server = runner.server
        if server is None:  # pragma: no cover - there is one after `setup`
            raise RuntimeError("the application is not set up")
        return await loop.create_server(
            lambda: _Guard(server(), self._guards, self._limits),
            sock=sock,
            ssl=self._ssl,
            backlog=_BACKLOG,
            ssl_handshake_timeout=None if self._ssl is None else self._limits.header_timeout_s,
        )

    def _close_sockets(self) -> None:
        while self._sockets:
            self._sockets.pop().close()


class _Guard(asyncio.Protocol):
    """Stands before aiohttp's own protocol on each connection, and ends those that take too long."""

    def __init__(self, inner: asyncio.Protocol, guards: set[_Guard], limits: HttpLimits) -> None:
        self._inner = inner
        self._guards = guards
        self._limits = limits
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._is_idle = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if not isinstance(transport, asyncio.Transport) or len(self._guards) >= self._limits.connections:
            self._guards.discard(self)
            if isinstance(transport, asyncio.Transport):
                transport.abort()
            return
        self._transport = transport
        self._guards.add(self)
        _limit_stalls(transport.get_extra_info("socket"), self._limits.stall_timeout_s)
        self._start_timer(self._limits.header_timeout_s)
        self._inner.connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        if self in self._guards:
            self._guards.discard(self)
            self._inner.connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._transport is None:
            return
        if self._is_idle:
            self._is_idle = False
            self._start_timer(self._limits.header_timeout_s)
        self._inner.data_received(data)

    def eof_received(self) -> bool | None:
        return self._inner.eof_received() if self._transport is not None else False

    def pause_writing(self) -> None:
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        self._inner.resume_writing()

    def begin_request(self) -> None:
        """Note that the header of a request is complete."""
        self._is_idle = False
        self._stop_timer()

    def end_request(self) -> None:
        """Note that a request is answered."""
        self._is_idle = True
        if self in self._guards:
            self._start_timer(self._limits.idle_timeout_s)

    def abort(self) -> None:
        """End the connection at once."""
        if self._transport is not None:
            self._transport.abort()

    def _start_timer(self, delay_s: float) -> None:
        self._stop_timer()
        self._timer = asyncio.get_running_loop().call_later(delay_s, self.abort)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


@web.middleware
async def guarded(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Tell the connection when a request begins and ends; the outermost middleware of an application."""
    guard = request.transport.get_protocol() if request.transport is not None else None
    if not isinstance(guard, _Guard):
        raise ConnectionResetError("the connection is gone")
    guard.begin_request()
    try:
        return await handler(request)
    finally:
        guard.end_request()


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that is bound to an address; with port 0, to a free port.

    Raises:
        OSError: The address is not this host's, is in use, or has no such name.
    """
    family, kind, protocol, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
        sock.listen(_BACKLOG)
    except BaseException:
        sock.close()
        raise
    return sock


def _limit_stalls(sock: object, stall_timeout_s: float) -> None:
    """Have the kernel end a connection whose other side takes no bytes for too long."""
    if getattr(sock, "family", None) in {socket.AF_INET, socket.AF_INET6}:
        milliseconds = max(1, int(stall_timeout_s * 1000))
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, milliseconds)  # type: ignore[attr-defined]
