"""Make chosen system calls answer ENOSYS, as an older kernel or a strict sandbox would.

``--enosys=openat2,clone3`` installs a seccomp filter in the pytest process before anything is started, so
that every process of the session inherits it. `CGROUP_KILL_DISABLED` is set by the group ``cgroup-kill``,
which is a file and not a system call; fixtures hide the file from the code under test.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["ACTIVE", "CGROUP_KILL", "CGROUP_KILL_DISABLED", "GROUPS", "answers_enosys", "install"]

CGROUP_KILL = "cgroup-kill"
CGROUP_KILL_DISABLED = False
ACTIVE: tuple[str, ...] = ()
"""The groups of this session; each posture has one seccomp filter more when this is not empty."""

# Since Linux 5.1 all architectures number new system calls alike, so one table serves x86-64 and arm64.
_NUMBERS = {
    "open_tree": 428,
    "move_mount": 429,
    "fsopen": 430,
    "fsconfig": 431,
    "fsmount": 432,
    "fspick": 433,
    "pidfd_open": 434,
    "clone3": 435,
    "close_range": 436,
    "openat2": 437,
    "mount_setattr": 442,
    "open_tree_attr": 467,
}
GROUPS: dict[str, tuple[str, ...]] = {
    "openat2": ("openat2",),
    "clone3": ("clone3",),
    "mount-api": ("open_tree", "open_tree_attr", "move_mount", "fsopen", "fsconfig", "fsmount", "fspick"),
    "mount_setattr": ("mount_setattr", "open_tree_attr"),
    "close_range": ("close_range",),
    "pidfd_open": ("pidfd_open",),
    CGROUP_KILL: (),
}

_AUDIT_ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_PR_SET_SECCOMP = 22
_SECCOMP_MODE_FILTER = 2
_RETURN_ALLOW = 0x7FFF0000
_RETURN_ERRNO = 0x00050000
_LOAD_WORD = 0x20  # BPF_LD | BPF_W | BPF_ABS
_JUMP_EQUAL = 0x15  # BPF_JMP | BPF_JEQ | BPF_K
_RETURN = 0x06  # BPF_RET | BPF_K
_OFFSET_NUMBER = 0
_OFFSET_ARCHITECTURE = 4


class _Program(ctypes.Structure):
    """``struct sock_fprog``."""

    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def _assemble(architecture: int, numbers: Iterable[int]) -> bytes:
    """Assemble the filter; calls of another architecture pass."""
    instructions = [
        (_LOAD_WORD, 0, 0, _OFFSET_ARCHITECTURE),
        (_JUMP_EQUAL, 1, 0, architecture),
        (_RETURN, 0, 0, _RETURN_ALLOW),
        (_LOAD_WORD, 0, 0, _OFFSET_NUMBER),
    ]
    for number in sorted(numbers):
        instructions.append((_JUMP_EQUAL, 0, 1, number))
        instructions.append((_RETURN, 0, 0, _RETURN_ERRNO | errno.ENOSYS))
    instructions.append((_RETURN, 0, 0, _RETURN_ALLOW))
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in instructions)


def install(groups: Iterable[str]) -> None:
    """Install the filter for `groups` in this process, for good.

    Raises:
        ValueError: A group is unknown, or this machine's architecture is.
        RuntimeError: This process has more than one thread, which the filter would not cover.
        PermissionError: This process has no CAP_SYS_ADMIN. It could use no_new_privs instead, but that would
            change what the tests see.
    """
    global ACTIVE, CGROUP_KILL_DISABLED  # noqa: PLW0603 - the filter is a property of the process
    chosen = tuple(dict.fromkeys(groups))
    unknown = [group for group in chosen if group not in GROUPS]
    if unknown:
        raise ValueError(f"no such group: {', '.join(unknown)} (there are: {', '.join(GROUPS)})")
    numbers = {_NUMBERS[name] for group in chosen for name in GROUPS[group]}
    if numbers:
        _set_filter(numbers)
    CGROUP_KILL_DISABLED = CGROUP_KILL in chosen
    ACTIVE = chosen


def _set_filter(numbers: set[int]) -> None:
    """Hand the program to the kernel."""
    machine = os.uname().machine
    if machine not in _AUDIT_ARCHITECTURES:
        raise ValueError(f"no filter for the architecture {machine}")
    if len(os.listdir("/proc/self/task")) > 1:
        raise RuntimeError("the filter has to be installed before the first thread is started")
    code = _assemble(_AUDIT_ARCHITECTURES[machine], numbers)
    program = _Program(len(code) // 8, code)
    libc = ctypes.CDLL(None, use_errno=True)
    mode = ctypes.c_ulong(_SECCOMP_MODE_FILTER)
    if libc.prctl(_PR_SET_SECCOMP, mode, ctypes.byref(program), ctypes.c_ulong(0), ctypes.c_ulong(0)) != 0:
        error = ctypes.get_errno()
        raise OSError(error, f"prctl(PR_SET_SECCOMP): {os.strerror(error)}")


def answers_enosys(name: str) -> bool:
    """Make the system call with arguments that can do nothing, and tell whether the kernel knows it."""
    libc = ctypes.CDLL(None, use_errno=True)
    nothing = [ctypes.c_long(-1)] * 5
    if name == "close_range":  # first > last, and unknown flags: refused
        nothing = [ctypes.c_long(1), ctypes.c_long(0), ctypes.c_long(-1), ctypes.c_long(0), ctypes.c_long(0)]
    if name == "clone3":  # a size that is too small: refused before anything is read
        nothing = [ctypes.c_long(0)] * 5
    ctypes.set_errno(0)
    result = libc.syscall(ctypes.c_long(_NUMBERS[name]), *nothing)
    return bool(result == -1 and ctypes.get_errno() == errno.ENOSYS)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option."""
    parser.addoption(
        "--enosys",
        default="",
        metavar="GROUPS",
        help=f"make these system calls answer ENOSYS in the whole session: {', '.join(GROUPS)}",
    )


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Install the filter, before any other plug-in can have started a thread or a process."""
    groups = [group for group in config.getoption("--enosys").split(",") if group]
    if not groups:
        return
    try:
        install(groups)
    except (OSError, RuntimeError, ValueError) as error:
        raise pytest.UsageError(f"--enosys: {error}") from error


def pytest_report_header() -> list[str]:
    """Say in the header which system calls are missing."""
    return [f"enosys: {', '.join(ACTIVE)}"] if ACTIVE else []


@pytest.fixture
def cgroup_kill_disabled() -> bool:
    """Tell whether the session asked for a kernel without ``cgroup.kill``."""
    return CGROUP_KILL_DISABLED
