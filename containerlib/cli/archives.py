"""``containerlib save``, ``load`` and ``import``: images in and out of files."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from containerlib.api.engine import Engine
from containerlib.cli.output import QUIET_OPTION
from containerlib.image.config_change import changed
from containerlib.oci.image_config import Config
from containerlib.oci.reference import Reference
from containerlib.runtime.signals import parse_signal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from containerlib.image.archive_save import SaveFormat
    from containerlib.layer.compress import Compression

__all__ = ["import_", "load", "save"]


def _save(
    *, names: Sequence[str], path: str | None, style: SaveFormat, compression: Compression | None
) -> None:
    if path is None and style == "oci-directory":
        raise click.UsageError("--format oci-directory writes a directory; name it with --output")
    if path is None and sys.stdout.isatty():
        raise click.UsageError("an archive is nothing for a terminal; give a file with --output, or redirect")
    with Engine() as engine:
        out = sys.stdout.buffer if path is None else path
        engine.images.save(names, out, format=style, compression=compression)


def _load(*, path: str | None, platform: str | None, quiet: bool) -> None:
    del quiet  # as Docker's: it silences progress only, and there is none
    if path is None and sys.stdin.isatty():
        raise click.UsageError("an archive does not come from a terminal; give a file with --input")
    with Engine() as engine:
        source = sys.stdin.buffer if path is None else path
        for image in engine.images.load(source, platform=platform):
            for name in image.references:
                print(f"Loaded image: {Reference.parse(name).familiar}")
            if not image.references:
                print(f"Loaded image ID: {image.id}")


def _import(
    *, file: str, name: str | None, changes: Sequence[str], message: str, platform: str | None
) -> None:
    config = changed(Config(), changes)
    if config.stop_signal:
        parse_signal(config.stop_signal)
    with Engine() as engine:
        source = sys.stdin.buffer if file == "-" else file
        image = engine.images.from_tar(
            source, config=config, reference=name, comment=message, platform=platform
        )
        print(image.id)


save = click.Command(
    "save",
    callback=_save,
    params=[
        click.Option(["-o", "--output", "path"], metavar="FILE", help="Instead of standard output."),
        click.Option(
            ["--format", "style"],
            type=click.Choice(["docker", "oci", "oci-directory"]),
            default="docker",
            help="What docker save writes, an archive of an OCI layout, or a layout's directory.",
        ),
        click.Option(
            ["--compress", "compression"],
            type=click.Choice(["none", "gzip", "zstd"]),
            help="Write layers anew; without it they, and the digests, stay as they are.",
        ),
        click.Argument(["names"], nargs=-1, required=True, metavar="IMAGE..."),
    ],
    help="Write images into one archive that containerlib, docker, podman and skopeo can load.",
    short_help="Write images into an archive.",
)
load = click.Command(
    "load",
    callback=_load,
    params=[
        click.Option(
            ["-i", "--input", "path"], metavar="FILE", help="An archive or an OCI layout directory."
        ),
        click.Option(["--platform"], metavar="OS/ARCH", help="Which images of several, such as linux/arm64."),
        QUIET_OPTION("Changes nothing: no progress is shown."),
    ],
    help="Load all images of an archive, from standard input if no file is named.",
    short_help="Load images from an archive.",
)
import_ = click.Command(
    "import",
    callback=_import,
    params=[
        click.Option(
            ["-c", "--change", "changes"],
            multiple=True,
            metavar="INSTRUCTION",
            help="An instruction of a Dockerfile: CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, USER, VOLUME, "
            "WORKDIR, STOPSIGNAL.",
        ),
        click.Option(["-m", "--message"], metavar="TEXT", default="", help="Goes into the image's history."),
        click.Option(["--platform"], metavar="OS/ARCH", help="What the image is for; this host if left out."),
        click.Argument(["file"], metavar="FILE|-"),
        click.Argument(["name"], metavar="[NAME]", required=False),
    ],
    help="Make an image of the archive of a root file system; '-' is standard input. Prints its id.",
    short_help="Make an image of a root file system.",
)
