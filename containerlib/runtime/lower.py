"""Lowers an OCI runtime spec to the flat values that C executes. Pure.

In: a `Spec`, where its bind sources and its root are, the compiled filter. Out: a `NativeSpec`. Texts of the
specification become numbers here; a text that means nothing is an error, never skipped.
"""

from __future__ import annotations

import posixpath
from functools import lru_cache
from typing import TYPE_CHECKING, TypedDict

from attrs import evolve, frozen

from containerlib._native.ffi import lib
from containerlib._native.spec import (
    NativeFile,
    NativeFixed,
    NativeMount,
    NativeNode,
    NativeRlimit,
    NativeSpec,
)
from containerlib.oci.runtime_words import PERSONALITIES
from containerlib.runtime import capability
from containerlib.runtime.defaults import DEVICE_LINKS
from containerlib.runtime.host import RLIMIT_NUMBERS
from containerlib.runtime.mount_options import (
    is_bind,
    is_remount,
    propagation_flags,
    read_options,
    remounts_all,
)
from containerlib.runtime.scheduling import io_priority_value, processors, processors_mask, scheduler_bytes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from containerlib.oci.runtime_spec import DeviceNode, Linux, PosixRlimit, Process, Spec, SpecMount

__all__ = ["NAMESPACE_FLAGS", "BindSource", "RootPlan", "lower", "lower_exec"]

NAMESPACE_FLAGS = {
    "mount": 0x00020000,
    "uts": 0x04000000,
    "ipc": 0x08000000,
    "pid": 0x20000000,
    "network": 0x40000000,
    "user": 0x10000000,
}
"""CLONE_NEW* flags of the namespaces that a process is born in, by their names in the specification."""

# Only these are mounted where an image could have put a symbolic link that leads out of the way.
_KERNEL_TYPES = frozenset({"proc", "sysfs", "devpts", "mqueue", "cgroup2"})

_KERNEL_PATHS = ("/proc/", "/sys/")

_RLIM_INFINITY = 2**64 - 1

# While these run, the container's process stands before the switch of its root.
_HELD_HOOKS = frozenset({"prestart", "createRuntime", "createContainer"})


@frozen(kw_only=True)
class BindSource:
    """The source of a bind mount, opened: an unattached copy by index, or the path and what it was."""

    is_directory: bool
    fd_index: int = -1
    device: int = 0
    inode: int = 0


@frozen(kw_only=True)
class RootPlan:
    """How the root file system comes about.

    Attributes:
        lowers: Layer directories, top-most first; empty for a copied tree.
        upper: Directory of the container layer; None to keep it in memory.
        work: Overlay's work directory beside `upper`.
        copied: A complete tree of the container's own, instead of an overlay.
        staging: Directory over which the root is assembled, in the container's mount namespace only.
    """

    staging: str
    lowers: tuple[str, ...] = ()
    upper: str | None = None
    work: str | None = None
    copied: str | None = None


def _lower_mount(mount: SpecMount, source: BindSource | None, *, into_kernel: bool) -> NativeMount:
    options = read_options(mount)
    target = posixpath.normpath(mount.destination)
    # What is to lie there by the spec's own word does; no symbolic link of the image's leads there.
    flags = lib.CTR_MOUNT_NO_SYMLINKS if into_kernel and target.startswith(_KERNEL_PATHS) else 0
    if source is not None:
        chosen = (
            (options.is_tree, lib.CTR_MOUNT_RECURSIVE),
            (options.is_tree and not options.is_below, lib.CTR_MOUNT_TOP_ATTRIBUTES),
            (source.is_directory, lib.CTR_MOUNT_SOURCE_IS_DIR),
        )
        return NativeMount(
            kind=lib.CTR_MOUNT_BIND,
            target=mount.destination,
            source=mount.source,
            attributes=options.attributes,
            propagation=options.propagation,
            flags=flags | sum(flag for wanted, flag in chosen if wanted),
            fd=source.fd_index,
            device=source.device,
            inode=source.inode,
        )
    if mount.type in _KERNEL_TYPES or target == "/dev" or target.startswith("/dev/"):
        flags |= lib.CTR_MOUNT_NO_SYMLINKS
    if target == "/proc":
        flags |= lib.CTR_MOUNT_PROC
    if target == "/dev":
        flags |= lib.CTR_MOUNT_DEVICES
    return NativeMount(
        kind=lib.CTR_MOUNT_FILESYSTEM,
        target=mount.destination,
        type=mount.type,
        options=options.rest,
        attributes=options.attributes,
        propagation=options.propagation,
        flags=flags,
    )


