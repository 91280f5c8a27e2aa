"""Removing a container and its layer."""

from __future__ import annotations

import contextlib
import signal
from typing import TYPE_CHECKING

from containerlib.container.kill import kill, wait_killed
from containerlib.container.state import ContainerState, check_state
from containerlib.errors import InvalidState

if TYPE_CHECKING:
    from containerlib.container.entry import ContainerEntry

__all__ = ["remove"]


def remove(entry: ContainerEntry, *, force: bool = False) -> None:
    """Remove the container. One that is removed already is not an error.

    Args:
        entry: The container.
        force: Kill it first if it is running.

    Raises:
        InvalidState: It is running and `force` is not set.
        OperationTimeout: It was killed, and does not end; see `wait_killed`.
    """
    if entry.refresh() == ContainerState.REMOVED:
        # It may have removed itself, and then its output was left to be read.
        if entry.streams is not None:
            entry.streams.close_outer()
        return
    if entry.state.is_alive and force:
        # Whoever else learns of the end first may remove it meanwhile.
        with contextlib.suppress(InvalidState):
            kill(entry, signal.SIGKILL)
            wait_killed(entry)
    with entry.exclusively():
        if entry.state != ContainerState.REMOVED:
            check_state("remove", entry.state, entry.name, "stop it first, or use force=True")
            entry.discard()
        if entry.streams is not None:
            entry.streams.close_outer()
