"""The control groups of one container: join, measure, freeze, kill, change, remove.

Works relative to directory descriptors that the engine keeps open, so it is of use only
while the engine is. Knows no option: limits come as `Setting` values.
"""

from __future__ import annotations

import os
import select
import time
from typing import TYPE_CHECKING, Final, Protocol, Self

from attrs import evolve, frozen

from containerlib._util.failpoint import reach
from containerlib.errors import CgroupError, UnsupportedHost
from containerlib.runtime.cgroup_exec import ExecCgroup, Place
from containerlib.runtime.cgroup_files import (
    kill_below,
    pids_below,
    read_at,
    remove_below,
    translated,
    write_at,
)

if TYPE_CHECKING:
    from types import TracebackType

    from containerlib.options import Resources
    from containerlib.runtime.cgroup_limits import Setting

__all__ = ["CgroupUsage", "ContainerCgroup", "ContainerEngine", "Place", "Step"]

_FREEZE_LIMIT_S: Final = 5.0
_MOVE_PASSES: Final = 100


@frozen
class CgroupUsage:
    """What a container has used so far; `None` where the host does not count it.

    Attributes:
        cpu_ns: Processor time.
        memory_peak_bytes: Most memory at one moment, page cache included.
        oom_kills: Processes killed because the container ran out of memory.
        pids_peak: Most processes and threads at one moment.
    """

    cpu_ns: int | None
    memory_peak_bytes: int | None
    oom_kills: int
    pids_peak: int | None


@frozen
class Step:
    """A place, and what is to be written into the container's directory there."""

    place: Place
    settings: tuple[Setting, ...]


class ContainerEngine(Protocol):
    """What a container's control groups need from the engine's."""

    def plan(self, resources: Resources) -> tuple[Step, ...]:
        """Return what limits mean on this host."""

    def freezer(self) -> Place | None:
        """Return the place for freezing on version 1."""

    def defer_removal(self, place: Place, name: str) -> None:
        """Remember a directory that is still busy."""


