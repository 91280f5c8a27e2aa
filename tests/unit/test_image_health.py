"""The health check of an image, as Docker writes it."""

from __future__ import annotations

import pytest

import containerlib as cl
from containerlib.oci.image_config import Config
from containerlib.runtime.config import merge
from containerlib.runtime.image_health import image_health

SECOND = 10**9


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        (None, None),
        ({}, None),
        ({"Test": []}, None),
        ({"Test": ["NONE"]}, None),
        ({"Test": ["CMD", "curl", "-f"]}, cl.HealthCheck(command=("curl", "-f"))),
        ({"Test": ["CMD-SHELL", "a b"]}, cl.HealthCheck(command=("/bin/sh", "-c", "a b"))),
        (
            {"Test": ["CMD", "a"], "Interval": 5 * SECOND, "Timeout": SECOND // 2, "Retries": 2},
            cl.HealthCheck(command=("a",), interval_s=5.0, timeout_s=0.5, retries=2),
        ),
        (
            {"Test": ["CMD", "a"], "StartPeriod": 3 * SECOND, "StartInterval": SECOND, "Interval": 0},
            cl.HealthCheck(command=("a",), start_period_s=3.0, start_interval_s=1.0),
        ),
    ],
)
def test_what_an_image_asks_for(document: dict[str, object] | None, expected: cl.HealthCheck | None) -> None:
    """Each of Docker's forms means what it means there."""
    assert image_health(Config(healthcheck=document)) == expected


@pytest.mark.parametrize(
    "document",
    [
        {"Test": "CMD a"},
        {"Test": ["CMD"]},
        {"Test": ["CMD-SHELL", "a", "b"]},
        {"Test": ["RUN", "a"]},
        {"Test": [1]},
        {"Test": ["CMD", "a"], "Interval": "5s"},
        {"Test": ["CMD", "a"], "Interval": -1},
        {"Test": ["CMD", "a"], "Interval": 1},
        {"Test": ["CMD", "a"], "Retries": True},
        {"Test": ["CMD", "a\0"]},
    ],
)
def test_what_no_image_can_mean(document: dict[str, object]) -> None:
    """Another form is an error that names the field and says what to do."""
    with pytest.raises(cl.InvalidManifest, match="health="):
        image_health(Config(healthcheck=document))


def test_only_what_is_detached_is_checked() -> None:
    """A container of this process has no check; one's own goes before the image's."""
    image = Config(cmd=("a",), healthcheck={"Test": ["CMD", "b"]})
    own = cl.HealthCheck(command=("c",))
    assert merge(image).health is None
    assert merge(image, lifetime="detached").health == cl.HealthCheck(command=("b",))
    assert merge(image, lifetime="detached", health=own).health == own
    assert merge(image, lifetime="detached", health=None).health is None
