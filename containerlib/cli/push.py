"""``containerlib push``: uploads images."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from containerlib.api.engine import Engine
from containerlib.cli.output import QUIET_OPTION, print_json
from containerlib.cli.progress import STYLE_OPTION, shown_progress
from containerlib.oci.reference import Reference

if TYPE_CHECKING:
    from containerlib.cli.progress import Style

__all__ = ["push"]


def _push(*, name: str, quiet: bool, style: Style) -> None:
    with Engine() as engine, shown_progress("Pushed", quiet=quiet, style=style) as progress:
        pushed = engine.images.push(name, progress=progress)
    reference = Reference.parse(name).familiar
    if style == "json":
        print_json({"reference": reference, "digest": pushed.digest})
        return
    if not quiet:
        click.echo(f"Digest: {pushed.digest}", err=True)
    click.echo(reference)


push = click.Command(
    "push",
    callback=_push,
    params=[
        QUIET_OPTION("Show the image's name only."),
        STYLE_OPTION(),
        click.Argument(["name"], metavar="NAME"),
    ],
    help="Upload an image to the registry that its name says; prints its name.",
    short_help="Upload an image.",
)
