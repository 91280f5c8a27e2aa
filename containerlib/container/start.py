"""Starting a container that was created, or that has exited."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

from containerlib._util.remove_tree import remove_tree
from containerlib.container.state import ContainerState, check_state
from containerlib.container.streams import Streams
from containerlib.errors import InvalidState

if TYPE_CHECKING:
    from containerlib.container.entry import ContainerEntry
    from containerlib.container.streams import Input, Output

__all__ = ["start", "take_console"]


def _renew_work(entry: ContainerEntry) -> None:
    """A work directory of a volatile overlay serves one mount; the layer itself is kept."""
    directory = entry.layers.directory
    if directory is not None and entry.exit_status is not None and os.path.isdir(f"{directory}/work"):
        remove_tree(f"{directory}/work")
        os.mkdir(f"{directory}/work", 0o700)


def start(
    entry: ContainerEntry, *, stdin: Input = None, stdout: Output = None, stderr: Output = None
) -> Streams:
    """Start the container, and return when its command was executed.

    After a failure the container is as before. A container whose layer is in memory begins anew.

    Returns:
        The caller's ends of the streams.

    Raises:
        InvalidState: It is running or removed.
        InvalidOption, UnsupportedHost, SpawnError, OperationTimeout: See `Runner.start`.
    """
    with entry.lock:
        check_state("start", entry.refresh(), entry.name)
        runner = entry.session.enter()
        _renew_work(entry)
        streams = Streams.open(stdin, stdout, stderr)
        try:
            entry.process = runner.start(entry.id, entry.config, entry.layers, streams.inner, entry.on_exit)
        except BaseException:
            streams.close_inner()
            streams.close_outer()
            raise
        streams.close_inner()
        entry.streams = streams
        entry.exit_status = None
        entry.state = ContainerState.RUNNING
    try:
        entry.write_record()
    except OSError:
        # A container that other processes cannot see is not what was asked for.
        entry.process.signal(signal.SIGKILL)
        entry.process.wait()
        streams.close_outer()
        raise
    return streams


def take_console(entry: ContainerEntry) -> int:
    """The master side of the container's terminal; the caller closes it.

    Raises:
        InvalidState: It has no terminal, or the terminal was taken already.
    """
    if entry.process is None or not entry.config.tty:
        raise InvalidState(
            f"container {entry.name!r} has no terminal; start it with tty=True",
            expected="tty",
            actual="no tty",
        )
    return entry.process.take_console()
