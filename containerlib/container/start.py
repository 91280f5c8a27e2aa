"""Starting a container that was created, or that has exited."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

from containerlib._util.remove_tree import remove_tree
from containerlib.container.state import ContainerState, check_state
from containerlib.container.streams import DEVNULL, Streams
from containerlib.errors import InvalidState
from containerlib.runtime.process import RunningProcess

if TYPE_CHECKING:
    from containerlib.container.entry import ContainerEntry
    from containerlib.container.streams import Input, Output

__all__ = ["start", "take_console"]


def _renew_work(entry: ContainerEntry) -> None:
    """A work directory of a volatile overlay serves one mount, be it of a start that failed later.

    The layer itself is kept.
    """
    directory = entry.layers.directory
    if directory is not None and os.listdir(f"{directory}/work"):
        remove_tree(f"{directory}/work")
        os.mkdir(f"{directory}/work", 0o700)


def _open_streams(entry: ContainerEntry, stdin: Input, stdout: Output, stderr: Output) -> Streams:
    """The streams; what a detached container would inherit goes into a file beside its layer instead."""
    if not entry.is_detached:
        return Streams.open(stdin, stdout, stderr)
    path = f"{entry.layers.directory}/output.log"
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        return Streams.open(
            DEVNULL if stdin is None else stdin,
            fd if stdout is None else stdout,
            fd if stderr is None else stderr,
            keep=(fd,),
        )
    finally:
        os.close(fd)


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
        if entry.is_adopted:
            raise InvalidState(
                f"container {entry.name!r} was made by another process, which alone can start it",
                expected="own",
                actual="adopted",
            )
        runner = entry.session.enter()
        _renew_work(entry)
        streams = _open_streams(entry, stdin, stdout, stderr)
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
    if not isinstance(entry.process, RunningProcess) or not entry.config.tty:
        raise InvalidState(
            f"container {entry.name!r} has no terminal; start it with tty=True",
            expected="tty",
            actual="no tty",
        )
    return entry.process.take_console()
