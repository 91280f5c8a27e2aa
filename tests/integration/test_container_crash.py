"""A process killed in front of any transition of a container, or an error in it: nothing lost, nothing left.

Which transitions a verb has is recorded from the verb itself; that each is announced, a unit test sees to.
"""

from __future__ import annotations

import errno
import io
import os
from typing import TYPE_CHECKING

import attrs
import pytest
from support.engine import BUSYBOX, busybox_tree
from support.failpoints import Step, died_at, failing_at, record_steps, recording
from support.invariants import check_invariants

import containerlib as cl
from containerlib._util import failpoint
from containerlib.container import recovery

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from containerlib import Container, Engine, Image

pytestmark = [pytest.mark.root, pytest.mark.cgroup, pytest.mark.usefixtures("host_untouched")]

NAME, IMAGE = "box", "box:1"


@pytest.fixture
def box(engine: Engine, tmp_path: Path) -> Iterator[Image]:
    """Return an image with busybox."""
    if not BUSYBOX.exists():
        pytest.skip("busybox is not installed")
    busybox_tree(tmp_path / "tree")
    yield engine.images.from_directory(tmp_path / "tree", reference=IMAGE)
    for container in engine.containers.list():
        container.remove(force=True)


def make(engine: Engine, **options: object) -> Container:
    """Make the container."""
    return engine.containers.create(
        engine.images.get(IMAGE),
        ["sleep", "60"],
        name=NAME,
        lifetime="detached",
        init=True,
        **options,  # type: ignore[arg-type]
    )


def created(engine: Engine) -> None:
    """A container with a file of its own, which no fault may take."""
    (make(engine).fs / "kept").write_text("kept")


def running(engine: Engine) -> None:
    """One that runs."""
    created(engine)
    get(engine).start()


def paused(engine: Engine) -> None:
    """One that stands still."""
    running(engine)
    get(engine).pause()


def nothing(engine: Engine) -> None:
    """No container."""
    del engine


def get(engine: Engine) -> Container:
    """Return the container."""
    return engine.containers.get(NAME)


def attached(engine: Engine) -> None:
    """Run a container that ends with its process, from beginning to end."""
    container = engine.containers.run(
        engine.images.get(IMAGE), ["true"], stdin=cl.DEVNULL, stdout=cl.DEVNULL, stderr=cl.DEVNULL
    )
    container.wait(timeout_s=60)
    container.remove()


@attrs.frozen
class Case:
    """A verb.

    Attributes:
        before: Brings the container about, as the verb wants it.
        run: The verb.
        steps: Steps that it certainly has.
        may_be_gone: Whether there need not be a container afterwards.
        forgiven: Steps whose failing is no reason for the verb to fail; what they leave is removed later.
    """

    before: Callable[[Engine], None]
    run: Callable[[Engine], object]
    steps: frozenset[str]
    may_be_gone: bool = False
    forgiven: frozenset[str] = frozenset()


CASES = {
    "create": Case(
        nothing, make, frozenset({"make directory containers", "link container-names"}), may_be_gone=True
    ),
    "start": Case(
        created,
        lambda engine: get(engine).start(),
        frozenset({"make control group", "start supervisor", "supervise containers", "rename containers"}),
    ),
    "kill": Case(running, lambda engine: get(engine).kill(), frozenset({"tell supervisor"})),
    "stop": Case(
        running,
        lambda engine: get(engine).stop(timeout_s=5),
        frozenset({"tell supervisor", "rename containers", "remove control group"}),
        forgiven=frozenset({"rename containers", "remove control group"}),
    ),
    "stop paused": Case(paused, lambda engine: get(engine).stop(timeout_s=5), frozenset({"tell supervisor"})),
    "restart": Case(
        running, lambda engine: get(engine).restart(timeout_s=5), frozenset({"supervise containers"})
    ),
    "pause": Case(
        running, lambda engine: get(engine).pause(), frozenset({"write control file", "rename containers"})
    ),
    "unpause": Case(
        paused, lambda engine: get(engine).unpause(), frozenset({"write control file", "rename containers"})
    ),
    "update": Case(
        running,
        lambda engine: get(engine).update(cl.Resources(pids=50)),
        frozenset({"write control file", "rename containers"}),
    ),
    "rename": Case(
        created,
        lambda engine: get(engine).rename("other"),
        frozenset({"link container-names", "rename containers", "unlink container-names"}),
        forgiven=frozenset({"unlink container-names"}),
    ),
    "exec": Case(running, lambda engine: get(engine).exec(["true"]), frozenset({"spawn"})),
    "copy files": Case(
        created, lambda engine: get(engine).put_archive(io.BytesIO(bytes(1024)), "/"), frozenset()
    ),
    "commit": Case(
        running, lambda engine: get(engine).commit("made:1"), frozenset({"append blobs", "rename references"})
    ),
    "snapshot": Case(
        paused, lambda engine: get(engine).snapshot(), frozenset({"make directory frozen-layers"})
    ),
    "fork": Case(
        created,
        lambda engine: get(engine).fork(name="other"),
        frozenset({"move containers", "make directory frozen-layers", "link container-names"}),
    ),
    "remove": Case(
        created,
        lambda engine: get(engine).remove(),
        frozenset({"move containers", "unlink container-names"}),
        may_be_gone=True,
        forgiven=frozenset({"unlink container-names"}),
    ),
    "remove running": Case(
        running,
        lambda engine: get(engine).remove(force=True),
        frozenset({"tell supervisor"}),
        may_be_gone=True,
    ),
    "run attached": Case(nothing, attached, frozenset({"start spawner", "spawn"}), may_be_gone=True),
}
STORING = ("append", "create", "link", "make directory", "rename")
"""Steps that need room in the store."""
READING = frozenset(
    {"wait", "attach to", "look at", "measure", "inspect", "export", "compare", "reach the network of"}
)
"""Verbs that change nothing."""
ELSEWHERE = frozenset({"connect", "disconnect"})
"""Verbs that need a network, which are killed in the tests of those."""


