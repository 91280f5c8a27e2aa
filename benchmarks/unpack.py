"""What a small file costs the unpacker, on tmpfs, beside GNU tar. A part of `pull`, and of use by itself.

python benchmarks/unpack.py [ROUNDS]
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from images import small_files
from measure import LineWorker, summary, worker_argv
from peers import run

__all__ = ["SMALL_FILE", "time_unpacking"]

SMALL_FILE = "small file"
_FILES = 20_000


def time_unpacking(*, rounds: int) -> dict[str, float]:
    """Return the microseconds per file (medians of interleaved rounds) of the library and of tar."""
    directory = Path(tempfile.mkdtemp(prefix="clb-", dir="/dev/shm"))
    try:
        small_files(directory / "tree", _FILES, "unpack")
        archive = directory / "tree.tar"
        subprocess.run(["tar", "-C", directory / "tree", "-cf", archive, "--format=pax", "."], check=True)
        shutil.rmtree(directory / "tree")
        return _take_turns(directory, archive, rounds)
    finally:
        shutil.rmtree(directory)


def _take_turns(directory: Path, archive: Path, rounds: int) -> dict[str, float]:
    ours: list[float] = []
    tars: list[float] = []
    target = directory / "target"
    with contextlib.closing(LineWorker(worker_argv("unpack", str(archive), str(target)))) as worker:
        for turn in range(rounds + 1):
            for times in (ours, tars):
                target.mkdir()
                elapsed = worker.ask() if times is ours else _time_tar(archive, target)
                shutil.rmtree(target)
                if turn > 0:
                    times.append(elapsed / _FILES)
    return {
        f"unpack, us per {SMALL_FILE}": summary(ours)["median"],
        f"tar -x, us per {SMALL_FILE}": summary(tars)["median"],
    }


def _time_tar(archive: Path, target: Path) -> float:
    start = time.perf_counter_ns()
    run(["tar", "-C", str(target), "-xf", str(archive)])
    return (time.perf_counter_ns() - start) / 1e3


if __name__ == "__main__":
    for name, value in time_unpacking(rounds=int(sys.argv[1]) if sys.argv[1:] else 5).items():
        print(f"{name}: {value:.1f}")
