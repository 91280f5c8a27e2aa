"""``containerlib pull``: fetches images."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from containerlib.api.engine import Engine
from containerlib.cli.output import QUIET_OPTION
from containerlib.oci.reference import Reference

if TYPE_CHECKING:
    from containerlib.image.progress import TransferEvent

__all__ = ["pull"]

_WORDS = {"exists": "Already exists", "unpacking": "Unpacking", "done": "Pull complete"}


def _tell(event: TransferEvent) -> None:
    """Print one line for each step of a layer, as Docker does without a terminal."""
    if event.phase in _WORDS:
        click.echo(f"{event.digest.partition(':')[2][:12]}: {_WORDS[event.phase]}", err=True)


def _pull(*, name: str, platform: str | None, quiet: bool) -> None:
    with Engine() as engine:
        image = engine.images.pull(name, platform=platform, progress=None if quiet else _tell)
        reference = Reference.parse(name).familiar
        if not quiet:
            click.echo(f"Digest: {image.digest}", err=True)
        click.echo(reference)


pull = click.Command(
    "pull",
    callback=_pull,
    params=[
        click.Option(["--platform"], metavar="OS/ARCH", help="Which image of several, such as linux/arm64."),
        QUIET_OPTION("Show the image's name only."),
        click.Argument(["name"], metavar="NAME"),
    ],
    help="Fetch an image from its registry; prints its name.",
    short_help="Fetch an image.",
)
