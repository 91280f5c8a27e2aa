"""How long an OCI runtime's commands take on one bundle: containerlib-oci, runc, crun, and Python alone.

    python benchmarks/oci_runtime.py [--rounds 30] [--rows containerlib-oci,runc,...] [--json FILE] [--check]

The bundle of `benchmarks/peers.py` is created, started and deleted; run; and joined by a command, each to
the end of the runtime's process. `python` is the interpreter that starts and ends, with what commands import
and without: what a path compiled ahead of time would save. Rows are interleaved. Needs root, gcc,
busybox-static, runc and crun. `--check` ends with status 1 if a target is missed.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import peers
from exec import take_times
from measure import MissingRowError, summary
from peers import program, run
from report import Target, arguments, at_most, conclude, print_table, settings_of
from start import prepare

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from peers import Place

OURS = "containerlib-oci"
ROWS = ("python", OURS, "runc", "crun")
CYCLE, RUN, EXEC = "create+start+delete", "run", "exec"
IDLE = ["/bin/busybox", "sleep", "100000"]
IMPORTS = "import containerlib.oci_cli.foreground, containerlib.oci_cli.arguments"


class Runtime:
    """One runtime with a state directory and bundles of its own."""

    def __init__(self, place: Place, name: str, stack: contextlib.ExitStack) -> None:
        path = shutil.which(name) or os.path.join(os.path.dirname(sys.executable), name)
        # runc writes the example that all bundles are made of.
        devices = [{"allow": False, "access": "rwm"}]
        limits = {} if name == "crun" else {"pids": {"limit": 2048}, "devices": devices}
        self.bundles = {
            key: peers.make_bundle(place, program("runc"), argv, f"{name}-{key}", dict(limits))
            for key, argv in (("true", ["/bin/true"]), ("idle", IDLE), ("cycle", ["/bin/true"]))
        }
        prefix: list[str] = []
        if name == "crun":
            prefix = ["unshare", "--mount", "sh", "-c", f'{peers.NO_CGROUP2}; exec "$@"', "sh"]
        self.words = [*prefix, path, "--root", place.make(f"{name}-state")]
        self.id = f"{place.cgroup}-{name}"
        self.call("create", "--bundle", self.bundles["idle"], f"{self.id}-idle")
        stack.callback(self.call, "delete", "--force", f"{self.id}-idle")
        self.call("start", f"{self.id}-idle")

    def call(self, *arguments: str) -> None:
        """Run one command. What it starts keeps its output, so none is read."""
        null = subprocess.DEVNULL
        done = subprocess.run([*self.words, *arguments], stdin=null, stdout=null, stderr=null, check=False)
        if done.returncode:
            raise MissingRowError(f"{' '.join(arguments)}: exit status {done.returncode}")

    def cycle(self) -> None:
        """Create, start, and delete when it has ended; by force runc would wait for a tenth of a second."""
        name, pid_file = f"{self.id}-cycle", f"{self.bundles['cycle']}/pid"
        self.call("create", "--bundle", self.bundles["cycle"], "--pid-file", pid_file, name)
        with open(pid_file, encoding="ascii") as file:
            pidfd = os.pidfd_open(int(file.read()))
        try:
            self.call("start", name)
            select.select([pidfd], [], [])
        finally:
            os.close(pidfd)
        self.call("delete", name)

    def run(self) -> None:
        """Run to the end."""
        self.call("run", "--bundle", self.bundles["true"], f"{self.id}-run")

    def exec(self) -> None:
        """Join the container that idles."""
        self.call("exec", f"{self.id}-idle", "/bin/true")


def actions_of(name: str, place: Place, stack: contextlib.ExitStack) -> dict[str, Callable[[], None]]:
    """Return what a row does, by what it is called."""
    if name == "python":
        return {
            "python, nothing": lambda: run([sys.executable, "-c", "pass"]) and None,
            "python, imports": lambda: run([sys.executable, "-c", IMPORTS]) and None,
        }
    runtime = Runtime(place, name, stack)
    return {
        f"{name}, {CYCLE}": runtime.cycle,
        f"{name}, {RUN}": runtime.run,
        f"{name}, {EXEC}": runtime.exec,
    }


def targets(medians: Mapping[str, float]) -> list[Target]:
    """Return what is to be reached, and whether it is."""

    def ratio(what: str) -> float | None:
        own, other = medians.get(f"{OURS}, {what}"), medians.get(f"runc, {what}")
        return own / other if own and other else None

    return [at_most(f"{what}, {OURS} / runc", ratio(what), 1.0) for what in (CYCLE, RUN, EXEC)]


def main() -> int:
    """Run the benchmark that the command line asks for."""
    chosen = arguments(__doc__, "oci_runtime", rounds=30, warmup=3)
    settings = settings_of(chosen, "tmpfs")
    missing: dict[str, str] = {}
    actions: dict[str, Callable[[], None]] = {}
    with contextlib.ExitStack() as stack:
        place = prepare(stack)
        for name in chosen.rows or ROWS:
            try:
                actions |= actions_of(name, place, stack)
            except (KeyError, MissingRowError, OSError, subprocess.SubprocessError) as error:
                missing[name] = str(error) or type(error).__name__
        times = take_times(actions, rounds=chosen.rounds, warmup=chosen.warmup)
    numbers = {name: summary(samples) for name, samples in times.items()}
    rows = [
        [name, *(f"{row[key] / 1e3:.1f}" for key in ("median", "p95", "min"))]
        for name, row in numbers.items()
    ]
    print_table("Commands of OCI runtimes", ["row", "median ms", "p95 ms", "min ms"], rows)
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
