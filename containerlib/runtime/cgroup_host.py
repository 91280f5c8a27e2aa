"""What control groups this host offers to this process, found once per engine.

Reads the mount table and the caller's own place in each hierarchy, and says for every controller where its
directory is and whether it can be used. Makes and changes nothing. In: two texts of /proc. Out: `CgroupHost`.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Final, Literal

from attrs import evolve, field, frozen

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

__all__ = ["CgroupHost", "Controller", "Disk", "Hierarchy", "Mode", "is_limited"]

Mode = Literal["v1", "hybrid", "v2", "none"]

_OCTAL_ESCAPE: Final = re.compile(r"\\([0-7]{3})")
_NEVER_OURS: Final = "name="
_PASSED_ON: Final = "cgroup.subtree_control"
_EXPECTED: Final = frozenset({"memory", "pids"})


@frozen
class Hierarchy:
    """One mounted tree of control groups.

    Attributes:
        version: 1 or 2.
        names: Controllers of this tree, as the kernel spells them; on version 2 those that it can have here.
        mount_point: Where it is mounted.
        own_path: Directory below which ours are made, the caller's own cgroup; empty if it is not in sight.
        own_cgroup: The same as the kernel names it in /proc/self/cgroup.
        problem: Why nothing can be made there, or `None` if it can.
    """

    version: Literal[1, 2]
    names: frozenset[str]
    mount_point: str
    own_path: str
    own_cgroup: str
    problem: str | None


@frozen
class Controller:
    """One controller: the tree it lives in, and why it cannot be used, or `None` if it can."""

    name: str
    hierarchy: Hierarchy
    problem: str | None


class Disk:
    """The questions that the probe asks the file system."""

    def find_problem(self, path: str, device: str, version: int) -> str | None:
        """Say why no directory can be made in `path`, which should lie on `device` (major:minor)."""
        try:
            found = os.stat(path).st_dev
        except OSError as error:
            return f"{path}: {error.strerror}"
        if f"{os.major(found)}:{os.minor(found)}" != device:
            return f"{path} is covered by another mount"
        if os.statvfs(path).f_flag & os.ST_RDONLY:
            return f"{path} is mounted read-only"
        wanted = [path, f"{path}/cgroup.procs"] if version == 2 else [path]  # noqa: PLR2004 (a version)
        for each in wanted:
            if not self.is_writable(each):
                return f"{each} is not writable for user {os.geteuid()}"
        return None

    def is_writable(self, path: str) -> bool:
        """Whether the caller may write there."""
        return os.access(path, os.W_OK, effective_ids=True)

    def read(self, path: str) -> str | None:
        """Read a small file; `None` if it does not exist or must not be read."""
        try:
            with open(path, encoding="utf-8") as file:
                return file.read()
        except OSError:
            return None


@frozen
class _Mount:
    version: Literal[1, 2]
    device: str
    root: str
    mount_point: str
    options: frozenset[str]


@frozen
class CgroupHost:
    """The control groups of this host, as the calling process may use them.

    Attributes:
        mode: ``"v1"``, ``"v2"``, ``"hybrid"`` (both), or ``"none"`` if nothing is usable.
        controllers: By kernel name (``"blkio"`` on version 1, ``"io"`` on version 2), usable or not.
        unified: The tree of version 2, with or without controllers.
        caller: The calling process's place in the tree of version 2, as the kernel names it; empty if it has
            none. Ours need not be made below it.
    """

    mode: Mode
    controllers: Mapping[str, Controller] = field(factory=dict)
    unified: Hierarchy | None = None
    caller: str = ""

    @classmethod
    def probe(
        cls,
        *,
        mountinfo: str | None = None,
        own_cgroups: str | None = None,
        unified_parent: str | None = None,
        disk: Disk | None = None,
    ) -> CgroupHost:
        """Find out which control groups the caller can use.

        On version 2, a cgroup with processes cannot pass controllers on, and the caller's own always has one:
        the caller. So the root is used where the caller may write there, or the nearest ancestor that passes
        ``memory`` and ``pids`` on already, provided that no limit on memory or processors is left behind.

        Args:
            mountinfo: Text in the format of /proc/self/mountinfo, which is read if this is `None`.
            own_cgroups: Text in the format of /proc/self/cgroup, likewise.
            unified_parent: Path in the tree of version 2, such as ``"/containers"``, to be used instead of
                the caller's own cgroup. It should have no processes, so that it can pass controllers on.
            disk: Asked about the directories; the real one by default.

        Returns:
            Always an answer; what is missing is described in the `problem` of a controller.

        Cost: a few dozen system calls; meant to be called once per engine.
        Source: proc(5), cgroups(7), cgroup_namespaces(7).
        """
        disk = disk or Disk()
        mounts = _parse_mounts(_read_proc("mountinfo") if mountinfo is None else mountinfo)
        own = _parse_own(_read_proc("cgroup") if own_cgroups is None else own_cgroups)
        caller = own.get("", "")
        if unified_parent is not None and "" in own:
            own[""] = unified_parent
        controllers: dict[str, Controller] = {}
        unified: Hierarchy | None = None
        if "" in own:
            unified = _find_hierarchy(2, frozenset(), own.pop(""), mounts, disk)
            if unified is not None:
                unified, found = _find_unified_controllers(unified, disk)
                controllers.update(found)
        for joined, path in own.items():
            hierarchy = _find_hierarchy(1, frozenset(joined.split(",")), path, mounts, disk)
            if hierarchy is not None:
                controllers |= {n: Controller(n, hierarchy, hierarchy.problem) for n in hierarchy.names}
        return cls(_choose_mode(controllers, unified), controllers, unified, caller)

    def moved(self, paths: Sequence[str]) -> CgroupHost:
        """Return the same host as a process sees it that has made these directories below its own cgroups.

        Trees without one of `paths` are left out.
        """
        places: dict[Hierarchy, Hierarchy] = {}
        for path in paths:
            fitting = [h for h in self._all() if f"{path}/".startswith(f"{h.mount_point.rstrip('/')}/")]
            if fitting:
                hierarchy = max(fitting, key=lambda h: len(h.mount_point))
                places[hierarchy] = evolve(hierarchy, own_path=os.path.dirname(path), problem=None)
        return CgroupHost(
            self.mode,
            {
                name: evolve(found, hierarchy=places[found.hierarchy])
                for name, found in self.controllers.items()
                if found.hierarchy in places
            },
            None if self.unified is None else places.get(self.unified),
            self.caller,
        )

    def _all(self) -> list[Hierarchy]:
        seen = [c.hierarchy for c in self.controllers.values()]
        return [*seen, self.unified] if self.unified is not None else seen

    def find(self, *names: str) -> Controller | None:
        """Return the first of these controllers that the host has, usable or not."""
        return next((self.controllers[name] for name in names if name in self.controllers), None)

    def hierarchies(self) -> Iterator[Hierarchy]:
        """Yield every usable tree once."""
        yield from (h for h in dict.fromkeys(self._all()) if h.problem is None)


def _read_proc(name: str) -> str:
    with open(f"/proc/self/{name}", encoding="utf-8", errors="surrogateescape") as file:
        return file.read()


def _choose_mode(controllers: Mapping[str, Controller], unified: Hierarchy | None) -> Mode:
    has_v1 = any(c.hierarchy.version == 1 and c.problem is None for c in controllers.values())
    has_v2 = unified is not None and unified.problem is None
    if has_v1:
        return "hybrid" if has_v2 else "v1"
    return "v2" if has_v2 else "none"


def _unescape(text: str) -> str:
    return _OCTAL_ESCAPE.sub(lambda match: chr(int(match[1], 8)), text)


def _parse_mounts(mountinfo: str) -> list[_Mount]:
    """Keep the cgroup mounts, with their octal escapes resolved."""
    mounts = []
    for line in mountinfo.splitlines():
        left, separator, right = line.partition(" - ")
        fields, kind = left.split(" "), right.split(" ")
        if not separator or kind[0] not in ("cgroup", "cgroup2"):
            continue
        mounts.append(
            _Mount(
                version=2 if kind[0] == "cgroup2" else 1,
                device=fields[2],
                root=_unescape(fields[3]),
                mount_point=_unescape(fields[4]),
                options=frozenset(kind[2].split(",")),
            )
        )
    return mounts


def _parse_own(own_cgroups: str) -> dict[str, str]:
    """Map "cpu,cpuacct" to the caller's path in that tree; "" stands for version 2."""
    own: dict[str, str] = {}
    for line in own_cgroups.splitlines():
        number, _, rest = line.partition(":")
        names, _, path = rest.partition(":")
        if (names or number == "0") and not names.startswith(_NEVER_OURS):
            own[names] = path
    return own


