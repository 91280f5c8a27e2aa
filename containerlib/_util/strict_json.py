"""JSON in and out, without the parts that two parsers can read differently.

`loads` refuses duplicate keys, numbers that are not finite, text that is not UTF-8, lone surrogates, deep
nesting and documents over a limit. `dumps` prints one form only: sorted keys, no whitespace, UTF-8. Every
refusal is an `InvalidInputError`, whatever the input is.
"""

from __future__ import annotations

import json
import math
from typing import NoReturn

from containerlib.errors import InvalidInputError

__all__ = ["MAX_DEPTH", "dumps", "loads", "loads_object"]

MAX_DEPTH = 64


class _RefusedError(ValueError):
    """Raised inside the parser's hooks; never leaves this module."""


def loads(data: bytes, *, limit: int, what: str = "JSON document") -> object:
    """Parse `data` strictly.

    Args:
        data: The document as received.
        limit: Most bytes that are accepted.
        what: What the document is, for the message.

    Returns:
        Dictionaries, lists, strings, integers, finite floats, booleans and None.

    Raises:
        InvalidInputError: The document is too large, damaged, too deep or ambiguous.
    """
    if len(data) > limit:
        raise InvalidInputError(f"{what}: {len(data)} bytes, more than the limit of {limit}")
    try:
        value: object = json.loads(
            data.decode("utf-8"),
            object_pairs_hook=_object,
            parse_constant=_constant,
            parse_float=_float,
        )
        _check(value)
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise InvalidInputError(f"{what}: {reason}") from None
    return value


def loads_object(data: bytes, *, limit: int, what: str = "JSON document") -> dict[str, object]:
    """Parse `data` strictly, and insist that the top is an object."""
    value = loads(data, limit=limit, what=what)
    if not isinstance(value, dict):
        raise InvalidInputError(f"{what}: not an object")
    return value


def dumps(value: object) -> bytes:
    """Print `value` in the one canonical form, so that equal values have equal bytes."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode()


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    result = dict(pairs)
    if len(result) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise _RefusedError(f"key {key!r} appears twice")
            seen.add(key)
    return result


def _constant(name: str) -> NoReturn:
    raise _RefusedError(f"{name} is not a JSON number")


def _float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise _RefusedError(f"number {text[:32]} is out of range")
    return value


def _check(top: object) -> None:
    """Refuse nesting below `MAX_DEPTH` and text that cannot be written as UTF-8."""
    level: list[object] = [top]
    depth = 0
    while level:
        below: list[object] = []
        holds_containers = False
        for value in level:
            if isinstance(value, str):
                _check_text(value)
            elif isinstance(value, dict):
                holds_containers = True
                for key in value:
                    _check_text(key)
                below.extend(value.values())
            elif isinstance(value, list):
                holds_containers = True
                below.extend(value)
        if holds_containers and depth == MAX_DEPTH:
            raise _RefusedError(f"nested more than {MAX_DEPTH} levels deep")
        level = below
        depth += 1


def _check_text(text: str) -> None:
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise _RefusedError("text with a lone surrogate") from None
