"""A guard that sees every attempt of this process to reach a network, name look-ups included."""

from __future__ import annotations

import contextlib
import socket
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["attempts_at_the_network"]

_LOOKUPS = frozenset(
    {"socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr", "socket.getnameinfo"}
)
_SENDING = frozenset({"socket.connect", "socket.sendto", "socket.sendmsg", "socket.bind"})
_watching: list[list[str]] = []


def _hook(event: str, args: tuple[Any, ...]) -> None:
    if not _watching:
        return
    if event in _LOOKUPS or (event in _SENDING and args[0].family in {socket.AF_INET, socket.AF_INET6}):
        _watching[-1].append(f"{event} {args[1:] if event in _SENDING else args}")


sys.addaudithook(_hook)  # cannot be taken away again, and does nothing outside of the context below


@contextlib.contextmanager
def attempts_at_the_network() -> Iterator[list[str]]:
    """Give a list that gets an entry for each attempt within the block."""
    found: list[str] = []
    _watching.append(found)
    try:
        yield found
    finally:
        _watching.remove(found)
