"""Connections through proxies: real ones on loopback, of both kinds."""

from __future__ import annotations

import contextlib
import socket
import struct
import sys
import threading
from typing import TYPE_CHECKING

import pytest
from support.cutting_proxy import pump
from support.small_registry import SmallRegistry, serve

import containerlib as cl

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MANIFEST = "application/vnd.oci.image.manifest.v1+json"


class SocksServer:
    """A SOCKS 5 server that leads every name to one place on this machine, and notes the names."""

    def __init__(self, target: str) -> None:
        self.asked: list[str] = []
        self._target = ("127.0.0.1", int(target.rpartition(":")[2]))
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def close(self) -> None:
        """Take no more connections, and wait for those there are."""
        self._socket.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        self._socket.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                thread = threading.Thread(target=self._serve, args=(self._socket.accept()[0],))
                self._threads.append(thread)
                thread.start()

    def _serve(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            stream = client.makefile("rb")
            stream.read(ord(stream.read(2)[1:]))
            client.sendall(b"\x05\x00")
            kind = stream.read(4)[3]
            size = {1: 4, 3: 0, 4: 16}[kind] or ord(stream.read(1))
            name = stream.read(size)
            port = struct.unpack("!H", stream.read(2))[0]
            self.asked.append(f"{name.decode() if kind == 3 else socket.inet_ntoa(name)}:{port}")
            with socket.create_connection(self._target) as target:
                client.sendall(b"\x05\x00\x00\x01\x7f\x00\x00\x01\x00\x00")
                back = threading.Thread(target=pump, args=(target, client))
                back.start()
                pump(client, target)
                back.join()


@pytest.fixture
def small() -> Iterator[SmallRegistry]:
    """Return a registry with one tag."""
    with serve() as running:
        running.manifests["x", "1"] = (MANIFEST, b"{}")
        yield running


@pytest.fixture
def socks(small: SmallRegistry, monkeypatch: pytest.MonkeyPatch) -> Iterator[SocksServer]:
    """Return a proxy that leads everything to that registry, and that the environment names."""
    server = SocksServer(small.host)
    for name in ("HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY", "https_proxy", "http_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ALL_PROXY", f"socks5h://127.0.0.1:{server.port}")
    yield server
    server.close()


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> cl.Engine:
    """Return an engine that reaches a registry without TLS."""
    monkeypatch.setenv("HOME", str(tmp_path))
    config = cl.EngineConfig(insecure_registries=("registry.invalid:5000",))
    return cl.Engine(tmp_path / "r", tmp_path / "n", config)


def test_socks_proxy_is_used(engine: cl.Engine, small: SmallRegistry, socks: SocksServer) -> None:
    """A registry behind a SOCKS proxy is reached, and the proxy looks its name up."""
    assert engine.registry("registry.invalid:5000").tags("x") == ["1"]
    assert set(socks.asked) == {"registry.invalid:5000"}
    assert engine.registry(small.host).tags("x") == ["1"]  # this machine needs no proxy
    assert set(socks.asked) == {"registry.invalid:5000"}


def test_socks_proxy_without_its_package_says_what_to_install(
    engine: cl.Engine, socks: SocksServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without PySocks the error names the extra that brings it, and nobody is asked."""
    monkeypatch.setitem(sys.modules, "socks", None)
    monkeypatch.delitem(sys.modules, "urllib3.contrib.socks", raising=False)
    with pytest.raises(cl.UnsupportedHost, match=r"containerlib\[socks\]"):
        engine.registry("registry.invalid:5000").tags("x")
    assert socks.asked == []


def test_token_service_behind_a_proxy_must_not_be_this_machine(
    engine: cl.Engine, small: SmallRegistry, socks: SocksServer
) -> None:
    """What a proxy would be asked to reach is judged by its name, if that says where it is."""
    small.admits = lambda _request, _scope: False
    for realm, place in (("http://10.0.0.1/token", "the network"), ("http://169.254.169.254/t", "the link")):
        small.challenge = f'Bearer realm="{realm}",service="small"'
        with pytest.raises(cl.AuthenticationFailed, match=place):
            engine.registry("registry.invalid:5000").tags("x")
    assert set(socks.asked) == {"registry.invalid:5000"}
