"""What a container gets when the caller says nothing, as tables. Equal to Docker's or stricter.

Policy is data here; the modules that walk these tables have no policy of their own.
"""

from __future__ import annotations

from containerlib.oci.runtime_spec import DeviceNode, SpecMount

__all__ = [
    "DEVICES",
    "DEVICE_LINKS",
    "LIFETIME",
    "MASKED_PATHS",
    "MOUNTS",
    "NAMESPACES",
    "READONLY_PATHS",
    "RLIMITS",
    "SHARED_NETWORK",
    "SHM_SIZE_BYTES",
    "STOP_TIMEOUT_S",
    "SYSCTL_NAMESPACES",
    "USERLAND_SYSCTLS",
]

LIFETIME = "process"
STOP_TIMEOUT_S = 10.0
SHM_SIZE_BYTES = 64 * 1024 * 1024

SHARED_NETWORK = "container:"
"""What a network begins with if it is that of another container."""

NAMESPACES = frozenset({"mount", "pid", "ipc", "uts", "cgroup", "network"})

MOUNTS = (
    SpecMount(destination="/proc", type="proc", source="proc", options=("nosuid", "noexec", "nodev")),
    SpecMount(
        destination="/dev",
        type="tmpfs",
        source="tmpfs",
        options=("nosuid", "strictatime", "mode=755", "size=65536k"),
    ),
    SpecMount(
        destination="/dev/pts",
        type="devpts",
        source="devpts",
        options=("nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"),
    ),
    SpecMount(
        destination="/dev/mqueue", type="mqueue", source="mqueue", options=("nosuid", "noexec", "nodev")
    ),
    SpecMount(destination="/sys", type="sysfs", source="sysfs", options=("nosuid", "noexec", "nodev", "ro")),
)
"""In this order; /dev/shm, whose size is an option, comes after /dev."""

DEVICES = (
    DeviceNode(path="/dev/null", type="c", major=1, minor=3),
    DeviceNode(path="/dev/zero", type="c", major=1, minor=5),
    DeviceNode(path="/dev/full", type="c", major=1, minor=7),
    DeviceNode(path="/dev/random", type="c", major=1, minor=8),
    DeviceNode(path="/dev/urandom", type="c", major=1, minor=9),
    DeviceNode(path="/dev/tty", type="c", major=5, minor=0),
)

DEVICE_LINKS = (
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
)

MASKED_PATHS = (
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
)
"""Docker's list. The per-processor thermal_throttle directories are found on the host, see `runtime.spec`."""

READONLY_PATHS = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")

RLIMITS = (("nofile", 1024, 524288), ("core", 0, 0))
"""Name, soft, hard; lowered to the host's hard limit where that is lower."""

USERLAND_SYSCTLS = {"net.ipv4.ping_group_range": "0 2147483647", "net.ipv4.ip_unprivileged_port_start": "0"}
"""Set in a network namespace of the container's own: ping without a capability, low ports for everyone."""

SYSCTL_NAMESPACES = {
    "net.": "network",
    "kernel.msg": "ipc",
    "kernel.sem": "ipc",
    "kernel.shm": "ipc",
    "fs.mqueue.": "ipc",
}
"""Prefixes of the settings that belong to a namespace, and to which; every other setting is the host's."""
