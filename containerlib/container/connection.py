"""Sockets inside the network of a container, and connections to what listens there."""

from __future__ import annotations

import select
import socket
import time
from typing import TYPE_CHECKING

from containerlib._native.netlink import socket_in_network
from containerlib.container.network import address_of, entered_network, ports_of
from containerlib.errors import InvalidOption, InvalidState, OperationTimeout
from containerlib.runtime.host_names import is_address

if TYPE_CHECKING:
    from containerlib.container.entry import ContainerEntry

__all__ = ["connect", "endpoint_of", "new_socket", "published_endpoint"]

_MOST_PORT = 65535
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.001, 0.05


def _check_port(port: int) -> None:
    if not 0 < port <= _MOST_PORT:
        raise InvalidOption("port", port, f"must be from 1 to {_MOST_PORT}")


def endpoint_of(entry: ContainerEntry, port: int) -> tuple[str, int]:
    """Where others reach a port of a container; see `Container.address`."""
    _check_port(port)
    address = address_of(entry)
    if address is not None:
        return address, port
    if entry.config.network == "host":
        return "127.0.0.1", port
    remedy = (
        "connect(port) reaches its own loopback device"
        if entry.config.network == "none"
        else "start it first"
    )
    raise InvalidState(
        f"container {entry.name!r} has no address in network {entry.config.network!r}; {remedy}",
        expected="address",
        actual="no address",
    )


def published_endpoint(entry: ContainerEntry, port: int, protocol: str) -> tuple[str, int]:
    """Where this host reaches a published port; see `Container.published`."""
    found = ports_of(entry)
    for mapping in found:
        if (mapping.container_port, mapping.protocol) == (port, protocol):
            return mapping.address
    has = ", ".join(map(str, found)) or "none; give ports= when it is made, or use connect(port)"
    raise InvalidState(
        f"container {entry.name!r} has not published port {port}/{protocol}; published: {has}",
        expected="published",
        actual="not published",
    )


def new_socket(entry: ContainerEntry, family: int, kind: int) -> socket.socket:
    """A socket inside the container's network; see `Container.socket`."""
    with entered_network(entry) as fd:
        return socket_in_network(fd, family, kind)


def connect(entry: ContainerEntry, port: int, *, host: str, timeout_s: float) -> socket.socket:
    """A connection to what listens in the container's network; see `Container.connect`."""
    _check_port(port)
    if not is_address(host):
        raise InvalidOption("host", host, "give an address, such as '127.0.0.1'")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    deadline = time.monotonic() + timeout_s
    pause = _FIRST_PAUSE_S
    while True:
        made = new_socket(entry, family, socket.SOCK_STREAM)
        try:
            made.settimeout(max(0.001, deadline - time.monotonic()))
            made.connect((host, port))
        except OSError as error:
            made.close()
            left = deadline - time.monotonic()
            if left <= 0:
                raise OperationTimeout(
                    f"nothing answers at port {port} of container {entry.name!r} within {timeout_s:g} s: "
                    f"{(error.strerror or str(error)).lower()}; look at its logs",
                    timeout_s=timeout_s,
                ) from None
            _pause(entry, min(pause, left))
            pause = min(2 * pause, _LONGEST_PAUSE_S)
        except BaseException:
            made.close()
            raise
        else:
            return made


def _pause(entry: ContainerEntry, seconds: float) -> None:
    """Nobody tells when a service begins to listen; the end of the container is told at once."""
    process = entry.process
    fd = -1 if process is None else process.fileno()
    poller = select.poll()
    if fd >= 0:
        poller.register(fd, select.POLLIN)
    poller.poll(seconds * 1000)
