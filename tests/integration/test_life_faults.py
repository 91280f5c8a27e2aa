"""The fault catalogue of the life of a container: kills, reboots, reused numbers, what does not end.

Each test ends with the invariants of `support.invariants`. What has a module of its own is not repeated: a
kill in front of every transition (F-K1 to F-K4, F-K6) in test_container_crash, of pulls (F-K5) in
test_store_crash, races (F-L1) in test_detached_races. There is no database (F-K11), and there are neither
volumes (F-K7) nor networks (F-L15) yet.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
from typing import TYPE_CHECKING

import pytest
from support.engine import BUSYBOX, busybox_tree
from support.invariants import check_invariants
from support.stuck_files import StuckFiles

import containerlib as cl
from containerlib.container import kill

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from containerlib import Container, Engine, Image

pytestmark = [pytest.mark.root, pytest.mark.cgroup, pytest.mark.usefixtures("host_untouched")]

OTHER_BOOT = "00000000-0000-4000-8000-000000000000"


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
    return image.run(["sh", "-c", script], lifetime="detached", init=True, **options)  # type: ignore[arg-type]


def supervisor_of(container: Container) -> int:
    """Return the process id of its supervisor."""
    with open(f"/proc/{container.pid}/stat", encoding="ascii") as stat:
        return int(stat.read().rpartition(")")[2].split()[1])


def end(*pids: int) -> None:
    """Kill processes that this test has started, and wait until they are gone."""
    for pid in pids:
        try:
            fd = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        signal.pidfd_send_signal(fd, signal.SIGKILL)
        assert select.select([fd], [], [], 20)[0]
        os.close(fd)


def until(condition: Callable[[], object]) -> None:
    """Look until something is so that nobody tells."""
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline, "it has not come about"
        time.sleep(0.005)


def go_down(engine: Engine, *containers: Container) -> None:
    """Do to containers what a crash of the host does: processes end unseen, what is not on disk is gone."""
    for container in containers:
        assert container.pid is not None
        end(supervisor_of(container), container.pid)
    for container in containers:
        path = f"{engine.root}/containers/{container.id}/record.json"
        with open(path, encoding="utf-8") as file:
            record = json.load(file)
        record["run"]["supervisor"]["boot_id"] = OTHER_BOOT
        with open(path, "w", encoding="utf-8") as file:
            json.dump(record, file)


@pytest.mark.parametrize("policy", ["no", "on-failure", "always", "unless-stopped"])
def test_a_supervisor_that_is_killed(box: Image, engine: Engine, policy: str) -> None:
    """F-K8: the container goes on; its end is unknown, never 0, and it comes back if its policy says so."""
    container = start(box, "sleep 60", restart=cl.RestartPolicy(name=policy))  # type: ignore[arg-type]
    first = container.pid
    end(supervisor_of(container))
    assert (container.state, container.pid) == ("running", first)
    assert engine.recover().started == ()  # it runs
    assert first is not None
    end(first)
    status = container.wait(timeout_s=20)
    assert status.exit_code is None
    assert container.state == "exited"
    report = engine.recover()
    assert report.lost == (container.name,)
    assert report.started == (() if policy == "no" else (container.name,))
    assert container.state == ("exited" if policy == "no" else "running")
    assert engine.recover().started == ()


SCRIPT = """
    import os, signal, sys
    import containerlib as cl
    engine = cl.Engine(sys.argv[1], sys.argv[2])
    image = engine.images.get("box:1")
    mine = image.run(["sleep", "60"], init=True, stdin=cl.DEVNULL)
    theirs = image.run(
        ["sh", "-c", "echo first; read x < /go; echo later; exit 7"], lifetime="detached", name="theirs"
    )
    print(mine.pid, theirs.pid, flush=True)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    {end}
