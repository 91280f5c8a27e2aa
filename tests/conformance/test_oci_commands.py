"""What the commands do to a container's life, by our runtime, runc and crun alike.

Source: runtime.md of the runtime specification; for what it leaves open, runc.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.oci import OURS, RUNTIMES

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.oci import Bundle, OciRuntime

pytestmark = [pytest.mark.root, pytest.mark.cgroup, pytest.mark.peers]

DEADLINE_S = 60.0
# By the names of tests: what the Debian version of another runtime does otherwise.
DEVIATIONS = {
    "test_kill_of_one_that_has_ended[crun]": "it says that all is well",
    "test_exec[crun]": "variables of its flag take the place of the container's",
}


@pytest.fixture(params=RUNTIMES)
def runtime(request: pytest.FixtureRequest, oci: Callable[[str], OciRuntime]) -> OciRuntime:
    """Return one runtime after the other."""
    reason = DEVIATIONS.get(request.node.name)
    if reason is not None:
        assert request.param != OURS
        request.applymarker(pytest.mark.xfail(reason=reason, strict=True))
    return oci(request.param)


def until(is_so: Callable[[], bool]) -> None:
    """Look until something is so that nobody tells."""
    deadline = time.monotonic() + DEADLINE_S
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def has_ended(runtime: OciRuntime) -> bool:
    """Whether the container has."""
    return bool(runtime.state()["status"] == "stopped")


def output(bundle: Bundle) -> str:
    """What the container has written."""
    return (bundle.path / "output").read_text(encoding="utf-8")


def test_life(runtime: OciRuntime, bundle: Bundle) -> None:
    """Created, running, stopped, gone; the command runs from the start on, as it was configured before."""
    pid_file = bundle.path / "pid"
    bundle.script("echo began; exec sleep 600")
    runtime.create(bundle, "c1", "--pid-file", str(pid_file))
    state = runtime.state()
    assert state["status"] == "created"
    assert (state["id"], state["bundle"]) == ("c1", str(bundle.path))
    assert state["pid"] == int(pid_file.read_text(encoding="ascii"))
    assert state["ociVersion"].startswith("1.")
    assert output(bundle) == ""
    bundle.script("echo something else")
    bundle.write()
    runtime.call("start", "c1")
    until(lambda: output(bundle) == "began\n")
    assert runtime.state()["status"] == "running"
    runtime.call("kill", "c1", "KILL")
    until(lambda: has_ended(runtime))
    runtime.call("delete", "c1")
    assert runtime.call("state", "c1", check=False).returncode != 0
    assert "c1" not in runtime.call("list").stdout.decode()
    assert output(bundle) == "began\n"


def test_unknown_containers(runtime: OciRuntime) -> None:
    """Whatever is asked of one that there is not is an error."""
    for words in (("state",), ("start",), ("kill",), ("delete",), ("pause",), ("resume",), ("ps",)):
        assert runtime.call(*words, "nobody", check=False).returncode != 0, words


@pytest.mark.parametrize("name", ["a/b", "..", "", "../c1"])
def test_wrong_ids(runtime: OciRuntime, bundle: Bundle, name: str) -> None:
    """An id is no path."""
    bundle.write()
    done = runtime.call("create", "--bundle", str(bundle.path), name, check=False)
    assert done.returncode != 0
    assert not (runtime.root.parent / "c1").exists()


def test_an_id_in_use(runtime: OciRuntime, bundle: Bundle) -> None:
    """An id is taken once; the container that has it is not touched."""
    bundle.command("sleep", "600")
    runtime.create(bundle)
    before = runtime.state()
    done = runtime.call("create", "--bundle", str(bundle.path), "c1", check=False)
    assert done.returncode != 0
    assert runtime.state() == before


def test_start_twice(runtime: OciRuntime, bundle: Bundle) -> None:
    """What was started cannot be started, nor can what has ended."""
    bundle.command("sleep", "600")
    runtime.create(bundle)
    runtime.call("start", "c1")
    assert runtime.call("start", "c1", check=False).returncode != 0
    runtime.call("kill", "c1", "KILL")
    until(lambda: has_ended(runtime))
    assert runtime.call("start", "c1", check=False).returncode != 0


@pytest.mark.parametrize("word", ["USR1", "SIGUSR1", "10"])
def test_signals(runtime: OciRuntime, bundle: Bundle, word: str) -> None:
    """A signal comes by name or number."""
    bundle.script("trap 'echo came; exit 0' USR1; echo ready; while :; do sleep 0.1; done")
    runtime.create(bundle)
    runtime.call("start", "c1")
    until(lambda: "ready" in output(bundle))
    runtime.call("kill", "c1", word)
    until(lambda: has_ended(runtime))
    assert output(bundle) == "ready\ncame\n"


def test_kill_of_one_that_has_ended(runtime: OciRuntime, bundle: Bundle) -> None:
    """That is an error, and so is a signal that there is not."""
    runtime.create(bundle)
    assert runtime.call("kill", "c1", "NOTHING", check=False).returncode != 0
    runtime.call("start", "c1")
    until(lambda: has_ended(runtime))
    assert runtime.call("kill", "c1", "TERM", check=False).returncode != 0


def test_kill_of_a_created_one(runtime: OciRuntime, bundle: Bundle) -> None:
    """One that was not started can be killed, and deleted by force."""
    runtime.create(bundle)
    runtime.call("kill", "c1", "KILL")
    until(lambda: has_ended(runtime))
    runtime.call("delete", "c1")
    runtime.create(bundle)
    runtime.call("delete", "--force", "c1")
    assert runtime.call("state", "c1", check=False).returncode != 0


def test_delete_of_a_running_one(runtime: OciRuntime, bundle: Bundle) -> None:
    """That is an error and changes nothing, unless it is forced."""
    bundle.command("sleep", "600")
    runtime.create(bundle)
    runtime.call("start", "c1")
    assert runtime.call("delete", "c1", check=False).returncode != 0
    state = runtime.state()
    assert state["status"] == "running"
    runtime.call("delete", "--force", "c1")
    assert not Path(f"/proc/{state['pid']}/root/bin").exists()


def test_delete_twice(runtime: OciRuntime, bundle: Bundle) -> None:
    """Deleting what is gone is an error, and none if it is forced."""
    runtime.create(bundle)
    runtime.call("delete", "--force", "c1")
    assert runtime.call("delete", "c1", check=False).returncode != 0
    runtime.call("delete", "--force", "c1")


def test_kill_all(runtime: OciRuntime, bundle: Bundle) -> None:
    """Every process of the container gets the signal."""
    bundle.script("sh -c 'trap \"echo child\" USR1; echo ready; while :; do sleep 0.1; done' & wait")
    runtime.create(bundle)
    runtime.call("start", "c1")
    until(lambda: "ready" in output(bundle))
    runtime.call("kill", "--all", "c1", "USR1")
    until(lambda: "child" in output(bundle))


def test_pause(runtime: OciRuntime, bundle: Bundle) -> None:
    """What is paused does nothing until it is resumed; pausing what is paused is an error."""
    bundle.script("while :; do echo tick; sleep 0.05; done")
    runtime.create(bundle)
    runtime.call("start", "c1")
    until(lambda: "tick" in output(bundle))
    runtime.call("pause", "c1")
    assert runtime.state()["status"] == "paused"
    before = output(bundle)
    assert runtime.call("exec", "c1", "true", check=False).returncode != 0 or runtime.name == "crun"
    assert output(bundle) == before
    runtime.call("resume", "c1")
    assert runtime.state()["status"] == "running"
    until(lambda: output(bundle) != before)
    assert runtime.call("resume", "c1", check=False).returncode != 0 or runtime.name == "crun"


def test_exec(runtime: OciRuntime, bundle: Bundle) -> None:
    """A further process has the container's environment and more, and its status is that of the command."""
    bundle.config["process"]["env"].append("ONE=1")
    bundle.command("sleep", "600")
    runtime.create(bundle)
    runtime.call("start", "c1")
    script = 'echo "$ONE $TWO $(pwd) $(id -u):$(id -g)"; cat; exit 7'
    done = runtime.call(
        *("exec", "--env", "TWO=2", "--cwd", "/tmp", "--user", "5:6", "c1", "sh", "-c", script),
        check=False,
        stdin=b"input",
    )
    assert done.returncode == 7, done.stderr
    assert done.stdout == b"1 2 /tmp 5:6\ninput"
    assert runtime.call("exec", "c1", "/nothing", check=False).returncode != 0
    groups = Path(f"/proc/{runtime.state()['pid']}/cgroup").read_text(encoding="ascii")
    pids = [line for line in groups.splitlines() if ":pids:" in line]
    inside = runtime.call("exec", "c1", "cat", "/proc/self/cgroup").stdout.decode()
    assert all(line in inside.splitlines() for line in pids)