def _find_hierarchy(
    version: Literal[1, 2], names: frozenset[str], path: str, mounts: list[_Mount], disk: Disk
) -> Hierarchy | None:
    """Return the best mount of a tree: a usable one, else one with the reason why not, else `None`."""
    best: Hierarchy | None = None
    for mount in mounts:
        if mount.version != version or not names <= mount.options:
            continue
        own_path, problem = _locate(mount, path)
        if problem is None:
            problem = disk.find_problem(own_path, mount.device, version)
        if best is None or problem is None:
            best = Hierarchy(version, names, mount.mount_point, own_path, path, problem)
        if problem is None:
            break
    return best


def _locate(mount: _Mount, path: str) -> tuple[str, str | None]:
    """Return the directory of cgroup `path` below a mount, or the reason why there is none."""
    if path.endswith(" (deleted)"):
        return "", f"the caller's own cgroup {path!r} has been removed"
    if "/.." in (path[:3], mount.root[:3]):
        return "", f"the caller's own cgroup is outside the cgroup namespace of {mount.mount_point}"
    root = mount.root.rstrip("/")
    if path != root and not path.startswith(f"{root}/"):
        return "", f"{mount.mount_point} shows {mount.root!r}, but the caller's own cgroup is {path!r}"
    return (mount.mount_point.rstrip("/") + path[len(root) :]).rstrip("/"), None


