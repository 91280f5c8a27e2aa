"""Control groups on a host that systemd runs: in scopes that it makes, leaves to us, and takes away again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.engine import BUSYBOX, busybox_tree

import containerlib as cl
from containerlib.runtime import systemd
from containerlib.runtime.cgroup_host import CgroupHost

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from containerlib import Container, Engine, Image

pytestmark = [pytest.mark.root, pytest.mark.cgroup, pytest.mark.guest]

TREE = Path("/sys/fs/cgroup")
LIFETIMES = pytest.mark.parametrize("lifetime", ["process", "detached"])
DEADLINE_S = 60.0
MIB = 1 << 20


@pytest.fixture(autouse=True)
def _booted() -> None:
    problem = systemd.find_problem()
    if problem is not None or CgroupHost.probe().mode != "v2":
        pytest.skip(f"systemd is not the first process, with version 2 alone: {problem}")


@pytest.fixture
def box(engine: Engine, tmp_path: Path) -> Iterator[Image]:
    """Return an image with busybox."""
    assert BUSYBOX.exists()
    busybox_tree(tmp_path / "tree")
    yield engine.images.from_directory(tmp_path / "tree", reference="box:1")
    for container in engine.containers.list():
        container.remove(force=True)


def group_of(pid: int | None) -> str:
    """The control group of a process."""
    return Path(f"/proc/{pid}/cgroup").read_text(encoding="ascii").strip().removeprefix("0::")


def scope_of(container: Container) -> Path:
    """The directory of the scope that a container is in."""
    parts = Path(group_of(container.pid)).parts
    end = next(number for number, part in enumerate(parts) if part.endswith(".scope"))
    return TREE.joinpath(*parts[1 : end + 1])


def until(is_so: Callable[[], bool]) -> None:
    """Look until something is so that systemd does in its own time."""
    deadline = time.monotonic() + DEADLINE_S
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def systemctl(*words: str) -> str:
    """Run systemctl."""
    return subprocess.run(["systemctl", *words], capture_output=True, text=True, check=True).stdout.strip()


def property_of(unit: str, name: str) -> str:
    """What systemd says of a unit."""
    return systemctl("show", "--value", "-p", name, unit)


@LIFETIMES
def test_scope(box: Image, engine: Engine, lifetime: str) -> None:
    """It is a delegated unit in the system's slice, beside no process of ours; nothing is left of it."""
    container = engine.containers.run(box, ["sleep", "60"], lifetime=lifetime, resources=cl.Resources(pids=7))
    scope = scope_of(container)
    assert scope.parent == TREE / "system.slice"
    assert scope.name.startswith("containerlib-")
    assert property_of(scope.name, "Delegate") == "yes"
    assert property_of(scope.name, "ControlGroup") == f"/system.slice/{scope.name}"
    assert property_of(scope.name, "TasksMax") == "infinity"
    assert (scope / "cgroup.procs").read_text(encoding="ascii") == ""
    assert (scope / "keeper/cgroup.procs").read_text(encoding="ascii").split()
    assert TREE.joinpath(group_of(container.pid)[1:], "pids.max").read_text(encoding="ascii") == "7\n"
    assert container.stats().pids.limit == 7
    assert container.exec(["true"]).exit_code == 0
    container.update(cl.Resources(pids=9))
    assert container.stats().pids.limit == 9
    container.pause()
    container.unpause()
    container.kill()
    container.wait()
    container.remove()
    if lifetime == "process":
        assert scope.exists()  # the next container goes there, too
        other = engine.containers.run(box, ["sleep", "60"])
        assert scope_of(other) == scope
    engine.close()
    until(lambda: not scope.exists())
    until(lambda: property_of(scope.name, "LoadState") == "not-found")


