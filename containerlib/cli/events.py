"""``containerlib events``: what happens to the objects of the store."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from containerlib.api.engine import Engine
from containerlib.cli.filters import FILTER_OPTION, Filters
from containerlib.cli.output import print_json
from containerlib.cli.until import parse_until

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["events"]


def _events(
    *, since: str | None, until: str | None, style: str | None, conditions: Sequence[tuple[str, str]]
) -> None:
    filters = Filters(conditions)
    with Engine() as engine:
        stream = engine.events(
            since=None if since is None else parse_until(since, "--since"),
            until=None if until is None else parse_until(until, "--until"),
            types=filters.many("type"),
            actions=filters.many("event"),
            containers=filters.many("container"),
            images=filters.many("image"),
            labels=filters.labels(),
        )
        for event in stream:
            if style == "json":
                print_json(event.to_json())
            else:
                print("".join(c if c.isprintable() else "?" for c in str(event)))
            sys.stdout.flush()


events = click.Command(
    "events",
    callback=_events,
    params=[
        click.Option(["--since"], metavar="TIME", help="From this time on, such as 10m or 2026-01-02."),
        click.Option(["--until"], metavar="TIME", help="Up to this time."),
        FILTER_OPTION("type", "event", "container", "image", "label"),
        click.Option(["--format", "style"], type=click.Choice(["json"]), help="One object per line."),
    ],
    help="Show what happens to images and containers, from now on until it is interrupted.",
    short_help="Show what happens to images and containers.",
)
