"""podman, buildah, docker and containerd run their containers by our runtime, and do not notice."""

from __future__ import annotations

import contextlib
import os
import pty
import select
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from support.capabilities import need
from support.engine import BUSYBOX, busybox_tree
from support.oci import OURS, until
from support.peers import Buildah, Docker, Podman, dockerd
from support.session import temporary_directory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = [pytest.mark.root, pytest.mark.cgroup, pytest.mark.slow]

RUNTIME = str(Path(sys.executable).with_name(OURS))
DEADLINE_S = 60.0
BOX = "box:1"


@pytest.fixture(scope="module")
def archive() -> Iterator[Path]:
    """Return busybox as an archive of a root file system."""
    if not BUSYBOX.exists():
        pytest.skip("peers: not installed: busybox")
    with temporary_directory("a") as base:
        busybox_tree(base / "tree")
        subprocess.run(["tar", "-C", str(base / "tree"), "-cf", str(base / "box.tar"), "."], check=True)
        yield base / "box.tar"


@pytest.fixture(scope="module")
def podman(request: pytest.FixtureRequest, archive: Path) -> Iterator[Podman]:
    """Return a podman whose runtime is ours."""
    need(request.config, "peers", ("podman",))
    with temporary_directory("pm") as base:
        peer = Podman(base)
        peer.options += ["--runtime", RUNTIME]
        peer.call("import", str(archive), BOX)
        yield peer
        peer.close()


@pytest.fixture(scope="module")
def docker(request: pytest.FixtureRequest, archive: Path) -> Iterator[Docker]:
    """Return the client of a dockerd whose runtime is ours."""
    need(request.config, "peers", ("docker", "dockerd"))
    with (
        temporary_directory("dk") as base,
        dockerd(base, f"--add-runtime=ours={RUNTIME}", "--default-runtime=ours") as peer,
    ):
        peer.call("import", str(archive), BOX)
        yield peer


@pytest.fixture(params=["podman", "docker"])
def engine(request: pytest.FixtureRequest) -> Iterator[Podman | Docker]:
    """Return one after the other, and remove what a test leaves in it."""
    peer: Podman | Docker = request.getfixturevalue(request.param)
    yield peer
    for line in peer.call("ps", "--all", "--quiet").split():
        peer.call("rm", "--force", line)


def fail(peer: Podman | Docker, *arguments: str) -> tuple[int, str]:
    """Run a command that fails; return its status and what it says."""
    if isinstance(peer, Podman):
        command = ["podman", *peer.options, *arguments]
        environment: dict[str, str] = {**os.environ, **peer.variables}
    else:
        command = ["docker", "--config", str(peer.base / "client"), "--host", peer.host, *arguments]
        environment = {**os.environ}
    done = subprocess.run(
        command, capture_output=True, check=False, env=environment, stdin=subprocess.DEVNULL
    )
    return done.returncode, (done.stdout + done.stderr).decode(errors="replace")


NEW = ("--pull=never", "--network=none")


def test_run(engine: Podman | Docker) -> None:
    """A command runs as isolated as by any runtime."""
    script = "id -u; hostname; grep -E '^(NoNewPrivs|Seccomp):' /proc/self/status; ls /proc/self/fd | wc -l"
    found = engine.call("run", "--rm", *NEW, "--hostname=here", BOX, "sh", "-c", script).split()
    assert found[:2] == ["0", "here"]
    assert found[found.index("Seccomp:") + 1] == "2"


@pytest.mark.parametrize(("command", "status"), [(("sh", "-c", "exit 9"), 9), (("/there/is/none",), 127)])
def test_statuses(engine: Podman | Docker, command: tuple[str, ...], status: int) -> None:
    """The status is that of the command; a command that there is not is 127."""
    found, text = fail(engine, "run", "--rm", *NEW, BOX, *command)
    assert found == status, text


