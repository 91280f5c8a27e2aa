"""How long pushing an image takes: containerlib, docker, podman, skopeo, and the limit of sending its bytes.

    python benchmarks/push.py [--rounds 5] [--rows containerlib,docker,...] [--storage DIRECTORY] [--check]

The image has four layers (see `images`). Each row has it in a store of its own, pulled before the clock
starts, and pushes it to a docker-registry with nothing in it, a new one each time, over loopback. Rows are
interleaved. The limit is curl, uploading what is in the image layout, all layers side by side. Needs root,
docker-registry, skopeo, mmdebstrap, curl and 20 GB; a peer that is not installed is a missing row. `--check`
ends with status 1 if a target is missed or not measured.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import sysconfig
from typing import TYPE_CHECKING, Any

from images import benchmark_layout
from measure import LineWorker, MissingRowError, summary, worker_argv
from peers import program, run, start_docker
from report import Target, arguments, at_most, conclude, print_table, settings_of
from transfer import Action, Numbers, Site, command, library_variables, site, take_turns

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from support.docker_registry import DockerRegistry

LIMIT = "limit"
LAYERS = 4
ROUND_BYTES, OTHER_BYTES = 2 << 30, 6 << 30

_UPLOAD = """set -e; host=$1; blobs=$2; shift 2
printf '%s\\n' "$@" | xargs -P "$#" -I{} sh -c 'set -e; n={}
    place=$(curl -sS --fail -D - -o /dev/null -X POST "http://$0/v2/bench/image/blobs/uploads/" |
        tr -d "\\r" | sed -n "s/^[Ll]ocation: //p")
    curl -sS --fail -o /dev/null -T "$1/$n" "$place&digest=sha256:$n"' "$host" "$blobs"
