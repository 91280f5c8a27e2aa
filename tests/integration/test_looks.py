"""Containers looked at from outside: what they use, which processes they have, what they are."""

from __future__ import annotations

import json
import os
import select
import time
from typing import TYPE_CHECKING

import pytest
from support.engine import BUSYBOX, busybox_tree

import containerlib as cl
from containerlib.runtime.process_table import pids_of_namespace

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from containerlib import Container, Engine, Image

pytestmark = [pytest.mark.root, pytest.mark.cgroup]

LIFETIMES = pytest.mark.parametrize("lifetime", ["process", "detached"])
NOW = "0001-01-01T00:00:00Z"


@pytest.fixture
def box(engine: Engine, tmp_path: Path) -> Iterator[Image]:
    """Return an image with busybox."""
    if not BUSYBOX.exists():
        pytest.skip("busybox is not installed")
    busybox_tree(tmp_path / "tree")
    yield engine.images.from_directory(tmp_path / "tree", reference="box:1")
    for container in engine.containers.list():
        container.remove(force=True)


def read_line(container: Container) -> bytes:
    """Return the first line that a container writes, which says that it is where it says."""
    if container.stdout is not None:
        return container.stdout.readline()
    return next(iter(container.logs(follow=True))).data + b"\n"


def streams(lifetime: str) -> dict[str, int]:
    """Return the option by which `read_line` gets a line."""
    return {"stdout": cl.PIPE} if lifetime == "process" else {}


@LIFETIMES
def test_stats_of_limits(box: Image, engine: Engine, lifetime: str) -> None:
    """With limits, control groups count memory, processes and time, and say where the limits are."""
    limits = cl.Resources(memory_bytes=64 << 20, pids=50, cpus=1.5)
    script = "dd if=/dev/zero of=/dev/shm/x bs=1M count=8 2>/dev/null; sleep 60 & echo here; wait"
    container = engine.containers.run(
        box, ["sh", "-c", script], resources=limits, lifetime=lifetime, **streams(lifetime)
    )
    assert read_line(container) == b"here\n"
    found = container.stats()
    assert found.memory.is_exact
    assert found.memory.limit_bytes == 64 << 20
    assert 8 << 20 <= found.memory.usage_bytes <= 64 << 20
    assert found.memory.peak_bytes is not None
    assert found.memory.peak_bytes >= found.memory.working_set_bytes >= 8 << 20
    assert found.memory.oom_kills == 0
    assert found.pids == cl.PidsStats(current=2, peak=found.pids.peak, limit=50)
    assert found.cpu.total_ns > 0
    assert found.cpu.periods is not None
    assert found.cpu_percent is None
    assert found.networks == {}
    assert abs(found.time - time.time()) < 60


@LIFETIMES
def test_stats_without_limits(box: Image, engine: Engine, lifetime: str) -> None:
    """Without limits there are none, and the same is counted."""
    container = engine.containers.run(
        box,
        ["sh", "-c", "sleep 60 & echo here; wait"],
        resources=cl.Resources(pids=None),
        lifetime=lifetime,
        **streams(lifetime),
    )
    assert read_line(container) == b"here\n"
    found = container.stats()
    assert found.memory.is_exact
    assert found.memory.usage_bytes > 0
    assert found.memory.limit_bytes is None
    # Where every group counts its processes, it also knows the most there were.
    assert found.pids in {cl.PidsStats(current=2), cl.PidsStats(current=2, peak=2)}
    assert found.cpu.total_ns > 0


@LIFETIMES
def test_stats_of_a_busy_one(box: Image, engine: Engine, lifetime: str) -> None:
    """The stream says which share of a processor is used, and ends with the container."""
    container = engine.containers.run(box, ["sh", "-c", "while :; do :; done"], lifetime=lifetime)
    stream = container.stats_stream(interval_s=0.05)
    first, second = next(stream), next(stream)
    assert first.cpu_percent is None
    assert second.cpu_percent is not None
    assert second.cpu_percent > 0
    assert second.cpu.total_ns > first.cpu.total_ns
    assert second.since(first) == second
    container.kill()
    container.wait()
    assert list(stream) == []


def test_the_stream_is_woken_at_the_end(box: Image, engine: Engine) -> None:
    """It does not wait for its interval when the container ends."""
    container = engine.containers.run(box, ["cat"], stdin=cl.PIPE)
    stream = container.stats_stream(interval_s=3600)
    next(stream)
    assert container.stdin is not None
    container.stdin.close()
    assert list(stream) == []


