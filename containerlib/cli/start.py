"""``containerlib start``: containers that do not run, one of them with our streams if that is asked for."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from containerlib.api.engine import Engine
from containerlib.cli.attach import DETACH_KEYS_OPTION, AttachedStreams, Detached, keys_of
from containerlib.cli.containers import for_each
from containerlib.cli.foreground import Foreground, leaving_on_signals
from containerlib.container.attach import written_before
from containerlib.errors import InvalidState

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from containerlib.api.container import Container

__all__ = ["start"]

_UNKNOWN = 125


def _start(*, names: Sequence[str], attached: bool, interactive: bool, detach_keys: str) -> int:
    keys = keys_of(detach_keys)
    if not attached and not interactive:
        return for_each(names, lambda container: container.start())
    if len(names) != 1:
        raise click.UsageError("--attach and --interactive are for one container")
    with leaving_on_signals(), Engine() as engine:
        return _run(engine.containers.get(names[0]), has_input=interactive, keys=keys)


def _run(container: Container, *, has_input: bool, keys: bytes) -> int:
    """Start it, show what it writes from its first byte on, and return its exit code."""
    with Foreground() as loop:
        container.start()
        try:
            streams = container.attach(logs=True)
        except InvalidState:
            # It has ended already, and everything is in its log.
            status = container.wait()
            _show(written_before(container.entry))
        else:
            _show(streams.earlier)
            try:
                with AttachedStreams(loop, streams, has_input=has_input, keys=keys):
                    found = loop.wait(container)
            except Detached:
                return 0
            status = container.wait() if found is None else found
    return _UNKNOWN if status.exit_code is None else status.exit_code


def _show(pieces: Iterable[tuple[str, bytes]]) -> None:
    for stream, data in pieces:
        view = memoryview(data)
        while view:
            view = view[os.write(2 if stream == "stderr" else 1, view) :]


start = click.Command(
    "start",
    callback=_start,
    params=[
        click.Option(
            ["-a", "--attach", "attached"], is_flag=True, help="Show what it writes, give its code."
        ),
        click.Option(["-i", "--interactive"], is_flag=True, help="Pass our input on as well."),
        DETACH_KEYS_OPTION(),
        click.Argument(["names"], nargs=-1, required=True, metavar="CONTAINER..."),
    ],
    help="Start containers that do not run.",
)
