"""What this runtime can do, in the form of the specification. Read off the tables that do it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from containerlib.oci.runtime_spec import HOOK_KINDS, OCI_VERSION
from containerlib.oci_cli.looks import say
from containerlib.runtime import mount_options, seccomp_profile
from containerlib.runtime.capability import CAPABILITIES
from containerlib.runtime.seccomp_agent import FLAGS

if TYPE_CHECKING:
    from argparse import Namespace

    from containerlib.oci_cli.log import Log
    from containerlib.oci_cli.store import Store

__all__ = ["features_command"]


def features_command(store: Store, options: Namespace, log: Log) -> None:
    """Print the document."""
    del store, options, log
    say(json.dumps(_features(), indent=4))


def _features() -> dict[str, Any]:
    """The document. Source: runtime-spec 1.2, features.md and features-linux.md."""
    return {
        "ociVersionMin": "1.0.0",
        "ociVersionMax": OCI_VERSION,
        "hooks": list(HOOK_KINDS),
        "mountOptions": sorted(mount_options.WORDS),
        "linux": {
            "namespaces": ["cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"],
            "capabilities": sorted(CAPABILITIES),
            "cgroup": {
                "v1": True,
                "v2": True,
                "systemd": True,
                "systemdUser": False,
                "rdma": True,
            },
            "seccomp": {
                "enabled": True,
                "actions": sorted(seccomp_profile.ACTION_NAMES),
                "operators": sorted(seccomp_profile.OPERATORS),
                "archs": ["SCMP_ARCH_AARCH64", "SCMP_ARCH_X86_64"],
                "knownFlags": sorted(FLAGS),
                "supportedFlags": sorted(FLAGS),
            },
            "apparmor": {"enabled": True},
            "selinux": {"enabled": False},
            "intelRdt": {"enabled": False},
            "mountExtensions": {"idmap": {"enabled": True}},
        },
    }
