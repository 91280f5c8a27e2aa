"""The process of the networks of one store: it resolves names, and holds published ports.

It is there as long as a container is in one of them, whoever has started that, and ends some time
afterwards. What it knows it reads from the leases. Sockets come with the messages of `attend`: whoever
starts a container has them from the moment they are chosen.

    python -I -S -c "..." DIRECTORY    standard input: the socket it is told by; output: the lock it lives by
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import resource
import socket
import sys
import time
from typing import TYPE_CHECKING, Any

from containerlib.network.event_loop import EventLoop
from containerlib.network.lease_table import LeaseTable
from containerlib.network.port_proxy import DatagramProxy, StreamProxy
from containerlib.network.resolver import Resolver

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["main"]

_NAME = b"ctr-network"
_MESSAGE_BYTES, _MOST_FDS = 1 << 17, 128
_LOOK_S, _LINGER_S = 0.5, 2.0


class _Network:
    """One network that is served."""

    def __init__(
        self, loop: EventLoop, message: dict[str, Any], udp: socket.socket, tcp: socket.socket
    ) -> None:
        self.document: dict[str, Any] = message["record"]
        self.leases = LeaseTable(str(message["leases"]), str(self.document["name"]))
        inside = str(self.document["subnet"]) if self.document["internal"] else None
        self.resolver = Resolver(loop, self.leases, udp, tcp, inside=inside)

    def close(self) -> None:
        self.resolver.close()
        self.leases.close()


class NetworkProcess:
    """The process's own."""

    def __init__(self, directory: str, control: socket.socket) -> None:
        self._directory = directory
        self._control = control
        self._loop = EventLoop()
        self._networks: dict[str, _Network] = {}
        # By container: the ports that are held, and what the kernel translates of them.
        self._ports: dict[str, list[StreamProxy | DatagramProxy]] = {}
        self._published: dict[str, list[Any]] = {}
        self._next_look = 0.0
        self._busy_at = time.monotonic()
        self._is_over = False
        control.setblocking(False)
        self._loop.on_readable(control, self._told)
        self._loop.on_tick(self._tick)

    def run(self) -> None:
        """Serve until no container is left."""
        while not self._is_over:
            self._loop.turn(_LOOK_S)

    def _told(self) -> None:
        connection, _ = self._control.accept()
        with connection:
            # Whoever connects has sent, or dies.
            connection.settimeout(_LINGER_S)
            data, fds, _, _ = socket.recv_fds(connection, _MESSAGE_BYTES, _MOST_FDS)
            sockets = [socket.socket(fileno=fd) for fd in fds]
            try:
                self._do(json.loads(data), sockets)
            except (KeyError, ValueError):
                for each in sockets:
                    each.close()
            with contextlib.suppress(OSError):
                connection.send(b"1")

    def _do(self, message: dict[str, Any], sockets: list[socket.socket]) -> None:
        self._busy_at = time.monotonic()
        match message["do"]:
            case "serve":
                udp, tcp = sockets
                self._networks[message["record"]["id"]] = _Network(self._loop, message, udp, tcp)
            case "publish":
                held = self._ports.setdefault(message["container"], [])
                self._published[message["container"]] = message["published"]
                for sock, port in zip(sockets, message["ports"], strict=True):
                    kind = StreamProxy if sock.type == socket.SOCK_STREAM else DatagramProxy
                    held.append(kind(self._loop, sock, (message["address"], port)))
            case "release":
                self._release(message["container"])
            case "leave":
                self._leave(message["network"])

    def _release(self, container: str) -> None:
        self._published.pop(container, None)
        for each in self._ports.pop(container, ()):
            each.close()

    def _leave(self, network: str) -> None:
        found = self._networks.pop(network, None)
        if found is not None:
            found.close()
            with contextlib.suppress(FileNotFoundError):
                os.unlink(f"{self._directory}/served-{network}")
        self._next_look = 0.0

    def _tick(self, now: float) -> None:
        if now < self._next_look:
            return
        self._next_look = now + _LOOK_S
        for network in self._networks.values():
            network.resolver.expire(now)
        for each in [each for held in self._ports.values() for each in held]:
            each.expire(now)
        running = self._running()
        for container in self._ports.keys() - running:
            # Nobody was there to say so.
            _remove_translations(self._published[container])
            self._release(container)
        if running:
            self._busy_at = now
        elif not self._networks or now - self._busy_at > _LINGER_S:
            self._end()

    def _running(self) -> set[str]:
        return {
            str(lease.get("container"))
            for network in self._networks.values()
            for lease in network.leases.running()
        }

    def _end(self) -> None:
        """Unless somebody is about to need it: who does holds the lock."""
        lock = os.open(f"{self._directory}/lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if self._running() or _is_readable(self._control):
                return
            self._is_over = True
            for name in os.listdir(self._directory):
                os.unlink(f"{self._directory}/{name}")
            os.rmdir(self._directory)
        except OSError:
            return
        finally:
            os.close(lock)


def _is_readable(listener: socket.socket) -> bool:
    """Whether somebody waits to be accepted; that one is lost otherwise."""
    try:
        connection, _ = listener.accept()
    except OSError:
        return False
    connection.close()
    return True


def _remove_translations(published: list[Any]) -> None:
    from containerlib.network.translation import remove_translations  # noqa: PLC0415 - seldom needed

    with contextlib.suppress(OSError):
        remove_translations(tuple(each) for each in published)


def _raise_limit() -> None:
    """Each connection to a published port takes two descriptors."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def main(arguments: Sequence[str] = sys.argv) -> None:
    """Serve the networks of a store; see the module."""
    with contextlib.suppress(OSError), open("/proc/self/comm", "wb") as file:
        file.write(_NAME)
    _raise_limit()
    control = socket.socket(fileno=os.dup(sys.stdin.fileno()))
    NetworkProcess(arguments[1], control).run()
