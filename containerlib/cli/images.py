"""``containerlib images``: lists, makes, names and removes images."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from containerlib.api.engine import Engine
from containerlib.cli.output import FORMAT_OPTION, QUIET_OPTION, human_size, print_json, print_table, short_id
from containerlib.cli.prune import image_prune
from containerlib.errors import ConflictError, InvalidInputError, NotFoundError
from containerlib.oci.reference import Reference

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from containerlib.api.image import Image

__all__ = ["images", "remove", "tag"]

_NONE = "<none>"


def _print_images(*, style: str, quiet: bool) -> None:
    with Engine() as engine:
        found = engine.images.list()
    if quiet:
        print("".join(f"{short_id(image.id)}\n" for image in found), end="")
    elif style == "json":
        for image in found:
            print_json(_describe(image))
    else:
        rows = [(*names, *_row(image)) for image in found for names in _names(image)]
        print_table(("REPOSITORY", "TAG", "IMAGE ID", "SIZE", "LAYERS"), rows)


def _names(image: Image) -> list[tuple[str, str]]:
    """Repository and tag of each name."""
    parsed = [Reference.parse(name) for name in image.references]
    return [(each.familiar_name, each.tag or _NONE) for each in parsed] or [(_NONE, _NONE)]


def _row(image: Image) -> tuple[str, str, str]:
    return short_id(image.id), human_size(image.size_bytes), str(len(image.layers))


def _describe(image: Image) -> dict[str, Any]:
    return {
        "id": image.id,
        "digest": image.digest,
        "references": list(image.references),
        "size_bytes": image.size_bytes,
        "layers": [str(layer.digest) for layer in image.layers],
    }


def _images(*, style: str, quiet: bool) -> None:
    if click.get_current_context().invoked_subcommand is None:
        _print_images(style=style, quiet=quiet)


def _from_host(*, programs: Sequence[str], name: str | None) -> None:
    with Engine() as engine:
        print(engine.images.from_host(programs or None, reference=name).id)


def _from_directory(*, path: str, name: str | None) -> None:
    with Engine() as engine:
        print(engine.images.from_directory(path, reference=name).id)


def _from_tar(*, file: str, name: str | None) -> None:
    with Engine() as engine:
        source = sys.stdin.buffer if file == "-" else file
        print(engine.images.from_tar(source, reference=name).id)


def _remove(*, names: Sequence[str], force: bool) -> int:
    """Remove what can be removed; one that cannot does not keep the others."""
    failed = 0
    with Engine() as engine:
        for name in names:
            try:
                removed = engine.images.remove(name, force=force)
            except (NotFoundError, ConflictError, InvalidInputError) as error:
                click.echo(f"containerlib: {error}", err=True)
                failed = 125
                continue
            for reference in removed.untagged:
                print(f"Untagged: {Reference.parse(reference).familiar}")
            for image_id in removed.deleted:
                print(f"Deleted: {image_id}")
    return failed


def _tag(*, source: str, target: str) -> None:
    with Engine() as engine:
        engine.images.tag(source, target)


def _making(
    name: str, action: Callable[..., None], help_text: str, argument: click.Argument
) -> click.Command:
    reference = click.Option(["-t", "--tag", "name"], metavar="NAME", help="Name of the image.")
    return click.Command(name, callback=action, params=[reference, argument], help=help_text)


remove = click.Command(
    "rm",
    callback=_remove,
    params=[
        click.Option(["-f", "--force"], is_flag=True, help="Remove an image by its id with all its names."),
        click.Argument(["names"], nargs=-1, required=True, metavar="NAME..."),
    ],
    help="Remove names, and with its last name the image.",
    short_help="Remove images.",
)
tag = click.Command(
    "tag",
    callback=_tag,
    params=[
        click.Argument(["source"], metavar="IMAGE"),
        click.Argument(["target"], metavar="NAME"),
    ],
    help="Give an image a further name; another image that has the name loses it.",
    short_help="Give an image a further name.",
)
images = click.Group(
    "images",
    callback=_images,
    invoke_without_command=True,
    params=[FORMAT_OPTION(), QUIET_OPTION()],
    help="List images, or make, name and remove them.",
    commands=[
        click.Command(
            "ls", callback=_print_images, params=[FORMAT_OPTION(), QUIET_OPTION()], help="List images."
        ),
        _making(
            "from-host",
            _from_host,
            "Make an image of programs of this host with their libraries; a small userland if none is named.",
            click.Argument(["programs"], nargs=-1, metavar="[PROGRAM]..."),
        ),
        _making(
            "from-directory",
            _from_directory,
            "Make an image of a directory tree.",
            click.Argument(["path"], metavar="DIR"),
        ),
        _making(
            "from-tar",
            _from_tar,
            "Make an image of a tar archive of a root file system; '-' is standard input.",
            click.Argument(["file"], metavar="FILE|-"),
        ),
        image_prune(),
        remove,
        tag,
    ],
)
