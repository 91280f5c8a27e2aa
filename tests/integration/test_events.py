"""What happens to containers and images is told, whichever process brings it about."""

from __future__ import annotations

import datetime as dt
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
from typing import TYPE_CHECKING

import pytest
from support.engine import BUSYBOX, busybox_tree

import containerlib as cl
from containerlib._native.ffi import ffi, lib
from containerlib.store import journal

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from containerlib import Engine, Event, Image

pytestmark = [pytest.mark.root, pytest.mark.cgroup]


@pytest.fixture
def box(engine: Engine, tmp_path: Path) -> Iterator[Image]:
    """Return an image with busybox."""
    if not BUSYBOX.exists():
        pytest.skip("busybox is not installed")
    busybox_tree(tmp_path / "tree")
    yield engine.images.from_directory(tmp_path / "tree", reference="box:1")
    for container in engine.containers.list():
        container.remove(force=True)


def actions(engine: Engine, **options: object) -> list[str]:
    """Return what has happened to containers."""
    return [event.action for event in engine.events(follow=False, types=["container"], **options)]  # type: ignore[arg-type]


def take_until(events: Iterator[Event], action: str) -> list[Event]:
    """Return the events up to the first with this action, and wait for it."""
    found = []
    for event in events:
        found.append(event)
        if event.action == action:
            break
    return found


def test_a_record_is_the_same_on_both_sides() -> None:
    """What supervisors write has the form that is read."""
    assert ffi.sizeof("struct ctr_event") == journal.HEADER.size
    assert lib.CTR_MAGIC == journal.MAGIC
    assert [lib.CTR_EVENT_TEXT, lib.CTR_EVENT_START, lib.CTR_EVENT_DIE, lib.CTR_EVENT_HEALTH] == [0, 1, 2, 3]
    assert lib.CTR_EVENT_DESTROY == 4


@pytest.mark.parametrize("lifetime", ["process", "detached"])
def test_a_life(box: Image, engine: Engine, lifetime: str) -> None:
    """Every verb is told once, with what belongs to it."""
    container = engine.containers.create(
        box, ["sleep", "60"], name="web", labels={"a": "b"}, lifetime=lifetime
    )
    container.start()
    container.exec(["sh", "-c", "exit 3"])
    container.pause()
    container.unpause()
    container.rename("app")
    container.update(cl.Resources(pids=100))
    container.put(b"x", "/x")
    container.kill("USR1")
    container.stop(timeout_s=0)
    container.restart(timeout_s=0)
    container.stop(timeout_s=0)
    container.commit("made:1")
    container.remove()
    found = list(engine.events(follow=False, containers=[container.id]))
    life = ["kill", "die", "stop"]
    assert [event.action for event in found] == [
        *("create", "start", "exec_start", "exec_die", "pause", "unpause", "rename", "update"),
        *("extract-to-dir", "kill", *life, "start", "restart", *life, "commit", "destroy"),
    ]
    assert {event.id for event in found} == {container.id}
    assert [event.name for event in found] == ["web"] * 6 + ["app"] * (len(found) - 6)
    assert all(event.attributes["image"] == "box:1" for event in found)
    assert all(event.attributes["a"] == "b" for event in found)
    by_action = {event.action: event.attributes for event in found}
    assert by_action["exec_die"]["exitCode"] == "3"
    assert by_action["exec_die"]["execID"] == by_action["exec_start"]["execID"]
    assert (by_action["die"]["exitCode"], by_action["die"]["signal"]) == ("137", "9")
    assert by_action["rename"]["oldName"] == "web"
    times = [event.time for event in found]
    assert times == sorted(times)
    assert dt.datetime.now(dt.UTC) - times[0] < dt.timedelta(minutes=5)


def test_policies_and_health(box: Image, engine: Engine) -> None:
    """What a supervisor does by itself is told by it, with the name that the container has."""
    stream = engine.events(containers=["web"])
    script = "if [ -e /ready ]; then exec sleep 60; fi; touch /ready; exit 4"
    container = engine.containers.run(
        box,
        ["sh", "-c", script],
        name="web",
        lifetime="detached",
        restart=cl.RestartPolicy(name="always"),
        health=cl.HealthCheck(command=["true"], interval_s=0.05),
    )
    found = take_until(stream, "health_status: healthy")
    assert [event.action for event in found] == [
        *("create", "start", "die", "start", "health_status: healthy"),
    ]
    assert found[2].attributes["exitCode"] == "4"
    assert {event.name for event in found} == {"web"}
    assert {event.attributes["image"] for event in found} == {"box:1"}
    assert actions(engine, actions=["health_status"]) == ["health_status: healthy"]
    container.remove(force=True)


def test_one_that_removes_itself(box: Image, engine: Engine) -> None:
    """Its end is told, and that it is gone, without anybody looking."""
    stream = engine.events(containers=["web"])
    engine.containers.run(box, ["true"], name="web", lifetime="detached", remove=True)
    found = take_until(stream, "destroy")
    assert [event.action for event in found] == ["create", "start", "die", "destroy"]
    assert {event.name for event in found} == {"web"}


