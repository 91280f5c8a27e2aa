"""Control groups of an engine and of its containers, made before the clone, in few system calls.

The engine has one directory per tree, made on first use; each container has one below it, in those trees only
that it needs. What a set of limits means on this host is worked out once and remembered. In: `CgroupHost` and
`Resources`. Out: `ContainerCgroup` with descriptors for the spawner.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import threading
from typing import TYPE_CHECKING, Final, Literal

from containerlib.errors import CgroupError, InvalidOption, UnsupportedHost
from containerlib.runtime.cgroup_container import CgroupUsage, ContainerCgroup, Place, Step
from containerlib.runtime.cgroup_files import read_at, remove_below, translated
from containerlib.runtime.cgroup_limits import asked_controllers, check_against_host, translate
from containerlib.runtime.cgroup_v1 import BranchV1, write_devices
from containerlib.runtime.cgroup_v2 import BranchV2
from containerlib.runtime.device_program import compile_bpf, load_and_attach
from containerlib.runtime.device_rules import ALLOW_ALL, DEFAULT_RULES, denies

if TYPE_CHECKING:
    from collections.abc import Sequence

    from containerlib.options import Resources
    from containerlib.runtime.cgroup_host import CgroupHost, Controller, Hierarchy
    from containerlib.runtime.cgroup_limits import Setting, Version
    from containerlib.runtime.device_program import BpfSyscall
    from containerlib.runtime.device_rules import DeviceRule

__all__ = ["ENGINE_PREFIX", "CgroupUsage", "ContainerCgroup", "EngineCgroup"]

ENGINE_PREFIX: Final = "containerlib-"

_NAME: Final = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,199}")
_MOST_PLANS: Final = 64
_ALIASES: Final = {"io": ("io", "blkio")}
_FILES: Final = {
    "memory": "memory.max or memory.limit_in_bytes",
    "pids": "pids.max",
    "cpu": "cpu.max or cpu.cfs_quota_us",
    "cpuset": "cpuset.cpus",
    "io": "io.max or blkio.throttle.*",
}


class EngineCgroup:
    """The control groups of one engine. Made by `create`; thread-safe; to be closed.

    Attributes:
        name: Name of the engine's directory in every tree.
        device_problem: Why the default device rules are not enforced, or `None` if they are. Known after
            `spawner_join_fds` or the first `make`. Without them, take ``CAP_MKNOD`` away and mount ``nodev``.
    """

    def __init__(self, host: CgroupHost, engine_id: str, bpf_syscall: BpfSyscall | None) -> None:
        self.name = f"{ENGINE_PREFIX}{engine_id}"
        self.device_problem: str | None = None
        self._host = host
        self._bpf_syscall = bpf_syscall
        self._lock = threading.RLock()
        self._branches: dict[Hierarchy, BranchV1 | BranchV2] = {}
        self._former: list[BranchV1 | BranchV2] = []
        self._problems: dict[str, str | None] = {}
        self._files: dict[tuple[str, str], bool] = {}
        self._plans: dict[Resources, tuple[Step, ...]] = {}
        self._devices: Literal["unknown", "v1", "program", "nothing"] = "unknown"
        self._deferred: list[tuple[Place, str]] = []

    @classmethod
    def create(
        cls, host: CgroupHost, engine_id: str, *, bpf_syscall: BpfSyscall | None = None
    ) -> EngineCgroup:
        """Return the control groups of an engine. Nothing is made before it is needed.

        Args:
            host: From `CgroupHost.probe`.
            engine_id: Unique among running engines; letters, digits and ``_.-``.
            bpf_syscall: Makes bpf(2) calls, needed on version 2 only.

        Raises:
            InvalidOption: The id has other characters.
        """
        _check_name("engine_id", engine_id)
        return cls(host, engine_id, bpf_syscall)

    def spawner_join_fds(self) -> list[int]:
        """Open the ``tasks`` files that the spawner joins at launch, by writing ``"0"`` into each.

        Every container starts with the default device rules by inheriting from the spawner. The caller closes
        the descriptors. Empty where nothing has to be joined.
        """
        with self._lock:
            self._prepare_devices()
            if self._devices != "v1":
                return []
            branch = self._devices_branch()
            return [branch.open_default_tasks()]

    def make(
        self, container_id: str, resources: Resources, *, devices: Sequence[DeviceRule] = DEFAULT_RULES
    ) -> ContainerCgroup:
        """Make the control groups of a container and set its limits, before it is cloned.

        Args:
            container_id: Name of the directories; must not be in use in this engine.
            resources: The limits.
            devices: All device rules, from the first, and not only those beyond the defaults.

        Returns:
            With descriptors open; close it after the clone, remove it after the end.

        Raises:
            InvalidOption: A value that this host could never grant.
            UnsupportedHost: A limit that was asked for needs a controller or file which is missing, not
                writable, or not passed on. Nothing was made.
            CgroupError: The id is in use, or the kernel refused a value. What was made is removed.

        Cost: with default resources, three directories and eight further system calls on a hybrid host.
        """
        _check_name("container_id", container_id)
        try:
            return self._make(container_id, resources, devices)
        except CgroupError as error:
            if error.errno != errno.ENOENT or not self._forget_removed():
                raise
        # Somebody has removed our directories: nothing was in them, so they are made anew.
        return self._make(container_id, resources, devices)

    def _make(
        self, container_id: str, resources: Resources, devices: Sequence[DeviceRule]
    ) -> ContainerCgroup:
        steps = self._plans.get(resources) or self.plan(resources)
        is_special = devices is not DEFAULT_RULES and tuple(devices) != DEFAULT_RULES
        if self._devices == "unknown":
            with self._lock:
                self._prepare_devices()
        if is_special and self._devices == "nothing" and denies(devices):
            raise UnsupportedHost(
                "denying devices",
                needed="the cgroup controller 'devices', or cgroup v2 and the right to load device programs",
                found=self.device_problem or "neither",
            )
        cgroup = ContainerCgroup(self, container_id, resources)
        try:
            for step in steps:
                place = step.place
                if is_special and place.prefix:
                    place = Place(place.branch, place.branch.fd)
                cgroup.enter(place, step.settings)
            if is_special:
                self._set_devices(cgroup, devices)
        except BaseException:
            cgroup.close()
            cgroup.remove()
            raise
        return cgroup

    def reopen(self, container_id: str, resources: Resources) -> ContainerCgroup | None:
        """Return the control groups of a container that another process has made; `None` if it has none.

        Args:
            container_id: Name of the directories.
            resources: The limits in force.

        Cost: a look for each tree.
        """
        cgroup = ContainerCgroup(self, container_id, resources)
        for hierarchy in self._host.hierarchies():
            # Nothing is made: whoever removes the container at this moment would leave it behind.
            with self._lock, contextlib.suppress(FileNotFoundError):
                self._branch(hierarchy, create=False)
            branch = self._branches.get(hierarchy)
            if branch is None:
                continue
            cgroup.find(Place(branch, branch.fd))
            if isinstance(branch, BranchV2) and branch.find_default_devices():
                cgroup.find(Place(branch, branch.default_fd, branch.default_prefix))
        return cgroup if cgroup.is_any else None

    def _forget_removed(self) -> bool:
        """Forget the directories that somebody else has removed; say whether there were any."""
        with self._lock:
            gone = [each for each in self._branches.values() if each.is_removed]
            for branch in gone:
                del self._branches[branch.hierarchy]
            self._former += gone  # containers that were there still name its descriptor
            if gone:
                self._plans.clear()
                self._problems.clear()
                if any(branch.version != 1 for branch in gone) and self._devices == "program":
                    self._devices = "unknown"
            return bool(gone)

    def retry_removals(self) -> int:
        """Try again to remove what was busy. Returns how many directories are still left."""
        with self._lock:
            waiting, self._deferred = self._deferred, []
            self._deferred += [
                (place, name) for place, name in waiting if not remove_below(place.fd, name, is_patient=False)
            ]
            return len(self._deferred)

    def kill(self) -> None:
        """Kill everything in the engine's directories."""
        with self._lock:
            for branch in self._branches.values():
                branch.kill()

    def close(self) -> list[str]:
        """Remove the engine's directories and close all descriptors. Containers must be removed before.

        Returns:
            Paths of directories that stay, as a rule because something still runs there, for
            `collect_orphans` of a later engine.
        """
        with self._lock:
            self._release_former()
            branches, self._branches = self._branches, {}
            self._plans.clear()
            self._problems.clear()
            self._deferred.clear()
            self._devices = "unknown"
            return [f"{b.hierarchy.own_path}/{b.name}" for b in branches.values() if not _closes(b)]

    def release(self) -> None:
        """Close all descriptors and leave everything as it is: somebody else's containers may be in it."""
        with self._lock:
            self._release_former()
            branches, self._branches = self._branches, {}
            self._plans.clear()
            for branch in branches.values():
                branch.release()

    def _release_former(self) -> None:
        former, self._former = self._former, []
        for branch in former:
            branch.release()

    def directories(self) -> tuple[str, ...]:
        """Return the absolute paths of the engine's directories that exist so far."""
        with self._lock:
            return tuple(f"{b.hierarchy.own_path}/{b.name}" for b in self._branches.values())

    def plan(self, resources: Resources) -> tuple[Step, ...]:
        """Return what has to be made for these limits, in order; remembered per value.

        Raises:
            InvalidOption: A value that this host could never grant.
            UnsupportedHost: A limit that was asked for cannot be set here.
        """
        with self._lock:
            self._prepare_devices()
            for controller, option in asked_controllers(resources):
                problem = self._problem(controller)
                if problem is not None:
                    file = _FILES.get(controller, f"{controller}.*")
                    raise UnsupportedHost(
                        f"{option}={getattr(resources, option)!r}",
                        needed=f"the cgroup controller {controller!r} (file {file})",
                        found=f"none that is usable ({problem}); leave the option out to run without",
                    )
            self._check_processors(resources)
            steps = self._group(translate(resources, self))
            if not _names_devices(resources):
                if len(self._plans) >= _MOST_PLANS:
                    self._plans.clear()
                self._plans[resources] = steps
            return steps

    def version(self, controller: str) -> Version | None:
        """Return the version under which a controller can be used, `None` if it cannot."""
        found = self._find(controller)
        return found.hierarchy.version if found is not None and self._problem(controller) is None else None

    def has_file(self, controller: str, file: str) -> bool:
        """Whether cgroups below the caller's own have this file."""
        key = (controller, file)
        if key not in self._files:
            found = self._find(controller)
            if found is None or self._problem(controller) is not None:
                return False
            self._files[key] = os.access(file, os.F_OK, dir_fd=self._branch(found.hierarchy).fd)
        return self._files[key]

    def freezer(self) -> Place | None:
        """Return the place for freezing on version 1, `None` if there is none."""
        with self._lock:
            if self.version("freezer") != 1:
                return None
            branch = self._branch(self._host.controllers["freezer"].hierarchy)
            return Place(branch, branch.fd)

    def defer_removal(self, place: Place, name: str) -> None:
        """Remember a directory that is still busy, for `retry_removals`."""
        with self._lock:
            self._deferred.append((place, name))

    def _find(self, controller: str) -> Controller | None:
        return self._host.find(*_ALIASES.get(controller, (controller,)))

    def _problem(self, controller: str) -> str | None:
        """Say why a controller cannot be used, having made the engine's directory to be certain."""
        if controller not in self._problems:
            self._problems[controller] = self._find_problem(controller)
        return self._problems[controller]

    def _find_problem(self, controller: str) -> str | None:
        found = self._find(controller)
        if found is None:
            return "the kernel does not offer it, or it is not mounted"
        if found.problem is not None:
            return found.problem
        try:
            branch = self._branch(found.hierarchy)
            if isinstance(branch, BranchV2):
                branch.enable(found.name)
        except OSError as error:
            return f"{found.hierarchy.own_path}: {error.strerror}"
        return None

    def _branch(self, hierarchy: Hierarchy, *, create: bool = True) -> BranchV1 | BranchV2:
        branch = self._branches.get(hierarchy)
        if branch is None:
            make = BranchV1 if hierarchy.version == 1 else BranchV2
            branch = self._branches[hierarchy] = make(hierarchy, self.name, create=create)
        return branch

    def _check_processors(self, resources: Resources) -> None:
        cpus = mems = None
        if resources.cpuset_cpus is not None or resources.cpuset_mems is not None:
            branch = self._branch(self._host.controllers["cpuset"].hierarchy)
            suffix = "" if branch.version == 1 else ".effective"
            cpus, mems = (read_at(branch.fd, f"cpuset.{what}{suffix}") for what in ("cpus", "mems"))
        check_against_host(resources, cpu_count=os.cpu_count() or 1, cpus=cpus, mems=mems)

    def _group(self, settings: tuple[Setting, ...]) -> tuple[Step, ...]:
        """Collect settings by tree: version 2 first, and memory even without a limit, because it counts."""
        grouped: dict[Hierarchy, list[Setting]] = {}
        unified = self._host.unified
        if unified is not None and unified.problem is None:
            grouped[unified] = []
        for controller in ("memory", *(setting.controller for setting in settings)):
            found = self._find(controller)
            if found is not None and self._problem(controller) is None:
                grouped.setdefault(found.hierarchy, [])
        for setting in settings:
            found = self._find(setting.controller)
            if found is not None:
                grouped[found.hierarchy].append(setting)
        return tuple(Step(self._place(hierarchy), tuple(each)) for hierarchy, each in grouped.items())

    def _place(self, hierarchy: Hierarchy) -> Place:
        branch = self._branch(hierarchy)
        if isinstance(branch, BranchV2):
            return Place(branch, branch.default_fd, branch.default_prefix)
        return Place(branch, branch.fd)

    def _prepare_devices(self) -> None:
        """Put the default device rules in force where they can be, once."""
        if self._devices != "unknown":
            return
        unified = self._host.unified
        try:
            if self._problem("devices") is None:
                self._devices_branch().prepare_default_devices()
                self._devices = "v1"
            elif unified is not None and unified.problem is None:
                branch = self._branch(unified)
                assert isinstance(branch, BranchV2)  # noqa: S101 (of version 2)
                branch.prepare_default_devices(self._bpf_syscall)
                self._devices = "program"
            else:
                self._devices, self.device_problem = "nothing", self._problem("devices")
        except OSError as error:
            self._devices = "nothing"
            self.device_problem = str(error)

    def _devices_branch(self) -> BranchV1:
        branch = self._branch(self._host.controllers["devices"].hierarchy)
        assert isinstance(branch, BranchV1)  # noqa: S101 (version 2 has no such controller)
        return branch

    def _set_devices(self, cgroup: ContainerCgroup, devices: Sequence[DeviceRule]) -> None:
        """Give a container device rules of its own."""
        if self._devices == "v1":
            with self._lock:
                branch = self._devices_branch()
            cgroup.enter(Place(branch, branch.fd), ())
            try:
                write_devices(branch.fd, cgroup.container_id, devices)
            except OSError as error:
                path = f"{branch.hierarchy.own_path}/{branch.name}/{cgroup.container_id}"
                raise translated(error, "set device rules of", controller="devices", path=path) from error
        elif self._devices == "program" and tuple(devices) != (ALLOW_ALL,) and cgroup.cgroup2_fd is not None:
            load_and_attach(cgroup.cgroup2_fd, compile_bpf(devices), bpf_syscall=self._bpf_syscall)


def _closes(branch: BranchV1 | BranchV2) -> bool:
    """Close one tree; say whether nothing of ours is left there. What goes wrong keeps no other one open."""
    try:
        return branch.close()
    except OSError:
        return False


def _names_devices(resources: Resources) -> bool:
    """Whether the limits depend on device nodes, which can change their numbers."""
    return bool(
        resources.device_read_bps
        or resources.device_write_bps
        or resources.device_read_iops
        or resources.device_write_iops
    )


def _check_name(option: str, name: str) -> None:
    if not _NAME.fullmatch(name):
        raise InvalidOption(
            option, name, "use letters, digits and _.- only, beginning with a letter or digit"
        )
