"""Published ports, as far as the kernel does not translate them: what comes by loopback, or by version 6.

A listener is held here from the moment its port was chosen. Clients are hostile: connections and flows are
bounded in number, and none is read from faster than the other side takes it.
"""

from __future__ import annotations

import contextlib
import socket
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from containerlib.network.event_loop import EventLoop

__all__ = ["DatagramProxy", "StreamProxy"]

_CHUNK_BYTES = 64 << 10
_MOST_CONNECTIONS, _MOST_FLOWS = 512, 256
_FLOW_IDLE_S = 60.0
_MOST_DATAGRAM = 65535
_buffer = bytearray(_CHUNK_BYTES)
_room = memoryview(_buffer)


class StreamProxy:
    """A TCP port: each connection is joined with one to the container."""

    def __init__(self, loop: EventLoop, listener: socket.socket, target: tuple[str, int]) -> None:
        self._loop = loop
        self._listener = listener
        self._target = target
        self._pairs: set[_Pair] = set()
        listener.setblocking(False)
        loop.on_readable(listener, self._accept)

    def close(self) -> None:
        """Give the port up, and end the connections."""
        self._loop.close(self._listener)
        for pair in list(self._pairs):
            pair.close()

    def expire(self, now: float) -> None:
        """Nothing here goes by time."""

    def _accept(self) -> None:
        client, _ = self._listener.accept()
        try:
            upstream = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            upstream.setblocking(False)
            client.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                upstream.connect(self._target)
        except OSError:
            client.close()
            raise
        self._pairs.add(_Pair(self, self._loop, client, upstream))
        if len(self._pairs) >= _MOST_CONNECTIONS:
            self._loop.on_readable(self._listener, None)

    def forget(self, pair: _Pair) -> None:
        """A connection has come to its end; another one may wait."""
        self._pairs.discard(pair)
        if self._listener.fileno() >= 0:
            self._loop.on_readable(self._listener, self._accept)


class _Pair:
    """Two connections that are joined."""

    def __init__(
        self, proxy: StreamProxy, loop: EventLoop, client: socket.socket, upstream: socket.socket
    ) -> None:
        self._proxy = proxy
        self._loop = loop
        self._ends = (client, upstream)
        self._left = 2
        for each in self._ends:
            each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        loop.on_writable(upstream, self._connected)

    def close(self) -> None:
        """End both."""
        for each in self._ends:
            self._loop.close(each)
        self._proxy.forget(self)

    def _connected(self) -> None:
        client, upstream = self._ends
        self._loop.on_writable(upstream, None)
        if upstream.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self.close()
            return
        for source, sink in ((client, upstream), (upstream, client)):
            _Half(self, self._loop, source, sink)

    def half_ended(self) -> None:
        """One side has no more to say, and the other one has heard it."""
        self._left -= 1
        if not self._left:
            self.close()


class _Half:
    """What goes one way."""

    def __init__(self, pair: _Pair, loop: EventLoop, source: socket.socket, sink: socket.socket) -> None:
        self._pair = pair
        self._loop = loop
        self._source, self._sink = source, sink
        self._rest = b""
        loop.on_readable(source, self._read)

    def _read(self) -> None:
        try:
            size = self._source.recv_into(_buffer)
        except BlockingIOError:
            return
        except OSError:
            self._pair.close()
            return
        if not size:
            self._end()
            return
        try:
            sent = self._sink.send(_room[:size])
        except BlockingIOError:
            sent = 0
        except OSError:
            self._pair.close()
            return
        if sent < size:
            self._rest = bytes(_room[sent:size])
            self._loop.on_readable(self._source, None)
            self._loop.on_writable(self._sink, self._write)

    def _write(self) -> None:
        try:
            sent = self._sink.send(self._rest)
        except BlockingIOError:
            return
        except OSError:
            self._pair.close()
            return
        self._rest = self._rest[sent:]
        if not self._rest:
            self._loop.on_writable(self._sink, None)
            self._loop.on_readable(self._source, self._read)

    def _end(self) -> None:
        self._loop.on_readable(self._source, None)
        with contextlib.suppress(OSError):
            self._sink.shutdown(socket.SHUT_WR)
        self._pair.half_ended()


class DatagramProxy:
    """A UDP port: each client has a socket of its own towards the container, as long as something comes."""

    def __init__(self, loop: EventLoop, listener: socket.socket, target: tuple[str, int]) -> None:
        self._loop = loop
        self._listener = listener
        self._target = target
        self._flows: dict[Any, socket.socket] = {}
        self._used: dict[Any, float] = {}
        listener.setblocking(False)
        loop.on_readable(listener, self._received)

    def close(self) -> None:
        """Give the port up."""
        self._loop.close(self._listener)
        for client in list(self._flows):
            self._drop(client)

    def expire(self, now: float) -> None:
        """Forget those who have been silent."""
        for client, used in list(self._used.items()):
            if now - used > _FLOW_IDLE_S:
                self._drop(client)

    def _received(self) -> None:
        data, client = self._listener.recvfrom(_MOST_DATAGRAM)
        flow = self._flows.get(client) or self._open(client)
        self._used[client] = time.monotonic()
        flow.send(data)

    def _open(self, client: Any) -> socket.socket:
        if len(self._flows) >= _MOST_FLOWS:
            self._drop(min(self._used, key=lambda each: self._used[each]))
        flow = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        flow.setblocking(False)
        flow.connect(self._target)
        self._flows[client] = flow
        self._loop.on_readable(flow, lambda: self._answered(client))
        return flow

    def _answered(self, client: Any) -> None:
        self._used[client] = time.monotonic()
        self._listener.sendto(self._flows[client].recv(_MOST_DATAGRAM), client)

    def _drop(self, client: Any) -> None:
        self._used.pop(client, None)
        self._loop.close(self._flows.pop(client))
