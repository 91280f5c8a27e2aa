"""Starting a container that was created, or that has exited."""

from __future__ import annotations

import contextlib
import os
import signal
from typing import TYPE_CHECKING

from containerlib._util.atomic_file import make_directory, open_lasting
from containerlib._util.remove_tree import remove_tree
from containerlib.container.detached_entry import DetachedEntry
from containerlib.container.network import joined_network
from containerlib.container.state import ContainerState, check_state
from containerlib.container.streams import DEVNULL, PIPE, Streams
from containerlib.errors import ContainerlibError, InvalidOption, InvalidState
from containerlib.options import LogCallback
from containerlib.runtime.detached_order import make_order
from containerlib.runtime.detached_start import start_detached
from containerlib.runtime.process import RunningProcess

if TYPE_CHECKING:
    from containerlib.container.entry import ContainerEntry
    from containerlib.container.streams import Input, Output
    from containerlib.runtime.runner import Runner

__all__ = ["renew_work", "start", "take_console"]


def renew_work(entry: ContainerEntry) -> None:
    """A work directory of a volatile overlay serves one mount, be it of a start that failed later.

    The layer itself is kept.
    """
    directory = entry.layers.directory
    if directory is None:
        return
    work = f"{directory}/work"
    try:
        if not os.listdir(work):
            return
    except FileNotFoundError:
        pass  # somebody was killed between the next two steps
    remove_tree(work)
    make_directory(work)


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
    runner = entry.session.enter()
    with entry.exclusively():
        check_state("start", entry.state, entry.name)
        renew_work(entry)
        if isinstance(entry, DetachedEntry):
            return _start_detached(entry, runner, stdin, stdout, stderr)
        streams = _open_streams(entry, stdin, stdout, stderr)
        try:
            with joined_network(entry) as network:
                process = runner.start(
                    entry.id, entry.config, entry.layers, streams.inner, entry.on_exit, network
                )
        except BaseException:
            streams.close_inner()
            streams.close_outer()
            raise
        streams.close_inner()
        entry.process = process
        _begin_log(entry, streams, stdout, stderr)
        entry.streams = streams
        entry.exit_status = None
        entry.state = ContainerState.RUNNING
    try:
        entry.write_record()
        entry.tell("start")
    except OSError:
        # A container that other processes cannot see is not what was asked for.
        process.signal(signal.SIGKILL)
        process.wait()
        streams.close_outer()
        raise
    return streams


def _open_streams(entry: ContainerEntry, stdin: Input, stdout: Output, stderr: Output) -> Streams:
    """The streams; what would be inherited goes to the function that wants it, if there is one."""
    if isinstance(entry.config.log, LogCallback):
        if stdout is not None and stderr is not None:
            raise InvalidOption("log", entry.config.log, "both streams go elsewhere; leave one of them out")
        stdout, stderr = PIPE if stdout is None else stdout, PIPE if stderr is None else stderr
    return Streams.open(stdin, stdout, stderr)


def _begin_log(entry: ContainerEntry, streams: Streams, stdout: Output, stderr: Output) -> None:
    """Have the lines passed on of those streams that the caller has not asked for."""
    if not isinstance(entry.config.log, LogCallback):
        return
    from containerlib.container.log_pump import LogPump  # noqa: PLC0415 - needed by few

    read = [streams.stdout if stdout is None else None, streams.stderr if stderr is None else None]
    streams.stdout = None if stdout is None else streams.stdout
    streams.stderr = None if stderr is None else streams.stderr
    entry.pump = LogPump(entry.config.log, *read)


def _start_detached(
    entry: DetachedEntry, runner: Runner, stdin: Input, stdout: Output, stderr: Output
) -> Streams:
    """Start it below a supervisor of its own, which reads what would be inherited."""
    entry.sweep()
    config = entry.config
    streams = Streams.open(
        DEVNULL if stdin is None else stdin,
        DEVNULL if stdout is None else stdout,
        DEVNULL if stderr is None else stderr,
    )
    try:
        os.close(open_lasting(entry.starting_path))
        with joined_network(entry) as network:
            start_detached(
                runner,
                entry.id,
                config,
                entry.find_layers(),
                streams.inner,
                order=make_order(
                    config,
                    reads_stdout=stdout is None and not config.tty,
                    reads_stderr=stderr is None and not config.tty,
                    keeps_stdin=stdin is None and config.stdin_open and not config.tty,
                ),
                begin=entry.begin_run,
                open_journal=entry.session.stores.journal.open_directory,
                network=network,
            )
    except BaseException:
        streams.close_outer()
        # Nearly always nothing is left; where even cleaning up fails, the mark stays for the next attempt.
        with contextlib.suppress(OSError, ContainerlibError):
            entry.sweep()
        raise
    finally:
        streams.close_inner()
    entry.streams = streams
    entry.refresh()
    return streams


def take_console(entry: ContainerEntry) -> int:
    """The master side of the container's terminal; the caller closes it.

    Raises:
        InvalidState: It has no terminal, or the terminal was taken already.
    """
    if not isinstance(entry.process, RunningProcess) or not entry.config.tty:
        remedy = "attach to it" if entry.is_detached and entry.config.tty else "start it with tty=True"
        raise InvalidState(
            f"container {entry.name!r} has no terminal here; {remedy}", expected="tty", actual="no tty"
        )
    return entry.process.take_console()
