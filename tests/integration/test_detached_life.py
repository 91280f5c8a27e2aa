"""What goes on in the life of a detached container without Python: restarts, health, logs, attachment."""

from __future__ import annotations

import datetime as dt
import os
import select
import signal
import subprocess
import sys
import textwrap
import time
from typing import TYPE_CHECKING

import pytest
from support.engine import BUSYBOX, busybox_tree
from support.faults import children, step_number

import containerlib as cl
from containerlib.container.detached_entry import DetachedEntry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from containerlib import Container, Engine, Image

pytestmark = [pytest.mark.root, pytest.mark.cgroup]

ALWAYS = cl.RestartPolicy(name="always")


@pytest.fixture
def box(engine: Engine, tmp_path: Path) -> Iterator[Image]:
    """Return an image with busybox; the containers that are left at the end are removed."""
    if not BUSYBOX.exists():
        pytest.skip("busybox is not installed")
    busybox_tree(tmp_path / "tree")
    yield engine.images.from_directory(tmp_path / "tree", reference="box:1")
    for container in engine.containers.list():
        container.remove(force=True)


def start(image: Image, script: str, **options: object) -> Container:
    """Start a detached container that runs a shell script."""
    return image.run(["sh", "-c", script], lifetime="detached", **options)  # type: ignore[arg-type]


def texts(container: Container, **options: object) -> list[str]:
    """Return the lines of its log."""
    return [line.text for line in container.logs(**options)]  # type: ignore[arg-type]


def until(condition: Callable[[], object]) -> None:
    """Look until something is so; what the supervisor does by itself is told to nobody."""
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline, "it has not come about"
        time.sleep(0.005)


def test_on_failure_counts(box: Image) -> None:
    """A container that fails is started again as often as its policy says, and its last end is its end."""
    policy = cl.RestartPolicy(name="on-failure", max_retries=2)
    container = start(box, "echo $$ >> /runs; wc -l < /runs; exit 3", restart=policy)
    assert container.wait(timeout_s=20).exit_code == 3
    assert texts(container) == ["1", "2", "3"]
    assert (container.restart_count, container.state) == (2, "exited")


def test_success_is_no_failure(box: Image) -> None:
    """With "on-failure", a container that ends well is not started again."""
    container = start(box, "echo once", restart=cl.RestartPolicy(name="on-failure"))
    assert container.wait(timeout_s=20).exit_code == 0
    assert texts(container) == ["once"]


def test_always_after_a_kill_from_outside(box: Image) -> None:
    """Whoever kills the first process, it comes again with another one, on its mounts, and can be joined."""
    container = start(box, "sleep 60", restart=ALWAYS)
    first = container.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    until(lambda: container.state == "running" and container.pid not in (None, first))
    assert container.restart_count == 1
    assert container.exec(["echo", "here"]).stdout == b"here\n"
    container.remove(force=True)


def test_bind_mounts_come_again(box: Image, tmp_path: Path) -> None:
    """After a restart the same directory of the host is mounted."""
    (tmp_path / "shared").mkdir()
    mount = cl.Mount.bind(str(tmp_path / "shared"), "/shared")
    policy = cl.RestartPolicy(name="on-failure", max_retries=1)
    container = start(box, "echo run >> /shared/runs; exit 1", mounts=[mount], restart=policy)
    assert container.wait(timeout_s=20).exit_code == 1
    assert (tmp_path / "shared" / "runs").read_text() == "run\nrun\n"


@pytest.mark.parametrize("how", ["stop", "kill", "remove"])
def test_what_is_ended_stays_so(box: Image, how: str) -> None:
    """After a wanted end no policy starts it again."""
    container = start(box, "sleep 60", restart=ALWAYS)
    if how == "stop":
        container.stop(timeout_s=0)
    elif how == "kill":
        container.kill()
    else:
        container.remove(force=True)
        assert container.state == "removed"
        return
    assert container.wait(timeout_s=20).signal == signal.SIGKILL
    assert (container.state, container.restart_count) == ("exited", 0)


def test_stop_while_it_waits_to_restart(box: Image) -> None:
    """A container that fails at once spends its time waiting; `stop` ends that."""
    container = start(box, "exit 1", restart=ALWAYS)
    until(lambda: container.state == "restarting")
    status = container.stop(timeout_s=5)
    assert status is not None
    assert status.exit_code == 1
    assert container.state == "exited"


def test_a_restart_that_fails_is_its_end(box: Image, tmp_path: Path) -> None:
    """What cannot be started again, because a mount's source has gone, has ended."""
    (tmp_path / "shared").mkdir()
    mount = cl.Mount.bind(str(tmp_path / "shared"), "/shared")
    container = start(box, "sleep 60", mounts=[mount], restart=ALWAYS)
    (tmp_path / "shared").rmdir()
    os.kill(container.pid or 0, signal.SIGKILL)
    container.wait(timeout_s=20)
    assert container.state == "exited"


