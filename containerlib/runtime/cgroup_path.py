"""The control groups of a container at a path that somebody else has chosen, in all trees of the host.

For `containerlib-oci`, whose callers say where. Works by paths: nothing is open between two commands.
In: `CgroupHost`, a path. Out: `PathCgroup`.
"""

from __future__ import annotations

import contextlib
import os
import posixpath
import signal
import time
from typing import TYPE_CHECKING, Final, TypeVar

from attrs import frozen

from containerlib._util.failpoint import reach
from containerlib.errors import CgroupError, InvalidOption, UnsupportedHost
from containerlib.runtime.cgroup_files import (
    kill_below,
    make_directory,
    open_directory,
    pids_below,
    read_at,
    remove_below,
    translated,
    write_at,
)
from containerlib.runtime.cgroup_v1 import write_devices
from containerlib.runtime.device_program import compile_bpf, load_and_attach
from containerlib.runtime.device_rules import ALLOW_ALL, denies

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from containerlib.runtime.cgroup_host import CgroupHost, Hierarchy
    from containerlib.runtime.cgroup_limits import Setting, Version
    from containerlib.runtime.device_rules import DeviceRule

__all__ = ["PathCgroup", "Tree"]

_ALIASES: Final = {"io": ("io", "blkio")}
_FREEZE_LIMIT_S: Final = 10.0
_V2: Final = 2
_DELEGATED: Final = "/sys/kernel/cgroup/delegate"
_Result = TypeVar("_Result")


@frozen
class Tree:
    """The container's directory in one tree.

    Attributes:
        version: 1 or 2.
        names: Controllers of the tree.
        mount_point: Where the tree is mounted.
        path: The directory.
    """

    version: int
    names: tuple[str, ...]
    mount_point: str
    path: str

    @property
    def parent(self) -> str:
        """The directory above it."""
        return os.path.dirname(self.path)


