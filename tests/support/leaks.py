"""What a test may not leave behind, compared before and after.

Every test below ``tests/native`` and ``tests/integration`` is guarded by the automatic fixture `no_leaks`:
mounts, processes, descriptors, threads, control groups, network namespaces, links, kernel keys and files in
the run roots must be the same after the test as before it. Things are compared by kind and number, so an
engine that lives longer than the test may replace its spawner, but may not have a second one.

The kernel takes some things down later than the call that asked for it returns, so a difference counts only
when it is still there after `DEADLINE_S`.

Other test sessions on the host are told apart by process ancestry and by paths. What carries no sign of its
owner (links, keys, empty control groups) is compared only while no other session runs.
"""

from __future__ import annotations

import gc
import os
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import pytest
from support.cgroups import named_directories
from support.mounts import MountEntry, read_mounts
from support.processes import GROUP_PREFIX, ProcessTable
from support.session import base_directory, close_session, is_own, live_roots, other_sessions

__all__ = ["DEADLINE_S", "Snapshot", "is_guarded", "wait_until_clean"]

DEADLINE_S = 10.0
GUARDED_DIRECTORIES = frozenset({"native", "integration"})

# Numbers of sockets and processes; and leases, of which an engine keeps one for the image that it used last.
_VARIABLE_PART = re.compile(r"\[\d+\]|(?<=^/proc/)\d+|(?<=/leases/)[0-9a-f]{16}( \(deleted\))?$")

# What is compared: how things look alike, and for each such look the things themselves.
Aspect = Mapping[str, tuple[str, ...]]


def _collect(pairs: Iterable[tuple[str, str]]) -> Aspect:
    """Group the things by their look."""
    found: dict[str, tuple[str, ...]] = {}
    for look, thing in pairs:
        found[look] = (*found.get(look, ()), thing)
    return found


def _mounts() -> Aspect:
    """Mounts of this process's mount namespace, without those below another session's directory."""
    return _collect((_describe(mount),) * 2 for mount in read_mounts() if is_own(mount.target) is not False)


def _describe(mount: MountEntry) -> str:
    """Describe a mount by all that does not change when the kernel reuses an id."""
    propagation = " ".join(mount.propagation) or "private"
    options = ",".join(sorted(mount.options))
    super_options = ",".join(sorted(mount.super_options))
    return (
        f"{mount.target} ({mount.fstype} {mount.source} root {mount.root} on {mount.device}, "
        f"{options}; {propagation}; {super_options})"
    )


def _descriptors() -> Aspect:
    """Descriptors of this process by the kind of what they refer to.

    The sealed copy of our program is made once, by whoever is first, and stays: one is none too many.
    """
    pairs = []
    has_program = False
    for name in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:  # the descriptor that listed the directory
            continue
        if target.startswith("/memfd:ctr-spawner") and not has_program:
            has_program = True
            continue
        pairs.append((_VARIABLE_PART.sub("*", target), f"{name} -> {target}"))
    return _collect(pairs)


def _threads() -> Aspect:
    """Threads of this process, Python's and others."""
    names = {thread.native_id: thread.name for thread in threading.enumerate()}
    pairs = []
    for name in os.listdir("/proc/self/task"):
        try:
            comm = Path(f"/proc/self/task/{name}/comm").read_text(encoding="utf-8", errors="replace").strip()
        except (FileNotFoundError, ProcessLookupError):
            continue
        pairs.append((comm, f"{names.get(int(name), comm)} (thread {name})"))
    return _collect(pairs)


def _files() -> Aspect:
    """Files below the directories that live engines own, but for the journal, which is there to stay."""
    return _collect(
        (path, path)
        for root in live_roots()
        for parent, directories, files in os.walk(root)
        for path in (os.path.join(parent, name) for name in (*directories, *files))
        if parent not in {f"{root}/events", f"{root}/n/events"} and not path.endswith("/events")
    )


def _groups() -> Aspect:
    """Control groups, each once for all hierarchies: a live engine may come to need one more of those."""
    found: dict[str, list[str]] = {}
    for name, path in named_directories(GROUP_PREFIX):
        found.setdefault(name, []).append(str(path))
    return {name: (", ".join(sorted(paths)),) for name, paths in found.items()}


def _key_count() -> int:
    """Count the kernel keys of this user; 0 where the kernel has no keys."""
    try:
        lines = Path("/proc/key-users").read_text(encoding="ascii").splitlines()
    except FileNotFoundError:
        return 0
    rows = {int(line.split(":")[0]): line.split(":")[1].split() for line in lines}
    return int(rows[os.getuid()][1].split("/")[0]) if os.getuid() in rows else 0


