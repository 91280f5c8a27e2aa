"""Fits a configuration that somebody else wrote to what `runtime.lower` takes, and to this host.

Fills in what the specification leaves to the runtime (devices, HOME), turns mounts of control groups into
mounts that there are, and refuses what this host cannot do. In and out: a `Spec`.
"""

from __future__ import annotations

import os
import posixpath
from typing import TYPE_CHECKING

from attrs import evolve

from containerlib.errors import InvalidInputError, InvalidOption, UnsupportedHost
from containerlib.oci.runtime_spec import Capabilities, SpecMount
from containerlib.runtime import defaults
from containerlib.runtime.capability import CAPABILITIES
from containerlib.runtime.host import RLIMIT_NUMBERS
from containerlib.runtime.tmpfs import with_mode
from containerlib.runtime.user import parse_user, resolve_user
from containerlib.runtime.user_namespace import host_id
from containerlib.store.view import read_file

if TYPE_CHECKING:
    from collections.abc import Callable

    from containerlib.oci.runtime_spec import Process, Spec
    from containerlib.runtime.cgroup_path import PathCgroup
    from containerlib.runtime.host import HostFacts

__all__ = ["fit", "fit_process", "group_owner", "host_of"]

_V2 = 2
_PASSWD_LIMIT = 10 << 20


def fit(spec: Spec, host: HostFacts, cgroup: PathCgroup, *, root: str, warn: Callable[[str], None]) -> Spec:
    """A configuration as `runtime.lower` takes it.

    Args:
        spec: As it was read.
        host: Facts.
        cgroup: The container's control groups; their directories are there.
        root: The root file system, for the user's home directory.
        warn: Told of what is left out because it could not be granted.

    Raises:
        InvalidOption: A value means nothing.
        UnsupportedHost: This host does not have what is asked for.
    """
    mounts: list[SpecMount] = []
    locked: list[str] = []
    for mount in spec.mounts:
        if mount.type == "cgroup":
            made, is_locked = _cgroup_mounts(mount, cgroup, own_namespace="cgroup" in spec.linux.namespaces)
            mounts += made
            locked += [mount.destination] if is_locked else []
        else:
            mounts.append(with_mode(mount, root, mounts))
    taken = {device.path for device in spec.linux.devices}
    linux = evolve(
        spec.linux,
        devices=(*(d for d in defaults.DEVICES if d.path not in taken), *spec.linux.devices),
        readonly_paths=(*locked, *spec.linux.readonly_paths),
    )
    _check_sysctls(spec)
    process = fit_process(
        spec.process, host_of(spec, host), lambda path: read_file((root,), path, limit=_PASSWD_LIMIT), warn
    )
    return evolve(spec, mounts=tuple(mounts), linux=linux, process=process)


def group_owner(spec: Spec, cgroup: PathCgroup) -> int | None:
    """Who the container's control group is to belong to, by the host's number; None to leave it as it is.

    Source: config-linux.md, "Cgroup ownership".
    """
    is_writable = any(
        mount.type == "cgroup" and mount.destination == "/sys/fs/cgroup" and "ro" not in mount.options
        for mount in spec.mounts
    )
    is_v1 = any(tree.version == 1 for tree in cgroup.trees)
    if is_v1 or "cgroup" not in spec.linux.namespaces or not is_writable:
        return None
    if any(kind == "user" for kind, _ in spec.linux.namespace_paths):
        return None  # whose numbers this process does not know
    return host_id(spec.linux.uid_mappings, spec.process.user.uid)


def host_of(spec: Spec, host: HostFacts) -> HostFacts:
    """The host as the container has it: in a user namespace of its own it has every capability."""
    if not spec.linux.has_namespace("user"):
        return host
    return evolve(host, capabilities=frozenset(CAPABILITIES))


