"""The fault catalogue of the life of a container, continued: what runs out, floods, or is held by others."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.engine import BUSYBOX, busybox_tree
from support.invariants import check_invariants

import containerlib as cl

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from containerlib import Container, Engine, Image

pytestmark = [
    pytest.mark.root,
    pytest.mark.cgroup,
    pytest.mark.guest,
    pytest.mark.usefixtures("host_untouched"),
]

MIB = 1 << 20


@pytest.fixture
def box(engine: Engine, tmp_path: Path) -> Iterator[Image]:
    """Return an image with busybox; the invariants hold at the end, and nothing is left."""
    if not BUSYBOX.exists():
        pytest.skip("busybox is not installed")
    busybox_tree(tmp_path / "tree")
    yield engine.images.from_directory(tmp_path / "tree", reference="box:1")
    check_invariants(engine)
    for container in engine.containers.list():
        container.remove(force=True)
    check_invariants(engine)


def start(image: Image, script: str, **options: object) -> Container:
    """Start a detached container that runs a shell script."""
    return image.run(["sh", "-c", script], lifetime="detached", **options)  # type: ignore[arg-type]


def until(condition: Callable[[], object]) -> None:
    """Look until something is so that nobody tells."""
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline, "it has not come about"
        time.sleep(0.005)


def test_a_control_group_that_is_busy(box: Image, engine: Engine) -> None:
    """F-L5: a process of the host that somebody has put into a container's group ends with the container."""
    container = start(box, "sleep 60", init=True)
    paths = container.entry.record.run.cgroup_paths  # type: ignore[attr-defined]
    with subprocess.Popen(["sleep", "60"]) as foreign:
        joined = 0
        for path in paths:
            for group in Path(path).glob(f"**/{container.id}"):
                (group / "cgroup.procs").write_text(str(foreign.pid), encoding="ascii")
                joined += 1
        assert joined
        container.pause()
        container.remove(force=True)
        foreign.kill()
        foreign.wait()
    engine.recover()
    until(lambda: not [path for path in paths if os.path.exists(path)])


@pytest.mark.parametrize("lifetime", ["process", "detached"])
def test_memory_runs_out(box: Image, engine: Engine, lifetime: str) -> None:
    """F-L8: the kernel's kill is told from any other one, once, also when it does not hit process 1."""
    options = {"lifetime": lifetime, "resources": cl.Resources(memory_bytes=16 * MIB), "stdin": cl.DEVNULL}
    hog = "x=$(head -c 100000000 /dev/zero | tr '\\0' x)"
    first = box.run(["sh", "-c", f'exec sh -c "{hog}"'], **options)  # type: ignore[arg-type]
    status = first.wait(timeout_s=60)
    assert (status.exit_code, status.oom_killed) == (137, True)
    child = box.run(["sh", "-c", f"sh -c '{hog}' 2>/dev/null; exit 4"], **options, stderr=cl.DEVNULL)  # type: ignore[arg-type]
    status = child.wait(timeout_s=60)
    assert (status.exit_code, status.oom_killed) == (4, False)
    plain = box.run(["sleep", "60"], **options)  # type: ignore[arg-type]
    plain.kill()
    assert not plain.wait(timeout_s=60).oom_killed
    told = [event for event in engine.events(follow=False) if event.action == "oom"]
    assert [event.id for event in told] == [first.id]


def test_a_fork_bomb(box: Image) -> None:
    """F-L9: it gets no further than its limit, the host goes on, and stopping ends all of it."""
    container = start(box, "f() { f | f & }; f; sleep 60", init=True, resources=cl.Resources(pids=100))
    until(lambda: container.stats().pids.current >= 90)
    assert subprocess.run(["true"], check=False, timeout=20).returncode == 0
    began = time.monotonic()
    container.stop(timeout_s=0)
    assert time.monotonic() - began < 20
    assert container.state == "exited"


def test_a_line_without_end(box: Image) -> None:
    """F-L10: sixteen MiB without a newline, and bytes that are no text, come whole and in pieces."""
    container = start(box, "head -c 16777216 /dev/urandom | tee /copy | cat")
    container.wait(timeout_s=60)
    lines = list(container.logs())
    (container.fs / "copy").stat()
    data = b"".join(line.data + (b"" if line.is_partial else b"\n") for line in lines)
    assert data.removesuffix(b"\n") == (container.fs / "copy").read_bytes().removesuffix(b"\n")


