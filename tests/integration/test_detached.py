"""Containers that outlive the process that made them."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING

import pytest
from support.engine import BUSYBOX, busybox_tree, new_engine
from support.posture import Posture

import containerlib as cl
from containerlib._native.program import WALL  # the only flag that sees our processes

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from containerlib import Container, Engine

pytestmark = [pytest.mark.root, pytest.mark.cgroup, pytest.mark.guest]

MAKER = """
    import os, signal, sys
    import containerlib as cl
    root, run_root, how, *command = sys.argv[1:]
    engine = cl.Engine(root, run_root)
    container = engine.images.get("box:1").run(command, name="kept", lifetime="detached")
    print(container.id, flush=True)
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "exit":
        os._exit(0)
    sys.exit(0)
"""


@pytest.fixture
def made(engine: Engine, tmp_path: Path) -> Iterator[Engine]:
    """Return an engine with the image box:1; what detached containers are left at the end is removed."""
    if not BUSYBOX.exists():
        pytest.skip("busybox is not installed")
    busybox_tree(tmp_path / "tree")
    engine.images.from_directory(tmp_path / "tree", reference="box:1")
    yield engine
    for container in engine.containers.list():
        container.remove(force=True)


def run_maker(engine: Engine, how: str, *command: str) -> str:
    """Start a detached container from another process that then ends, and return the container's id."""
    script = textwrap.dedent(MAKER)
    done = subprocess.run(
        [sys.executable, "-c", script, engine.root, engine.run_root, how, *command],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.strip(), done.stderr
    return done.stdout.strip()


def output_of(engine: Engine, container: Container) -> str:
    """Return what the container has written to its log."""
    assert engine.root in container.entry.record_path
    return "".join(f"{line.text}\n" for line in container.logs())


def supervisor_of(container: Container) -> int:
    """Return the process id of the parent of the container's first process."""
    with open(f"/proc/{container.pid}/stat", encoding="ascii") as stat:
        return int(stat.read().rpartition(")")[2].split()[1])


@pytest.mark.parametrize("how", ["return", "exit", "kill"])
def test_it_survives_its_maker(made: Engine, how: str) -> None:
    """However its maker ends, another process finds it, and learns how it ended."""
    identity = run_maker(made, how, "sh", "-c", "echo begun; read line < /dev/full; sleep 60; exit 7")
    container = made.containers.get("kept")
    assert container.id == identity
    assert container.state == "running"
    assert next(iter(container.logs(follow=True))).text == "begun"  # so that it has come so far
    container.kill()
    status = container.wait(timeout_s=10)
    assert (status.exit_code, status.signal) == (137, 9)
    assert container.state == "exited"
    assert output_of(made, container).startswith("begun\n")


def test_the_exit_code_is_kept(made: Engine) -> None:
    """The exit code of a container that ended by itself is there for who comes later."""
    run_maker(made, "exit", "sh", "-c", "exit 7")
    container = made.containers.get("kept")
    assert container.wait(timeout_s=10).exit_code == 7
    assert [found.exit_status for found in made.containers.list()] == [container.exit_status]


def test_a_lost_supervisor_is_never_success(made: Engine) -> None:
    """A container whose supervisor was killed goes on; how it ended is then unknown, not 0."""
    run_maker(made, "exit", "sleep", "60")
    container = made.containers.get("kept")
    supervisor = os.pidfd_open(supervisor_of(container))
    signal.pidfd_send_signal(supervisor, signal.SIGKILL)
    assert select.select([supervisor], [], [], 10)[0]
    os.close(supervisor)
    assert container.state == "running"
    container.kill()
    status = container.wait(timeout_s=30)
    assert status.exit_code is None
    container.remove()
    assert made.containers.list() == []


def test_it_is_the_same_container_for_its_maker(made: Engine) -> None:
    """The process that made it may wait, start it again on the same layer, and remove it."""
    image = made.images.get("box:1")
    container = image.run(["sh", "-c", "echo $$ >> /runs; wc -l < /runs"], lifetime="detached")
    assert container.wait(timeout_s=10).exit_code == 0
    container.start()
    assert container.wait(timeout_s=10).exit_code == 0
    assert output_of(made, container).split() == ["1", "2"]
    container.remove()
    assert not os.path.exists(f"{made.root}/containers/{container.id}")


def test_closing_the_engine_leaves_it(made: Engine) -> None:
    """An engine that is closed ends its own containers and no detached one."""
    run_root = f"{made.run_root}-other"
    with new_engine(made.root, run_root) as other:  # type: ignore[arg-type]
        other.images.get("box:1").run(["sleep", "60"], lifetime="detached", name="kept")
    assert made.containers.get("kept").state == "running"
    made.containers.get("kept").remove(force=True)
    subprocess.run(["rm", "-rf", run_root], check=True)


def test_anybody_starts_it_again(made: Engine) -> None:
    """Another process starts it again on its layer, with everything that its maker has said of it."""
    run_maker(made, "exit", "sh", "-c", "echo $$ >> /runs; wc -l < /runs; id -u")
    container = made.containers.get("kept")
    assert container.wait(timeout_s=10).exit_code == 0
    container.start()
    assert container.wait(timeout_s=10).exit_code == 0
    assert output_of(made, container).split() == ["1", "0", "2", "0"]


def test_a_name_is_taken_for_the_whole_store(made: Engine) -> None:
    """A detached container's name cannot be used again, in whichever process."""
    run_maker(made, "exit", "sleep", "60")
    with pytest.raises(cl.NameInUse, match="'kept'"):
        made.images.get("box:1").run(["true"], lifetime="detached", name="kept")


def test_its_image_stays(made: Engine) -> None:
    """The image of a detached container cannot be removed."""
    run_maker(made, "exit", "sleep", "60")
    with pytest.raises(cl.ResourceInUse, match="kept"):
        made.images.remove("box:1")


def test_what_it_cannot_have(made: Engine) -> None:
    """A layer in memory would end with this process, and is refused."""
    with pytest.raises(cl.InvalidOption, match="detached"):
        made.images.get("box:1").run(["true"], lifetime="detached", layer="memory")
    assert made.containers.list() == []


def test_a_start_that_fails_leaves_no_supervisor(made: Engine) -> None:
    """A command that does not exist is an error, and neither process nor directory remains."""
    with pytest.raises(cl.CommandNotFound):
        made.images.get("box:1").run(["nowhere"], lifetime="detached")
    assert made.containers.list() == []
    assert os.listdir(f"{made.root}/containers") == []


def test_stop_and_remove_from_elsewhere(made: Engine) -> None:
    """Another process stops it with its stop signal and removes it with everything it had."""
    run_maker(made, "exit", "sh", "-c", "trap 'exit 3' TERM; echo ready; while :; do sleep 0.05; done")
    container = made.containers.get("kept")
    while "ready" not in output_of(made, container):
        assert container.state == "running"
    status = container.stop(timeout_s=10)
    assert status is not None
    assert status.exit_code == 3
    container.remove()
    assert os.listdir(f"{made.root}/containers") == []


def test_the_posture_of_the_supervisor(made: Engine) -> None:
    """A supervisor is our sealed program, opaque to others, in a session of its own, with no environment."""
    container = made.images.get("box:1").run(["sleep", "60"], lifetime="detached")
    pid = supervisor_of(container)
    seen = Posture.collect(pid)
    own = Posture.collect(os.getpid())
    assert seen.comm == "ctr-supervisor"
    assert (seen.exe or "").startswith("/memfd:ctr-spawner")
    assert seen.dumpable is False
    assert seen.session == pid
    assert seen.namespaces == {**own.namespaces, "time": seen.namespaces["time"]}
    assert (seen.cwd, seen.umask) == ("/", 0)
    assert (seen.exe_seals or 0) & 0x0F == 0x0F  # seal, shrink, grow, write
    assert [fd.target for fd in seen.descriptors if fd.number < 3] == ["/dev/null"] * 3
    directories = {fd.target for fd in seen.descriptors if fd.is_directory}
    own = f"{made.root}/containers/{container.id}"
    expected = {own, f"{own}/log", f"{made.run_root}/events"}
    assert {path for path in directories if not path.startswith("/sys/fs/cgroup")} == expected
    assert all(fd.cloexec for fd in seen.descriptors if fd.number > 2)
    assert seen.capabilities["CapInh"] == seen.capabilities["CapAmb"] == 0
    assert seen.threads == 1
    with open(f"/proc/{pid}/environ", "rb") as environ:
        assert environ.read() == b""
    container.remove(force=True)


def test_no_child_is_left_to_reap(made: Engine) -> None:
    """After the end of a detached container its maker has no ended child."""
    container = made.images.get("box:1").run(["true"], lifetime="detached")
    container.wait(timeout_s=10)
    with pytest.raises(ChildProcessError):
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | WALL)
    made.close()