def test_the_policy_can_be_changed(box: Image) -> None:
    """A container that runs gets another policy, which its next end follows."""
    container = start(box, "sleep 60", restart=ALWAYS)
    container.update(restart=cl.RestartPolicy())
    assert container.entry.config.restart.name == "no"
    os.kill(container.pid or 0, signal.SIGKILL)
    assert container.wait(timeout_s=20).signal == signal.SIGKILL
    assert container.restart_count == 0
    with box.run(["sleep", "60"]) as own, pytest.raises(cl.InvalidOption, match="detached"):
        own.update(restart=ALWAYS)


def test_health_turns(box: Image) -> None:
    """Failures in a row make it unhealthy, one success healthy; the results say what the check wrote."""
    check = cl.HealthCheck(command=("sh", "-c", "echo looked; test -e /ok"), interval_s=0.02, retries=2)
    container = start(box, "sleep 60", health=check)
    until(lambda: (health := container.health) is not None and health.status == "unhealthy")
    health = container.health
    assert health is not None
    assert health.failures >= 2
    assert {(result.exit_code, result.output) for result in health.results} == {(1, b"looked\n")}
    container.exec(["touch", "/ok"], check=True)
    container.wait_until("healthy", timeout_s=20)
    container.pause()
    before = container.health
    container.unpause()
    assert before is not None
    assert before.status == "healthy"


def test_a_check_that_hangs_is_killed(box: Image) -> None:
    """A check that takes too long counts as failed, and nothing of it goes on."""
    check = cl.HealthCheck(command=("sh", "-c", "sleep 61; true"), interval_s=0.02, timeout_s=0.05, retries=1)
    container = start(box, "sleep 60", health=check)
    until(lambda: (health := container.health) is not None and health.status == "unhealthy")
    health = container.health
    assert health is not None
    assert health.results[0].exit_code is None
    container.remove(force=True)


def test_waiting_for_what_cannot_come(box: Image) -> None:
    """Waiting for health without a check, or of what has ended, is an error at once."""
    container = start(box, "true")
    container.wait(timeout_s=20)
    with pytest.raises(cl.InvalidState, match="no health check"):
        container.wait_until("healthy")
    with pytest.raises(cl.InvalidOption, match="'well'"):
        container.wait_until("well")  # type: ignore[arg-type]
    container.wait_until("exited")
    with pytest.raises(cl.OperationTimeout):
        container.wait_until("running", timeout_s=0.01)
    container.remove()
    container.wait_until("removed")
    with pytest.raises(cl.InvalidState, match="will not become running"):
        container.wait_until("running")


def test_logs_follow_to_the_end(box: Image) -> None:
    """Lines of both streams come as they are written, and the iterator ends with the container."""
    container = start(box, "echo one; echo two >&2; until test -e /go; do sleep 0.01; done; printf three")
    lines = container.logs(follow=True)
    seen = [next(lines), next(lines)]
    assert {(line.stream, line.data) for line in seen} == {("stdout", b"one"), ("stderr", b"two")}
    container.exec(["touch", "/go"], check=True)
    assert [(line.text, line.is_partial) for line in lines] == [("three", True)]
    assert texts(container, stderr=False) == ["one", "three"]


def test_logs_of_chosen_lines(box: Image) -> None:
    """`tail`, `since` and `until` choose, and starts do not run into each other."""
    container = start(box, "for i in 1 2 3; do echo $i; done; printf end")
    container.wait(timeout_s=20)
    between = dt.datetime.now(dt.UTC)
    container.start()
    container.wait(timeout_s=20)
    run = ["1", "2", "3", "end"]
    assert texts(container) == [*run, *run]
    assert texts(container, tail=2) == ["3", "end"]
    assert texts(container, tail=0) == []
    assert texts(container, until=between) == run
    assert texts(container, since=between) == run
    assert texts(container, since=dt.timedelta(hours=1)) == [*run, *run]
    with pytest.raises(cl.InvalidOption, match="tail"):
        container.logs(tail=-1)
    with pytest.raises(cl.InvalidOption, match="stdout"):
        container.logs(stdout=False, stderr=False)


def test_logs_of_any_bytes(box: Image) -> None:
    """Zeros and what is no text come as they were, and a line without end in pieces."""
    container = start(box, r"printf '\000\377\n'; head -c 3000000 /dev/zero")
    container.wait(timeout_s=20)
    first, *rest = container.logs()
    assert first.data == b"\x00\xff"
    assert all(line.is_partial for line in rest)
    assert b"".join(line.data for line in rest) == bytes(3000000)
    assert max(len(line.data) for line in rest) <= 1 << 20


