"""Messages to the kernel's network configuration, and sockets inside other network namespaces.

In: what a message says, as bytes and attributes. Out: what the kernel answers. What messages mean is known by
`network`.

Source: netlink(7), rtnetlink(7).
"""

from __future__ import annotations

import errno
import fcntl
import itertools
import os
import socket
import struct
import threading
from typing import TYPE_CHECKING

from attrs import field, frozen

from containerlib._native.ffi import check, lib

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Self

__all__ = [
    "Message",
    "Netlink",
    "NetlinkError",
    "attribute",
    "attributes",
    "new_network",
    "socket_in_network",
    "text_attribute",
]

_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
_SOL_NETLINK, _CAP_ACK, _EXT_ACK = 270, 10, 11
_REQUEST, _ACK, _DUMP = 0x1, 0x4, 0x300
_HAS_DETAILS, _DETAIL_TEXT = 0x200, 1
_ERROR, _DONE = 2, 3
_NESTED, _TYPE_MASK = 0x8000, 0x3FFF
_RECEIVE_BYTES = 1 << 17
_DEADLINE_S = 30.0
_GET_INDEX, _INTERFACE = 0x8933, struct.Struct("=16si20x")
_GET_FLAGS, _INTERFACE_FLAGS, _UP = 0x8913, struct.Struct("=16sH22x"), 0x1


class NetlinkError(OSError):
    """The kernel refused a message; `index` says which one of those that were sent."""

    def __init__(self, number: int, detail: str, index: int) -> None:
        super().__init__(number, detail or os.strerror(number).lower())
        self.index = index


@frozen
class Message:
    """One request.

    Attributes:
        kind: Its type, such as RTM_NEWLINK.
        flags: NLM_F_* beside those of every request.
        body: The fixed part, and the attributes behind it.
    """

    kind: int
    flags: int
    body: bytes = field(repr=False)


def attribute(kind: int, content: bytes | Sequence[bytes]) -> bytes:
    """One attribute, padded; of a sequence of attributes a nested one."""
    if not isinstance(content, bytes):
        content, kind = b"".join(content), kind | _NESTED
    size = _ATTRIBUTE.size + len(content)
    return _ATTRIBUTE.pack(size, kind) + content + bytes(-size % 4)


def text_attribute(kind: int, text: str) -> bytes:
    """An attribute that is a text."""
    return attribute(kind, text.encode() + b"\0")


def attributes(data: bytes) -> dict[int, bytes]:
    """The attributes that stand one behind the other, by their types; of several the last one."""
    found = {}
    while len(data) >= _ATTRIBUTE.size:
        size, kind = _ATTRIBUTE.unpack_from(data)
        if size < _ATTRIBUTE.size:
            break
        found[kind & _TYPE_MASK] = data[_ATTRIBUTE.size : size]
        data = data[size + (-size % 4) :]
    return found


