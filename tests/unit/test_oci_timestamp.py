from __future__ import annotations

import datetime as dt

import pytest

from containerlib.oci import timestamp


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("2024-02-29T01:02:03Z", "2024-02-29T01:02:03Z"),
        ("2024-02-29t01:02:03.5z", "2024-02-29T01:02:03.500000Z"),
        ("2024-02-29T01:02:03.123456789Z", "2024-02-29T01:02:03.123456Z"),
        ("2024-02-29T01:02:03+02:00", "2024-02-28T23:02:03Z"),
        ("1970-01-01T00:00:00Z", "1970-01-01T00:00:00Z"),
    ],
)
def test_times(value: str, expected: str) -> None:
    """RFC 3339 is read, whatever the zone, and printed in UTC."""
    found = timestamp.parse(value)
    assert found is not None
    assert timestamp.text(found) == expected


@pytest.mark.parametrize(
    "value",
    [
        *(
            "",
            "yesterday",
            "2024-02-30T00:00:00Z",
            "0001-01-01T00:00:00Z",
            "2024-02-29",
            "2024-02-29T01:02:03",
        ),
        *("20240229T010203Z", "2024-02-29T25:00:00Z", "9999-12-31T23:59:59-23:59", "2024-W01-1T00:00:00Z"),
    ],
)
def test_what_is_no_time(value: str) -> None:
    """Anything else says no time, Go's zero time included, and is no error."""
    assert timestamp.parse(value) is None


def test_seconds() -> None:
    """Seconds since 1970 become a time and its text."""
    assert timestamp.from_seconds(1000) == dt.datetime(1970, 1, 1, 0, 16, 40, tzinfo=dt.UTC)
    assert timestamp.text(timestamp.from_seconds(2**33 - 1)) == "2242-03-16T12:56:31Z"
