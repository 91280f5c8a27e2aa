"""``containerlib pull``: fetches images."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from containerlib.api.engine import Engine
from containerlib.cli.output import QUIET_OPTION, print_json
from containerlib.cli.progress import STYLE_OPTION, shown_progress
from containerlib.oci.reference import Reference

if TYPE_CHECKING:
    from containerlib.cli.progress import Style

__all__ = ["pull"]


def _pull(*, name: str, platform: str | None, quiet: bool, style: Style) -> None:
    with Engine() as engine, shown_progress("Pull complete", quiet=quiet, style=style) as progress:
        image = engine.images.pull(name, platform=platform, progress=progress)
    reference = Reference.parse(name).familiar
    if style == "json":
        print_json({"reference": reference, "digest": image.digest, "id": image.id})
        return
    if not quiet:
        click.echo(f"Digest: {image.digest}", err=True)
    click.echo(reference)


pull = click.Command(
    "pull",
    callback=_pull,
    params=[
        click.Option(["--platform"], metavar="OS/ARCH", help="Which image of several, such as linux/arm64."),
        QUIET_OPTION("Show the image's name only."),
        STYLE_OPTION(),
        click.Argument(["name"], metavar="NAME"),
    ],
    help="Fetch an image from its registry; prints its name.",
    short_help="Fetch an image.",
)
