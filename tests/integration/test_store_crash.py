"""A process that dies at any step of changing the store leaves every image whole, and only leftovers."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import pytest
from support.archives import archive, file
from support.capabilities import need
from support.docker_registry import docker_registry
from support.failpoints import Step, died_at, record_steps
from support.faults import DEADLINE_S
from support.session import temporary_directory, tracked_root
from support.stock import load_two_layers, two_layers

import containerlib as cl

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from support.docker_registry import DockerRegistry

    from containerlib import Engine

pytestmark = [pytest.mark.root]

OLD, OTHER = "docker.io/library/old:1", "docker.io/library/other:1"


def assemble(engine: Engine) -> None:
    """Give the old name to a new image of one layer."""
    engine.images.from_tar(io.BytesIO(archive(file(b"new"))), reference=OLD)


def load(engine: Engine) -> None:
    """Give the old name to a new image from an archive, which shares a layer."""
    from containerlib.image import archive_load  # noqa: PLC0415

    archive_load.load(engine._session.stores, two_layers(OLD, b"new"))


def tag(engine: Engine) -> None:
    """Give the old name to another image."""
    engine.images.tag(OTHER, OLD)


def remove(engine: Engine) -> None:
    """Remove the other image, of which one layer is shared, unless that was done."""
    with contextlib.suppress(cl.ImageNotFound):
        engine.images.remove(OTHER)


def prune(engine: Engine) -> None:
    """Remove an image without a name."""
    engine.images.prune()


def repair(engine: Engine) -> None:
    """Mend a layer that is damaged."""
    engine.repair()


def spoil(engine: Engine) -> None:
    """Damage a layer that both images need."""
    os.unlink(f"{Path(engine.images.get(OLD).record.lowers[-1]).parent}/snapshot.json")


def lose_name(engine: Engine) -> None:
    """Make an image without a name."""
    load_two_layers(engine, "third:1", b"three")
    engine.images.tag(OTHER, "third:1")


@attrs.frozen
class Case:
    """An operation, and what is done to the store before.

    Attributes:
        steps: Steps that it certainly has.
    """

    run: Callable[[Engine], None]
    steps: frozenset[str]
    before: Callable[[Engine], None] = lambda _: None


CASES = {
    "from_tar": Case(
        assemble,
        frozenset(
            {
                *("append blobs", "rename blobs", "unpack snapshots", "rename directory snapshots"),
                *("rename references", "append leases", "remove leases", "sync file system"),
            }
        ),
    ),
    "load": Case(load, frozenset({"rename blobs", "unpack snapshots", "rename references", "remove leases"})),
    "tag": Case(tag, frozenset({"rename references", "lock locks/collection"})),
    "remove": Case(
        remove, frozenset({"remove references", "move snapshots", "remove blobs", "remove tree snapshots"})
    ),
    "prune": Case(
        prune, frozenset({"remove references", "move snapshots", "remove blobs"}), before=lose_name
    ),
    "repair": Case(
        repair, frozenset({"move snapshots", "unpack snapshots", "rename directory snapshots"}), before=spoil
    ),
}


@attrs.frozen
class Scene:
    """A store that can be put back to how it was."""

    base: Path

    @property
    def root(self) -> str:
        """Directory of the store."""
        return str(self.base / "r")

    def engine(self) -> Engine:
        """Return a new engine on the store."""
        return cl.Engine(self.base / "r", self.base / "n")

    def keep(self) -> None:
        """Remember how the store is."""
        subprocess.run(["cp", "-a", self.root, self.base / "kept"], check=True)

    def put_back(self) -> None:
        """Make the store what it was."""
        shutil.rmtree(self.root)
        subprocess.run(["cp", "-a", self.base / "kept", self.root], check=True)


@pytest.fixture
def scene() -> Iterator[Scene]:
    """Return a store with two images that share a layer."""
    with temporary_directory("c") as base, tracked_root(base / "n"):
        made = Scene(base)
        engine = made.engine()
        load_two_layers(engine, OLD, b"one")
        load_two_layers(engine, OTHER, b"other")
        yield made


def targets(scene: Scene) -> dict[str, str]:
    """Return what each name means, by an engine that knows nothing from before."""
    references = scene.engine()._session.stores.references.list()
    return {name: str(target.digest) for name, target in references.items() if not name.startswith("sha256:")}


def wait_for_heirs(root: str) -> None:
    """Wait until no other process has anything of a store open.

    What a thread of the dead one was just starting has its descriptors, and so its locks, a moment longer.
    """
    deadline = time.monotonic() + DEADLINE_S
    while any(_has_open(entry, root) for entry in Path("/proc").glob("[1-9]*")):
        assert time.monotonic() < deadline
        time.sleep(0.001)


def _has_open(process: Path, root: str) -> bool:
    with contextlib.suppress(OSError):
        if process.name != str(os.getpid()):
            return any(os.readlink(fd).startswith(f"{root}/") for fd in (process / "fd").iterdir())
    return False


def check_after_death(scene: Scene, case: Case, step: Step) -> None:
    """Assert that what was is whole, that the rest is leftovers, that these go, and that it works again."""
    wait_for_heirs(scene.root)
    engine = scene.engine()
    damages = [damage for damage in engine.check() if not damage.is_leftover]
    assert damages == [] or case.before is spoil, step
    assert engine.repair().left == (), step
    assert engine.check(deep=True) == (), step
    case.run(scene.engine())
    assert engine.check(deep=True) == (), step


def remove_everything(scene: Scene) -> None:
    """Remove every image, and assert that nothing of them is left."""
    engine = scene.engine()
    for image in engine.images.list():
        engine.images.remove(image.id, force=True)
    left = [
        str(path.relative_to(scene.root))
        for path in Path(scene.root).rglob("*")
        if not path.is_dir() and path.parent.name != "locks"
    ]
    assert left == []


def kill_everywhere(scene: Scene, case: Case) -> None:
    """Kill the operation in front of each of its steps."""
    case.before(scene.engine())
    scene.keep()
    before = targets(scene)
    steps = record_steps(lambda: case.run(scene.engine()), scene.root)
    assert case.steps <= {step.name for step in steps}
    after = targets(scene)
    deaths = set()
    for step in dict.fromkeys(steps):
        scene.put_back()
        if died_at(lambda: case.run(scene.engine()), scene.root, step):
            deaths.add(step.name)
        for name, digest in targets(scene).items():
            assert digest in {before.get(name), after.get(name)}, step
        check_after_death(scene, case, step)
    assert deaths == {step.name for step in steps}
    remove_everything(scene)


@pytest.mark.parametrize("name", CASES)
def test_death_at_each_step(scene: Scene, name: str) -> None:
    """Names mean what they meant or what they shall mean, and what is left over is collected."""
    kill_everywhere(scene, CASES[name])


FILES = 20000
LOOK = os.WEXITED | os.WNOHANG | os.WNOWAIT


def test_death_in_the_midst_of_unpacking(scene: Scene) -> None:
    """A process that is killed while it writes a layer leaves a part that nobody sees, and that goes."""
    data = archive(*(file(b"f%d" % number, b"") for number in range(FILES)))
    scene.keep()
    for _ in range(20):
        scene.put_back()
        pid = os.fork()
        if pid == 0:
            try:
                scene.engine().images.from_tar(io.BytesIO(data), reference=OLD)
            finally:
                os._exit(0)
        while unpacked(scene) < 100 and os.waitid(os.P_PID, pid, LOOK) is None:
            pass
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        if 0 < unpacked(scene) < FILES:
            break
    else:
        raise AssertionError("it is never killed in the midst")
    before = targets(scene)
    engine = scene.engine()
    deadline = time.monotonic() + DEADLINE_S
    # Whoever helps to unpack may need a moment to notice.
    while unpacked(scene) and time.monotonic() < deadline:
        assert [found for found in engine.check() if not found.is_leftover] == []
        assert engine.repair().left == ()
    assert unpacked(scene) == 0
    assert engine.check(deep=True) == ()
    assert targets(scene) == before
    assemble(scene.engine())
    assert engine.check(deep=True) == ()
    remove_everything(scene)


def unpacked(scene: Scene) -> int:
    """Count the files of layers that are not complete."""
    try:
        return sum(len(os.listdir(path)) for path in Path(scene.root, "snapshots").glob("active-*/fs"))
    except FileNotFoundError:
        return 0


@pytest.fixture(scope="module")
def registry(request: pytest.FixtureRequest) -> Iterator[DockerRegistry]:
    """Return a registry on loopback."""
    need(request.config, "peers", ("docker-registry",))
    with temporary_directory("g") as path, docker_registry(path) as running:
        yield running


def test_death_at_each_step_of_a_pull(scene: Scene, registry: DockerRegistry) -> None:
    """The same, for a pull that moves a name to another image and fetches one layer more."""
    name = f"{registry.host}/box:1"
    with temporary_directory("p") as base:
        source = cl.Engine(base / "r", base / "n")
        load_two_layers(source, name, b"first").push(name)
        scene.engine().images.pull(name)
        load_two_layers(source, name, b"second").push(name)
    expected = {"append blobs", "rename blobs", "unpack snapshots", "rename references", "append leases"}
    kill_everywhere(scene, Case(lambda engine: engine.images.pull(name) and None, frozenset(expected)))