def test_the_log_has_no_room(tmp_path: Path) -> None:
    """F-L10: on a full disk the container goes on, and its end is known."""
    if not BUSYBOX.exists():
        pytest.skip("busybox is not installed")
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "none", str(small)], check=True)
    try:
        with cl.Engine(f"{small}/r", f"{small}/n") as other:
            image = other.images.from_directory(busybox_tree(tmp_path / "tree"), reference="box:1")
            container = start(image, "yes 0123456789 | head -c 60000000; echo $? >/dev/null; exit 6")
            assert container.wait(timeout_s=60).exit_code == 6
            assert sum(len(line.data) for line in container.logs()) < 24 * MIB
            container.remove()
            assert os.listdir(f"{other.root}/containers") == []
    finally:
        subprocess.run(["umount", "-l", str(small)], check=True)


def test_a_client_that_does_not_read(box: Image) -> None:
    """F-L12: who is attached and reads nothing holds up neither the container nor its log, nor others."""
    container = start(box, "read x; yes 0123456789 | head -c 5000000; echo; echo end", stdin_open=True)
    with container.attach(), container.attach() as eager:
        assert eager.stdin is not None
        eager.stdin.write(b"go\n")
        read = sum(map(len, iter(lambda: eager.stdout.read(65536), b"")))
        assert container.wait(timeout_s=60).exit_code == 0
        assert read > 0
    assert [line.text for line in container.logs(tail=1)] == ["end"]


def test_input_that_ends(box: Image) -> None:
    """F-L12: closed input is the end of the file for the command, whose output goes on."""
    with box.run(["sh", "-c", "cat; echo after"], stdin=cl.PIPE, stdout=cl.PIPE) as container:
        assert container.stdin is not None
        assert container.stdout is not None
        container.stdin.write(b"in\n")
        container.stdin.close()
        assert container.stdout.read() == b"in\nafter\n"
        assert container.wait(timeout_s=20).exit_code == 0


FEW = """
    import os, resource, sys
    import containerlib as cl
    engine = cl.Engine(sys.argv[1], sys.argv[2])
    image = engine.images.get("box:1")
    image.call(["true"])
    before = sorted(os.listdir("/proc/self/fd"))
    failures = works = 0
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    for limit in range(len(before), len(before) + 40):
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, most))
        for options in ({}, {"lifetime": "detached"}):
            try:
                container = engine.containers.run(image, ["true"], stdin=cl.DEVNULL, stdout=cl.DEVNULL,
                                                  stderr=cl.DEVNULL, **options)
            except (cl.ContainerlibError, OSError) as error:
                failures += 1
            else:
                works += 1
                resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
                container.wait(timeout_s=60)
                container.remove()
                resource.setrlimit(resource.RLIMIT_NOFILE, (limit, most))
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    engine.recover(restart=False)
    for container in engine.containers.list():  # it could not be removed for want of descriptors
        assert container.state != "running"
        container.remove(force=True)
    image.call(["true"])
    after = sorted(os.listdir("/proc/self/fd"))
    print(failures > 0, works > 0, len(after) - len(before))
"""


def test_descriptors_run_out(box: Image, engine: Engine) -> None:
    """F-L13: at any number of free descriptors a start works or fails as a whole, and none is lost."""
    del box
    ran = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(FEW), engine.root, engine.run_root],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert ran.stdout == "True True 0\n", ran.stderr


def test_somebody_else_holds_the_mounts(box: Image, engine: Engine) -> None:
    """F-L14: a process that has joined a container's mount namespace does not keep it from being removed."""
    container = start(box, "sleep 60", init=True)
    with subprocess.Popen(
        ["nsenter", f"--mount=/proc/{container.pid}/ns/mnt", "--", "/bin/sh", "-c", "echo in; read x"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as foreign:
        assert foreign.stdout is not None
        assert foreign.stdout.readline() == "in\n"
        container.remove(force=True)
        assert os.listdir(f"{engine.root}/containers") == []
        assert not select.select([foreign.stdout], [], [], 0)[0]
        foreign.kill()
