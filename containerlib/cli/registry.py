"""``containerlib registry``: what there is in registries, copied and removed without pulling it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from containerlib.api.engine import Engine
from containerlib.cli.lazy_group import LazyGroup
from containerlib.cli.output import FORMAT_OPTION, QUIET_OPTION, human_size, print_json, print_table
from containerlib.cli.progress import shown_progress
from containerlib.oci.reference import Reference

if TYPE_CHECKING:
    from containerlib.oci.descriptor import Descriptor

__all__ = ["catalog", "copy", "delete", "registry", "resolve", "tags"]

_COMMANDS = {
    "catalog": "containerlib.cli.registry:catalog",
    "copy": "containerlib.cli.registry:copy",
    "delete": "containerlib.cli.registry:delete",
    "resolve": "containerlib.cli.registry:resolve",
    "serve": "containerlib.cli.serve:serve",
    "tags": "containerlib.cli.registry:tags",
}


def _tags(*, name: str) -> None:
    reference = Reference.parse(name, default_tag=None)
    with Engine() as engine:
        for tag in engine.registry(reference.registry).tags(reference.name):
            click.echo(tag)


def _catalog(*, host: str) -> None:
    with Engine() as engine:
        for repository in engine.registry(host).catalog():
            click.echo(repository)


def _delete(*, name: str) -> None:
    reference = Reference.parse(name, default_tag=None)
    with Engine() as engine:
        engine.registry(reference.registry).delete(reference.canonical)
    click.echo(f"Deleted: {reference.familiar}")


def _copy(*, source: str, target: str, platform: tuple[str, ...], with_referrers: bool, quiet: bool) -> None:
    start, end = Reference.parse(source), Reference.parse(target)
    with Engine() as engine, shown_progress("Copied", quiet=quiet) as progress:
        copied = engine.registry(start.registry).copy(
            start.canonical,
            end.canonical,
            platforms=platform or "all",
            referrers=with_referrers,
            progress=progress,
        )
    if not quiet:
        click.echo(f"Digest: {copied.digest}", err=True)
    click.echo(end.familiar)


def _resolve(*, name: str, style: str, with_referrers: bool) -> None:
    reference = Reference.parse(name)
    with Engine() as engine:
        found = engine.registry(reference.registry)
        target = found.resolve(reference.canonical)
        pinned = f"{reference.name}@{target.digest}"
        shown = [target, *(found.referrers(pinned) if with_referrers else [])]
    if style == "json":
        for entry in shown:
            print_json(entry.to_json())
    else:
        print_table(("DIGEST", "SIZE", "TYPE"), map(_row, shown))


def _row(entry: Descriptor) -> tuple[str, str, str]:
    return str(entry.digest), human_size(entry.size), entry.artifact_type or entry.media_type


def _name(text: str = "NAME") -> click.Argument:
    return click.Argument(["name"], metavar=text)


tags = click.Command(
    "tags", callback=_tags, params=[_name()], help="List the tags of a repository.", short_help="List tags."
)

catalog = click.Command(
    "catalog",
    callback=_catalog,
    params=[click.Argument(["host"], metavar="HOST")],
    help="List the repositories of a registry. Many registries refuse this.",
    short_help="List repositories.",
)

copy = click.Command(
    "copy",
    callback=_copy,
    params=[
        click.Option(
            ["--platform"], metavar="OS/ARCH", multiple=True, help="Only this platform; can be repeated."
        ),
        click.Option(["--referrers", "with_referrers"], is_flag=True, help="Copy what refers to it as well."),
        QUIET_OPTION("Show the new name only."),
        click.Argument(["source"], metavar="SOURCE"),
        click.Argument(["target"], metavar="TARGET"),
    ],
    help="Copy an image from one registry to another, or within one, without pulling it.",
    short_help="Copy an image.",
)

delete = click.Command(
    "delete",
    callback=_delete,
    params=[_name("NAME:TAG|NAME@DIGEST")],
    help="Remove a tag from a registry, or an image with all its tags if a digest is given.",
    short_help="Remove an image or tag.",
)

resolve = click.Command(
    "resolve",
    callback=_resolve,
    params=[
        click.Option(
            ["--referrers", "with_referrers"], is_flag=True, help="Show what refers to the image as well."
        ),
        FORMAT_OPTION(),
        _name(),
    ],
    help="Show what a name means in its registry now.",
    short_help="Show what a name means.",
)

registry = LazyGroup(
    _COMMANDS, name="registry", help="See what registries have.", short_help="Work with registries."
)
