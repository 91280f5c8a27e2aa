"""A command of the OCI runtime that fails at any step leaves nothing; what a killed one leaves is found."""

from __future__ import annotations

import errno
import functools
import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.failpoints import died_at, failing_at, record_steps, recording

from containerlib._native.explain import STEPS
from containerlib._native.ffi import lib
from containerlib._util import failpoint
from containerlib.oci_cli import main
from containerlib.runtime import foreign
from containerlib.runtime.lower import lower

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from support.oci import Bundle

pytestmark = [pytest.mark.root, pytest.mark.cgroup]

NOT_OURS = {
    *("message", "table", "clone"),  # of the process that starts it
    *("join_clone", "init_exec", "init_fork"),  # of other ways to start one
}
DEADLINE_S = 20.0


class Scene:
    """A bundle, and a directory for the state of its containers."""

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle
        self.root = bundle.path / "state"
        bundle.command("sleep", "600")
        hook = {"path": "/bin/true"}
        bundle.config["hooks"] = {"createRuntime": [hook], "poststop": [hook]}
        bundle.config["linux"]["resources"]["pids"] = {"limit": 50}
        bundle.write()

    def call(self, *words: str) -> int:
        """Run a command in this process."""
        return main.run(["--root", str(self.root), "--log", str(self.bundle.path / "log"), *words])

    def create(self) -> int:
        """Create the container."""
        return self.call("create", "--bundle", str(self.bundle.path), "c1")

    def groups(self) -> list[Path]:
        """Its control groups that there are."""
        name = self.bundle.config["linux"]["cgroupsPath"].strip("/")
        top = Path("/sys/fs/cgroup")
        return [path for path in (top / name, *(each / name for each in top.iterdir())) if path.is_dir()]

    def is_clean(self) -> bool:
        """Whether nothing of the container is left."""
        names = [name for name in os.listdir(self.root) if name != ".locks"] if self.root.exists() else []
        return not names and not self.groups() and str(self.root) not in mounts()

    def check(self) -> None:
        """Assert that nothing is left, and that it can be created and deleted now."""
        bury()
        assert self.is_clean()
        assert self.create() == 0
        assert self.call("start", "c1") == 0
        assert self.call("delete", "--force", "c1") == 0
        bury()
        assert self.is_clean()


def mounts() -> str:
    """The mounts of this process."""
    return Path("/proc/self/mountinfo").read_text(encoding="utf-8")


def bury() -> None:
    """Take the ends of containers, which are children of who has created them."""
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        try:
            if os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | 0x40000000) is None:  # __WALL
                return
        except ChildProcessError:
            return


@pytest.fixture
def scene(bundle: Bundle) -> Iterator[Scene]:
    """Return a scene; no container of it is left afterwards."""
    made = Scene(bundle)
    yield made
    failpoint.set_hook(None)
    made.call("delete", "--force", "c1")
    bury()