class Netlink:
    """A connection to the kernel's network configuration, of this process's namespace or another one.

    Threads may share it.
    """

    def __init__(self, protocol: int = socket.NETLINK_ROUTE, *, namespace_fd: int | None = None) -> None:
        """Connect.

        Args:
            protocol: NETLINK_ROUTE or another one.
            namespace_fd: A network namespace; None for that of this process.

        Raises:
            OSError: There is no such protocol, or the namespace may not be entered.
        """
        family, kind = socket.AF_NETLINK, socket.SOCK_RAW
        if namespace_fd is None:
            self._socket = socket.socket(family, kind, protocol)
        else:
            self._socket = socket_in_network(namespace_fd, family, kind, protocol)
        self._socket.settimeout(_DEADLINE_S)
        for option in (_CAP_ACK, _EXT_ACK):
            self._socket.setsockopt(_SOL_NETLINK, option, 1)
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """End the connection."""
        self._socket.close()

    def index_of(self, name: str) -> int:
        """The number of a device of the namespace.

        Raises:
            OSError: There is none of this name.

        Source: netdevice(7), SIOCGIFINDEX.
        """
        answer = fcntl.ioctl(self._socket, _GET_INDEX, _INTERFACE.pack(name.encode(), 0))
        index: int = _INTERFACE.unpack(answer)[1]
        return index

    def is_up(self, name: str) -> bool:
        """Whether a device of the namespace is set up.

        Raises:
            OSError: There is none of this name.

        Source: netdevice(7), SIOCGIFFLAGS.
        """
        answer = fcntl.ioctl(self._socket, _GET_FLAGS, _INTERFACE_FLAGS.pack(name.encode(), 0))
        return bool(_INTERFACE_FLAGS.unpack(answer)[1] & _UP)

    def call(self, *messages: Message) -> None:
        """Have the kernel do these, one after the other, up to the first that it refuses.

        Those behind that one are done all the same, as the kernel reads them all.

        Raises:
            NetlinkError: The first that was refused.
        """
        if not messages:
            return
        with self._lock:
            numbers = {next(self._numbers) & 0xFFFFFFFF: index for index, _ in enumerate(messages)}
            self._socket.send(
                b"".join(
                    _encoded(each, _REQUEST | _ACK, number)
                    for each, number in zip(messages, numbers, strict=True)
                )
            )
            refused: NetlinkError | None = None
            while numbers:
                for kind, flags, number, body in self._receive():
                    index = numbers.get(number)
                    if index is None or kind != _ERROR:
                        continue
                    del numbers[number]
                    error = _refusal(flags, body, index)
                    if refused is None or (error is not None and error.index < refused.index):
                        refused = error
        if refused is not None:
            raise refused

    def batch(self, begin: Message, messages: Sequence[Message], end: Message) -> None:
        """Have the kernel do all of these in one step, or none.

        Args:
            begin: Opens the batch; not answered unless the whole is refused.
            messages: What is done.
            end: Closes the batch.

        Raises:
            NetlinkError: What was refused; the index is -1 if it is the whole.
        """
        with self._lock:
            first, last = (next(self._numbers) & 0xFFFFFFFF for _ in range(2))
            numbers = {next(self._numbers) & 0xFFFFFFFF: index for index, _ in enumerate(messages)}
            inner = (
                _encoded(each, _REQUEST | _ACK, number)
                for each, number in zip(messages, numbers, strict=True)
            )
            self._socket.send(
                _encoded(begin, _REQUEST, first) + b"".join(inner) + _encoded(end, _REQUEST, last)
            )
            refused: NetlinkError | None = None
            while numbers:
                for kind, flags, number, body in self._receive():
                    if kind != _ERROR or number not in {first, *numbers}:
                        continue
                    index = numbers.pop(number, -1)
                    error = _refusal(flags, body, index)
                    refused = refused or error
                    if index < 0:
                        numbers.clear()
        if refused is not None:
            raise refused

    def dump(self, message: Message) -> Iterator[bytes]:
        """Ask for all there is of a kind; the bodies of the answers.

        Raises:
            NetlinkError: The kernel refused.
        """
        with self._lock:
            number = next(self._numbers) & 0xFFFFFFFF
            self._socket.send(_encoded(message, _REQUEST | _DUMP, number))
            found: list[bytes] = []
            while True:
                for kind, flags, answered, body in self._receive():
                    if answered != number:
                        continue
                    if kind == _DONE:
                        return iter(found)
                    if kind == _ERROR:
                        refused = _refusal(flags, body, 0)
                        if refused is not None:
                            raise refused
                        continue
                    found.append(body)

    def _receive(self) -> Iterator[tuple[int, int, int, bytes]]:
        data = self._socket.recv(_RECEIVE_BYTES)
        while len(data) >= _HEADER.size:
            size, kind, flags, number, _ = _HEADER.unpack_from(data)
            if size < _HEADER.size:
                raise OSError(errno.EBADMSG, "the kernel's answer cannot be read")
            yield kind, flags, number, data[_HEADER.size : size]
            data = data[size + (-size % 4) :]


def _encoded(message: Message, flags: int, number: int) -> bytes:
    size = _HEADER.size + len(message.body)
    return (
        _HEADER.pack(size, message.kind, message.flags | flags, number, 0) + message.body + bytes(-size % 4)
    )


def _refusal(flags: int, body: bytes, index: int) -> NetlinkError | None:
    (code,) = struct.unpack_from("=i", body)
    if code == 0:
        return None
    detail = b""
    if flags & _HAS_DETAILS:
        detail = attributes(body[4 + _HEADER.size :]).get(_DETAIL_TEXT, b"").rstrip(b"\0")
    return NetlinkError(-code, detail.decode(errors="replace"), index)


def new_network() -> int:
    """Make a network namespace, in which nobody is yet; the caller closes its descriptor.

    Devices that come into it have version 6 switched off.

    Raises:
        OSError: As unshare(2).

    Cost: half a millisecond, and a thread for as long.
    """
    return check(lib.ctr_new_network(), "a network namespace")


def socket_in_network(namespace_fd: int, family: int, kind: int, protocol: int = 0) -> socket.socket:
    """A socket inside another network namespace, which stays in it for good.

    Raises:
        OSError: As setns(2) or socket(2).
    """
    fd = check(lib.ctr_network_socket(namespace_fd, family, kind, protocol), "a socket in a namespace")
    return socket.socket(family, kind, protocol, fileno=fd)