def test_bad_intervals_and_states(box: Image, engine: Engine) -> None:
    """What cannot be measured is refused at once, with both states."""
    container = engine.containers.create(box, ["sleep", "60"])
    for look in (container.stats, container.stats_stream, container.top):
        with pytest.raises(cl.InvalidState, match="created"):
            look()
    container.start()
    for interval_s in (0, -1, float("nan")):
        with pytest.raises(cl.InvalidOption, match="interval_s"):
            container.stats_stream(interval_s=interval_s)
    container.pause()
    assert container.stats().pids.current == 1
    assert [process.container_pid for process in container.top()] == [1]
    container.unpause()
    container.stop(timeout_s=0)
    for look in (container.stats, container.stats_stream, container.top):
        with pytest.raises(cl.InvalidState, match="exited"):
            look()
    container.remove()
    with pytest.raises(cl.InvalidState, match="removed"):
        container.inspect()


@LIFETIMES
def test_top(box: Image, engine: Engine, lifetime: str) -> None:
    """All processes are there, with their numbers on both sides, users and arguments."""
    container = engine.containers.run(
        box,
        ["sh", "-c", "sleep 61 & echo here; wait"],
        user="1234:1234",
        lifetime=lifetime,
        init=False,
        **streams(lifetime),
    )
    assert read_line(container) == b"here\n"
    joined = container.popen(["sleep", "62"], user="0")
    found = container.top()
    by_command = {process.command: process for process in found}
    first = next(process for process in found if process.container_pid == 1)
    assert first.pid == container.pid
    assert first.uid == 1234
    assert by_command["sleep", "61"].parent_pid == first.pid
    assert by_command["sleep", "62"].uid == 0
    assert {process.state for process in found} <= {"running", "sleeping"}
    assert all(process.threads == 1 for process in found)
    # The kernel adds up roughly: of a program that has just started it may say 0.
    assert first.resident_bytes > 0
    assert all(abs(process.started_at - time.time()) < 60 for process in found)
    assert {process.pid for process in found} == pids_of_namespace(first.pid)
    joined.kill()
    joined.close()


def test_names_of_processes_are_hostile(box: Image, engine: Engine) -> None:
    """A process that calls itself what looks like the kernel's own fields is told apart all the same."""
    script = r"printf ') R 1 1' > /proc/self/comm; echo here; read x"
    container = engine.containers.run(box, ["sh", "-c", script], stdin=cl.PIPE, stdout=cl.PIPE)
    assert read_line(container) == b"here\n"
    with open(f"/proc/{container.pid}/comm", "rb") as name:
        assert name.read() == b") R 1 1\n"
    (process,) = container.top()
    assert process.pid == container.pid
    assert process.state in {"sleeping", "running"}
    assert process.parent_pid not in {0, 1}


def test_arguments_of_any_bytes(box: Image, engine: Engine) -> None:
    """Arguments, labels and variables need not be text in any encoding."""
    strange = os.fsdecode(b"\xff\xfe")
    container = engine.containers.run(
        box, ["sh", "-c", "echo here; read x", strange], labels={"a": strange}, stdin=cl.PIPE, stdout=cl.PIPE
    )
    assert read_line(container) == b"here\n"
    assert container.top()[0].command[-1] == strange
    assert container.inspect().config.args[-1] == strange
    assert json.loads(json.dumps(container.inspect().to_json()))["Args"][-1] == strange


def test_threads_and_forks_come_and_go(box: Image, engine: Engine) -> None:
    """Looking at processes that end meanwhile is no error, and none of another container is seen."""
    other = engine.containers.run(box, ["sleep", "60"])
    container = engine.containers.run(box, ["sh", "-c", "while :; do true & done"])
    for _ in range(50):
        found = container.top()
        assert other.pid not in {process.pid for process in found}
        assert container.stats().cpu.total_ns > 0