def _lower_remount(mount: SpecMount, earlier: tuple[SpecMount, ...]) -> NativeMount:
    options = read_options(mount)
    is_all = remounts_all(mount, earlier)
    # No links: what lies on the place has to be what was looked at.
    return NativeMount(
        kind=lib.CTR_MOUNT_FILESYSTEM if is_all else lib.CTR_MOUNT_BIND,
        target=mount.destination,
        source=mount.source,
        type=mount.type or "none",
        options=options.rest,
        attributes=options.attributes,
        propagation=options.propagation,
        flags=lib.CTR_MOUNT_REMOUNT | lib.CTR_MOUNT_NO_SYMLINKS,
    )


_NODE_KINDS = {"b": lib.CTR_NODE_BLOCK, "c": lib.CTR_NODE_CHAR, "p": lib.CTR_NODE_FIFO}


def _lower_nodes(mounts: tuple[SpecMount, ...], devices: tuple[DeviceNode, ...]) -> tuple[NativeNode, ...]:
    """In a /dev that is mounted, in the root file system if none is; a /dev that is bound has what it has."""
    there = [mount for mount in mounts if posixpath.normpath(mount.destination) == "/dev"]
    is_bound = any(is_bind(mount) for mount in there)
    base = "" if there else "/dev/"
    nodes = []
    for device in devices:
        name = device.path.removeprefix("/dev/")
        if name == device.path or not is_bound:
            nodes.append(_lower_device(device, device.path if name == device.path else base + name))
    links = () if is_bound else _LINKS
    return (*nodes, *(evolve(link, name=base + link.name) for link in links))


def _lower_device(device: DeviceNode, name: str) -> NativeNode:
    return NativeNode(
        kind=_NODE_KINDS[device.type],
        name=name,
        mode=device.file_mode,
        major=device.major,
        minor=device.minor,
        uid=device.uid,
        gid=device.gid,
    )


_LINKS = tuple(
    NativeNode(kind=lib.CTR_NODE_SYMLINK, name=name, target=target) for name, target in DEVICE_LINKS
)


def _lower_rlimits(rlimits: tuple[PosixRlimit, ...]) -> tuple[NativeRlimit, ...]:
    return tuple(
        NativeRlimit(
            resource=RLIMIT_NUMBERS[limit.type.removeprefix("RLIMIT_").lower()],
            soft=limit.soft if limit.soft >= 0 else _RLIM_INFINITY,
            hard=limit.hard if limit.hard >= 0 else _RLIM_INFINITY,
        )
        for limit in rlimits
    )


def _programs(args: Sequence[str], env: Sequence[str]) -> tuple[str, ...]:
    """The files to try: the command itself if it has a slash, else its name in each directory of PATH."""
    command = args[0]
    if "/" in command:
        return (command,)
    path = next((entry.removeprefix("PATH=") for entry in env if entry.startswith("PATH=")), "")
    # An empty entry means the working directory; nobody wants to execute from there by accident.
    found = tuple(
        f"{directory.rstrip('/')}/{command}" for directory in path.split(":") if directory.startswith("/")
    )
    return found or (f"/{command}",)


