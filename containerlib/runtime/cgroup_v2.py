"""The engine's own directory in the tree of cgroup version 2: passing on controllers, default devices."""

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
from containerlib.runtime.cgroup_v1 import DEFAULT_NAME
from containerlib.runtime.device_program import compile_bpf, load_and_attach
from containerlib.runtime.device_rules import DEFAULT_RULES

if TYPE_CHECKING:
    from containerlib.runtime.cgroup_host import Hierarchy
    from containerlib.runtime.device_program import BpfSyscall

__all__ = ["BranchV2"]


class BranchV2:
    """The engine's directory in the unified tree.

    Where a program is needed for devices, containers with the default rules live one level deeper, below the
    directory that carries it: programs of all ancestors must consent, so those with other rules cannot.

    Attributes:
        hierarchy: The tree.
        name: Name of the directory, below the caller's own cgroup.
        fd: The open directory.
        default_fd: The directory for containers with default devices; `fd` itself without a program.
        default_prefix: Its path below `fd`, empty or with a slash at the end.
    """

    version: Final = 2

    def __init__(self, hierarchy: Hierarchy, name: str, *, create: bool = True) -> None:
        """Make the directory, or take it over if it exists.

        Raises:
            FileNotFoundError: There is none, and `create` is false.
        """
        self.hierarchy = hierarchy
        self.name = name
        self._own_fd = open_directory(hierarchy.own_path)
        self._enabled: list[str] = []
        self.fd = self.default_fd = -1
        self.default_prefix = ""
        try:
            if create:
                make_directory(self._own_fd, name)
            self.fd = self.default_fd = open_directory(name, dir_fd=self._own_fd)
        except BaseException:
            if create:
                remove_unused(self._own_fd, name)
            self.release()
            raise

    def enable(self, controller: str) -> None:
        """Pass a controller on to the containers' directories. An `OSError` says why that cannot be."""
        if controller in self._enabled:
            return
        for fd in dict.fromkeys((self._own_fd, self.fd, self.default_fd)):
            # The own cgroup may belong to someone else and pass the controller on already.
            if controller not in (read_at(fd, "cgroup.subtree_control") or "").split():
                write_at(fd, "cgroup.subtree_control", f"+{controller}")
        self._enabled.append(controller)

    def prepare_default_devices(self, bpf_syscall: BpfSyscall | None) -> None:
        """Make the child below which only the default devices can be used; one that there is, is taken over.

        Raises:
            CgroupError: The kernel refused the program.
        """
        if self.find_default_devices():
            return
        make_directory(self.fd, DEFAULT_NAME)
        fd = open_directory(DEFAULT_NAME, dir_fd=self.fd)
        try:
            load_and_attach(fd, compile_bpf(DEFAULT_RULES), bpf_syscall=bpf_syscall)
            for controller in self._enabled:
                write_at(fd, "cgroup.subtree_control", f"+{controller}")
        except BaseException:
            os.close(fd)
            reach("remove control group", DEFAULT_NAME)
            os.rmdir(DEFAULT_NAME, dir_fd=self.fd)
            raise
        self.default_fd, self.default_prefix = fd, f"{DEFAULT_NAME}/"

    def find_default_devices(self) -> bool:
        """Take over the child that `prepare_default_devices` has made in another process, if there is one."""
        if self.default_fd == self.fd and os.access(DEFAULT_NAME, os.F_OK, dir_fd=self.fd):
            self.default_fd = open_directory(DEFAULT_NAME, dir_fd=self.fd)
            self.default_prefix = f"{DEFAULT_NAME}/"
        return self.default_fd != self.fd

    @property
    def is_removed(self) -> bool:
        """Whether somebody else has removed the directory."""
        return is_replaced(self.fd, self._own_fd, self.name)

    def kill(self) -> None:
        """Kill everything in the directory."""
        kill_below(self._own_fd, self.name)

    def release(self) -> None:
        """Close the descriptors and leave everything as it is."""
        for fd in {self.fd, self.default_fd, self._own_fd} - {-1}:
            os.close(fd)
        self.fd = self.default_fd = self._own_fd = -1

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