def remove_all(engine: Engine) -> None:
    """Remove every container and committed image, for the next round."""
    for container in engine.containers.list():
        container.remove(force=True)


def check(engine: Engine, case: Case, step: Step) -> None:
    """What must hold after the verb was interrupted."""
    check_invariants(engine)
    found = engine.containers.list()
    names = [container.name for container in found]
    assert len(names) == len(set(names)), step
    if not case.may_be_gone:
        assert set(names) & {NAME, "other"}, step
        first = next(container for container in found if container.name in {NAME, "other"})
        if first.state == "paused":
            first.unpause()
        assert (first.fs / "kept").read_text() == "kept", step
    # Whatever was half done, the container can be used.
    for container in found:
        if container.state in {"created", "exited"}:
            container.start()
        container.stop(timeout_s=5)
        container.remove()
    assert engine.containers.list() == []
    assert os.listdir(f"{engine.root}/containers") == []
    assert os.listdir(f"{engine.root}/container-names") == []


@pytest.mark.usefixtures("box")
@pytest.mark.parametrize("verb", CASES)
def test_killed_at_any_step(engine: Engine, verb: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next engine finds the truth, and the container can be started, stopped and removed."""
    case = CASES[verb]
    # Whoever makes something is killed here, and does not need time for the rest of it.
    monkeypatch.setattr(recovery, "_MAKING_S", -1.0)
    created(engine)  # so that all directories are there
    remove_all(engine)
    case.before(engine)
    steps = record_steps(lambda: case.run(engine), engine.root)
    assert case.steps <= {step.name for step in steps}, [str(step) for step in steps]
    remove_all(engine)
    for step in steps:
        case.before(engine)
        died_at(lambda: case.run(engine), engine.root, step)
        check(engine, case, step)


@pytest.mark.usefixtures("box")
@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC])
@pytest.mark.parametrize("verb", CASES)
def test_fails_at_any_step(engine: Engine, verb: str, number: int) -> None:
    """The error is raised as it is, or does not matter; the same engine goes on and nothing is half done."""
    case = CASES[verb]
    created(engine)
    remove_all(engine)
    raised = set()
    for step in steps_in_process(engine, case):
        case.before(engine)
        with cl.Engine(engine.root, engine.run_root) as fresh:
            error = failing(fresh, case, step, number)
            if error is not None:
                raised.add(step.name)
            if isinstance(error, OSError):
                assert error.errno == number, step
                is_typed = isinstance(error, cl.StoreFull)
                assert is_typed is (number == errno.ENOSPC) or not step.name.startswith(STORING), step
            check(fresh, case, step)
    assert raised >= case.steps - case.forgiven, raised


def failing(engine: Engine, case: Case, step: Step, number: int) -> Exception | None:
    """Run the verb with an error in one step; return what it raises, which is the error or one of ours."""
    failpoint.set_hook(failing_at(step, engine.root, number))
    try:
        case.run(engine)
    except (OSError, cl.ContainerlibError) as error:
        return error
    finally:
        failpoint.set_hook(None)
    return None


def steps_in_process(engine: Engine, case: Case) -> list[Step]:
    """Run the verb to its end with an engine that has done nothing yet, and return its steps."""
    case.before(engine)
    with cl.Engine(engine.root, engine.run_root) as fresh:
        steps, hook = recording(engine.root)
        failpoint.set_hook(hook)
        try:
            case.run(fresh)
        finally:
            failpoint.set_hook(None)
        remove_all(fresh)
    return steps


def test_every_verb_is_tried() -> None:
    """Each verb of the table of states is killed at its steps, unless it changes nothing."""
    from containerlib.container.state import _ALLOWED  # noqa: PLC0415

    words = {"exec in": "exec", "copy files of": "copy files"}
    verbs = {words.get(verb, verb) for verb in _ALLOWED} - READING - ELSEWHERE
    assert verbs <= CASES.keys(), verbs - CASES.keys()
