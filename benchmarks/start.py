"""How long one container takes, from the call to everything reaped: containerlib, its peers, the kernel.

    python benchmarks/start.py [--rounds 40] [--rows floor,crun,...] [--json FILE] [--check]

All rows run /bin/true of Debian's static busybox, without a network, from one root directory on tmpfs, where
the storage of every engine is too. Rows are interleaved (A B C A B C ...), and each but fork+exec first
proves its isolation from the inside. Needs root, gcc and busybox-static; a peer that is not installed is a
missing row. `--check` ends with status 1 if a target is missed or not measured.
"""

from __future__ import annotations

import contextlib
import glob
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from typing import TYPE_CHECKING, Any

from measure import (
    CHECKOUT,
    HERE,
    LineWorker,
    MissingRowError,
    import_cost_ms,
    interleave,
    summary,
    worker_argv,
)
from peers import CAPABILITIES, LOOK_INSIDE, PEERS, SEEN_INSIDE, Peer, Place, program, run
from report import Target, arguments, at_most, conclude, print_table, settings_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping

FLOOR, BARE, IN_PROCESS, LARGE, CLI = "floor", "fork+exec", "in-process", "in-process-1gib", "cli"
EXTRAS = ("throughput", "memory", "import")
APPLETS = ("true", "sh", "hostname", "grep", "sleep", "wc")


class Benchmark:
    """The rows that were asked for, their numbers, and why some have none."""

    def __init__(self, place: Place, wanted: list[str]) -> None:
        """Take the place all rows share, and the names of the rows to measure (none: all)."""
        self.place = place
        self.wanted = wanted or [FLOOR, BARE, IN_PROCESS, LARGE, CLI, *PEERS, *EXTRAS]
        self._image = ""
        self.missing: dict[str, str] = {}
        self.times: dict[str, list[float]] = {}
        self.extras: dict[str, float] = {}
        state = {"CONTAINERLIB_ROOT": place.make("cl"), "CONTAINERLIB_RUN_ROOT": place.make("cl-run")}
        self._environment = os.environ | state

    def time_starts(self, *, rounds: int, warmup: int) -> None:
        """Measure all rows that are one start each, interleaved."""
        workers: dict[str, LineWorker] = {}
        with contextlib.ExitStack() as stack:
            for name in (name for name in self.wanted if name not in EXTRAS):
                with self._missing_if_failing(name):
                    workers[name] = stack.enter_context(contextlib.closing(self._worker(name)))
            self.times, failed = interleave(workers, rounds=rounds, warmup=warmup)
        self.missing |= failed

    def measure_extras(self) -> None:
        """Measure throughput in starts per second, memory in bytes per idle container, import in ms."""
        asks: dict[str, Callable[[], float]] = {
            "throughput": lambda: self._ask_library("throughput 8 400"),
            "memory": lambda: self._ask_library("idle 50"),
            "import": lambda: import_cost_ms("import containerlib; containerlib.__file__.strip()", rounds=30),
        }
        for name in (name for name in EXTRAS if name in self.wanted):
            with self._missing_if_failing(name):
                self.extras[name] = asks[name]()

    def _ask_library(self, question: str) -> float:
        with contextlib.closing(self._library()) as worker:
            return worker.ask(question)

    @contextlib.contextmanager
    def _missing_if_failing(self, name: str) -> Iterator[None]:
        try:
            yield
        except (MissingRowError, OSError, ValueError, subprocess.SubprocessError) as error:
            self.missing[name] = str(error) or type(error).__name__

    def _library(self, heap_mib: int = 0) -> LineWorker:
        argv = worker_argv("containerlib", self.place.rootfs, str(heap_mib), *LOOK_INSIDE)
        worker = LineWorker(argv, env=self._environment)
        self._image, seen = json.loads(worker.greeting)
        compare(seen, except_for=("host", "files", "core"))  # these have other defaults
        return worker

    def _worker(self, name: str) -> LineWorker:
        """Start the worker of a row; a peer, and the floor, first prove what they isolate."""
        if name == BARE:
            return LineWorker(worker_argv("exec", "--", f"{self.place.rootfs}/bin/true", small=True))
        if name in (IN_PROCESS, LARGE):
            return self._library(1024 if name == LARGE else 0)
        if name == CLI:
            return self._command_line()
        if name == FLOOR:
            floor = [
                self.place.path("floor"),
                "--rootfs",
                self.place.rootfs,
                "--seccomp",
                self.place.seccomp_file,
            ]
            prove(Peer(command=lambda argv: [*floor, "--show", "--", *argv]))
            return LineWorker([*floor, "--", "/bin/true"], greets=False)
        if name not in PEERS:
            raise MissingRowError("there is no such row")
        peer = PEERS[name](self.place)
        prove(peer)
        return LineWorker(peer.worker_argv(), env=os.environ | dict(peer.variables))

    def _command_line(self) -> LineWorker:
        self._library().close()
        script = os.path.join(os.path.dirname(sys.executable), "containerlib")
        code = f"import sys; sys.path.insert(0, {CHECKOUT!r}); from containerlib.cli.main import main; main()"
        command = [script] if os.path.exists(script) else [sys.executable, "-c", code]
        command += ["run", "--network", "none", self._image, "/bin/true"]
        run(command, self._environment)  # if this fails, it says why
        return LineWorker(worker_argv("exec", "--", *command, small=True), env=self._environment)


