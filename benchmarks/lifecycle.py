"""How long the verbs of a container's life take, and what its log takes: containerlib, its peers.

    python benchmarks/lifecycle.py [--rounds 20] [--rows in-process,detached,...] [--json FILE] [--check]

Each round makes one container of Debian's static busybox, and measures `start` until the command was
executed, `stop` until it has returned (the command ends as soon as it gets SIGTERM), and `remove`. The log is
measured by a command that writes 32 MB of lines into it, from its start to its end. Rows are interleaved
(A B C A B C ...). Needs root, gcc and busybox-static; a peer that is not installed is a missing row.
`--check` ends with status 1 if a target is missed or not measured.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Protocol

from measure import MissingRowError, summary
from peers import PEERS, Peer, run
from report import Target, arguments, at_most, conclude, print_table, settings_of
from start import prepare

if TYPE_CHECKING:
    from collections.abc import Mapping

    from peers import Place

    from containerlib import Container, Image

IN_PROCESS, DETACHED, DOCKER, PODMAN = "in-process", "detached", "docker", "podman"
ROWS = (IN_PROCESS, DETACHED, DOCKER, PODMAN)
VERBS = ("start", "stop", "remove")
# The shell waits in read(2), which the signal interrupts.
POLITE = ["sh", "-c", "trap 'exit 0' TERM; mkfifo /tmp/f; read x < /tmp/f"]
LOG_BYTES = 32_000_000
LINE = b"a line of forty characters, as logs have\n"
LOUD = ["busybox", "cat", "/lines"]
SETTLE_S = 0.1
LOG_ROUNDS = 5


class Row(Protocol):
    """One engine."""

    def start(self) -> None:
        """Make and start a container."""

    def settle(self) -> None:
        """Wait until it can be stopped by its signal."""

    def stop(self) -> None:
        """Stop it."""

    def remove(self) -> None:
        """Remove it."""

    def log(self) -> None:
        """Run a container that writes much, to its end."""


class Library:
    """containerlib, in this process."""

    def __init__(self, place: Place, stack: contextlib.ExitStack, *, detached: bool) -> None:
        import containerlib as cl  # noqa: PLC0415 - the checkout, if not installed: see `prepare`

        name = "cl-detached" if detached else "cl"
        engine = stack.enter_context(cl.Engine(place.make(name), place.make(f"{name}-run")))
        self._image: Image = engine.images.from_directory(place.rootfs, reference="bench:1")
        self._lifetime = "detached" if detached else "process"
        self._container: Container | None = None

    def _run(self, command: list[str]) -> Container:
        return self._image.run(command, lifetime=self._lifetime)

    def start(self) -> None:
        """Make and start a container."""
        self._container = self._run(POLITE)

    def settle(self) -> None:
        """Wait until it can be stopped by its signal."""
        assert self._container is not None
        while not (self._container.fs / "tmp" / "f").exists():
            time.sleep(0.001)

    def stop(self) -> None:
        """Stop it."""
        assert self._container is not None
        status = self._container.stop(timeout_s=10)
        if status is None or status.exit_code != 0:
            raise MissingRowError(f"it did not end by SIGTERM: {status}")

    def remove(self) -> None:
        """Remove it."""
        assert self._container is not None
        self._container.remove()

    def log(self) -> None:
        """Run a container that writes much, to its end."""
        if self._lifetime != "detached":
            raise MissingRowError("has no log: its output is the caller's")
        container = self._run(LOUD)
        container.wait()
        container.remove()


class Command:
    """A peer's command line."""

    def __init__(self, place: Place, stack: contextlib.ExitStack, name: str) -> None:
        self._peer: Peer = PEERS[name](place)
        whole = self._peer.command(["true"])
        at = whole.index("run")
        self._program, self._options = whole[:at], whole[at + 1 : -1]
        stack.callback(self._clean_up)

    def _clean_up(self) -> None:
        """Remove what a row that was given up may have left."""
        with contextlib.suppress(MissingRowError, subprocess.SubprocessError):
            self.remove()

    def _call(self, *arguments: str) -> str:
        return run([*self._peer.prefix, *self._program, *arguments], self._peer.variables)

    def _run(self, command: list[str], *options: str) -> None:
        kept = [option for option in self._options if option != "--rm"]
        self._call("run", "--detach", "--name", "bench-life", *options, *kept, *command)

    def start(self) -> None:
        """Make and start a container."""
        self._run(POLITE)

    def settle(self) -> None:
        """Wait until it can be stopped by its signal."""
        time.sleep(SETTLE_S)

    def stop(self) -> None:
        """Stop it."""
        self._call("stop", "bench-life")

    def remove(self) -> None:
        """Remove it."""
        self._call("rm", "--force", "bench-life")

    def log(self) -> None:
        """Run a container that writes much, to its end."""
        driver = "json-file" if self._program[0].endswith("docker") else "k8s-file"
        self._run(LOUD, "--log-driver", driver)
        self._call("wait", "bench-life")
        self.remove()