def test_exec_by_file(runtime: OciRuntime, bundle: Bundle) -> None:
    """Its description may be a file; detached, the command ends when it has begun and says which it is."""
    bundle.command("sleep", "600")
    runtime.create(bundle)
    runtime.call("start", "c1")
    process = {
        **bundle.config["process"],
        "args": ["sh", "-c", "echo $WORD; exec sleep 600"],
        "env": [*bundle.config["process"]["env"], "WORD=here"],
    }
    file, pid_file = bundle.path / "process.json", bundle.path / "pid"
    file.write_text(json.dumps(process), encoding="utf-8")
    with (bundle.path / "output").open("ab") as written:
        runtime.call(
            *("exec", "--detach", "--process", str(file), "--pid-file", str(pid_file), "c1"),
            stdout=written,
            stderr=written,
        )
    until(lambda: output(bundle) == "here\n")
    pid = int(pid_file.read_text(encoding="ascii"))
    until(lambda: Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"sleep"))
    pids = json.loads(runtime.call("ps", "--format", "json", "c1").stdout)
    assert {runtime.state()["pid"], pid} <= set(pids)
    os.kill(pid, signal.SIGKILL)


def test_exec_in_one_that_has_ended(runtime: OciRuntime, bundle: Bundle) -> None:
    """That is an error."""
    runtime.create(bundle)
    runtime.call("start", "c1")
    until(lambda: has_ended(runtime))
    assert runtime.call("exec", "c1", "true", check=False).returncode != 0