def prove(peer: Peer) -> None:
    """Look inside a container of `peer`, and compare what is seen there with what must be there."""
    redirect = " ".join(f"{number}<{path}" for number, path in peer.opened.items())
    look = [*peer.prefix, "sh", "-c", f'exec "$@" {redirect}', "sh", *peer.command(LOOK_INSIDE)]
    compare(run(look, peer.variables))


def compare(said: str, *, except_for: Collection[str] = ()) -> None:
    """Compare what LOOK_INSIDE printed in a container with what must be there."""
    seen = dict(line.split(maxsplit=1) for line in said.splitlines() if line.split()[1:])
    expected = {key: value for key, value in SEEN_INSIDE.items() if key not in except_for}
    wrong = {key: seen.get(key) for key, value in expected.items() if seen.get(key) != value}
    if wrong:
        raise MissingRowError(f"isolation differs inside: {wrong}")


def targets(medians: Mapping[str, float], extras: Mapping[str, float]) -> list[Target]:
    """Return what is to be reached, and whether it is."""

    def ratio(name: str, *others: str) -> float | None:
        known = [medians[other] for other in others if other in medians]
        return medians[name] / min(known) if name in medians and known else None

    memory, rate = extras.get("memory"), extras.get("throughput")
    return [
        at_most("in-process / floor", ratio(IN_PROCESS, FLOOR), 1.5),
        at_most("in-process / crun (the faster row)", ratio(IN_PROCESS, "crun", "crun-cgroup2"), 0.3),
        at_most("in-process / bubblewrap", ratio(IN_PROCESS, "bubblewrap"), 0.8),
        at_most("1 GiB heap / without", ratio(LARGE, IN_PROCESS), 1.1),
        at_most("MB per idle container", None if memory is None else memory / 1e6, 0.15),
        at_most("import, ms", extras.get("import"), 10.0),
        ("starts per second, 8 threads", rate, 200.0, rate is not None and rate >= 200.0),
    ]


def report(benchmark: Benchmark, json_path: str, settings: Mapping[str, Any]) -> bool:
    """Print the tables, write the file, and return whether every target holds."""
    numbers = {name: summary(samples) for name, samples in benchmark.times.items()}
    floor = numbers[FLOOR]["median"] if FLOOR in numbers else None
    rows = []
    for name, row in numbers.items():
        shown = [f"{row[key] / 1e3:.2f}" for key in ("median", "p95", "min")]
        rows.append([name, *shown, f"{row['median'] / floor:.2f}" if floor else "-"])
    header = ["row", "median ms", "p95 ms", "min ms", "x floor"]
    print_table("One container, from the call to everything reaped", header, rows)
    return conclude(
        times=benchmark.times,
        extras=benchmark.extras,
        missing=benchmark.missing,
        targets=targets({name: row["median"] for name, row in numbers.items()}, benchmark.extras),
        settings=settings,
        json_path=json_path,
    )


def prepare(stack: contextlib.ExitStack) -> Place:
    """Make the temporary directory with the root directory, the seccomp program and the compiled floor."""
    sys.path.append(CHECKOUT)
    from containerlib.runtime.seccomp import load_default  # noqa: PLC0415 - the checkout, if not installed

    directory = tempfile.mkdtemp(prefix="clb-", dir="/dev/shm")
    paths = (directory, f"{directory}/rootfs", f"{directory}/filter")
    place = Place(*paths, cgroup=f"bench-{os.getpid()}", stack=contextlib.ExitStack())
    stack.callback(remove_place, place)
    stack.enter_context(place.stack)
    for sub in ("bin", "dev", "etc", "proc", "sys", "tmp"):
        place.make(f"rootfs/{sub}")
    shutil.copy(program("busybox"), f"{place.rootfs}/bin/busybox")
    for applet in APPLETS:
        os.symlink("busybox", f"{place.rootfs}/bin/{applet}")
    with open(place.seccomp_file, "wb") as output:
        output.write(load_default(platform.machine(), frozenset(CAPABILITIES)))
    run([program("gcc"), "-O2", "-static", "-o", place.path("floor"), os.path.join(HERE, "floor.c")])
    return place


def remove_place(place: Place) -> None:
    """Undo what is left at the end: mounts below the directory, empty cgroups, the directory."""
    with open("/proc/self/mountinfo", encoding="utf-8") as table:
        mounted = [line.split()[4] for line in table]
    for target in reversed(mounted):
        if target.startswith(place.directory + "/"):
            subprocess.run(["umount", "--lazy", target], check=False, capture_output=True)
    for pattern in ("/sys/fs/cgroup", "/sys/fs/cgroup/*"):
        for top in glob.glob(f"{pattern}/{place.cgroup}*"):
            for path, _, _ in os.walk(top, topdown=False):
                with contextlib.suppress(OSError):
                    os.rmdir(path)
    shutil.rmtree(place.directory, ignore_errors=True)


def main() -> int:
    """Run the benchmark that the command line asks for."""
    chosen = arguments(__doc__, "start", rounds=40, warmup=3)
    settings = settings_of(chosen, "tmpfs")
    with contextlib.ExitStack() as stack:
        benchmark = Benchmark(prepare(stack), chosen.rows)
        benchmark.time_starts(rounds=chosen.rounds, warmup=chosen.warmup)
        benchmark.measure_extras()
        return 1 if not report(benchmark, chosen.json, settings) and chosen.check else 0


if __name__ == "__main__":
    sys.exit(main())