def test_a_killed_supervisor(box: Image, engine: Engine) -> None:
    """Who finds out tells that it has ended, and that nobody knows how."""
    container = engine.containers.run(box, ["sleep", "60"], lifetime="detached")
    with open(f"/proc/{container.pid}/stat", encoding="ascii") as stat:
        supervisor = int(stat.read().rpartition(")")[2].split()[1])
    os.kill(supervisor, signal.SIGKILL)
    container.kill()
    container.wait(timeout_s=30)
    (event,) = engine.events(follow=False, actions=["die"])
    assert event.attributes["exitCode"] == ""


KILLED = """
    import os, signal, sys
    import containerlib as cl
    engine = cl.Engine(*sys.argv[1:])
    engine.images.get("box:1").run(["sleep", "60"], name="lost")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_engine(box: Image, engine: Engine) -> None:
    """Ends of containers that died with their engine are told by the next one, once."""
    subprocess.run([sys.executable, "-c", textwrap.dedent(KILLED), engine.root, engine.run_root], check=False)
    for _ in range(2):
        with cl.Engine(engine.root, engine.run_root) as following:
            following.containers.create(box, ["true"]).remove()
    found = list(engine.events(follow=False, containers=["lost"]))
    assert [event.action for event in found] == ["create", "start", "die", "destroy"]
    assert found[2].attributes["exitCode"] == ""


def test_images(box: Image, engine: Engine, tmp_path: Path) -> None:
    """Images are told of by the names that they were called by."""
    box.tag("other:2")
    box.save(tmp_path / "box.tar")
    engine.images.remove("other:2")
    engine.images.remove("box:1")
    engine.images.load(tmp_path / "box.tar")
    found = list(engine.events(follow=False, types=["image"]))
    assert [(event.action, event.name) for event in found] == [
        ("import", "box:1"),
        ("tag", "other:2"),
        ("save", "box:1"),
        ("untag", "other:2"),
        ("untag", "box:1"),
        ("delete", ""),
        ("load", "box:1"),
    ]
    assert {event.id for event in found} == {box.id}
    assert [event.action for event in engine.events(follow=False, images=["other:2"])] == ["tag", "untag"]


FOREIGN = """
    import sys
    import containerlib as cl
    with cl.Engine(*sys.argv[1:]) as engine:
        for line in sys.stdin:
            engine.containers.run(engine.images.get("box:1"), ["true"], name=line.strip()).wait()
"""


@pytest.mark.usefixtures("box")
def test_across_processes(engine: Engine) -> None:
    """A stream that waits sees what another process does, and only what is asked for."""
    stream = engine.events(actions=["die"], images=["box:1"])
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(FOREIGN), engine.root, engine.run_root],
        stdin=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdin is not None
        for number in range(5):
            other.stdin.write(f"foreign{number}\n")
            other.stdin.flush()
            event = next(stream)
            assert (event.name, event.action) == (f"foreign{number}", "die")
        other.stdin.close()
    stream.close()  # type: ignore[attr-defined]


def test_times_and_filters(box: Image, engine: Engine) -> None:
    """Time limits and conditions are kept; a time to come ends the stream."""
    engine.containers.create(box, ["true"], name="one", labels={"k": "v"}).remove()
    between = dt.datetime.now(dt.UTC)
    engine.containers.create(box, ["true"], name="two").remove()
    assert actions(engine, since=between) == ["create", "destroy"]
    assert [event.name for event in engine.events(follow=False, until=between, types=["container"])] == [
        "one"
    ] * 2
    assert actions(engine, since=dt.timedelta(seconds=0)) == []
    assert len(actions(engine, since=dt.timedelta(hours=1))) == 4
    assert actions(engine, labels={"k": None}) == actions(engine, labels={"k": "v"}) == ["create", "destroy"]
    assert actions(engine, labels={"k": "w"}) == actions(engine, containers=["three"]) == []
    assert actions(engine, containers=["one"], actions=["create"]) == ["create"]
    soon = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=0.2)
    assert list(engine.events(until=soon, types=["volume"])) == []
    with pytest.raises(cl.InvalidOption, match="actions"):
        engine.events(actions="die")
    json.dumps([event.to_json() for event in engine.events(follow=False)])


def test_a_stream_is_ended_by_another_thread(box: Image, engine: Engine) -> None:
    """Events of many threads all arrive, in an order that each of them sees as its own."""
    stream = engine.events(types=["container"])

    def work(number: int) -> None:
        for turn in range(5):
            engine.containers.create(box, ["true"], name=f"n{number}-{turn}").remove()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    found = [next(stream) for _ in range(40)]
    for thread in threads:
        thread.join()
    for number in range(4):
        own = [(event.name, event.action) for event in found if event.name.startswith(f"n{number}-")]
        assert own == [(f"n{number}-{turn}", action) for turn in range(5) for action in ("create", "destroy")]


def test_nothing_fails_without_a_journal(box: Image, engine: Engine) -> None:
    """A journal that cannot be written keeps nobody from anything."""
    directory = f"{engine.run_root}/events"
    for name in os.listdir(directory):
        os.unlink(f"{directory}/{name}")
    os.rmdir(directory)
    with open(directory, "w", encoding="ascii"):
        pass
    container = engine.containers.run(box, ["true"], lifetime="detached")
    assert container.wait().exit_code == 0
    assert engine.containers.run(box, ["true"]).wait().exit_code == 0
    assert list(engine.events(follow=False)) == []
    os.unlink(directory)
