"""``containerlib images``: lists, makes, names and removes images."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from containerlib.api.engine import Engine
from containerlib.cli.filters import FILTER_OPTION, Filters
from containerlib.cli.output import (
    FORMAT_OPTION,
    QUIET_OPTION,
    human_age,
    human_size,
    print_json,
    print_table,
    short_id,
)
from containerlib.errors import ConflictError, InvalidInputError, NotFoundError
from containerlib.oci import timestamp
from containerlib.oci.reference import Reference

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from containerlib.api.image import Image

__all__ = ["images", "ls", "remove", "tag"]

_NONE = "<none>"


def _print_images(
    *,
    style: str,
    quiet: bool,
    conditions: Sequence[tuple[str, str]],
    no_trunc: bool,
    digests: bool,
    name: str | None = None,
    every: bool = True,
) -> None:
    del every  # there are no others
    found = _find(Filters(conditions), name)
    if quiet:
        print("".join(f"{_shown_id(image, no_trunc=no_trunc)}\n" for image in found), end="")
    elif style == "json":
        for image in found:
            print_json(_describe(image))
    else:
        header = ("REPOSITORY", "TAG", *(("DIGEST",) if digests else ()), "IMAGE ID", "CREATED", "SIZE")
        rows = [
            (*names, *((image.digest,) if digests else ()), *_row(image, no_trunc=no_trunc))
            for image in found
            for names in _names(image)
        ]
        print_table(header, rows)


def _find(filters: Filters, name: str | None) -> list[Image]:
    """The images that meet all conditions; a name is one more pattern, which every tag of it matches."""
    with Engine() as engine:
        found = engine.images.list(
            reference=filters.many("reference"),
            dangling=filters.flag("dangling"),
            labels=filters.labels(),
            before=filters.one("before"),
            since=filters.one("since"),
        )
        if name is None:
            return found
        named = {image.digest: image for image in engine.images.list(reference=name)}
    return [named[image.digest] for image in found if image.digest in named]


def _names(image: Image) -> list[tuple[str, str]]:
    """Repository and tag of each name."""
    parsed = [Reference.parse(name) for name in image.references]
    return [(each.familiar_name, each.tag or _NONE) for each in parsed] or [(_NONE, _NONE)]


def _shown_id(image: Image, *, no_trunc: bool) -> str:
    return image.id if no_trunc else short_id(image.id)


def _row(image: Image, *, no_trunc: bool) -> tuple[str, str, str]:
    age = human_age(None if image.created is None else image.created.timestamp())
    return _shown_id(image, no_trunc=no_trunc), age, human_size(image.size_bytes)


def _describe(image: Image) -> dict[str, Any]:
    return {
        "id": image.id,
        "digest": image.digest,
        "references": list(image.references),
        "created": None if image.created is None else timestamp.text(image.created),
        "size_bytes": image.size_bytes,
        "layers": [str(layer.digest) for layer in image.layers],
    }


def _images(**options: Any) -> None:
    if click.get_current_context().invoked_subcommand is None:
        _print_images(**options)


def _list_options() -> list[click.Parameter]:
    return [
        click.Option(["-a", "--all", "every"], is_flag=True, help="Changes nothing: all images are shown."),
        click.Option(["--digests"], is_flag=True, help="Show digests, too."),
        FILTER_OPTION("reference", "dangling", "label", "before", "since"),
        FORMAT_OPTION(),
        click.Option(["--no-trunc"], is_flag=True, help="Whole ids."),
        QUIET_OPTION(),
    ]


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
ls = click.Command(
    "ls",
    callback=_print_images,
    params=[*_list_options(), click.Argument(["name"], required=False, metavar="[NAME[:TAG]]")],
    help="List images, or those with a name that matches.",
    short_help="List images.",
)
images = click.Group(
    "images",
    callback=_images,
    invoke_without_command=True,
    params=_list_options(),
    help="List images, or make, name and remove them.",
    commands=[
        ls,
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
        remove,
        tag,
    ],
)