def test_missing_command(runtime: OciRuntime, bundle: Bundle) -> None:
    """A command that there is not is found out when the container is created, or started."""
    bundle.command("/there/is/none")
    bundle.write()
    done = runtime.call("run", "--bundle", str(bundle.path), "c1", check=False)
    assert done.returncode != 0
    assert b"/there/is/none" in done.stderr
    assert runtime.call("state", "c1", check=False).returncode != 0


def test_status_of_a_run(runtime: OciRuntime, bundle: Bundle) -> None:
    """It ends with the status of the command, or 128 and the signal, and leaves nothing."""
    for script, expected in (("exit 42", 42), ("kill -9 $$", 137)):
        bundle.script(f"sh -c '{script}'; exit $?")
        bundle.write()
        done = runtime.call("run", "--bundle", str(bundle.path), "c1", check=False)
        assert done.returncode == expected
        assert runtime.call("state", "c1", check=False).returncode != 0


def test_console(runtime: OciRuntime, bundle: Bundle) -> None:
    """A terminal goes to who listens at the socket; it is the container's, of the size that was asked for."""
    bundle.config["process"]["terminal"] = True
    bundle.config["process"]["consoleSize"] = {"width": 91, "height": 17}
    bundle.script("tty; stty size; read line; echo got $line; exec sleep 600")
    path = str(bundle.path / "s")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        runtime.create(bundle, "c1", "--console-socket", path)
        connection, _ = listener.accept()
        with connection:
            _, fds, _, _ = socket.recv_fds(connection, 4096, 1)
    try:
        runtime.call("start", "c1")
        os.set_blocking(fds[0], True)
        text = b""
        while text.count(b"\n") < 2:
            text += os.read(fds[0], 4096)
        assert text.split() == [b"/dev/console", b"17", b"91"] or text.split()[1:] == [b"17", b"91"]
        os.write(fds[0], b"word\n")
        while b"got word" not in text:
            text += os.read(fds[0], 4096)
    finally:
        os.close(fds[0])


def test_terminal_without_a_socket(runtime: OciRuntime, bundle: Bundle) -> None:
    """Who creates a container with a terminal has to take it."""
    bundle.config["process"]["terminal"] = True
    runtime.refuse(bundle)


