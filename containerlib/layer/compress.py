"""Compression of layers as a stream; the same bytes in give the same bytes out.

gzip is written by Intel's library, without a name and without a time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Protocol

import zstandard
from isal import isal_zlib

from containerlib.errors import InvalidOption

if TYPE_CHECKING:
    from containerlib.layer.archive import Sink

__all__ = ["Compression", "Compressor"]

Compression = Literal["none", "gzip", "zstd"]

_LEVELS = {"none": range(1), "gzip": range(1, 4), "zstd": range(1, 20)}
_DEFAULT_LEVELS = {"none": 0, "gzip": 2, "zstd": 3}
_GZIP_FORMAT = 16
_WINDOW_BITS = 15


class _Encoder(Protocol):
    def compress(self, data: bytes, /) -> bytes: ...
    def flush(self) -> bytes: ...


class Compressor:
    """A sink that passes what it is given on to another one, compressed."""

    def __init__(self, out: Sink, compression: Compression, *, level: int | None = None) -> None:
        """Begin a stream.

        Args:
            out: Where the compressed bytes go.
            compression: How.
            level: 1 to 3 for gzip, 1 to 19 for zstd; None for one that is fast and good enough.

        Raises:
            InvalidOption: There is no such compression or level.
        """
        if compression not in _LEVELS:
            raise InvalidOption("compression", compression, "expected 'none', 'gzip' or 'zstd'")
        if level is None:
            level = _DEFAULT_LEVELS[compression]
        levels = _LEVELS[compression]
        if level not in levels:
            raise InvalidOption("level", level, f"{compression} has the levels {levels[0]} to {levels[-1]}")
        self._out = out
        self._encoder = _encoder(compression, level)

    def write(self, data: bytes | memoryview) -> int:
        """Take all of `data`."""
        if self._encoder is None:
            return self._out.write(bytes(data))
        block = self._encoder.compress(bytes(data))
        if block:
            self._out.write(block)
        return len(data)

    def finish(self) -> None:
        """Write what is left. Without this the stream is not complete; after it nothing can be written."""
        if self._encoder is not None:
            self._out.write(self._encoder.flush())


def _encoder(compression: Compression, level: int) -> _Encoder | None:
    if compression == "gzip":
        encoder: _Encoder = isal_zlib.compressobj(level, wbits=_GZIP_FORMAT + _WINDOW_BITS)
        return encoder
    if compression == "zstd":
        # One thread: with several, where blocks end depends on their number.
        return zstandard.ZstdCompressor(level=level, write_checksum=True).compressobj()
    return None
