"""The control group hierarchies of this host: version 1, version 2, or both at once."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from support.mounts import read_mounts

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Hierarchy", "hierarchies", "named_directories", "try_write"]


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """One mounted hierarchy.

    Attributes:
        mountpoint: Where it is mounted.
        own: Directory of the group that this process is in.
        version: 1 or 2.
        controllers: Controllers attached here; names of version 1, ``cgroup.controllers`` of version 2.
    """

    mountpoint: Path
    own: Path
    version: int
    controllers: frozenset[str]


def _own_groups() -> dict[frozenset[str], str]:
    """Map the controllers of each hierarchy to our path in it; version 2 has the empty set."""
    groups = {}
    for line in Path("/proc/self/cgroup").read_text(encoding="ascii").splitlines():
        _number, names, path = line.split(":", 2)
        groups[frozenset(names.split(",")) - {""}] = path
    return groups


def hierarchies() -> list[Hierarchy]:
    """List every hierarchy once, however often it is mounted."""
    groups = _own_groups()
    found: dict[str, Hierarchy] = {}
    for mount in read_mounts():
        if mount.fstype not in {"cgroup", "cgroup2"} or mount.device in found:
            continue
        names = frozenset[str]() if mount.fstype == "cgroup2" else mount.super_options
        path = next((path for key, path in groups.items() if key <= names and bool(key) == bool(names)), None)
        if path is None:
            continue
        relative = os.path.relpath(path, mount.root)
        own = Path(mount.target) if relative.startswith("..") else Path(mount.target, relative)
        version = 2 if mount.fstype == "cgroup2" else 1
        controllers = _controllers(own) if version == 2 else names - {"rw", "ro"}
        found[mount.device] = Hierarchy(Path(mount.target), own, version, controllers)
    return list(found.values())


def _controllers(directory: Path) -> frozenset[str]:
    """Read which controllers of version 2 a group may use."""
    try:
        return frozenset((directory / "cgroup.controllers").read_text(encoding="ascii").split())
    except OSError:
        return frozenset()


def try_write(directory: Path) -> str | None:
    """Make and remove a child group; return why that failed, or None."""
    probe = directory / f"clt-probe-{os.getpid()}"
    try:
        probe.mkdir()
        probe.rmdir()
    except OSError as error:
        return f"{directory}: {error.strerror}"
    return None


def named_directories(prefix: str) -> Iterator[tuple[str, Path]]:
    """Yield every group whose name starts with `prefix` and all groups below it, in all hierarchies.

    Each comes with its path from the named group on, which is the same in all hierarchies.
    """
    for hierarchy in hierarchies():
        for parent, names, _files in os.walk(hierarchy.mountpoint):
            for name in names:
                parts = Path(parent, name).relative_to(hierarchy.mountpoint).parts
                start = next((index for index, part in enumerate(parts) if part.startswith(prefix)), None)
                if start is not None:
                    yield "/".join(parts[start:]), Path(parent, name)
