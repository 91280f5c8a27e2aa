"""Our static program as something to execute, and what all processes that are made of it have in common."""

from __future__ import annotations

import os
import threading

from containerlib._native.ffi import PROGRAM_PATH

__all__ = ["WALL", "open_owner", "sealed_program"]

WALL = 0x40000000
"""__WALL of wait(2): these processes give their parent no SIGCHLD, so plain waits miss them."""


_sealed = -1
_lock = threading.Lock()


def sealed_program() -> int:
    """A descriptor of a copy of our program that nobody can change, not even who finds it by /proc/PID/exe.

    It is made once and stays open: all processes that are made of it share its memory.
    """
    global _sealed  # noqa: PLW0603 - the one copy of this process, made on demand
    with _lock:
        if _sealed < 0:
            _sealed = _seal()
        return _sealed


def _seal() -> int:
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    try:
        fd = os.memfd_create("ctr-spawner", flags | 0x0010)  # MFD_EXEC, Linux 6.3
    except OSError:
        fd = os.memfd_create("ctr-spawner", flags)
    with open(PROGRAM_PATH, "rb") as program:
        os.sendfile(fd, program.fileno(), 0, os.fstat(program.fileno()).st_size)
    import fcntl  # noqa: PLC0415 - only needed once

    seals = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
    try:
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals | 0x0020)  # F_SEAL_EXEC, Linux 6.3
    except OSError:
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
    return fd


def open_owner() -> tuple[int, bool]:
    """A descriptor by which this process's death is seen, and whether it is a pidfd."""
    try:
        return os.pidfd_open(os.getpid()), True
    except OSError:
        return os.open("/proc/self", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC), False
