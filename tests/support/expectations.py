"""What a container gets by default, as an expectation for `Posture.diff`.

The lists are not read from the package: they say what a container is given, and a change of a default has to
be made here as well.
"""

from __future__ import annotations

import os
import resource
from pathlib import Path
from typing import TYPE_CHECKING, Any

from support.capabilities import missing
from support.enosys import ACTIVE, GROUPS
from support.posture import ANY

if TYPE_CHECKING:
    from collections.abc import Iterable

    from support.mounts import MountEntry
    from support.posture import Descriptor

    from containerlib import Image

__all__ = [
    "ALL_SIGNALS",
    "CAPABILITIES",
    "MASKED",
    "OUTER_FILTERS",
    "READ_ONLY",
    "are_ours",
    "below",
    "expected_limits",
    "is_own",
    "leads_nowhere",
    "our_cgroups",
    "payload",
]

CAPABILITIES = 0x800405FB  # Docker's set without AUDIT_WRITE, MKNOD and NET_RAW
OWN_NAMESPACES = frozenset({"cgroup", "ipc", "mnt", "net", "pid", "uts"})
ALL_SIGNALS = frozenset({*range(1, 32), *range(34, 65)}) - {9, 19}
# Filters that the test session itself is under.
OUTER_FILTERS = int(any(GROUPS[name] for name in ACTIVE))

LOCKED = "nodev,noexec,nosuid,relatime,ro"
MOUNTS = [
    ("/", "overlay", "relatime,rw"),
    ("/proc", "proc", "nodev,noexec,nosuid,relatime,rw"),
    ("/dev", "tmpfs", "nosuid,rw"),
    ("/dev/pts", "devpts", "noexec,nosuid,relatime,rw"),
    ("/dev/mqueue", "mqueue", "nodev,noexec,nosuid,relatime,rw"),
    ("/sys", "sysfs", LOCKED),
    ("/dev/shm", "tmpfs", "nodev,noexec,nosuid,relatime,rw"),
    ("/etc/hosts", "tmpfs", "nodev,nosuid,relatime,rw"),
    ("/etc/hostname", "tmpfs", "nodev,nosuid,relatime,rw"),
    ("/etc/resolv.conf", "tmpfs", "nodev,nosuid,relatime,rw"),
]
READ_ONLY = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]
MASKED = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
]
MASKED += ["/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/proc/timer_stats"]
MASKED += ["/sys/devices/virtual/powercap", "/sys/firmware"]
MASKED += [str(path) for path in sorted(Path("/sys/devices/system/cpu").glob("cpu[0-9]*/thermal_throttle"))]
SIZES = {
    "/dev": {"mode=755", "rw", "size=65536k"},
    "/dev/shm": {"rw", "size=65536k"},
    "/dev/pts": {"gid=5", "mode=620", "ptmxmode=666", "rw"},
}


def expected_mounts(extra: Iterable[tuple[str, str, str]] = ()) -> list[tuple[str, str, str]]:
    """List what is mounted in a container, in order."""
    read_only = [(path, "proc", LOCKED) for path in READ_ONLY if Path(path).exists()]
    masked = [
        (path, "tmpfs", LOCKED if Path(path).is_dir() else "nosuid,rw")
        for path in MASKED
        if Path(path).exists()
    ]
    return [*MOUNTS, *extra, *read_only, *masked]


def are_ours(mounts: tuple[MountEntry, ...], extra: Iterable[tuple[str, str, str]] = ()) -> bool:
    """Compare the mount table, all options included."""
    found = [(mount.target, mount.fstype, ",".join(sorted(mount.options))) for mount in mounts]
    assert found == expected_mounts(extra)
    assert not any(mount.propagation for mount in mounts)
    # Kernels differ in whether they say that numbers of inodes have 64 bits.
    options = {mount.target: mount.super_options - {"inode64"} for mount in mounts}
    assert all(SIZES.get(target, found) == found for target, found in options.items())
    roots = {mount.target: mount.root for mount in mounts}
    assert all(
        roots[path] == ("/empty" if Path(path).is_dir() else "/null") for path in MASKED if path in roots
    )
    return True


