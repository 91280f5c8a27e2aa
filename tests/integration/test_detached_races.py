"""Verbs of two processes on one detached container at once: each does what it says, or says why not."""

from __future__ import annotations

import contextlib
import os
import re
import select
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING

import pytest
from support.engine import BUSYBOX, busybox_tree

import containerlib as cl

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from containerlib import Container, Engine, Image

pytestmark = [pytest.mark.root, pytest.mark.cgroup]

# How many rounds each pair of verbs has. With 42 each verb has a thousand, which takes some five minutes.
EACH = int(os.environ.get("CONTAINERLIB_RACE_ROUNDS", "6"))

LIMIT_S = 60

RIVAL = """
    import io, sys
    import containerlib as cl

    VERBS = {
        "fork": lambda c: c.fork().remove(),
        "snapshot": lambda c: c.snapshot().remove(),
        "wait_until": lambda c: c.wait_until("running", timeout_s=0.001),
        "start": lambda c: c.start(),
        "stop": lambda c: c.stop(timeout_s=0),
        "kill": lambda c: c.kill(),
        "restart": lambda c: c.restart(timeout_s=0),
        "pause": lambda c: c.pause(),
        "unpause": lambda c: c.unpause(),
        "exec": lambda c: c.exec(["true"]),
        "rename": lambda c: c.rename(f"name{c.restart_count}x"),
        "update": lambda c: c.update(cl.Resources(memory_bytes=64 << 20)),
        "logs": lambda c: list(c.logs()),
        "attach": lambda c: c.attach().close(),
        "wait": lambda c: c.wait(timeout_s=0.001),
        "stats": lambda c: c.stats(),
        "top": lambda c: c.top(),
        "inspect": lambda c: c.inspect().to_json(),
        "changes": lambda c: c.changes(),
        "put": lambda c: c.put(b"x", "/x"),
        "get": lambda c: c.get_archive("/etc", io.BytesIO()),
        "commit": lambda c: c.commit(),
        "export": lambda c: c.export(io.BytesIO()),
        "remove": lambda c: c.remove(force=True),
    }
    root, run_root = sys.argv[1:]
    # What a verb may say when another process was faster.
    REFUSALS = (
        cl.InvalidState, cl.ContainerNotFound, cl.SpawnError, cl.EngineClosed, cl.NameInUse, cl.CgroupError,
        cl.OperationTimeout, cl.PathNotFound, cl.ContainerFileError, cl.InvalidInputError,
    )
    with cl.Engine(root, run_root) as engine:
        for line in sys.stdin:
            verb, identity = line.split()
            try:
                VERBS[verb](engine.containers.get(identity))
            except REFUSALS as error:
                print("refused", flush=True)
            else:
                print("done", flush=True)
"""
VERBS = re.findall(r'"(\w+)": lambda', RIVAL)


@pytest.fixture
def box(engine: Engine, tmp_path: Path) -> Iterator[Image]:
    """Return an image with busybox."""
    if not BUSYBOX.exists():
        pytest.skip("busybox is not installed")
    busybox_tree(tmp_path / "tree")
    yield engine.images.from_directory(tmp_path / "tree", reference="box:1")
    for container in engine.containers.list():
        container.remove(force=True)


def start_rival(engine: Engine) -> subprocess.Popen[str]:
    """Start a process that does verbs to containers as it is told."""
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(RIVAL), engine.root, engine.run_root],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def tell(rival: subprocess.Popen[str], verb: str, identity: str) -> None:
    """Let it begin; it says when it is done."""
    assert rival.stdin is not None
    rival.stdin.write(f"{verb} {identity}\n")
    rival.stdin.flush()


def answer(rival: subprocess.Popen[str]) -> str:
    """Wait until it is done."""
    assert rival.stdout is not None
    assert select.select([rival.stdout], [], [], LIMIT_S)[0], "it does not end"
    return rival.stdout.readline().strip()


@pytest.mark.parametrize("one", VERBS)
def test_every_pair_of_verbs_at_once(box: Image, engine: Engine, one: str) -> None:
    """Both end, with a typed error at most, and the container stands in a state that is true."""
    rivals = [start_rival(engine) for _ in range(2)]
    frozen = engine._session.stores.layout.frozen_layers
    try:
        for other in VERBS[VERBS.index(one) :]:
            for number in range(EACH):
                container = engine.containers.create(box, ["sleep", "60"], lifetime="detached")
                # One that runs cannot be forked; sometimes that is what shall be found out.
                is_new = "start" in (one, other) or (number % 3 and {"fork", "snapshot"} & {one, other})
                if not is_new:
                    container.start()
                for rival, verb in zip(rivals, (one, other), strict=True):
                    tell(rival, verb, container.id)
                answers = [answer(rival) for rival in rivals]
                assert set(answers) <= {"done", "refused"}, (one, other, answers)
                if "remove" not in (one, other) or answers[(one, other).index("remove")] != "done":
                    if "kill" in (one, other):
                        settle(container)
                    assert container.state.is_alive == (container.pid is not None), (one, other)
                    container.remove(force=True)
                assert container.state == "removed", (one, other)
                assert engine.containers.list() == [], (one, other)
        assert not os.path.exists(frozen) or os.listdir(frozen) == []
    finally:
        for rival in rivals:
            rival.kill()
            rival.communicate()


def settle(container: Container) -> None:
    """After a signal, which is sent and not waited for: until it is over, unless it runs again."""
    with contextlib.suppress(cl.OperationTimeout, cl.InvalidState):
        container.wait(timeout_s=0.5)


def test_only_one_starts(box: Image, engine: Engine) -> None:
    """Of two that start a container at once, one does, and the other is told that it runs."""
    rivals = [start_rival(engine) for _ in range(2)]
    try:
        for _ in range(20):
            container = engine.containers.create(box, ["sleep", "60"], lifetime="detached")
            for rival in rivals:
                tell(rival, "start", container.id)
            assert sorted(answer(rival) for rival in rivals) == ["done", "refused"]
            assert container.state == cl.ContainerState.RUNNING
            container.remove(force=True)
    finally:
        for rival in rivals:
            rival.communicate()
