"""``containerlib export``: a root file system as an archive."""

from __future__ import annotations

import sys

import click

from containerlib.api.engine import Engine

__all__ = ["export"]


def _export(*, name: str, path: str | None) -> None:
    if path is None and sys.stdout.isatty():
        raise click.UsageError("an archive is nothing for a terminal; give a file with --output, or redirect")
    with Engine() as engine:
        engine.images.get(name).export(sys.stdout.buffer if path is None else path)


export = click.Command(
    "export",
    callback=_export,
    params=[
        click.Option(["-o", "--output", "path"], metavar="FILE", help="Instead of standard output."),
        click.Argument(["name"], metavar="IMAGE"),
    ],
    help=(
        "Write the root file system of an image as one tar archive, without layers. "
        "Docker's command takes containers; here it takes images so far, and will take containers, too. "
        "Times later than SOURCE_DATE_EPOCH, if that is set, become it."
    ),
    short_help="Write a root file system as an archive.",
)
