"""What ``until`` means in a filter."""

from __future__ import annotations

import datetime as dt

import click
import pytest

from containerlib.cli.until import parse_until


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("24h", 86400), ("1h30m", 5400), ("90s", 90), ("1.5h", 5400), ("10ms", 0.01), ("2m3s", 123)],
)
def test_durations(text: str, seconds: float) -> None:
    """Durations are Go's, as for Docker."""
    assert parse_until(text) == dt.timedelta(seconds=seconds)


def test_times() -> None:
    """A time may be RFC 3339, a date, or seconds since 1970."""
    expected = dt.datetime(2026, 1, 2, 15, 4, 5, tzinfo=dt.UTC)
    assert parse_until("2026-01-02T15:04:05Z") == expected
    assert parse_until("2026-01-02T16:04:05+01:00") == expected
    assert parse_until(str(int(expected.timestamp()))) == expected
    assert parse_until("2026-01-02") == dt.datetime(2026, 1, 2).astimezone()


@pytest.mark.parametrize("text", ["", "h", "-1h", "1d", "tomorrow", "1h x", "9" * 40, "99999999999999h"])
def test_bad_times(text: str) -> None:
    """What is neither a duration nor a time is refused."""
    with pytest.raises(click.UsageError):
        parse_until(text)
