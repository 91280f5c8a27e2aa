"""``containerlib inspect``: everything about containers and images, as Docker prints it."""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING

import click

from containerlib.api.engine import Engine
from containerlib.errors import InvalidReference, NotFoundError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["container_inspect", "image_inspect", "inspect"]

_FAILED = 1


def _inspect(*, names: Sequence[str], kind: str | None, style: str | None) -> int:
    """Print what is found as one array; what is not found does not keep the rest."""
    found, problems = [], []
    with Engine() as engine:
        for name in names:
            try:
                found.append(_look(engine, name, kind))
            except (NotFoundError, InvalidReference) as error:
                problems.append(str(error))
    print(json.dumps(found, indent=None if style else 4, separators=(",", ":") if style else None))
    for problem in problems:
        click.echo(f"containerlib: {problem}", err=True)
    return _FAILED if problems else 0


def _look(engine: Engine, name: str, kind: str | None) -> dict[str, object]:
    """A container if there is one of that name, otherwise an image."""
    if kind != "image":
        try:
            return engine.containers.get(name).inspect().to_json()
        except NotFoundError:
            if kind == "container":
                raise
    try:
        return engine.images.get(name).inspect().to_json()
    except (NotFoundError, InvalidReference) as error:
        if kind == "image":
            raise
        raise NotFoundError(f"there is neither a container nor an image {name!r}: {error}") from None


def _command(what: str, *options: click.Parameter, callback: Callable[..., int]) -> click.Command:
    style = click.Option(
        ["-f", "--format", "style"],
        type=click.Choice(["json"]),
        help="The array on one line; otherwise it is indented.",
    )
    names = click.Argument(["names"], nargs=-1, required=True, metavar="NAME...")
    return click.Command(
        "inspect",
        callback=callback,
        params=[style, *options, names],
        help=f"Show everything about {what} as an array of JSON, in Docker's form.",
        short_help=f"Show everything about {what}.",
    )


inspect = _command(
    "containers and images",
    click.Option(
        ["--type", "kind"],
        type=click.Choice(["container", "image"]),
        help="What the names are names of; otherwise of containers before images.",
    ),
    callback=_inspect,
)
container_inspect = _command("containers", callback=partial(_inspect, kind="container"))
image_inspect = _command("images", callback=partial(_inspect, kind="image"))
