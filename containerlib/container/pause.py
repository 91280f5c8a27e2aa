"""Stopping all processes of a container where they are, letting them go on, and changing its limits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import evolve

from containerlib._util.failpoint import reach
from containerlib.container.state import ContainerState, check_state
from containerlib.errors import InvalidOption, InvalidState, UnsupportedHost
from containerlib.runtime.detached import DetachedProcess
from containerlib.runtime.detached_order import restart_words

if TYPE_CHECKING:
    from containerlib.container.entry import ContainerEntry
    from containerlib.options import Resources, RestartPolicy
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
        entry.wait_for_joins()
        check_state("pause", entry.refresh(), entry.name)
        _tell(entry, paused=True)
        try:
            _cgroup(entry, "pausing a container").freeze()
        except BaseException:
            _tell(entry, paused=False)
            raise
        entry.state = ContainerState.PAUSED
        entry.write_record()
        entry.tell("pause")


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
        entry.tell("unpause")


def update(
    entry: ContainerEntry, resources: Resources | None = None, restart: RestartPolicy | None = None
) -> None:
    """Replace the limits or the restart policy of a running container; None leaves them as they are.

    A limit that is no longer given is taken away.

    Raises:
        InvalidOption: A policy is for what is detached.
        InvalidState: It is not running.
        UnsupportedHost: The host cannot set a limit; nothing was changed.
        CgroupError: The kernel refused a value, such as less memory than is in use; nothing was changed.
    """
    with entry.exclusively():
        check_state("update", entry.state, entry.name, "start it first")
        if restart is not None:
            _check_restart(entry, restart)
        if resources is not None:
            _cgroup(entry, "limits").update(resources)
            entry.config = evolve(entry.config, resources=resources)
        if restart is not None:
            _set_restart(entry, restart)
            entry.config = evolve(entry.config, restart=restart)
        entry.write_record()
        entry.tell("update")


def _check_restart(entry: ContainerEntry, restart: RestartPolicy) -> None:
    if not entry.is_detached:
        raise InvalidOption("restart", restart.name, "only what is detached has that: lifetime='detached'")
    if restart.name != "no" and entry.config.remove:
        raise InvalidOption("restart", restart.name, "what is removed at its end is not started again")


def _set_restart(entry: ContainerEntry, restart: RestartPolicy) -> None:
    control = entry.process.connect() if isinstance(entry.process, DetachedProcess) else None
    if control is None:
        raise InvalidState(
            f"cannot update container {entry.name!r}: its supervisor was killed; start it again",
            expected="supervised",
            actual="alone",
        )
    with control:
        reach("tell supervisor", entry.name)
        control.set_restart(*restart_words(restart))


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
            reach("tell supervisor", entry.name)
            control.set_paused(paused=paused)