def _flags(spec: Spec, root: RootPlan, *, init: bool, gate: bool) -> int:
    chosen = (
        ("network" in spec.linux.namespaces, lib.CTR_SPEC_LOOPBACK),
        ("cgroup" in spec.linux.namespaces, lib.CTR_SPEC_CGROUP_NAMESPACE),
        (spec.process.no_new_privileges, lib.CTR_SPEC_NO_NEW_PRIVS),
        (init, lib.CTR_SPEC_INIT),
        (spec.process.terminal, lib.CTR_SPEC_CONSOLE),
        (spec.root.readonly, lib.CTR_SPEC_ROOT_READONLY),
        (root.copied is not None, lib.CTR_SPEC_ROOT_BIND),
        (root.copied is None and root.upper is None, lib.CTR_SPEC_ROOT_MEMORY),
        (spec.process.oom_score_adj is not None, lib.CTR_SPEC_OOM_SCORE),
        (spec.linux.has_namespace("user"), lib.CTR_SPEC_USER),
        (not spec.linux.has_namespace("mount"), lib.CTR_SPEC_CHROOT),
        ("mount" in dict(spec.linux.namespace_paths), lib.CTR_SPEC_MOUNTS_BY_PATH),
        (gate, lib.CTR_SPEC_GATE),
        (gate and not _HELD_HOOKS.isdisjoint(spec.hooks), lib.CTR_SPEC_HOOKS),
    )
    return sum(flag for wanted, flag in chosen if wanted)


@lru_cache(maxsize=64)
def _lower_fixed(
    mounts: tuple[SpecMount, ...],
    linux: Linux,
    rlimits: tuple[PosixRlimit, ...],
    sources: tuple[tuple[tuple[str, str], BindSource], ...],
    seccomp: bytes,
    *,
    overlay: bool,
    into_kernel: bool,
) -> NativeFixed:
    """What containers started alike have in common; the same arguments give the same object."""
    opened = dict(sources)
    return NativeFixed(
        root_options=("volatile",) if overlay else (),
        # Made before this process is the root of its namespace, and to belong to that one.
        scratch_options=("mode=0755", "uid=0", "gid=0") if linux.has_namespace("user") else ("mode=0755",),
        mounts=tuple(
            _lower_remount(mount, mounts[:number])
            if is_remount(mount)
            else _lower_mount(
                mount,
                opened[mount.destination, mount.source] if is_bind(mount) else None,
                into_kernel=into_kernel,
            )
            for number, mount in enumerate(mounts)
        ),
        nodes=_lower_nodes(mounts, linux.devices),
        sysctls=tuple((name.replace(".", "/"), value) for name, value in linux.sysctl),
        readonly_paths=tuple(path.lstrip("/") for path in linux.readonly_paths),
        masked_paths=tuple(dict.fromkeys(path.lstrip("/") for path in linux.masked_paths)),
        rlimits=_lower_rlimits(rlimits),
        seccomp=seccomp,
    )


def lower(
    spec: Spec,
    *,
    root: RootPlan,
    sources: Mapping[tuple[str, str], BindSource],
    files: Mapping[str, bytes],
    seccomp: bytes,
    init: bool,
    gate: bool = False,
    seccomp_flags: int = 0,
    flags: int = 0,
    fault: tuple[int, int, int, int] = (0, 0, 0, 0),
) -> NativeSpec:
    """The native spec for `spec`.

    Args:
        spec: What to start.
        root: How its root file system comes about.
        sources: Opened source of each bind mount, by its destination and its path.
        files: Small files to bind, content by path in the container.
        seccomp: Compiled filter; empty for none.
        init: Whether process 1 is our reaper.
        gate: Whether it stands still for hooks, and before the command; such a spec is somebody else's, who
            may mount into /proc and /sys.
        seccomp_flags: SECCOMP_FILTER_FLAG_* bits.
        flags: Further CTR_SPEC_* flags.
        fault: For tests: action, step, errno, index.

    Raises:
        InvalidOption: A mount has an option that means nothing.
    """
    process, linux = spec.process, spec.linux
    return NativeSpec(
        fixed=_lower_fixed(
            spec.mounts,
            linux,
            process.rlimits,
            tuple(sources.items()),
            seccomp,
            overlay=root.copied is None,
            into_kernel=gate,
        ),
        flags=_flags(spec, root, init=init, gate=gate) | flags,
        namespaces=sum(flag for name, flag in NAMESPACE_FLAGS.items() if name in linux.namespaces),
        staging=root.staging,
        root_source=root.copied,
        root_upper=root.upper,
        root_work=root.work,
        root_lowers=root.lowers,
        files=tuple(NativeFile(target=target, content=content) for target, content in files.items()),
        hostname=spec.hostname or None,
        domainname=spec.domainname or None,
        time_offsets=_time_offsets(linux),
        personality=PERSONALITIES.get(linux.personality),
        seccomp_flags=seccomp_flags,
        root_propagation=propagation_flags(linux.rootfs_propagation) or 0,
        **_lower_process(process),
        fault=fault,
    )