@LIFETIMES
def test_inspect(box: Image, engine: Engine, tmp_path: Path, lifetime: str) -> None:
    """The typed value and the object in Docker's form say what was asked for, and where it stands."""
    container = engine.containers.create(
        box,
        ["sleep", "60"],
        name="web",
        env={"A": "b"},
        labels={"c": "d"},
        hostname="host1",
        user="1:2",
        workdir="/tmp",
        mounts=[cl.Mount.bind(str(tmp_path), "/data", read_only=True), cl.Mount.tmpfs("/t", size_bytes=4096)],
        resources=cl.Resources(memory_bytes=64 << 20, cpus=0.5),
        security=cl.Security(cap_drop=["ALL"]),
        stop_signal="INT",
        lifetime=lifetime,
    )
    made = container.inspect()
    assert (made.state, made.pid, made.started_at, made.exit_status) == ("created", None, None, None)
    assert made.to_json()["State"] == {
        "Status": "created",
        "Running": False,
        "Paused": False,
        "Restarting": False,
        "OOMKilled": False,
        "Dead": False,
        "Pid": 0,
        "ExitCode": 0,
        "Error": "",
        "StartedAt": NOW,
        "FinishedAt": NOW,
    }
    container.start()
    running = container.inspect()
    assert (running.state, running.pid) == ("running", container.pid)
    assert running.started_at is not None
    assert running.started_at >= running.created_at
    assert running.finished_at is None
    said = running.to_json()
    assert json.loads(json.dumps(said)) == said
    assert said["Id"] == container.id
    assert said["Name"] == "/web"
    assert said["Image"] == box.id
    assert (said["Path"], said["Args"]) == ("sleep", ["60"])
    config, host = said["Config"], said["HostConfig"]
    assert isinstance(config, dict)
    assert isinstance(host, dict)
    assert (config["Hostname"], config["User"], config["WorkingDir"]) == ("host1", "1:2", "/tmp")
    assert "A=b" in config["Env"]
    assert config["Labels"] == {"c": "d"}
    assert config["StopSignal"] == "SIGINT"
    assert config["Image"] == "box:1"
    assert (host["Memory"], host["NanoCpus"]) == (64 << 20, 500_000_000)
    assert host["CapDrop"] == ["ALL"]
    assert host["Binds"] == [f"{tmp_path}:/data:ro"]
    assert host["Tmpfs"] == {"/t": "mode=1777,noexec,size=4096"}
    mounts = said["Mounts"]
    assert isinstance(mounts, list)
    assert [(each["Type"], each["Destination"], each["RW"]) for each in mounts] == [
        ("bind", "/data", False),
        ("tmpfs", "/t", True),
    ]
    container.kill()
    container.wait()
    ended = container.inspect()
    assert (ended.state, ended.pid) == ("exited", None)
    assert ended.exit_status == container.exit_status
    assert ended.finished_at is not None
    assert ended.finished_at >= running.started_at
    state = ended.to_json()["State"]
    assert isinstance(state, dict)
    assert (state["Status"], state["ExitCode"], state["Pid"]) == ("exited", 137, 0)


def test_inspect_health(box: Image, engine: Engine) -> None:
    """What the health check says is there in both forms."""
    check = cl.HealthCheck(command=["sh", "-c", "echo fine"], interval_s=0.05)
    container = engine.containers.run(box, ["sleep", "60"], health=check, lifetime="detached")
    container.wait_until("healthy", timeout_s=20)
    found = container.inspect()
    assert found.health is not None
    assert found.health.status == "healthy"
    state = found.to_json()["State"]
    assert isinstance(state, dict)
    assert state["Health"]["Status"] == "healthy"
    assert state["Health"]["Log"][-1]["Output"] == "fine\n"
    assert state["Health"]["Log"][-1]["ExitCode"] == 0


def test_nothing_is_executed(box: Image, engine: Engine, tmp_path: Path) -> None:
    """Programs of the container with the names of tools are never run for looking at it."""
    canary = tmp_path / "canary"
    canary.mkdir()
    container = engine.containers.create(box, ["sleep", "60"], mounts=[cl.Mount.bind(str(canary), "/canary")])
    for name in ("ps", "top", "nsenter", "mount", "tar", "gzip", "xz", "unpigz"):
        (container.fs / "bin" / name).unlink(missing_ok=True)
        container.put(b"#!/bin/sh\necho run >> /canary/ran\n", f"/bin/{name}", mode=0o755)
    container.start()
    assert container.exec(["ps"]).exit_code == 0
    assert (canary / "ran").read_text(encoding="ascii") == "run\n"
    container.top()
    container.stats()
    container.inspect()
    container.changes()
    container.put(b"x", "/tmp/x")
    container.get("/bin", tmp_path / "bin")
    container.export(tmp_path / "all.tar")
    assert (canary / "ran").read_text(encoding="ascii") == "run\n"


def test_a_thousand_looks_leave_nothing(box: Image, engine: Engine) -> None:
    """No descriptor stays open."""
    container = engine.containers.run(box, ["sleep", "60"], lifetime="detached")
    container.stats()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(300):
        container.stats()
        container.top()
        container.inspect()
    assert len(os.listdir("/proc/self/fd")) == before
    for _ in range(20):
        stream = container.stats_stream(interval_s=0.001)
        next(stream)
        next(stream)
        stream.close()
    assert len(os.listdir("/proc/self/fd")) == before
    assert not select.select([container.fileno()], [], [], 0)[0]
