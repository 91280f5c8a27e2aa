"""How long pulling an image takes: containerlib, docker, podman, and the limit of downloading and unpacking.

    python benchmarks/pull.py [--rounds 5] [--rows containerlib,docker,...] [--storage DIRECTORY] [--check]

The image has four layers (see `images`) and comes from Debian's docker-registry over loopback. Rows are
interleaved, each pull goes into a store of its own, and what the registry reads is in the page cache for all.
The limit is what the same work takes without any engine: curl, igzip and tar, on all processors, without
looking at what comes. Needs root, docker-registry, skopeo, mmdebstrap, curl, isal, and 7 GB for each round;
a peer that is not installed is a missing row. `--check` ends with status 1 if a target is missed or not
measured.
"""

from __future__ import annotations

import contextlib
import functools
import os
import subprocess
import sys
import sysconfig
from typing import TYPE_CHECKING, Any

from images import benchmark_layout
from measure import MissingRowError, summary
from peers import program, run
from report import Target, arguments, at_most, conclude, print_table, settings_of
from transfer import Action, Numbers, Site, command, library_variables, site, take_turns
from unpack import SMALL_FILE, time_unpacking

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from support.docker_registry import DockerRegistry

FILES = 31_000  # fewer files than these below a store are not the whole image
EXTRAS = ("second", "unpack")
ROUND_BYTES, OTHER_BYTES = 7 << 30, 3 << 30

# Download everything side by side, then decompress and unpack as many layers at once as there are processors.
_LIMIT = """set -e; cd "$1"; shift
curl --silent --show-error --fail --parallel --parallel-max 8 $(printf -- '-O %s ' "$@")
for url in "$@"; do mkdir "${url##*:}.d"; done
printf '%s\\n' "$@" | sed 's/.*:/sha256:/' |
    xargs -P "$(nproc)" -I{} sh -c 'set -e; n={}; igzip -d -c "$n" | tar -x -C "${n#*:}.d"'
"""
# The same without waiting for the downloads; the faster of the two is the limit.
_LIMIT_STREAMED = """set -e; cd "$1"; shift
for url in "$@"; do mkdir "${url##*:}.d"; done
printf '%s\\n' "$@" | xargs -P "$#" -I{} sh -c 'set -e; u={}; n="${u##*:}"
    curl --silent --show-error --fail "$u" | tee "$n" | igzip -d -c | tar -x -C "$n.d"'
"""
LIMITS = {"limit": _LIMIT, "limit, streamed": _LIMIT_STREAMED}


class Benchmark:
    """The rows of one run, with the registry they pull from."""

    def __init__(self, place: Site, registry: DockerRegistry) -> None:
        self.place = place
        self.registry = registry
        self.name = f"{registry.host}/bench/image:first"

    def rows(self) -> dict[str, Callable[[], contextlib.AbstractContextManager[Action]]]:
        """Return how each row gets ready, in their order."""
        limits = {name: functools.partial(self._limit, script) for name, script in LIMITS.items()}
        engines = {"containerlib": self._library, "cli": self._command_line}
        return {**limits, **engines, "docker": self._docker, "podman": self._podman}

    @contextlib.contextmanager
    def _library(self) -> Iterator[Action]:
        with self.place.library(self.name) as (worker, root):
            yield Action(lambda: worker.ask("pull") / 1e6, lambda: prove(root))

    @contextlib.contextmanager
    def _command_line(self) -> Iterator[Action]:
        root = self.place.make("c")
        script = os.path.join(sysconfig.get_path("scripts"), "containerlib")
        yield command([script, "pull", self.name], lambda: prove(root), library_variables(root))

    @contextlib.contextmanager
    def _docker(self) -> Iterator[Action]:
        with self.place.docker() as (docker, root):
            yield command([*docker, "pull", "--quiet", self.name], lambda: prove(root))

    @contextlib.contextmanager
    def _podman(self) -> Iterator[Action]:
        podman, root = self.place.podman()
        argv = [*podman, "pull", "--quiet", "--tls-verify=false", self.name]
        yield command(argv, lambda: prove(root))

    @contextlib.contextmanager
    def _limit(self, script: str) -> Iterator[Action]:
        for name in ("curl", "igzip", "tar"):
            program(name)
        root = self.place.make("l")
        layers = self.place.layout.manifest("first")["layers"]
        urls = [f"http://{self.registry.host}/v2/bench/image/blobs/{layer['digest']}" for layer in layers]
        yield command(["sh", "-c", script, "sh", str(root), *urls], lambda: prove(root))

    def second_image(self) -> dict[str, Any]:
        """Pull both images into one store, and count the bytes of blobs that the second one fetches."""
        with self.place.library(self.name) as (worker, root):
            worker.ask("pull")
            before = len(self.registry.log.read_bytes())
            name = self.name.replace(":first", ":second")
            environment = os.environ | library_variables(root)
            script = os.path.join(sysconfig.get_path("scripts"), "containerlib")
            subprocess.run([script, "pull", name], env=environment, check=True, capture_output=True)
        log = self.registry.log.read_bytes()[before:].decode(errors="replace")
        fetched = [line for line in log.splitlines() if '"GET ' in line and "/blobs/" in line]
        first, second = (self.place.layout.manifest(tag) for tag in ("first", "second"))
        shared = {layer["digest"] for layer in first["layers"]}
        new = [blob for blob in (*second["layers"], second["config"]) if blob["digest"] not in shared]
        return {
            "fetched_bytes": sum(int(line.rpartition('HTTP/1.1" ')[2].split()[1]) for line in fetched),
            "new_bytes": sum(blob["size"] for blob in new),
        }


