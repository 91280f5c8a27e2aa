"""What many idle detached containers at once cost: time to start, list and remove them, and memory.

    python benchmarks/density.py [--count 1000] [--peers 20] [--json FILE] [--check]

All containers idle (`sleep` of Debian's static busybox). Memory is what the machine has less of, by
/proc/meminfo, and of that the supervisors' proportional share. The cost of a start is measured in-process,
before there is any detached container and when there are all. Peers start only `--peers` containers: what
one costs there is multiplied, and said so. Needs root, gcc and busybox-static. `--check` ends with status 1
if a target is missed or not measured.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import os
import statistics
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

from measure import HERE, MissingRowError, pss_bytes
from peers import PEERS, run
from report import Target, at_most, conclude, print_table, settings_of
from start import prepare

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from peers import Place

    from containerlib import Container, Engine, Image

OWN, PEER_NAMES = "containerlib", ("docker", "podman")
IDLE = ["sleep", "100000"]
KIB, MIB = 1024, 1 << 20
SETTLE_S = 2.0
STARTS = 30


def available_bytes() -> int:
    """Return how much memory the machine has left."""
    with open("/proc/meminfo", encoding="ascii") as text:
        return next(int(line.split()[1]) * KIB for line in text if line.startswith("MemAvailable:"))


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Do something, and return how many seconds that took, and what it gave."""
    begin = time.perf_counter()
    result = work()
    return time.perf_counter() - begin, result


def start_ms(image: Image) -> float:
    """Return the median time of an in-process start to its end."""
    return statistics.median(timed(lambda: image.call(["true"]))[0] for _ in range(STARTS)) * 1e3


def parent_of(pid: int) -> int:
    """Return the parent of a process."""
    with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as stat:
        return int(stat.read().rpartition(")")[2].split()[1])


def measure_own(place: Place, count: int) -> dict[str, float]:
    """Measure containerlib."""
    import containerlib as cl  # noqa: PLC0415 - the checkout, if not installed: see `prepare`

    root, run_root = place.make("cl"), place.make("cl-run")
    with cl.Engine(root, run_root) as engine:
        image = engine.images.from_directory(place.rootfs, reference="bench:1")
        image.run(IDLE, lifetime="detached").remove(force=True)
        alone_ms = start_ms(image)
        gc.collect()
        free = available_bytes()
        start_s, containers = timed(lambda: [image.run(IDLE, lifetime="detached") for _ in range(count)])
        time.sleep(SETTLE_S)
        used = free - available_bytes()
        supervisors = pss_bytes(parent_of(each.pid) for each in containers)
        crowded_ms = start_ms(image)
        list_s = measure_listing(cl.Engine, root, run_root, count)
        remove_s = measure_removal(engine, containers)
    return {
        "count": count,
        "start_s": start_s,
        "list_s": list_s,
        "remove_s": remove_s,
        "memory_bytes_each": used / count,
        "supervisor_bytes_each": supervisors / count,
        "start_alone_ms": alone_ms,
        "start_crowded_ms": crowded_ms,
    }


def measure_listing(make: Callable[[str, str], Engine], root: str, run_root: str, count: int) -> float:
    """Return how long an engine that knows nothing yet takes to list all, with their states."""
    with make(root, run_root) as other:
        list_s, found = timed(other.containers.list)
        states = [each.state for each in found]
    if states != ["running"] * count:
        raise MissingRowError(f"{len(found)} were found")
    return list_s


def measure_removal(engine: Engine, containers: list[Container]) -> float:
    """Return how long it takes to remove all by force."""
    remove_s, _ = timed(lambda: [each.remove(force=True) for each in containers])
    if engine.containers.list():
        raise MissingRowError("not all were removed")
    return remove_s


