"""``containerlib ps``: the containers of every process that uses the store."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

import attrs
import click

from containerlib.api.engine import Engine
from containerlib.cli.output import FORMAT_OPTION, QUIET_OPTION, human_age, print_json, print_table, short_id
from containerlib.container.listing import list_records
from containerlib.store.layout import Layout

if TYPE_CHECKING:
    from containerlib.container.listing import ContainerRecord

__all__ = ["ps"]

_HEADER = ("CONTAINER ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "NAMES")
_COMMAND_WIDTH = 40


def _ps(*, all_states: bool, style: str, quiet: bool) -> None:
    with Engine() as engine:
        records = list_records(Layout(engine.root, engine.run_root))
    shown = [record for record in reversed(records) if all_states or record.state.is_alive]
    if quiet:
        print("".join(f"{short_id(record.id)}\n" for record in shown), end="")
    elif style == "json":
        for record in shown:
            print_json(attrs.asdict(record))
    else:
        print_table(_HEADER, [_row(record) for record in shown])


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
    help="List the running containers of all processes that use this store.",
)
