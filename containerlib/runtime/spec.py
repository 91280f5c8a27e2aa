"""Builds the OCI runtime spec of a container from its configuration. Pure: no disk, no kernel.

In: `ContainerConfig`, the resolved user, facts about the host. Out: a `Spec`. Everything that a host cannot
honour is refused here, before anything was made.
"""

from __future__ import annotations

import posixpath
import re
from functools import lru_cache
from typing import TYPE_CHECKING

from containerlib.errors import InvalidOption, UnsupportedHost
from containerlib.oci.runtime_spec import (
    Capabilities,
    DeviceNode,
    Linux,
    PosixRlimit,
    Process,
    Root,
    Spec,
    SpecMount,
    User,
)
from containerlib.runtime import capability, defaults
from containerlib.runtime.host import RLIMIT_NUMBERS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from containerlib.options import Mount, Rlimit
    from containerlib.runtime.config import ContainerConfig
    from containerlib.runtime.host import HostFacts
    from containerlib.runtime.user import ResolvedUser

__all__ = ["build"]

_SYSCTL = re.compile(r"[a-z0-9_]+([./][A-Za-z0-9_@:-]+)+")
_UNLIMITED = -1


def _environment(config: ContainerConfig, user: ResolvedUser, hostname: str) -> tuple[str, ...]:
    env = {"PATH": config.env["PATH"], "HOSTNAME": hostname}
    if config.tty:
        env["TERM"] = "xterm"
    env["HOME"] = user.home
    env.update(config.env)
    return tuple(f"{name}={value}" for name, value in env.items())


@lru_cache(maxsize=64)
def _capabilities(
    cap_add: tuple[str, ...], cap_drop: tuple[str, ...], available: frozenset[str], *, is_root: bool
) -> Capabilities:
    names = capability.apply(capability.DEFAULT_CAPABILITIES, cap_add, cap_drop)
    missing = names - available
    asked = {capability.parse_capability(text, option="cap_add") for text in cap_add}
    refused = missing & asked
    if refused:
        raise UnsupportedHost(
            f"capability {', '.join(sorted(refused))}",
            needed="it in the bounding set of the process that starts the container",
            found="a bounding set without it",
        )
    names -= missing
    held = names if is_root else frozenset[str]()
    return Capabilities(bounding=names, effective=held, permitted=held)


@lru_cache(maxsize=64)
def _rlimits(asked: tuple[Rlimit, ...], host: HostFacts) -> tuple[PosixRlimit, ...]:
    chosen: dict[str, PosixRlimit] = {}
    for name, soft, hard in defaults.RLIMITS:
        most = host.hard_limits.get(name, _UNLIMITED)
        if most != _UNLIMITED and not host.can_raise_limits:
            hard = min(hard, most)  # noqa: PLW2901 - the default asks for no more than the host has
        chosen[name] = PosixRlimit(type=name, soft=min(soft, hard), hard=hard)
    for limit in asked:
        chosen[limit.name] = _asked_rlimit(limit, host)
    return tuple(chosen.values())


def _asked_rlimit(limit: Rlimit, host: HostFacts) -> PosixRlimit:
    if limit.name not in RLIMIT_NUMBERS:
        names = ", ".join(sorted(RLIMIT_NUMBERS))
        raise InvalidOption("rlimits", limit.name, f"there is no such limit; there are {names}")
    most = host.hard_limits[limit.name]
    above = most != _UNLIMITED and (limit.hard == _UNLIMITED or limit.hard > most)
    if above and not host.can_raise_limits:
        raise UnsupportedHost(
            f"rlimit {limit.name}={limit.hard}",
            needed="CAP_SYS_RESOURCE, to raise a hard limit",
            found=f"a hard limit of {most} and no such capability",
        )
    return PosixRlimit(type=limit.name, soft=limit.soft, hard=limit.hard)


def _sysctls(asked: tuple[tuple[str, str], ...], *, own_network: bool) -> tuple[tuple[str, str], ...]:
    chosen = dict(defaults.USERLAND_SYSCTLS) if own_network else {}
    for name, value in asked:
        namespace = next(
            (ns for prefix, ns in defaults.SYSCTL_NAMESPACES.items() if name.startswith(prefix)), None
        )
        if not _SYSCTL.fullmatch(name) or namespace is None:
            allowed = ", ".join(f"{prefix}*" for prefix in defaults.SYSCTL_NAMESPACES)
            raise InvalidOption("sysctls", name, f"is not a setting of a namespace; allowed are {allowed}")
        if namespace == "network" and not own_network:
            raise InvalidOption("sysctls", name, "would change others, whose network this container uses")
        if "\n" in value or "\0" in value:
            raise InvalidOption("sysctls", f"{name}={value}", "a value is one line")
        chosen[name] = value
    return tuple(chosen.items())


