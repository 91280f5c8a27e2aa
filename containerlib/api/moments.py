"""Times as callers give them."""

from __future__ import annotations

import datetime as dt
import time

__all__ = ["seconds_of"]


def seconds_of(value: dt.datetime | dt.timedelta | None) -> float | None:
    """Seconds since the epoch of a time, or of so long ago; None stays None."""
    if isinstance(value, dt.timedelta):
        return time.time() - value.total_seconds()
    return None if value is None else value.timestamp()
