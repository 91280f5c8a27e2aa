"""``state``, ``list``, ``ps``, ``events``: what there is, as JSON or as a table."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

from containerlib.oci_cli.errors import OciError
from containerlib.runtime.stats import read_stats

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Sequence

    from containerlib.oci_cli.log import Log
    from containerlib.oci_cli.store import Container, Store

__all__ = ["events_command", "list_command", "ps_command", "say", "state_command"]

_UNLIMITED = 2**64 - 1


def say(text: str) -> None:
    """Write a line to standard output."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def state_command(store: Store, options: Namespace, log: Log) -> None:
    """Print a container's state."""
    del log
    say(json.dumps(store.get(options.id).state(), indent=2))


def list_command(store: Store, options: Namespace, log: Log) -> None:
    """Print all containers."""
    del log
    containers = store.list()
    if options.quiet:
        for each in containers:
            say(each.id)
    elif options.format == "json":
        say(json.dumps([each.state() for each in containers]))
    else:
        states = [each.state() for each in containers]
        titles = ("id", "pid", "status", "bundle", "created", "owner")
        _table([[title.upper() for title in titles], *([str(s[t]) for t in titles] for s in states)])


def _table(rows: Sequence[Sequence[str]]) -> None:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        say("   ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())


def ps_command(store: Store, options: Namespace, log: Log) -> None:
    """Print the processes of a container: their numbers, or what ps(1) says of them.

    Raises:
        OciError: There is no such container, or ps does not know what it was asked.
    """
    del log
    pids = sorted(store.get(options.id).cgroup.pids())
    if options.format == "json":
        say(json.dumps(pids))
        return
    done = subprocess.run(["ps", *(options.options or ["-ef"])], capture_output=True, text=True, check=False)
    if done.returncode:
        raise OciError(f"ps: {done.stderr.strip()}")
    lines = done.stdout.splitlines()
    titles = lines[0].split()
    if "PID" not in titles:
        raise OciError("couldn't find PID field in ps output")
    column, wanted = titles.index("PID"), {str(pid) for pid in pids}
    say(lines[0])
    for line in lines[1:]:
        fields = line.split()
        if len(fields) > column and fields[column] in wanted:
            say(line)


def events_command(store: Store, options: Namespace, log: Log) -> None:
    """Print what a container uses, once or again and again until it ends.

    Raises:
        OciError: There is no such container, or it has ended.
    """
    del log
    while True:
        container = store.get(options.id)
        if container.status == "stopped":
            raise OciError(f"container {options.id} is not running")
        say(json.dumps({"type": "stats", "id": container.id, "data": _stats(container)}))
        if options.stats:
            return
        time.sleep(options.interval)


def _stats(container: Container) -> dict[str, Any]:
    """The numbers in runc's form; what no control group counts is left out."""
    found = read_stats(container.cgroup, (), network_pid=container.process.pid)
    cpu, memory, io, pids = found.cpu, found.memory, found.io, found.pids
    data: dict[str, Any] = {
        "cpu": {
            "usage": {"total": cpu.total_ns, "kernel": cpu.system_ns or 0, "user": cpu.user_ns or 0},
            "throttling": {
                "periods": cpu.periods or 0,
                "throttledPeriods": cpu.throttled_periods or 0,
                "throttledTime": cpu.throttled_ns or 0,
            },
        },
        "pids": {"current": pids.current, "limit": pids.limit or 0},
        "network_interfaces": [
            {
                "Name": name,
                **{f"{way}{what.title()}": getattr(each, f"{way.lower()}_{what}") for way, what in _COUNTS},
            }
            for name, each in found.networks.items()
        ],
    }
    if memory.is_exact:
        limit = _UNLIMITED if memory.limit_bytes is None else memory.limit_bytes
        data["memory"] = {
            "usage": {"usage": memory.usage_bytes, "limit": limit, "max": memory.peak_bytes or 0}
        }
    if io is not None:
        data["blkio"] = {
            "ioServiceBytesRecursive": _operations(io.read_bytes, io.write_bytes),
            "ioServicedRecursive": _operations(io.reads, io.writes),
        }
    return data


_COUNTS = [(way, what) for way in ("Rx", "Tx") for what in ("bytes", "packets", "errors", "dropped")]


def _operations(reads: int, writes: int) -> list[dict[str, Any]]:
    return [{"op": "Read", "value": reads}, {"op": "Write", "value": writes}]