def test_life(engine: Podman | Docker) -> None:
    """Started, looked at, joined, paused, limited, stopped, started again, killed."""
    script = "trap 'echo ended; exit 5' TERM; echo began; while :; do sleep 0.1; done"
    flags = ("--detach", "--name=c1", "--memory=64m", "--pids-limit=50")
    engine.call("run", *flags, *NEW, BOX, "sh", "-c", script)
    until(lambda: "began" in engine.call("logs", "c1"))
    assert engine.call("exec", "c1", "sh", "-c", "echo $0 here") == "sh here"
    assert fail(engine, "exec", "c1", "sh", "-c", "exit 4")[0] == 4
    assert "sh" in engine.call("top", "c1")
    assert "c1" in engine.call("stats", "--no-stream", "--format={{.Name}} {{.PIDs}}", "c1")
    engine.call("pause", "c1")
    assert engine.call("inspect", "--format={{.State.Status}}", "c1") == "paused"
    engine.call("unpause", "c1")
    engine.call("stop", "--time=20", "c1")
    assert engine.call("inspect", "--format={{.State.Status}} {{.State.ExitCode}}", "c1") == "exited 5"
    assert engine.call("logs", "c1").split() == ["began", "ended"]
    engine.call("start", "c1")
    engine.call("kill", "c1")
    assert engine.call("wait", "c1") == "137"
    engine.call("rm", "c1")


def test_memory(engine: Podman | Docker) -> None:
    """Who takes too much is killed. Whether the engine learns why is a race, by any runtime."""
    flags = ("--memory=16m", "--memory-swap=16m")
    assert fail(engine, "run", "--rm", *NEW, *flags, BOX, "tail", "/dev/zero")[0] == 137


def test_volumes(engine: Podman | Docker, tmp_path: Path) -> None:
    """Directories of the host are there, read-only if asked for."""
    (tmp_path / "file").write_text("content", encoding="ascii")
    script = "cat /in/file; (: > /in/new) 2>/dev/null || echo refused; echo out > /out/new"
    volumes = ("--volume", f"{tmp_path}:/in:ro", "--volume", f"{tmp_path}:/out")
    found = engine.call("run", "--rm", *NEW, *volumes, BOX, "sh", "-c", script)
    assert found == "contentrefused"
    assert (tmp_path / "new").read_text(encoding="ascii") == "out\n"


def test_user_and_capabilities(engine: Podman | Docker) -> None:
    """Users and rights are as asked for."""
    flags = ("--user=12:34", "--cap-drop=ALL", "--security-opt=no-new-privileges")
    script = "id -u; id -g; grep -E '^(CapBnd|NoNewPrivs)' /proc/self/status"
    found = engine.call("run", "--rm", *NEW, *flags, BOX, "sh", "-c", script).split()
    assert found == ["12", "34", "CapBnd:", "0" * 16, "NoNewPrivs:", "1"]


def test_mapped_users(podman: Podman, tmp_path: Path) -> None:
    """Root of a container is somebody else outside; what joins it, too."""
    tmp_path.chmod(0o777)
    flags = ("--uidmap=0:100000:65536", "--gidmap=0:100000:65536", f"--volume={tmp_path}:/out")
    podman.call("run", "--detach", "--name=mapped", *flags, *NEW, BOX, "sleep", "1000")
    script = "id -u; cat /proc/self/uid_map; : > /out/made; : > /inside; echo x > /dev/null"
    assert podman.call("exec", "mapped", "sh", "-c", script).split() == ["0", "0", "100000", "65536"]
    assert (tmp_path / "made").stat().st_uid == 100_000
    assert podman.call("exec", "--user=12", "mapped", "id", "-u") == "12"
    podman.call("kill", "mapped")
    podman.call("rm", "--force", "mapped")


def test_terminal(engine: Podman | Docker) -> None:
    """With a terminal on both sides, ``run -it`` is a dialogue."""
    master, slave = pty.openpty()
    try:
        if isinstance(engine, Podman):
            command = ["podman", *engine.options]
            environment = {**os.environ, **engine.variables}
        else:
            command = ["docker", "--config", str(engine.base / "client"), "--host", engine.host]
            environment = {**os.environ}
        command += ["run", "--rm", "-it", *NEW, BOX, "sh", "-c", "tty; read line; echo got $line; exit 3"]
        process = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, env=environment)
        os.close(slave)
        slave = -1
        text = read_until(master, b"/dev/")
        os.write(master, b"word\n")
        text += read_until(master, b"got word")
        assert process.wait(DEADLINE_S) == 3
    finally:
        os.close(master)
        if slave >= 0:
            os.close(slave)


