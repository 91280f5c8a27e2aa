"""Finding and removing the control groups of engines that died without cleaning up.

Looks only below the caller's own cgroup and only at directories with our prefix; kills only what is in them.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from attrs import frozen

from containerlib.errors import CgroupError
from containerlib.runtime.cgroup import ENGINE_PREFIX
from containerlib.runtime.cgroup_files import kill_below, open_directory, remove_below, translated, write_at

if TYPE_CHECKING:
    from collections.abc import Callable

    from containerlib.runtime.cgroup_host import CgroupHost

__all__ = ["Orphans", "collect_named", "collect_orphans"]


@frozen
class Orphans:
    """What was found of dead engines.

    Attributes:
        removed: Directories that are gone now.
        left: Directories in which something survived, with the reason in words.
    """

    removed: tuple[str, ...]
    left: tuple[tuple[str, str], ...]

    @property
    def left_engines(self) -> tuple[str, ...]:
        """Ids of the engines of which something is left."""
        return tuple(os.path.basename(path).removeprefix(ENGINE_PREFIX) for path, _ in self.left)


def collect_orphans(host: CgroupHost, is_alive: Callable[[str], bool]) -> Orphans:
    """Kill and remove what dead engines have left in any tree.

    Repeating it is harmless, and so is doing it in several processes at once.

    Args:
        host: From `CgroupHost.probe`.
        is_alive: Tells by engine id whether that engine runs. It must say so from before the engine makes its
            first directory.

    Cost: one directory listing per tree if there is nothing to do.
    """
    removed: list[str] = []
    left: list[tuple[str, str]] = []
    for hierarchy in host.hierarchies():
        try:
            own_fd = open_directory(hierarchy.own_path)
        except FileNotFoundError:
            continue
        try:
            for name in _find_engines(own_fd, is_alive):
                path = f"{hierarchy.own_path}/{name}"
                problem = _collect(own_fd, name, path, is_freezer="freezer" in hierarchy.names)
                if problem is None:
                    removed.append(path)
                else:
                    left.append((path, problem))
        finally:
            os.close(own_fd)
    return Orphans(tuple(removed), tuple(left))


def collect_named(host: CgroupHost, engine_id: str) -> None:
    """Kill and remove what is in the groups of one engine, or detached container, where we would make them.

    Raises:
        CgroupError: Something stays; it can be tried again.

    Cost: an attempt to open a directory for each tree if there is nothing to do.
    """
    name = f"{ENGINE_PREFIX}{engine_id}"
    for hierarchy in host.hierarchies():
        path = f"{hierarchy.own_path}/{name}"
        if os.path.isdir(path):
            own_fd = open_directory(hierarchy.own_path)
            try:
                problem = _collect(own_fd, name, path, is_freezer="freezer" in hierarchy.names)
            finally:
                os.close(own_fd)
            if problem is not None:
                raise CgroupError(f"cannot remove {path!r}: {problem}", controller="", path=path)


def _find_engines(own_fd: int, is_alive: Callable[[str], bool]) -> list[str]:
    with os.scandir(own_fd) as entries:
        names = [
            e.name for e in entries if e.name.startswith(ENGINE_PREFIX) and e.is_dir(follow_symlinks=False)
        ]
    return [name for name in names if not is_alive(name.removeprefix(ENGINE_PREFIX))]


def _collect(own_fd: int, name: str, path: str, *, is_freezer: bool) -> str | None:
    """Empty and remove one engine's directory; say why if that failed."""
    try:
        if remove_below(own_fd, name, is_patient=False):
            return None
        if is_freezer:
            kill_below(own_fd, name, passes=1)
            _thaw_all(own_fd, name)
        if not kill_below(own_fd, name):
            return "processes in it cannot be killed"
        if remove_below(own_fd, name):
            return None
    except OSError as error:
        problem = (
            error if isinstance(error, CgroupError) else translated(error, "remove", controller="", path=path)
        )
        return str(problem)
    return "it stays busy"


def _thaw_all(own_fd: int, name: str) -> None:
    """Let paused containers receive their signal."""
    engine_fd = open_directory(name, dir_fd=own_fd)
    try:
        with os.scandir(engine_fd) as entries:
            containers = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
        for container in containers:
            write_at(engine_fd, f"{container}/freezer.state", "THAWED")
    finally:
        os.close(engine_fd)
