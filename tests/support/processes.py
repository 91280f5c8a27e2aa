"""The process table, and which of its rows this test session is responsible for.

A process is ours when it descends from this one, or when it looks like a part of a container, has lost its
parents to process 1, and shows no sign of belonging to another session on the same host.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from support.session import is_own, other_sessions

__all__ = ["COMM_PREFIX", "GROUP_PREFIX", "Process", "ProcessTable"]

COMM_PREFIX = "ctr-"
"""Command names of the spawner, the supervisors and their helpers start with this."""
GROUP_PREFIX = "containerlib-"
"""Names of the control groups start with this."""


@dataclass(frozen=True, slots=True)
class Process:
    """One process, identified by number and start time."""

    pid: int
    start_time: int
    parent: int
    comm: str
    state: str
    group: str
    netns: str

    @classmethod
    def read(cls, pid: int) -> Self | None:
        """Read one process; None when it has ended meanwhile."""
        try:
            stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
            groups = Path(f"/proc/{pid}/cgroup").read_text(encoding="utf-8", errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            return None
        head, _, tail = stat.rpartition(")")
        fields = tail.split()
        group = next((line.split(":", 2)[2] for line in groups.splitlines() if GROUP_PREFIX in line), "")
        comm = head.split("(", 1)[1]
        return cls(pid, int(fields[19]), int(fields[1]), comm, fields[0], group, _read_netns(pid))

    @property
    def is_marked(self) -> bool:
        """Whether the process looks like a part of a container."""
        return self.comm.startswith(COMM_PREFIX) or bool(self.group)

    def __str__(self) -> str:
        zombie = " (zombie)" if self.state == "Z" else ""
        group = f", cgroup {self.group}" if self.group else ""
        return f"{self.comm}{zombie}, pid {self.pid}, child of {self.parent}{group}"


def _read_netns(pid: int) -> str:
    """Read the name of the network namespace; empty for a zombie or without permission."""
    try:
        return os.readlink(f"/proc/{pid}/ns/net")
    except OSError:
        return ""


class ProcessTable:
    """All processes of the host at one time."""

    def __init__(self) -> None:
        found = (Process.read(int(name)) for name in os.listdir("/proc") if name.isdecimal())
        self._rows = {process.pid: process for process in found if process is not None}
        self._others = other_sessions()

    def _chain(self, process: Process) -> list[Process]:
        """Return the process and its ancestors, up to process 1."""
        chain = [process]
        while (parent := self._rows.get(chain[-1].parent)) is not None and parent not in chain:
            chain.append(parent)
        return chain

    def ours(self) -> list[Process]:
        """Return the processes that this session has to account for, without itself."""
        return [process for process in self._rows.values() if self._is_ours(process)]

    def _is_ours(self, process: Process) -> bool:
        """Decide for one process."""
        if process.state == "Z" and process.parent == 1:
            return False  # it has ended, and process 1 takes its time to hear of it
        ancestors = [ancestor.pid for ancestor in self._chain(process)[1:]]
        if os.getpid() in ancestors:
            return True
        if self._others.intersection(ancestors) or process.pid == os.getpid():
            return False
        return self._is_orphan(process) and _owner(process) is not False

    def _is_orphan(self, process: Process) -> bool:
        """Tell whether the process is part of a container whose topmost part was given to process 1."""
        chain = self._chain(process)
        unmarked = next((ancestor for ancestor in chain if not ancestor.is_marked), None)
        return process.is_marked and (unmarked is None or unmarked.pid == 1)

    def network_namespaces(self) -> dict[str, list[Process]]:
        """Map each network namespace to those of its holders that are ours or have lost their parents."""
        holders: dict[str, list[Process]] = {}
        for process in self._rows.values():
            if (
                process.netns
                and (process.parent == 1 or self._is_ours(process))
                and _owner(process) is not False
            ):
                holders.setdefault(process.netns, []).append(process)
        return holders


def _owner(process: Process) -> bool | None:
    """Look at what an orphan has open for the directory of a test session."""
    links = [f"/proc/{process.pid}/cwd", f"/proc/{process.pid}/root", f"/proc/{process.pid}/exe"]
    seen = []
    try:
        links += [entry.path for entry in os.scandir(f"/proc/{process.pid}/fd")]
        seen.append(Path(f"/proc/{process.pid}/mountinfo").read_text(encoding="utf-8", errors="replace"))
    except OSError:
        pass
    for link in links:
        try:
            seen.append(os.readlink(link))
        except OSError:
            continue
    return is_own("\n".join(seen))
