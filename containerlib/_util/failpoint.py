"""Named points in front of every durable step, where a test can make this process fail or die.

Nothing happens there otherwise: the cost is one comparison.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

__all__ = ["Hook", "reach", "set_hook"]

Hook: TypeAlias = Callable[[str, str], None]
"""Called with the name of the step that comes next, and the path that it is about."""

_hook: Hook | None = None


def set_hook(hook: Hook | None) -> None:
    """Call `hook` at every point from now on; None ends that."""
    global _hook  # noqa: PLW0603 - there is one disk, and one process that writes to it
    _hook = hook


def reach(step: str, path: str) -> None:
    """Say that `step` on `path` comes next."""
    if _hook is not None:
        _hook(step, path)
