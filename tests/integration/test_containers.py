"""Containers as objects: their states, their verbs, and many of them at once."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, BinaryIO

import pytest

import containerlib as cl
from containerlib.container import create as create_module

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from containerlib import Container, Engine, Image

pytestmark = [pytest.mark.root, pytest.mark.guest]

IDS = ["abcd1230" + 56 * "0", "abcd2341" + 56 * "0"]
FOREVER = ["sh", "-c", "echo ready; exec sleep 1000"]


def pipe(stream: BinaryIO | None) -> BinaryIO:
    """Return the stream, which must be there."""
    assert stream is not None
    return stream


@pytest.fixture(autouse=True)
def _nothing_remains(shared_engine: Engine) -> Iterator[None]:
    """Every test removes its containers, from the store as well."""
    yield
    assert shared_engine.containers.list() == []
    assert os.listdir(f"{shared_engine.root}/containers") == []


def bring_to(container: Container, state: str) -> None:
    """Bring a container of `FOREVER` into a state."""
    if state == "created":
        return
    if state == "removed_unused":
        container.remove()
        return
    container.start(stdin=cl.DEVNULL, stdout=cl.DEVNULL)
    if state != "running":
        container.kill()
        container.wait()
    if state == "removed":
        container.remove()


def make(engine: Engine, image: Image, command: list[str] | None = None, **options: object) -> Container:
    """Make a container whose layer is on the disk."""
    options.setdefault("layer", "disk")
    return engine.containers.create(image, command or FOREVER, **options)  # type: ignore[arg-type]


def test_life(shared_engine: Engine, image: Image) -> None:
    """A container is created, runs, exits and is removed, and says so."""
    container = make(shared_engine, image, ["sh", "-c", "read line; exit 3"], name="life")
    seen = [(container.state, container.pid, container.exit_status, container.fileno())]
    container.start(stdin=cl.PIPE)
    assert container.state == "running"
    assert os.path.exists(f"/proc/{container.pid}")
    pipe(container.stdin).close()
    assert container.wait().exit_code == 3
    status = container.exit_status
    seen.append((container.state, container.pid, status and status.exit_code, container.fileno()))
    container.remove()
    seen.append((container.state, container.pid, status and status.exit_code, container.fileno()))
    assert seen == [("created", None, None, -1), ("exited", None, 3, -1), ("removed", None, 3, -1)]
    assert repr(container) == f"<Container life {container.id[:12]} removed>"


def test_the_end_is_noticed_without_waiting(shared_engine: Engine, image: Image) -> None:
    """The state tells of an end that nobody has waited for."""
    with make(shared_engine, image, ["true"]) as container:
        container.start(stdin=cl.DEVNULL, stdout=cl.PIPE)
        assert pipe(container.stdout).read() == b""
        deadline = threading.Event()
        while container.state == "running":
            deadline.wait(0.001)
        assert container.exit_status is not None


@pytest.mark.parametrize(
    ("state", "verb", "expected"),
    [
        ("created", "kill", "running or paused or restarting or stopping"),
        ("created", "wait", "running or paused or restarting or stopping or exited"),
        ("running", "start", "created or exited"),
        ("running", "remove", "created or exited"),
        ("exited", "kill", "running or paused or restarting or stopping"),
        ("removed", "start", "created or exited"),
        ("removed", "kill", "running or paused or restarting or stopping"),
        ("removed_unused", "wait", "running or paused or restarting or stopping or exited"),
    ],
)
def test_verb_in_the_wrong_state(
    shared_engine: Engine, image: Image, state: str, verb: str, expected: str
) -> None:
    """A verb that the state does not allow is refused with both states, and changes nothing."""
    with make(shared_engine, image, name="stateful") as container:
        bring_to(container, state)
        before = container.state
        with pytest.raises(cl.InvalidState) as caught:
            getattr(container, verb)()
        assert (caught.value.expected, caught.value.actual) == (expected, before)
        assert f"cannot {verb} container 'stateful': it is {before}, not {expected}" in str(caught.value)
        assert container.state == before


@pytest.mark.parametrize("state", ["created", "exited", "removed"])
def test_stop_is_no_error_when_nothing_runs(shared_engine: Engine, image: Image, state: str) -> None:
    """Stopping what does not run does nothing."""
    with make(shared_engine, image) as container:
        bring_to(container, state)
        status = container.stop()
        assert (status is None) == (state == "created")
        assert container.state == state


def test_removing_twice_is_no_error(shared_engine: Engine, image: Image) -> None:
    """Removing a removed container does nothing."""
    container = make(shared_engine, image)
    container.remove()
    container.remove()
    container.remove(force=True)


def test_forced_removal_kills(shared_engine: Engine, image: Image) -> None:
    """With `force` a running container is killed and removed."""
    container = make(shared_engine, image)
    container.start(stdin=cl.DEVNULL, stdout=cl.PIPE)
    container.remove(force=True)
    assert (container.state, container.exit_status and container.exit_status.exit_code) == ("removed", 137)
    assert pipe(container.stdout).closed


def test_context_removes(shared_engine: Engine, image: Image) -> None:
    """Leaving the context removes the container, running or not, whatever happened."""
    with pytest.raises(RuntimeError, match="mine"), image.run(FOREVER, stdout=cl.DEVNULL) as container:
        raise RuntimeError("mine")
    assert container.state == "removed"
    with make(shared_engine, image) as container:
        pass
    assert container.state == "removed"


def test_stop_is_polite_first(image: Image) -> None:
    """A command that handles the stop signal ends by itself."""
    script = "trap 'exit 9' USR1; sleep 1000 & echo ready; wait"
    with image.run(["sh", "-c", script], stop_signal="USR1", stdout=cl.PIPE) as container:
        assert pipe(container.stdout).readline() == b"ready\n"
        status = container.stop(timeout_s=60)
        assert status is not None
        assert status.exit_code == 9


@pytest.mark.parametrize("how", ["argument", "option"])
def test_stop_kills_in_the_end(image: Image, how: str) -> None:
    """A command that ignores the stop signal is killed when its time is over."""
    script = "trap '' TERM; echo ready; exec sleep 1000"
    with image.run(["sh", "-c", script], stop_timeout_s=0.05, stdout=cl.PIPE) as container:
        assert pipe(container.stdout).readline() == b"ready\n"
        status = container.stop(timeout_s=0.01) if how == "argument" else container.stop()
        assert status is not None
        assert (status.exit_code, status.signal) == (137, 9)


def test_name_in_use(shared_engine: Engine, image: Image) -> None:
    """Two containers of an engine cannot have one name; a removed one gives it up."""
    with make(shared_engine, image, name="taken"):
        with pytest.raises(cl.NameInUse, match="'taken' is in use; remove"):
            make(shared_engine, image, name="taken")
        assert len(shared_engine.containers.list()) == 1
    make(shared_engine, image, name="taken").remove()


def test_get(shared_engine: Engine, image: Image, monkeypatch: pytest.MonkeyPatch) -> None:
    """A container is found by name, by id and by an unambiguous beginning of the id."""
    remaining = iter(IDS)
    monkeypatch.setattr(create_module, "new_id", lambda: next(remaining))
    get = shared_engine.containers.get
    with make(shared_engine, image, name="one") as one, make(shared_engine, image, name="abcd") as two:
        assert [container.id for container in shared_engine.containers.list()] == IDS
        assert get("one") == get(IDS[0]) == get("abcd1") == one
        assert get("abcd2") == get("abcd") == two
        assert hash(get("one")) == hash(one) != hash(two)
        for key in ("abc", "abcd3", "", "nobody", "ABCD1", IDS[0] + "0"):
            with pytest.raises(cl.ContainerNotFound, match=f"'{key}' does not exist"):
                get(key)
        two.remove()
        assert get("abcd") == one


def test_get_is_ambiguous(shared_engine: Engine, image: Image, monkeypatch: pytest.MonkeyPatch) -> None:
    """A beginning that several ids have is refused."""
    remaining = iter(IDS)
    monkeypatch.setattr(create_module, "new_id", lambda: next(remaining))
    message = "'abcd' is the beginning of several ids"
    with make(shared_engine, image) as one, make(shared_engine, image) as two:
        with pytest.raises(cl.ContainerNotFound, match=message):
            shared_engine.containers.get("abcd")
        assert one != two


def test_made_up_name_that_is_taken(
    shared_engine: Engine, image: Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that nobody chose does not clash: another one is made up."""
    remaining = iter([IDS[0], IDS[0], IDS[1]])
    monkeypatch.setattr(create_module, "new_id", lambda: next(remaining))
    with make(shared_engine, image) as one, make(shared_engine, image) as two:
        assert one.name != two.name


