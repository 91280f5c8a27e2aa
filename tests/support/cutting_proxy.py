"""A relay to a server on loopback that cuts connections when so many bytes have gone through it."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["CuttingProxy", "cutting_proxy", "pump"]


def pump(source: socket.socket, target: socket.socket) -> None:
    """Pass everything on from one to the other until one of them ends; then end both."""
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    _end(source, target)


def _end(*sockets: socket.socket) -> None:
    for each in sockets:
        with contextlib.suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)


class CuttingProxy:
    """The relay.

    Attributes:
        host: Where it listens.
        sent: How many bytes have gone to the server.
        cuts: How many connections were cut.
    """

    def __init__(self, target: str, cut_at: Sequence[int]) -> None:
        name, _, port = target.rpartition(":")
        self._target = (name, int(port))
        self._cut_at = list(cut_at)
        self._lock = threading.Lock()
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._threads = [threading.Thread(target=self._accept)]
        self.host = f"127.0.0.1:{self._socket.getsockname()[1]}"
        self.sent = 0
        self.cuts = 0

    def start(self) -> None:
        """Begin to take connections."""
        self._threads[0].start()

    def close(self) -> None:
        """Take no more connections, and wait for those there are."""
        _end(self._socket)
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
        with client, socket.create_connection(self._target) as server:
            back = threading.Thread(target=pump, args=(server, client))
            back.start()
            with contextlib.suppress(OSError):
                while (data := client.recv(65536)) and not self._is_cut(len(data)):
                    server.sendall(data)
            _end(client, server)
            back.join()

    def _is_cut(self, size: int) -> bool:
        with self._lock:
            self.sent += size
            if not self._cut_at or self.sent < self._cut_at[0]:
                return False
            del self._cut_at[0]
            self.cuts += 1
            return True


@contextlib.contextmanager
def cutting_proxy(target: str, cut_at: Sequence[int]) -> Iterator[CuttingProxy]:
    """Run a relay to `target` that cuts when so many bytes have been sent, all connections taken together."""
    proxy = CuttingProxy(target, cut_at)
    proxy.start()
    try:
        yield proxy
    finally:
        proxy.close()
