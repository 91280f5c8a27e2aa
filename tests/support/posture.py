"""The full security posture of a process, read from /proc, and its difference to an expected one.

`Posture.collect` reads everything the kernel says about a process; `Posture.diff` compares it field by field
with an expectation in which a field may be a value, `ANY`, or a predicate. An expectation has to name every
field, so that a new field cannot go unnoticed; `partial` fills the rest with `ANY` on purpose.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Final, Self

from support.mounts import MountEntry, read_mounts

__all__ = ["ANY", "CAPABILITY_SETS", "Descriptor", "Expectation", "Posture", "partial"]

CAPABILITY_SETS = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")
NAMESPACES = ("cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts")
_O_CLOEXEC = 0o2000000


class _Any:
    """Equal to everything; says in an expectation that a field was considered and does not matter."""

    def __repr__(self) -> str:
        return "ANY"


ANY: Final = _Any()
Expectation = Mapping[str, object]


@dataclass(frozen=True, slots=True, order=True)
class Descriptor:
    """One open descriptor.

    Attributes:
        number: The descriptor.
        target: What /proc/<pid>/fd/<number> links to.
        flags: Open file flags without the close-on-exec bit.
        cloexec: Whether it closes on exec.
        is_directory: Whether it is a directory; None when that could not be found out.
    """

    number: int
    target: str
    flags: int
    cloexec: bool
    is_directory: bool | None


@dataclass(frozen=True, slots=True)
class Posture:
    """What a process may do and what it holds.

    Attributes:
        comm: Command name.
        exe: What /proc/<pid>/exe links to, or None for a zombie or without permission.
        exe_seals: Seals of the executable if it is a memfd, else None.
        uids: Real, effective, saved and file system user id.
        gids: The same of the group id.
        groups: Supplementary groups, sorted.
        capabilities: The five sets as numbers, by their names in /proc/<pid>/status.
        no_new_privs: Whether exec can still raise privileges.
        seccomp_mode: 0 none, 1 strict, 2 filter.
        seccomp_filters: How many filters are stacked; -1 before Linux 5.9.
        namespaces: Inode of each namespace by its name.
        dumpable: See `_read_dumpable`; None where it cannot be told.
        descriptors: All open descriptors, by number.
        mounts: The mount table that the process sees.
        session: Session id.
        process_group: Process group id.
        terminal: Device number of the controlling terminal, 0 without one.
        cwd: Working directory, as seen from here.
        root: Root directory, as seen from here.
        cgroups: Path by controllers; the empty string stands for version 2.
        oom_score_adj: As the kernel has it.
        limits: Soft and hard limit by the name in /proc/<pid>/limits.
        blocked: Signals that are blocked, as a set of numbers.
        ignored: Signals that are ignored.
        caught: Signals that have a handler.
        umask: File mode creation mask.
        threads: Number of threads.
        thread_differences: Fields of status in which a thread differs from the process; empty is good.
    """

    comm: str
    exe: str | None
    exe_seals: int | None
    uids: tuple[int, ...]
    gids: tuple[int, ...]
    groups: tuple[int, ...]
    capabilities: Mapping[str, int]
    no_new_privs: bool
    seccomp_mode: int
    seccomp_filters: int
    namespaces: Mapping[str, int]
    dumpable: bool | None
    descriptors: tuple[Descriptor, ...]
    mounts: tuple[MountEntry, ...]
    session: int
    process_group: int
    terminal: int
    cwd: str | None
    root: str | None
    cgroups: Mapping[str, str]
    oom_score_adj: int
    limits: Mapping[str, tuple[str, str]]
    blocked: frozenset[int]
    ignored: frozenset[int]
    caught: frozenset[int]
    umask: int
    threads: int
    thread_differences: tuple[str, ...]

    @classmethod
    def collect(cls, pid: int) -> Self:
        """Read the posture of a process.

        The process should be stopped or waiting: the files are read one after the other.

        Raises:
            FileNotFoundError: There is no such process.
            PermissionError: The process may not be looked at.
        """
        status = _read_status(f"/proc/{pid}")
        stat = (
            Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        )
        return cls(
            comm=status["Name"],
            exe=_read_link(f"/proc/{pid}/exe"),
            exe_seals=_read_seals(pid),
            uids=_numbers(status["Uid"]),
            gids=_numbers(status["Gid"]),
            groups=tuple(sorted(_numbers(status["Groups"]))),
            capabilities={name: int(status[name], 16) for name in CAPABILITY_SETS},
            no_new_privs=status["NoNewPrivs"] == "1",
            seccomp_mode=int(status.get("Seccomp", "0")),
            seccomp_filters=int(status.get("Seccomp_filters", "-1")),
            namespaces=_read_namespaces(pid),
            dumpable=_read_dumpable(pid, _numbers(status["Uid"])),
            descriptors=_read_descriptors(pid),
            mounts=read_mounts(pid),
            session=int(stat[3]),
            process_group=int(stat[2]),
            terminal=int(stat[4]),
            cwd=_read_link(f"/proc/{pid}/cwd"),
            root=_read_link(f"/proc/{pid}/root"),
            cgroups=_read_cgroups(pid),
            oom_score_adj=int(Path(f"/proc/{pid}/oom_score_adj").read_text(encoding="ascii")),
            limits=_read_limits(pid),
            blocked=_signals(status["SigBlk"]),
            ignored=_signals(status["SigIgn"]),
            caught=_signals(status["SigCgt"]),
            umask=int(status["Umask"], 8),
            threads=int(status["Threads"]),
            thread_differences=_compare_threads(pid, status),
        )

    def diff(self, expected: Expectation | Posture) -> list[str]:
        """Compare field by field.

        Args:
            expected: Another posture, or a value, a predicate or `ANY` for each field by its name. A
                predicate is called with the value and returns whether it is as it should be.

        Returns:
            One sentence for each field that differs, that is not named, or that does not exist.
        """
        if isinstance(expected, Posture):
            expected = {field.name: getattr(expected, field.name) for field in fields(Posture)}
        names = [field.name for field in fields(Posture)]
        found = [f"{name}: there is no such field" for name in expected if name not in names]
        for name in names:
            if name not in expected:
                found.append(f"{name}: the expectation does not name it")
            elif (difference := _compare(getattr(self, name), expected[name])) is not None:
                found.append(f"{name}: {difference}")
        return found


def partial(**expected: object) -> dict[str, object]:
    """Return an expectation for these fields alone; all others may have any value."""
    return {field.name: ANY for field in fields(Posture)} | expected


def _compare(actual: object, expected: object) -> str | None:
    """Return what is wrong with one field, or None."""
    if isinstance(expected, _Any):
        return None
    if callable(expected):
        return None if expected(actual) else f"{_name_of(expected)} is not true of {actual!r}"
    if isinstance(actual, Mapping) and isinstance(expected, Mapping):
        wrong = {
            key: (actual.get(key), expected.get(key))
            for key in sorted(actual.keys() | expected.keys())
            if _compare(actual.get(key), expected.get(key)) is not None
        }
        return (
            "; ".join(f"{key} is {is_!r}, expected {should!r}" for key, (is_, should) in wrong.items())
            or None
        )
    return None if actual == expected else f"is {actual!r}, expected {expected!r}"


def _name_of(predicate: Callable[..., object]) -> str:
    """Name a predicate in a message."""
    return str(getattr(predicate, "__name__", predicate))


def _numbers(text: str) -> tuple[int, ...]:
    """Parse blank-separated numbers."""
    return tuple(int(word) for word in text.split())


def _signals(mask: str) -> frozenset[int]:
    """Turn a hexadecimal signal mask into signal numbers."""
    value = int(mask, 16)
    return frozenset(number for number in range(1, 65) if value >> (number - 1) & 1)


def _read_status(directory: str) -> dict[str, str]:
    """Read the status file of a process or a thread."""
    text = Path(f"{directory}/status").read_text(encoding="utf-8", errors="replace")
    return {key: value.strip() for key, _, value in (line.partition(":") for line in text.splitlines())}


def _read_link(path: str) -> str | None:
    """Read a link; None when there is none (a kernel thread, a zombie) or it is forbidden."""
    try:
        return os.readlink(path)
    except (FileNotFoundError, PermissionError):
        return None


def _read_namespaces(pid: int) -> dict[str, int]:
    """Read the inode of each namespace the kernel knows."""
    links = {name: _read_link(f"/proc/{pid}/ns/{name}") for name in NAMESPACES}
    return {name: int(link.partition("[")[2][:-1]) for name, link in links.items() if link is not None}


def _read_seals(pid: int) -> int | None:
    """Read the seals of the executable; None for a file that cannot have any."""
    with contextlib.suppress(OSError):
        opened = os.open(f"/proc/{pid}/exe", os.O_RDONLY | os.O_CLOEXEC)
        try:
            return fcntl.fcntl(opened, fcntl.F_GET_SEALS)
        finally:
            os.close(opened)
    return None


def _read_descriptors(pid: int) -> tuple[Descriptor, ...]:
    """Read all descriptors; one that is closed meanwhile (such as the one that lists them) is left out."""
    found = []
    for number in map(int, os.listdir(f"/proc/{pid}/fd")):
        target = _read_link(f"/proc/{pid}/fd/{number}")
        if target is None:
            continue
        info = Path(f"/proc/{pid}/fdinfo/{number}").read_text(encoding="ascii", errors="replace")
        flags = int(next(line.split()[1] for line in info.splitlines() if line.startswith("flags:")), 8)
        try:
            is_directory = os.path.isdir(f"/proc/{pid}/fd/{number}")
        except OSError:
            is_directory = None
        found.append(Descriptor(number, target, flags & ~_O_CLOEXEC, bool(flags & _O_CLOEXEC), is_directory))
    return tuple(sorted(found))


def _read_cgroups(pid: int) -> dict[str, str]:
    """Read the path in each hierarchy."""
    lines = Path(f"/proc/{pid}/cgroup").read_text(encoding="utf-8").splitlines()
    return {names: path for _number, names, path in (line.split(":", 2) for line in lines)}


def _read_limits(pid: int) -> dict[str, tuple[str, str]]:
    """Read soft and hard limits; the columns of the file are 26, 21 and 21 characters wide."""
    lines = Path(f"/proc/{pid}/limits").read_text(encoding="ascii").splitlines()[1:]
    return {line[:26].strip(): (line[26:47].strip(), line[47:68].strip()) for line in lines}


# Credentials and seccomp are per thread in the kernel: changing them in one thread leaves the others alone.
_PER_THREAD = ("Uid", "Gid", "Groups", *CAPABILITY_SETS, "NoNewPrivs", "Seccomp", "Seccomp_filters")


def _compare_threads(pid: int, status: Mapping[str, str]) -> tuple[str, ...]:
    """Name the fields in which a thread differs from the thread group leader."""
    found = []
    for name in sorted(os.listdir(f"/proc/{pid}/task"), key=int):
        try:
            other = _read_status(f"/proc/{pid}/task/{name}")
        except (FileNotFoundError, ProcessLookupError):
            continue
        found += [f"thread {name}: {key}" for key in _PER_THREAD if other.get(key) != status.get(key)]
    return tuple(found)


# A process that may look at another one only as its equal: all capabilities permitted (they have to be a
# superset of the target's), none effective (so that CAP_SYS_PTRACE does not help). kcmp(2) checks the real
# credentials and the permitted set, and what then refuses is the dumpable attribute.
_DUMPABLE_PROBE = """
import ctypes, errno, os, struct, sys
pid, number = int(sys.argv[1]), int(sys.argv[2])
libc = ctypes.CDLL(None, use_errno=True)
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
permitted = int(status["CapPrm"], 16)
header = struct.pack("=Ii", 0x20080522, 0)
words = [0, permitted & 0xFFFFFFFF, 0, 0, permitted >> 32, 0]
if libc.capset(header, struct.pack("=6I", *words)) != 0:
    sys.exit(2)
