"""The configuration that ``spec`` writes: a shell in a root file system beside it, as isolated as runc's."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

from containerlib.oci.runtime_spec import OCI_VERSION
from containerlib.oci_cli.errors import OciError
from containerlib.runtime import defaults

if TYPE_CHECKING:
    from argparse import Namespace

    from containerlib.oci_cli.log import Log
    from containerlib.oci_cli.store import Store

__all__ = ["spec_command"]

_CAPABILITIES = ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]
_MOUNTS: tuple[tuple[str, str, str, list[str]], ...] = (
    ("/proc", "proc", "proc", []),
    ("/dev", "tmpfs", "tmpfs", ["nosuid", "strictatime", "mode=755", "size=65536k"]),
    (
        "/dev/pts",
        "devpts",
        "devpts",
        ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
    ),
    ("/dev/shm", "tmpfs", "shm", ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),  # noqa: S108
    ("/dev/mqueue", "mqueue", "mqueue", ["nosuid", "noexec", "nodev"]),
    ("/sys", "sysfs", "sysfs", ["nosuid", "noexec", "nodev", "ro"]),
    ("/sys/fs/cgroup", "cgroup", "cgroup", ["nosuid", "noexec", "nodev", "relatime", "ro"]),
)


def spec_command(store: Store, options: Namespace, log: Log) -> None:
    """Write a configuration to begin with.

    Raises:
        OciError: There is one.
    """
    del store, log
    path = os.path.join(options.bundle or ".", "config.json")
    try:
        with open(path, "x", encoding="utf-8") as file:
            json.dump(_template(), file, indent=4)
            file.write("\n")
    except FileExistsError:
        raise OciError(f"file {path} exists; remove it first") from None


def _template() -> dict[str, Any]:
    path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    return {
        "ociVersion": OCI_VERSION,
        "process": {
            "terminal": True,
            "user": {"uid": 0, "gid": 0},
            "args": ["sh"],
            "env": [path, "TERM=xterm"],
            "cwd": "/",
            "capabilities": dict.fromkeys(("bounding", "effective", "permitted"), _CAPABILITIES),
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
            "noNewPrivileges": True,
        },
        "root": {"path": "rootfs", "readonly": True},
        "hostname": "containerlib",
        "mounts": [
            {"destination": destination, "type": kind, "source": source, "options": options}
            if options
            else {"destination": destination, "type": kind, "source": source}
            for destination, kind, source, options in _MOUNTS
        ],
        "linux": {
            "resources": {"devices": [{"allow": False, "access": "rwm"}]},
            "namespaces": [{"type": kind} for kind in ("pid", "network", "ipc", "uts", "mount", "cgroup")],
            "maskedPaths": list(defaults.MASKED_PATHS),
            "readonlyPaths": list(defaults.READONLY_PATHS),
        },
    }
