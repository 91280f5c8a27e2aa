"""Ports of the host for containers: sockets that hold them from the moment of their choice."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import socket
from typing import TYPE_CHECKING

from attrs import evolve, field, frozen

from containerlib.errors import InvalidOption, ResourceInUse, UnsupportedHost
from containerlib.network_options import ADDRESSES

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from containerlib.network_options import PortMapping

__all__ = ["HeldPorts", "PortInUse", "hold_ports", "user_of"]

_KINDS = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}
_BACKLOG, _ATTEMPTS = 4096, 100
_NO_VERSION_SIX = frozenset({errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT})
_LISTENS = {"tcp": "0A", "udp": "07"}


class PortInUse(ResourceInUse):
    """A port of the host that was asked for is somebody else's; `mapping` says which."""

    def __init__(self, mapping: PortMapping) -> None:
        self.mapping = mapping
        super().__init__(f"port {mapping.host_port}/{mapping.protocol} of this host is in use")


@frozen(kw_only=True)
class HeldPorts:
    """Ports of the host that nobody else gets.

    Attributes:
        mappings: As they were asked for, with the port of the host in each.
        listeners: The sockets, each with the port in the container.
    """

    mappings: tuple[PortMapping, ...]
    listeners: list[tuple[socket.socket, int]] = field(repr=False)

    def close(self) -> None:
        """Let go of the sockets; whoever has got copies of them holds the ports."""
        for sock, _ in self.listeners:
            sock.close()


def hold_ports(mappings: Iterable[PortMapping]) -> HeldPorts:
    """Take these ports of the host, all or none.

    A free port is the kernel's choice, made by the same call that takes it: no two callers get the same one.

    Raises:
        PortInUse: Somebody else has one of them.
        InvalidOption: The host has no such address.
        UnsupportedHost: This process may not take it, or none is free.

    Cost: 20 us for each.
    """
    chosen = []
    listeners: list[tuple[socket.socket, int]] = []
    try:
        for mapping in mappings:
            sockets = _hold(mapping)
            port = sockets[0].getsockname()[1]
            listeners += [(sock, mapping.container_port) for sock in sockets]
            chosen.append(evolve(mapping, host_port=port))
    except BaseException:
        for sock, _ in listeners:
            sock.close()
        raise
    return HeldPorts(mappings=tuple(chosen), listeners=listeners)


def _hold(mapping: PortMapping) -> list[socket.socket]:
    addresses = ADDRESSES.get(mapping.host, (mapping.host,))
    for _ in range(_ATTEMPTS if mapping.host_port is None else 1):
        sockets = _bind_all(mapping, addresses)
        if sockets:
            return sockets
    if mapping.host_port is not None:
        raise PortInUse(mapping)
    raise UnsupportedHost(
        "a free port", needed="one in net.ipv4.ip_local_port_range", found=f"none for {mapping.protocol}"
    )


def _bind_all(mapping: PortMapping, addresses: Sequence[str]) -> list[socket.socket]:
    """A socket for each address, with the same port; none if somebody has it on one of them."""
    sockets: list[socket.socket] = []
    port = mapping.host_port or 0
    try:
        for address in addresses:
            made = _bind(mapping, address, port)
            if made is not None:
                sockets.append(made)
                port = made.getsockname()[1]
    except OSError as error:
        for each in sockets:
            each.close()
        if error.errno == errno.EADDRINUSE:
            return []
        raise _refused(mapping, error) from None
    return sockets


def _bind(mapping: PortMapping, address: str, port: int) -> socket.socket | None:
    """A bound socket; None for the second version of two if the host has none of that."""
    is_six = ":" in address
    is_second = is_six and mapping.host in ADDRESSES
    try:
        made = socket.socket(socket.AF_INET6 if is_six else socket.AF_INET, _KINDS[mapping.protocol])
    except OSError:
        if is_second:
            return None
        raise
    try:
        if is_six:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if mapping.protocol == "tcp" and mapping.host_port is not None:
            # Connections of who had it before may be in their last minute.
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((address, port))
        if mapping.protocol == "tcp":
            made.listen(_BACKLOG)
    except OSError as error:
        made.close()
        if is_second and error.errno in _NO_VERSION_SIX:
            return None
        raise
    return made


def _refused(mapping: PortMapping, error: OSError) -> Exception:
    if error.errno in _NO_VERSION_SIX:
        return InvalidOption("host", mapping.host, "is no address of this host")
    if error.errno == errno.EACCES:
        return UnsupportedHost(
            f"port {mapping.host_port}", needed="CAP_NET_BIND_SERVICE", found="a process without it"
        )
    return error


def user_of(mapping: PortMapping) -> str:
    """Which process of the host has a port, for a message; empty if that cannot be found out.

    Cost: a look at all descriptors of all processes.
    """
    inodes = set(_inodes(mapping))
    for pid in filter(str.isdigit, os.listdir("/proc") if inodes else ()):
        with contextlib.suppress(OSError):
            for fd in os.listdir(f"/proc/{pid}/fd"):
                with contextlib.suppress(OSError):
                    if os.readlink(f"/proc/{pid}/fd/{fd}") in inodes:
                        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
                            return f"process {pid} ({file.read().strip()})"
    return ""


def _inodes(mapping: PortMapping) -> Iterable[str]:
    """Source: proc_net_tcp.rst of the kernel's documentation."""
    wanted = re.compile(rf"\s*\d+: [0-9A-F]+:{mapping.host_port:04X} \S+ {_LISTENS[mapping.protocol]} ")
    for name in (mapping.protocol, f"{mapping.protocol}6"):
        with contextlib.suppress(OSError), open(f"/proc/self/net/{name}", encoding="ascii") as file:
            for line in file:
                if wanted.match(line):
                    yield f"socket:[{line.split()[9]}]"
