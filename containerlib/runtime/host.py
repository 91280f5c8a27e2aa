"""What this process and this host can give a container: read once per engine, never changed."""

from __future__ import annotations

import glob
import os
import resource

from attrs import frozen

from containerlib.runtime.capability import CAPABILITIES

__all__ = ["RLIMIT_NUMBERS", "HostFacts"]

RLIMIT_NUMBERS = {
    name.removeprefix("RLIMIT_").lower(): getattr(resource, name)
    for name in dir(resource)
    if name.startswith("RLIMIT_") and name != "RLIMIT_OFILE"
}
"""Number of each resource limit by its name, such as ``"nofile"``."""

_SYS_RESOURCE = "CAP_SYS_RESOURCE"
_APPARMOR = "/sys/module/apparmor/parameters/enabled"
_THERMAL = "/sys/devices/system/cpu/cpu[0-9]*/thermal_throttle"


@frozen(kw_only=True, eq=False)
class HostFacts:
    """Facts that decide what a spec may ask for.

    Attributes:
        architecture: As uname(2) says: ``"x86_64"`` or ``"aarch64"``.
        capabilities: Names in this process's bounding set; nobody below can have more.
        hard_limits: Hard resource limits by name; -1 for unlimited.
        thermal_paths: Per-processor directories of sysfs that leak what other processes do.
        kernel_release: As uname(2) says.
        has_apparmor: Whether profiles of AppArmor are enforced.
    """

    architecture: str
    capabilities: frozenset[str]
    hard_limits: dict[str, int]
    thermal_paths: tuple[str, ...]
    kernel_release: str
    has_apparmor: bool = False

    @classmethod
    def probe(cls) -> HostFacts:
        """Read the facts. Cost: about 100 microseconds."""
        system = os.uname()
        return cls(
            architecture=system.machine,
            capabilities=_bounding_set(),
            hard_limits={name: resource.getrlimit(number)[1] for name, number in RLIMIT_NUMBERS.items()},
            thermal_paths=tuple(sorted(glob.glob(_THERMAL))),
            kernel_release=system.release,
            has_apparmor=_has_apparmor(),
        )

    @property
    def can_raise_limits(self) -> bool:
        """Whether a hard resource limit above the host's can be set."""
        return _SYS_RESOURCE in self.capabilities


def _has_apparmor() -> bool:
    try:
        with open(_APPARMOR, encoding="ascii") as enabled:
            return enabled.read(1) == "Y"
    except OSError:
        return False


def _bounding_set() -> frozenset[str]:
    with open("/proc/self/status", encoding="ascii", errors="replace") as status:
        for line in status:
            if line.startswith("CapBnd:"):
                bits = int(line.split()[1], 16)
                return frozenset(name for name, number in CAPABILITIES.items() if bits >> number & 1)
    return frozenset()