def is_own(name: str) -> Any:
    """Expect a namespace that is not the one of this process."""
    here = os.stat(f"/proc/self/ns/{name}").st_ino
    return (lambda inode: inode != here) if name in OWN_NAMESPACES else here


def our_cgroups() -> dict[str, str]:
    """Read where this process is in each hierarchy."""
    lines = Path("/proc/self/cgroup").read_text(encoding="ascii").splitlines()
    return {names: path for _, names, path in (line.split(":", 2) for line in lines)}


def below(parent: str, *names: str) -> str:
    """Join the path of a control group."""
    return "/".join([parent.rstrip("/"), *names])


def expected_cgroups(image: Image, container_id: str) -> dict[str, object]:
    """Say where the processes of a container are: below the engine where there is something to count."""
    engine = f"containerlib-{image._session.engine_id}"
    found: dict[str, object] = {}
    groups = our_cgroups()
    # Where no controller of version 1 keeps them from devices, a program on a group above them does.
    has_devices = any("devices" in names.split(",") for names in groups)
    for names, parent in groups.items():
        own = below(parent, engine, container_id)
        if not names and not has_devices:
            own = below(parent, engine, "_default", container_id)
        if "devices" in names.split(","):
            found[names] = below(parent, engine, "_default")
        elif names in {"memory", "pids", ""}:
            found[names] = own
        else:
            found[names] = lambda path, parent=parent, own=own: path in (parent, own)
    return found


def expected_limits(*, lowered: bool) -> dict[str, object]:
    """Say which resource limits hold; `lowered` are those that containers get."""
    lines = Path("/proc/self/limits").read_text(encoding="ascii").splitlines()[1:]
    limits: dict[str, object] = {
        line[:26].strip(): (line[26:47].strip(), line[47:68].strip()) for line in lines
    }
    if lowered:
        hard = 524288
        if missing("resource") is not None:
            hard = min(hard, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
        limits |= {"Max open files": ("1024", str(hard)), "Max core file size": ("0", "0")}
    return limits


def leads_nowhere(descriptors: tuple[Descriptor, ...]) -> bool:
    """Expect three standard streams at /dev/null and nothing else."""
    assert [(each.number, each.target, each.is_directory) for each in descriptors] == [
        (number, "/dev/null", False) for number in range(3)
    ]
    return True


def payload(image: Image, container_id: str, pid: int, **changes: object) -> dict[str, object]:
    """Return the expectation for a command run by root with default options."""
    return {
        "comm": "sleep",
        "exe": "/bin/busybox",
        "exe_seals": ANY,
        "uids": (0, 0, 0, 0),
        "gids": (0, 0, 0, 0),
        "groups": (0,),
        "capabilities": {
            "CapInh": 0,
            "CapPrm": CAPABILITIES,
            "CapEff": CAPABILITIES,
            "CapBnd": CAPABILITIES,
            "CapAmb": 0,
        },
        "no_new_privs": True,
        "seccomp_mode": 2,
        "seccomp_filters": 1 + OUTER_FILTERS,
        "namespaces": {name: is_own(name) for name in os.listdir("/proc/self/ns") if "_" not in name},
        "dumpable": True,
        "descriptors": leads_nowhere,
        "mounts": are_ours,
        "session": pid,
        "process_group": pid,
        "terminal": 0,
        "cwd": "/",
        "root": "/",
        "cgroups": expected_cgroups(image, container_id),
        "oom_score_adj": int(Path("/proc/self/oom_score_adj").read_text(encoding="ascii")),
        "limits": expected_limits(lowered=True),
        "blocked": frozenset(),
        "ignored": frozenset(),
        "caught": frozenset(),
        "umask": 0o022,
        "threads": 1,
        "thread_differences": (),
        **changes,
    }
