"""Which events a caller wants, from arguments to a reader."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from containerlib.api.moments import seconds_of
from containerlib.container.events import EventFilter, EventReader
from containerlib.errors import InvalidOption, InvalidReference
from containerlib.oci.reference import Reference
from containerlib.store.layout import Layout

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Collection, Mapping

__all__ = ["event_reader"]


def event_reader(
    root: str,
    run_root: str,
    *,
    since: dt.datetime | dt.timedelta | None,
    until: dt.datetime | dt.timedelta | None,
    follow: bool,
    types: Collection[str],
    actions: Collection[str],
    containers: Collection[str],
    images: Collection[str],
    labels: Mapping[str, str | None] | None,
) -> EventReader:
    """Begin to read events of a store; see `Engine.events`.

    Raises:
        InvalidOption: A condition is one text instead of a list of texts.
    """
    given = {"types": types, "actions": actions, "containers": containers, "images": images}
    for option, names in given.items():
        if isinstance(names, str):
            raise InvalidOption(option, names, "give a list of texts")
    chosen = EventFilter(
        types=tuple(types),
        actions=tuple(actions),
        containers=tuple(containers),
        images=_with_canonical(images),
        labels=labels or {},
    )
    return EventReader(
        Layout(root, run_root),
        since_s=seconds_of(since),
        until_s=seconds_of(until),
        follow=follow,
        chosen=chosen,
    )


def _with_canonical(images: Collection[str]) -> tuple[str, ...]:
    """Names of images as they may stand in an event: as people write them, and in full."""
    found = []
    for name in images:
        found.append(name)
        with contextlib.suppress(InvalidReference):
            reference = Reference.parse(name)
            found += [reference.familiar, reference.canonical]
    return tuple(found)