def test_a_flood_is_bounded(box: Image) -> None:
    """Of 100 MB of output the last files stay, and what is left is whole lines but for its beginning."""
    container = start(box, "yes 0123456789abcdef | head -c 100000000; echo; echo end")
    container.wait(timeout_s=120)
    directory = f"{container.entry.layers.directory}/log"
    sizes = [os.stat(f"{directory}/{name}").st_size for name in os.listdir(directory)]
    assert len(sizes) == 4
    assert max(sizes) < (16 << 20) + (1 << 16)
    last = list(container.logs(tail=1))
    assert [line.text for line in last] == ["end"]


def test_no_log_where_there_is_none(box: Image) -> None:
    """A container of this process has no log, and a removed one has none any more."""
    with box.run(["true"]) as container, pytest.raises(cl.InvalidState, match="detached"):
        container.logs()
    gone = start(box, "true")
    gone.remove(force=True)
    with pytest.raises(cl.InvalidState, match="removed"):
        gone.logs()


def test_attach_to_both_ends(box: Image) -> None:
    """What is written to an attached container is read by it, and its answer by all who are attached."""
    container = start(box, "while read x; do echo got $x; done", stdin_open=True)
    with container.attach() as one, container.attach() as two:
        assert one.stdin is not None
        one.stdin.write(b"this\n")
        assert (one.stdout.read(9), two.stdout.read(9)) == (b"got this\n", b"got this\n")
        container.kill()
        assert (one.stdout.read(), one.stderr.read()) == (b"", b"")
    assert texts(container) == ["got this"]


def test_attach_to_a_terminal(box: Image) -> None:
    """A detached container can have a terminal, whose size whoever is attached sets."""
    container = box.run(["sh"], lifetime="detached", tty=True)
    with container.attach() as attached:
        assert attached.is_terminal
        attached.resize(101, 43)
        assert attached.stdin is not None
        attached.stdin.write(b"stty size; exit 4\n")
        assert container.wait(timeout_s=20).exit_code == 4
        output = b"".join(iter(lambda: attached.stdout.read(4096), b""))
    assert b"43 101" in output
    assert any("43 101" in line for line in texts(container))


def test_who_does_not_read_is_left_behind(box: Image) -> None:
    """A container writes to its end though somebody is attached who never reads; the log has everything."""
    container = start(box, "read x; yes | head -c 400000; echo; echo end", stdin_open=True)
    with container.attach() as attached:
        assert attached.stdin is not None
        attached.stdin.write(b"go\n")
        assert container.wait(timeout_s=60).exit_code == 0
    assert texts(container, tail=1) == ["end"]


def test_attach_where_it_cannot_be(box: Image) -> None:
    """What has ended, or belongs to this process, cannot be attached to."""
    done = start(box, "true")
    done.wait(timeout_s=20)
    with pytest.raises(cl.InvalidState, match="exited"):
        done.attach()
    with box.run(["sleep", "60"]) as own, pytest.raises(cl.InvalidState, match="given to it at its start"):
        own.attach()


JOIN = """
    import sys
    import containerlib as cl
    with cl.Engine(*sys.argv[1:3]) as engine:
        container = engine.containers.get("kept")
        for number in range(20):
            result = container.exec(["sh", "-c", f"echo {number}; exit {number}"])
            assert (result.exit_code, result.stdout) == (number, b"%d\\n" % number), result
        container.pause()
        assert container.state == "paused"
        try:
            container.exec(["true"])
        except cl.InvalidState:
            container.unpause()
            container.update(cl.Resources(memory_bytes=64 << 20))
            print("done")
"""