"""
_FINISH = """
curl -sS --fail -o /dev/null -H "Content-Type: $3" -T "$2" "http://$1/v2/bench/image/manifests/first"
"""


class Benchmark:
    """The rows of one run, with the registry that the stores are filled from."""

    def __init__(self, place: Site, source: DockerRegistry) -> None:
        self.place = place
        self.source = f"{source.host}/bench/image:first"
        self._filled: dict[str, Any] = {}

    def rows(self) -> dict[str, Callable[[], contextlib.AbstractContextManager[Action]]]:
        """Return how each row gets ready, in their order."""
        engines = {"containerlib": self._library, "cli": self._command_line}
        others = {"docker": self._docker, "podman": self._podman, "skopeo": self._skopeo}
        return {LIMIT: self._limit, **engines, **others}

    @contextlib.contextmanager
    def _target(self) -> Iterator[str]:
        """Give the name in a registry that has nothing."""
        with self.place.registry() as registry:
            yield f"{registry.host}/bench/image:first"

    def _library_variables(self, target: str) -> dict[str, str]:
        """Return the environment of an engine that has the image, called `target`."""
        if "library" not in self._filled:
            root = self.place.make("c")
            self._filled["library"] = os.environ | library_variables(root)
            run([_script(), "pull", self.source], self._filled["library"])
        variables: dict[str, str] = self._filled["library"]
        run([_script(), "tag", self.source, target], variables)
        return variables

    @contextlib.contextmanager
    def _library(self) -> Iterator[Action]:
        with self._target() as target:
            variables = self._library_variables(target)
            argv = worker_argv("images", target)
            with contextlib.closing(LineWorker(argv, env=variables)) as worker:
                yield Action(lambda: worker.ask("push") / 1e6, lambda: prove(target))

    @contextlib.contextmanager
    def _command_line(self) -> Iterator[Action]:
        with self._target() as target:
            variables = self._library_variables(target)
            yield command([_script(), "push", target], lambda: prove(target), variables)

    @contextlib.contextmanager
    def _docker(self) -> Iterator[Action]:
        root = self._filled.get("docker") or self.place.make("d")
        with self._target() as target, contextlib.ExitStack() as stack:
            docker = [program("docker"), "--config", f"{root}/client"]
            docker += ["--host", start_docker(str(root), stack)]
            if "docker" not in self._filled:
                run([*docker, "pull", "--quiet", self.source])
                self._filled["docker"] = root
            run([*docker, "tag", self.source, target])
            yield command([*docker, "push", "--quiet", target], lambda: prove(target))

    @contextlib.contextmanager
    def _podman(self) -> Iterator[Action]:
        if "podman" not in self._filled:
            podman, _ = self.place.podman()
            run([*podman, "pull", "--quiet", "--tls-verify=false", self.source])
            self._filled["podman"] = podman
        with self._target() as target:
            argv = [*self._filled["podman"], "push", "--quiet", "--tls-verify=false", self.source, target]
            yield command(argv, lambda: prove(target))

    @contextlib.contextmanager
    def _skopeo(self) -> Iterator[Action]:
        argv = [program("skopeo"), "--insecure-policy", "copy", "--quiet", "--dest-tls-verify=false"]
        with self._target() as target:
            argv += [f"oci:{self.place.layout.path}:first", f"docker://{target}"]
            yield command(argv, lambda: prove(target))

    @contextlib.contextmanager
    def _limit(self) -> Iterator[Action]:
        program("curl")
        layout, manifest = self.place.layout, self.place.layout.manifest("first")
        blobs = [blob["digest"].removeprefix("sha256:") for blob in (*manifest["layers"], manifest["config"])]
        document = self.place.make("m") / "manifest.json"
        document.write_text(json.dumps(manifest), encoding="ascii")
        with self._target() as target:
            host = target.partition("/")[0]
            finish = ["sh", "-c", _FINISH, "sh", host, str(document), manifest["mediaType"]]

            def perform() -> None:
                run(["sh", "-c", _UPLOAD, "sh", host, str(layout.path / "blobs/sha256"), *blobs])
                run(finish)

            yield Action(perform, lambda: prove(target))


def _script() -> str:
    return os.path.join(sysconfig.get_path("scripts"), "containerlib")


def prove(target: str) -> None:
    """Look for the image where it was pushed."""
    found = json.loads(
        run([program("skopeo"), "inspect", "--raw", "--tls-verify=false", f"docker://{target}"])
    )
    if len(found["layers"]) != LAYERS:
        raise MissingRowError(f"the image there has {len(found['layers'])} layers")


def targets(numbers: Numbers) -> list[Target]:
    """Return what is to be reached, and whether it is."""
    medians = {name: summary(samples)["median"] for name, samples in numbers.times.items()}
    ours, docker = medians.get("containerlib"), medians.get("docker")
    return [at_most("containerlib / docker push", ours / docker if ours and docker else None, 0.2)]


def report(numbers: Numbers, settings: Mapping[str, Any], json_path: str) -> bool:
    """Print the tables, write the file, and return whether every target holds."""
    medians = {name: summary(samples) for name, samples in numbers.times.items()}
    limit = medians[LIMIT]["median"] if LIMIT in medians else None
    rows = []
    for name, row in medians.items():
        shown = [f"{row[key] / 1e6:.2f}" for key in ("median", "p95", "min")]
        ratio = f"{row['median'] / limit:.2f}" if limit else "-"
        rows.append([name, *shown, ratio, f"{numbers.memory[name] / 1e6:.0f}"])
    header = ["row", "median s", "p95 s", "min s", "x limit", "peak MB"]
    print_table("One image, from the call to the tag in the registry", header, rows)
    return conclude(
        times=numbers.times,
        extras={"peak_memory_bytes": numbers.memory},
        missing=numbers.missing,
        targets=targets(numbers),
        settings=settings,
        json_path=json_path,
    )


def main() -> int:
    """Run the benchmark that the command line asks for."""
    chosen = arguments(__doc__, "push", rounds=5, warmup=1, storage="/var/tmp")
    layout = benchmark_layout()
    settings = settings_of(chosen, chosen.storage) | {"image_bytes": layout.facts()}
    needed = (chosen.rounds + chosen.warmup) * ROUND_BYTES + OTHER_BYTES
    with site(chosen.storage, layout, needed_bytes=needed) as place, place.filled_registry() as source:
        rows = Benchmark(place, source).rows()
        wanted = {name: row for name, row in rows.items() if name in (chosen.rows or [name])}
        numbers = take_turns(wanted, rounds=chosen.rounds, warmup=chosen.warmup)
        numbers.missing |= {name: "there is no such row" for name in chosen.rows if name not in wanted}
        return 1 if not report(numbers, settings, chosen.json) and chosen.check else 0


if __name__ == "__main__":
    sys.exit(main())