def read_until(fd: int, wanted: bytes) -> bytes:
    """Read from a terminal until something is in what came."""
    text = b""
    deadline = time.monotonic() + DEADLINE_S
    while wanted not in text:
        assert time.monotonic() < deadline, text
        if select.select([fd], [], [], 1)[0]:
            with contextlib.suppress(OSError):
                text += os.read(fd, 4096)
    return text


def test_build(engine: Podman | Docker, tmp_path: Path) -> None:
    """An image is built by commands that run in our containers."""
    lines = ["FROM box:1" if isinstance(engine, Docker) else "FROM localhost/box:1"]
    lines += ["RUN echo built > /made", "WORKDIR /tmp", "RUN pwd >> /made", 'CMD ["cat", "/made"]']
    (tmp_path / "Dockerfile").write_text("\n".join(lines), encoding="ascii")
    if isinstance(engine, Docker):
        command = ["docker", "--config", str(engine.base / "client"), "--host", engine.host, "build"]
        environment = {**os.environ, "DOCKER_BUILDKIT": "0"}
    else:
        command = ["podman", *engine.options, "build", "--isolation=oci"]
        environment = {**os.environ, **engine.variables}
    done = subprocess.run(
        [*command, "--network=none", "--tag=built:1", str(tmp_path)],
        capture_output=True,
        check=False,
        env=environment,
    )
    assert done.returncode == 0, done.stderr.decode()
    assert engine.call("run", "--rm", *NEW, "built:1").split() == ["built", "/tmp"]


def test_buildah(request: pytest.FixtureRequest, archive: Path) -> None:
    """So is one by buildah, step by step."""
    need(request.config, "peers", ("buildah",))
    with temporary_directory("bh") as base:
        peer = Buildah(base)
        try:
            with peer.container("scratch") as container:
                root = peer.call("mount", container)
                subprocess.run(["tar", "-C", root, "-xf", str(archive)], check=True)
                flags = ("--runtime", RUNTIME, "--isolation=oci", "--network=none")
                peer.call("run", *flags, container, "--", "sh", "-c", "echo here > /made")
                assert peer.call("run", *flags, container, "--", "cat", "/made") == "here"
        finally:
            peer.close()


@pytest.fixture
def ctr(docker: Docker, archive: Path, tmp_path: Path) -> Iterator[Callable[..., str]]:
    """Return containerd's own client, on the containerd of our dockerd."""
    root = tmp_path / "rootfs"
    root.mkdir()
    subprocess.run(["tar", "-C", str(root), "-xf", str(archive)], check=True)
    base = ["ctr", "--address", f"{docker.base}/x/containerd/containerd.sock", "--namespace", "tests"]

    def call(*arguments: str, check: bool = True, **options: Any) -> str:
        done = subprocess.run(
            [*base, *arguments], capture_output=True, check=False, stdin=subprocess.DEVNULL, **options
        )
        assert done.returncode == 0 or not check, done.stderr.decode()
        return (done.stdout + (b"" if check else done.stderr)).decode().strip()

    yield call
    for task in call("task", "list", "--quiet").split():
        call("task", "kill", "--signal=KILL", task, check=False)
        until(lambda each=task: f"{each} " not in call("task", "list") or "STOPPED" in call("task", "list"))
        call("task", "delete", task, check=False)
    for container in call("container", "list", "--quiet").split():
        call("container", "delete", container)


def test_containerd(ctr: Callable[..., str], tmp_path: Path) -> None:
    """Containerd runs, joins, pauses and kills by it."""
    flags = ("--runc-binary", RUNTIME, "--rootfs")
    root = str(tmp_path / "rootfs")
    assert ctr("run", "--rm", *flags, root, "t1", "/bin/sh", "-c", "echo here") == "here"
    ctr("run", "--detach", *flags, root, "t2", "/bin/sh", "-c", "while :; do sleep 1; done")
    assert ctr("task", "exec", "--exec-id", "e1", "t2", "/bin/echo", "joined") == "joined"
    ctr("task", "pause", "t2")
    assert "PAUSED" in ctr("task", "list")
    ctr("task", "resume", "t2")
    assert "RUNNING" in ctr("task", "list")
    assert len(ctr("task", "ps", "t2").splitlines()) >= 2  # a title, and a row for each process
    ctr("task", "kill", "--signal=KILL", "t2")
    until(lambda: "STOPPED" in ctr("task", "list"))
