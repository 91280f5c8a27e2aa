"""What a supervisor is told, from a container's configuration. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from containerlib._native.supervisor import HealthOrder, Order, Restart
from containerlib.options import LogFile

if TYPE_CHECKING:
    from containerlib._native.spec import NativeSpec
    from containerlib.options import HealthCheck, RestartPolicy
    from containerlib.runtime.config import ContainerConfig

__all__ = ["health_order", "make_order", "restart_words"]


def restart_words(policy: RestartPolicy) -> tuple[Restart, int]:
    """The policy as a supervisor knows it: a reboot ends it, and then the two that differ by that differ."""
    name: Restart = "always" if policy.name == "unless-stopped" else policy.name
    return name, policy.max_retries


def make_order(
    config: ContainerConfig, *, reads_stdout: bool, reads_stderr: bool, keeps_stdin: bool
) -> Order:
    """The order for a container, without its check and its control groups.

    Args:
        config: What it shall be.
        reads_stdout: Whether its standard output goes to the supervisor.
        reads_stderr: The same of its standard error.
        keeps_stdin: Whether its standard input comes from who attaches.
    """
    restart, most = restart_words(config.restart)
    log = config.log if isinstance(config.log, LogFile) else LogFile()
    return Order(
        restart=restart,
        restart_most=most,
        reads_stdout=reads_stdout,
        reads_stderr=reads_stderr,
        keeps_stdin=keeps_stdin,
        log_limit_bytes=log.max_bytes if log.max_files else None,
        log_keep=log.max_files,
        remove=config.remove,
    )


def health_order(check: HealthCheck, spec: NativeSpec) -> HealthOrder:
    """How a supervisor makes the check."""
    return HealthOrder(
        spec=spec,
        interval_ms=_milliseconds(check.interval_s),
        timeout_ms=_milliseconds(check.timeout_s),
        retries=check.retries,
        start_period_ms=_milliseconds(check.start_period_s),
        start_interval_ms=_milliseconds(check.start_interval_s),
    )


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)
