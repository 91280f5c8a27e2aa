"""The thread in which an HTTP application serves: its sockets, its start and its end."""

from __future__ import annotations

import asyncio
import http.client
import socket
import threading
from typing import TYPE_CHECKING

import pytest
from aiohttp import web

from containerlib._util.http_service import HttpLimits, HttpService, guarded, listen

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path


async def hello(_request: web.Request) -> web.StreamResponse:
    """Answer at once."""
    return web.Response(text="hello")


def app(answer: Callable[[web.Request], Awaitable[web.StreamResponse]] = hello) -> web.Application:
    """Return an application with one handler."""
    made = web.Application(middlewares=[guarded])
    made.router.add_route("*", "/{path:.*}", answer)
    return made


def get(port: int) -> tuple[int, bytes]:
    """Make one request."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("GET", "/")
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def test_several_sockets(tmp_path: Path) -> None:
    """One service answers on a port of the kernel's choice and on a unix socket at the same time."""
    path = str(tmp_path / "sock")
    unix = socket.socket(socket.AF_UNIX)
    unix.bind(path)
    unix.listen()
    tcp = listen("127.0.0.1", 0)
    port = tcp.getsockname()[1]
    service = HttpService(app, [tcp, unix])
    service.start()
    try:
        assert get(port) == (200, b"hello")
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(path)
            client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            answer = b""
            while data := client.recv(4096):
                answer += data
        assert answer.endswith(b"hello")
    finally:
        service.stop()
    service.stop()
    with pytest.raises(ConnectionRefusedError):
        get(port)


def test_port_is_held_before_the_start() -> None:
    """A port belongs to the service from the moment that it is bound, and is free after the end."""
    first = listen("127.0.0.1", 0)
    port = first.getsockname()[1]
    with pytest.raises(OSError, match="in use"):
        listen("127.0.0.1", port)
    HttpService(app, [first]).stop()
    listen("127.0.0.1", port).close()


def test_application_that_cannot_be_made() -> None:
    """What prevents the start is raised by it, and the socket is closed."""

    def fail() -> web.Application:
        raise LookupError("no application")

    sock = listen("127.0.0.1", 0)
    service = HttpService(fail, [sock])
    with pytest.raises(LookupError, match="no application"):
        service.start()
    assert sock.fileno() == -1
    service.stop()


def test_nothing_is_left() -> None:
    """After the end there is no thread more than before, and the caller's event loop was never touched."""
    before = threading.active_count()
    service = HttpService(app, [listen("127.0.0.1", 0)])
    service.start()
    assert threading.active_count() > before
    with pytest.raises(RuntimeError):
        asyncio.get_running_loop()
    service.stop()
    assert threading.active_count() == before


def test_requests_end_before_the_service() -> None:
    """A request that is going on when the service stops is still answered."""
    begun, held = threading.Event(), threading.Event()

    async def slow(_request: web.Request) -> web.StreamResponse:
        begun.set()
        await asyncio.get_running_loop().run_in_executor(None, held.wait, 30)
        return web.Response(text="late")

    sock = listen("127.0.0.1", 0)
    port = sock.getsockname()[1]
    service = HttpService(lambda: app(slow), [sock])
    service.start()
    answers: list[tuple[int, bytes]] = []
    client = threading.Thread(target=lambda: answers.append(get(port)))
    client.start()
    assert begun.wait(30)
    stopping = threading.Thread(target=service.stop)
    stopping.start()
    held.set()
    stopping.join()
    client.join()
    assert answers == [(200, b"late")]


def test_requests_that_do_not_end() -> None:
    """A request that takes longer than it may when the service stops is cut off."""
    begun = threading.Event()

    async def endless(_request: web.Request) -> web.StreamResponse:
        begun.set()
        await asyncio.Event().wait()
        raise AssertionError("nobody sets it")

    sock = listen("127.0.0.1", 0)
    port = sock.getsockname()[1]
    service = HttpService(lambda: app(endless), [sock], limits=HttpLimits(drain_timeout_s=0.1))
    service.start()
    failures: list[BaseException] = []

    def ask() -> None:
        try:
            get(port)
        except (OSError, http.client.HTTPException) as error:
            failures.append(error)

    client = threading.Thread(target=ask)
    client.start()
    assert begun.wait(30)
    service.stop()
    client.join()
    assert len(failures) == 1


def test_host_that_is_not_ours() -> None:
    """An address of another host, or a name that there is not, is an error of the system."""
    for host in ("192.0.2.1", "no-such-host.invalid"):
        with pytest.raises(OSError):  # noqa: PT011 - the system says which
            listen(host, 0)