@frozen
class PathCgroup:
    """The directories of one container; see `locate` and `make`."""

    trees: tuple[Tree, ...]

    @classmethod
    def locate(cls, host: CgroupHost, path: str, container_id: str) -> PathCgroup:
        """Say where a container's directories are to be. Makes nothing.

        Args:
            host: From `CgroupHost.probe`.
            path: ``linux.cgroupsPath``: from the top if it begins with a slash, else below the caller's own
                group; the id if it is empty.
            container_id: The id.

        Raises:
            InvalidOption: The path leads out of the tree.
        """
        wanted = path or container_id
        if ".." in wanted.split("/") or posixpath.normpath(wanted) in {"/", "."}:
            raise InvalidOption("linux.cgroupsPath", path, "give a path below the top, without '..'")
        trees = []
        for hierarchy in dict.fromkeys([*(c.hierarchy for c in host.controllers.values()), host.unified]):
            if hierarchy is not None and hierarchy.own_path and (place := _place(hierarchy, wanted)):
                names = tuple(sorted(hierarchy.names))
                trees.append(Tree(hierarchy.version, names, hierarchy.mount_point, place))
        return cls(tuple(trees))

    def _tree(self, controller: str) -> Tree | None:
        names = _ALIASES.get(controller, (controller,))
        return next((tree for tree in self.trees if not set(names).isdisjoint(tree.names)), None)

    def version(self, controller: str) -> Version | None:
        """The version that a controller has; None if it is nowhere."""
        tree = self._tree(controller)
        return None if tree is None else tree.version  # type: ignore[return-value] # 1 or 2

    def has_file(self, controller: str, file: str) -> bool:
        """Whether the container's directory has this file. The directory must have been made."""
        tree = self._tree(controller)
        return tree is not None and os.path.exists(f"{tree.path}/{file}")

    def make(self) -> None:
        """Make the directories, and what is missing above them.

        Raises:
            CgroupError: One exists and has processes in it, or the kernel refused. What was made is removed.
        """
        try:
            for tree in self.trees:
                _make(tree)
        except BaseException:
            self.remove()
            raise

    def give(self, owner: int) -> None:
        """Hand the directory of version 2 over to a user, who may then make groups in it.

        Args:
            owner: The user, by the host's number.

        Raises:
            CgroupError: The kernel refused.

        Source: OCI runtime-spec 1.2, config-linux.md, "Cgroup ownership"; cgroups(7), "Delegation".
        """
        tree = self._unified
        if tree is None:
            return
        for name in ("", *_delegated_files()):
            reach("hand over control group", name)
            try:
                os.chown(f"{tree.path}/{name}", owner, -1)
            except FileNotFoundError:
                continue
            except OSError as error:
                raise translated(error, "hand over", controller="", path=f"{tree.path}/{name}") from error

    def apply(self, settings: Iterable[Setting]) -> None:
        """Write limits.

        Raises:
            CgroupError: The kernel refused a value.
        """
        for setting in settings:
            tree = self._tree(setting.controller)
            assert tree is not None  # noqa: S101 (who made the setting has asked for its version)
            fd = open_directory(tree.path)
            try:
                write_at(fd, setting.file, setting.value)
            except OSError as error:
                raise translated(
                    error,
                    f"write {setting.value!r} to",
                    controller=setting.controller,
                    path=f"{tree.path}/{setting.file}",
                ) from error
            finally:
                os.close(fd)

    def apply_in_any_order(self, settings: Sequence[Setting]) -> None:
        """Write limits of a container that has some: memory must never exceed memory and swap.

        Raises:
            CgroupError: The kernel refused a value, in every order.
        """
        left = list(settings)
        while left:
            refused: list[Setting] = []
            problem: CgroupError | None = None
            for setting in left:
                try:
                    self.apply([setting])
                except CgroupError as error:
                    refused.append(setting)
                    problem = problem or error
            if problem is not None and len(refused) == len(left):
                raise problem
            left = refused

    def set_devices(self, rules: Sequence[DeviceRule]) -> None:
        """Say which devices may be used.

        Raises:
            CgroupError: The kernel refused.
            UnsupportedHost: Something is to be denied, and the host cannot.
        """
        tree = self._tree("devices")
        unified = self._unified
        if tree is not None:
            fd = open_directory(tree.parent)
            try:
                write_devices(fd, os.path.basename(tree.path), rules)
            except OSError as error:
                raise translated(
                    error, "set device rules of", controller="devices", path=tree.path
                ) from error
            finally:
                os.close(fd)
        elif unified is not None and tuple(rules) != (ALLOW_ALL,):
            fd = open_directory(unified.path)
            try:
                load_and_attach(fd, compile_bpf(rules))
            finally:
                os.close(fd)
        elif unified is None and denies(rules):
            raise UnsupportedHost(
                "denying devices", needed="the cgroup controller 'devices', or version 2", found="neither"
            )

    def open_join_fds(self) -> list[int]:
        """Open what a process writes ``"0"`` into to be in all of them. The caller closes them."""
        fds: list[int] = []
        try:
            for tree in self.trees:
                file = "tasks" if tree.version == 1 else "cgroup.procs"
                fds.append(os.open(f"{tree.path}/{file}", os.O_WRONLY | os.O_CLOEXEC))
        except OSError as error:
            for fd in fds:
                os.close(fd)
            raise translated(error, "join", controller="", path=tree.path) from error
        return fds

    def pids(self) -> set[int]:
        """The processes of the container."""
        tree = self._tracking()
        return set() if tree is None else _below(tree, pids_below) or set()

    @property
    def _unified(self) -> Tree | None:
        return next((tree for tree in self.trees if tree.version == _V2), None)

    def _tracking(self) -> Tree | None:
        return self._unified or next(iter(self.trees), None)

    def signal(self, number: int) -> None:
        """Send a signal to every process of the container."""
        for pid in self.pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def kill(self) -> None:
        """Kill every process of the container, frozen or not."""
        if self.is_frozen:
            self.signal(signal.SIGKILL)
            self.thaw()
        tree = self._tracking()
        if tree is not None:
            _below(tree, kill_below)

    @property
    def is_frozen(self) -> bool:
        """Whether the processes were stopped."""
        file, frozen_word = self._freezing()
        with contextlib.suppress(OSError), open(file, encoding="ascii") as opened:
            return opened.read().strip() in {frozen_word, "FREEZING"}
        return False

    def _freezing(self) -> tuple[str, str]:
        freezer = self._tree("freezer")
        if freezer is not None:
            return f"{freezer.path}/freezer.state", "FROZEN"
        unified = self._unified
        return ("" if unified is None else f"{unified.path}/cgroup.freeze"), "1"

    def freeze(self) -> None:
        """Stop every process.

        Raises:
            UnsupportedHost: Neither version 2 nor the controller ``freezer`` is there.
            CgroupError: Some process could not be stopped in time; all go on.
        """
        file, word = self._freezing()
        if not file:
            raise UnsupportedHost(
                "pausing a container", needed="cgroup v2 or the controller 'freezer'", found="neither"
            )
        deadline = time.monotonic() + _FREEZE_LIMIT_S
        while time.monotonic() < deadline:
            self._write(file, word)
            if self._has_stopped(file, word):
                return
            time.sleep(0.001)
        self.thaw()
        raise CgroupError("some process could not be stopped", controller="freezer", path=file)

    def _has_stopped(self, file: str, word: str) -> bool:
        if word == "FROZEN":
            return _read(file) == word
        return "frozen 1" in _read(f"{os.path.dirname(file)}/cgroup.events")

    def thaw(self) -> None:
        """Let all go on."""
        file, word = self._freezing()
        self._write(file, "THAWED" if word == "FROZEN" else "0")

    def _write(self, file: str, text: str) -> None:
        reach("write control file", file)
        try:
            with open(file, "w", encoding="ascii") as opened:
                opened.write(text)
        except OSError as error:
            raise translated(error, f"write {text!r} to", controller="freezer", path=file) from error

    def version_of(self, controller: str) -> int | None:
        """The version that the tree of a controller has, by the name that it has there; None without one."""
        return next((tree.version for tree in self.trees if controller in tree.names), None)

    def read(self, controller: str, file: str) -> str | None:
        """A control file of the container; None if there is none.

        Args:
            controller: Controller that the file belongs to; empty for version 2 itself.
            file: Name of the file.
        """
        tree = self._tree(controller) if controller else self._unified
        return None if tree is None else _read(f"{tree.path}/{file}") or None

    def is_gone(self) -> bool:
        """Whether there is no directory any more."""
        return not any(os.path.isdir(tree.path) for tree in self.trees)

    def remove(self) -> bool:
        """Remove the directories, which needs all processes to be gone. Returns whether all are."""
        gone = [_below(tree, remove_below) is not False for tree in self.trees]
        return all(gone)


