"""Ids and names of containers."""

from __future__ import annotations

import os

__all__ = ["new_id", "new_name"]

_FIRST = (
    "amber",
    "bold",
    "brave",
    "bright",
    "calm",
    "clever",
    "cosy",
    "crisp",
    "eager",
    "fair",
    "fancy",
    "gentle",
    "happy",
    "jolly",
    "keen",
    "kind",
    "lively",
    "lucky",
    "merry",
    "mild",
    "neat",
    "noble",
    "proud",
    "quick",
    "quiet",
    "shiny",
    "swift",
    "tidy",
    "vivid",
    "warm",
    "wise",
    "witty",
)
_SECOND = (
    "badger",
    "bear",
    "beaver",
    "bison",
    "crane",
    "deer",
    "dolphin",
    "eagle",
    "falcon",
    "finch",
    "fox",
    "gecko",
    "hare",
    "heron",
    "ibis",
    "koala",
    "lark",
    "lynx",
    "marten",
    "mole",
    "newt",
    "otter",
    "owl",
    "panda",
    "puffin",
    "raven",
    "robin",
    "seal",
    "stork",
    "tern",
    "wolf",
    "wren",
)


def new_id() -> str:
    """A container id: 64 random hexadecimal digits."""
    return os.urandom(32).hex()


def new_name(container_id: str) -> str:
    """A name that people can say, derived from the id so that it needs no lookup."""
    number = int(container_id[:8], 16)
    first, second = _FIRST[number % len(_FIRST)], _SECOND[number // len(_FIRST) % len(_SECOND)]
    return f"{first}_{second}_{container_id[:4]}"
