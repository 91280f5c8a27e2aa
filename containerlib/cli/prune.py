"""``containerlib prune``, also of images or containers alone: remove what nobody uses, after asking."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from containerlib.api.engine import Engine
from containerlib.cli.filters import FILTER_OPTION, Filters
from containerlib.cli.output import human_size
from containerlib.cli.until import parse_until
from containerlib.oci.reference import Reference

if TYPE_CHECKING:
    from collections.abc import Sequence

    from containerlib.image.prune import PruneReport

__all__ = ["container_prune", "image_prune", "network_prune", "prune"]

_CANCELLED = 1
_DANGLING = "all images without a name"
_NETWORKS = "all networks that no container is in"
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


def _chosen(filters: Filters) -> dict[str, Any]:
    """What the filters say, as arguments of the library."""
    until = filters.one("until")
    return {
        "until": None if until is None else parse_until(until),
        "labels": filters.labels(),
        "without_labels": filters.labels("label!"),
    }


def _image_prune(*, every: bool, force: bool, conditions: Sequence[tuple[str, str]]) -> int:
    filters = Filters(conditions)
    chosen, dangling = _chosen(filters), filters.flag("dangling")
    if dangling is not None:
        if every and dangling:
            raise click.UsageError("--all and --filter dangling=true contradict each other")
        every = not dangling
    if not _ask([_ALL if every else _DANGLING], force=force):
        return _CANCELLED
    with Engine() as engine:
        report = engine.images.prune(all=every, **chosen)
    _print_images(report)
    print(f"Total reclaimed space: {human_size(report.freed_bytes)}")
    return 0


def _prune(*, every: bool, force: bool, conditions: Sequence[tuple[str, str]]) -> int:
    chosen = _chosen(Filters(conditions))
    what = ["all containers that do not run", _NETWORKS, _ALL if every else _DANGLING]
    if not _ask([*what, "what processes that died have left"], force=force):
        return _CANCELLED
    with Engine() as engine:
        report = engine.prune(all=every, **chosen)
    if report.containers:
        print("Deleted Containers:", *report.containers, "", sep="\n")
    _print_networks(report.networks)
    _print_images(report.images)
    print(f"Total reclaimed space: {human_size(report.freed_bytes)}")
    return 0


def _print_networks(names: Sequence[str]) -> None:
    """Say which networks were removed, as Docker does."""
    if names:
        print("Deleted Networks:", *names, "", sep="\n")


def _network_prune(*, force: bool, conditions: Sequence[tuple[str, str]]) -> int:
    chosen = _chosen(Filters(conditions))
    if not _ask([_NETWORKS], force=force):
        return _CANCELLED
    with Engine() as engine:
        _print_networks(engine.networks.prune(**chosen))
    return 0


def _container_prune(*, force: bool) -> int:
    if not _ask(["all containers that do not run"], force=force):
        return _CANCELLED
    with Engine() as engine:
        removed = engine.containers.prune()
    if removed:
        print("Deleted Containers:", *removed, "", sep="\n")
    return 0


def _options(*filters: str) -> list[click.Parameter]:
    return [
        click.Option(["-a", "--all", "every"], is_flag=True, help="Also images with names."),
        click.Option(["-f", "--force"], is_flag=True, help="Do not ask."),
        FILTER_OPTION(*filters, short=False),
    ]


image_prune = click.Command(
    "prune",
    callback=_image_prune,
    params=_options("until", "label", "label!", "dangling"),
    help="Remove images that no container uses: those without a name, or all.\n\n"
    "An image is as old as the time since it was pulled, made or named here.",
    short_help="Remove images that no container uses.",
)
container_prune = click.Command(
    "prune",
    callback=_container_prune,
    params=[click.Option(["-f", "--force"], is_flag=True, help="Do not ask.")],
    help="Remove detached containers that do not run.",
)
network_prune = click.Command(
    "prune",
    callback=_network_prune,
    params=[
        click.Option(["-f", "--force"], is_flag=True, help="Do not ask."),
        FILTER_OPTION("until", "label", "label!", short=False),
    ],
    help="Remove the networks that no container is in.",
)
prune = click.Command(
    "prune",
    callback=_prune,
    params=_options("until", "label", "label!"),
    help="Remove containers that do not run, networks and images that none uses, and what is left of "
    "processes that died.",
    short_help="Remove what nobody uses.",
)