def _user_mount(mount: Mount) -> SpecMount:
    if mount.kind == "bind":
        options = ["rbind", "rprivate", *(["rro"] if mount.read_only else [])]
        return SpecMount(
            destination=mount.target, type="bind", source=mount.source or "", options=tuple(options)
        )
    options = ["nosuid", "nodev", f"mode={mount.mode:o}"]
    if not mount.exec:
        options.append("noexec")
    if mount.read_only:
        options.append("ro")
    if mount.size_bytes is not None:
        options.append(f"size={mount.size_bytes}")
    return SpecMount(destination=mount.target, type="tmpfs", source="tmpfs", options=tuple(options))


@lru_cache(maxsize=64)
def _mounts(asked: tuple[Mount, ...], shm_size_bytes: int) -> tuple[SpecMount, ...]:
    """The default mounts, those that the caller replaces left out, then the caller's by depth."""
    taken = {posixpath.normpath(mount.target) for mount in asked}
    shm = SpecMount(
        destination="/dev/shm",  # noqa: S108 - a path in the container
        type="tmpfs",
        source="shm",
        options=("nosuid", "noexec", "nodev", "mode=1777", f"size={shm_size_bytes}"),
    )
    base = [mount for mount in (*defaults.MOUNTS, shm) if mount.destination not in taken]
    if "/dev" in taken:
        raise InvalidOption("mounts", "/dev", "is always the container's own; mount single files below it")
    own = sorted(asked, key=lambda mount: mount.target.rstrip("/").count("/"))
    return (*base, *(_user_mount(mount) for mount in own))


def build(
    config: ContainerConfig,
    *,
    user: ResolvedUser,
    host: HostFacts,
    root: str,
    hostname: str,
    devices: Sequence[DeviceNode] = (),
) -> Spec:
    """The OCI runtime spec for `config`.

    Args:
        config: What was asked for, merged with the image.
        user: The user, looked up in the image.
        host: What can be had here.
        root: Name of the root file system, for `root.path`.
        hostname: Host name in the container.
        devices: Host devices that were asked for, as nodes.

    Raises:
        InvalidOption: A value that no host could honour.
        UnsupportedHost: One that this host cannot.
    """
    process = Process(
        args=config.args,
        env=_environment(config, user, hostname),
        cwd=config.workdir,
        user=User(uid=user.uid, gid=user.gid, additional_gids=user.groups),
        terminal=config.tty,
        console_size=config.console_size,
        capabilities=_capabilities(
            config.security.cap_add, config.security.cap_drop, host.capabilities, is_root=user.uid == 0
        ),
        rlimits=_rlimits(config.rlimits, host),
        no_new_privileges=config.security.no_new_privileges,
        oom_score_adj=config.resources.oom_score_adj,
    )
    return Spec(
        process=process,
        root=Root(path=root, readonly=config.read_only),
        hostname=hostname,
        domainname=config.domainname or "",
        mounts=_mounts(config.mounts, config.shm_size_bytes),
        linux=_linux(
            tuple(devices),
            tuple(config.sysctls.items()),
            host.thermal_paths,
            network=config.network,
        ),
    )


@lru_cache(maxsize=64)
def _linux(
    devices: tuple[DeviceNode, ...],
    sysctls: tuple[tuple[str, str], ...],
    thermal_paths: tuple[str, ...],
    *,
    network: str,
) -> Linux:
    return Linux(
        # Any other network has a namespace that was made before the container.
        namespaces=defaults.NAMESPACES if network == "none" else defaults.NAMESPACES - {"network"},
        devices=(*defaults.DEVICES, *devices),
        masked_paths=(*defaults.MASKED_PATHS, *thermal_paths),
        readonly_paths=defaults.READONLY_PATHS,
        sysctl=_sysctls(
            sysctls, own_network=network != "host" and not network.startswith(defaults.SHARED_NETWORK)
        ),
    )
