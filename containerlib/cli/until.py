"""Times in Docker's words: how long ago, or when."""

from __future__ import annotations

import datetime as dt
import re

import click

__all__ = ["parse_until"]

_UNITS_S = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(h|ms|us|µs|ns|m|s)")
_DURATION = re.compile(rf"(?:{_PART.pattern})+")
_SECONDS = re.compile(r"\d{1,12}(?:\.\d{1,9})?")


def parse_until(text: str, option: str = "--filter until") -> dt.datetime | dt.timedelta:
    """Read a time as Docker does: ``24h``, ``2026-01-02T15:04:05Z``, ``2026-01-02``, or seconds since 1970.

    Raises:
        click.UsageError: It is none of these.
    """
    if _DURATION.fullmatch(text):
        seconds = sum(float(number) * _UNITS_S[unit] for number, unit in _PART.findall(text))
        try:
            return dt.timedelta(seconds=seconds)
        except OverflowError:
            raise click.UsageError(f"{option}={text!r}: too long") from None
    if _SECONDS.fullmatch(text):
        try:
            return dt.datetime.fromtimestamp(float(text), dt.UTC)
        except (OverflowError, ValueError, OSError):
            raise click.UsageError(f"{option}={text!r}: too late") from None
    try:
        # Without a zone it is this host's time, as for Docker's client.
        return dt.datetime.fromisoformat(text).astimezone()
    except (ValueError, OverflowError):
        raise click.UsageError(
            f"{option}={text!r}: give a duration such as 24h, or a time such as 2026-01-02T15:04:05"
        ) from None
