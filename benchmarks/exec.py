"""How long a further command in a running container takes to its end: containerlib, its peers, the kernel.

    python benchmarks/exec.py [--rounds 100] [--rows fork+exec,in-process,...] [--json FILE] [--check]

All rows run `true` of Debian's static busybox in a container that idles, from the call to the exit code. The
floor is the same program on the host. Rows are interleaved (A B C A B C ...), and each but the floor first
proves that the command is in the container. Needs root, gcc and busybox-static; a peer that is not
installed is a missing row. `--check` ends with status 1 if a target is missed or not measured.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from typing import TYPE_CHECKING

from measure import MissingRowError, summary
from peers import PEERS, run
from report import Target, arguments, at_most, conclude, print_table, settings_of
from start import prepare

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from peers import Place

    from containerlib import Container, Engine, Image

FLOOR, IN_PROCESS, DETACHED = "fork+exec", "in-process", "detached"
COMMAND_LINES = ("docker", "podman")
ROWS = (FLOOR, IN_PROCESS, DETACHED, *COMMAND_LINES)
IDLE = ["sleep", "100000"]


def floor(place: Place, stack: contextlib.ExitStack) -> Callable[[], None]:
    """Return what runs the program on the host."""
    del stack
    argv = [f"{place.rootfs}/bin/true"]
    return lambda: subprocess.run(argv, check=True) and None


def library(place: Place, stack: contextlib.ExitStack) -> tuple[Engine, Image]:
    """Return an engine of its own with the image."""
    import containerlib as cl  # noqa: PLC0415 - the checkout, if not installed: see `prepare`

    engine = stack.enter_context(cl.Engine(place.make("cl"), place.make("cl-run")))
    return engine, engine.images.from_directory(place.rootfs, reference="bench:1")


def by_library(*, detached: bool) -> Callable[[Place, contextlib.ExitStack], Callable[[], None]]:
    """Return the maker of a row that calls containerlib."""

    def make(place: Place, stack: contextlib.ExitStack) -> Callable[[], None]:
        _, image = library(place, stack)
        container: Container = image.run(IDLE, lifetime="detached" if detached else "process")
        stack.callback(container.remove, force=True)
        if container.exec(["hostname"]).text.strip() != container.id[:12]:
            raise MissingRowError("the command is not in the container")
        return lambda: container.exec(["true"], check=True) and None

    return make


def by_command(name: str) -> Callable[[Place, contextlib.ExitStack], Callable[[], None]]:
    """Return the maker of a row that calls a peer's command line."""

    def make(place: Place, stack: contextlib.ExitStack) -> Callable[[], None]:
        peer = PEERS[name](place)
        start = peer.command(IDLE)
        at = start.index("run")
        keep = [*start[:at], "run", "--detach", "--name", "bench-exec", *start[at + 1 :]]
        run([*peer.prefix, *keep], peer.variables)
        stack.callback(run, [*peer.prefix, *start[:at], "kill", "bench-exec"], peer.variables)
        inside = [*peer.prefix, *start[:at], "exec", "bench-exec"]
        if run([*inside, "hostname"], peer.variables) != "bench":
            raise MissingRowError("the command is not in the container")
        return lambda: run([*inside, "true"], peer.variables) and None

    return make


MAKERS = {
    FLOOR: floor,
    IN_PROCESS: by_library(detached=False),
    DETACHED: by_library(detached=True),
    **{name: by_command(name) for name in COMMAND_LINES},
}


def take_times(
    actions: Mapping[str, Callable[[], None]], *, rounds: int, warmup: int
) -> dict[str, list[float]]:
    """Do everything once a round, and return the times in microseconds."""
    times: dict[str, list[float]] = {name: [] for name in actions}
    for turn in range(warmup + rounds):
        for name, action in actions.items():
            begin = time.perf_counter()
            action()
            if turn >= warmup:
                times[name].append((time.perf_counter() - begin) * 1e6)
    return times


def targets(medians: Mapping[str, float]) -> list[Target]:
    """Return what is to be reached, and whether it is."""

    def ratio(name: str, other: str) -> float | None:
        return medians[name] / medians[other] if name in medians and other in medians else None

    own = medians.get(IN_PROCESS)
    return [
        at_most("exec of true, ms", None if own is None else own / 1e3, 2.0),
        at_most("in-process / docker exec", ratio(IN_PROCESS, "docker"), 0.05),
        at_most("detached / docker exec", ratio(DETACHED, "docker"), 0.05),
    ]


def main() -> int:
    """Run the benchmark that the command line asks for."""
    chosen = arguments(__doc__, "exec", rounds=100, warmup=5)
    settings = settings_of(chosen, "tmpfs")
    missing: dict[str, str] = {}
    actions: dict[str, Callable[[], None]] = {}
    with contextlib.ExitStack() as stack:
        place = prepare(stack)
        for name in chosen.rows or ROWS:
            try:
                actions[name] = MAKERS[name](place, stack)
            except (KeyError, MissingRowError, OSError, subprocess.SubprocessError) as error:
                missing[name] = str(error) or type(error).__name__
        times = take_times(actions, rounds=chosen.rounds, warmup=chosen.warmup)
        numbers = {name: summary(samples) for name, samples in times.items()}
    base = numbers[FLOOR]["median"] if FLOOR in numbers else None
    rows = [
        [
            name,
            *(f"{row[key] / 1e3:.2f}" for key in ("median", "p95", "min")),
            f"{row['median'] / base:.2f}" if base else "-",
        ]
        for name, row in numbers.items()
    ]
    print_table(
        "true in a running container, to its exit",
        ["row", "median ms", "p95 ms", "min ms", "x floor"],
        rows,
    )
    holds = conclude(
        times=times,
        extras={},
        missing=missing,
        targets=targets({name: row["median"] for name, row in numbers.items()}),
        settings=settings,
        json_path=chosen.json,
    )
    return 1 if not holds and chosen.check else 0


if __name__ == "__main__":
    sys.exit(main())
