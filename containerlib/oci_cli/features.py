"""What this runtime can do, in the form of the specification. Read off the tables that do it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from containerlib.runtime import mount_options, seccomp_profile

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["features"]


def features(version: str, hooks: Sequence[str], capabilities: Sequence[str]) -> dict[str, Any]:
    """The document. Source: runtime-spec 1.2, features.md and features-linux.md.

    Args:
        version: Of the specification, the newest that is understood.
        hooks: Kinds of hooks.
        capabilities: Names of capabilities.
    """
    return {
        "ociVersionMin": "1.0.0",
        "ociVersionMax": version,
        "hooks": list(hooks),
        "mountOptions": sorted(mount_options.WORDS),
        "linux": {
            "namespaces": ["cgroup", "ipc", "mount", "network", "pid", "uts"],
            "capabilities": list(capabilities),
            "cgroup": {
                "v1": True,
                "v2": True,
                "systemd": False,
                "systemdUser": False,
                "rdma": True,
            },
            "seccomp": {
                "enabled": True,
                "actions": sorted(seccomp_profile.ACTION_NAMES),
                "operators": sorted(seccomp_profile.OPERATORS),
                "archs": ["SCMP_ARCH_AARCH64", "SCMP_ARCH_X86_64"],
                "knownFlags": [],
                "supportedFlags": [],
            },
            "apparmor": {"enabled": False},
            "selinux": {"enabled": False},
            "intelRdt": {"enabled": False},
            "mountExtensions": {"idmap": {"enabled": False}},
        },
    }
