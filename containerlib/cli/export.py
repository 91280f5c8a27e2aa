"""``containerlib export``: a root file system as an archive."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from containerlib.api.engine import Engine
from containerlib.errors import ContainerNotFound

if TYPE_CHECKING:
    from containerlib.api.container import Container
    from containerlib.api.image import Image

__all__ = ["export"]


def _export(*, name: str, path: str | None) -> None:
    if path is None and sys.stdout.isatty():
        raise click.UsageError("an archive is nothing for a terminal; give a file with --output, or redirect")
    with Engine() as engine:
        try:
            source: Container | Image = engine.containers.get(name)
        except ContainerNotFound:
            source = engine.images.get(name)
        source.export(sys.stdout.buffer if path is None else path)


export = click.Command(
    "export",
    callback=_export,
    params=[
        click.Option(["-o", "--output", "path"], metavar="FILE", help="Instead of standard output."),
        click.Argument(["name"], metavar="CONTAINER|IMAGE"),
    ],
    help=(
        "Write the root file system of a detached container or of an image as one archive, without layers. "
        "Times later than SOURCE_DATE_EPOCH, if that is set, become it."
    ),
    short_help="Write a root file system as an archive.",
)
