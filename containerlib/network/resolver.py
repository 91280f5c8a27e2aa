"""Answers what containers of one network ask: names of containers from its leases, all others from elsewhere.

What it does not know it asks the servers that the container wants, or the host's; in an internal network it
says that there is no such name. Containers are hostile: what is asked is bounded in size, number and time.

Source: RFC 1035, section 4.2.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import struct
import time
from typing import TYPE_CHECKING, Any

from containerlib.network import dns_message as dns

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from containerlib.network.event_loop import EventLoop
    from containerlib.network.lease_table import LeaseTable

__all__ = ["Resolver", "View"]

_MOST_BYTES, _MOST_UDP, _PLAIN_UDP = 65535, 4096, 512
_MOST_PENDING, _MOST_OWN, _MOST_STREAMS, _MOST_SERVERS = 512, 64, 64, 3
_PATIENCE_S, _STREAM_PATIENCE_S = 2.0, 10.0
_PORT = 53
_HOST = "/etc/resolv.conf"


class View:
    """What those in one network may learn."""

    def __init__(self, leases: LeaseTable, inside: str | None) -> None:
        """Take over.

        Args:
            leases: Of the network.
            inside: The subnet, if nobody outside may learn anything of what is asked.
        """
        self.leases = leases
        self.inside = None if inside is None else ipaddress.ip_network(inside)

    def may_ask(self, server: str) -> bool:
        """Whether a server may learn what is asked: the host finds a way to others as well."""
        return self.inside is None or ipaddress.ip_address(server) in self.inside


class Resolver:
    """The name server of one network."""

    def __init__(
        self,
        loop: EventLoop,
        views: Callable[[str], Sequence[View]],
        udp: socket.socket,
        tcp: socket.socket,
    ) -> None:
        """Answer from now on.

        Args:
            loop: Whose turns make it answer.
            views: What somebody with an address may learn, that of the network with the address first.
            udp: Bound to the host's address in the network.
            tcp: The same, listening.
        """
        self.loop = loop
        self._views = views
        self._udp, self._tcp = udp, tcp
        self._pending: dict[socket.socket, _Pending] = {}
        self._streams: dict[socket.socket, _Stream] = {}
        for each in (udp, tcp):
            each.setblocking(False)
        loop.on_readable(udp, self._asked)
        loop.on_readable(tcp, self._accept)

    def close(self) -> None:
        """Answer no more."""
        for upstream in list(self._pending):
            self.loop.close(upstream)
        for stream in list(self._streams.values()):
            stream.close()
        self.loop.close(self._udp)
        self.loop.close(self._tcp)

    def known(self, question: dns.Question, client: str) -> bytes | None:
        """The answer, if it is ours to give."""
        address = dns.pointed_at(question.name)
        for view in self._views(client):
            names = view.leases.names(address) if address is not None else []
            addresses = view.leases.addresses(question.name)
            if names or addresses:
                return dns.answer(question, addresses, names)
        return None

    def servers(self, client: str) -> list[str]:
        """Whom to ask for a container, in this order."""
        views = self._views(client)
        wanted = views[0].leases.servers(client)
        if not wanted and self._is_open(client):
            wanted = _host_servers()
        return [each for each in wanted if any(view.may_ask(each) for view in views)][:_MOST_SERVERS]

    def _is_open(self, client: str) -> bool:
        return any(view.inside is None for view in self._views(client))

    def unknown(self, question: dns.Question, client: str) -> bytes:
        """What is said where there is nobody to ask."""
        return dns.refuse(question, dns.SERVER_FAILED if self._is_open(client) else dns.NO_SUCH_NAME)

    def expire(self, now: float) -> None:
        """Give up on those who have not answered, or have not asked to the end; `now` is a monotonic time."""
        for upstream, pending in list(self._pending.items()):
            if now >= pending.deadline:
                self._go_on(upstream)
        for stream in list(self._streams.values()):
            if now >= stream.deadline:
                stream.close()

    def _asked(self) -> None:
        data, client = self._udp.recvfrom(_MOST_UDP)
        question = dns.parse_question(data)
        if question is None:
            return
        reply = self.known(question, client[0])
        if reply is not None:
            cut = dns.truncated(question) if len(reply) > _PLAIN_UDP else reply
            self._udp.sendto(cut, client)
        elif self._has_room(client[0]):
            self._ask(_Pending(client, question, data, self.servers(client[0])))
        else:
            self._udp.sendto(dns.refuse(question, dns.SERVER_FAILED), client)

    def _has_room(self, client: str) -> bool:
        """Whether one more question may wait; no container can take all the room."""
        own = sum(1 for each in self._pending.values() if each.client[0] == client)
        return len(self._pending) < _MOST_PENDING and own < _MOST_OWN

    def _ask(self, pending: _Pending) -> None:
        while pending.servers:
            upstream = connected(pending.servers.pop(0), socket.SOCK_DGRAM)
            if upstream is None:
                continue
            # A number of our own, and a port of its own: whoever wants to forge an answer has to guess both.
            pending.number = os.urandom(2)
            pending.deadline = time.monotonic() + _PATIENCE_S
            try:
                upstream.send(pending.number + pending.data[2:])
            except OSError:
                upstream.close()
                continue
            self._pending[upstream] = pending
            self._wait_for(upstream)
            return
        self._udp.sendto(self.unknown(pending.question, pending.client[0]), pending.client)

    def _wait_for(self, upstream: socket.socket) -> None:
        self.loop.on_readable(upstream, lambda: self._told(upstream))

    def _told(self, upstream: socket.socket) -> None:
        pending = self._pending[upstream]
        try:
            data = upstream.recv(_MOST_BYTES)
        except OSError:
            self._go_on(upstream)
            return
        if data[:2] != pending.number:
            return  # not what was asked for; the right one may still come
        del self._pending[upstream]
        self.loop.close(upstream)
        self._udp.sendto(pending.data[:2] + data[2:], pending.client)

    def _go_on(self, upstream: socket.socket) -> None:
        """Ask the next server, or say that there is no answer."""
        pending = self._pending.pop(upstream)
        self.loop.close(upstream)
        self._ask(pending)

    def _accept(self) -> None:
        stream, client = self._tcp.accept()
        if len(self._streams) >= _MOST_STREAMS:
            stream.close()
            return
        stream.setblocking(False)
        self._streams[stream] = _Stream(self, stream, client[0])

    def forget(self, stream: socket.socket) -> None:
        """A stream has come to its end."""
        self._streams.pop(stream, None)


class _Pending:
    """A question that came as a datagram and that somebody else is asked."""

    def __init__(self, client: Any, question: dns.Question, data: bytes, servers: list[str]) -> None:
        self.client = client
        self.question = question
        self.data = data
        self.servers = servers
        self.number = b""
        self.deadline = 0.0


class _Stream:
    """A connection with one question, which is answered from here or passed on."""

    def __init__(self, resolver: Resolver, client: socket.socket, address: str) -> None:
        self._resolver = resolver
        self._client = client
        self._address = address
        self._received = bytearray()
        self._servers: list[str] = []
        self._upstream: socket.socket | None = None
        self._question: dns.Question | None = None
        self.deadline = time.monotonic() + _STREAM_PATIENCE_S
        resolver.loop.on_readable(client, self._heard)

    def close(self) -> None:
        """End it, answered or not."""
        self._resolver.forget(self._client)
        self._resolver.loop.close(self._client)
        if self._upstream is not None:
            self._resolver.loop.close(self._upstream)

    def _heard(self) -> None:
        message = self._message(self._client)
        if message is None:
            return
        self._question = dns.parse_question(message)
        if self._question is None:
            self.close()
            return
        reply = self._resolver.known(self._question, self._address)
        if reply is not None:
            self._answer(reply)
            return
        self._resolver.loop.on_readable(self._client, None)
        self._servers = self._resolver.servers(self._address)
        self._data = message
        self._ask()

    def _message(self, sock: socket.socket) -> bytes | None:
        """What has come in full; None as long as it has not. The end of it is the end of this."""
        try:
            data = sock.recv(_MOST_BYTES)
        except BlockingIOError:
            return None
        except OSError:
            data = b""
        if not data:
            self.close()
            return None
        self._received += data
        size = int.from_bytes(self._received[:2], "big")
        if len(self._received) < 2 or len(self._received) < size + 2:  # noqa: PLR2004 - the size itself
            return None
        message = bytes(self._received[2 : size + 2])
        self._received.clear()
        return message

    def _ask(self) -> None:
        while self._servers:
            upstream = connected(self._servers.pop(0), socket.SOCK_STREAM)
            if upstream is not None:
                self._upstream = upstream
                self._resolver.loop.on_writable(upstream, self._connected)
                return
        if self._question is not None:
            self._answer(self._resolver.unknown(self._question, self._address))

    def _connected(self) -> None:
        upstream = self._upstream
        if upstream is None:
            return
        self._resolver.loop.on_writable(upstream, None)
        if upstream.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self._resolver.loop.close(upstream)
            self._upstream = None
            self._ask()
            return
        upstream.send(struct.pack("!H", len(self._data)) + self._data)
        self._resolver.loop.on_readable(upstream, self._told)

    def _told(self) -> None:
        message = self._message(self._upstream) if self._upstream is not None else None
        if message is not None:
            self._answer(message)

    def _answer(self, reply: bytes) -> None:
        try:
            self._client.send(struct.pack("!H", len(reply)) + reply)
        finally:
            self.close()


def connected(server: str, kind: int) -> socket.socket | None:
    """A socket that is connected to a name server, or on its way; None if there is no way."""
    made = socket.socket(socket.AF_INET6 if ":" in server else socket.AF_INET, kind)
    made.setblocking(False)
    try:
        made.connect((server, _PORT))
    except BlockingIOError:
        pass
    except OSError:
        made.close()
        return None
    return made


def _host_servers() -> list[str]:
    servers = []
    try:
        with open(_HOST, encoding="utf-8", errors="replace") as file:
            for line in file:
                words = line.split()
                if len(words) > 1 and words[0] == "nameserver":
                    servers.append(words[1])
    except OSError:
        return []
    return servers
