"""Pools of connections, one per origin: directly, through a proxy, and never to where they must not lead."""

from __future__ import annotations

import base64
import threading
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

import urllib3

from containerlib.errors import UnsupportedHost
from containerlib.registry.addresses import Guard
from containerlib.registry.certificates import tls_context
from containerlib.registry.pace import Pace, response_class
from containerlib.registry.proxies import Proxies

if TYPE_CHECKING:
    import socket
    import ssl

    from urllib3.connectionpool import HTTPConnectionPool

    from containerlib.registry.addresses import Place

__all__ = ["Connections"]

# What is sent at once, and must be on its way within the timeout: slow lines have little.
_BLOCK_BYTES = 128 << 10
_POOLS = 2
_POOL_SIZE = 8


class Connections:
    """All connections of one transport. Shared by threads."""

    def __init__(self, pace: Pace) -> None:
        self._pace = pace
        self._proxies = Proxies.load()
        self._pools: dict[tuple[str, bool, frozenset[Place] | None], urllib3.PoolManager] = {}
        self._places: dict[str, Place] = {}
        self._lock = threading.Lock()

    def close(self) -> None:
        """Close every connection that is idle; new ones are made when they are needed."""
        with self._lock:
            managers, self._pools = self._pools, {}
        for manager in managers.values():
            # Its `clear` leaves that to the collector, and an error that is kept keeps its connection.
            for key in manager.pools.keys():  # noqa: SIM118 - it is not iterable otherwise
                manager.pools[key].close()
            manager.clear()

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
        manager: urllib3.PoolManager
        if proxy is None:
            manager = urllib3.PoolManager(
                _POOLS, maxsize=_POOL_SIZE, blocksize=_BLOCK_BYTES, ssl_context=context
            )
            return _adapted(manager, self._pace, guard)
        # The proxy looks names up, with what it knows of them.
        guard.check_literal(urlsplit(url).hostname or "")
        if not proxy.startswith("socks"):
            manager = urllib3.ProxyManager(
                proxy,
                _POOLS,
                proxy_headers=_proxy_headers(proxy),
                maxsize=_POOL_SIZE,
                blocksize=_BLOCK_BYTES,
                ssl_context=context,
            )
            return _adapted(manager, self._pace, None)
        try:
            import socks  # type: ignore[import-untyped]  # noqa: F401, PLC0415 - the next one would warn
            from urllib3.contrib.socks import SOCKSProxyManager  # noqa: PLC0415 - needs an optional package
        except ImportError:
            raise UnsupportedHost(
                "a SOCKS proxy",
                needed="the package PySocks: pip install 'containerlib[socks]'",
                found="none; or use a proxy of scheme http or https",
            ) from None
        manager = SOCKSProxyManager(
            proxy, num_pools=_POOLS, maxsize=_POOL_SIZE, blocksize=_BLOCK_BYTES, ssl_context=context
        )
        return _adapted(manager, self._pace, None)


def _proxy_headers(proxy: str) -> dict[str, str]:
    """Return what shows a proxy the name and the password that its address has."""
    parts = urlsplit(proxy)
    if parts.username is None:
        return {}
    pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return {"Proxy-Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}


def _adapted(manager: urllib3.PoolManager, pace: Pace, guard: Guard | None) -> urllib3.PoolManager:
    """Let all connections of `manager` keep to `pace`, and be made under `guard`, before anything is sent."""
    answers = response_class(pace)

    def adapt(pool: type[HTTPConnectionPool]) -> type[HTTPConnectionPool]:
        class Connection(pool.ConnectionCls):  # type: ignore[name-defined,misc]
            response_class = answers

            def connect(self) -> None:
                super().connect()
                # Who is not verified is so because the user said so, and needs no warning at each request.
                self.is_verified = True

            def _new_conn(self) -> socket.socket:
                connect = super()._new_conn
                return connect() if guard is None else guard.connect(self._dns_host, self.port, connect)

        class Pool(pool):  # type: ignore[valid-type,misc]
            ConnectionCls = Connection

        return Pool

    classes = manager.pool_classes_by_scheme
    manager.pool_classes_by_scheme = {scheme: adapt(pool) for scheme, pool in classes.items()}
    return manager
