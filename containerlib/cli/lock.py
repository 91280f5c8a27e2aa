"""``containerlib lock``: notes what names mean now."""

from __future__ import annotations

import click

from containerlib.api.engine import Engine
from containerlib.oci.reference import Reference

__all__ = ["lock"]


def _lock(*, names: tuple[str, ...], platforms: tuple[str, ...], path: str | None) -> None:
    with Engine() as engine:
        locked = engine.images.lock(names, path=path, platforms=platforms or None)
    for image in locked:
        for platform, digest in image.platforms.items():
            click.echo(f"{Reference.parse(image.reference).familiar} {platform} {digest}")


lock = click.Command(
    "lock",
    callback=_lock,
    params=[
        click.Option(
            ["--platform", "platforms"],
            metavar="OS/ARCH",
            multiple=True,
            help="Lock the image for this platform only; may be repeated.",
        ),
        click.Option(
            ["-f", "--file", "path"],
            metavar="FILE",
            help="The lock file; that of --lock-file if not given, otherwise images.lock.",
        ),
        click.Argument(["names"], metavar="NAME...", nargs=-1, required=True),
    ],
    help="Note in a lock file which images names mean now, for each platform; prints them. "
    "Names that the file has already and that are not given stay as they are.",
    short_help="Note which images names mean now.",
)
