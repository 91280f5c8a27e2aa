"""Commands in running containers: what they see, what they may, and how they end."""

from __future__ import annotations

import errno
import os
import select
import signal
import threading
import warnings
from typing import TYPE_CHECKING

import pytest
from support.faults import failing

import containerlib as cl
from containerlib._native.explain import STEPS
from containerlib.container.exec import start_exec

if TYPE_CHECKING:
    from collections.abc import Iterator

    from containerlib import Container, Engine, Image

pytestmark = [pytest.mark.root]

SLEEP = ["sleep", "1000"]
# The steps of a command that joins a container, in the order in which they happen.
STEPS_OF_EXEC = {
    "message": "",
    "table": "",
    "clone": "",
    "close_inherited": "",
    "cgroup_join": "",
    "join_namespace": "",
    "keyring": "",
    "join_clone": "",
    "signals": "",
    "session": "",
    "umask": "",
    "stdio": "",
    "seccomp_privileged": "",
    "bounding": "",
    "groups": "",
    "workdir": "'/'",
    "gid": "0",
    "uid": "0",
    "capabilities": "",
    "no_new_privs": "",
    "close_fds": "",
    "seccomp": "",
    "exec": "'true'",
}


@pytest.fixture
def box(busybox_image: Image) -> Iterator[Container]:
    """Give a running container."""
    with busybox_image.run(SLEEP, stdin=cl.DEVNULL, layer="memory", env={"A": "1", "B": "2"}) as container:
        yield container


def names(container: Container) -> list[str]:
    """Return the command lines of what runs in the container, in order of its process ids."""
    script = "for p in $(ls /proc | grep '^[0-9]' | sort -n); do tr '\\0' ' ' </proc/$p/cmdline; echo; done"
    lines = container.exec(["sh", "-c", script]).text.splitlines()
    return [line.strip() for line in lines if line.strip() and "for p in" not in line]


def test_a_finished_command(box: Container) -> None:
    """The result has output, errors, exit code and usage, and the container goes on."""
    result = box.exec(["sh", "-c", "echo out; echo err >&2; exit 3"])
    assert (result.stdout, result.stderr, result.exit_code) == (b"out\n", b"err\n", 3)
    assert result.args == ("sh", "-c", "echo out; echo err >&2; exit 3")
    assert box.state == "running"
    with pytest.raises(cl.ContainerFailed, match="exited with 3: err"):
        box.exec(["sh", "-c", "echo err >&2; exit 3"], check=True)
    assert box.exec(["sh", "-c", "kill -9 $$"]).signal == signal.SIGKILL


def test_it_is_in_the_container(box: Container) -> None:
    """It has every namespace and control group of the container, and is no child of its first process."""
    with box.popen(SLEEP, stdin=cl.DEVNULL) as process:
        for kind in ("cgroup", "ipc", "mnt", "net", "pid", "uts"):
            assert os.readlink(f"/proc/{process.pid}/ns/{kind}") == os.readlink(f"/proc/{box.pid}/ns/{kind}")
        with open(f"/proc/{process.pid}/cgroup", encoding="ascii") as mine:
            groups = [line.rstrip().partition("/exec-")[0] for line in mine]
        with open(f"/proc/{box.pid}/cgroup", encoding="ascii") as own:
            assert groups == own.read().splitlines()
        assert box.exec(["cat", "/proc/self/stat"]).text.split()[3] == "0"
        process.kill()


def test_it_has_what_the_container_has(box: Container) -> None:
    """Environment, host name, working directory and user are the container's, but for what is given."""
    env = dict(line.split("=", 1) for line in box.exec(["env"], env={"B": "3", "C": "4"}).text.splitlines())
    assert {name: env[name] for name in "ABC"} == {"A": "1", "B": "3", "C": "4"}
    assert env["HOSTNAME"] == box.exec(["hostname"]).text.strip() == box.id[:12]
    assert box.exec(["pwd"], workdir="/tmp").text == "/tmp\n"
    assert box.exec(["sh", "-c", "id -u; id -g"], user="12:34").text == "12\n34\n"


def test_users_are_those_of_now(box: Container) -> None:
    """A user that was added to the running container is found."""
    with pytest.raises(cl.InvalidOption, match="late"):
        box.exec(["id"], user="late")
    box.exec(["sh", "-c", "echo 'late:x:77:88::/home/late:/bin/sh' >> /etc/passwd"], check=True)
    assert box.exec(["sh", "-c", "id -u; echo $HOME"], user="late").text == "77\n/home/late\n"


