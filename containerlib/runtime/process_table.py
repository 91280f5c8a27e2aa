"""What the kernel says of processes by number: read from /proc, which they cannot change.

A process may end at any moment, and its number may be given to another; who cares makes sure that it was the
container's after reading.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from attrs import frozen

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["ProcessInfo", "pids_of_namespace", "read_processes"]

_ARGUMENTS_LIMIT = 32768
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_STATES = {
    "R": "running",
    "S": "sleeping",
    "D": "waiting in the kernel",
    "T": "stopped",
    "t": "traced",
    "Z": "zombie",
    "X": "dead",
    "I": "idle",
}


@frozen(kw_only=True)
class ProcessInfo:
    """One process of a container.

    Attributes:
        pid: Its number, as this process sees it.
        container_pid: Its number within the container.
        parent_pid: Number of its parent, as this process sees it; 0 if that is none of its business.
        uid: User that it runs as, as this process sees it.
        state: ``"running"``, ``"sleeping"``, ``"waiting in the kernel"``, ``"stopped"``, ``"zombie"``, ...
        command: Its arguments, by its own words; its name in brackets where it has none.
        started_at: When it was started, in seconds since the epoch.
        cpu_s: Processor time that it has used, in seconds.
        resident_bytes: Memory that it has in use, what it shares with others included.
        threads: How many threads it has.
    """

    pid: int
    container_pid: int
    parent_pid: int
    uid: int
    state: str
    command: tuple[str, ...]
    started_at: float
    cpu_s: float
    resident_bytes: int
    threads: int


def read_processes(pids: Iterable[int]) -> list[ProcessInfo]:
    """Look at processes, by their numbers; those that are gone are left out.

    Cost: three small files each.
    """
    boot_s = _boot_time_s()
    found = (_read_process(pid, boot_s) for pid in sorted(pids))
    return [each for each in found if each is not None]


def pids_of_namespace(first: int) -> set[int]:
    """Numbers of the processes in the PID namespace of process `first`; those of namespaces below are not.

    For hosts without control groups. Cost: a system call for each process of the host.
    """
    try:
        wanted = os.stat(f"/proc/{first}/ns/pid").st_ino
    except OSError:
        return set()
    found = set()
    for name in os.listdir("/proc"):
        if name.isdecimal():
            with contextlib.suppress(OSError):
                if os.stat(f"/proc/{name}/ns/pid").st_ino == wanted:
                    found.add(int(name))
    return found


def _boot_time_s() -> int:
    with open("/proc/stat", "rb") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(b"btime "))


def _read_process(pid: int, boot_s: int) -> ProcessInfo | None:
    try:
        stat = _read(f"/proc/{pid}/stat")
        status = _read(f"/proc/{pid}/status")
        arguments = _read(f"/proc/{pid}/cmdline")
    except OSError:
        return None
    # The name is the process's own choice and may hold anything, so what follows its last bracket counts.
    head, _, tail = stat.rpartition(b")")
    fields = tail.split()
    said = dict(line.split(b":", 1) for line in status.splitlines() if b":" in line)
    command = [os.fsdecode(part) for part in arguments.rstrip(b"\0").split(b"\0")] if arguments else []
    return ProcessInfo(
        pid=pid,
        container_pid=int(said.get(b"NSpid", str(pid).encode()).split()[-1]),
        parent_pid=int(fields[1]),
        uid=int(said[b"Uid"].split()[1]),
        state=_STATES.get(fields[0].decode(), fields[0].decode()),
        command=tuple(command) or (f"[{os.fsdecode(head.partition(b'(')[2])}]",),
        started_at=boot_s + int(fields[19]) / _TICKS_PER_S,
        cpu_s=(int(fields[11]) + int(fields[12])) / _TICKS_PER_S,
        resident_bytes=int(fields[21]) * _PAGE_BYTES,
        threads=int(fields[17]),
    )


def _read(path: str) -> bytes:
    with open(path, "rb", buffering=0) as file:
        return file.read(_ARGUMENTS_LIMIT) or b""
