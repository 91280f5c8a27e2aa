"""Containers end with the process that started them, however that process ends and whatever they do."""

from __future__ import annotations

import functools
import os
import signal
from typing import TYPE_CHECKING

import pytest
from support.faults import DEADLINE_S, held, held_exec, process_id
from support.hosts import dying_host, new_store, read_exactly, wait_for_end

from containerlib import DEVNULL, EngineClosed, InvalidState
from containerlib._native.explain import STEPS
from containerlib._native.ffi import lib

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from support.hosts import DyingHost, Store

    from containerlib import Container, Engine

pytestmark = [pytest.mark.root, pytest.mark.cgroup, pytest.mark.guest]

# In memory and on disk, with and without init, as root and as another user.
FIVE = """
started = [start(), start(layer="disk"), start(init=True), start(user="1000")]
started.append(start(init=True, layer="memory"))
"""
COUNT = 5


@pytest.fixture(scope="module")
def store() -> Iterator[Store]:
    """Return a store that only engines of this module use."""
    with new_store() as store:
        yield store


def wait_code(host: DyingHost) -> int:
    """Wait for the end of the process itself."""
    return host.process.wait(DEADLINE_S)


ENDINGS = {
    "sys.exit": ("sys.exit(3)", 3),
    "os._exit": ("os._exit(3)", 3),
    "exception": ("raise RuntimeError", 1),
    "end of script": ("pass", 0),
    "abort": (
        "import resource; resource.setrlimit(resource.RLIMIT_CORE, (0, 0)); os.abort()",
        -signal.SIGABRT,
    ),
    "close": ("engine.close(); engine.close()", 0),
}


@pytest.mark.enosys
@pytest.mark.parametrize("ending", ENDINGS)
def test_the_process_ends_by_itself(store: Store, ending: str) -> None:
    """Containers that cling to life end with their process, in order or not."""
    code, expected = ENDINGS[ending]
    with dying_host(store, f"{FIVE}\nuntil_told()\nos.close(out)\n{code}") as host:
        host.wait_for_containers(COUNT)
        host.tell()
        assert wait_code(host) == expected
        host.check_containers_are_gone()
    store.check_recovery()


@pytest.mark.enosys
@pytest.mark.parametrize(
    "number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGSEGV]
)
def test_the_process_is_killed(store: Store, number: signal.Signals) -> None:
    """A signal that ends the process, while it waits for a container, ends its containers."""
    script = "import resource; resource.setrlimit(resource.RLIMIT_CORE, (0, 0))\nstarted[0].wait()"
    with dying_host(store, f"{FIVE}\n{script}") as host:
        host.wait_for_containers(COUNT)
        host.process.send_signal(number)
        # Python turns SIGINT into an exception, and then dies of the signal.
        assert wait_code(host) == -number
        host.check_containers_are_gone()
    store.check_recovery()


def test_the_process_becomes_another_program(store: Store) -> None:
    """Executing a program gives up the engine as the end of the process does, though the process lives on."""
    with dying_host(
        store, f"{FIVE}\nuntil_told()\nos.close(out)\nos.execv('/bin/sleep', ['sleep', '1000'])"
    ) as host:
        host.wait_for_containers(COUNT)
        host.tell()
        host.check_containers_are_gone()
        assert host.process.poll() is None
    store.check_recovery()


@pytest.mark.enosys
@pytest.mark.parametrize("how", ["os._exit(3)", "os.kill(os.getpid(), 9)", "sys.exit(3)"])
def test_a_forked_child_lives_on(store: Store, how: str) -> None:
    """A child that was forked with everything open does not keep its parent's containers alive."""
    script = """
if os.fork() == 0:
    os.close(out)
    print(os.getpid(), flush=True)
    while True:
        signal.pause()
until_told()
"""
    with dying_host(store, f"{FIVE}{script}{how}") as host:
        host.wait_for_containers(COUNT)
        child = int(host.line())
        pidfd = os.pidfd_open(child) if hasattr(os, "pidfd_open") and _has_pidfd_open() else -1
        host.tell()
        assert wait_code(host) in {3, -9}
        host.check_containers_are_gone()
        # The mark of the dead engine is still locked by the child, and is removed all the same.
        store.check_recovery()
        os.kill(child, signal.SIGKILL)
        if pidfd >= 0:
            os.close(pidfd)