def test_another_process_does_everything(box: Image, engine: Engine) -> None:
    """A process that did not make a container joins, pauses and limits it; the first one sees that."""
    container = start(box, "sleep 60", name="kept")
    script = textwrap.dedent(JOIN)
    ran = subprocess.run(
        [sys.executable, "-c", script, engine.root, engine.run_root],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.stdout == "done\n", ran.stderr
    assert container.state == "running"
    assert container.entry.config.resources.memory_bytes == 64 << 20
    assert container.exec(["true"]).exit_code == 0


def test_a_killed_supervisor_leaves_a_container_alone(box: Image) -> None:
    """Nobody can join or attach to it any more, which is said; it can be removed."""
    container = start(box, "sleep 60")
    with open(f"/proc/{container.pid}/stat", encoding="ascii") as stat:
        supervisor = int(stat.read().rpartition(")")[2].split()[1])
    pidfd = os.pidfd_open(supervisor)
    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    assert select.select([pidfd], [], [], 10)[0]
    os.close(pidfd)
    for verb in (lambda: container.exec(["true"]), container.attach):
        with pytest.raises(cl.InvalidState, match="supervisor was killed"):
            verb()
    assert container.state == "running"
    container.remove(force=True)
    assert container.state == "removed"


def test_it_removes_itself(box: Image, engine: Engine) -> None:
    """With `remove` nothing of it is left after its end, though no Python process looks."""
    container = start(box, "mkdir -p /a/b/c; echo x > /a/b/c/d", remove=True)
    container.wait_until("removed", timeout_s=20)
    until(lambda: os.listdir(f"{engine.root}/containers") == [])


def test_rename(box: Image, engine: Engine, tmp_path: Path) -> None:
    """A new name holds for all processes; one that is taken is refused."""
    one, other = start(box, "sleep 60", name="one"), start(box, "sleep 60", name="other")
    one.rename("won")
    with cl.Engine(engine.root, str(tmp_path / "run")) as second:
        assert second.containers.get("won").id == one.id
        with pytest.raises(cl.ContainerNotFound):
            second.containers.get("one")
    with pytest.raises(cl.NameInUse, match="'other'"):
        one.rename("other")
    with pytest.raises(cl.InvalidOption, match="name"):
        one.rename("no name")
    assert (one.name, other.name) == ("won", "other")


def test_restart(box: Image) -> None:
    """A restarted container runs anew on its layer, whether it ran or not."""
    container = start(box, "echo x >> /runs; wc -l < /runs; sleep 60", init=True)
    until(lambda: texts(container) == ["1"])
    container.restart(timeout_s=5)
    until(lambda: texts(container) == ["1", "2"])
    container.stop(timeout_s=5)
    container.restart()
    assert container.state == "running"


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"restart": ALWAYS}, "detached"),
        ({"health": cl.HealthCheck(command=("true",))}, "detached"),
        ({"stdin_open": True}, "detached"),
        ({"restart": ALWAYS, "remove": True, "lifetime": "detached"}, "removed at its end"),
        ({"restart": "always", "lifetime": "detached"}, "RestartPolicy"),
        ({"health": "true", "lifetime": "detached"}, "HealthCheck"),
    ],
)
def test_options_that_cannot_be_honoured(
    box: Image, engine: Engine, options: dict[str, object], match: str
) -> None:
    """What only a detached container can have is refused elsewhere, before anything was made."""
    with pytest.raises(cl.InvalidOption, match=match):
        box.run(["true"], **options)  # type: ignore[arg-type]
    assert engine.containers.list() == []


HELD = """
    import sys
    import containerlib as cl
    root, run_root, step = sys.argv[1:]
    engine = cl.Engine(root, run_root)
    fault = (2, int(step), 0, -1)
    engine.images.get("box:1").run(["sleep", "60"], lifetime="detached", name="kept", fault=fault)
"""


@pytest.mark.usefixtures("box")
@pytest.mark.parametrize("step", ["close_inherited", "root_create", "mount_attach", "pivot", "exec"])
def test_its_maker_is_killed_in_the_midst_of_the_start(engine: Engine, step: str) -> None:
    """What had not begun does not go on alone; the container is there as it was created, and can be used."""
    script = textwrap.dedent(HELD)
    arguments = [engine.root, engine.run_root, str(step_number(step))]
    maker = subprocess.Popen([sys.executable, "-c", script, *arguments])
    try:
        until(lambda: [entry.record.run for entry in entries(engine) if entry.record.run is not None])
        (entry,) = entries(engine)
        assert entry.record.run is not None
        supervisor = entry.record.run.supervisor
        until(lambda: children(supervisor.pid))
    finally:
        maker.kill()
        maker.wait()
    until(lambda: not supervisor.is_alive)
    container = engine.containers.get("kept")
    assert container.state == "created"
    assert container.pid is None
    if step != "exec":
        container.start()
        assert container.state == "running"
    container.remove(force=True)


def entries(engine: Engine) -> list[DetachedEntry]:
    """Return the detached containers as the engine's inner parts know them."""
    found = [container.entry for container in engine.containers.list()]
    for each in found:
        each.refresh()
    return [each for each in found if isinstance(each, DetachedEntry)]


def test_attach_with_what_was_before(box: Image) -> None:
    """What was written before an attachment and what comes out of it are together everything, once."""
    for _ in range(5):
        container = start(box, "seq 60000; sleep 0.01; seq 60000 90000; read x; echo end", stdin_open=True)
        with container.attach(logs=True) as attached:
            assert attached.stdin is not None
            attached.stdin.write(b"go\n")
            data = b"".join(data for _, data in attached.earlier) + attached.stdout.read()
        numbers = [*range(1, 60_001), *range(60_000, 90_001)]
        assert data == b"".join(b"%d\n" % number for number in numbers) + b"end\n"
        container.wait(timeout_s=20)
        container.start()
        with container.attach(logs=True) as attached:
            assert b"end" not in b"".join(data for _, data in attached.earlier)
        container.remove(force=True)