long = ctypes.c_long
if libc.syscall(long(number), long(pid), long(pid), long(1), long(0), long(0)) == 0:
    sys.exit(0)
sys.exit(1 if ctypes.get_errno() == errno.EPERM else 2)
"""
_KCMP = {"x86_64": 312, "aarch64": 272}


def _read_dumpable(pid: int, uids: tuple[int, ...]) -> bool | None:
    """Derive the dumpable attribute, which the kernel shows nowhere.

    The files of a process that is not dumpable belong to the root of the user namespace it was executed in,
    those of one that is belong to its effective user (proc(5); the directory /proc/<pid> itself always
    belongs to the latter). That decides for every user but root. For a process of root in our own user
    namespace, a child with no effective capability asks kcmp(2), which refuses when the process is not
    dumpable. For root of another user namespace neither way tells: None.
    """
    effective = uids[1]
    if os.stat(f"/proc/{pid}/status").st_uid != effective:
        return False
    if effective != 0:
        return True
    same_namespace = _read_link(f"/proc/{pid}/ns/user") == _read_link("/proc/self/ns/user")
    number = _KCMP.get(os.uname().machine)
    if not same_namespace or number is None or set(uids) != {0} or os.getuid() != 0:
        return None
    arguments = [sys.executable, "-I", "-c", _DUMPABLE_PROBE, str(pid), str(number)]
    return {0: True, 1: False}.get(subprocess.run(arguments, check=False).returncode)