def _has_pidfd_open() -> bool:
    try:
        os.close(os.pidfd_open(os.getpid()))
    except OSError:
        return False
    return True


FORKED = """
from containerlib import PIPE
echo = image.run(["/bin/cat"], stdin=PIPE, stdout=PIPE)
def answers(text):
    echo.stdin.write(text)
    return os.read(echo.stdout.fileno(), 100) == text
assert answers(b"before")
os.close(out)
pid = os.fork()
if pid == 0:
    own = image.run(["/bin/sleep", "1000"], stdin=cl.DEVNULL)
    assert image.call(["/bin/echo", "child"]).stdout == b"child\\n"
    assert [container.id for container in engine.containers.list()] == [own.id]
    ENDING
status = os.waitpid(pid, 0)[1]
assert os.waitstatus_to_exitcode(status) == EXPECTED, status
assert answers(b"after")
assert [container.id for container in engine.containers.list()] == [echo.id]
assert image.call(["/bin/true"]).exit_code == 0
print("done", flush=True)
"""


@pytest.mark.parametrize(
    ("ending", "expected"),
    [
        ("sys.exit(4)", 4),
        ("os._exit(4)", 4),
        ("raise RuntimeError", 1),
        ("engine.close(); os._exit(4)", 4),
        ("os.kill(os.getpid(), 9)", -9),
    ],
)
def test_a_forked_child_has_an_engine_of_its_own(store: Store, ending: str, expected: int) -> None:
    """A child starts containers of its own, and its end does nothing to those of its parent."""
    script = FORKED.replace("ENDING", ending).replace("EXPECTED", str(expected))
    with dying_host(store, script) as host:
        out, err = host.process.communicate(timeout=DEADLINE_S)
        assert out == "done\n", err
        assert host.process.returncode == 0, err
        host.check_containers_are_gone()
    store.check_recovery()


IN_THE_CHILD = [name for number, name in sorted(STEPS.items()) if number > lib.CTR_STEP_CLONE]
AFTER_INIT = [name for number, name in sorted(STEPS.items()) if number > lib.CTR_STEP_INIT_EXEC]
JOINING = ("join_namespace", "join_clone")
# Of what somebody else has described.
FOREIGN = ("time_namespace",)
OF_A_START = [name for name in IN_THE_CHILD if name not in {"init_fork", *JOINING, *FOREIGN}]
HELD = [(name, False) for name in OF_A_START] + [(name, True) for name in AFTER_INIT]
NEEDS = {"console": {"tty": True}}
# Several in one test, because whoever inherits a dead spawner may take a while to reap it.
GROUPS = [HELD[start : start + 12] for start in range(0, len(HELD), 12)]


def _hold_for_ever(store: Store, step: str, write_end: int, *, init: bool) -> None:
    """In a forked process: hold a start at a step, say so, and wait to be killed."""
    image = store.open().images.get(store.image_id)
    image.call(["/bin/true"])
    options = {"init": init, "layer": "disk", **NEEDS.get(step, {})}
    with held(image, step, stdout=write_end, command=["/bin/probe", "cling"], **options):
        os.write(write_end, b"h")
        while True:
            signal.pause()


def _hold_exec_for_ever(store: Store, step: str, write_end: int) -> None:
    """In a forked process: hold a command that joins a container at a step, say so, and wait to be killed."""
    image = store.open().images.get(store.image_id)
    streams = {"stdin": DEVNULL, "stdout": DEVNULL, "stderr": DEVNULL}
    with (
        image.run(["/bin/probe", "cling"], layer="disk", **streams) as box,  # type: ignore[arg-type]
        held_exec(image, box, step, stdout=write_end, command=["/bin/probe", "cling"]),
    ):
        os.write(write_end, b"h")
        while True:
            signal.pause()


