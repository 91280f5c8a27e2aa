"""The process of the networks of one store: it resolves names, and holds published ports.

It is there as long as a container is in one of them, whoever has started that, and ends some time
afterwards. What it knows it reads from the leases. Sockets come with the messages of `attend`: whoever
starts a container has them from the moment they are chosen.

    python -I -S -c "..." DIRECTORY    standard input: the socket it is told by; output: the lock it lives by
"""

from __future__ import annotations

import contextlib
import fcntl
import ipaddress
import json
import os
import resource
import socket
import sys
import time
from typing import TYPE_CHECKING, Any

from containerlib.errors import ContainerlibError
from containerlib.network.attend import LOCK, SERVED
from containerlib.network.event_loop import EventLoop
from containerlib.network.lease_table import LeaseTable
from containerlib.network.link import mac_of
from containerlib.network.networks import take_down
from containerlib.network.port_proxy import DatagramProxy, StreamProxy
from containerlib.network.record import DEFAULT, NetworkRecord
from containerlib.network.resolver import Resolver, View
from containerlib.network.rule_watch import RuleWatch
from containerlib.network.sender_lock import lock_sender
from containerlib.network.translation import add_translations, remove_translations
from containerlib.store.layout import Layout

if TYPE_CHECKING:
    from collections.abc import Sequence

    from containerlib.network.translation import Port

__all__ = ["main"]

_NAME = b"ctr-network"
_MESSAGE_BYTES, _MOST_FDS = 1 << 17, 128
_LOOK_S, _LINGER_S = 0.5, 2.0


class _Network:
    """One network that is served."""

    def __init__(self, message: dict[str, Any]) -> None:
        self.record = NetworkRecord.parse(message["record"], "a message")
        self.layout = Layout(*message["store"])
        self.leases = LeaseTable(str(message["leases"]), self.record.name)
        inside = str(self.record.subnet) if self.record.internal else None
        self.view = View(self.leases, inside)
        self.resolver: Resolver | None = None

    def close(self) -> None:
        if self.resolver is not None:
            self.resolver.close()


class _Published:
    """The ports of one container."""

    def __init__(self, message: dict[str, Any]) -> None:
        self.network = str(message["network"])
        self.address = str(message["address"])
        self.ports: list[Port] = [(str(a), str(b), int(c), int(d)) for a, b, c, d in message["published"]]
        self._held: list[StreamProxy | DatagramProxy] = []

    def hold(self, loop: EventLoop, sock: socket.socket, port: int) -> None:
        kind = StreamProxy if sock.type == socket.SOCK_STREAM else DatagramProxy
        self._held.append(kind(loop, sock, (self.address, port)))

    def expire(self, now: float) -> None:
        for each in self._held:
            each.expire(now)

    def close(self) -> None:
        # As long as the sockets are held nobody else has put something in their place.
        with contextlib.suppress(OSError):
            remove_translations(self.ports)
        for each in self._held:
            each.close()


class NetworkProcess:
    """The process's own."""

    def __init__(self, directory: str, control: socket.socket) -> None:
        self._directory = directory
        self._control = control
        self._loop = EventLoop()
        self._networks: dict[str, _Network] = {}
        self._published: dict[str, _Published] = {}  # by container
        self._watch = RuleWatch(self._loop, self._restore)
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
            except (ContainerlibError, KeyError, ValueError):
                for each in sockets:
                    each.close()
            with contextlib.suppress(OSError):
                connection.send(b"1")

    def _do(self, message: dict[str, Any], sockets: list[socket.socket]) -> None:
        self._busy_at = time.monotonic()
        match message["do"]:
            case "serve":
                udp, tcp = sockets
                made = _Network(message)
                made.resolver = Resolver(self._loop, lambda client: self._views(made, client), udp, tcp)
                self._networks[made.record.id] = made
                self._watch.note(is_guarded=bool(message["guarded"]))
            case "publish":
                found = self._published.setdefault(message["container"], _Published(message))
                for sock, port in zip(sockets, message["ports"], strict=True):
                    found.hold(self._loop, sock, port)
                # Rules may have been taken away before this was read.
                with contextlib.suppress(ContainerlibError, OSError):
                    self._translate(found)
            case "release":
                self._release(message["container"])
            case "look":
                self._give_up_ended()
            case "leave":
                self._leave(message["network"])

    def _views(self, network: _Network, client: str) -> list[View]:
        """What a container may learn: that of all its networks; anybody else that of the one it asks in."""
        others = [each for each in self._networks.values() if each is not network]
        for each in (network, *others):
            container = each.leases.container_of(client)
            if container is not None:
                more = [other for other in self._networks.values() if other is not each]
                return [each.view, *(other.view for other in more if other.leases.has(container))]
        return [network.view]

    def _release(self, container: str) -> None:
        found = self._published.pop(container, None)
        if found is not None:
            found.close()

    def _restore(self) -> None:
        """After somebody has taken rules away."""
        for published in self._published.values():
            self._translate(published)
        for network in self._networks.values():
            for lease in network.leases.running():
                if lease.get("locked"):
                    address = ipaddress.IPv4Address(str(lease["address"]))
                    mac = bytes.fromhex(str(lease["mac"])) or mac_of(address)
                    lock_sender(str(lease["device"]), mac, address)

    def _translate(self, published: _Published) -> None:
        network = self._networks.get(published.network)
        if network is not None:
            add_translations(network.record, published.address, published.ports)

    def _leave(self, network: str) -> None:
        found = self._networks.pop(network, None)
        if found is not None:
            found.close()
            with contextlib.suppress(FileNotFoundError):
                os.unlink(f"{self._directory}/{SERVED}{network}")
        self._next_look = 0.0

    def _tick(self, now: float) -> None:
        if now < self._next_look:
            return
        self._next_look = now + _LOOK_S
        for network in self._networks.values():
            if network.resolver is not None:
                network.resolver.expire(now)
        for published in self._published.values():
            published.expire(now)
        if self._give_up_ended():
            self._busy_at = now
        elif not self._networks or now - self._busy_at > _LINGER_S:
            self._end()

    def _give_up_ended(self) -> set[str]:
        """Give the ports up of those whose end nobody has told of; who runs still."""
        running = self._running()
        for container in self._published.keys() - running:
            self._release(container)
        return running

    def _running(self) -> set[str]:
        return {
            str(lease.get("container"))
            for network in self._networks.values()
            for lease in network.leases.running()
        }

    def _end(self) -> None:
        """Unless somebody is about to need it: who does holds the lock."""
        try:
            lock = os.open(f"{self._directory}/{LOCK}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:
            # Somebody has deleted the whole directory: nobody will find this process again.
            self._finish()
            return
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not self._running() and not _is_readable(self._control):
                self._finish()
                for name in os.listdir(self._directory):
                    os.unlink(f"{self._directory}/{name}")
                os.rmdir(self._directory)
        except OSError:
            return
        finally:
            os.close(lock)

    def _finish(self) -> None:
        self._is_over = True
        for network in self._networks.values():
            if network.record.name == DEFAULT:
                with contextlib.suppress(ContainerlibError, OSError):
                    take_down(network.layout, network.record)


def _is_readable(listener: socket.socket) -> bool:
    """Whether somebody waits to be accepted; that one is lost otherwise."""
    try:
        connection, _ = listener.accept()
    except OSError:
        return False
    connection.close()
    return True


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
