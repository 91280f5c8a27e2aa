"""``--filter`` of the commands that prune, in Docker's words."""

from __future__ import annotations

import datetime as dt
import re
from typing import TYPE_CHECKING

import attrs
import click

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

__all__ = ["PruneFilter", "parse_filters", "parse_until"]

_UNITS_S = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(h|ms|us|µs|ns|m|s)")
_DURATION = re.compile(rf"(?:{_PART.pattern})+")
_SECONDS = re.compile(r"\d{1,12}(?:\.\d{1,9})?")
_BOOLEANS = {"true": True, "1": True, "false": False, "0": False}


@attrs.define
class PruneFilter:
    """What the filters of one command say together.

    Attributes:
        until: A time, or how long ago.
        labels: Labels that there must be.
        without_labels: Labels that there must not be.
        dangling: False for all images; None if nothing is said.
    """

    until: dt.datetime | dt.timedelta | None = None
    labels: list[str] = attrs.field(factory=list)
    without_labels: list[str] = attrs.field(factory=list)
    dangling: bool | None = None


def parse_until(text: str) -> dt.datetime | dt.timedelta:
    """Read a time as Docker does: ``24h``, ``2026-01-02T15:04:05Z``, ``2026-01-02``, or seconds since 1970.

    Raises:
        click.UsageError: It is none of these.
    """
    if _DURATION.fullmatch(text):
        seconds = sum(float(number) * _UNITS_S[unit] for number, unit in _PART.findall(text))
        try:
            return dt.timedelta(seconds=seconds)
        except OverflowError:
            raise click.UsageError(f"--filter until={text!r}: too long") from None
    if _SECONDS.fullmatch(text):
        try:
            return dt.datetime.fromtimestamp(float(text), dt.UTC)
        except (OverflowError, ValueError, OSError):
            raise click.UsageError(f"--filter until={text!r}: too late") from None
    try:
        # Without a zone it is this host's time, as for Docker's client.
        return dt.datetime.fromisoformat(text).astimezone()
    except (ValueError, OverflowError):
        raise click.UsageError(
            f"--filter until={text!r}: give a duration such as 24h, or a time such as 2026-01-02T15:04:05"
        ) from None


def parse_filters(texts: Iterable[str], known: Collection[str]) -> PruneFilter:
    """Read all ``--filter`` options of a command.

    Args:
        texts: Their values.
        known: The filters that the command has.

    Raises:
        click.UsageError: One is not ``NAME=VALUE``, is unknown, or has a bad value.
    """
    result = PruneFilter()
    for text in texts:
        name, sign, value = text.partition("=")
        is_not = name.endswith("!")
        name = name.removesuffix("!").strip().lower()
        if not sign or name not in known or (is_not and name != "label"):
            raise click.UsageError(f"--filter {text!r}: give {' or '.join(f'{one}=...' for one in known)}")
        if name == "until":
            if result.until is not None:
                raise click.UsageError("--filter until=... can be given only once")
            result.until = parse_until(value)
        elif name == "label":
            (result.without_labels if is_not else result.labels).append(value)
        elif value.lower() in _BOOLEANS:
            result.dangling = _BOOLEANS[value.lower()]
        else:
            raise click.UsageError(f"--filter {text!r}: give true or false")
    return result
