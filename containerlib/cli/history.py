"""``containerlib history``: how an image was made."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from containerlib.api.engine import Engine
from containerlib.cli.output import (
    FORMAT_OPTION,
    QUIET_OPTION,
    human_age,
    human_size,
    print_json,
    print_table,
    short_id,
)

if TYPE_CHECKING:
    from containerlib.image.history import HistoryEntry

__all__ = ["history"]

_HEADER = ("IMAGE", "CREATED", "CREATED BY", "SIZE", "COMMENT")
_MISSING = "<missing>"
_WIDTH = 45


def _history(*, name: str, style: str, quiet: bool, no_trunc: bool) -> None:
    with Engine() as engine:
        image = engine.images.get(name)
        entries = image.history()
    top = image.id if no_trunc else short_id(image.id)
    # Only the last step is an image of its own; what the others made exists in it alone.
    ids = [top if number == 0 else _MISSING for number in range(len(entries))]
    if quiet:
        print("".join(f"{text}\n" for text in ids), end="")
    elif style == "json":
        for entry in entries:
            print_json(entry.to_json())
    else:
        print_table(_HEADER, [_row(text, entry, no_trunc) for text, entry in zip(ids, entries, strict=True)])


def _row(text: str, entry: HistoryEntry, no_trunc: bool) -> tuple[str, ...]:  # noqa: FBT001 - as the option
    command = " ".join(entry.created_by.split())
    if len(command) > _WIDTH and not no_trunc:
        command = f"{command[: _WIDTH - 1]}…"
    age = human_age(None if entry.created is None else entry.created.timestamp())
    return text, age, command, human_size(entry.size_bytes), entry.comment


history = click.Command(
    "history",
    callback=_history,
    params=[
        FORMAT_OPTION(),
        QUIET_OPTION(),
        click.Option(["--no-trunc"], is_flag=True, help="Whole commands and ids."),
        click.Argument(["name"], metavar="IMAGE"),
    ],
    help="Show how an image was made, the newest step first, with the size of each layer.",
    short_help="Show how an image was made.",
)
