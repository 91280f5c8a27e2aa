"""What the benchmarks of pulling and pushing have in common: registries, fresh stores, and peak memory.

Every measurement has a store that was made for it, on the same file system for all, and everything written
before is on the disk before the clock starts. Nothing is removed until the end: a file system that has just
removed many files makes new ones slowly.

It must not know what is compared with what. In: a `Site`. Out: an `Action`, or `MissingRowError`.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Self

from measure import CHECKOUT, LineWorker, MissingRowError, worker_argv
from peers import program, run, start_docker

sys.path.append(os.path.join(CHECKOUT, "tests"))
from support.docker_registry import DockerRegistry, docker_registry, skopeo_copy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from images import Layout

__all__ = ["Action", "Numbers", "Site", "command", "library_variables", "site", "take_turns"]

_SAMPLE_S = 0.02
_NONE = (0, 0, 0, 0)
_NO_CACHE = "mount -t tmpfs none /var/lib"  # podman keeps what it knows of blobs there, whatever its options


@dataclass(frozen=True)
class Action:
    """What a row does while the clock runs, and how it is seen that it has done it.

    Attributes:
        perform: Does it, and returns the seconds it took; None if those of the call count.
        prove: Raises `MissingRowError` if it was not done.
    """

    perform: Callable[[], float | None]
    prove: Callable[[], None]


@dataclass
class Numbers:
    """What was measured: times in microseconds, the most memory in bytes, and why a row is missing."""

    times: dict[str, list[float]] = field(default_factory=dict)
    memory: dict[str, int] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)

    @contextlib.contextmanager
    def missing_if_failing(self, name: str) -> Iterator[None]:
        """Do without the row `name` if it fails, and keep the reason."""
        try:
            yield
        except (MissingRowError, OSError, AssertionError, subprocess.SubprocessError) as error:
            self.missing[name] = str(error) or type(error).__name__
            self.times.pop(name, None)


@dataclass
class Site:
    """Where the stores of all rows are, and the registries they are filled from."""

    directory: Path
    layout: Layout
    stack: contextlib.ExitStack
    _made: int = 0

    def make(self, name: str) -> Path:
        """Return a new directory, with a short name: unix sockets will be in it."""
        self._made += 1
        path = self.directory / f"{name}{self._made}"
        path.mkdir()
        return path

    @contextlib.contextmanager
    def registry(self) -> Iterator[DockerRegistry]:
        """Run Debian's registry, with nothing in it."""
        program("docker-registry")
        with docker_registry(self.make("g")) as running:
            yield running

    @contextlib.contextmanager
    def filled_registry(self) -> Iterator[DockerRegistry]:
        """Run a registry that has both images, as `bench/image:first` and `:second`."""
        with self.registry() as running:
            for tag in ("first", "second"):
                skopeo_copy(f"oci:{self.layout.path}:{tag}", f"docker://{running.host}/bench/image:{tag}")
            yield running

    @contextlib.contextmanager
    def library(self, name: str) -> Iterator[tuple[LineWorker, Path]]:
        """Give a process with an engine on a new store, for the image `name`; and the store."""
        root = self.make("c")
        environment = os.environ | library_variables(root)
        with contextlib.closing(LineWorker(worker_argv("images", name), env=environment)) as worker:
            yield worker, root

    def podman(self) -> tuple[list[str], Path]:
        """Return podman's command on a new store, and the store."""
        root = self.make("p")
        options = f"--root {root}/r --runroot {root}/n --tmpdir {root}/t --storage-driver overlay"
        enter = [
            "unshare",
            "--mount",
            "--propagation",
            "private",
            "sh",
            "-c",
            f'{_NO_CACHE}; exec "$@"',
            "sh",
        ]
        return [*enter, program("podman"), *options.split()], root

    @contextlib.contextmanager
    def docker(self) -> Iterator[tuple[list[str], Path]]:
        """Run a dockerd on a new store. Gives the client's command, and the store."""
        root = self.make("d")
        with contextlib.ExitStack() as stack:
            host = start_docker(str(root), stack)
            yield [program("docker"), "--config", str(root / "client"), "--host", host], root