@dataclass(frozen=True)
class Snapshot:
    """Everything that a test might leave behind, at one time.

    Attributes:
        aspects: What was found, by what it is called in a message.
        is_shared: Whether another test session was running on the host.
    """

    aspects: Mapping[str, Aspect]
    is_shared: bool

    # A mount that is gone is as bad as one that has come: it was the host's.
    SYMMETRIC = frozenset({"mount"})
    OWNERLESS = frozenset({"cgroup", "link", "kernel key"})
    OF_THIS_PROCESS = frozenset({"descriptor", "thread"})

    @classmethod
    def take(cls) -> Self:
        """Look at everything now."""
        base_directory()
        table = ProcessTable()
        namespaces = table.network_namespaces().items()
        aspects: dict[str, Aspect] = {
            "mount": _mounts(),
            "process": _collect((process.comm, str(process)) for process in table.ours()),
            "descriptor": _descriptors(),
            "thread": _threads(),
            "cgroup": _groups(),
            "network namespace": _collect((name, f"{name} of {holders[0]}") for name, holders in namespaces),
            "link": _collect((name, name) for name in os.listdir("/sys/class/net")),
            "kernel key": {"key": tuple(f"number {n + 1} of this user" for n in range(_key_count()))},
            "file": _files(),
        }
        return cls(aspects, is_shared=bool(other_sessions()))

    def differences(self, later: Snapshot, *, skip: frozenset[str] = frozenset()) -> list[str]:
        """List what `later` has more than this one, and which mounts it has not any more.

        Args:
            later: A snapshot of the same process.
            skip: Aspects that are not compared.
        """
        if self.is_shared or later.is_shared:
            skip |= self.OWNERLESS
        found = []
        for name in self.aspects.keys() - skip:
            mine, theirs = self.aspects[name], later.aspects[name]
            found += [f"{name}: {thing}" for thing in _surplus(mine, theirs)]
            if name in self.SYMMETRIC:
                found += [f"{name} is gone: {thing}" for thing in _surplus(theirs, mine)]
        return sorted(found)


def _surplus(before: Aspect, after: Aspect) -> list[str]:
    """Return the things by which `after` exceeds `before`, look by look."""
    found: list[str] = []
    for look, things in after.items():
        number = len(things) - len(before.get(look, ()))
        if number > 0:
            new = [thing for thing in things if thing not in before.get(look, ())]
            found += (new or list(things))[-number:]
    return found


def wait_until_clean(
    before: Snapshot,
    *,
    deadline_s: float = DEADLINE_S,
    skip: frozenset[str] = frozenset(),
    take: Callable[[], Snapshot] = Snapshot.take,
) -> list[str]:
    """Compare with now until nothing is left over or the time is up; return what is left over.

    Objects that wait for the garbage collector are collected before the second look: a test's traceback may
    hold them, and that is not a leak.
    """
    deadline = time.monotonic() + deadline_s
    pause = 0.002
    while leaks := before.differences(take(), skip=skip):
        if time.monotonic() > deadline:
            break
        gc.collect()
        time.sleep(pause)
        pause = min(pause * 2, 0.1)
    return leaks


def is_guarded(path: Path, root: Path) -> bool:
    """Tell whether tests in this file are guarded."""
    return path.is_relative_to(root) and not GUARDED_DIRECTORIES.isdisjoint(path.relative_to(root).parts)


def _report(when: str, leaks: list[str]) -> str:
    """Say what was left over."""
    return "\n  ".join([f"left over after the {when}:", *leaks])


@pytest.fixture(autouse=True)
def no_leaks(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a guarded test that leaves anything behind."""
    if not is_guarded(request.path, request.config.rootpath):
        yield
        return
    before = Snapshot.take()
    yield
    leaks = wait_until_clean(before, deadline_s=request.config.getoption("--leak-deadline"))
    if leaks:
        pytest.fail(_report("test", leaks), pytrace=False)


@pytest.fixture(scope="session", autouse=True)
def no_session_leaks(pytestconfig: pytest.Config) -> Iterator[None]:
    """Fail the last test if the session as a whole leaves anything behind on the host.

    Descriptors and threads of this process end with it, so they are not compared.
    """
    before = Snapshot.take()
    yield
    deadline_s = pytestconfig.getoption("--leak-deadline")
    leaks = wait_until_clean(before, deadline_s=deadline_s, skip=Snapshot.OF_THIS_PROCESS)
    if leaks:
        pytest.fail(_report("session", leaks), pytrace=False)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option."""
    parser.addoption(
        "--leak-deadline",
        type=float,
        default=DEADLINE_S,
        metavar="SECONDS",
        help="how long a difference may last before it counts as a leak",
    )


def pytest_unconfigure() -> None:
    """Remove the session's directory."""
    close_session()
