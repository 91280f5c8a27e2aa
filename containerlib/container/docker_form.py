"""A container's configuration in the words of Docker's interface, for showing it."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

from containerlib.network_options import ADDRESSES
from containerlib.options import UNLIMITED, LogFile

if TYPE_CHECKING:
    from collections.abc import Iterable

    from containerlib.network_options import PortMapping
    from containerlib.options import HealthCheck, LogCallback, Mount, Resources, Security
    from containerlib.runtime.config import ContainerConfig

__all__ = ["config_json", "host_config_json", "mounts_json", "ports_json"]

_NANO = 1_000_000_000


def config_json(config: ContainerConfig, *, image: str, hostname: str) -> dict[str, object]:
    """The member ``Config``: what concerns the processes themselves."""
    return {
        "Hostname": hostname,
        "Domainname": config.domainname or "",
        "User": config.user.text,
        "Tty": config.tty,
        "OpenStdin": config.stdin_open,
        "Env": [f"{name}={value}" for name, value in config.env.items()],
        "Cmd": list(config.args),
        "Healthcheck": None if config.health is None else _health_json(config.health),
        "Image": image,
        "WorkingDir": config.workdir,
        "Entrypoint": None,
        "Labels": dict(config.labels),
        "StopSignal": _signal_name(config.stop_signal),
        "StopTimeout": round(config.stop_timeout_s),
    }


def host_config_json(config: ContainerConfig) -> dict[str, object]:
    """The member ``HostConfig``: what concerns the host."""
    return {
        "NetworkMode": config.network,
        "PortBindings": ports_json(config.ports),
        "Dns": list(config.dns),
        "DnsSearch": list(config.dns_search),
        "DnsOptions": list(config.dns_options),
        "ExtraHosts": [f"{name}:{address}" for name, address in config.extra_hosts.items()],
        "LogConfig": _log_json(config.log),
        "RestartPolicy": {"Name": config.restart.name, "MaximumRetryCount": config.restart.max_retries},
        "AutoRemove": config.remove,
        "Binds": [_bind_text(mount) for mount in config.mounts if mount.kind == "bind"],
        "Tmpfs": {mount.target: _tmpfs_text(mount) for mount in config.mounts if mount.kind == "tmpfs"},
        "ReadonlyRootfs": config.read_only,
        "Privileged": False,
        "GroupAdd": list(config.group_add),
        "ShmSize": config.shm_size_bytes,
        "Init": config.init,
        "ConsoleSize": [config.console_size[1], config.console_size[0]],
        "Sysctls": dict(config.sysctls),
        "Ulimits": [{"Name": each.name, "Soft": each.soft, "Hard": each.hard} for each in config.rlimits],
        "Devices": [
            {
                "PathOnHost": each.source,
                "PathInContainer": each.target or each.source,
                "CgroupPermissions": each.access,
            }
            for each in config.devices
        ],
        **_security_json(config.security),
        **_resources_json(config.resources),
    }


def ports_json(ports: Iterable[PortMapping]) -> dict[str, list[dict[str, str]]]:
    """Where ports are reached, by the ports of the container."""
    found: dict[str, list[dict[str, str]]] = {}
    for each in ports:
        found.setdefault(f"{each.container_port}/{each.protocol}", []).extend(
            {"HostIp": address, "HostPort": str(each.host_port or "")}
            for address in ADDRESSES.get(each.host, (each.host,))
        )
    return found


def mounts_json(config: ContainerConfig) -> list[dict[str, object]]:
    """The member ``Mounts``: what the container finds at which place."""
    return [
        {
            "Type": mount.kind,
            "Source": mount.source or "",
            "Destination": mount.target,
            "Mode": "" if not mount.read_only else "ro",
            "RW": not mount.read_only,
            "Propagation": "rprivate" if mount.kind == "bind" else "",
        }
        for mount in config.mounts
    ]


def _health_json(health: HealthCheck) -> dict[str, object]:
    return {
        "Test": ["CMD", *health.command],
        "Interval": round(health.interval_s * _NANO),
        "Timeout": round(health.timeout_s * _NANO),
        "StartPeriod": round(health.start_period_s * _NANO),
        "StartInterval": round(health.start_interval_s * _NANO),
        "Retries": health.retries,
    }


def _log_json(log: LogFile | LogCallback) -> dict[str, object]:
    if not isinstance(log, LogFile) or not log.max_files:
        return {"Type": "none", "Config": {}}
    return {"Type": "local", "Config": {"max-size": str(log.max_bytes), "max-file": str(log.max_files)}}


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return str(number)


def _bind_text(mount: Mount) -> str:
    return f"{mount.source}:{mount.target}{':ro' if mount.read_only else ''}"


def _tmpfs_text(mount: Mount) -> str:
    words = [f"mode={mount.mode:o}", "exec" if mount.exec else "noexec"]
    if mount.read_only:
        words.append("ro")
    if mount.size_bytes is not None:
        words.append(f"size={mount.size_bytes}")
    return ",".join(words)


def _security_json(security: Security) -> dict[str, object]:
    said = ["no-new-privileges"] if security.no_new_privileges else []
    if not isinstance(security.seccomp, str):
        said.append("seccomp=custom")
    elif security.seccomp != "default":
        said.append(f"seccomp={security.seccomp}")
    return {"CapAdd": list(security.cap_add), "CapDrop": list(security.cap_drop), "SecurityOpt": said}


def _resources_json(limits: Resources) -> dict[str, object]:
    return {
        "Memory": limits.memory_bytes or 0,
        "MemorySwap": limits.memory_swap_bytes or 0,
        "MemoryReservation": limits.memory_reservation_bytes or 0,
        "NanoCpus": round((limits.cpus or 0) * _NANO),
        "CpuShares": limits.cpu_shares or 0,
        "CpuQuota": limits.cpu_quota_us or 0,
        "CpuPeriod": limits.cpu_period_us or 0,
        "CpusetCpus": limits.cpuset_cpus or "",
        "CpusetMems": limits.cpuset_mems or "",
        "BlkioWeight": limits.io_weight or 0,
        "BlkioDeviceReadBps": _rates(limits.device_read_bps),
        "BlkioDeviceWriteBps": _rates(limits.device_write_bps),
        "BlkioDeviceReadIOps": _rates(limits.device_read_iops),
        "BlkioDeviceWriteIOps": _rates(limits.device_write_iops),
        "PidsLimit": UNLIMITED if limits.pids is None else limits.pids,
        "OomScoreAdj": limits.oom_score_adj or 0,
    }


def _rates(rates: tuple[tuple[str, int], ...]) -> list[dict[str, object]]:
    return [{"Path": path, "Rate": rate} for path, rate in rates]