class ContainerCgroup:
    """One container's directories in all trees that it needs. Made by `EngineCgroup.make`.

    Attributes:
        container_id: Name of the directories.
        resources: The limits in force.
        join_fds: Open ``tasks`` files of version 1; the new process writes ``"0"`` into each.
        cgroup2_fd: Open directory for ``CLONE_INTO_CGROUP``, or `None` without version 2.
    """

    def __init__(self, engine: ContainerEngine, container_id: str, resources: Resources) -> None:
        self.container_id = container_id
        self.resources = resources
        self.join_fds: list[int] = []
        self.cgroup2_fd: int | None = None
        self._engine = engine
        self._places: list[Place] = []
        self._by_name: dict[str, Place] = {}
        self._freezer: Place | None = None

    def __repr__(self) -> str:
        return f"ContainerCgroup({self.container_id!r}, places={sorted(self._by_name)})"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
        self.remove()

    def enter(self, place: Place, settings: tuple[Setting, ...]) -> None:
        """Make the directory in one place, apply its settings, and open what a process joins it by.

        Raises:
            CgroupError: The directory exists, or the kernel refused a value. What was made before remains, to
                be removed with the rest.
        """
        name = self.container_id
        names = place.branch.hierarchy.names
        reach("make control group", name)
        try:
            os.mkdir(name, 0o755, dir_fd=place.fd)
        except OSError as error:
            raise translated(error, "make", controller=",".join(names), path=self._path(place, "")) from error
        self._places.append(place)
        for each in names:
            self._by_name[each] = place
        for setting in settings:
            self._write(place, setting.controller, setting.file, setting.value)
        if place.branch.version == 1:
            self.join_fds.append(os.open(f"{name}/tasks", os.O_WRONLY | os.O_CLOEXEC, dir_fd=place.fd))
        else:
            self._by_name[""] = place
            self.cgroup2_fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=place.fd)

    def find(self, place: Place) -> None:
        """Take the directory in one place as ours if it is there."""
        if not os.access(self.container_id, os.F_OK, dir_fd=place.fd):
            return
        names = place.branch.hierarchy.names
        if "freezer" in names:
            self._freezer = place
        self._places.append(place)
        for each in (*names, "") if place.branch.version == 2 else names:  # noqa: PLR2004 - of cgroups
            self._by_name[each] = place

    @property
    def is_any(self) -> bool:
        """Whether there is a directory at all."""
        return bool(self._places)

    def paths(self) -> dict[str, str]:
        """Return the path in each tree, as /proc/<pid>/cgroup of a process in the container shows it.

        Keys are controllers; the empty string stands for version 2.
        """
        return {
            name: _join(place.branch.hierarchy.own_cgroup, place, self.container_id)
            for name, place in self._by_name.items()
            if place.branch.version == 1 or not name
        }

    def usage(self) -> CgroupUsage:
        """Read what the container has used; also after it has ended, until `remove`.

        Cost: three system calls per value.
        """
        memory, pids = self._by_name.get("memory"), self._by_name.get("pids")
        peak: str | None = None
        kills = 0
        if memory is not None and memory.branch.version == 1:
            peak = self._read(memory, "memory.max_usage_in_bytes")
            kills = _find(self._read(memory, "memory.oom_control"), "oom_kill") or 0
        elif memory is not None:
            peak = self._read(memory, "memory.peak")
            kills = _find(self._read(memory, "memory.events"), "oom_kill") or 0
        most = self._read(pids, "pids.peak") if pids is not None else None
        return CgroupUsage(
            cpu_ns=self._cpu_ns(),
            memory_peak_bytes=int(peak) if peak else None,
            oom_kills=kills,
            pids_peak=int(most) if most else None,
        )

    def _cpu_ns(self) -> int | None:
        unified, account = self._by_name.get(""), self._by_name.get("cpuacct")
        if unified is not None:  # counted without any controller
            used_us = _find(self._read(unified, "cpu.stat"), "usage_usec")
            if used_us is not None:
                return used_us * 1000
        if account is not None:
            used = self._read(account, "cpuacct.usage")
            return int(used) if used else None
        return None

    def version_of(self, controller: str) -> int | None:
        """The version of control groups that a controller of this container has; None if it has none."""
        place = self._by_name.get(controller)
        return None if place is None else place.branch.version

    def read(self, controller: str, file: str) -> str | None:
        """A control file of the container; None if there is none, be it because the container has ended.

        Args:
            controller: Controller that the file belongs to; empty for version 2 itself.
            file: Name of the file.
        """
        place = self._by_name.get(controller)
        return None if place is None else self._read(place, file)

    def pids(self) -> set[int]:
        """Return the processes of the container, by their numbers in our PID namespace."""
        place = self._tracking_place()
        return pids_below(place.fd, self.container_id) if place is not None else set()

    def kill(self) -> bool:
        """Kill every process of the container, frozen or not.

        Returns:
            Whether that is certain. `False` without any control group: kill its first process instead.
        """
        place = self._tracking_place()
        if place is None:
            return False
        if (
            self._freezer is not None
        ):  # a frozen process of version 1 gets the signal now and dies when thawed
            kill_below(place.fd, self.container_id, passes=1)
            self.thaw()
        return kill_below(place.fd, self.container_id)

    def freeze(self) -> None:
        """Stop every process of the container until `thaw`. Freezing twice is not an error.

        Raises:
            UnsupportedHost: Neither version 2 nor the controller ``freezer`` can be used.
            CgroupError: Some process could not be stopped within 5 seconds; all are thawed again.
        """
        unified = self._by_name.get("")
        if unified is not None:
            self._write(unified, "", "cgroup.freeze", "1")
            is_frozen = self._wait_frozen(unified)
        else:
            is_frozen = self._freeze_v1()
        if not is_frozen:
            self.thaw()
            raise CgroupError(
                f"container {self.container_id!r} could not be frozen within {_FREEZE_LIMIT_S:g} s;"
                " one of its processes is waiting in the kernel",
                controller="freezer",
                path=self._path(unified or self._places[0], ""),
            )

    @property
    def is_frozen(self) -> bool:
        """Whether it was stopped by `freeze`."""
        unified = self._by_name.get("")
        if unified is not None:
            return (self._read(unified, "cgroup.freeze") or "").strip() == "1"
        return self._freezer is not None and (self._read(self._freezer, "freezer.state") or "").startswith(
            "FR"
        )

    def thaw(self) -> None:
        """Let a frozen container go on. Not frozen is not an error."""
        unified = self._by_name.get("")
        if unified is not None:
            self._write(unified, "", "cgroup.freeze", "0")
        elif self._freezer is not None:
            self._write(self._freezer, "freezer", "freezer.state", "THAWED")

    def update(self, resources: Resources) -> None:
        """Replace the limits of the running container by `resources`, which is the complete new set.

        A limit that is no longer given is taken away. If one cannot be set, those set before it are put back.

        Raises:
            UnsupportedHost: The host cannot set a limit; nothing was changed.
            CgroupError: The kernel refused a value, such as less memory than is in use.

        Cost: on version 1, a limit on a controller that had none moves all processes, some 14 ms each.
        """
        new_steps = self._engine.plan(resources)
        known = [place.branch for place in self._places]
        before = {
            _key(s): (step.place, s) for step in self._engine.plan(self.resources) for s in step.settings
        }
        for step in new_steps:
            if step.place.branch not in known:
                self._move_into(step)
        changes = [
            (self._place_of(step.place), s)
            for step in new_steps
            for s in step.settings
            if before.pop(_key(s), (None, None))[1] != s
        ]
        for place, setting in before.values():
            own = self._place_of(place)
            changes += [(own, evolve(setting, value=value)) for value in _reset_values(own, setting)]
        self._apply(changes)
        self.resources = resources

    def enter_exec(self, exec_id: str) -> ExecCgroup:
        """Open what a further process joins the container by; it gets a group of its own where there is one.

        Raises:
            CgroupError: The container's directories are gone.
        """
        result = ExecCgroup(self.container_id, exec_id)
        try:
            for place in self._places:
                result.enter(place)
        except OSError as error:
            result.close()
            raise translated(error, "join", controller="", path=self._path(self._places[0], "")) from error
        return result

    def close(self) -> None:
        """Close the descriptors for joining. The directories stay. Closing twice is not an error."""
        fds, self.join_fds = self.join_fds, []
        if self.cgroup2_fd is not None:
            fds.append(self.cgroup2_fd)
            self.cgroup2_fd = None
        for fd in fds:
            os.close(fd)

    def remove(self) -> bool:
        """Remove the directories, which needs all processes to be gone. Removing twice is not an error.

        Returns:
            Whether all are gone. What cannot be removed, or is still busy after 15 ms, is left to
            `EngineCgroup.retry_removals`.
        """
        places, self._places = self._places, []
        self._by_name, self._freezer = {}, None
        busy = [place for place in places if not _removes(place, self.container_id)]
        for place in busy:
            self._engine.defer_removal(place, self.container_id)
        return not busy

    def _tracking_place(self) -> Place | None:
        return self._by_name.get("") or (self._places[0] if self._places else None)

    def _place_of(self, place: Place) -> Place:
        """Return our place in the same tree; it can be another directory when devices differ."""
        return next(own for own in self._places if own.branch is place.branch)

    def _path(self, place: Place, file: str) -> str:
        path = _join(place.branch.hierarchy.own_path, place, self.container_id)
        return f"{path}/{file}" if file else path

    def _read(self, place: Place, file: str) -> str | None:
        return read_at(place.fd, f"{self.container_id}/{file}")

    def _write(self, place: Place, controller: str, file: str, text: str) -> None:
        try:
            write_at(place.fd, f"{self.container_id}/{file}", text)
        except OSError as error:
            action = f"write {text!r} to"
            raise translated(error, action, controller=controller, path=self._path(place, file)) from error

    def _wait_frozen(self, place: Place) -> bool:
        deadline = time.monotonic() + _FREEZE_LIMIT_S
        fd = os.open(f"{self.container_id}/cgroup.events", os.O_RDONLY | os.O_CLOEXEC, dir_fd=place.fd)
        try:
            watch = select.poll()
            watch.register(fd, select.POLLPRI)
            while _find(os.pread(fd, 4096, 0).decode(), "frozen") != 1:
                left_s = deadline - time.monotonic()
                if left_s <= 0:
                    return False
                watch.poll(left_s * 1000)
        finally:
            os.close(fd)
        return True

    def _freeze_v1(self) -> bool:
        if self._freezer is None:
            self._enter_freezer()
        freezer = self._freezer
        if freezer is None:
            return False
        deadline = time.monotonic() + _FREEZE_LIMIT_S
        while time.monotonic() < deadline:
            self._write(freezer, "freezer", "freezer.state", "FROZEN")
            if (self._read(freezer, "freezer.state") or "").strip() == "FROZEN":
                return True
            time.sleep(0.001)
        return False

    def _enter_freezer(self) -> None:
        """Make a freezer and move the container into it: it has none before it is paused first."""
        place = self._engine.freezer()
        if place is None or self._tracking_place() is None:
            raise UnsupportedHost(
                "pausing a container", needed="cgroup v2 or the cgroup controller 'freezer'", found="neither"
            )
        # Frozen from the start: whoever is moved in stops there and cannot fork past us.
        self._move_into(Step(place, ()), before=("freezer.state", "FROZEN"))
        self._freezer = place

    def _move_into(self, step: Step, before: tuple[str, str] | None = None) -> None:
        """Make a further directory and move all processes there, until no new ones turn up."""
        tracking = self._tracking_place()
        self.enter(step.place, step.settings)
        if step.place.branch.version == 1:
            os.close(self.join_fds.pop())
        if before is not None:
            self._write(step.place, "", *before)
        for _ in range(_MOVE_PASSES):
            if tracking is None:
                return
            here = pids_below(step.place.fd, self.container_id)
            missing = pids_below(tracking.fd, self.container_id) - here
            if not missing:
                return
            for pid in missing:
                try:
                    write_at(step.place.fd, f"{self.container_id}/cgroup.procs", str(pid))
                except ProcessLookupError:
                    continue

    def _apply(self, changes: list[tuple[Place, Setting]]) -> None:
        """Write changes in any order that the kernel accepts: memory must never exceed memory and swap."""
        done: list[tuple[Place, str, str]] = []
        try:
            while changes:
                refused: list[tuple[Place, Setting]] = []
                first_error: CgroupError | None = None
                for place, setting in changes:
                    old = self._read(place, setting.file)
                    try:
                        self._write(place, setting.controller, setting.file, setting.value)
                    except CgroupError as error:
                        refused.append((place, setting))
                        first_error = first_error or error
                    else:
                        done.append((place, setting.file, (old or "").strip()))
                if first_error is not None and len(refused) == len(changes):
                    raise first_error
                changes = refused
        except CgroupError as error:
            self._put_back(done, error)
            raise

    def _put_back(self, done: list[tuple[Place, str, str]], reason: CgroupError) -> None:
        for place, file, old in reversed(done):
            try:
                self._write(place, "", file, old)
            except CgroupError as error:
                reason.add_note(f"and the former value could not be put back: {error}")


def _join(parent: str, place: Place, name: str) -> str:
    return f"{parent.rstrip('/')}/{place.branch.name}/{place.prefix}{name}"


def _removes(place: Place, name: str) -> bool:
    try:
        return remove_below(place.fd, name)
    except OSError:
        return False


def _key(setting: Setting) -> tuple[str, str | None]:
    # The reset of a setting per device names the device, and so tells the entries of one file apart.
    return setting.file, setting.reset


def _find(text: str | None, name: str) -> int | None:
    """Return the number that follows `name` in lines of "name number"."""
    for line in (text or "").splitlines():
        key, _, value = line.partition(" ")
        if key == name:
            return int(value)
    return None


def _reset_values(place: Place, setting: Setting) -> tuple[str, ...]:
    """Return what takes a setting away: its own word, or what the parent has, or nothing."""
    if setting.reset is None:
        return ()
    if setting.reset:
        return (setting.reset,)
    # Version 2 inherits when the file is empty, but with processes in it it cannot become so again.
    suffix = "" if place.branch.version == 1 else ".effective"
    return ((read_at(place.fd, setting.file + suffix) or "").strip(),)
