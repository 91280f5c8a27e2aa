"""``containerlib push``: uploads images."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from containerlib.api.engine import Engine
from containerlib.cli.output import QUIET_OPTION
from containerlib.oci.reference import Reference

if TYPE_CHECKING:
    from containerlib.image.progress import TransferEvent

__all__ = ["push"]

_WORDS = {"exists": "Already exists", "done": "Pushed"}


def _tell(event: TransferEvent) -> None:
    """Print one line for each blob, as Docker does without a terminal."""
    if event.phase in _WORDS:
        click.echo(f"{event.digest.partition(':')[2][:12]}: {_WORDS[event.phase]}", err=True)


def _push(*, name: str, quiet: bool) -> None:
    with Engine() as engine:
        pushed = engine.images.push(name, progress=None if quiet else _tell)
        if not quiet:
            click.echo(f"Digest: {pushed.digest}", err=True)
        click.echo(Reference.parse(name).familiar)


push = click.Command(
    "push",
    callback=_push,
    params=[QUIET_OPTION("Show the image's name only."), click.Argument(["name"], metavar="NAME")],
    help="Upload an image to the registry that its name says; prints its name.",
    short_help="Upload an image.",
)
