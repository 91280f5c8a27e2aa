"""What the commands do to a container's life, by our runtime, runc and crun alike.

Source: runtime.md of the runtime specification; for what it leaves open, runc.
"""

from __future__ import annotations

import json
import os
import pty
import shutil
import signal
import socket
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.oci import OURS, until
from support.probe import probe_program

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.oci import Bundle, OciRuntime

pytestmark = [pytest.mark.root, pytest.mark.cgroup, pytest.mark.peers]

# By the names of tests: what the Debian version of another runtime does otherwise.
DEVIATIONS = {
    "test_pause[crun]": "it resumes what is not paused",
    "test_processes_and_numbers[crun]": "it has no events",
    "test_kill_of_one_that_has_ended[crun]": "it says that all is well",
    "test_exec[crun]": "variables of its flag take the place of the container's",
}


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
    assert runtime.call("exec", "c1", "true", check=False).returncode != 0
    assert output(bundle) == before
    runtime.call("resume", "c1")
    assert runtime.state()["status"] == "running"
    until(lambda: output(bundle) != before)
    assert runtime.call("resume", "c1", check=False).returncode != 0


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
        assert text.split()[0].startswith(b"/dev/")
        assert text.split()[1:3] == [b"17", b"91"]
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


def test_update_by_flags(runtime: OciRuntime, bundle: Bundle) -> None:
    """A limit that is named is changed, and no other."""
    bundle.config["linux"]["resources"]["pids"] = {"limit": 20}
    bundle.config["linux"]["resources"]["cpu"] = {"shares": 500}
    bundle.command("sleep", "600")
    runtime.create(bundle)
    runtime.call("start", "c1")
    runtime.call("update", "--pids-limit", "33", "c1")
    path = bundle.config["linux"]["cgroupsPath"]
    top = Path("/sys/fs/cgroup")
    found = [
        each.read_text(encoding="ascii").strip()
        for each in (top / f"pids{path}/pids.max", top / f"cpu{path}/cpu.shares", top / f"{path}/pids.max")
        if each.exists()
    ]
    assert found[0] == "33"
    assert found[1:] in ([], ["500"])


@pytest.mark.parametrize("flag", ["--no-pivot", "--no-new-keyring"])
def test_flags_of_creation(runtime: OciRuntime, bundle: Bundle, flag: str) -> None:
    """The root is moved instead of pivoted to, or the session keyring is the caller's, and not a new one."""
    shutil.copy(probe_program(), bundle.rootfs / "bin/probe")
    keyring = ("call", "250", "0", "-3", "0")  # keyctl(KEYCTL_GET_KEYRING_ID, KEY_SPEC_SESSION_KEYRING)
    outside = subprocess.run([probe_program(), *keyring], capture_output=True, check=True).stdout.decode()
    bundle.command("probe", *keyring, "--", "stat", "/bin/probe")
    bundle.write()
    done = runtime.call("run", flag, "--bundle", str(bundle.path), "c1")
    inside, program = done.stdout.decode().splitlines()
    assert program.startswith("file ")
    assert (inside == outside.strip()) is (flag == "--no-new-keyring")


def test_flags_of_exec(runtime: OciRuntime, bundle: Bundle) -> None:
    """Further groups and capabilities, and no new privileges, as the flags say."""
    bundle.config["process"]["noNewPrivileges"] = False
    bundle.command("sleep", "600")
    runtime.create(bundle)
    runtime.call("start", "c1")
    flags = ("--cap", "CAP_CHOWN", "--no-new-privs")
    if runtime.name != "crun":  # has no such flag
        flags += ("--additional-gids", "77")
    script = "grep -E '^(Groups|CapEff|NoNewPrivs):' /proc/self/status"
    found = runtime.call("exec", *flags, "c1", "sh", "-c", script).stdout.decode()
    rows = {line.split(":")[0]: line.split(":")[1].split() for line in found.splitlines()}
    assert int(rows["CapEff"][0], 16) & 1  # CAP_CHOWN
    assert rows["NoNewPrivs"] == ["1"]
    assert runtime.name == "crun" or "77" in rows["Groups"]