def check_death_at(store: Store, step: str, hold: Callable[[int], None]) -> None:
    """Kill a forked process in the midst of `hold`, which gets the end of a pipe; nothing may remain."""
    read_end, write_end = os.pipe()
    try:
        pid = os.fork()
        if pid == 0:
            try:
                os.close(read_end)
                hold(write_end)
            finally:
                os._exit(99)
        os.close(write_end)
        try:
            assert read_exactly(read_end, 1) == b"h", step
        finally:
            os.kill(pid, signal.SIGKILL)
            status = os.waitpid(pid, 0)[1]
        assert os.waitstatus_to_exitcode(status) == -signal.SIGKILL, step
        assert wait_for_end(read_end) == b"", step
    finally:
        os.close(read_end)
    assert any(line.startswith("mark ") for line in store.leftovers()), step
    store.check_recovery()


@pytest.mark.parametrize("steps", GROUPS, ids=lambda steps: f"{steps[0][0]}-{steps[-1][0]}")
def test_the_process_is_killed_in_the_midst_of_a_start(store: Store, steps: list[tuple[str, bool]]) -> None:
    """SIGKILL at any step of a start leaves nothing that runs, and nothing that is not collected."""
    for step, init in steps:
        check_death_at(store, step, functools.partial(_hold_for_ever, store, step, init=init))


@pytest.mark.parametrize("step", ["close_inherited", *JOINING, "session", "exec"])
def test_the_process_is_killed_in_the_midst_of_joining(store: Store, step: str) -> None:
    """SIGKILL while a command joins a container ends both, though one of them is not yet in the other."""
    check_death_at(store, step, functools.partial(_hold_exec_for_ever, store, step))


def start_two(engine: Engine, store: Store) -> list[Container]:
    """Start a container without and one with an init."""
    image = engine.images.get(store.image_id)
    return [
        image.run(["/bin/sleep", "1000"], init=init, stdin=DEVNULL, stdout=DEVNULL, stderr=DEVNULL)
        for init in (False, True)
    ]


@pytest.mark.enosys
def test_the_spawner_is_killed(store: Store) -> None:
    """Without its spawner the containers are dead, nobody knows how they ended, and the engine says so."""
    with store.open() as engine:
        started = start_two(engine, store)
        os.kill(process_id(engine._session.runner.spawner_pidfd or -1), signal.SIGKILL)
        for container in started:
            status = container.wait(timeout_s=DEADLINE_S)
            assert (status.exit_code, status.signal, container.state) == (None, 0, "exited")
            assert container.pid is None
            with pytest.raises(InvalidState):
                container.kill()
        with pytest.raises(EngineClosed, match="open a new engine"):
            engine.images.get(store.image_id).call(["/bin/true"])
        started[0].remove()
    assert store.leftovers() == []
    store.check_recovery()


def test_the_spawner_is_killed_in_the_midst_of_a_start(store: Store) -> None:
    """A start whose spawner dies is an error with a remedy, and does not wait for ever."""
    with store.open() as engine:
        image = engine.images.get(store.image_id)
        image.call(["/bin/true"])
        with held(image, "pivot") as start:
            os.kill(process_id(engine._session.runner.spawner_pidfd or -1), signal.SIGKILL)
            start.finish()
            # The process got no further, and that it was started at all is known.
            assert start.error is None or isinstance(start.error, EngineClosed)
            if start.container is not None:
                assert start.container.wait(timeout_s=DEADLINE_S).exit_code is None
    store.check_recovery()


def test_an_engine_is_closed_while_containers_run(store: Store) -> None:
    """Closing ends them; handles say that they are removed, and waiting for them does not hang."""
    engine = store.open()
    started = start_two(engine, store)
    engine.close()
    assert [container.state for container in started] == ["removed", "removed"]
    assert all(container.exit_status is not None for container in started)
    assert store.leftovers() == []
