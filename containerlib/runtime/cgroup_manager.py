"""Who makes the directory below which an engine makes its control groups: this process, or systemd.

A host with systemd and version 2 alone has one owner of its tree, who may take a controller away from any
group that it has not left to somebody. There, systemd is asked for a scope. In: `CgroupHost`. Out: the same,
with the scope as own cgroup.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final, Literal

from attrs import frozen

from containerlib.errors import CgroupError, ContainerlibError, UnsupportedHost
from containerlib.runtime import systemd
from containerlib.runtime.cgroup_files import make_directory, open_directory, write_at
from containerlib.runtime.cgroup_host import CgroupHost, Disk, is_limited
from containerlib.runtime.identity import pid_of

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["CgroupManager", "ManagerKind"]

ManagerKind = Literal["auto", "systemd", "cgroupfs"]

_DEFAULT_SLICE: Final = "system.slice"
_KEEPER: Final = "keeper"
"""Child of a scope for the process around which it was made: a group that passes controllers on has none."""


@frozen
class CgroupManager:
    """The choice between the two.

    Attributes:
        slice_name: The slice for our scopes; `None` if this process makes the directories itself.
        problem: Why systemd is not asked; empty if it is, or was not wanted.
        is_wanted: Whether it was asked for by name, so that doing without is an error.
    """

    slice_name: str | None
    problem: str = ""
    is_wanted: bool = False

    @classmethod
    def choose(cls, host: CgroupHost, kind: ManagerKind, *, disk: Disk | None = None) -> CgroupManager:
        """Choose by what the host is.

        Args:
            host: From `CgroupHost.probe`.
            kind: ``"auto"`` for systemd where it runs the host, else by name.
            disk: Asked about limits of the caller's own cgroup; the real one by default.

        Raises:
            UnsupportedHost: systemd was asked for and cannot be had.

        Cost: a few system calls.
        """
        if kind == "cgroupfs":
            return cls(None)
        slice_name, problem = _find_slice(host, disk or Disk())
        if slice_name is None and kind == "systemd":
            raise UnsupportedHost(
                "cgroup_manager='systemd'",
                needed="systemd as the first process, cgroup v2 alone, and root",
                found=f"something else: {problem}",
            )
        return cls(slice_name, problem, kind == "systemd")

    def enter(
        self, host: CgroupHost, name: str, pidfd: int, *, ask: Callable[..., None] | None = None
    ) -> CgroupHost:
        """Have a scope made around a process of ours, which then lives in a child of it.

        Args:
            host: From `CgroupHost.probe`.
            name: What the scope is named after, with something random behind it.
            pidfd: The process. When it and everything else in the scope has ended, systemd removes it.
            ask: In place of `systemd.start_scope`, for tests.

        Returns:
            The host with the scope as own cgroup; as it was where systemd fails and need not be used.

        Raises:
            CgroupError, OperationTimeout: systemd failed, and was asked for by name.
        """
        if self.slice_name is None:
            return host
        unit = f"{name}-{os.urandom(4).hex()}.scope"
        pid = pid_of(pidfd)
        try:
            if pid is None:
                raise CgroupError(f"there is no process for {unit}", controller="", path="")
            (ask or systemd.start_scope)(
                unit, pid, slice_name=self.slice_name, description="Containers of containerlib"
            )
            return _below_scope(host, unit, pid)
        except (ContainerlibError, OSError):
            if self.is_wanted:
                raise
            return host


def _find_slice(host: CgroupHost, disk: Disk) -> tuple[str | None, str]:
    """Return the slice for scopes, or the reason why there is none."""
    if host.mode != "v2" or host.unified is None:
        return None, f"control groups of mode {host.mode!r}: systemd delegates version 2 only"
    problem = systemd.find_problem()
    if problem is not None:
        return None, problem
    limited = _innermost_limit(host, disk)
    if limited is None:
        return _DEFAULT_SLICE, ""
    if not limited.endswith(".slice"):
        return None, f"the limits of {limited!r} would be left behind"
    return os.path.basename(limited), ""


def _innermost_limit(host: CgroupHost, disk: Disk) -> str | None:
    """Return the nearest of the caller's own cgroup and its ancestors that limits memory or processors."""
    assert host.unified is not None  # noqa: S101 (the caller has looked)
    here = host.caller
    while here not in ("", "/"):
        if is_limited(disk, f"{host.unified.mount_point.rstrip('/')}{here}"):
            return here
        here = os.path.dirname(here)
    return None


def _below_scope(host: CgroupHost, unit: str, pid: int) -> CgroupHost:
    """Move the process into a child of its scope, and look at what can be done in the scope."""
    with open(f"/proc/{pid}/cgroup", encoding="utf-8", errors="surrogateescape") as file:
        path = next(line.rstrip("\n")[3:] for line in file if line.startswith("0::"))
    if os.path.basename(path) != unit or host.unified is None:
        raise CgroupError(f"systemd has put process {pid} into {path!r}", controller="", path=path)
    # Before it is looked at: a group with processes in it is passed over.
    fd = open_directory(f"{host.unified.mount_point.rstrip('/')}{path}")
    try:
        make_directory(fd, _KEEPER)
        write_at(fd, f"{_KEEPER}/cgroup.procs", str(pid))
    finally:
        os.close(fd)
    found = CgroupHost.probe(unified_parent=path)
    if found.unified is None or found.unified.problem is not None:
        raise CgroupError(f"nothing can be made in {path!r}", controller="", path=path)
    return found