def test_a_detached_container_is_alone(box: Image, engine: Engine) -> None:
    """Its scope is its own, stays when the engine is closed, and is new with each start."""
    process = engine.containers.run(box, ["sleep", "60"])
    detached = engine.containers.run(box, ["sleep", "60"], lifetime="detached", name="kept")
    first = scope_of(detached)
    assert first != scope_of(process)
    engine.close()
    with cl.Engine(engine.root, engine.run_root) as again:
        found = again.containers.get("kept")
        assert scope_of(found) == first
        found.restart(timeout_s=0)
        assert scope_of(found).parent == first.parent
        second = scope_of(found)
        found.kill()
        found.wait()
        until(lambda: not first.exists() and not second.exists())
        found.remove()


MAKER = """
    import sys
    import containerlib as cl
    engine = cl.Engine(*sys.argv[1:3])
    print(engine.containers.run(engine.images.get("box:1"), ["sleep", "60"]).pid, flush=True)
    sys.stdin.read()
"""


def test_a_killed_host_process(box: Image, engine: Engine) -> None:
    """What a killed process had running is gone, and the scope with it."""
    del box
    command = [sys.executable, "-c", textwrap.dedent(MAKER), engine.root, engine.run_root]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as maker:
        assert maker.stdout is not None
        pid = int(maker.stdout.readline())
        scope = TREE / Path(group_of(pid)).parts[1] / Path(group_of(pid)).parts[2]
        assert scope.suffix == ".scope"
        os.kill(maker.pid, signal.SIGKILL)
    until(lambda: not scope.exists())
    assert not Path(f"/proc/{pid}").exists()


def test_stopped_by_systemd(box: Image, engine: Engine) -> None:
    """Who stops the unit ends the container."""
    container = engine.containers.run(
        box, ["sh", "-c", "trap 'exit 3' TERM; sleep 60 & wait"], lifetime="detached", init=False
    )
    scope = scope_of(container)
    systemctl("stop", scope.name)
    until(lambda: container.state != cl.ContainerState.RUNNING)
    assert container.wait().exit_code != 0
    until(lambda: not scope.exists())


def test_limits_outlive_a_reload(box: Image, engine: Engine) -> None:
    """After a reload, systemd has taken no controller away from what it delegated."""
    limits = cl.Resources(cpuset_cpus="0", memory_bytes=64 * MIB)
    container = engine.containers.run(box, ["sleep", "60"], resources=limits)
    systemctl("daemon-reload")
    script = "grep Cpus_allowed_list /proc/self/status"
    assert container.exec(["sh", "-c", script]).text.split()[1] == "0"
    assert container.stats().memory.limit_bytes == 64 * MIB


def test_what_it_does_not_delegate(box: Image) -> None:
    """A controller that systemd does not pass on is refused, by name."""
    with pytest.raises(cl.UnsupportedHost, match=r"unified=.*the cgroup controller 'hugetlb'"):
        box.call(["true"], resources=cl.Resources(unified={"hugetlb.2MB.max": "0"}))


@pytest.mark.parametrize("kind", ["systemd", "cgroupfs"])
@LIFETIMES
def test_by_name(engine: Engine, box: Image, kind: str, lifetime: str) -> None:
    """The one that was asked for makes them."""
    del box
    config = cl.EngineConfig(cgroup_manager=kind)  # type: ignore[arg-type]
    with cl.Engine(engine.root, engine.run_root, config) as chosen:
        container = chosen.containers.run(chosen.images.get("box:1"), ["sleep", "60"], lifetime=lifetime)
        assert (".scope/" in group_of(container.pid)) is (kind == "systemd")
        container.remove(force=True)


DOCTOR = """
    import containerlib as cl
    found = {each.name: each.found for each in cl.Engine().doctor()}
    print(found["control groups"])
"""


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ((), "mode v2, made by systemd in system.slice"),
        (("--slice=limited.slice",), "mode v2, made by systemd in limited.slice"),
        (("-p", "MemoryMax=1G"), "would be left behind"),
    ],
)
def test_limits_of_the_caller(options: tuple[str, ...], expected: str) -> None:
    """Whoever runs in a slice with limits stays in it; a limited service keeps its containers."""
    systemctl("set-property", "--runtime", "limited.slice", "MemoryMax=1G")
    command = ["systemd-run", "--quiet", "--scope", *options, sys.executable, "-c", textwrap.dedent(DOCTOR)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert expected in done.stdout