def test_a_kept_container(oci: Callable[[str], OciRuntime], bundle: Bundle) -> None:
    """What is run with --keep is there when it has ended, until it is deleted; lists have it."""
    runtime = oci(OURS)
    runtime.created.append("c1")
    bundle.write()
    runtime.call("run", "--keep", "--bundle", str(bundle.path), "c1")
    assert runtime.state()["status"] == "stopped"
    assert runtime.call("list", "--quiet").stdout == b"c1\n"
    (row,) = json.loads(runtime.call("list", "--format", "json").stdout)
    assert (row["id"], row["status"], row["pid"]) == ("c1", "stopped", 0)
    runtime.call("delete", "c1")
    assert json.loads(runtime.call("list", "--format", "json").stdout) == []


def test_processes_and_numbers(runtime: OciRuntime, bundle: Bundle) -> None:
    """The table of ps has the container's processes alone; events say what they use."""
    bundle.command("sleep", "612")
    runtime.create(bundle)
    runtime.call("start", "c1")
    pid = runtime.state()["pid"]
    title, row = runtime.call("ps", "c1").stdout.decode().splitlines()
    assert "PID" in title
    assert str(pid) in row
    data = json.loads(runtime.call("events", "--stats", "c1").stdout)
    assert (data["type"], data["id"]) == ("stats", "c1")
    assert data["data"]["pids"]["current"] == 1
    assert 0 < data["data"]["memory"]["usage"]["usage"] < data["data"]["memory"]["usage"]["limit"]
    assert data["data"]["cpu"]["usage"]["total"] > 0


def test_dialogue(runtime: OciRuntime, bundle: Bundle) -> None:
    """On a terminal, ``run`` relays it both ways, and ends with the status of the command."""
    bundle.config["process"]["terminal"] = True
    bundle.script("tty; read line; echo got $line; exit 3")
    bundle.write()
    master, slave = pty.openpty()
    command = [*runtime.command(), "--root", str(runtime.root), "run", "--bundle", str(bundle.path), "c1"]
    with subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave) as process:
        os.close(slave)
        try:
            text = b""
            while b"/dev/" not in text:
                text += os.read(master, 4096)
            os.write(master, b"word\n")
            while b"got word" not in text:
                text += os.read(master, 4096)
            assert process.wait(60) == 3
        finally:
            process.kill()
            os.close(master)


def test_capabilities_that_cannot_be_had(oci: Callable[[str], OciRuntime], bundle: Bundle) -> None:
    """They are left out, and the log says which."""
    sets = bundle.config["process"]["capabilities"]
    sets["ambient"] = ["CAP_KILL"]  # not inheritable
    bundle.script("grep CapAmb /proc/self/status")
    bundle.write()
    log = bundle.path / "log"
    flags = ("--log", str(log), "--debug")
    done = oci(OURS).call(*flags, "run", "--bundle", str(bundle.path), "c1")
    assert int(done.stdout.split()[1], 16) == 0
    text = log.read_text(encoding="utf-8")
    assert "level=warning" in text
    assert "ambient capabilities that cannot be granted were left out: CAP_KILL" in text
    assert "level=debug" in text


def test_nothing_is_made_for_nobody(oci: Callable[[str], OciRuntime], bundle: Bundle) -> None:
    """A command about a container that there is not, or that cannot be created, leaves no file."""
    runtime = oci(OURS)
    for words in (("start", "nobody"), ("pause", "nobody"), ("delete", "--force", "nobody")):
        runtime.call(*words, check=False)
    assert not runtime.root.exists()
    bundle.config["linux"]["sysctl"] = {"kernel.panic": "1"}
    runtime.refuse(bundle)
    assert [path.name for path in runtime.root.rglob("*")] == [".locks"]


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
