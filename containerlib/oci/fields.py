"""Typed access to the fields of a parsed JSON object, for the parsers of this package.

Each function takes the object, the key and returns a value of one type; a missing key and a JSON null are the
same, as they are for Docker. Anything of another type is `InvalidManifest`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn, cast

from containerlib.errors import InvalidManifest

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "integer",
    "key_set",
    "mapping",
    "objects",
    "optional_text",
    "optional_texts",
    "required_text",
    "text",
    "text_map",
    "texts",
]

MAX_TEXT_LENGTH = 1 << 20
MAX_ITEMS = 10_000


def _refuse(key: str, expected: str) -> NoReturn:
    raise InvalidManifest(f"field {key!r} is not {expected}")


def optional_text(obj: Mapping[str, object], key: str) -> str | None:
    """Return the string at `key`, or None if there is none."""
    value = obj.get(key)
    if value is None:
        return None
    if not isinstance(value, str) or len(value) > MAX_TEXT_LENGTH or "\0" in value:
        _refuse(key, "a text")
    return value


def text(obj: Mapping[str, object], key: str) -> str:
    """Return the string at `key`, or the empty string."""
    return optional_text(obj, key) or ""


def required_text(obj: Mapping[str, object], key: str) -> str:
    """Return the string at `key`, which must be there and not be empty."""
    value = optional_text(obj, key)
    if not value:
        raise InvalidManifest(f"field {key!r} is missing")
    return value


def integer(obj: Mapping[str, object], key: str) -> int:
    """Return the integer at `key`, which must be between 0 and 2**63-1."""
    value = obj.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 63:
        _refuse(key, "a non-negative integer")
    return value


def optional_texts(obj: Mapping[str, object], key: str) -> tuple[str, ...] | None:
    """Return the list of strings at `key`, or None if there is none."""
    value = obj.get(key)
    if value is None:
        return None
    if not isinstance(value, list) or len(value) > MAX_ITEMS:
        _refuse(key, "a list of texts")
    for item in value:
        if not isinstance(item, str) or "\0" in item:
            _refuse(key, "a list of texts")
    return tuple(cast("list[str]", value))


def texts(obj: Mapping[str, object], key: str) -> tuple[str, ...]:
    """Return the list of strings at `key`, or an empty one."""
    return optional_texts(obj, key) or ()


def mapping(obj: Mapping[str, object], key: str) -> dict[str, object] | None:
    """Return the object at `key`, or None if there is none."""
    value = obj.get(key)
    if value is None:
        return None
    if not isinstance(value, dict) or len(value) > MAX_ITEMS:
        _refuse(key, "an object")
    return cast("dict[str, object]", value)


def text_map(obj: Mapping[str, object], key: str) -> dict[str, str]:
    """Return the object of strings at `key`, or an empty one."""
    value = mapping(obj, key) or {}
    for item in value.values():
        if not isinstance(item, str) or len(item) > MAX_TEXT_LENGTH:
            _refuse(key, "an object of texts")
    return cast("dict[str, str]", value)


def key_set(obj: Mapping[str, object], key: str) -> tuple[str, ...]:
    """Return the keys of the object at `key`, sorted: how the specification writes a set."""
    return tuple(sorted(mapping(obj, key) or {}))


def objects(obj: Mapping[str, object], key: str) -> list[dict[str, object]]:
    """Return the list of objects at `key`, or an empty one."""
    value = obj.get(key)
    if value is None:
        return []
    if not isinstance(value, list) or len(value) > MAX_ITEMS:
        _refuse(key, "a list of objects")
    for item in value:
        if not isinstance(item, dict):
            _refuse(key, "a list of objects")
    return cast("list[dict[str, object]]", value)
