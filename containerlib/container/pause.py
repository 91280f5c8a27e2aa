"""Stopping all processes of a container where they are, letting them go on, and changing its limits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import evolve

from containerlib.container.state import ContainerState, check_state
from containerlib.errors import UnsupportedHost
from containerlib.runtime.detached import DetachedProcess

if TYPE_CHECKING:
    from containerlib.container.entry import ContainerEntry
    from containerlib.options import Resources
    from containerlib.runtime.cgroup_container import ContainerCgroup

__all__ = ["pause", "unpause", "update"]


def pause(entry: ContainerEntry) -> None:
    """Stop every process of the container, without its noticing, until `unpause`.

    Raises:
        InvalidState: It is not running.
        UnsupportedHost: The host has no control groups that can do that.
        CgroupError: Some process could not be stopped within 5 seconds; all go on.
    """
    with entry.exclusively():
        check_state("pause", entry.state, entry.name)
        _tell(entry, paused=True)
        try:
            _cgroup(entry, "pausing a container").freeze()
        except BaseException:
            _tell(entry, paused=False)
            raise
        entry.state = ContainerState.PAUSED
        entry.write_record()


def unpause(entry: ContainerEntry) -> None:
    """Let a paused container go on.

    Raises:
        InvalidState: It is not paused.
    """
    with entry.exclusively():
        check_state("unpause", entry.state, entry.name)
        _cgroup(entry, "pausing a container").thaw()
        _tell(entry, paused=False)
        entry.state = ContainerState.RUNNING
        entry.write_record()


def update(entry: ContainerEntry, resources: Resources) -> None:
    """Replace the limits of a running container; one that is no longer given is taken away.

    Raises:
        InvalidState: It is not running.
        UnsupportedHost: The host cannot set a limit; nothing was changed.
        CgroupError: The kernel refused a value, such as less memory than is in use; nothing was changed.
    """
    with entry.exclusively():
        check_state("update", entry.state, entry.name, "start it first")
        _cgroup(entry, "limits").update(resources)
        entry.config = evolve(entry.config, resources=resources)
        entry.write_record()


def _cgroup(entry: ContainerEntry, what: str) -> ContainerCgroup:
    cgroup = None if entry.process is None else entry.process.cgroup
    if cgroup is None:
        raise UnsupportedHost(what, needed="a writable control group hierarchy", found="none")
    return cgroup


def _tell(entry: ContainerEntry, *, paused: bool) -> None:
    """A supervisor does not check the health of what stands still."""
    control = entry.process.connect() if isinstance(entry.process, DetachedProcess) else None
    if control is not None:
        with control:
            control.set_paused(paused=paused)
