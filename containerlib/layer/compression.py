"""Decompression of layers as a stream, in bounded memory.

The kind of compression is found from the first bytes, never from a name. A stream that ends early, goes on
with something else, or expands far beyond what real layers do is `UnsupportedLayer`. No external program
is run.
"""

from __future__ import annotations

import bz2
import hashlib
import importlib
import io
import lzma
import zlib
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol, cast

import attrs
import zstandard

from containerlib.errors import UnsupportedLayer
from containerlib.oci.digest import Digest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from _typeshed import ReadableBuffer, WriteableBuffer

__all__ = ["DecompressionLimits", "HashingReader", "decompressed", "decompressed_blocks", "detect"]

_MAGIC = {
    b"\x1f\x8b": "gzip",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"BZh": "bzip2",
    b"\xfd7zXZ\x00": "xz",
}
_SKIPPABLE_ZSTD = (b"\x2a\x4d\x18", range(0x50, 0x60))

_BUFFER_BYTES = 1 << 20
_OUTPUT_BYTES = 1 << 20
_INPUT_BYTES = 1 << 18
# One zstd block of 4 bytes may stand for 128 KiB, and this decompressor takes no limit for its output: with
# 1 KiB of input at a time one call yields at most 32 MiB.
_ZSTD_INPUT_BYTES = 1 << 10
_MAX_ZSTD_WINDOW_BYTES = 128 << 20
_MAX_XZ_MEMORY_BYTES = 256 << 20


@attrs.frozen
class DecompressionLimits:
    """How far a stream may expand.

    Attributes:
        total_bytes: Most bytes it may expand to.
        ratio: How many times larger than its compressed form it may get; None allows any.
        ratio_from_bytes: Size from which the ratio counts; small layers may be mostly zeros.
    """

    total_bytes: int = 256 << 30
    ratio: int | None = 200
    ratio_from_bytes: int = 64 << 20


class _Decoder(Protocol):
    """What all the decompressors have in common."""

    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...


def detect(head: bytes) -> str:
    """Return ``gzip``, ``zstd``, ``bzip2``, ``xz`` or ``none`` for a stream that begins with `head`."""
    for magic, name in _MAGIC.items():
        if head.startswith(magic):
            return name
    tail, first = _SKIPPABLE_ZSTD
    if head[1:4] == tail and head[0] in first:
        return "zstd"
    return "none"


def decompressed_blocks(stream: BinaryIO, *, limits: DecompressionLimits | None = None) -> Iterator[bytes]:
    """Yield the uncompressed bytes of `stream` in the blocks in which they come, which costs no copy.

    Arguments and errors as for `decompressed`.
    """
    reader = _reader(stream, limits or DecompressionLimits())
    while block := reader.next_block():
        yield block


def decompressed(stream: BinaryIO, *, limits: DecompressionLimits | None = None) -> io.BufferedReader:
    """Return a stream of the uncompressed bytes of `stream`.

    Args:
        stream: Compressed in one of the known ways, or not compressed.
        limits: How far it may expand.

    Raises:
        UnsupportedLayer: From the reads: the data is damaged, ends early or expands too far.
    """
    return io.BufferedReader(_reader(stream, limits or DecompressionLimits()), _BUFFER_BYTES)


def _reader(stream: BinaryIO, limits: DecompressionLimits) -> _LimitedReader:
    head = _read_full(stream, 6)
    source = _Source(stream, head)
    kind = detect(head)
    return _PlainReader(source, limits) if kind == "none" else _DecodingReader(source, kind, limits)


class HashingReader(io.RawIOBase):
    """A stream that hashes and counts what is read through it."""

    def __init__(self, stream: BinaryIO, algorithm: str = "sha256") -> None:
        super().__init__()
        self._stream = stream
        self._algorithm = algorithm
        self._hash = hashlib.new(algorithm)
        self.size = 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        """Read some bytes into `buffer`."""
        view = memoryview(buffer).cast("B")
        data = self._stream.read(len(view))
        view[: len(data)] = data
        self._hash.update(data)
        self.size += len(data)
        return len(data)

    def drain(self) -> None:
        """Read to the end, so that the digest covers everything."""
        while self.read(_BUFFER_BYTES):
            pass

    @property
    def digest(self) -> Digest:
        """Digest of what was read so far."""
        return Digest(f"{self._algorithm}:{self._hash.hexdigest()}")


class _Source:
    """The compressed stream: what was read ahead for detection first, then the rest; counts bytes."""

    def __init__(self, stream: BinaryIO, head: bytes) -> None:
        self._stream = stream
        self._ahead = head
        self.size = 0

    def read(self, size: int) -> bytes:
        ahead = self._ahead
        if ahead:
            data, self._ahead = ahead[:size], ahead[size:]
        else:
            data = self._stream.read(size)
        self.size += len(data)
        return data

    def push_back(self, data: bytes) -> None:
        self._ahead = data + self._ahead
        self.size -= len(data)


class _LimitedReader(io.RawIOBase):
    """A raw stream over a function that yields blocks, which checks how much comes out of how much."""

    def __init__(self, source: _Source, limits: DecompressionLimits) -> None:
        super().__init__()
        self._source = source
        self._limits = limits
        self._block = memoryview(b"")
        self._produced = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        view = memoryview(buffer).cast("B")
        if not self._block:
            self._block = memoryview(self.next_block())
        size = min(len(view), len(self._block))
        view[:size] = self._block[:size]
        self._block = self._block[size:]
        return size

    def next_block(self) -> bytes:
        """Return what comes next, in a block of any size; empty at the end."""
        block = self._next_block()
        self._count(len(block))
        return block

    def _next_block(self) -> bytes:
        raise NotImplementedError

    def _count(self, size: int) -> None:
        self._produced += size
        limits = self._limits
        if self._produced > limits.total_bytes:
            raise UnsupportedLayer(f"archive: expands to more than {limits.total_bytes} bytes")
        if (
            limits.ratio is not None
            and self._produced > limits.ratio_from_bytes
            and self._produced > limits.ratio * self._source.size
        ):
            raise UnsupportedLayer(
                f"archive: {self._source.size} bytes expand to {self._produced}, over {limits.ratio} times"
            )