def test_prune_takes_what_does_not_run(shared_engine: Engine, image: Image) -> None:
    """Pruning removes created and exited containers, and returns their ids."""
    made = {state: make(shared_engine, image) for state in ("created", "exited", "running")}
    with made["running"]:
        for state, container in made.items():
            bring_to(container, state)
        assert shared_engine.containers.prune() == [made["created"].id, made["exited"].id]
        assert shared_engine.containers.list() == [made["running"]]
        assert shared_engine.containers.prune() == []


def test_several_threads_wait(image: Image) -> None:
    """Any number of threads can wait for one end, and all learn the same."""
    with image.run(["sh", "-c", "read line; exit 4"], stdin=cl.PIPE) as container:
        ready = threading.Barrier(9)

        def wait(_: int) -> int | None:
            ready.wait()
            return container.wait().exit_code

        with ThreadPoolExecutor(8) as pool:
            results = pool.map(wait, range(8))
            ready.wait()
            pipe(container.stdin).close()
            assert list(results) == [4] * 8


def test_wait_timeout(image: Image) -> None:
    """A wait with a limit says that the container still runs, and can be repeated."""
    with image.run(FOREVER, stdin=cl.DEVNULL, stdout=cl.DEVNULL, name="slow") as container:
        for limit in (0, 0.01):
            with pytest.raises(
                cl.OperationTimeout, match=f"'slow' is still running after {limit} s"
            ) as caught:
                container.wait(timeout_s=limit)
            assert caught.value.timeout_s == limit
        container.kill()
        assert container.wait(timeout_s=60).exit_code == container.wait(timeout_s=0).exit_code == 137


