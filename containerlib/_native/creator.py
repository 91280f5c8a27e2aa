"""Starts one process that stays when this one ends, as a child of whoever collects our orphans.

In: a `SpawnRequest`. Out: a `Channel` of it. That is how an engine runs an OCI runtime: the runtime's command
ends, and the engine's own process has the container as its child.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from containerlib._native.program import WALL
from containerlib._native.spawn import Starter

if TYPE_CHECKING:
    from containerlib._native.channel import Channel

__all__ = ["Creator", "end", "reap"]


class Creator(Starter):
    """The process that starts the one, and then ends."""

    def __init__(self) -> None:
        """Start the process.

        Raises:
            UnsupportedHost: A memory file cannot be executed here.
        """
        super().__init__("ctr-creator", -1, ())

    def close(self) -> None:
        """Make sure that it has ended. What it has started goes on."""
        self._end()


def end(channel: Channel) -> None:
    """Kill what a creator has started, if it has, and forget it."""
    while channel.pidfd < 0 and channel.exit is None and channel.wait_ready(None):
        channel.receive()
    if channel.pidfd >= 0:
        channel.exit = None  # nobody tells of it but the kernel
        channel.kill()
        reap(channel)
    channel.close()


def reap(channel: Channel) -> int | None:
    """Wait for the end of what a creator has started, which is a child of this process.

    Returns:
        Its exit code, 128 + n for signal n; None if somebody else was told.
    """
    with contextlib.suppress(ChildProcessError):
        found = os.waitid(os.P_PIDFD, channel.pidfd, os.WEXITED | WALL)
        if found is not None:
            return found.si_status if found.si_code == os.CLD_EXITED else 128 + found.si_status
    return None