"""
ENDS = {
    "killed": "os.kill(os.getpid(), signal.SIGKILL)",
    "terminated": "os.kill(os.getpid(), signal.SIGTERM); signal.pause()",
    "interrupted": "os.kill(os.getpid(), signal.SIGINT); signal.pause()",
    "exception": "raise RuntimeError",
    "os._exit": "os._exit(0)",
    "exit": "sys.exit(0)",
    "forked": "pid = os.fork(); os._exit(0) if pid == 0 else os.waitpid(pid, 0)",
    "forked and left": "pid = os.fork(); sys.exit(0) if pid == 0 else os.waitpid(pid, 0)",
}


@pytest.mark.parametrize("how", ENDS)
def test_a_host_process_that_ends(box: Image, engine: Engine, tmp_path: Path, how: str) -> None:
    """F-K9, F-K12: what was to end with it has, what was to stay is found again, with its log and its end."""
    del box
    os.mkfifo(tmp_path / "tree" / "go")
    engine.images.from_directory(tmp_path / "tree", reference="box:1")
    script = textwrap.dedent(SCRIPT).format(end=ENDS[how])
    ran = subprocess.run(
        [sys.executable, "-c", script, engine.root, engine.run_root],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    mine, theirs = map(int, ran.stdout.split())
    until(lambda: not os.path.exists(f"/proc/{mine}"))
    container = engine.containers.get("theirs")
    assert (container.state, container.pid) == ("running", theirs)
    container.exec(["sh", "-c", "echo x > /go"])  # which the end of the container may kill
    assert container.wait(timeout_s=20).exit_code == 7
    assert [line.text for line in container.logs()] == ["first", "later"]
    assert [each.name for each in engine.containers.list()] == ["theirs"]


def test_everything_is_killed_at_once(box: Image, engine: Engine) -> None:
    """F-K10: host process, supervisor and container; the next engine says that the end is unknown."""
    del box
    script = textwrap.dedent(SCRIPT).format(end="signal.pause()").replace("read x < /go", "sleep 60")
    with subprocess.Popen(
        [sys.executable, "-c", script, engine.root, engine.run_root], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        mine, _ = map(int, process.stdout.readline().split())
        container = engine.containers.get("theirs")
        assert container.pid is not None
        end(supervisor_of(container), process.pid, container.pid)
    until(lambda: not os.path.exists(f"/proc/{mine}"))
    report = engine.recover()
    assert (len(report.engines), len(report.ended), report.lost) == (1, 1, ("theirs",))
    assert container.wait(timeout_s=10).exit_code is None


def test_a_number_that_is_used_again(box: Image, engine: Engine) -> None:
    """F-L2: a process of the host with the number of a supervisor or of a container is never signalled."""
    container = start(box, "sleep 60")
    go_down(engine, container)
    with subprocess.Popen(["sleep", "60"]) as foreign:
        directory = f"{engine.root}/containers/{container.id}"
        with open(f"{directory}/record.json", encoding="utf-8") as file:
            record = json.load(file)
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            supervisor = record["run"]["supervisor"]
            supervisor |= {"pid": foreign.pid, "boot_id": file.read().strip()}
            # Numbers come back after a while; the two were started within one tick of the clock here.
            supervisor["start_ticks"] -= 100
        with open(f"{directory}/record.json", "w", encoding="utf-8") as file:
            json.dump(record, file)
        with cl.Engine(engine.root, engine.run_root) as other:
            found = other.containers.get(container.id)
            assert found.state == "exited"
            for verb in (found.kill, found.pause):
                with pytest.raises(cl.InvalidState):
                    verb()
            found.stop(timeout_s=1)
            found.remove(force=True)
        assert foreign.poll() is None
        foreign.kill()


@pytest.mark.parametrize("stopped", [False, True])
@pytest.mark.parametrize("policy", ["no", "on-failure", "always", "unless-stopped"])
def test_a_reboot(box: Image, engine: Engine, policy: str, stopped: bool) -> None:  # noqa: FBT001
    """F-L3: what ran has ended, nobody knows how; policies are applied once, as Docker does it."""
    options = {"restart": cl.RestartPolicy(name=policy)}  # type: ignore[arg-type]
    container = start(box, "echo run >> /runs; sleep 60", **options)
    never = engine.containers.create(box, ["true"], lifetime="detached", **options)  # type: ignore[arg-type]
    until((container.fs / "runs").exists)
    if stopped:
        container.stop(timeout_s=5)
        path = f"{engine.root}/containers/{container.id}/record.json"
        with open(path, encoding="utf-8") as file:
            record = json.load(file)
        record["run"]["supervisor"]["boot_id"] = OTHER_BOOT
        with open(path, "w", encoding="utf-8") as file:
            json.dump(record, file)
    else:
        go_down(engine, container)
    with cl.Engine(engine.root, engine.run_root) as other:
        found = other.containers.get(container.id)
        assert found.state == "exited"
        assert found.exit_status is not None
        assert (found.exit_status.exit_code is None) != stopped
        comes_back = policy == "always" or (policy != "no" and not stopped)
        report = other.recover()
        assert report.started == ((container.name,) if comes_back else ())
        assert report.failed == ()
        assert other.recover().started == ()
        assert found.state == ("running" if comes_back else "exited")
    assert never.state == "created"
    if comes_back:
        until(lambda: (container.fs / "runs").read_text() == "run\nrun\n")


def test_one_that_cannot_be_started_after_a_reboot(box: Image, engine: Engine) -> None:
    """It is reported with the reason, and does not keep the others down."""
    always = cl.RestartPolicy(name="always")
    bad = start(box, "sleep 60", restart=always, name="bad")
    good = start(box, "sleep 60", restart=always, name="good")
    go_down(engine, bad, good)
    (bad.fs / "bin/sh").unlink()
    (bad.fs / "bin/busybox").unlink()
    report = engine.recover()
    assert report.started == ("good",)
    assert [name for name, _ in report.failed] == ["bad"]
    assert "sh" in report.failed[0][1]


@pytest.mark.parametrize("days", [1, -1, -20000])
def test_the_clock_jumps(box: Image, monkeypatch: pytest.MonkeyPatch, days: int) -> None:
    """F-L4: what takes time takes the time it takes, whatever the clock of the wall says."""
    container = start(box, "trap 'exit 3' TERM; sleep 60 & wait")
    real = time.time
    monkeypatch.setattr(time, "time", lambda: max(0.0, real() + days * 86400))
    with pytest.raises(cl.OperationTimeout):
        container.wait(timeout_s=0.05)
    assert container.exec(["true"], timeout_s=30).exit_code == 0
    status = container.stop(timeout_s=30)
    assert status is not None
    assert status.exit_code == 3


@pytest.mark.parametrize("lifetime", ["process", "detached"])
def test_one_that_does_not_end(
    box: Image, engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lifetime: str
) -> None:
    """F-L6: a process waits for a file server; stopping ends in bounded time, says so, and others go on."""
    monkeypatch.setattr(kill, "KILL_S", 0.5)
    (tmp_path / "stuck").mkdir()
    other = start(box, "sleep 60")
    with StuckFiles(tmp_path / "stuck") as server:
        container = box.run(
            ["sh", "-c", "cat /stuck/file"],
            lifetime=lifetime,  # type: ignore[arg-type]
            init=True,
            stdin=cl.DEVNULL,
            stderr=cl.DEVNULL,
            mounts=[cl.Mount.bind(str(tmp_path / "stuck"), "/stuck")],
        )
        assert server.asked.wait(20)
        for verb in (lambda: container.stop(timeout_s=0.1), lambda: container.remove(force=True)):
            with pytest.raises(cl.OperationTimeout, match="waits in the kernel"):
                verb()
            assert container.state == "stopping"
        assert container.inspect().state == "stopping"
        with pytest.raises(cl.InvalidState, match="stopping"):
            container.exec(["true"])
        assert other.exec(["true"]).exit_code == 0
        assert {each.name for each in engine.containers.list()} == {container.name, other.name}
        server.let_go()
        assert container.wait(timeout_s=20).exit_code == 137
    assert container.state == "exited"


def test_many_orphans(box: Image) -> None:
    """F-L7: ten thousand processes that nobody waits for are reaped, and none of them is left."""
    forks = "(for j in $(seq 100); do true & done)"
    script = f"i=0; while [ $i -lt 100 ]; do {forks}; i=$((i+1)); done; echo done; sleep 60"
    container = start(box, script)
    until(lambda: [line.text for line in container.logs()] == ["done"])
    until(lambda: len(container.top()) <= 3)
    container.stop(timeout_s=5)


@pytest.mark.parametrize(
    ("script", "init"),
    [
        ("trap '' TERM; echo ready; while :; do sleep 60; done", False),
        ("trap 'exit 5' TERM; echo ready; kill -STOP $$; while :; do sleep 0.1; done", True),
        ("echo ready; exec sleep 60", False),
    ],
)
def test_one_that_does_not_heed_the_signal(box: Image, script: str, init: bool) -> None:  # noqa: FBT001
    """F-L11: it ignores SIGTERM, stands still, or is process 1 without a handler: killed in the end."""
    container = box.run(["sh", "-c", script], lifetime="detached", init=init)
    until(lambda: [line.text for line in container.logs()] == ["ready"])
    status = container.stop(timeout_s=0.3)
    assert status is not None
    assert status.exit_code == 137


def test_the_run_directory_is_deleted(box: Image, engine: Engine) -> None:
    """F-L16: detached containers are found, looked at, stopped and removed; only the events are gone."""
    container = start(box, "sleep 60", name="kept")
    mine = box.run(["sleep", "60"], init=True, stdin=cl.DEVNULL)
    shutil.rmtree(engine.run_root)
    assert container.exec(["true"]).exit_code == 0
    mine.remove(force=True)
    with cl.Engine(engine.root, engine.run_root) as other:
        found = other.containers.get("kept")
        assert found.state == "running"
        assert found.exec(["true"]).exit_code == 0
        found.stop(timeout_s=5)
        assert found.state == "exited"
    started = start(box, "exit 4")
    assert started.wait(timeout_s=20).exit_code == 4


def test_a_record_of_a_newer_version(box: Image, engine: Engine) -> None:
    """F-L17: it is refused and left as it is; the others work."""
    newer, other = start(box, "sleep 60", name="newer"), start(box, "sleep 60", name="other")
    newer.stop(timeout_s=5)
    path = f"{engine.root}/containers/{newer.id}/record.json"
    with open(path, encoding="utf-8") as file:
        record = json.load(file)
    before = json.dumps(record | {"format": 99})
    with open(path, "w", encoding="utf-8") as file:
        file.write(before)
    with cl.Engine(engine.root, engine.run_root) as second:
        with pytest.raises(cl.StoreCorrupted, match="newer"):
            second.containers.get(newer.id)
        assert [each.name for each in second.containers.list()] == ["other"]
        assert second.containers.get("other").exec(["true"]).exit_code == 0
        assert [damage.kind for damage in second.check() if not damage.is_leftover] == ["container-record"]
    with open(path, encoding="utf-8") as file:
        assert file.read() == before
    with open(path, "w", encoding="utf-8") as file:
        json.dump(record, file)
    assert other.state == "running"


def test_signals_while_it_works(box: Image) -> None:
    """F-L18: an interrupted system call is done again, in every verb."""
    stop = threading.Event()
    main = threading.get_ident()
    former = signal.signal(signal.SIGUSR1, lambda *_: None)

    def disturb() -> None:
        while not stop.wait(0.0005):
            signal.pthread_kill(main, signal.SIGUSR1)

    thread = threading.Thread(target=disturb)
    thread.start()
    try:
        for number in range(20):
            container = start(box, f"echo {number}; sleep 60")
            assert container.exec(["sh", "-c", "cat; exit 3"], stdin=b"in").exit_code == 3
            container.pause()
            container.unpause()
            container.put(b"x", "/file")
            status = container.stop(timeout_s=0.1)
            assert status is not None
            assert next(iter(container.logs())).text == str(number)
            container.remove()
            assert box.call(["cat"], stdin=b"y" * 100_000).stdout == b"y" * 100_000
    finally:
        stop.set()
        thread.join()
        signal.signal(signal.SIGUSR1, former)
