"""``containerlib image``: the commands about images, in one group as Docker has them."""

from __future__ import annotations

from containerlib.cli.group import place_of
from containerlib.cli.lazy_group import LazyGroup

__all__ = ["image"]

_SAME = ("export", "history", "import", "load", "pull", "push", "save", "tag")
_PLACES = {
    "inspect": "containerlib.cli.inspect:image_inspect",
    "ls": "containerlib.cli.images:ls",
    "prune": "containerlib.cli.prune:image_prune",
    "rm": place_of("rmi"),
    **{name: place_of(name) for name in _SAME},
}

image = LazyGroup(
    name="image",
    places={name: place for name, place in sorted(_PLACES.items()) if place is not None},
    help="Everything about images; each command is the one of the same name without 'image'.",
    short_help="Everything about images.",
)
