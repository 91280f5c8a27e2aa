"""System calls on control group directories: write, read, kill, remove; always relative to an open one.

Knows nothing of limits or engines. A name is one path component, or a path below the given directory.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import time
from typing import TYPE_CHECKING, Final

from containerlib._util.failpoint import reach
from containerlib.errors import CgroupError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "is_replaced",
    "kill_below",
    "make_directory",
    "open_directory",
    "pids_below",
    "read_at",
    "remove_below",
    "remove_unused",
    "translated",
    "write_at",
]

_READ_BYTES: Final = 65536
_KILL_PASSES: Final = 100
# Together 15 ms: a process leaves its cgroup a moment after it can be reaped.
_BUSY_PAUSES_S: Final = (0.0, 0.0002, 0.0005, 0.001, 0.002, 0.004, 0.008)


def translated(error: OSError, action: str, *, controller: str, path: str) -> CgroupError:
    """Return a `CgroupError` that says what was attempted, with the errno kept."""
    result = CgroupError(f"cannot {action} {path!r}: {error.strerror}", controller=controller, path=path)
    result.errno = error.errno
    return result


def make_directory(dir_fd: int, name: str) -> None:
    """Make a directory unless it exists."""
    reach("make control group", name)
    try:
        os.mkdir(name, 0o755, dir_fd=dir_fd)
    except FileExistsError:
        return


def open_directory(path: str, *, dir_fd: int | None = None) -> int:
    """Open a directory for reading; the caller closes it."""
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=dir_fd)


def is_replaced(fd: int, parent_fd: int, name: str) -> bool:
    """Whether an open directory is no longer what `name` is in its parent."""
    try:
        return os.stat(name, dir_fd=parent_fd).st_ino != os.fstat(fd).st_ino
    except FileNotFoundError:
        return True


def write_at(dir_fd: int, path: str, text: str) -> None:
    """Write `text` into a file in one piece, as control files want it."""
    reach("write control file", path)
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC, dir_fd=dir_fd)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


def read_at(dir_fd: int, path: str) -> str | None:
    """Read a small control file; `None` if it does not exist."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC, dir_fd=dir_fd)
    except FileNotFoundError:
        return None
    try:
        return os.read(fd, _READ_BYTES).decode()
    except OSError as error:
        if error.errno == errno.ENODEV:  # removed meanwhile
            return None
        raise
    finally:
        os.close(fd)


def _read_all(dir_fd: int, path: str) -> str:
    try:
        with open(os.open(path, os.O_RDONLY | os.O_CLOEXEC, dir_fd=dir_fd), encoding="ascii") as file:
            return file.read()
    except OSError as error:
        # Gone meanwhile, or a threaded cgroup, whose processes its parent lists.
        if error.errno in (errno.ENOENT, errno.ENODEV, errno.EOPNOTSUPP):
            return ""
        raise


def _directories(dir_fd: int, path: str) -> Iterator[str]:
    """Yield `path` and all directories below it, the deepest first."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=dir_fd)
    except FileNotFoundError:
        return
    try:
        with os.scandir(fd) as entries:
            names = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    finally:
        os.close(fd)
    for name in names:
        yield from _directories(dir_fd, f"{path}/{name}")
    yield path


def pids_below(dir_fd: int, path: str) -> set[int]:
    """Return the processes in a cgroup and in all below it, those outside our PID namespace left out."""
    pids = {
        int(n)
        for each in _directories(dir_fd, path)
        for n in _read_all(dir_fd, f"{each}/cgroup.procs").split()
    }
    return pids - {0}


def kill_below(dir_fd: int, path: str, *, passes: int = _KILL_PASSES) -> bool:
    """Kill everything in a cgroup and below it.

    Uses ``cgroup.kill`` where the kernel has it (version 2 since Linux 5.14); else signals every process
    until none is left, each by a pidfd that was opened while the process was a member.

    Args:
        dir_fd: Directory that `path` is relative to.
        path: The cgroup.
        passes: How often to look for survivors, without ``cgroup.kill``.

    Returns:
        Whether it is certain that nothing can be left running; dead processes may still wait to be reaped.
    """
    try:
        write_at(dir_fd, f"{path}/cgroup.kill", "1")
    except FileNotFoundError:
        return _kill_one_by_one(dir_fd, path, passes)
    except OSError as error:
        if error.errno not in (errno.ENODEV, errno.EOPNOTSUPP):
            raise
        return _kill_one_by_one(dir_fd, path, passes)
    return True


def _kill_one_by_one(dir_fd: int, path: str, passes: int) -> bool:
    for _ in range(passes):
        pids = pids_below(dir_fd, path)
        if not pids:
            return True
        pidfds = dict(_open_pidfds(pids))
        try:
            # A pid that is still a member after its pidfd was opened belongs to the process of that pidfd.
            for pid in pidfds.keys() & pids_below(dir_fd, path):
                _send_kill(pidfds[pid])
        finally:
            for fd in pidfds.values():
                os.close(fd)
        time.sleep(0.001)
    return False


def _open_pidfds(pids: set[int]) -> Iterator[tuple[int, int]]:
    for pid in pids:
        try:
            yield pid, os.pidfd_open(pid)
        except ProcessLookupError:
            continue


def _send_kill(pidfd: int) -> None:
    try:
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    except ProcessLookupError:
        return


def remove_below(dir_fd: int, path: str, *, is_patient: bool = True) -> bool:
    """Remove a cgroup directory and whatever cgroups were made in it.

    Args:
        dir_fd: Directory that `path` is relative to.
        path: The directory.
        is_patient: Whether to try again, for some 15 ms, while a dying process keeps it busy.

    Returns:
        Whether it is gone; a directory that never was is gone.
    """
    for pause_s in _BUSY_PAUSES_S:
        if pause_s:
            time.sleep(pause_s)
        if _remove_once(dir_fd, path):
            return True
        if not is_patient:
            break
    return False


def remove_unused(dir_fd: int, path: str) -> None:
    """Remove a directory that could not be made ready, if nothing is in it."""
    with contextlib.suppress(OSError):
        reach("remove control group", path)
        os.rmdir(path, dir_fd=dir_fd)


def _remove_once(dir_fd: int, path: str) -> bool:
    reach("remove control group", path)
    try:
        os.rmdir(path, dir_fd=dir_fd)
    except FileNotFoundError:
        return True
    except OSError as error:
        if error.errno not in (errno.EBUSY, errno.ENOTEMPTY):
            raise
    else:
        return True
    for each in _directories(dir_fd, path):
        try:
            os.rmdir(each, dir_fd=dir_fd)
        except FileNotFoundError:
            continue
        except OSError as error:
            if error.errno not in (errno.EBUSY, errno.ENOTEMPTY):
                raise
            return False
    return True
