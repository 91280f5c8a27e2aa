"""What is needed to join a running container: its namespaces, its users, its control groups.

Everything is opened through the container's first process while a pidfd says that it is still that process.
"""

from __future__ import annotations

import contextlib
import os
import stat
from typing import TYPE_CHECKING

from attrs import evolve

from containerlib._native.path import open_in_root
from containerlib.errors import InvalidOption, InvalidState
from containerlib.runtime.config import parse_env
from containerlib.runtime.user import parse_user, resolve_user

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from containerlib.options import Security
    from containerlib.runtime.config import ContainerConfig
    from containerlib.runtime.detached import DetachedProcess
    from containerlib.runtime.process import RunningProcess
    from containerlib.runtime.user import ResolvedUser

__all__ = ["exec_config", "joined_user", "namespaces", "open_network", "open_root"]

# The mount namespace last: from there on names are the container's.
_KINDS = ("cgroup", "ipc", "uts", "net", "pid", "mnt")
_ACCOUNT_LIMIT = 10 << 20
_ACCOUNT_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY


def exec_config(
    container: ContainerConfig,
    command: Sequence[str],
    *,
    env: Mapping[str, str] | Sequence[str] | None,
    workdir: str | None,
    user: str | None,
    security: Security | None,
    tty: bool,
    console_size: tuple[int, int],
    fault: tuple[int, int, int, int],
) -> ContainerConfig:
    """The configuration of a process that joins a container: the container's own, but for what is given.

    Raises:
        InvalidOption: A value that no host could honour.
    """
    _check_kind("command", command)
    for argument in command:
        _check_text(argument)
    if workdir is not None and (not workdir.startswith("/") or "\0" in workdir):
        raise InvalidOption("workdir", workdir, "give an absolute path in the container")
    return evolve(
        container,
        args=tuple(command),
        env={**container.env, **parse_env(env)},
        workdir=container.workdir if workdir is None else workdir,
        user=container.user if user is None else parse_user(user),
        group_add=container.group_add if user is None else (),
        security=container.security if security is None else security,
        tty=tty,
        console_size=console_size,
        init=False,
        fault=fault,
    )


def _check_kind(option: str, command: object) -> None:
    if isinstance(command, str) or not command:
        raise InvalidOption(option, command, "give a list of arguments; for a shell: ['sh', '-c', text]")


def _check_text(argument: object) -> None:
    if not isinstance(argument, str) or "\0" in argument:
        raise InvalidOption("command", argument, "arguments are texts without NUL characters")


@contextlib.contextmanager
def namespaces(process: RunningProcess | DetachedProcess, name: str) -> Iterator[list[int]]:
    """Descriptors of the namespaces of a container, the mount namespace last.

    Raises:
        InvalidState: It has ended.
    """
    with contextlib.ExitStack() as opened:
        fds = []
        pid = process.pid
        for kind in _KINDS:
            fd = _open_of(process, pid, f"ns/{kind}", os.O_RDONLY, name)
            opened.callback(os.close, fd)
            fds.append(fd)
        _check_alive(process, pid, name)
        yield fds


def joined_user(
    process: RunningProcess | DetachedProcess, config: ContainerConfig, name: str
) -> ResolvedUser:
    """Look up the user in the container's files as they are now.

    Raises:
        InvalidOption: There is no such user.
        InvalidState: The container has ended.
    """
    root_fd = open_root(process, name)
    try:
        passwd, group = _account_file(root_fd, "/etc/passwd"), _account_file(root_fd, "/etc/group")
    finally:
        os.close(root_fd)
    return resolve_user(config.user, passwd=passwd, group=group, group_add=config.group_add)


def open_root(process: RunningProcess | DetachedProcess, name: str) -> int:
    """Open the root directory that the first process sees; the caller closes it.

    Raises:
        InvalidState: The container has ended.
    """
    pid = process.pid
    fd = _open_of(process, pid, "root", os.O_PATH | os.O_DIRECTORY, name)
    try:
        _check_alive(process, pid, name)
    except BaseException:
        os.close(fd)
        raise
    return fd


def open_network(process: RunningProcess | DetachedProcess, name: str) -> int:
    """Open the network namespace of the first process; the caller closes it.

    Raises:
        InvalidState: The container has ended.
    """
    pid = process.pid
    fd = _open_of(process, pid, "ns/net", os.O_RDONLY, name)
    try:
        _check_alive(process, pid, name)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _open_of(
    process: RunningProcess | DetachedProcess, pid: int | None, path: str, flags: int, name: str
) -> int:
    try:
        return os.open(f"/proc/{pid or 0}/{path}", flags | os.O_CLOEXEC)
    except (FileNotFoundError, ProcessLookupError):
        raise _ended(name) from None
    except PermissionError:
        # Also what the kernel says of a process that was reaped after its directory had been found.
        _check_alive(process, pid, name)
        raise


def _check_alive(process: RunningProcess | DetachedProcess, pid: int | None, name: str) -> None:
    """What was opened by number belongs to the container only if that had its number until now."""
    if pid is None or process.pid != pid or not process.is_alive:
        raise _ended(name)


def _ended(name: str) -> InvalidState:
    return InvalidState(f"container {name!r} has ended", expected="running", actual="exited")


def _account_file(root_fd: int, path: str) -> bytes | None:
    """Read a file that the container may be changing; None if it is no ordinary file of bounded size."""
    try:
        fd = open_in_root(root_fd, path, _ACCOUNT_FLAGS)
    except OSError:
        return None
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return None
        data = b""
        while len(data) <= _ACCOUNT_LIMIT and (chunk := os.read(fd, _ACCOUNT_LIMIT + 1 - len(data))):
            data += chunk
    except OSError:
        return None
    finally:
        os.close(fd)
    return data if len(data) <= _ACCOUNT_LIMIT else None