@pytest.mark.parametrize("layer", ["memory", "disk"])
def test_many_at_once(image: Image, layer: str) -> None:
    """Eight threads run 25 containers each, and every one gets its own output and exit code."""

    def work(thread: int) -> list[tuple[int | None, str]]:
        results = []
        for n in range(25):
            script = f"echo {thread}-{n} > /tmp/file; cat /tmp/file; exit {n}"
            result = image.call(["sh", "-c", script], layer=layer)  # type: ignore[arg-type]
            results.append((result.exit_code, result.text))
        return results

    with ThreadPoolExecutor(8) as pool:
        for thread, results in enumerate(pool.map(work, range(8))):
            assert results == [(n, f"{thread}-{n}\n") for n in range(25)]


def test_threads_fight_for_one_container(shared_engine: Engine, image: Image) -> None:
    """Of several threads that start one container one does, and any number may remove it."""
    with make(shared_engine, image) as container, ThreadPoolExecutor(6) as pool:

        def attempt(act: Callable[[], None]) -> bool:
            try:
                act()
            except cl.InvalidState:
                return False
            return True

        def start() -> None:
            container.start(stdin=cl.DEVNULL, stdout=cl.DEVNULL)

        assert sum(pool.map(attempt, [start] * 6)) == 1
        assert all(pool.map(attempt, [lambda: container.remove(force=True)] * 6))


PROGRAM = """
import sys
import containerlib as cl
root, run_root, image_id = sys.argv[1:]
with cl.Engine(root, run_root) as engine:
    image = engine.images.get(image_id)
    print("ready", flush=True)
    sys.stdin.readline()
    for n in range(20):
        name = f"same-{n}"
        result = image.call(["sh", "-c", f"echo {n} > /x; cat /x; exit {n}"], layer="disk", name=name)
        assert (result.exit_code, result.text) == (n, f"{n}\\n"), result
    assert engine.containers.list() == []
"""


def test_engines_of_several_processes_share_a_store(shared_engine: Engine, image: Image) -> None:
    """Engines in other processes run containers of the same names on the same store, all at once."""
    command = [sys.executable, "-c", PROGRAM, shared_engine.root, shared_engine.run_root, image.id]
    children = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(3)
    ]
    try:
        for child in children:
            assert child.stdout is not None
            assert child.stdout.readline() == "ready\n"
        with make(shared_engine, image, name="same-1") as own:
            bring_to(own, "running")
            for child in children:
                assert child.stdin is not None
                child.stdin.write("go\n")
                child.stdin.flush()
            for child in children:
                child.communicate()
            assert own.state == "running"
    finally:
        for child in children:
            child.communicate()
    assert [child.returncode for child in children] == [0, 0, 0]


@pytest.mark.parametrize("state", ["created", "running", "exited"])
def test_used_image_cannot_be_removed(shared_engine: Engine, image: Image, state: str) -> None:
    """An image stays while a container is made of it, in whatever state."""
    copy = image.tag("used:1")
    with make(shared_engine, image, name="user") as container:
        bring_to(container, state)
        for remove in (copy.remove, lambda: shared_engine.images.remove("used:1")):
            with pytest.raises(cl.ResourceInUse, match="is used by user"):
                remove()
        assert shared_engine.images.get("used:1") == image


def test_image_can_be_removed_after_its_containers(engine: Engine) -> None:
    """When the last container of an image is gone, the image can go."""
    image = engine.images.from_host(["true"])
    with make(engine, image, ["true"]), pytest.raises(cl.ResourceInUse):
        image.remove()
    assert image.remove().deleted == (image.id,)
    with pytest.raises(cl.ImageNotFound):
        engine.images.get(image.id)


def test_closing_the_engine_ends_everything(engine: Engine) -> None:
    """Closing an engine kills and removes its containers; their handles tell how they ended."""
    image = engine.images.from_host(["sh", "sleep"])
    running = image.run(FOREVER, stdin=cl.DEVNULL, stdout=cl.PIPE)
    assert pipe(running.stdout).readline() == b"ready\n"
    created = make(engine, image)
    pid = running.pid
    engine.close()
    engine.close()
    assert (running.state, created.state) == ("removed", "removed")
    assert not os.path.exists(f"/proc/{pid}")
    pipe(running.stdout).close()
    for act in (lambda: make(engine, image), lambda: image.call(["true"]), running.start):
        with pytest.raises((cl.EngineClosed, cl.InvalidState)):
            act()
    assert os.listdir(f"{engine.root}/containers") == []
