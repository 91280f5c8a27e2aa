"""The check that the host stays as it is finds each way of touching it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from support.untouched import Canary, changed_since

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

TOUCHES: dict[str, Callable[[Path], object]] = {
    "write": lambda place: (place / "a").write_bytes(os.urandom(64)),
    "make": lambda place: (place / "new").touch(),
    "remove": lambda place: (place / "upper/kept").unlink(),
    "mode": lambda place: (place / "sh").chmod(0o755),
    "owner": lambda place: os.chown(place / "etc/passwd", 1, 1),
    "link": lambda place: os.link(place / "a", place.parent / "other"),
    "redirect": lambda place: ((place / "link").unlink(), (place / "link").symlink_to("/etc/passwd")),
    "times": lambda place: os.utime(place / "a", ns=(0, 0)),
}


@pytest.mark.root
@pytest.mark.parametrize("touch", TOUCHES)
def test_touch_is_found(tmp_path: Path, touch: str) -> None:
    """By the canary, and by looking for what has changed."""
    canary = Canary(tmp_path / "canary")
    assert canary.differences() == []
    began = tmp_path / "began"
    began.touch()
    while os.stat(_now(tmp_path)).st_ctime_ns == began.stat().st_ctime_ns:
        pass  # the clock of inodes goes in ticks of some milliseconds
    assert changed_since(began, (str(canary.place),)) == []
    TOUCHES[touch](canary.place)
    assert canary.differences() != []
    assert changed_since(began, (str(canary.place),)) != []


def _now(directory: Path) -> Path:
    """A file that was made this moment."""
    path = directory / "now"
    path.unlink(missing_ok=True)
    path.touch()
    return path
