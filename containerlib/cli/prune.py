"""``containerlib prune`` and ``containerlib image prune``: remove what nobody uses, after asking."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from containerlib.api.engine import Engine
from containerlib.cli.output import human_size
from containerlib.cli.prune_filters import parse_filters
from containerlib.oci.reference import Reference

if TYPE_CHECKING:
    from collections.abc import Sequence

    from containerlib.image.prune import PruneReport

__all__ = ["PRUNE_OPTIONS", "image_prune", "prune"]

_CANCELLED = 1
_DANGLING = "all images without a name"
_ALL = "all images without at least one container"


def _ask(what: Sequence[str], *, force: bool) -> bool:
    """Say whether the user wants `what` to be removed."""
    if force:
        return True
    if not sys.stdin.isatty():
        raise click.UsageError("this removes things and nobody can be asked: give --force")
    click.echo("WARNING! This will remove:\n" + "".join(f"  - {line}\n" for line in what), err=True)
    if click.confirm("Are you sure you want to continue?", err=True):
        return True
    click.echo("containerlib: nothing was removed", err=True)
    return False


def _print_images(report: PruneReport) -> None:
    if report.deleted:
        print("Deleted Images:")
        for name in report.untagged:
            print(f"untagged: {Reference.parse(name).familiar}")
        for image_id in report.deleted:
            print(f"deleted: {image_id}")
        print()


def _image_prune(*, every: bool, force: bool, filters: Sequence[str]) -> int:
    chosen = parse_filters(filters, ("until", "label", "dangling"))
    if chosen.dangling is not None:
        if every and chosen.dangling:
            raise click.UsageError("--all and --filter dangling=true contradict each other")
        every = not chosen.dangling
    if not _ask([_ALL if every else _DANGLING], force=force):
        return _CANCELLED
    with Engine() as engine:
        report = engine.images.prune(
            all=every,
            until=chosen.until,
            labels=chosen.labels,
            without_labels=chosen.without_labels,
        )
    _print_images(report)
    print(f"Total reclaimed space: {human_size(report.freed_bytes)}")
    return 0


def _prune(*, every: bool, force: bool, filters: Sequence[str]) -> int:
    chosen = parse_filters(filters, ("until", "label"))
    what = ["all containers that do not run", _ALL if every else _DANGLING]
    if not _ask([*what, "what processes that died have left"], force=force):
        return _CANCELLED
    with Engine() as engine:
        report = engine.prune(
            all=every,
            until=chosen.until,
            labels=chosen.labels,
            without_labels=chosen.without_labels,
        )
    if report.containers:
        print("Deleted Containers:", *report.containers, "", sep="\n")
    _print_images(report.images)
    print(f"Total reclaimed space: {human_size(report.freed_bytes)}")
    return 0


def PRUNE_OPTIONS(names: str) -> list[click.Parameter]:  # noqa: N802 - a constant, but each needs its own
    """The options of a command that prunes, with the names of its filters."""
    return [
        click.Option(["-a", "--all", "every"], is_flag=True, help="Also images with names."),
        click.Option(["-f", "--force"], is_flag=True, help="Do not ask."),
        click.Option(
            ["--filter", "filters"], multiple=True, metavar="NAME=VALUE", help=f"Only what matches: {names}."
        ),
    ]


image_prune = click.Command(
    "prune",
    callback=_image_prune,
    params=PRUNE_OPTIONS("until=24h, label=NAME[=VALUE], label!=NAME[=VALUE], dangling=false"),
    help="Remove images that no container uses: those without a name, or all.\n\n"
    "An image is as old as the time since it was pulled, made or named here.",
    short_help="Remove images that no container uses.",
)


prune = click.Command(
    "prune",
    callback=_prune,
    params=PRUNE_OPTIONS("until=24h, label=NAME[=VALUE], label!=NAME[=VALUE]"),
    help="Remove containers that do not run, images that no container uses, and what is left of processes "
    "that died.",
    short_help="Remove what nobody uses.",
)