def fit_process(
    process: Process,
    host: HostFacts,
    read: Callable[[str], bytes | None],
    warn: Callable[[str], None],
) -> Process:
    """A process as `runtime.lower` takes it.

    Args:
        process: As it was read.
        host: Facts.
        read: Reads a file of the container's.
        warn: Told of capabilities that cannot be granted.

    Raises:
        InvalidOption: A resource limit does not exist.
        UnsupportedHost: This host does not have what is asked for.
    """
    if process.apparmor_profile and not host.has_apparmor:
        raise UnsupportedHost(
            f"process.apparmorProfile={process.apparmor_profile!r}",
            needed="AppArmor in the kernel, switched on",
            found="none; leave the profile out",
        )
    for limit in process.rlimits:
        if limit.type.removeprefix("RLIMIT_").lower() not in RLIMIT_NUMBERS:
            names = ", ".join(f"RLIMIT_{name.upper()}" for name in sorted(RLIMIT_NUMBERS))
            raise InvalidOption("process.rlimits", limit.type, f"there is no such limit; there are {names}")
    return evolve(
        process,
        env=_with_home(process, read),
        capabilities=_grantable(process.capabilities, host, warn),
    )


def _with_home(process: Process, read: Callable[[str], bytes | None]) -> tuple[str, ...]:
    if any(entry.startswith("HOME=") for entry in process.env):
        return process.env
    try:
        passwd = read("/etc/passwd")
        home = resolve_user(parse_user(str(process.user.uid)), passwd=passwd, group=None).home
    except (InvalidInputError, OSError):
        home = "/"
    return (*process.env, f"HOME={home}")


def _grantable(asked: Capabilities, host: HostFacts, warn: Callable[[str], None]) -> Capabilities:
    """What of it is to be had here: by this host, and by the kernel's rules for the five sets.

    Source: config.md: what cannot be granted is a warning, and no error; capabilities(7).
    """
    bounding = asked.bounding & host.capabilities
    permitted = asked.permitted & host.capabilities
    inheritable = asked.inheritable & bounding
    granted = Capabilities(
        bounding=bounding,
        permitted=permitted,
        effective=asked.effective & permitted,
        inheritable=inheritable,
        ambient=asked.ambient & inheritable & permitted,
    )
    for name in ("bounding", "permitted", "effective", "inheritable", "ambient"):
        missing = getattr(asked, name) - getattr(granted, name)
        if missing:
            warn(f"{name} capabilities that cannot be granted were left out: {', '.join(sorted(missing))}")
    return granted


def _check_sysctls(spec: Spec) -> None:
    """A setting must belong to a namespace of the container's own, or it would be the host's."""
    own = {*spec.linux.namespaces, *(kind for kind, _ in spec.linux.namespace_paths)}
    prefixes = {**defaults.SYSCTL_NAMESPACES, "kernel.domainname": "uts", "kernel.hostname": "uts"}
    for name, value in spec.linux.sysctl:
        dotted = name.replace("/", ".") if "." not in name else name
        kind = next((kind for prefix, kind in prefixes.items() if dotted.startswith(prefix)), None)
        if kind is None or kind not in own or ".." in name or "\n" in value:
            raise InvalidOption(
                "linux.sysctl", f"{name}={value}", "is not a setting of a namespace of this container's own"
            )


def _cgroup_mounts(
    mount: SpecMount, cgroup: PathCgroup, *, own_namespace: bool
) -> tuple[list[SpecMount], bool]:
    """The mounts for one of type cgroup, and whether all of them are to be made read-only at the end."""
    options = tuple(option for option in mount.options if option != "ro")
    is_v1 = any(tree.version == 1 for tree in cgroup.trees)
    if not is_v1:
        if own_namespace:
            return [evolve(mount, type="cgroup2", source="cgroup2")], False
        (tree,) = cgroup.trees
        return [evolve(mount, type="bind", source=tree.path, options=("bind", *mount.options))], False
    top = SpecMount(
        destination=mount.destination, type="tmpfs", source="tmpfs", options=(*options, "mode=755")
    )
    found = [top]
    for tree in cgroup.trees:
        for name in dict.fromkeys((os.path.basename(tree.mount_point), *(_names(tree.names)))):
            target = posixpath.join(mount.destination, name)
            found.append(
                SpecMount(destination=target, type="bind", source=tree.path, options=("bind", *options))
            )
    return found, "ro" in mount.options


def _names(names: tuple[str, ...]) -> tuple[str, ...]:
    """The single controllers of a joint tree, under which programs look for them as well."""
    return names if len(names) > 1 else ()
