"""What is known of a container's health."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from attrs import frozen

from containerlib._native.supervisor import HealthResult, read_health
from containerlib.runtime.detached import DetachedProcess

if TYPE_CHECKING:
    from containerlib.container.entry import ContainerEntry

__all__ = ["HealthResult", "HealthStatus", "health_status"]


@frozen(kw_only=True)
class HealthStatus:
    """What the health check of a container says.

    Attributes:
        status: ``"starting"`` until a check has succeeded, or enough have failed in a row.
        failures: How many have failed in a row; those of the start period do not count.
        results: The last five, oldest first.
    """

    status: Literal["starting", "healthy", "unhealthy"]
    failures: int
    results: tuple[HealthResult, ...]


def health_status(entry: ContainerEntry) -> HealthStatus | None:
    """What the checks say; None without a check, or before the first start."""
    entry.refresh()
    word = entry.process.state() if isinstance(entry.process, DetachedProcess) else None
    if word is None or word.health == "none":
        return None
    results = read_health(entry.layers.directory or "")
    return HealthStatus(status=word.health, failures=word.health_failures, results=tuple(results))
