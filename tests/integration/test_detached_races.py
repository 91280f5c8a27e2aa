"""Verbs of two processes on one detached container at once: each does what it says, or says why not."""

from __future__ import annotations

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

    from containerlib import Engine, Image

pytestmark = [pytest.mark.root, pytest.mark.cgroup]

ROUNDS = 60

RIVAL = """
    import sys
    import containerlib as cl

    VERBS = {
        "start": lambda c: c.start(),
        "stop": lambda c: c.stop(timeout_s=0),
        "kill": lambda c: c.kill(),
        "pause": lambda c: c.pause(),
        "unpause": lambda c: c.unpause(),
        "exec": lambda c: c.exec(["true"]),
        "rename": lambda c: c.rename(f"name{c.restart_count}x"),
        "update": lambda c: c.update(cl.Resources(memory_bytes=64 << 20)),
        "logs": lambda c: list(c.logs()),
        "remove": lambda c: c.remove(force=True),
    }
    root, run_root, mine, theirs = sys.argv[1:]
    # What a verb may say when another process was faster.
    REFUSALS = (
        cl.InvalidState, cl.ContainerNotFound, cl.SpawnError, cl.EngineClosed, cl.NameInUse, cl.CgroupError
    )
    with cl.Engine(root, run_root) as engine:
        for line in sys.stdin:
            identity = line.strip()
            try:
                VERBS[mine](engine.containers.get(identity))
            except REFUSALS as error:
                print("refused", flush=True)
            else:
                print("done", flush=True)
"""


@pytest.fixture
def box(engine: Engine, tmp_path: Path) -> Iterator[Image]:
    """Return an image with busybox."""
    if not BUSYBOX.exists():
        pytest.skip("busybox is not installed")
    busybox_tree(tmp_path / "tree")
    yield engine.images.from_directory(tmp_path / "tree", reference="box:1")
    for container in engine.containers.list():
        container.remove(force=True)


def start_rival(engine: Engine, mine: str, theirs: str) -> subprocess.Popen[str]:
    """Start a process that does one verb to each container whose id it is told."""
    arguments = [engine.root, engine.run_root, mine, theirs]
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(RIVAL), *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def tell(rival: subprocess.Popen[str], identity: str) -> None:
    """Let it begin; it says when it is done."""
    assert rival.stdin is not None
    rival.stdin.write(identity + "\n")
    rival.stdin.flush()


def answer(rival: subprocess.Popen[str]) -> str:
    """Wait until it is done."""
    assert rival.stdout is not None
    return rival.stdout.readline().strip()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("start", "start"),
        ("start", "remove"),
        ("stop", "stop"),
        ("stop", "exec"),
        ("kill", "pause"),
        ("pause", "pause"),
        ("pause", "unpause"),
        ("exec", "remove"),
        ("rename", "remove"),
        ("update", "kill"),
        ("logs", "remove"),
        ("remove", "remove"),
        ("stop", "start"),
    ],
)
def test_two_verbs_at_once(box: Image, engine: Engine, one: str, other: str) -> None:
    """Both end, with a typed error at most, and the container stands in a state that is true."""
    rivals = [start_rival(engine, one, other), start_rival(engine, other, one)]
    try:
        for _ in range(ROUNDS):
            container = engine.containers.create(box, ["sleep", "60"], lifetime="detached")
            if one != "start" and other != "start":
                container.start()
            for rival in rivals:
                tell(rival, container.id)
            answers = [answer(rival) for rival in rivals]
            assert set(answers) <= {"done", "refused"}, answers
            if "remove" not in (one, other) or answers[(one, other).index("remove")] != "done":
                if "kill" in (one, other):
                    container.wait(timeout_s=20)  # a signal is sent and not waited for
                is_running = container.pid is not None
                assert container.state.is_alive == is_running
                container.remove(force=True)
            assert container.state == "removed"
            assert engine.containers.list() == []
    finally:
        for rival in rivals:
            rival.communicate()


def test_only_one_starts(box: Image, engine: Engine) -> None:
    """Of two that start a container at once, one does, and the other is told that it runs."""
    rivals = [start_rival(engine, "start", "start") for _ in range(2)]
    try:
        for _ in range(20):
            container = engine.containers.create(box, ["sleep", "60"], lifetime="detached")
            for rival in rivals:
                tell(rival, container.id)
            assert sorted(answer(rival) for rival in rivals) == ["done", "refused"]
            assert container.state == cl.ContainerState.RUNNING
            container.remove(force=True)
    finally:
        for rival in rivals:
            rival.communicate()
