"""The one temporary directory of a test session, and who else is running tests on this host.

Paths stay short (``/tmp/clt-<pid>-<random>/e1``): unix sockets allow 108 bytes, and overlay options one page.
The process id in the name lets two sessions on one host tell their leftovers apart.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from support.mounts import detach, read_mounts

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "base_directory",
    "close_session",
    "is_own",
    "live_roots",
    "other_sessions",
    "remove_tree",
    "temporary_directory",
    "tracked_root",
]

_PREFIX = "clt-"
_NAME = re.compile(rf"/tmp/{_PREFIX}(\d+)-")
_state: dict[str, Path] = {}
_roots: dict[Path, None] = {}


def base_directory() -> Path:
    """Return the directory of this session; made at the first call, gone after `close_session`."""
    path = _state.get("base")
    if path is None:
        path = _make_directory(f"{_PREFIX}{os.getpid()}-", Path("/tmp"))
        # Processes with mapped user ids have to pass through, and need not list.
        path.chmod(0o711)
        _state["base"] = path
    return path


def _make_directory(prefix: str, parent: Path) -> Path:
    # Hexadecimal: podman makes the name of an image out of a path, and refuses a trailing underscore in it.
    path = parent / f"{prefix}{secrets.token_hex(4)}"
    path.mkdir(mode=0o700)
    return path


@contextlib.contextmanager
def temporary_directory(prefix: str) -> Iterator[Path]:
    """Make a short directory below the base, and remove it with everything in it."""
    path = _make_directory(prefix, base_directory())
    path.chmod(0o711)
    try:
        yield path
    finally:
        remove_tree(path)


@contextlib.contextmanager
def tracked_root(path: Path) -> Iterator[Path]:
    """Have the leak check look below `path` for as long as the context is open."""
    _roots[path] = None
    try:
        yield path
    finally:
        del _roots[path]


def live_roots() -> tuple[Path, ...]:
    """Return the directories that `tracked_root` has open."""
    return tuple(_roots)


def remove_tree(path: Path) -> None:
    """Remove a directory tree, and complain about mounts left in it.

    A mount below `path` is taken away first: removing files through a forgotten bind mount would remove
    them from the host.
    """
    below = [mount.target for mount in read_mounts() if Path(mount.target).is_relative_to(path)]
    for target in reversed(below):
        detach(target)
    shutil.rmtree(path)
    if below:
        raise AssertionError(f"mounts were left in {path}: {', '.join(below)}")


def close_session() -> None:
    """Remove the directory of this session, if there is one."""
    path = _state.pop("base", None)
    if path is not None and path.exists():
        remove_tree(path)


def _ancestors() -> set[int]:
    """Return our own process id and those of our ancestors."""
    pid, found = os.getpid(), set[int]()
    while pid > 0:
        found.add(pid)
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        pid = int(stat.rpartition(")")[2].split()[1])
    return found


def other_sessions() -> frozenset[int]:
    """Return the process ids of other test sessions that are running on this host now.

    A session that started this one, or that this one started, does not count.
    """
    found = {
        int(match[1]) for entry in Path("/tmp").glob(f"{_PREFIX}*-*") if (match := _NAME.match(str(entry)))
    }
    alive = {pid for pid in found - _ancestors() if Path(f"/proc/{pid}").exists()}
    return frozenset(alive)


def is_own(text: str) -> bool | None:
    """Tell whether a path mentions this session's directory (True), another's (False), or none (None).

    Mounts of sessions that were killed are seen by every process of the host, so those do not count.
    """
    owners = {pid for match in _NAME.finditer(text) if Path(f"/proc/{(pid := int(match[1]))}").exists()}
    return os.getpid() in owners if owners else None
