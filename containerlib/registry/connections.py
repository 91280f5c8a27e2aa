"""Pools of connections, one per origin: directly, through a proxy, and never to where they must not lead."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from containerlib.errors import UnsupportedHost
from containerlib.registry.addresses import Guard
from containerlib.registry.certificates import tls_context
from containerlib.registry.proxies import Proxies

if TYPE_CHECKING:
    import socket
    import ssl

    from containerlib.registry.addresses import Place

__all__ = ["Connections"]

_BLOCK_BYTES = 1 << 20
_POOLS = 2
_POOL_SIZE = 8


class Connections:
    """All connections of one transport. Shared by threads."""

    def __init__(self) -> None:
        self._proxies = Proxies.load()
        self._pools: dict[tuple[str, bool, frozenset[Place] | None], urllib3.PoolManager] = {}
        self._places: dict[str, Place] = {}
        self._lock = threading.Lock()

    def close(self) -> None:
        """Close every connection that is idle; new ones are made when they are needed."""
        with self._lock:
            pools, self._pools = self._pools, {}
        for pool in pools.values():
            pool.clear()

    def place(self, host: str) -> Place | None:
        """Return where the latest connection to `host` led; None if there was none, or a proxy made it."""
        return self._places.get(host)

    def pool(self, url: str, *, verify: bool, allowed: frozenset[Place] | None) -> urllib3.PoolManager:
        """Return the pool for requests to `url`.

        Args:
            url: Where to.
            verify: Whether the certificate must be valid.
            allowed: Where its host may lead; None for anywhere.

        Raises:
            ForbiddenPlaceError: It leads elsewhere; also later, when a connection is made.
            InvalidInputError: A certificate or a proxy is configured wrongly.
            UnsupportedHost: The proxy needs a package that is not installed.
        """
        parts = urlsplit(url)
        host = parts.netloc.rpartition("@")[2]
        key = (f"{parts.scheme}://{host.lower()}", verify, allowed)
        with self._lock:
            pool = self._pools.get(key)
            if pool is None:
                context = tls_context(host, verify=verify) if parts.scheme == "https" else None
                guard = Guard(allowed, lambda place: self._places.__setitem__(host, place))
                pool = self._pools[key] = self._make(url, context, guard)
            return pool

    def _make(self, url: str, context: ssl.SSLContext | None, guard: Guard) -> urllib3.PoolManager:
        proxy = self._proxies.proxy_for(url)
        if proxy is None:
            pool = urllib3.PoolManager(
                _POOLS, maxsize=_POOL_SIZE, blocksize=_BLOCK_BYTES, ssl_context=context
            )
            pool.pool_classes_by_scheme = _guarded(guard)
            return pool
        # The proxy looks names up, with what it knows of them.
        guard.check_literal(urlsplit(url).hostname or "")
        if not proxy.startswith("socks"):
            return urllib3.ProxyManager(
                proxy, _POOLS, maxsize=_POOL_SIZE, blocksize=_BLOCK_BYTES, ssl_context=context
            )
        try:
            from urllib3.contrib.socks import SOCKSProxyManager  # noqa: PLC0415 - needs an optional package
        except ImportError:
            raise UnsupportedHost(
                "a SOCKS proxy",
                needed="the package PySocks: pip install 'containerlib[socks]'",
                found="none; or use a proxy of scheme http or https",
            ) from None
        return SOCKSProxyManager(
            proxy, num_pools=_POOLS, maxsize=_POOL_SIZE, blocksize=_BLOCK_BYTES, ssl_context=context
        )


def _guarded(guard: Guard) -> dict[str, type[HTTPConnectionPool]]:
    """Return pools whose connections are all made under `guard`, which is asked before anything is sent."""

    class Plain(HTTPConnection):
        def _new_conn(self) -> socket.socket:
            return guard.connect(self._dns_host, self.port, super()._new_conn)

    class Secure(HTTPSConnection):
        def _new_conn(self) -> socket.socket:
            return guard.connect(self._dns_host, self.port, super()._new_conn)

    class PlainPool(HTTPConnectionPool):
        ConnectionCls = Plain

    class SecurePool(HTTPSConnectionPool):
        ConnectionCls = Secure

    return {"http": PlainPool, "https": SecurePool}