def _time_offsets(linux: Linux) -> str | None:
    """The clocks of a new time namespace; None for none. Source: time_namespaces(7)."""
    if "time" not in linux.namespaces:
        return None
    rows = {"monotonic": (0, 0)} | {clock: (seconds, rest) for clock, seconds, rest in linux.time_offsets}
    return "".join(f"{clock} {seconds} {rest}\n" for clock, (seconds, rest) in rows.items())


@lru_cache(maxsize=64)
def _lower_fixed_exec(rlimits: tuple[PosixRlimit, ...], seccomp: bytes) -> NativeFixed:
    return NativeFixed(rlimits=_lower_rlimits(rlimits), seccomp=seccomp)


def lower_exec(
    process: Process,
    *,
    seccomp: bytes,
    seccomp_flags: int = 0,
    has_user_namespace: bool = False,
    has_own_root: bool = False,
    personality: str = "",
    fault: tuple[int, int, int, int] = (0, 0, 0, 0),
) -> NativeSpec:
    """The native spec of a process that joins a container.

    Args:
        process: What to start there.
        seccomp: Compiled filter; empty for none.
        seccomp_flags: SECCOMP_FILTER_FLAG_* bits.
        has_user_namespace: Whether one is among those that it joins.
        has_own_root: Whether the container's root is not that of its mount namespace, and comes as a mount.
        personality: Of the container; empty for that of the caller.
        fault: For tests: action, step, errno, index.
    """
    chosen = (
        (True, lib.CTR_SPEC_JOIN),
        (has_user_namespace, lib.CTR_SPEC_USER),
        (has_own_root, lib.CTR_SPEC_CHROOT),
        (process.no_new_privileges, lib.CTR_SPEC_NO_NEW_PRIVS),
        (process.terminal, lib.CTR_SPEC_CONSOLE),
        (process.oom_score_adj is not None, lib.CTR_SPEC_OOM_SCORE),
    )
    return NativeSpec(
        fixed=_lower_fixed_exec(process.rlimits, seccomp),
        flags=sum(flag for wanted, flag in chosen if wanted),
        namespaces=0,
        staging="",
        personality=PERSONALITIES.get(personality),
        seccomp_flags=seccomp_flags,
        affinity=_affinity(process),
        **_lower_process(process),
        fault=fault,
    )


def _affinity(process: Process) -> bytes:
    text = process.exec_affinity[1]
    return processors_mask(processors(text, "process.execCPUAffinity.final")) if text else b""


class _NativeProcess(TypedDict):
    """The fields of a native spec that come from the process alone."""

    groups: tuple[int, ...]
    args: tuple[str, ...]
    env: tuple[str, ...]
    programs: tuple[str, ...]
    workdir: str
    bounding: int
    permitted: int
    effective: int
    inheritable: int
    ambient: int
    uid: int
    gid: int
    umask: int
    oom_score_adj: int
    console_rows: int
    console_columns: int
    scheduler: bytes
    io_priority: int | None
    apparmor: str | None


def _lower_process(process: Process) -> _NativeProcess:
    return _NativeProcess(
        groups=process.user.additional_gids,
        args=process.args,
        env=process.env,
        programs=_programs(process.args, process.env),
        workdir=process.cwd,
        bounding=_mask(process.capabilities.bounding),
        permitted=_mask(process.capabilities.permitted),
        effective=_mask(process.capabilities.effective),
        inheritable=_mask(process.capabilities.inheritable),
        ambient=_mask(process.capabilities.ambient),
        uid=process.user.uid,
        gid=process.user.gid,
        umask=process.user.umask,
        oom_score_adj=process.oom_score_adj or 0,
        console_rows=process.console_size[1],
        console_columns=process.console_size[0],
        scheduler=scheduler_bytes(process.scheduler),
        io_priority=io_priority_value(process.io_priority),
        apparmor=process.apparmor_profile or None,
    )


@lru_cache(maxsize=64)
def _mask(names: frozenset[str]) -> int:
    return capability.mask(names)
