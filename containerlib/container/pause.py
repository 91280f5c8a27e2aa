"""Stopping all processes of a container where they are, letting them go on, and changing its limits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import evolve

from containerlib.container.state import ContainerState, check_state
from containerlib.errors import InvalidState, UnsupportedHost
from containerlib.runtime.process import RunningProcess

if TYPE_CHECKING:
    from containerlib.container.entry import ContainerEntry
    from containerlib.options import Resources
    from containerlib.runtime.cgroup_container import ContainerCgroup

__all__ = ["pause", "unpause", "update"]


def pause(entry: ContainerEntry) -> None:
    """Stop every process of the container, without its noticing, until `unpause`.

    Raises:
        InvalidState: It is not running, or was started by another process.
        UnsupportedHost: The host has no control groups that can do that.
        CgroupError: Some process could not be stopped within 5 seconds; all go on.
    """
    with entry.lock:
        check_state("pause", entry.refresh(), entry.name)
        _cgroup(entry, "pausing a container").freeze()
        entry.state = ContainerState.PAUSED
        entry.write_record()


def unpause(entry: ContainerEntry) -> None:
    """Let a paused container go on.

    Raises:
        InvalidState: It is not paused.
    """
    with entry.lock:
        check_state("unpause", entry.refresh(), entry.name)
        _cgroup(entry, "pausing a container").thaw()
        entry.state = ContainerState.RUNNING
        entry.write_record()


def update(entry: ContainerEntry, resources: Resources) -> None:
    """Replace the limits of a running container; one that is no longer given is taken away.

    Raises:
        InvalidState: It is not running, or was started by another process.
        UnsupportedHost: The host cannot set a limit; nothing was changed.
        CgroupError: The kernel refused a value, such as less memory than is in use; nothing was changed.
    """
    with entry.lock:
        check_state("update", entry.refresh(), entry.name, "start it first")
        _cgroup(entry, "limits").update(resources)
        entry.config = evolve(entry.config, resources=resources)


def _cgroup(entry: ContainerEntry, what: str) -> ContainerCgroup:
    process = entry.process
    if not isinstance(process, RunningProcess):
        raise InvalidState(
            f"container {entry.name!r} was started by another process, which alone can do this",
            expected="own",
            actual="adopted",
        )
    if process.cgroup is None:
        raise UnsupportedHost(what, needed="a writable control group hierarchy", found="none")
    return process.cgroup
