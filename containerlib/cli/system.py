"""``containerlib system``: how much room the store takes, whether it is in order, and what can go."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs
import click

from containerlib.api.engine import Engine
from containerlib.cli.output import FORMAT_OPTION, human_age, human_size, print_json, print_table, short_id
from containerlib.cli.prune import prune
from containerlib.oci.reference import Reference

if TYPE_CHECKING:
    from collections.abc import Sequence

    from containerlib.container.disk_usage import DiskUsage
    from containerlib.image.usage import ImageUsage
    from containerlib.store.damage import Damage

__all__ = ["system"]

_DAMAGED = 1
_NONE = "<none>"


def _df(*, style: str, verbose: bool) -> None:
    with Engine() as engine:
        usage = engine.disk_usage()
    if style == "json":
        for document in _documents(usage, verbose=verbose):
            print_json(document)
        return
    print_table(
        ("TYPE", "TOTAL", "ACTIVE", "SIZE", "RECLAIMABLE"),
        [
            (row["type"], str(row["total"]), str(row["active"]), human_size(row["size_bytes"]), _share(row))
            for row in _documents(usage, verbose=False)
        ],
    )
    if verbose:
        _print_details(usage)


def _documents(usage: DiskUsage, *, verbose: bool) -> list[dict[str, Any]]:
    """What is printed as JSON, one object per kind of thing."""
    images, containers = usage.images.images, usage.containers
    found: list[dict[str, Any]] = [
        {
            "type": "Images",
            "total": len(images),
            "active": sum(image.is_active for image in images),
            "size_bytes": usage.images.size_bytes,
            "reclaimable_bytes": usage.images.reclaimable_bytes,
        },
        {
            "type": "Containers",
            "total": len(containers),
            "active": sum(container.state.is_alive for container in containers),
            "size_bytes": usage.containers_bytes,
            "reclaimable_bytes": usage.containers_reclaimable_bytes,
        },
        {
            "type": "Local Volumes",
            "total": len(usage.volumes),
            "active": 0,
            "size_bytes": sum(volume.size_bytes for volume in usage.volumes),
            "reclaimable_bytes": 0,
        },
        {
            "type": "Leftovers",
            "total": 0,
            "active": 0,
            "size_bytes": usage.images.unneeded_bytes,
            "reclaimable_bytes": usage.images.unneeded_bytes,
        },
    ]
    if verbose:
        found[0]["images"] = [attrs.asdict(image) for image in images]
        found[1]["containers"] = [attrs.asdict(container) for container in containers]
    return found


def _share(row: dict[str, Any]) -> str:
    size, part = int(row["size_bytes"]), int(row["reclaimable_bytes"])
    return f"{human_size(part)} ({100 * part // size}%)" if size else human_size(part)


def _print_details(usage: DiskUsage) -> None:
    print("\nImages space usage:\n")
    print_table(
        ("REPOSITORY", "TAG", "IMAGE ID", "SET", "SIZE", "SHARED SIZE", "UNIQUE SIZE", "CONTAINERS"),
        [row for image in usage.images.images for row in _image_rows(image)],
    )
    print("\nContainers space usage:\n")
    print_table(
        ("CONTAINER ID", "IMAGE", "SIZE", "STATE", "NAME"),
        [
            (short_id(one.id), one.image, human_size(one.size_bytes), str(one.state), one.name)
            for one in usage.containers
        ],
    )


def _image_rows(image: ImageUsage) -> list[tuple[str, ...]]:
    parsed = [Reference.parse(name) for name in image.references]
    names = [(each.familiar_name, each.tag or _NONE) for each in parsed] or [(_NONE, _NONE)]
    rest = (
        short_id(image.id),
        human_age(image.set_at),
        human_size(image.size_bytes),
        human_size(image.shared_bytes),
        human_size(image.unique_bytes),
        str(image.containers),
    )
    return [(*name, *rest) for name in names]


def _check(*, style: str, deep: bool, mend: bool, forget: bool) -> int:
    if forget and not mend:
        raise click.UsageError("--forget needs --repair")
    with Engine() as engine:
        if not mend:
            found: Sequence[Damage] = engine.check(deep=deep)
            pull_again: Sequence[str] = ()
        else:
            report = engine.repair(deep=deep, forget=forget)
            found, pull_again = report.left, report.pull_again
            _print_found(report.mended, style, "mended")
            click.echo(f"containerlib: {human_size(report.freed_bytes)} freed", err=True)
    _print_found(found, style, "found")
    for name in pull_again:
        click.echo(f"containerlib: pull or make again: {name}", err=True)
    if not found:
        click.echo("containerlib: the store is in order", err=True)
    return _DAMAGED if any(not damage.is_leftover for damage in found) else 0


def _print_found(found: Sequence[Damage], style: str, state: str) -> None:
    for damage in found:
        if style == "json":
            print_json({"state": state, **attrs.asdict(damage)})
        else:
            needs = f" (needed by {', '.join(damage.images)})" if damage.images else ""
            print(f"{state}: {damage.kind}: {damage.path!r}: {damage.reason}{needs}; remedy: {damage.remedy}")


def _recover(*, style: str, restart: bool) -> int:
    with Engine() as engine:
        report = engine.recover(restart=restart)
    if style == "json":
        print_json(attrs.asdict(report))
    else:
        for word in ("engines", "ended", "lost", "started"):
            for name in getattr(report, word):
                print(f"{_RECOVERED[word]}: {name}")
    for name, reason in report.failed:
        click.echo(f"containerlib: {name} was not started: {reason}", err=True)
    return 1 if report.failed else 0


_RECOVERED = {
    "engines": "cleaned up after engine",
    "ended": "ended with its engine",
    "lost": "ended, nobody knows how",
    "started": "started",
}


system = click.Group(
    "system",
    help="Look after the store.",
    commands=[
        click.Command(
            "df",
            callback=_df,
            params=[
                FORMAT_OPTION(),
                click.Option(["-v", "--verbose"], is_flag=True, help="Also each image and container."),
            ],
            help="Show how much room the store takes, and how much pruning would free.",
        ),
        click.Command(
            "check",
            callback=_check,
            params=[
                FORMAT_OPTION(),
                click.Option(["--deep"], is_flag=True, help="Read each byte; takes long."),
                click.Option(["--repair", "mend"], is_flag=True, help="Mend what can be mended."),
                click.Option(
                    ["--forget"],
                    is_flag=True,
                    help="With --repair: remove names of images that cannot be made whole.",
                ),
            ],
            help="Look for damage. The exit code is 1 if there is some (left).",
        ),
        prune,
        click.Command(
            "recover",
            callback=_recover,
            params=[
                FORMAT_OPTION(),
                click.Option(
                    ["--restart/--no-restart"], default=True, help="Start what is to run. The default."
                ),
            ],
            help="Put things right after a reboot: clean up, and start containers as their policies say.",
        ),
    ],
)
