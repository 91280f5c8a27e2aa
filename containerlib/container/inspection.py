"""Everything that is known about one container, as one value and in Docker's form."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

import attrs

from containerlib.container.docker_form import config_json, host_config_json, mounts_json, ports_json
from containerlib.container.health import health_status
from containerlib.container.network import address_of, addresses_of, ports_of
from containerlib.container.state import ContainerState, check_state
from containerlib.errors import InvalidReference
from containerlib.oci import timestamp
from containerlib.oci.reference import Reference

if TYPE_CHECKING:
    from collections.abc import Mapping

    from containerlib.container.entry import ContainerEntry
    from containerlib.container.health import HealthStatus
    from containerlib.network_options import PortMapping
    from containerlib.runtime.config import ContainerConfig
    from containerlib.runtime.usage import ExitStatus

__all__ = ["ContainerInspection", "inspect_container"]

_NEVER = "0001-01-01T00:00:00Z"
_LOG_OUTPUT_LIMIT = 4096
_UNKNOWN = 125


@attrs.frozen(kw_only=True)
class ContainerInspection:
    """What is known about one container at one moment.

    Attributes:
        id: 64 hexadecimal digits.
        name: Its name.
        image_id: Digest of its image's configuration.
        image_name: What the image was called when it was made.
        state: Where it stands.
        pid: Number of its first process, as this process sees it; None unless it runs.
        exit_status: How it last ended; None before the first end.
        created_at: When it was made.
        started_at: When it was last started; None before the first start.
        finished_at: When it last ended; None before the first end.
        restart_count: How often its policy has started it again since `Container.start`.
        health: What its health check says; None without one.
        config: What it was asked to be, together with what its image says.
        ip_address: Its address in its network; None if it has none.
        ip_addresses: Its addresses by its networks.
        ports: What is published of it, with the ports of the host.
    """

    id: str
    name: str
    image_id: str
    image_name: str
    state: ContainerState
    pid: int | None
    exit_status: ExitStatus | None
    created_at: dt.datetime
    started_at: dt.datetime | None
    finished_at: dt.datetime | None
    restart_count: int
    health: HealthStatus | None
    config: ContainerConfig
    ip_address: str | None = None
    ip_addresses: Mapping[str, str] = attrs.field(factory=dict)
    ports: tuple[PortMapping, ...] = ()

    def to_json(self) -> dict[str, object]:
        """Return the object that ``docker container inspect`` prints, as far as there is something to say.

        ``Config.Entrypoint`` is always null: entrypoint and command are one list once a container is made.
        """
        config = self.config
        return {
            "Id": self.id,
            "Created": timestamp.text(self.created_at),
            "Path": config.args[0] if config.args else "",
            "Args": list(config.args[1:]),
            "State": self._state_json(),
            "Image": self.image_id,
            "Name": f"/{self.name}",
            "RestartCount": self.restart_count,
            "Platform": "linux",
            "HostConfig": host_config_json(config),
            "Mounts": mounts_json(config),
            "Config": config_json(
                config, image=_familiar(self.image_name), hostname=config.hostname or self.id[:12]
            ),
            "NetworkSettings": self._network_json(),
        }

    def _network_json(self) -> dict[str, object]:
        address = self.ip_address
        networks = {name: {"IPAddress": each} for name, each in self.ip_addresses.items()}
        return {"Ports": ports_json(self.ports), "IPAddress": address or "", "Networks": networks}

    def _state_json(self) -> dict[str, object]:
        status, ended = self.exit_status, not self.state.is_alive
        code = status.exit_code if status is not None and ended else 0
        found: dict[str, object] = {
            "Status": str(self.state),
            "Running": self.state.is_alive,
            "Paused": self.state == ContainerState.PAUSED,
            "Restarting": self.state == ContainerState.RESTARTING,
            "OOMKilled": bool(status is not None and ended and status.oom_killed),
            "Dead": False,
            "Pid": self.pid or 0,
            "ExitCode": _UNKNOWN if code is None else code,
            "Error": "how it ended is not known: its supervisor was killed" if code is None else "",
            "StartedAt": _time_text(self.started_at),
            "FinishedAt": _time_text(self.finished_at),
        }
        if self.health is not None:
            found["Health"] = _health_json(self.health)
        return found


def _familiar(image: str) -> str:
    """The name of an image as Docker shows it; one that is only an id stays."""
    try:
        return Reference.parse(image).familiar
    except InvalidReference:
        return image


def _time_text(time: dt.datetime | None) -> str:
    return _NEVER if time is None else timestamp.text(time)


def _health_json(health: HealthStatus) -> dict[str, object]:
    return {
        "Status": health.status,
        "FailingStreak": health.failures,
        "Log": [
            {
                "Start": _time_text(_time(result.started_at)),
                "End": _time_text(_time(result.ended_at)),
                "ExitCode": -1 if result.exit_code is None else result.exit_code,
                "Output": result.output[:_LOG_OUTPUT_LIMIT].decode("utf-8", "replace"),
            }
            for result in health.results
        ],
    }


def inspect_container(entry: ContainerEntry) -> ContainerInspection:
    """Return what is known about a container now.

    Raises:
        InvalidState: It was removed.
    """
    with entry.lock:
        state = entry.refresh()
        check_state("inspect", state, entry.name)
        process = entry.process
        return ContainerInspection(
            id=entry.id,
            name=entry.name,
            image_id=entry.image_id,
            image_name=entry.image_name,
            state=state,
            pid=None if process is None or not state.is_alive else process.pid,
            exit_status=entry.exit_status,
            created_at=_time(entry.created_at) or dt.datetime.now(dt.UTC),
            started_at=_time(None if process is None else process.started_at),
            finished_at=_time(None if process is None else process.finished_at),
            restart_count=entry.restart_count,
            health=health_status(entry),
            config=entry.config,
            ip_address=address_of(entry),
            ip_addresses=addresses_of(entry),
            ports=ports_of(entry),
        )


def _time(seconds: float | None) -> dt.datetime | None:
    return dt.datetime.fromtimestamp(seconds, dt.UTC) if seconds else None
