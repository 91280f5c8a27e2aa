"""Where an address leads: the world, a private network, the link, or this very machine.

What a registry names (a token service, a place to redirect to) must not reach what only this machine or its
network can mean, unless the registry itself is there. Names are judged by the addresses that they have at the
moment of connecting.
"""

from __future__ import annotations

import ipaddress
import socket
from typing import TYPE_CHECKING, Literal

import attrs

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["ForbiddenPlaceError", "Guard", "Place", "place_of"]

Place = Literal["loopback", "link", "private", "public"]

_WORDS = {
    "loopback": "this machine",
    "link": "the link of this machine",
    "private": "the network of this machine",
    "public": "the world",
}
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


class ForbiddenPlaceError(Exception):
    """A host leads to where it must not lead. Not an `OSError`: the HTTP library would make another of it."""

    def __init__(self, host: str, place: Place) -> None:
        super().__init__(f"{host} leads to {_WORDS[place]}, where the registry is not")
        self.place = place


def place_of(address: str) -> Place:
    """Return where an IP address leads."""
    found = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(found, ipaddress.IPv6Address):
        if found.ipv4_mapped is not None:
            found = found.ipv4_mapped
        elif found in _NAT64:
            found = ipaddress.IPv4Address(int(found) & 0xFFFFFFFF)
    if found.is_loopback or found.is_unspecified:
        return "loopback"
    if found.is_link_local:
        return "link"
    return "public" if found.is_global else "private"


@attrs.frozen
class Guard:
    """Watches over the connections to one host.

    Attributes:
        allowed: Where it may lead; None for anywhere.
        note: Told where a connection led.
    """

    allowed: frozenset[Place] | None
    note: Callable[[Place], None]

    def connect(self, host: str, port: int, open_socket: Callable[[], socket.socket]) -> socket.socket:
        """Open a connection, unless it leads to where it must not.

        A name is looked up first, so that a forbidden address is not even knocked at. What counts is the
        address that the connection has in the end: the name may have been given another one in between.

        Raises:
            ForbiddenPlaceError: It leads there.
        """
        if self.allowed is not None:
            try:
                found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            except OSError:
                found = []  # connecting will say so
            for info in found:
                self._check(host, place_of(str(info[4][0])))
        opened = open_socket()
        try:
            place = place_of(str(opened.getpeername()[0]))
            self._check(host, place)
        except BaseException:
            opened.close()
            raise
        self.note(place)
        return opened

    def check_literal(self, host: str) -> None:
        """Judge a host whose name another machine will look up: only what needs no looking up.

        Raises:
            ForbiddenPlaceError: It is an address, or ``localhost``, and leads to where it must not.
        """
        name = host.strip("[]").lower().rstrip(".")
        try:
            self._check(host, place_of(name))
        except ValueError:
            if name == "localhost" or name.endswith(".localhost"):
                self._check(host, "loopback")

    def _check(self, host: str, place: Place) -> None:
        if self.allowed is not None and place not in self.allowed:
            raise ForbiddenPlaceError(host, place)
