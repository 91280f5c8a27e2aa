"""The ``WWW-Authenticate`` header: how a registry says which credentials it wants. Pure.

Source: RFC 9110, section 11.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Challenge", "parse_challenges"]

_MAX_LENGTH = 8 << 10
_MAX_CHALLENGES = 8
_SCHEME = re.compile(r"\s*([A-Za-z][A-Za-z0-9-]*)(?:\s+|$)")
_PARAMETER = re.compile(r'\s*([A-Za-z][A-Za-z0-9_-]*)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))\s*(?:,|$)')


@attrs.frozen
class Challenge:
    """One way in: ``basic`` or ``bearer`` and its parameters."""

    scheme: str
    parameters: Mapping[str, str]


def parse_challenges(header: str) -> list[Challenge]:
    """Return the challenges of a header, as far as it can be understood."""
    found: list[Challenge] = []
    if len(header) > _MAX_LENGTH:
        return found
    position = 0
    while position < len(header) and len(found) < _MAX_CHALLENGES:
        scheme = _SCHEME.match(header, position)
        if scheme is None:
            break
        position = scheme.end()
        parameters: dict[str, str] = {}
        while (parameter := _PARAMETER.match(header, position)) is not None:
            value = parameter[2] if parameter[2] is not None else parameter[3]
            parameters.setdefault(parameter[1].lower(), re.sub(r"\\(.)", r"\1", value))
            position = parameter.end()
        found.append(Challenge(scheme[1].lower(), parameters))
    return found
