"""Ending a container: by one signal, or politely first."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Literal

from containerlib._util.failpoint import reach
from containerlib.container.pause import unpause
from containerlib.container.state import ContainerState, check_state
from containerlib.container.wait import wait
from containerlib.errors import OperationTimeout
from containerlib.runtime.detached import DetachedProcess

if TYPE_CHECKING:
    from containerlib.container.entry import ContainerEntry
    from containerlib.runtime.usage import ExitStatus

__all__ = ["KILL_S", "begin_stop", "kill", "stop", "stuck", "wait_killed"]

KILL_S = 10.0
"""How long the kernel may take to end what was killed, in seconds."""


def kill(entry: ContainerEntry, number: int) -> None:
    """Send a signal to the container's first process.

    SIGKILL ends every process of the container. Other signals reach only a process that handles them: the
    kernel gives the first process of a PID namespace no default action, unless the container has `init`.

    Raises:
        InvalidState: The container is not running.
    """
    check_state("kill", entry.refresh(), entry.name)
    if number not in {signal.SIGKILL, entry.config.stop_signal} or not _tell_to_stop(entry, number, None):
        entry.signal(number)
    elif number == signal.SIGKILL:
        entry.thaw()
    entry.tell("kill", {"signal": str(number)})


def stop(entry: ContainerEntry, *, timeout_s: float) -> ExitStatus | None:
    """Send the stop signal, wait, and kill what is left.

    A container that is not running is not an error; one that is paused goes on first.

    Args:
        entry: The container.
        timeout_s: How long the command may take to end by itself, in seconds.

    Raises:
        OperationTimeout: It was killed, and does not end; see `wait_killed`.
    """
    begun = begin_stop(entry, timeout_s)
    if begun == "over":
        return entry.exit_status
    try:
        status = wait(entry, timeout_s=timeout_s if begun == "ours" else timeout_s + KILL_S)
    except OperationTimeout:
        entry.signal(signal.SIGKILL)
        status = wait_killed(entry)
    entry.tell("stop")
    return status


def wait_killed(entry: ContainerEntry) -> ExitStatus:
    """Wait for the end of a container that was killed.

    Raises:
        OperationTimeout: It does not end within 10 seconds, because the kernel waits for something.
    """
    try:
        return wait(entry, timeout_s=KILL_S)
    except OperationTimeout:
        raise stuck(entry) from None


def stuck(entry: ContainerEntry) -> OperationTimeout:
    """Note that a container was killed and does not end, and say what can be done."""
    entry.note_stopping()
    return OperationTimeout(
        f"container {entry.name!r} was killed and has not ended after {KILL_S:g} s: a process of it waits in"
        " the kernel, most likely for a file server that does not answer; it ends when that does or is"
        " unmounted",
        timeout_s=KILL_S,
    )


def begin_stop(entry: ContainerEntry, timeout_s: float) -> Literal["over", "supervised", "ours"]:
    """Send the stop signal.

    Returns:
        ``"over"`` if it does not run; ``"supervised"`` if its supervisor kills it when the time is up;
        ``"ours"`` if that is left to the caller.
    """
    if not entry.refresh().is_alive:
        return "over"
    if entry.state == ContainerState.PAUSED:
        unpause(entry)
    number = entry.config.stop_signal
    is_supervised = _tell_to_stop(entry, number, timeout_s)
    if not is_supervised:
        entry.signal(number)
    entry.tell("kill", {"signal": str(number)})
    return "supervised" if is_supervised else "ours"


def _tell_to_stop(entry: ContainerEntry, number: int, grace_s: float | None) -> bool:
    """Have a supervisor send the signal, if there is one: it must know that the end is wanted.

    It also does the rest, if this process ends meanwhile.
    """
    control = entry.process.connect() if isinstance(entry.process, DetachedProcess) else None
    if control is None:
        return False
    with control:
        reach("tell supervisor", entry.name)
        return control.stop(number, grace_s)