class _PlainReader(_LimitedReader):
    """A stream that was not compressed."""

    def _next_block(self) -> bytes:
        return self._source.read(_OUTPUT_BYTES)


class _DecodingReader(_LimitedReader):
    """A compressed stream of one or more members."""

    def __init__(self, source: _Source, kind: str, limits: DecompressionLimits) -> None:
        super().__init__(source, limits)
        self._kind = kind
        self._member = _Member(kind)

    def _next_block(self) -> bytes:
        while True:
            if self._member.finished and not self._begin_next_member():
                return b""
            data = b""
            if self._member.needs_input:
                data = self._source.read(self._member.input_bytes)
                if not data:
                    raise UnsupportedLayer(f"archive: {self._kind} stream ends in the middle")
            block = self._decode(data)
            if block:
                return block

    def _decode(self, data: bytes) -> bytes:
        try:
            return self._member.decode(data)
        except _DAMAGE as error:
            raise UnsupportedLayer(f"archive: damaged {self._kind} stream: {error}") from None

    def _begin_next_member(self) -> bool:
        """Go on behind the end of a member; False at the end of the stream."""
        self._source.push_back(self._member.unused)
        self._member.unused = b""
        data = self._source.read(_INPUT_BYTES)
        # Padding with zeros is common behind gzip and means nothing.
        while data and not data.strip(b"\0"):
            data = self._source.read(_INPUT_BYTES)
        if not data:
            return False
        if self._kind == "gzip":
            data = data.lstrip(b"\0")
        self._source.push_back(data)
        self._member = _Member(self._kind)
        return True


class _Member:
    """One gzip member, zstd frame, or bzip2 or xz stream, behind one interface."""

    def __init__(self, kind: str) -> None:
        self.input_bytes = _ZSTD_INPUT_BYTES if kind == "zstd" else _INPUT_BYTES
        self.unused = b""
        self.finished = False
        self.needs_input = True
        self._decode: Callable[[bytes], bytes] = _DECODERS[kind](self)

    def decode(self, data: bytes) -> bytes:
        return self._decode(data)

    def _note(self, decoder: _Decoder, *, needs_input: bool) -> None:
        self.finished = decoder.eof
        self.needs_input = needs_input
        if self.finished:
            self.unused = decoder.unused_data

    def gzip(self) -> Callable[[bytes], bytes]:
        decoder = _GZIP.decompressobj(wbits=31)

        def decode(data: bytes) -> bytes:
            block = decoder.decompress(decoder.unconsumed_tail + data, _OUTPUT_BYTES)
            # A full output may leave bytes inside the decoder even if it has taken all input.
            self._note(decoder, needs_input=not decoder.unconsumed_tail and len(block) < _OUTPUT_BYTES)
            return block

        return decode

    def zstd(self) -> Callable[[bytes], bytes]:
        decoder = zstandard.ZstdDecompressor(max_window_size=_MAX_ZSTD_WINDOW_BYTES).decompressobj()

        def decode(data: bytes) -> bytes:
            block = decoder.decompress(data)
            self._note(decoder, needs_input=True)
            return block

        return decode

    def bzip2(self) -> Callable[[bytes], bytes]:
        return self._limited(bz2.BZ2Decompressor())

    def xz(self) -> Callable[[bytes], bytes]:
        return self._limited(lzma.LZMADecompressor(memlimit=_MAX_XZ_MEMORY_BYTES))

    def _limited(self, decoder: bz2.BZ2Decompressor | lzma.LZMADecompressor) -> Callable[[bytes], bytes]:
        def decode(data: bytes) -> bytes:
            block = decoder.decompress(data, _OUTPUT_BYTES)
            self._note(decoder, needs_input=decoder.needs_input)
            return block

        return decode


_DECODERS: dict[str, Callable[[_Member], Callable[[bytes], bytes]]] = {
    "gzip": _Member.gzip,
    "zstd": _Member.zstd,
    "bzip2": _Member.bzip2,
    "xz": _Member.xz,
}


class _GzipDecoder(_Decoder, Protocol):
    @property
    def unconsumed_tail(self) -> bytes: ...
    def decompress(self, data: ReadableBuffer, max_length: int = ..., /) -> bytes: ...


class _GzipCodec(Protocol):
    """The part of a module like zlib that is used here."""

    @property
    def error(self) -> type[Exception]: ...
    def decompressobj(self, wbits: int = ...) -> _GzipDecoder: ...


def _fastest_gzip_codec() -> _GzipCodec:
    """Return Intel's library, up to twice as fast, if it is installed, else zlib."""
    try:
        codec: Any = importlib.import_module("isal.isal_zlib")
    except ImportError:
        codec = zlib
    return cast("_GzipCodec", codec)


_GZIP = _fastest_gzip_codec()
_DAMAGE = (zlib.error, _GZIP.error, zstandard.ZstdError, lzma.LZMAError, OSError, EOFError, ValueError)


def _read_full(stream: BinaryIO, size: int) -> bytes:
    data = b""
    while len(data) < size and (more := stream.read(size - len(data))):
        data += more
    return data