def prove(store: Path) -> None:
    """Look for all files of the image below a store."""
    count = int(run(["sh", "-c", 'find "$1" -type f | wc -l', "sh", str(store)]))
    if count < FILES:
        raise MissingRowError(f"only {count} files are there")


def targets(numbers: Numbers, extras: Mapping[str, Any]) -> list[Target]:
    """Return what is to be reached, and whether it is."""
    medians = {name: summary(samples)["median"] for name, samples in numbers.times.items()}
    limit = min((medians[name] for name in LIMITS if name in medians), default=None)

    def ratio(other: float | None) -> float | None:
        return medians["containerlib"] / other if other and "containerlib" in medians else None

    memory, second = numbers.memory.get("containerlib"), extras.get("second image")
    return [
        at_most("containerlib / docker pull", ratio(medians.get("docker")), 0.25),
        at_most("containerlib / podman pull", ratio(medians.get("podman")), 0.25),
        at_most("containerlib / limit (the faster row)", ratio(limit), 1.5),
        at_most("peak memory, MB", memory / 1e6 if memory else None, 150.0),
        at_most(
            "second image: bytes fetched / new", second and second["fetched_bytes"] / second["new_bytes"], 1.0
        ),
        at_most("unpacking a small file on tmpfs, us", extras.get(f"unpack, us per {SMALL_FILE}"), 35.0),
    ]


def report(numbers: Numbers, extras: Mapping[str, Any], settings: Mapping[str, Any], json_path: str) -> bool:
    """Print the tables, write the file, and return whether every target holds."""
    medians = {name: summary(samples) for name, samples in numbers.times.items()}
    limit = min((medians[name]["median"] for name in LIMITS if name in medians), default=None)
    rows = []
    for name, row in medians.items():
        shown = [f"{row[key] / 1e6:.2f}" for key in ("median", "p95", "min")]
        ratio = f"{row['median'] / limit:.2f}" if limit else "-"
        rows.append([name, *shown, ratio, f"{numbers.memory[name] / 1e6:.0f}"])
    print_table(
        "One image, from the call to everything unpacked",
        ["row", "median s", "p95 s", "min s", "x limit", "peak MB"],
        rows,
    )
    return conclude(
        times=numbers.times,
        extras={**extras, "peak_memory_bytes": numbers.memory},
        missing=numbers.missing,
        targets=targets(numbers, extras),
        settings=settings,
        json_path=json_path,
    )


def main() -> int:
    """Run the benchmark that the command line asks for."""
    chosen = arguments(__doc__, "pull", rounds=5, warmup=1, storage="/var/tmp")
    layout = benchmark_layout()
    settings = settings_of(chosen, chosen.storage) | {"image_bytes": layout.facts()}
    extras: dict[str, Any] = {}
    needed = (chosen.rounds + chosen.warmup) * ROUND_BYTES + OTHER_BYTES
    with site(chosen.storage, layout, needed_bytes=needed) as place, place.filled_registry() as registry:
        benchmark = Benchmark(place, registry)
        wanted = {name: row for name, row in benchmark.rows().items() if name in (chosen.rows or [name])}
        numbers = take_turns(wanted, rounds=chosen.rounds, warmup=chosen.warmup)
        numbers.missing |= {
            name: "there is no such row" for name in chosen.rows if name not in (*wanted, *EXTRAS)
        }
        if "second" in (chosen.rows or EXTRAS):
            with numbers.missing_if_failing("second"):
                extras["second image"] = benchmark.second_image()
        if "unpack" in (chosen.rows or EXTRAS):
            with numbers.missing_if_failing("unpack"):
                extras |= time_unpacking(rounds=chosen.rounds)
        return 1 if not report(numbers, extras, settings, chosen.json) and chosen.check else 0


if __name__ == "__main__":
    sys.exit(main())