@pytest.mark.parametrize(
    "made", ["mkfifo /etc/passwd", "ln -s /proc/self/mem /etc/passwd", "mkdir /etc/passwd"]
)
def test_a_strange_passwd_file_does_no_harm(box: Container, made: str) -> None:
    """A pipe, a link or a directory in the place of the file is as good as none."""
    box.exec(["sh", "-c", f"rm /etc/passwd && {made}"], check=True)
    assert "Uid:\t5\t5" in box.exec(["cat", "/proc/self/status"], user="5").text
    with pytest.raises(cl.InvalidOption):
        box.exec(["id"], user="root")


def test_it_has_the_same_privileges(box: Container) -> None:
    """Capabilities, filter, limits and the bit against new privileges are the container's own."""
    script = (
        "grep -E '^(Cap|NoNewPrivs|Seccomp:)' /proc/%s/status; cat /proc/%s/limits /proc/%s/oom_score_adj"
    )
    mine = box.exec(["sh", "-c", script.replace("%s", "self")])
    assert mine.text == box.exec(["sh", "-c", script.replace("%s", "1")]).text
    assert "Seccomp:\t2" in mine.text
    weaker = box.exec(["grep", "CapEff", "/proc/self/status"], security=cl.Security(cap_drop=["ALL"]))
    assert weaker.text.split()[1] == "0" * 16


def test_nothing_of_ours_is_in_it(box: Container) -> None:
    """It has its three streams and no descriptor besides, and no variable of this process."""
    os.environ["CANARY_OF_HOST"] = "seen"
    try:
        result = box.exec(["sh", "-c", "ls /proc/self/fd; cat /proc/self/environ; readlink /proc/self/exe"])
    finally:
        del os.environ["CANARY_OF_HOST"]
    assert b"CANARY" not in result.stdout
    assert set(result.text.split("\n")[:4]) == {"0", "1", "2", "3"}  # the last is the directory itself
    assert "ctr-spawner" not in result.text


def test_input_and_output(box: Container) -> None:
    """Bytes, pipes and merged outputs, as for a container's own command."""
    assert box.exec(["cat"], stdin=b"given").stdout == b"given"
    assert box.exec(["sh", "-c", "echo a; echo b >&2"], stderr=cl.STDOUT).stdout == b"a\nb\n"
    with box.popen(["cat"], stdin=cl.PIPE, stdout=cl.PIPE) as process:
        assert process.communicate(b"x" * 300_000) == (b"x" * 300_000, b"")
    assert process.exit_code == 0
    with pytest.raises(cl.OutputLimitExceeded, match="'yes' in container"):
        box.exec(["yes"], output_limit_bytes=1000)
    assert names(box) == ["sleep 1000"]


def test_a_timeout_ends_all_that_was_started(box: Container) -> None:
    """What has left the session or lost its parent ends too; the container and other commands go on."""
    with box.popen(["sleep", "999"], stdin=cl.DEVNULL) as other:
        script = "echo begun; setsid sleep 50 & (sleep 60 &) ; sh -c 'setsid sh -c \"sleep 70\" &' ; sleep 80"
        with pytest.raises(cl.OperationTimeout, match="and was killed") as caught:
            box.exec(["sh", "-c", script], timeout_s=0.5)
        assert caught.value.stdout == b"begun\n"
        assert sorted(names(box)) == ["sleep 1000", "sleep 999"]
        other.kill()


def test_what_is_left_behind_stays(box: Container) -> None:
    """A command that ends by itself may leave processes in the container, which end with it."""
    result = box.exec(["sh", "-c", "setsid sleep 55 >/dev/null 2>&1 </dev/null &"])
    assert result.exit_code == 0
    assert sorted(names(box)) == ["sleep 1000", "sleep 55"]


def test_it_ends_with_the_container(busybox_image: Image) -> None:
    """A container that is killed takes its commands along, and they say so."""
    container = busybox_image.run(SLEEP, stdin=cl.DEVNULL, layer="memory")
    with container.popen(SLEEP, stdin=cl.DEVNULL) as process:
        container.kill("KILL")
        assert process.wait(timeout_s=60) == 137
    container.wait(timeout_s=60)
    container.remove()
    with pytest.raises(cl.InvalidState, match="it is removed, not running"):
        container.exec(["true"])


def test_it_ends_with_the_engine(busybox_image: Image, engine: Engine) -> None:
    """A command of an engine that is closed is over, and nobody knows how it ended or it was killed."""
    del busybox_image
    image = engine.images.from_host(["sleep"])
    process = image.run(SLEEP, stdin=cl.DEVNULL).popen(SLEEP, stdin=cl.DEVNULL)
    engine.close()
    assert process.wait(timeout_s=60) in {None, 137}
    process.close()


