"""Waiting for many sockets at once, in one thread: who is called when one of them can be read or written."""

from __future__ import annotations

import contextlib
import errno
import selectors
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

__all__ = ["EventLoop"]

_NO_ROOM = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_PAUSE_S = 0.01
_READ, _WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE


class EventLoop:
    """Calls what was registered; what that raises of the system's errors ends that socket's matter."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._calls: dict[socket.socket, dict[int, Callable[[], None]]] = {}
        self._ticks: list[Callable[[float], None]] = []

    def on_readable(self, sock: socket.socket, call: Callable[[], None] | None) -> None:
        """Call this whenever there is something to read; None to stop that."""
        self._set(sock, _READ, call)

    def on_writable(self, sock: socket.socket, call: Callable[[], None] | None) -> None:
        """Call this whenever there is room to write; None to stop that."""
        self._set(sock, _WRITE, call)

    def on_tick(self, call: Callable[[float], None]) -> None:
        """Call this after each wait, with the time of the monotonic clock."""
        self._ticks.append(call)

    def close(self, sock: socket.socket) -> None:
        """Close a socket, and call nobody for it any more."""
        self._calls.pop(sock, None)
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(sock)
        sock.close()

    def turn(self, longest_s: float) -> None:
        """Wait once, and make the calls."""
        for key, events in self._selector.select(longest_s):
            for event in (_READ, _WRITE):
                # An earlier call of this round may have closed it.
                call = self._calls.get(key.fileobj, {}).get(event) if events & event else None  # type: ignore[call-overload]
                if call is not None:
                    self._make(call)
        now = time.monotonic()
        for tick in self._ticks:
            tick(now)

    def _make(self, call: Callable[[], None]) -> None:
        try:
            call()
        except OSError as error:
            if error.errno in _NO_ROOM:
                # Whoever waits to be accepted still does, and would be told of again at once.
                time.sleep(_PAUSE_S)

    def _set(self, sock: socket.socket, event: int, call: Callable[[], None] | None) -> None:
        calls = self._calls.setdefault(sock, {})
        had = sum(calls)
        if call is None:
            calls.pop(event, None)
        else:
            calls[event] = call
        wanted = sum(calls)
        if not wanted:
            self._calls.pop(sock, None)
            if had:
                self._selector.unregister(sock)
        elif not had:
            self._selector.register(sock, wanted)
        elif had != wanted:
            self._selector.modify(sock, wanted)
