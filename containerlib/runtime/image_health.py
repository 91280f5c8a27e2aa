"""The health check that an image asks for, in Docker's form. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from containerlib.errors import InvalidManifest, InvalidOption
from containerlib.options import HealthCheck

if TYPE_CHECKING:
    from collections.abc import Mapping

    from containerlib.oci.image_config import Config

__all__ = ["image_health"]

_SHELL = ("/bin/sh", "-c")
_TIMES = {
    "Interval": "interval_s",
    "Timeout": "timeout_s",
    "StartPeriod": "start_period_s",
    "StartInterval": "start_interval_s",
}


def image_health(image: Config) -> HealthCheck | None:
    """The check of the image's ``HEALTHCHECK``; None if it has none, or says ``NONE``.

    Raises:
        InvalidManifest: It is not of Docker's form.
    """
    wanted = image.healthcheck
    if wanted is None:
        return None
    test = wanted.get("Test") or []
    if not isinstance(test, list) or not all(isinstance(part, str) for part in test):
        raise _wrong("Test", test)
    if not test or test[0] == "NONE":
        return None
    try:
        return HealthCheck(command=_command(image, test), **_numbers(wanted))
    except InvalidOption as error:
        raise _wrong(error.option, str(error)) from None


def _command(image: Config, test: list[str]) -> tuple[str, ...]:
    kind, *rest = test
    if kind == "CMD" and rest:
        return tuple(rest)
    if kind == "CMD-SHELL" and len(rest) == 1:
        return (*(image.shell or _SHELL), rest[0])
    raise _wrong("Test", test)


def _numbers(wanted: Mapping[str, object]) -> dict[str, Any]:
    """Docker counts nanoseconds, and 0 stands for its default, which is ours as well."""
    found: dict[str, Any] = {}
    for key, name in (*_TIMES.items(), ("Retries", "retries")):
        value = wanted.get(key) or 0
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise _wrong(key, value)
        if value:
            found[name] = value if name == "retries" else value / 1e9
    return found


def _wrong(key: str, value: object) -> InvalidManifest:
    return InvalidManifest(
        f"the image's health check cannot be used: {key}={str(value)[:80]!r}; give your own: health=..."
    )