def test_wait_poll_and_signals(box: Container) -> None:
    """A command is waited for, polled and signalled like any process."""
    process = box.popen(
        ["sh", "-c", "trap 'exit 5' TERM; echo ready; while :; do sleep 0.01; done"], stdout=cl.PIPE
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    assert process.poll() is None
    with pytest.raises(cl.OperationTimeout, match="still running"):
        process.wait(timeout_s=0)
    process.terminate()
    assert process.wait(timeout_s=60) == 5
    process.close()
    assert process.poll() == 5


def test_the_end_can_be_polled_for(box: Container) -> None:
    """The descriptor of a command becomes readable at its end."""
    with box.popen(["sleep", "0.05"], stdin=cl.DEVNULL) as process:
        poller = select.poll()
        poller.register(process.fileno(), select.POLLIN)
        assert poller.poll(60_000)
        assert process.poll() == 0


def test_a_terminal(box: Container) -> None:
    """A command with a terminal has one of the container, of the size that was asked for."""
    process = box.popen(["sh", "-c", "tty; stty size; read x; echo got $x"], tty=True, console_size=(90, 30))
    console = process.take_console()
    os.write(console, b"word\n")
    seen = b""
    while b"got word" not in seen:
        seen += os.read(console, 1000)
    assert b"/dev/pts/" in seen
    assert b"30 90" in seen
    assert process.wait(timeout_s=60) == 0
    os.close(console)


def test_what_cannot_be_executed(box: Container) -> None:
    """A missing program, one that is no program, and a missing directory have errors of their own."""
    with pytest.raises(cl.CommandNotFound, match="no-such"):
        box.exec(["no-such"])
    with pytest.raises(cl.CommandNotExecutable):
        box.exec(["/etc/passwd"])
    with pytest.raises(cl.InvalidOption, match="workdir"):
        box.exec(["true"], workdir="/nowhere")
    for command in ("true", [], ["a\0b"], [7]):
        with pytest.raises(cl.InvalidOption, match="command"):
            box.exec(command)  # type: ignore[arg-type]
    with pytest.raises(cl.InvalidOption, match="absolute"):
        box.exec(["true"], workdir="tmp")


@pytest.mark.parametrize("step", STEPS_OF_EXEC)
def test_a_failing_step_is_named(box: Container, step: str) -> None:
    """Each step that fails is reported, leaves nothing in the container, and the next command works."""
    entry, quiet = box.entry, {"stdin": cl.DEVNULL, "stdout": cl.DEVNULL, "stderr": cl.DEVNULL}
    with pytest.raises(cl.SpawnError) as caught:
        start_exec(entry, ["true"], **quiet, **failing(step))  # type: ignore[arg-type]
    assert (caught.value.step, caught.value.errno) == (step, errno.EIO)
    assert box.exec(["true"]).exit_code == 0
    assert names(box) == ["sleep 1000"]


def test_all_steps_of_joining_are_tried() -> None:
    """The steps that only a joining command has are among those that fail above."""
    joining = {name for name in STEPS.values() if name.startswith("join_")}
    assert joining <= STEPS_OF_EXEC.keys()


def test_many_in_a_row_and_at_once(box: Container) -> None:
    """Hundreds of commands, also from several threads, leave no process, group or descriptor."""
    before = len(os.listdir("/proc/self/fd"))
    failed: list[BaseException] = []

    def run() -> None:
        try:
            for number in range(60):
                assert box.exec(["sh", "-c", f"exit {number}"]).exit_code == number
        except BaseException as error:  # noqa: BLE001 - looked at below
            failed.append(error)

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert names(box) == ["sleep 1000"]
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_container_that_has_not_started_or_has_ended(busybox_image: Image) -> None:
    """Only a running container can be joined, and the error names both states."""
    created = busybox_image.run(["true"], stdin=cl.DEVNULL)
    created.wait()
    with pytest.raises(cl.InvalidState, match="it is exited, not running; start it first"):
        created.exec(["true"])
    created.remove()


def test_one_that_is_forgotten_warns(box: Container) -> None:
    """A command that nobody has waited for is a resource that was left open."""
    process = box.popen(SLEEP, stdin=cl.DEVNULL)
    entry = process._entry
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        process.__del__()
    assert "still running" in str(caught[0].message)
    entry.end()
