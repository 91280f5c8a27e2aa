from __future__ import annotations

import bz2
import collections
import gzip
import hashlib
import io
import lzma
import os
import resource
import zlib
from typing import TYPE_CHECKING, BinaryIO

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from containerlib.errors import UnsupportedLayer
from containerlib.layer.compression import DecompressionLimits, HashingReader, decompressed, detect

if TYPE_CHECKING:
    from collections.abc import Callable

COMPRESSORS: dict[str, Callable[[bytes], bytes]] = {
    "none": bytes,
    "gzip": gzip.compress,
    "zstd": zstandard.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
}
REAL = [name for name in COMPRESSORS if name != "none"]
DATA = b"".join(hashlib.sha256(bytes([number % 7])).digest() + b"text" * 20 for number in range(20_000))


class Trickle(io.RawIOBase):
    """A stream that gives few bytes at a time, as a socket does."""

    def __init__(self, data: bytes, step: int) -> None:
        super().__init__()
        self._rest = io.BytesIO(data)
        self._step = step

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Give at most a step."""
        data = self._rest.read(min(self._step, len(buffer)))
        buffer[: len(data)] = data
        return len(data)


def expand(data: bytes, limits: DecompressionLimits | None = None) -> bytes:
    """Return the whole uncompressed stream."""
    return decompressed(io.BytesIO(data), limits=limits).read()


@pytest.mark.parametrize("kind", COMPRESSORS)
def test_every_kind_is_detected_and_expanded(kind: str) -> None:
    """The content decides what a stream is, and every kind gives the same bytes."""
    data = COMPRESSORS[kind](DATA)
    assert detect(data[:6]) == kind
    assert expand(data) == DATA


@pytest.mark.parametrize("kind", COMPRESSORS)
@pytest.mark.parametrize("step", [1, 7, 4096])
def test_short_reads(kind: str, step: int) -> None:
    """A source that gives few bytes at a time makes no difference."""
    small = DATA[:20_000]
    source: BinaryIO = Trickle(COMPRESSORS[kind](small), step)  # type: ignore[assignment]
    assert decompressed(source).read() == small


@pytest.mark.parametrize("kind", REAL)
def test_several_members(kind: str) -> None:
    """Streams one behind another are one stream, as parallel compressors write them."""
    compress = COMPRESSORS[kind]
    assert expand(compress(b"one") + compress(b"") + compress(DATA)) == b"one" + DATA


@pytest.mark.parametrize("kind", REAL)
def test_truncation_is_noticed_everywhere(kind: str) -> None:
    """A stream cut at any point is an error, never a shorter layer."""
    data = COMPRESSORS[kind](os.urandom(5000) + DATA[:5000])
    for end in [*range(6, 60), *range(60, len(data), 97), len(data) - 1]:
        with pytest.raises(UnsupportedLayer):
            expand(data[:end])


@pytest.mark.parametrize("kind", REAL)
def test_garbage_behind_the_end_is_refused(kind: str) -> None:
    """What follows a compressed stream must be another one."""
    with pytest.raises(UnsupportedLayer):
        expand(COMPRESSORS[kind](b"data") + b"garbage")


def test_zero_padding_behind_gzip_is_ignored() -> None:
    """Zeros behind gzip are padding, however many."""
    assert expand(gzip.compress(b"data") + bytes(200_000)) == b"data"
    assert expand(gzip.compress(b"a") + bytes(10) + gzip.compress(b"b")) == b"ab"


@pytest.mark.parametrize("kind", REAL)
@given(data=st.data())
def test_damage_raises_nothing_else(kind: str, data: st.DataObject) -> None:
    """A stream with random bytes changed expands or raises UnsupportedLayer."""
    raw = bytearray(COMPRESSORS[kind](DATA[:3000]))
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    try:
        expand(bytes(raw))
    except UnsupportedLayer:
        return


def zeros(kind: str, size: int) -> bytes:
    """Return `size` zeros compressed as well as possible."""
    if kind == "zstd":
        return zstandard.ZstdCompressor(level=3).compress(bytes(size))
    if kind == "gzip":
        compressor = zlib.compressobj(9, wbits=31)
        blocks = [compressor.compress(bytes(1 << 20)) for _ in range(size >> 20)]
        return b"".join([*blocks, compressor.flush()])
    return COMPRESSORS[kind](bytes(size))


@pytest.mark.parametrize("kind", REAL)
def test_bombs_are_stopped(kind: str) -> None:
    """A stream that expands far beyond what layers do is stopped soon, in little memory."""
    bomb = zeros(kind, 128 << 20)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    stream = decompressed(io.BytesIO(bomb))
    with pytest.raises(UnsupportedLayer, match="expand"):
        collections.deque(iter(lambda: stream.read(1 << 20), b""), maxlen=0)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 150 << 10


def test_ratio_can_be_allowed() -> None:
    """Who knows the source may allow any ratio, and the total still counts."""
    data = zeros("zstd", 100 << 20)
    assert len(expand(data, DecompressionLimits(ratio=None))) == 100 << 20
    with pytest.raises(UnsupportedLayer, match="more than 1000 bytes"):
        expand(data, DecompressionLimits(ratio=None, total_bytes=1000))


def test_total_counts_without_compression() -> None:
    """The limit on the total holds for plain archives too."""
    with pytest.raises(UnsupportedLayer):
        expand(bytes(2000), DecompressionLimits(total_bytes=1000))


def test_large_zstd_windows_are_refused() -> None:
    """A frame that asks for more than 128 MiB of memory is refused."""
    # Frame header: no single segment, window descriptor for 256 MiB; one raw block.
    frame = b"\x28\xb5\x2f\xfd" + b"\x00" + bytes([18 << 3]) + b"\x09\x00\x00" + b"x"
    with pytest.raises(UnsupportedLayer, match="zstd"):
        expand(frame)
    allowed = b"\x28\xb5\x2f\xfd" + b"\x00" + bytes([17 << 3]) + b"\x09\x00\x00" + b"x"
    assert expand(allowed) == b"x"


def test_skippable_zstd_frames() -> None:
    """Frames that carry no data, as chunked layers have at their end, are skipped."""
    skippable = b"\x50\x2a\x4d\x18" + (5).to_bytes(4, "little") + b"abcde"
    assert expand(zstandard.compress(b"data") + skippable) == b"data"
    assert expand(skippable + zstandard.compress(b"data")) == b"data"


def test_short_streams_are_plain() -> None:
    """Streams too short for a magic number, empty ones too, are passed through."""
    for data in (b"", b"\x1f", b"ab"):
        assert expand(data) == data


@pytest.mark.parametrize("kind", COMPRESSORS)
def test_errors_of_the_source_pass(kind: str) -> None:
    """An error of the disk or the network is not taken for damage of the archive."""

    class Broken(io.RawIOBase):
        data = COMPRESSORS[kind](os.urandom(500_000))

        def read(self, size: int = -1) -> bytes:
            block, self.data = self.data[:size], self.data[size:]
            if len(self.data) < 100_000:
                raise TimeoutError("gone")
            return block

    with pytest.raises(TimeoutError):
        decompressed(Broken()).read()  # type: ignore[arg-type]


def test_hashing_reader_covers_what_is_drained() -> None:
    """The digest is over all bytes, those nobody looked at included."""
    reader = HashingReader(io.BytesIO(DATA))
    assert reader.read(10) == DATA[:10]
    reader.drain()
    assert reader.digest == f"sha256:{hashlib.sha256(DATA).hexdigest()}"
    assert reader.size == len(DATA)