@pytest.mark.parametrize("step", [name for name in STEPS.values() if name not in NOT_OURS])
def test_a_step_that_the_kernel_refuses(scene: Scene, step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Creating it fails, or the start where the step comes after it; nothing is left but what was created."""
    number = next(key for key, name in STEPS.items() if name == step)
    fault = (lib.CTR_FAULT_FAIL, number, errno.EIO, -1)
    monkeypatch.setattr(foreign, "lower", functools.partial(lower, fault=fault))
    code = scene.create()
    monkeypatch.undo()
    if number > STEPS_BEFORE_GATE:
        assert code == 0
        assert scene.call("start", "c1") == 0
        until(lambda: scene.call("delete", "c1") == 0)
    elif step in {"console", "hostname", "file"} and code == 0:  # not part of this bundle
        assert scene.call("delete", "--force", "c1") == 0
    else:
        assert code == 1
    scene.check()


STEPS_BEFORE_GATE = next(key for key, name in STEPS.items() if name == "gate")


def until(is_so: Callable[[], bool]) -> None:
    """Look until something is so that nobody tells."""
    deadline = time.monotonic() + DEADLINE_S
    while not is_so():
        bury()
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC])
def test_creating_fails_at_any_step(scene: Scene, number: int) -> None:
    """Whatever file or control group cannot be made: the error is told, and nothing is left."""
    scene.check()  # what all containers have in common is made now
    steps, hook = recording(str(scene.root))
    failpoint.set_hook(hook)
    assert scene.create() == 0
    failpoint.set_hook(None)
    assert scene.call("delete", "--force", "c1") == 0
    assert len(steps) > 10
    for step in dict.fromkeys(steps):
        failpoint.set_hook(failing_at(step, str(scene.root), number))
        code = scene.create()
        failpoint.set_hook(None)
        assert code == 1, step
        bury()
        assert scene.is_clean(), step
    scene.check()


def test_death_while_creating(scene: Scene) -> None:
    """Whenever a command is killed: deleting by force finds all that it has made."""
    scene.check()
    steps = record_steps(lambda: void(scene.create()), str(scene.root))
    assert scene.call("delete", "--force", "c1") == 0
    for step in dict.fromkeys(steps):
        died_at(lambda: void(scene.create()), str(scene.root), step)
        assert scene.call("delete", "--force", "c1") == 0, step
        until(scene.is_clean)
    scene.check()


@pytest.mark.parametrize("words", [("start", "c1"), ("delete", "--force", "c1"), ("pause", "c1")])
def test_death_in_other_commands(scene: Scene, words: tuple[str, ...]) -> None:
    """So it does when one of them is killed."""
    assert scene.create() == 0
    steps = record_steps(lambda: void(scene.call(*words)), str(scene.root))
    assert scene.call("delete", "--force", "c1") == 0
    for step in dict.fromkeys(steps):
        bury()
        assert scene.create() == 0
        died_at(lambda: void(scene.call(*words)), str(scene.root), step)
        assert scene.call("delete", "--force", "c1") == 0, step
        bury()
        until(scene.is_clean)
    scene.check()


@pytest.mark.parametrize("kind", ["startContainer", "poststart"])
@pytest.mark.parametrize(
    "hook", [{"path": "/bin/false"}, {"path": "/bin/sleep", "args": ["sleep", "600"], "timeout": 1}]
)
def test_a_hook_that_fails_at_the_start(scene: Scene, kind: str, hook: dict[str, object]) -> None:
    """The start fails, and the container has stopped: its command runs no more, or never ran."""
    scene.bundle.config["hooks"][kind] = [hook]
    scene.bundle.write()
    assert scene.create() == 0
    assert scene.call("start", "c1") == 1
    until(lambda: scene.call("delete", "c1") == 0)
    del scene.bundle.config["hooks"][kind]
    scene.bundle.write()
    scene.check()


def test_descriptors_of_the_command_itself(scene: Scene) -> None:
    """Only what the caller has handed over is kept for the container, and never what was opened here."""
    code = scene.call("create", "--preserve-fds", "40", "--bundle", str(scene.bundle.path), "c1")
    assert code == 1
    assert "is not open" in (scene.bundle.path / "log").read_text(encoding="utf-8")
    scene.check()


def void(code: int) -> None:
    """Take a status, and do nothing with it."""
    del code


def test_groups_of_somebody_else(scene: Scene) -> None:
    """Groups in which another container runs are refused; deleting what was not created leaves it alone."""
    assert scene.create() == 0
    words = ("--bundle", str(scene.bundle.path), "c2")
    assert scene.call("create", *words) == 1
    assert "has processes in it" in (scene.bundle.path / "log").read_text(encoding="utf-8")
    # Killed after it has written where its groups are to be, and before it has looked at them.
    steps = record_steps(lambda: void(scene.call("create", *words)), str(scene.root))
    for step in dict.fromkeys(steps):
        died_at(lambda: void(scene.call("create", *words)), str(scene.root), step)
        assert scene.call("delete", "--force", "c2") == 0, step
    assert scene.call("start", "c1") == 0
    assert scene.call("delete", "--force", "c1") == 0
    scene.check()


def test_killed_from_outside(scene: Scene) -> None:
    """A container whose process was killed by somebody has stopped, and can be deleted."""
    assert scene.create() == 0
    (group, *_) = scene.groups()
    for line in (group / "cgroup.procs").read_text(encoding="ascii").split():
        os.kill(int(line), signal.SIGKILL)
    until(lambda: scene.call("delete", "c1") == 0)
    scene.check()