def make(name: str, place: Place, stack: contextlib.ExitStack) -> Row:
    """Return a row, proved to work."""
    row: Row = (
        Library(place, stack, detached=name == DETACHED)
        if name in {IN_PROCESS, DETACHED}
        else Command(place, stack, name)
    )
    row.start()
    row.settle()
    row.stop()
    row.remove()
    return row


def timed(row: Row, verb: str) -> float:
    """Do one thing, and return the time in microseconds."""
    begin = time.perf_counter()
    getattr(row, verb)()
    return (time.perf_counter() - begin) * 1e6


def targets(medians: Mapping[str, float], rates: Mapping[str, float]) -> list[Target]:
    """Return what is to be reached, and whether it is."""

    def ratio(values: Mapping[str, float], name: str, other: str) -> float | None:
        return values[name] / values[other] if name in values and other in values else None

    stop = medians.get(f"{DETACHED} stop")
    starts = ratio(medians, f"{DETACHED} start", f"{IN_PROCESS} start")
    return [
        at_most("stop of one that ends by SIGTERM, ms", None if stop is None else stop / 1e3, 5.0),
        at_most("detached / in-process start", starts, 1.5),
        at_most("docker's log rate / ours", ratio(rates, DOCKER, DETACHED), 1 / 3),
    ]


def take_times(rows: Mapping[str, Row], *, rounds: int, warmup: int) -> dict[str, list[float]]:
    """Do everything once a round, and return the times in microseconds."""
    times: dict[str, list[float]] = {}
    for turn in range(warmup + rounds):
        for name, row in rows.items():
            for verb in VERBS:
                if verb == "stop":
                    row.settle()
                taken = timed(row, verb)
                if turn >= warmup:
                    times.setdefault(f"{name} {verb}", []).append(taken)
    return times


def take_log_times(rows: Mapping[str, Row], missing: dict[str, str]) -> dict[str, list[float]]:
    """Have each write its log a few times."""
    times: dict[str, list[float]] = {}
    for _ in range(LOG_ROUNDS):
        for name, row in rows.items():
            try:
                taken = timed(row, "log")
            except MissingRowError as error:
                missing[f"{name} log"] = str(error)
            else:
                times.setdefault(f"{name} log", []).append(taken)
    return times


def main() -> int:
    """Run the benchmark that the command line asks for."""
    chosen = arguments(__doc__, "lifecycle", rounds=20, warmup=2)
    settings = settings_of(chosen, "tmpfs")
    missing: dict[str, str] = {}
    rows: dict[str, Row] = {}
    with contextlib.ExitStack() as stack:
        place = prepare(stack)
        with open(f"{place.rootfs}/lines", "wb") as lines:
            lines.write(LINE * (LOG_BYTES // len(LINE)))
        for name in chosen.rows or ROWS:
            try:
                rows[name] = make(name, place, stack)
            except (KeyError, MissingRowError, OSError, subprocess.SubprocessError) as error:
                missing[name] = str(error) or type(error).__name__
        times = take_times(rows, rounds=chosen.rounds, warmup=chosen.warmup)
        times |= take_log_times(rows, missing)
    numbers = {name: summary(samples) for name, samples in times.items()}
    columns = ("median", "p95", "min")
    print_table(
        "verbs",
        ["row", *(f"{column} ms" for column in columns)],
        [[name, *(f"{row[key] / 1e3:.2f}" for key in columns)] for name, row in numbers.items()],
    )
    logs = {name.removesuffix(" log"): row for name, row in numbers.items() if name.endswith(" log")}
    rates = {name: LOG_BYTES / row["median"] for name, row in logs.items()}
    print_table("log, 32 MB", ["row", "MB/s"], [[name, f"{rate:.0f}"] for name, rate in rates.items()])
    holds = conclude(
        times=times,
        extras={"log_mb_per_s": rates},
        missing=missing,
        targets=targets({name: row["median"] for name, row in numbers.items()}, rates),
        settings=settings,
        json_path=chosen.json,
    )
    return 1 if not holds and chosen.check else 0


if __name__ == "__main__":
    sys.exit(main())
