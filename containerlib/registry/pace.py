"""Answers that must come at a certain pace: whoever sends a byte now and then never stalls, and never ends.

What counts is the time spent waiting for the other side. How long the first byte takes is the business of the
socket's own timeout, and how long the reader dawdles is nobody's.
"""

from __future__ import annotations

import http.client
import io
import time
from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    import socket
    from typing import Any, Protocol

    class _Raw(Protocol):
        def readinto(self, buffer: Any, /) -> int | None: ...
        def fileno(self) -> int: ...
        def close(self) -> None: ...


__all__ = ["Pace", "TooSlowError", "response_class"]

_BUFFER_BYTES = 64 << 10


class TooSlowError(TimeoutError):
    """The answer comes, but so slowly that it would not end."""


@attrs.frozen
class Pace:
    """The least that is accepted.

    Attributes:
        bytes_per_s: Bytes for each second of waiting.
        window_s: Seconds of waiting after which it is looked at.
    """

    bytes_per_s: float
    window_s: float


class _PacedReader(io.RawIOBase):
    """A socket's reading side that raises `TooSlowError`."""

    def __init__(self, raw: _Raw, pace: Pace) -> None:
        self._raw = raw
        self._pace = pace
        self._has_begun = False
        self._waited_s = 0.0
        self._received = 0

    def readable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._raw.fileno()

    def readinto(self, buffer: Any, /) -> int | None:
        before = time.monotonic()
        count = self._raw.readinto(buffer)
        if self._has_begun and count:
            self._check(time.monotonic() - before, count)
        self._has_begun = True
        return count

    def _check(self, waited_s: float, count: int) -> None:
        self._waited_s += waited_s
        self._received += count
        if self._waited_s < self._pace.window_s:
            return
        if self._received < self._pace.bytes_per_s * self._waited_s:
            raise TooSlowError(
                f"it sent {self._received} bytes in {self._waited_s:.0f} s, which is less than "
                f"{self._pace.bytes_per_s:.0f} a second"
            )
        self._waited_s, self._received = 0.0, 0

    def close(self) -> None:
        self._raw.close()
        super().close()


def response_class(pace: Pace) -> type[http.client.HTTPResponse]:
    """Return a class for the answers of a connection, headers and body, that keeps to `pace`."""

    class PacedResponse(http.client.HTTPResponse):
        def __init__(self, sock: socket.socket, *args: Any, **options: Any) -> None:
            super().__init__(sock, *args, **options)
            raw = self.fp.detach()
            self.fp = io.BufferedReader(_PacedReader(raw, pace), _BUFFER_BYTES)

    return PacedResponse
