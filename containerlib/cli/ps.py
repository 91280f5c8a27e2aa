"""``containerlib ps``: the containers of every process that uses the store."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

import attrs
import click

from containerlib.api.engine import Engine
from containerlib.cli.output import FORMAT_OPTION, QUIET_OPTION, human_age, print_json, print_table, short_id
from containerlib.container.listing import ContainerRecord, list_records
from containerlib.store.layout import Layout

if TYPE_CHECKING:
    from containerlib.api.container import Container

__all__ = ["ps"]

_HEADER = ("CONTAINER ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "NAMES")
_COMMAND_WIDTH = 40


def _ps(*, all_states: bool, style: str, quiet: bool) -> None:
    with Engine() as engine:
        records = list_records(Layout(engine.root, engine.run_root))
        # An engine that has just been opened has no others.
        records += map(_detached, engine.containers.list())
        records.sort(key=lambda record: (record.created_at, record.id))
    shown = [record for record in reversed(records) if all_states or record.state.is_alive]
    if quiet:
        print("".join(f"{short_id(record.id)}\n" for record in shown), end="")
    elif style == "json":
        for record in shown:
            print_json(attrs.asdict(record))
    else:
        print_table(_HEADER, [_row(record) for record in shown])


def _detached(container: Container) -> ContainerRecord:
    entry, status = container.entry, container.exit_status
    return ContainerRecord(
        id=entry.id,
        name=entry.name,
        image=entry.image_name,
        command=entry.config.args,
        state=entry.state,
        created_at=int(entry.created_at),
        exit_code=None if status is None or entry.state.is_alive else status.exit_code,
        labels=entry.config.labels,
        engine_id="",
    )


def _row(record: ContainerRecord) -> tuple[str, ...]:
    command = shlex.join(record.command)
    if len(command) > _COMMAND_WIDTH:
        command = f"{command[: _COMMAND_WIDTH - 3]}..."
    image = short_id(record.image) if record.image.startswith("sha256:") else record.image
    status = str(record.state)
    if record.exit_code is not None:
        status += f" ({record.exit_code})"
    return short_id(record.id), image, command, human_age(record.created_at), status, record.name


ps = click.Command(
    "ps",
    callback=_ps,
    params=[
        click.Option(["-a", "--all", "all_states"], is_flag=True, help="Those that do not run as well."),
        QUIET_OPTION(),
        FORMAT_OPTION(),
    ],
    help="List the running containers of all processes that use this store, and its detached ones.",
)
