from __future__ import annotations

import time

import pytest

from containerlib.cli.output import human_age

DAY = 86400


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (-100, "now"),
        (1.5, "1 second ago"),
        (90, "1 minute ago"),
        (2 * 3600 + 1, "2 hours ago"),
        (13.5 * DAY, "13 days ago"),
        (14.5 * DAY, "2 weeks ago"),
        (59.5 * DAY, "8 weeks ago"),
        (60.5 * DAY, "2 months ago"),
        (729.5 * DAY, "24 months ago"),
        (731 * DAY, "2 years ago"),
    ],
)
def test_ages(seconds: float, expected: str) -> None:
    """An age is told in the largest unit of which there are enough."""
    assert human_age(time.time() - seconds) == expected


def test_no_age() -> None:
    """What has no date has no age, as Docker shows it."""
    assert human_age(None) == "N/A"
