"""Times as configuration documents have them: RFC 3339 text, in which Go's zero time means none."""

from __future__ import annotations

import datetime as dt
import re

__all__ = ["from_seconds", "parse", "text"]

_FORM = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?([Zz]|[+-][0-9]{2}:[0-9]{2})"
)
_ZERO_YEAR = 1


def parse(value: str) -> dt.datetime | None:
    """Return the time that `value` says, to the microsecond; None if it says none.

    Whoever makes an image writes what he likes here, so what is no time is as good as no time.
    """
    if _FORM.fullmatch(value) is None:
        return None
    try:
        found = dt.datetime.fromisoformat(value.upper()).astimezone(dt.UTC)
    except (ValueError, OverflowError):
        return None
    return None if found.year == _ZERO_YEAR else found


def from_seconds(seconds: int) -> dt.datetime:
    """Return the time so many seconds after 1970 began."""
    return dt.datetime.fromtimestamp(seconds, dt.UTC)


def text(time: dt.datetime) -> str:
    """Return `time` in RFC 3339, without a fraction if that is zero."""
    return time.isoformat().replace("+00:00", "Z")
