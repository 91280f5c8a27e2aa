"""An HTTP proxy on loopback that leads every host to one place."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Forwarding", "forwarding"]


@contextlib.contextmanager
def forwarding(port: int, *, refuses: bool = False) -> Iterator[Forwarding]:
    """Run a proxy that leads everything to a port of this machine, or refuses everything."""
    proxy = Forwarding(port, refuses=refuses)
    try:
        yield proxy
    finally:
        proxy.close()


class Forwarding:
    """A proxy that leads every host to one port of this machine, and notes what it was asked for."""

    def __init__(self, port: int, *, refuses: bool) -> None:
        self._port, self._refuses = port, refuses
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self.asked: list[str] = []
        self.heads: list[str] = []
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def close(self) -> None:
        """Take no more connections, and wait for those there are."""
        self._socket.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        self._socket.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._socket.accept()
            except OSError:
                return
            self._threads.append(threading.Thread(target=self._serve, args=(client,)))
            self._threads[-1].start()

    def _serve(self, client: socket.socket) -> None:
        with client, socket.create_connection(("127.0.0.1", self._port)) as server:
            head = b""
            while b"\r\n\r\n" not in head:
                head += (data := client.recv(1 << 16))
                if not data:
                    return
            line = head.partition(b"\r\n")[0].decode()
            self.heads.append(head.decode())
            self.asked.append(" ".join(line.split()[:2]))
            if self._refuses:
                client.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
                return
            if line.startswith("CONNECT "):
                client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            else:
                server.sendall(head)
            _pump(client, server)


def _pump(one: socket.socket, other: socket.socket) -> None:
    ends = {one: other, other: one}
    while True:
        for ready in select.select(list(ends), [], [])[0]:
            try:
                data = ready.recv(1 << 16)
                ends[ready].sendall(data)
            except OSError:
                return
            if not data:
                return