@contextlib.contextmanager
def site(storage: str, layout: Layout, *, needed_bytes: int) -> Iterator[Site]:
    """Make the directory of all stores below `storage`, and remove it with everything in the end."""
    free = shutil.disk_usage(storage).free
    if free < needed_bytes:
        sys.exit(f"{storage} has {free / 1e9:.0f} GB, and {needed_bytes / 1e9:.0f} are needed: see --storage")
    with contextlib.ExitStack() as stack:
        directory = Path(tempfile.mkdtemp(prefix="clb-", dir=storage))
        stack.callback(subprocess.run, ["rm", "-rf", str(directory)], check=False)
        yield Site(directory, layout, stack)


def library_variables(root: Path) -> dict[str, str]:
    """Return the environment of an engine below `root`."""
    return {"CONTAINERLIB_ROOT": f"{root}/r", "CONTAINERLIB_RUN_ROOT": f"{root}/n"}


def command(argv: list[str], prove: Callable[[], None], variables: Mapping[str, str] | None = None) -> Action:
    """Return the action that is this command, from its start to its end."""

    def perform() -> None:
        run(argv, variables)

    return Action(perform, prove)


def take_turns(
    rows: Mapping[str, Callable[[], contextlib.AbstractContextManager[Action]]], *, rounds: int, warmup: int
) -> Numbers:
    """Measure every row once per round (A B C A B C ...), each time on a store of its own."""
    numbers = Numbers()
    for turn in range(warmup + rounds):
        for name, row in rows.items():
            if name in numbers.missing:
                continue
            with numbers.missing_if_failing(name):
                elapsed_s, memory = _measure(row)
                print(f"{name}: {elapsed_s:.2f} s", file=sys.stderr, flush=True)
                if turn >= warmup:
                    numbers.times.setdefault(name, []).append(elapsed_s * 1e6)
                numbers.memory[name] = max(memory, numbers.memory.get(name, 0))
    return numbers


def _measure(row: Callable[[], contextlib.AbstractContextManager[Action]]) -> tuple[float, int]:
    """Return the seconds of one action and the most memory of it."""
    others = _descendants(os.getpid())
    with row() as action:
        os.sync()
        with PeakMemory(others) as memory:
            start = time.perf_counter()
            said = action.perform()
            elapsed_s = time.perf_counter() - start
        action.prove()
    return (elapsed_s if said is None else said), memory.peak_bytes


class PeakMemory:
    """The most memory that the processes below this one have had, without some of them.

    It is the sum of the high-water marks of all that lived at the same time, at the moment when that sum was
    largest. The truth is less: a page that two of them share counts twice.
    """

    def __init__(self, without: set[int]) -> None:
        self.peak_bytes = 0
        self._without = without
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._look()
        self._end.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._end.wait(_SAMPLE_S):
            self._look()

    def _look(self) -> None:
        sizes = {pid: _sizes(pid) for pid in _descendants(os.getpid()) - self._without}
        # What has the very sizes of its parent is not a program of its own yet: they share their memory.
        own = [one for one in sizes.values() if one[1:] != sizes.get(one[0], _NONE)[1:]]
        self.peak_bytes = max(self.peak_bytes, sum(high_water_mark for _, high_water_mark, _, _ in own))


def _descendants(ancestor: int) -> set[int]:
    """Return all processes below one, at the cost of reading what is about these alone."""
    found: set[int] = set()
    new = [ancestor]
    while new:
        pid = new.pop()
        with contextlib.suppress(OSError):
            for task in os.listdir(f"/proc/{pid}/task"):
                with contextlib.suppress(OSError), open(f"/proc/{pid}/task/{task}/children") as children:
                    new += map(int, children.read().split())
        found.add(pid)
    return found - {ancestor}


def _sizes(pid: int) -> tuple[int, int, int, int]:
    """Return the parent of a process, the most memory it has had, and two more sizes, in bytes.

    A registry has none: it is the other side.
    """
    with contextlib.suppress(OSError), open(f"/proc/{pid}/status", encoding="utf-8") as status:
        values = dict(line.split(":", 1) for line in status)
        if values["Name"].strip() != "docker-registry" and "VmHWM" in values:
            high, data, peak = (int(values[key].split()[0]) * 1024 for key in ("VmHWM", "VmData", "VmPeak"))
            return int(values["PPid"]), high, data, peak
    return _NONE
