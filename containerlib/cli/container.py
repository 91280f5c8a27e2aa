"""``containerlib container``: the commands about containers, in one group as Docker has them."""

from __future__ import annotations

from containerlib.cli.group import place_of
from containerlib.cli.lazy_group import LazyGroup

__all__ = ["container"]

_SAME = (
    *("attach", "commit", "cp", "create", "diff", "exec", "export", "kill", "logs", "pause", "rename"),
    *("restart", "rm", "run", "start", "stats", "stop", "top", "unpause", "update", "wait"),
)
_PLACES = {
    "inspect": "containerlib.cli.inspect:container_inspect",
    "ls": place_of("ps"),
    "prune": "containerlib.cli.prune:container_prune",
    **{name: place_of(name) for name in _SAME},
}

container = LazyGroup(
    name="container",
    places={name: place for name, place in sorted(_PLACES.items()) if place is not None},
    help="Everything about containers; each command is the one of the same name without 'container'.",
    short_help="Everything about containers.",
)
