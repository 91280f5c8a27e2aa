"""What a running container uses, and which processes it has."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from containerlib.container.state import check_state
from containerlib.errors import InvalidOption, InvalidState
from containerlib.runtime.identity import is_readable
from containerlib.runtime.process_table import pids_of_namespace, read_processes
from containerlib.runtime.stats import read_stats

if TYPE_CHECKING:
    from collections.abc import Iterator

    from containerlib.container.entry import ContainerEntry
    from containerlib.runtime.cgroup_container import ContainerCgroup
    from containerlib.runtime.process_table import ProcessInfo
    from containerlib.runtime.stats import ContainerStats

__all__ = ["processes", "stats", "stats_stream"]


def processes(entry: ContainerEntry) -> list[ProcessInfo]:
    """The processes of a running container, by number; a program must not be executed in it for that.

    Raises:
        InvalidState: It does not run.
    """
    first = _first_process(entry, "look at")
    return _processes(_cgroup(entry), first)


def stats(entry: ContainerEntry) -> ContainerStats:
    """What a running container uses now.

    Raises:
        InvalidState: It does not run.
    """
    first = _first_process(entry, "measure")
    cgroup = _cgroup(entry)
    found = read_stats(
        cgroup, _processes(cgroup, first), network_pid=None if entry.config.network == "host" else first
    )
    # Read from control groups that were just removed, it would say that nothing was used.
    _first_process(entry, "measure")
    return found


def stats_stream(entry: ContainerEntry, interval_s: float) -> Iterator[ContainerStats]:
    """What it uses, again and again until it ends.

    Raises:
        InvalidState: It does not run; raised at once.
        InvalidOption: The interval is none.
    """
    if not interval_s > 0:
        raise InvalidOption("interval_s", interval_s, "give more than 0 seconds")
    return _stream(entry, stats(entry), interval_s)


def _stream(entry: ContainerEntry, found: ContainerStats, interval_s: float) -> Iterator[ContainerStats]:
    yield found
    while True:
        process, due = entry.process, time.monotonic() + interval_s
        # It is woken at the end of the run, not only when the interval is over.
        fd = -1 if process is None else process.duplicate()
        if fd < 0:
            return
        try:
            if is_readable(fd, due - time.monotonic()):
                return
        finally:
            os.close(fd)
        try:
            now = stats(entry)
        except InvalidState:
            if entry.refresh().is_alive:
                continue  # between two runs of one that its policy starts again
            return
        yield now.since(found)
        found = now


def _first_process(entry: ContainerEntry, verb: str) -> int:
    entry.refresh()
    check_state(verb, entry.state, entry.name)
    pid = None if entry.process is None else entry.process.pid
    if pid is None:
        raise InvalidState(
            f"cannot {verb} container {entry.name!r}: it has just ended", expected="running", actual="exited"
        )
    return pid


def _cgroup(entry: ContainerEntry) -> ContainerCgroup | None:
    return None if entry.process is None else entry.process.cgroup


def _processes(cgroup: ContainerCgroup | None, first: int) -> list[ProcessInfo]:
    """The processes of the container, and none that has got the number of one that is gone."""
    pids = pids_of_namespace(first) if cgroup is None else cgroup.pids()
    found = read_processes(pids)
    still = pids_of_namespace(first) if cgroup is None else cgroup.pids()
    return [each for each in found if each.pid in still]
