"""What commands print: tables for people, one JSON object per line for programs."""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

__all__ = [
    "FORMAT_OPTION",
    "QUIET_OPTION",
    "human_age",
    "human_size",
    "print_json",
    "print_table",
    "short_id",
]

_ID_DIGITS = 12
_THOUSAND = 1000.0
_DAY_S = 86400
# Seconds of a unit, and from how many of it on it is used.
_UNITS = (
    (365 * _DAY_S, 2, "year"),
    (30 * _DAY_S, 2, "month"),
    (7 * _DAY_S, 2, "week"),
    (_DAY_S, 1, "day"),
    (3600, 1, "hour"),
    (60, 1, "minute"),
    (1, 1, "second"),
)


def FORMAT_OPTION() -> click.Option:  # noqa: N802 - a constant, but each command needs its own
    """The option ``--format``."""
    return click.Option(
        ["--format", "style"],
        type=click.Choice(["table", "json"]),
        default="table",
        help="A table, or JSON with one object per line.",
    )


def QUIET_OPTION(text: str = "Show ids only.") -> click.Option:  # noqa: N802 - as above
    """The option ``--quiet``."""
    return click.Option(["-q", "--quiet"], is_flag=True, help=text)


def short_id(text: str) -> str:
    """The first digits of an id, as Docker shows it."""
    return text.rpartition(":")[2][:_ID_DIGITS]


def human_size(size_bytes: int) -> str:
    """A size for people, in powers of 1000 as Docker has it."""
    size = float(size_bytes)
    for unit in ("B", "kB", "MB", "GB"):
        if size < _THOUSAND:
            return f"{size:.3g}{unit}"
        size /= _THOUSAND
    return f"{size:.3g}TB"


def human_age(time_s: float | None) -> str:
    """How long ago a time in seconds since 1970 was; ``N/A`` for None, as Docker has it."""
    if time_s is None:
        return "N/A"
    seconds = max(0, int(time.time() - time_s))
    for length, least, unit in _UNITS:
        number = seconds // length
        if number >= least:
            return f"{number} {unit}{'s' if number > 1 else ''} ago"
    return "now"


def _printable(text: str) -> str:
    """Without control characters: what a container calls itself must not reach the terminal as commands."""
    return "".join(character if character.isprintable() else "?" for character in text)


def print_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print rows below a header: by rich on a terminal, else in columns of any width."""
    cells = [[_printable(cell) for cell in row] for row in rows]
    if sys.stdout.isatty() and _print_rich(header, cells):
        return
    widths = [max(map(len, column)) for column in zip(header, *cells, strict=True)]
    for row in (header, *cells):
        print("   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _print_rich(header: Sequence[str], rows: Iterable[Sequence[str]]) -> bool:
    try:
        from rich.console import Console  # noqa: PLC0415 - costs more than a container
        from rich.table import Table  # noqa: PLC0415
        from rich.text import Text  # noqa: PLC0415
    except ImportError:
        return False
    table = Table(*header, box=None, pad_edge=False, header_style="bold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    Console().print(table)
    return True


def print_json(document: Mapping[str, Any]) -> None:
    """Print one object on one line."""
    print(json.dumps(document))
