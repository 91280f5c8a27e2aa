"""Sixteen processes that pull, run, remove and prune on one store, and the store afterwards."""

from __future__ import annotations

import collections
import io
import json
import os
import subprocess
import sys
import tarfile
from typing import TYPE_CHECKING

import pytest
from support.archives import archive, file
from support.capabilities import need
from support.docker_registry import docker_registry
from support.engine import busybox_tree
from support.oci_layout import OciLayout
from support.session import temporary_directory, tracked_root

import containerlib as cl
from containerlib.image import archive_load

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.docker_registry import DockerRegistry

    from containerlib import Engine

pytestmark = [pytest.mark.root, pytest.mark.cgroup, pytest.mark.slow]

PROCESSES, IMAGES = 16, 4
DURATION_S = float(os.environ.get("CONTAINERLIB_CHURN_S", "15"))
PATIENCE_S = 120.0

# Nothing here depends on what survives a power loss, and syncing would stop all other disks of the host.
WORKER = """
import collections, contextlib, json, os, random, sys, time
import containerlib as cl
import containerlib._native.path
containerlib._native.path.sync_filesystem = lambda _: None
from containerlib._util import failpoint

seed, host, duration_s = int(sys.argv[1]), sys.argv[2], float(sys.argv[3])
pick = random.Random(seed)
stored, removed, done = collections.Counter(), collections.Counter(), collections.Counter()

def note(step, path):
    if "/blobs/" in path and "/.tmp-" not in path:
        if step == "rename":
            stored[path.rpartition("/")[2]] += 1
        elif step == "remove":
            removed[path.rpartition("/")[2]] += 1

failpoint.set_hook(note)
engine = cl.default_engine()
end = time.monotonic() + duration_s
while time.monotonic() < end:
    number = pick.randrange(4)
    name = f"{host}/box:{number}"
    what = pick.choices(["run", "pull", "prune", "remove", "check", "detached"], [12, 4, 2, 2, 1, 1])[0]
    done[what] += 1
    if pick.random() < 0.5:
        # What an engine has run it holds; only when many come and go is there something to prune.
        engine.close()
        engine = cl.default_engine()
    if what == "run":
        result = cl.run(["cat", "/etc/who", "/etc/shared"], image=name, check=True)
        assert result.text == f"{number} shared", result
    elif what == "pull":
        # Somebody else may have removed the name again by now.
        assert engine.images.pull(name).references in {(name,), ()}
    elif what == "prune":
        engine.images.prune(all=True)
    elif what == "remove":
        with contextlib.suppress(cl.ImageNotFound, cl.ResourceInUse):
            engine.images.remove(name)
    elif what == "check":
        found = engine.check(deep=pick.random() < 0.3)
        assert all(damage.is_leftover for damage in found), found
        assert all(damage.is_leftover for damage in engine.repair().left)
    else:
        with engine.images.hold(name) as image, engine.containers.run(
            image, ["cat", "/etc/who"], stdin=cl.DEVNULL, stdout=cl.DEVNULL, lifetime="detached"
        ) as container:
            assert container.wait(timeout_s=60).exit_code == 0
engine.close()
print(json.dumps({"stored": stored, "removed": removed, "done": done}))
"""


@pytest.fixture
def registry(request: pytest.FixtureRequest) -> Iterator[DockerRegistry]:
    """Return a registry with images that share their lower layers."""
    need(request.config, "peers", ("docker-registry", "busybox"))
    with temporary_directory("g") as base, docker_registry(base) as running:
        with temporary_directory("s") as source, cl.Engine(source / "r", source / "n") as engine:
            push_images(engine, running, source)
        yield running


def push_images(engine: Engine, registry: DockerRegistry, base: Path) -> None:
    """Push images of three layers, of which they share the two lower ones."""
    tree = base / "tree"
    busybox_tree(tree)
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w", format=tarfile.PAX_FORMAT) as tar:
        tar.add(tree, ".")
    shared = archive(file(b"etc/shared", b" shared"), file(b"noise", os.urandom(1 << 20)))
    for number in range(IMAGES):
        layout = OciLayout(base / f"layout{number}")
        top = archive(file(b"etc/who", b"%d" % number), file(b"more", os.urandom(1 << 18)))
        layout.name(layout.add_image([data.getvalue(), shared, top], config={"Env": ["PATH=/bin"]}), "1")
        (record,) = archive_load.load(engine._session.stores, str(layout.path))
        engine.images.tag(str(record.id), f"{registry.host}/box:{number}").push(
            f"{registry.host}/box:{number}"
        )


def work(registry: DockerRegistry, base: Path) -> list[dict[str, dict[str, int]]]:
    """Let all processes work, and return what each of them has counted."""
    environment = {
        **os.environ,
        "CONTAINERLIB_ROOT": str(base / "r"),
        "CONTAINERLIB_RUN_ROOT": str(base / "n"),
        "HOME": str(base),
    }
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, str(seed), registry.host, str(DURATION_S)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for seed in range(PROCESSES)
    ]
    ended = [worker.communicate(timeout=DURATION_S + PATIENCE_S) for worker in workers]
    problems = [err for worker, (_, err) in zip(workers, ended, strict=True) if worker.returncode]
    assert not problems, "\n\n".join(problems)
    return [json.loads(out) for out, _ in ended]


def total(counted: list[dict[str, dict[str, int]]], what: str) -> collections.Counter[str]:
    """Add up what the processes have counted."""
    result: collections.Counter[str] = collections.Counter()
    for each in counted:
        result.update(each[what])
    return result


def test_many_processes(registry: DockerRegistry) -> None:
    """Nothing fails, no layer is fetched while it is there, and the store is in order afterwards."""
    with temporary_directory("m") as base, tracked_root(base / "n"):
        before = len(registry.requests())
        counted = work(registry, base)
        requests = registry.requests()[before:]
        engine = cl.Engine(base / "r", base / "n")
        assert engine.check(deep=True) == ()
        assert engine.disk_usage().images.unneeded_bytes == 0
        assert engine.containers.list() == []
        stored, removed = total(counted, "stored"), total(counted, "removed")
        assert removed.total() > 0
        assert min(total(counted, "done")[what] for what in ("run", "pull", "prune", "remove")) > 0
        check_fetches(engine, registry, requests, stored, removed)
        engine.images.prune(all=True)
        assert (engine.images.list(), engine.check(), engine.disk_usage().size_bytes) == ([], (), 0)


def check_fetches(
    engine: Engine,
    registry: DockerRegistry,
    requests: list[str],
    stored: collections.Counter[str],
    removed: collections.Counter[str],
) -> None:
    """Assert that each layer was fetched as often as it was missing, and not more often."""
    layers = set()
    for number in range(IMAGES):
        image = engine.images.pull(f"{registry.host}/box:{number}")
        layers |= {layer.digest.hex for layer in image.layers}
    fetched = collections.Counter(
        line.rpartition(":")[2] for line in requests if line.startswith("GET") and "/blobs/" in line
    )
    assert len(layers) == IMAGES + 2
    for digest in layers:
        assert 1 <= fetched[digest] <= removed[digest] + 1, digest
        assert fetched[digest] == stored[digest], digest
