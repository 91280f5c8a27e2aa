"""Another host beside this one: a network namespace with a link to it, and servers and clients in there."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
from ipaddress import ip_interface
from pathlib import Path
from typing import TYPE_CHECKING

from containerlib._native.netlink import Netlink, new_network, socket_in_network
from containerlib.network import link

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from containerlib import Engine

__all__ = [
    "HOST",
    "WORLD",
    "Server",
    "another_host",
    "echoed",
    "network_process",
    "reaches",
    "socket_on",
    "stopped_network_process",
    "wait_until",
]

HOST, WORLD = "198.51.100.1", "198.51.100.2"
"""The addresses of this host and of the other one on their link."""


@contextlib.contextmanager
def another_host() -> Iterator[int]:
    """The network namespace of another host, which knows the way to all our networks."""
    fd = new_network()
    name = "clt-world"
    try:
        with Netlink() as here, Netlink(namespace_fd=fd) as there:
            here.call(link.add_bridge("clt-bridge", mac=b"\2\0\0\0\0\1", mtu=1500))
            bridge = here.index_of("clt-bridge")
            try:
                here.call(
                    link.raise_named("clt-bridge", alias=""),
                    link.add_address(bridge, ip_interface(f"{HOST}/24")),
                    link.add_pair(
                        name, master=bridge, mtu=1500, peer="eth0", peer_mac=b"\2\0\0\0\0\2", network_fd=fd
                    ),
                    link.raise_named(name, alias=""),
                )
                index = there.index_of("eth0")
                there.call(
                    link.raise_link(index),
                    link.add_address(index, ip_interface(f"{WORLD}/24")),
                    link.add_default_route(index, ip_interface(f"{HOST}/24").ip),
                )
                yield fd
            finally:
                here.call(link.delete(here.index_of(name)), link.delete(bridge))
    finally:
        os.close(fd)


class Server:
    """A server in a network namespace that answers with the address of who has asked."""

    def __init__(self, namespace: int, address: str) -> None:
        self._listener = socket_in_network(namespace, socket.AF_INET, socket.SOCK_STREAM)
        self._listener.bind((address, 9))
        self._listener.listen()
        self._thread = threading.Thread(target=self._serve)

    def _serve(self) -> None:
        while True:
            try:
                connection, peer = self._listener.accept()
            except OSError:
                return
            with connection:
                connection.sendall(peer[0].encode())

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *exc_info: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()


def socket_on(namespace: int | None, kind: int) -> socket.socket:
    """A socket of this host, or in another network namespace."""
    family = socket.AF_INET
    made = socket.socket(family, kind) if namespace is None else socket_in_network(namespace, family, kind)
    made.settimeout(5)
    return made


def reaches(namespace: int | None, address: str, port: int = 7) -> bool:
    """Whether something that listens is reached, from the host or from another network namespace."""
    with socket_on(namespace, socket.SOCK_STREAM) as made:
        made.settimeout(2)
        try:
            made.connect((address, port))
        except OSError:
            return False
        return True


def network_process(engine: Engine) -> int | None:
    """The number of the process of a store's networks; None if there is none."""
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            if f"{engine.run_root}/network-process".encode() in command:
                return int(pid)
    return None


@contextlib.contextmanager
def stopped_network_process(engine: Engine) -> Iterator[None]:
    """For the length of a block it does nothing."""
    pid = network_process(engine)
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait for something that happens soon."""
    give_up = threading.Event()
    timer = threading.Timer(30, give_up.set)
    timer.start()
    try:
        while not condition():
            assert not give_up.is_set(), "it has not happened"
            os.sched_yield()
    finally:
        timer.cancel()


def echoed(namespace: int | None, address: str, port: int, kind: int = socket.SOCK_STREAM) -> bool:
    """Whether what is sent there comes back."""
    with socket_on(namespace, kind) as made:
        try:
            made.connect((address, port))
            made.send(b"hello\n")
            return made.recv(100) == b"hello\n"
        except OSError:
            return False