def test_nobody_at_the_socket(runtime: OciRuntime, bundle: Bundle) -> None:
    """A socket that is not there is an error, and nothing is left."""
    bundle.config["process"]["terminal"] = True
    bundle.write()
    done = runtime.call(
        *("create", "--bundle", str(bundle.path), "--console-socket", str(bundle.path / "none"), "c1"),
        check=False,
    )
    assert done.returncode != 0
    assert runtime.call("state", "c1", check=False).returncode != 0


def test_preserved_descriptors(runtime: OciRuntime, bundle: Bundle) -> None:
    """As many as were named are there from 3 on, and no others."""
    bundle.script("ls /proc/self/fd | wc -l; cat <&3; cat <&4")
    bundle.write()
    one, two = bundle.path / "one", bundle.path / "two"
    one.write_text("first ", encoding="ascii")
    two.write_text("second", encoding="ascii")
    # The shell gives the descriptors the numbers that they need.
    command = [*runtime.command(), "--root", str(runtime.root), "run", "--preserve-fds", "2"]
    shell = ["sh", "-c", 'exec 3<"$0" 4<"$1"; shift; exec "$@"', str(one), str(two)]
    command += ["--bundle", str(bundle.path), "c1"]
    done = subprocess.run([*shell, *command], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.decode().splitlines()
    assert lines[-1] == "first second"


def test_update(runtime: OciRuntime, bundle: Bundle) -> None:
    """Limits of a container that runs can be changed, by flags and by a document."""
    bundle.config["linux"]["resources"]["memory"] = {"limit": 64 << 20, "swap": 64 << 20}
    bundle.command("sleep", "600")
    runtime.create(bundle)
    runtime.call("start", "c1")
    resources = {"pids": {"limit": 33}, "memory": {"limit": 128 << 20, "swap": 128 << 20}}
    runtime.call("update", "--resources", "-", "c1", stdin=json.dumps(resources).encode())
    lines = Path(f"/proc/{runtime.state()['pid']}/cgroup").read_text(encoding="ascii").splitlines()
    rows = {
        name: path for line in lines for _, names, path in [line.split(":", 2)] for name in names.split(",")
    }
    if "pids" not in rows:
        pytest.skip("version 2 is tested by what engines do")
    top = Path("/sys/fs/cgroup")
    assert (top / f"pids{rows['pids']}/pids.max").read_text(encoding="ascii") == "33\n"
    memory = top / f"memory{rows['memory']}/memory.limit_in_bytes"
    assert int(memory.read_text(encoding="ascii")) == 128 << 20


def test_log(runtime: OciRuntime, bundle: Bundle) -> None:
    """Errors are in the log, in the form that was asked for."""
    log = bundle.path / "log"
    bundle.config["process"]["args"] = ["/there/is/none"]
    bundle.write()
    flags = ("--log", str(log), "--log-format", "json")
    done = runtime.call(*flags, "run", "--bundle", str(bundle.path), "c1", check=False)
    assert done.returncode != 0
    last = json.loads(log.read_text(encoding="utf-8").splitlines()[-1])
    assert last["level"] == "error"
    assert "/there/is/none" in last["msg"]
    assert last["time"]


def test_description_to_begin_with(runtime: OciRuntime, bundle: Bundle) -> None:
    """What ``spec`` writes can be run, once its terminal is taken away; it is not written over anything."""
    runtime.call("spec", cwd=str(bundle.path))
    config = json.loads((bundle.path / "config.json").read_text(encoding="utf-8"))
    config["process"] |= {"terminal": False, "args": ["hostname"]}
    # It asks for more open files than every host lets it.
    config["process"]["rlimits"] = []
    bundle.config = config
    assert runtime.run(bundle).strip() == config["hostname"]
    assert runtime.call("spec", cwd=str(bundle.path), check=False).returncode != 0


def test_features(oci: Callable[[str], OciRuntime]) -> None:
    """What ours says of itself is what the document must have."""
    found = json.loads(oci(OURS).call("features").stdout)
    assert found["ociVersionMin"] == "1.0.0"
    assert found["ociVersionMax"] == "1.2.0"
    assert set(found["hooks"]) >= {"createRuntime", "poststop"}
    assert {"ro", "rro", "rbind", "rslave"} <= set(found["mountOptions"])
    assert found["linux"]["cgroup"]["v1"] is True
    assert found["linux"]["seccomp"]["enabled"] is True