def _find_unified_controllers(unified: Hierarchy, disk: Disk) -> tuple[Hierarchy, dict[str, Controller]]:
    """Say for each controller of version 2 whether directories of ours can have it."""
    available = _words(disk, unified, "cgroup.controllers")
    is_blocked = unified.problem is None and _has_processes(disk, unified)
    has_passed = _words(disk, unified, _PASSED_ON) >= _EXPECTED
    is_threaded = unified.problem is None and _is_threaded(disk, unified)
    if is_threaded or (is_blocked and available >= _EXPECTED and not has_passed):
        unified = _climb(unified, disk)
        # Only the root may be changed: it is exempt. A slice belongs to whoever made it.
        is_blocked = not _is_root(disk, unified)
        available = _words(disk, unified, "cgroup.controllers")
    unified = evolve(unified, names=available)
    if is_threaded and _is_threaded(disk, unified):
        reason = f"{unified.own_path} is threaded: no group below it can hold processes"
        unified = evolve(unified, problem=reason)
    passed_on = _words(disk, unified, _PASSED_ON)
    controllers = {}
    for name in available:
        problem: str | None = unified.problem
        if problem is None and is_blocked and name not in passed_on:
            problem = (
                f"{unified.own_path} does not pass {name!r} on to its children"
                " (name an empty delegated cgroup as parent)"
            )
        controllers[name] = Controller(name, unified, problem)
    return unified, controllers


def _words(disk: Disk, unified: Hierarchy, file: str) -> frozenset[str]:
    return (
        frozenset((disk.read(f"{unified.own_path}/{file}") or "").split())
        if unified.own_path
        else frozenset()
    )


def _is_root(disk: Disk, unified: Hierarchy) -> bool:
    return disk.read(f"{unified.own_path}/cgroup.type") is None


def _is_threaded(disk: Disk, unified: Hierarchy) -> bool:
    """Whether groups below this one can hold threads only. Source: cgroup-v2.rst of the kernel, Threads."""
    return (disk.read(f"{unified.own_path}/cgroup.type") or "domain").strip() != "domain"


def _has_processes(disk: Disk, unified: Hierarchy) -> bool:
    """Whether the rule against processes in inner cgroups forbids to pass controllers on.

    It must not even be tried: the kernel accepts the threaded controllers (cpu, pids), and then no child can
    have processes.
    """
    return not _is_root(disk, unified) and disk.read(f"{unified.own_path}/cgroup.procs") != ""


def _climb(unified: Hierarchy, disk: Disk) -> Hierarchy:
    """Return the tree with an ancestor as own cgroup that passes controllers on, else as it is.

    That is the root, which has all controllers and may be told to pass on any; where it is not to be had, the
    nearest one. No limit is left behind on the way.
    """
    here, nearest = unified, unified
    while (
        here.own_path != here.mount_point and here.own_cgroup != "/" and not is_limited(disk, here.own_path)
    ):
        above = os.path.dirname(here.own_path)
        here = evolve(here, own_path=above, own_cgroup=os.path.dirname(here.own_cgroup))
        if not (disk.is_writable(above) and disk.is_writable(f"{above}/cgroup.procs")):
            continue
        if _is_root(disk, here):
            return here
        can_hold = not _is_threaded(disk, here) and _words(disk, here, _PASSED_ON) >= _EXPECTED
        if nearest is unified and can_hold:
            nearest = here
    return nearest


def is_limited(disk: Disk, directory: str) -> bool:
    """Whether this very cgroup of version 2 limits memory or processors."""
    return any(
        (disk.read(f"{directory}/{file}") or free).split()[:1] != free.split()
        for file, free in (("memory.max", "max"), ("memory.high", "max"), ("cpu.max", "max"))
    ) or bool((disk.read(f"{directory}/cpuset.cpus") or "").strip())
