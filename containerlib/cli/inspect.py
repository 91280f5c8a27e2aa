"""``containerlib inspect``: everything about images, as Docker prints it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from containerlib.api.engine import Engine
from containerlib.errors import InvalidReference, NotFoundError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["inspect"]

_FAILED = 1


def _inspect(*, names: Sequence[str], kind: str, style: str | None) -> int:
    """Print what is found as one array; what is not found does not keep the rest."""
    del kind  # there is one so far
    found, problems = [], []
    with Engine() as engine:
        for name in names:
            try:
                found.append(engine.images.get(name).inspect().to_json())
            except (NotFoundError, InvalidReference) as error:
                problems.append(str(error))
    print(json.dumps(found, indent=None if style else 4, separators=(",", ":") if style else None))
    for problem in problems:
        click.echo(f"containerlib: {problem}", err=True)
    return _FAILED if problems else 0


inspect = click.Command(
    "inspect",
    callback=_inspect,
    params=[
        click.Option(
            ["-f", "--format", "style"],
            type=click.Choice(["json"]),
            help="The array on one line; otherwise it is indented.",
        ),
        click.Option(
            ["--type", "kind"],
            type=click.Choice(["image"]),
            default="image",
            help="What the names are names of; images only, so far.",
        ),
        click.Argument(["names"], nargs=-1, required=True, metavar="NAME..."),
    ],
    help="Show everything about images as an array of JSON, in Docker's form.",
    short_help="Show everything about images.",
)
