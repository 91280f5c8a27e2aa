"""The records of PAX extended headers: parse and print. Pure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NoReturn

from containerlib.errors import UnsupportedLayer

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["XATTR_PREFIX", "decimal", "encode", "parse", "seconds_ns", "xattrs"]

XATTR_PREFIX = "SCHILY.xattr."

_MAX_LENGTH_DIGITS = 8
_MAX_XATTR_NAME_BYTES = 255
_MAX_XATTR_VALUE_BYTES = 64 << 10
_DECIMAL = re.compile(rb"-?[0-9]{1,20}")
_SECONDS = re.compile(rb"(-?)([0-9]{1,20})(?:\.([0-9]{0,64}))?")
_TEXT_KEYS = frozenset(("path", "linkpath"))
_SPARSE_PREFIX = "GNU.sparse."


def parse(data: bytes) -> dict[str, bytes]:
    """Parse the records ``length key=value`` of one extended header.

    Raises:
        UnsupportedLayer: A record is damaged, or describes a sparse file.
    """
    records: dict[str, bytes] = {}
    position = 0
    while position < len(data):
        space = data.find(b" ", position, position + _MAX_LENGTH_DIGITS + 1)
        digits = data[position:space] if space > 0 else b""
        if not digits.isdigit():
            _refuse("record without a length")
        end = position + int(digits)
        if end > len(data) or end <= space + 1 or data[end - 1 : end] != b"\n":
            _refuse("record with a wrong length")
        key, equals, value = data[space + 1 : end - 1].partition(b"=")
        if not equals or not key:
            _refuse("record without a key")
        _add(records, key.decode("utf-8", "surrogateescape"), value)
        position = end
    return records


def _add(records: dict[str, bytes], key: str, value: bytes) -> None:
    if key.startswith(_SPARSE_PREFIX):
        _refuse("sparse files are not supported")
    if "\0" in key or (key in _TEXT_KEYS and b"\0" in value):
        _refuse(f"record {key[:64]!r} holds a NUL byte")
    if value or key.startswith(XATTR_PREFIX):
        records[key] = value
    else:
        records.pop(key, None)


def decimal(value: bytes) -> int:
    """Return an integer value."""
    if _DECIMAL.fullmatch(value) is None:
        _refuse(f"value {value[:32]!r} is not a number")
    return int(value)


def seconds_ns(value: bytes) -> int:
    """Return a time in seconds, with or without a fraction, as nanoseconds."""
    match = _SECONDS.fullmatch(value)
    if match is None:
        _refuse(f"value {value[:32]!r} is not a time")
    sign, whole, fraction = match.groups()
    nanoseconds = int(whole) * 1_000_000_000 + int((fraction or b"")[:9].ljust(9, b"0"))
    return -nanoseconds if sign else nanoseconds


def xattrs(records: Mapping[str, bytes]) -> dict[str, bytes]:
    """Return the extended attributes among `records`.

    Raises:
        UnsupportedLayer: A name or a value is longer than Linux allows.
    """
    result: dict[str, bytes] = {}
    for key, value in records.items():
        if not key.startswith(XATTR_PREFIX):
            continue
        name = key.removeprefix(XATTR_PREFIX)
        if not name or len(name.encode("utf-8", "surrogateescape")) > _MAX_XATTR_NAME_BYTES:
            _refuse(f"extended attribute {name[:64]!r} has a name of wrong length")
        if len(value) > _MAX_XATTR_VALUE_BYTES:
            _refuse(f"extended attribute {name!r} has {len(value)} bytes")
        result[name] = value
    return result


def encode(records: Mapping[str, bytes]) -> bytes:
    """Print `records`, sorted by key, as the content of an extended header."""
    return b"".join(_record(key, records[key]) for key in sorted(records))


def _record(key: str, value: bytes) -> bytes:
    body = b" " + key.encode("utf-8", "surrogateescape") + b"=" + value + b"\n"
    length = len(body)
    # The length counts its own digits.
    while length != len(body) + len(str(length)):
        length = len(body) + len(str(length))
    return str(length).encode() + body


def _refuse(reason: str) -> NoReturn:
    raise UnsupportedLayer(f"archive: extended header: {reason}")