def measure_peer(place: Place, name: str, count: int) -> dict[str, float]:
    """Measure a peer's command line."""
    peer = PEERS[name](place)
    whole = peer.command(IDLE)
    at = whole.index("run")
    program, options = [*peer.prefix, *whole[:at]], whole[at + 1 :]
    kept = [option for option in options if option != "--rm"]

    def call(*arguments: str) -> str:
        return run([*program, *arguments], peer.variables)

    free = available_bytes()
    try:
        start_s, _ = timed(
            lambda: [call("run", "--detach", "--name", f"density-{n}", *kept) for n in range(count)]
        )
        time.sleep(SETTLE_S)
        used = free - available_bytes()
        list_s, _ = timed(lambda: call("ps", "--format", "{{.Names}}"))
    finally:
        # Docker kills at once; podman would first wait ten seconds for each.
        at_once = ("--time", "0") if name == "podman" else ()
        remove_s, _ = timed(lambda: call("rm", "--force", *at_once, *(f"density-{n}" for n in range(count))))
    return {
        "count": count,
        "start_s": start_s,
        "list_s": list_s,
        "remove_s": remove_s,
        "memory_bytes_each": used / count,
    }


def targets(own: Mapping[str, float] | None) -> list[Target]:
    """Return what is to be reached with a thousand, and whether it is."""
    found = own or {}
    scale = 1000 / found["count"] if found else 0.0

    def of(key: str, factor: float) -> float | None:
        return found[key] * factor if key in found else None

    crowded = found["start_crowded_ms"] / found["start_alone_ms"] if found else None
    return [
        at_most("1,000 started, s", of("start_s", scale), 10),
        at_most("memory each, MiB", of("memory_bytes_each", 1 / MIB), 0.5),
        at_most("supervisor each, MiB", of("supervisor_bytes_each", 1 / MIB), 0.15),
        at_most("1,000 listed, ms", of("list_s", scale * 1e3), 100),
        at_most("1,000 removed, s", of("remove_s", scale), 10),
        at_most("start at 1,000 / at 0", crowded, 1.5),
    ]


def shown(name: str, row: Mapping[str, float]) -> list[str]:
    """Return a line of the table, for a thousand containers."""
    scale = 1000 / row["count"]
    supervisor = row.get("supervisor_bytes_each")
    return [
        name,
        f"{row['count']:g}",
        f"{row['start_s'] * scale:.1f}",
        f"{row['list_s'] * 1e3:.0f}",
        f"{row['remove_s'] * scale:.1f}",
        f"{row['memory_bytes_each'] / MIB:.2f}",
        "-" if supervisor is None else f"{supervisor / MIB:.3f}",
    ]


def main() -> int:
    """Run the benchmark that the command line asks for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--peers", type=int, default=20, help="how many containers a peer starts")
    parser.add_argument("--json", default=os.path.join(HERE, "results", "density.json"), metavar="FILE")
    parser.add_argument("--check", action="store_true", help="end with status 1 if a target does not hold")
    chosen = parser.parse_args()
    chosen.rounds, chosen.warmup = 1, 0
    rows: dict[str, dict[str, float]] = {}
    missing: dict[str, str] = {}
    with contextlib.ExitStack() as stack:
        place = prepare(stack)
        rows[OWN] = measure_own(place, chosen.count)
        for name in PEER_NAMES if chosen.peers else ():
            try:
                rows[name] = measure_peer(place, name, chosen.peers)
            except (MissingRowError, OSError, subprocess.SubprocessError) as error:
                missing[name] = str(error) or type(error).__name__
    print_table(
        "idle containers at once (starting and removing: scaled to 1,000)",
        ["row", "measured with", "start s", "list ms", "remove s", "MiB each", "supervisor MiB"],
        [shown(name, row) for name, row in rows.items()],
    )
    holds = conclude(
        times={},
        extras=rows,
        missing=missing,
        targets=targets(rows.get(OWN)),
        settings=settings_of(chosen, "tmpfs"),
        json_path=chosen.json,
    )
    return 1 if not holds and chosen.check else 0


if __name__ == "__main__":
    sys.exit(main())
