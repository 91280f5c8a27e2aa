"""``containerlib stats`` and ``containerlib top``: what runs in containers, and what it uses."""

from __future__ import annotations

import shlex
import sys
import time
from typing import TYPE_CHECKING

import attrs
import click

from containerlib.api.engine import Engine
from containerlib.cli.output import FORMAT_OPTION, human_size, print_json, print_table, short_id
from containerlib.errors import InvalidState

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from containerlib.api.container import Container
    from containerlib.runtime.process_table import ProcessInfo
    from containerlib.runtime.stats import ContainerStats

__all__ = ["stats", "top"]

_HEADER = ("CONTAINER ID", "NAME", "CPU %", "MEM USAGE / LIMIT", "MEM %", "NET I/O", "BLOCK I/O", "PIDS")
_INTERVAL_S = 1.0
_CLEAR = "\x1b[H\x1b[2J"
_KIB = 1024.0


def _stats(*, names: Sequence[str], no_stream: bool, style: str) -> None:
    with Engine() as engine:
        chosen = [engine.containers.get(name) for name in names]
        before = _measure(chosen or engine.containers.list(), must=bool(names))
        while True:
            time.sleep(_INTERVAL_S)
            containers = chosen or engine.containers.list()
            now = _measure(containers, must=False)
            _show(containers, before, now, style)
            before = now
            if no_stream or (chosen and not now):
                return


def _measure(containers: Iterable[Container], *, must: bool) -> dict[str, ContainerStats]:
    """Measure those that run; with `must`, one that does not run is an error."""
    found = {}
    for container in containers:
        try:
            found[container.id] = container.stats()
        except InvalidState:
            if must:
                raise
    return found


def _show(
    containers: Iterable[Container],
    before: dict[str, ContainerStats],
    now: dict[str, ContainerStats],
    style: str,
) -> None:
    shown = [
        (each, now[each.id].since(before[each.id]) if each.id in before else now[each.id])
        for each in containers
        if each.id in now
    ]
    if style == "json":
        for container, found in shown:
            print_json({"id": container.id, "name": container.name, **attrs.asdict(found)})
        return
    if sys.stdout.isatty():
        print(_CLEAR, end="")
    print_table(_HEADER, [_row(container, found) for container, found in shown])
    sys.stdout.flush()


def _row(container: Container, found: ContainerStats) -> tuple[str, ...]:
    memory, used = found.memory, found.memory.working_set_bytes
    received = sum(each.rx_bytes for each in found.networks.values())
    sent = sum(each.tx_bytes for each in found.networks.values())
    io = "--"
    if found.io is not None:
        io = f"{human_size(found.io.read_bytes)} / {human_size(found.io.write_bytes)}"
    return (
        short_id(container.id),
        container.name,
        "--" if found.cpu_percent is None else f"{found.cpu_percent:.2f}%",
        f"{_binary_size(used)} / {'--' if memory.limit_bytes is None else _binary_size(memory.limit_bytes)}",
        "--" if not memory.limit_bytes else f"{100 * used / memory.limit_bytes:.2f}%",
        f"{human_size(received)} / {human_size(sent)}",
        io,
        str(found.pids.current),
    )


def _binary_size(count: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < _KIB:
            return f"{count:.4g}{unit}"
        count /= _KIB
    return f"{count:.4g}TiB"


def _top(*, name: str) -> None:
    with Engine() as engine:
        found = engine.containers.get(name).top()
    now = time.time()
    print_table(
        ("UID", "PID", "PPID", "C", "STIME", "TIME", "CMD"), [_process_row(each, now) for each in found]
    )


def _process_row(process: ProcessInfo, now: float) -> tuple[str, ...]:
    """As ``ps -ef`` prints it."""
    age_s = max(1.0, now - process.started_at)
    started = time.localtime(process.started_at)
    is_today = time.localtime(now)[:3] == started[:3]
    minutes, seconds = divmod(int(process.cpu_s), 60)
    return (
        str(process.uid),
        str(process.pid),
        str(process.parent_pid),
        str(int(100 * process.cpu_s / age_s)),
        time.strftime("%H:%M" if is_today else "%b%d", started),
        f"{minutes // 60:02}:{minutes % 60:02}:{seconds:02}",
        shlex.join(process.command),
    )


stats = click.Command(
    "stats",
    callback=_stats,
    params=[
        click.Option(["--no-stream"], is_flag=True, help="Show one second, and end."),
        FORMAT_OPTION(),
        click.Argument(["names"], nargs=-1, metavar="[CONTAINER]..."),
    ],
    help="Show what running containers use, every second; the detached ones of the store if none is named.",
    short_help="Show what running containers use.",
)
top = click.Command(
    "top",
    callback=_top,
    params=[click.Argument(["name"], metavar="CONTAINER")],
    help="Show the processes of a container.",
)
