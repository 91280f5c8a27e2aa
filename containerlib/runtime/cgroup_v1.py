"""The engine's own directory in one tree of cgroup version 1, and what is peculiar to that version."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from containerlib._util.failpoint import reach
from containerlib.runtime.cgroup_files import (
    is_replaced,
    kill_below,
    make_directory,
    open_directory,
    read_at,
    remove_below,
    remove_unused,
    write_at,
)
from containerlib.runtime.device_rules import DEFAULT_RULES, v1_lines

if TYPE_CHECKING:
    from collections.abc import Sequence

    from containerlib.runtime.cgroup_host import Hierarchy
    from containerlib.runtime.device_rules import DeviceRule

__all__ = ["DEFAULT_NAME", "BranchV1", "write_devices"]

DEFAULT_NAME: Final = "_default"
"""Child with the default device rules. No container id begins with an underscore."""


class BranchV1:
    """The engine's directory in one tree; the containers' directories are its children.

    Attributes:
        hierarchy: The tree.
        name: Name of the directory, below the caller's own cgroup.
        fd: The open directory.
    """

    version: Final = 1

    def __init__(self, hierarchy: Hierarchy, name: str, *, create: bool = True) -> None:
        """Make the directory, or take it over if it exists.

        Raises:
            FileNotFoundError: There is none, and `create` is false.
        """
        self.hierarchy = hierarchy
        self.name = name
        self._own_fd = open_directory(hierarchy.own_path)
        self._default_fd: int | None = None
        self.fd = -1
        try:
            if create:
                make_directory(self._own_fd, name)
            self.fd = open_directory(name, dir_fd=self._own_fd)
            if create and "cpuset" in hierarchy.names:
                self._inherit_cpuset()
        except BaseException:
            if create:
                remove_unused(self._own_fd, name)
            self.release()
            raise

    def _inherit_cpuset(self) -> None:
        """Copy processors and nodes from the own cgroup, and have the kernel do so for our children."""
        for file in ("cpuset.cpus", "cpuset.mems"):
            write_at(self.fd, file, read_at(self._own_fd, file) or "")
        write_at(self.fd, "cgroup.clone_children", "1")

    def prepare_default_devices(self) -> None:
        """Make the child in which only the default devices can be used."""
        make_directory(self.fd, DEFAULT_NAME)
        self._default_fd = open_directory(DEFAULT_NAME, dir_fd=self.fd)
        write_devices(self._default_fd, ".", DEFAULT_RULES)

    def open_default_tasks(self) -> int:
        """Open the file by which a process joins the default devices."""
        assert self._default_fd is not None  # noqa: S101 (prepare_default_devices came first)
        return os.open("tasks", os.O_WRONLY | os.O_CLOEXEC, dir_fd=self._default_fd)

    @property
    def is_removed(self) -> bool:
        """Whether somebody else has removed the directory."""
        return is_replaced(self.fd, self._own_fd, self.name)

    def kill(self) -> None:
        """Kill everything in the directory."""
        kill_below(self._own_fd, self.name)

    def release(self) -> None:
        """Close the descriptors and leave everything as it is."""
        for fd in (self._default_fd, self.fd, self._own_fd):
            if fd is not None and fd >= 0:
                os.close(fd)
        self._default_fd, self.fd, self._own_fd = None, -1, -1

    def close(self) -> bool:
        """Remove the directory if no container is left in it, and forget it. Returns whether it is gone."""
        own_fd, self._own_fd = self._own_fd, -1
        self.release()
        if own_fd < 0:
            return True
        try:
            return remove_below(own_fd, self.name)
        finally:
            os.close(own_fd)


def write_devices(dir_fd: int, path: str, rules: Sequence[DeviceRule]) -> None:
    """Give the ``devices`` cgroup `path` these rules. One line per write is all that the kernel reads."""
    reach("write control file", path)
    files: dict[str, int] = {}
    lines = v1_lines(rules)
    try:
        for file, line in lines:
            if file not in files:
                files[file] = os.open(f"{path}/{file}", os.O_WRONLY | os.O_CLOEXEC, dir_fd=dir_fd)
            os.write(files[file], line.encode())
    finally:
        for fd in files.values():
            os.close(fd)
