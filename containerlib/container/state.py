"""The states of a container, and which verb is allowed in which. Values only."""

from __future__ import annotations

from enum import StrEnum

from containerlib.errors import InvalidState

__all__ = ["ContainerState", "check_state"]


class ContainerState(StrEnum):
    """Where a container is in its life.

    ``stopping`` is one that was killed and does not end, because the kernel waits for something.
    """

    CREATED = "created"
    RUNNING = "running"
    PAUSED = "paused"
    RESTARTING = "restarting"
    STOPPING = "stopping"
    EXITED = "exited"
    REMOVED = "removed"

    @property
    def is_alive(self) -> bool:
        """Whether there is a process, or will be one without anybody's doing."""
        return self in _ALIVE


_ALIVE = (ContainerState.RUNNING, ContainerState.PAUSED, ContainerState.RESTARTING, ContainerState.STOPPING)

_CONNECTABLE = (ContainerState.CREATED, ContainerState.RUNNING, ContainerState.PAUSED, ContainerState.EXITED)
_ALLOWED = {
    "start": (ContainerState.CREATED, ContainerState.EXITED),
    "exec in": (ContainerState.RUNNING,),
    "kill": _ALIVE,
    "attach to": (ContainerState.RUNNING, ContainerState.PAUSED, ContainerState.RESTARTING),
    "pause": (ContainerState.RUNNING,),
    "unpause": (ContainerState.PAUSED,),
    "copy files of": (
        ContainerState.CREATED,
        ContainerState.RUNNING,
        ContainerState.PAUSED,
        ContainerState.EXITED,
    ),
    "reach the network of": (ContainerState.RUNNING, ContainerState.PAUSED),
    "look at": (ContainerState.RUNNING, ContainerState.PAUSED),
    "measure": (ContainerState.RUNNING, ContainerState.PAUSED),
    "update": (ContainerState.RUNNING, ContainerState.PAUSED),
    "wait": (*_ALIVE, ContainerState.EXITED),
    "connect": _CONNECTABLE,
    "disconnect": _CONNECTABLE,
    "rename": tuple(state for state in ContainerState if state != ContainerState.REMOVED),
    "inspect": tuple(state for state in ContainerState if state != ContainerState.REMOVED),
    "commit": tuple(state for state in ContainerState if state != ContainerState.REMOVED),
    "export": tuple(state for state in ContainerState if state != ContainerState.REMOVED),
    "snapshot": (ContainerState.CREATED, ContainerState.PAUSED, ContainerState.EXITED),
    "compare": tuple(state for state in ContainerState if state != ContainerState.REMOVED),
    "remove": (ContainerState.CREATED, ContainerState.EXITED),
}


def check_state(verb: str, actual: ContainerState, name: str, remedy: str = "") -> None:
    """Refuse `verb` in a state that does not allow it.

    Raises:
        InvalidState: Names the verb, both states and the remedy.
    """
    allowed = _ALLOWED[verb]
    if actual in allowed:
        return
    expected = " or ".join(allowed)
    hint = f"; {remedy}" if remedy else ""
    raise InvalidState(
        f"cannot {verb} container {name!r}: it is {actual}, not {expected}{hint}",
        expected=expected,
        actual=str(actual),
    )