def _delegated_files() -> tuple[str, ...]:
    """The files that whoever a group is left to may write."""
    with contextlib.suppress(OSError), open(_DELEGATED, encoding="ascii") as file:
        return tuple(file.read().split())
    return ("cgroup.procs", "cgroup.subtree_control", "cgroup.threads")


def _place(hierarchy: Hierarchy, wanted: str) -> str:
    """The directory in one tree; empty where it is out of sight."""
    if hierarchy.problem is not None and not os.path.isdir(hierarchy.own_path):
        return ""
    if wanted.startswith("/"):
        return posixpath.normpath(f"{hierarchy.mount_point}/{wanted}")
    return posixpath.normpath(f"{hierarchy.own_path}/{wanted}")


def _below(tree: Tree, act: Callable[[int, str], _Result]) -> _Result | None:
    """Do something with the container's directory, by its name in its parent; None if that is gone."""
    try:
        fd = open_directory(tree.parent)
    except FileNotFoundError:
        return None
    try:
        return act(fd, os.path.basename(tree.path))
    finally:
        os.close(fd)


def _read(path: str) -> str:
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return ""


def _make(tree: Tree) -> None:
    """Make one directory; those above it hand on what it needs."""
    relative = os.path.relpath(tree.path, tree.mount_point).split("/")
    fd = open_directory(tree.mount_point)
    try:
        for name in relative:
            if tree.version == _V2:
                _pass_on(fd)
            make_directory(fd, name)
            above, fd = fd, open_directory(name, dir_fd=fd)
            try:
                if "cpuset" in tree.names and tree.version == 1:
                    _inherit(above, fd)
            finally:
                os.close(above)
        if read_at(fd, "cgroup.procs"):
            raise CgroupError(
                f"{tree.path} has processes in it; another container may use it",
                controller="",
                path=tree.path,
            )
    except OSError as error:
        if isinstance(error, CgroupError):
            raise
        raise translated(error, "make", controller=",".join(tree.names), path=tree.path) from error
    finally:
        os.close(fd)


def _pass_on(fd: int) -> None:
    """Pass on every controller that can be; what the container lacks is seen when limits are set."""
    passed = (read_at(fd, "cgroup.subtree_control") or "").split()
    for name in (read_at(fd, "cgroup.controllers") or "").split():
        if name not in passed:
            with contextlib.suppress(OSError):
                write_at(fd, "cgroup.subtree_control", f"+{name}")


def _inherit(parent_fd: int, fd: int) -> None:
    """Without processors and memory nodes of its own, a group of version 1 takes no process."""
    for file in ("cpuset.cpus", "cpuset.mems"):
        if not (read_at(fd, file) or "").strip():
            write_at(fd, file, (read_at(parent_fd, file) or "").strip())
