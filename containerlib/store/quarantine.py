"""Putting aside what is in the way and may still be worth something to somebody."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from containerlib._util.atomic_file import make_directory, move

if TYPE_CHECKING:
    from containerlib.store.layout import Layout

__all__ = ["put_aside"]


def put_aside(layout: Layout, path: str) -> str | None:
    """Move `path` into the quarantine; return its new path, or None if it was not there."""
    make_directory(layout.quarantine)
    target = f"{layout.quarantine}/{os.path.basename(path)[:200]}-{os.urandom(4).hex()}"
    return target if move(path, target) else None
