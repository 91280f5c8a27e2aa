"""The command line's verbs for containers that stay."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from support.engine import BUSYBOX, busybox_tree
from support.terminal import Terminal

import containerlib as cl
from containerlib.cli.main import run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from containerlib import Engine

pytestmark = [pytest.mark.root, pytest.mark.cgroup]


@pytest.fixture(autouse=True)
def box(engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Have the command line use the engine's store, with the image box:1 in it."""
    if not BUSYBOX.exists():
        pytest.skip("busybox is not installed")
    monkeypatch.setenv("CONTAINERLIB_ROOT", engine.root)
    monkeypatch.setenv("CONTAINERLIB_RUN_ROOT", engine.run_root)
    busybox_tree(tmp_path / "tree")
    engine.images.from_directory(tmp_path / "tree", reference="box:1")
    yield
    for container in engine.containers.list():
        container.remove(force=True)


def command(*arguments: str, data: bytes = b"") -> tuple[int, str, str]:
    """Run the command line in a process of its own; return exit code, standard output and error."""
    done = subprocess.run(
        [sys.executable, "-m", "containerlib", *arguments], input=data, capture_output=True, check=False
    )
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def test_a_life(capsys: pytest.CaptureFixture[str]) -> None:
    """A container is started, looked at, joined, held, renamed, stopped, started again and removed."""
    script = "trap 'exit 3' TERM; echo out; echo err >&2; while :; do sleep 0.02; done"
    code, out, err = command("run", "-d", "--name", "web", "box:1", "sh", "-c", script)
    assert (code, err) == (0, "")
    identity = out.strip()
    assert len(identity) == 64
    assert run(["ps"]) == 0
    assert "web" in capsys.readouterr().out
    assert command("exec", "-e", "A=b", "web", "sh", "-c", "echo $A; exit 4") == (4, "b\n", "")
    assert command("exec", "-i", "web", "cat", data=b"through") == (0, "through", "")
    assert command("exec", "web", "nowhere")[0] == 127
    assert run(["pause", "web"]) == run(["unpause", "web"]) == run(["rename", "web", "app"]) == 0
    assert run(["rm", "app"]) == 1
    assert "stop it first" in capsys.readouterr().err
    assert run(["stop", "-t", "10", "app"]) == 0
    capsys.readouterr()
    assert run(["wait", "app"]) == 0
    assert capsys.readouterr().out == "3\n"
    assert command("logs", "app") == (0, "out\n", "err\n")
    assert command("logs", "--tail", "x", "app")[0] == 125
    assert run(["diff", "app"]) == 0
    assert run(["start", identity[:12]]) == run(["restart", "-t", "10", "app"]) == 0
    assert run(["kill", "-s", "KILL", "app"]) == run(["wait", "app"]) == 0
    assert capsys.readouterr().out.endswith("app\n137\n")
    assert run(["rm", "app"]) == 0
    assert run(["rm", "app"]) == 1


def test_logs_follow() -> None:
    """`logs -f` ends with the container and has everything, with times when asked."""
    command("run", "-d", "--name", "web", "box:1", "sh", "-c", "echo a; sleep 0.1; printf b")
    code, out, _ = command("logs", "-f", "web")
    assert (code, out) == (0, "a\nb")
    code, out, _ = command("logs", "-t", "-n", "1", "web")
    assert out.endswith("Z b")


def test_several_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    """One that fails does not keep the others from being done."""
    command("run", "-d", "--name", "one", "box:1", "true")
    command("run", "-d", "--name", "two", "box:1", "true")
    assert run(["wait", "one", "two"]) == 0
    capsys.readouterr()
    assert run(["rm", "one", "none", "two"]) == 1
    seen = capsys.readouterr()
    assert seen.out == "one\ntwo\n"
    assert "'none'" in seen.err


def test_policy_and_health(engine: Engine) -> None:
    """Docker's options for restarts and health arrive as they are meant."""
    options = ["--restart", "on-failure:2", "--health-cmd", "true", "--health-interval", "50ms"]
    assert (
        command("run", "-d", "--name", "web", *options, "--health-retries", "2", "box:1", "sleep", "60")[0]
        == 0
    )
    container = engine.containers.get("web")
    container.wait_until("healthy", timeout_s=20)
    config = container.entry.config
    assert (config.restart.name, config.restart.max_retries) == ("on-failure", 2)
    assert config.health is not None
    assert (config.health.interval_s, config.health.retries) == (0.05, 2)


def test_removed_at_its_end(engine: Engine) -> None:
    """With --rm nothing is left of it."""
    assert command("run", "-d", "--rm", "--name", "web", "box:1", "true")[0] == 0
    for container in engine.containers.list():
        container.wait_until("removed", timeout_s=20)
    while os.listdir(f"{engine.root}/containers"):
        pass


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--restart", "always", "box:1", "true"], "--detach"),
        (["--health-cmd", "true", "box:1", "true"], "--detach"),
        (["-d", "--health-interval", "1s", "box:1", "true"], "--health-cmd"),
        (["-d", "--timeout", "1", "box:1", "true"], "--timeout"),
        (["-d", "--restart", "sometimes", "box:1", "true"], "on-failure"),
        (["-d", "--restart", "always:3", "box:1", "true"], "on-failure:3"),
        (["-d", "--rm", "--restart", "always", "box:1", "true"], "removed at its end"),
        (["-d", "--health-cmd", "true", "--health-interval", "soon", "box:1", "true"], "1m30s"),
    ],
)
def test_what_does_not_go_together(
    engine: Engine, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    """What could not be honoured is refused with the option's name, and nothing is made."""
    assert run(["run", *arguments]) == 125
    assert said in capsys.readouterr().err
    assert engine.containers.list() == []


def test_looking_in(capsys: pytest.CaptureFixture[str]) -> None:
    """`top`, `stats` and `inspect` show a container as Docker does."""
    command("run", "-d", "--name", "web", "-m", "64m", "box:1", "sleep", "60")
    assert run(["top", "web"]) == 0
    header, row = capsys.readouterr().out.splitlines()
    assert header.split() == ["UID", "PID", "PPID", "C", "STIME", "TIME", "CMD"]
    assert row.endswith("sleep 60")
    assert run(["stats", "--no-stream", "web"]) == 0
    header, row = capsys.readouterr().out.splitlines()
    assert header.startswith("CONTAINER ID   NAME")
    assert "web" in row
    assert "/ 64MiB" in row
    assert run(["stats", "--no-stream", "--format", "json"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line)["memory"]["limit_bytes"] == 64 << 20
    assert run(["inspect", "web", "box:1"]) == 0
    container, image = json.loads(capsys.readouterr().out)
    assert (container["Name"], container["State"]["Status"]) == ("/web", "running")
    assert image["RepoTags"] == ["box:1"]
    assert run(["inspect", "--type", "image", "web"]) == 1
    assert run(["inspect", "--type", "container", "box:1"]) == 1
    assert run(["image", "inspect", "box:1"]) == 0
    assert capsys.readouterr().err.count("containerlib:") == 2
    assert run(["inspect", "nothing"]) == 1
    assert "neither a container nor an image" in capsys.readouterr().err
    command("kill", "web")
    for words in (["top", "web"], ["stats", "--no-stream", "web"]):
        code, _, err = command(*words)
        assert (code, "exited" in err) == (125, True)


def test_copying(tmp_path: Path) -> None:
    """`cp` copies files either way, and archives from and to its streams."""
    command("run", "-d", "--name", "web", "box:1", "sleep", "60")
    (tmp_path / "a:b").write_text("text", encoding="ascii")
    assert command("cp", str(tmp_path / "a:b"), "web:/tmp/x") == (0, "", "")
    assert command("exec", "web", "cat", "/tmp/x") == (0, "text", "")
    assert command("cp", "web:tmp/x", str(tmp_path / "back")) == (0, "", "")
    assert (tmp_path / "back").read_text(encoding="ascii") == "text"
    done = subprocess.run(
        [sys.executable, "-m", "containerlib", "cp", "web:/tmp/x", "-"], capture_output=True, check=True
    )
    assert command("exec", "web", "mkdir", "/copy")[0] == 0
    assert command("cp", "-", "web:/copy", data=done.stdout) == (0, "", "")
    assert command("exec", "web", "cat", "/copy/x") == (0, "text", "")
    code, _, err = command("cp", "web:/a", "web:/b")
    assert (code, "CONTAINER:PATH" in err) == (125, True)
    code, _, err = command("cp", "web:/missing", str(tmp_path))
    assert (code, "has no '/missing'" in err) == (125, True)
    assert command("cp", "nothing:/a", str(tmp_path))[0] == 125


def test_create_and_update(engine: Engine, capsys: pytest.CaptureFixture[str]) -> None:
    """`create` makes what `start` starts; `update` changes only what is named."""
    assert run(["create", "--name", "web", "-m", "64m", "--pids-limit", "30", "box:1", "sleep", "60"]) == 0
    identity = capsys.readouterr().out.strip()
    container = engine.containers.get("web")
    assert (container.id, container.state) == (identity, "created")
    assert run(["start", "web"]) == 0
    assert run(["update", "--memory", "128m", "--restart", "always", "web"]) == 0
    config = container.inspect().config
    assert (config.resources.memory_bytes, config.resources.pids) == (128 << 20, 30)
    assert config.restart.name == "always"
    assert container.stats().memory.limit_bytes == 128 << 20
    assert run(["update", "web"]) == 125
    assert run(["update", "--pids-limit", "31", "nothing", "web"]) == 1
    assert container.inspect().config.resources.pids == 31
    assert run(["create", "--timeout", "3", "box:1"]) == 125
    assert run(["create", "--health-retries", "3", "box:1"]) == 125
    assert run(["container", "ls"]) == run(["container", "inspect", "web"]) == 0
    assert run(["container", "inspect", "box:1"]) == 1
    assert run(["container", "kill", "web"]) == run(["container", "wait", "web"]) == 0
    assert run(["container", "prune", "--force"]) == 0
    assert identity in capsys.readouterr().out
    assert engine.containers.list() == []


@pytest.fixture
def on_terminal() -> Iterator[Callable[..., Terminal]]:
    """Return what starts the command line on a terminal of its own."""
    with contextlib.ExitStack() as opened:

        def start(*arguments: str) -> Terminal:
            terminal = Terminal(*arguments, command=())
            opened.callback(terminal.close)
            return terminal

        yield start


def test_exec_with_a_terminal(on_terminal: Callable[..., Terminal]) -> None:
    """The command has a terminal, its size is ours, and its exit code comes back."""
    command("run", "-d", "--name", "web", "box:1", "sleep", "60")
    user = on_terminal("exec", "-it", "web", "sh", "-c", "tty; stty size; read x; echo got $x; exit 5")
    assert b"/dev/pts/" in user.read_until(b"30 90\r\n")
    assert user.is_raw
    user.type(b"text\r")
    user.read_until(b"got text\r\n")
    assert user.wait() == 5
    assert user.is_as_before
    code, _, err = command("exec", "-it", "web", "true")
    assert (code, "not a TTY" in err) == (125, True)
    assert command("exec", "-t", "web", "tty")[1].startswith("/dev/pts/")


def test_attach(engine: Engine, on_terminal: Callable[..., Terminal]) -> None:
    """Output comes and input goes, until the container ends, or the keys for leaving are typed."""
    command("run", "-dit", "--name", "shell", "box:1", "sh")
    user = on_terminal("attach", "shell")
    user.type(b"echo a$((1+1))b\r")
    user.read_until(b"a2b\r\n")
    user.type(b"\x10")
    user.type(b"\x11")
    assert user.wait() == 0
    assert user.is_as_before
    assert engine.containers.get("shell").state == "running"
    user = on_terminal("attach", "--detach-keys", "ctrl-a,d", "shell")
    user.type(b"echo a$((1+2))b\r")
    user.read_until(b"a3b\r\n")
    user.type(b"\x01d")
    assert user.wait() == 0
    user = on_terminal("attach", "shell")
    user.type(b"exit 7\r")
    assert user.wait() == 7
    code, _, err = command("attach", "shell")
    assert (code, "exited" in err) == (125, True)
    assert command("attach", "--detach-keys", "ctrl-", "shell")[0] == 125


def test_attach_without_a_terminal(engine: Engine) -> None:
    """Both outputs are told apart, input is passed on, and signals reach the container."""
    forever = "trap 'exit 6' TERM; echo ready; while :; do sleep 0.02; done"
    script = f"read go; echo out; echo err >&2; read line; echo got $line; {forever}"
    command("run", "-di", "--name", "web", "box:1", "sh", "-c", script)
    attached = subprocess.Popen(
        [sys.executable, "-m", "containerlib", "attach", "web"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert attached.stdin is not None
    assert attached.stdout is not None
    attached.stdin.write(b"go\nthrough\n")
    attached.stdin.close()
    assert attached.stdout.readline() == b"out\n"
    assert attached.stdout.readline() == b"got through\n"
    assert attached.stdout.readline() == b"ready\n"
    attached.send_signal(signal.SIGTERM)
    assert attached.wait() == 6
    assert attached.stderr is not None
    assert attached.stderr.read() == b"err\n"
    attached.stdout.close()
    attached.stderr.close()
    assert engine.containers.get("web").state == "exited"


def test_log_options(engine: Engine) -> None:
    """The log is rotated by size and count, or not kept at all."""
    script = "i=0; while [ $i -lt 12000 ]; do echo line $i of some length to fill files; i=$((i+1)); done"
    options = ("--log-opt", "max-size=64k", "--log-opt", "max-file=2")
    command("run", "-d", "--name", "web", *options, "box:1", "sh", "-c", script)
    assert command("wait", "web")[1] == "0\n"
    lines = command("logs", "web")[1].splitlines()
    assert lines[-1] == "line 11999 of some length to fill files"
    assert 1000 < len(lines) < 6000
    assert engine.containers.get("web").inspect().config.log == cl.LogFile(max_bytes=65536, max_files=2)
    command("run", "-d", "--name", "quiet", "--log-driver", "none", "box:1", "echo", "unheard")
    assert command("wait", "quiet")[1] == "0\n"
    code, _, err = command("logs", "quiet")
    assert (code, "keeps no log" in err) == (125, True)
    assert command("run", "--log-driver", "none", "box:1", "true")[0] == 125
    assert command("run", "-d", "--log-opt", "max-size=1", "box:1", "true")[0] == 125


def test_ps_filters(engine: Engine, capsys: pytest.CaptureFixture[str]) -> None:
    """Conditions choose by state, exit code, name, id, label, image and age, as Docker's do."""
    image = engine.images.get("box:1")
    first = engine.containers.create(image, ["true"], name="first", labels={"a": "1"}, lifetime="detached")
    second = engine.containers.create(
        image, ["sh", "-c", "exit 3"], name="second", labels={"a": "2"}, lifetime="detached"
    )
    second.start()
    second.wait(timeout_s=20)
    third = engine.containers.run(image, ["sleep", "60"], name="third", lifetime="detached", init=True)

    def names(*arguments: str) -> list[str]:
        assert run(["ps", "--format", "json", *arguments]) == 0
        return [json.loads(line)["name"] for line in capsys.readouterr().out.splitlines()]

    assert names() == ["third"]
    assert names("-a") == ["third", "second", "first"]
    assert names("-f", "status=created", "-f", "status=exited") == ["second", "first"]
    assert names("-f", "exited=3") == ["second"]
    assert names("-a", "-f", "name=ir") == ["third", "first"]
    assert names("-a", "-f", f"id={first.id[:20]}") == ["first"]
    assert names("-a", "-f", "label=a") == ["second", "first"]
    assert names("-a", "-f", "label=a=2") == ["second"]
    assert names("-a", "-f", "ancestor=box:1", "-f", "before=third") == ["second", "first"]
    assert names("-a", "-f", "ancestor=other") == []
    assert names("-a", "-f", f"since={second.id}") == ["third"]
    assert names("-n", "2") == ["third", "second"]
    assert names("-l") == ["third"]
    assert run(["ps", "-q", "--no-trunc"]) == 0
    assert capsys.readouterr().out == f"{third.id}\n"
    assert run(["ps", "-l", "-n", "2"]) == run(["ps", "-n", "0"]) == 125
    assert run(["start", "--detach-keys", "odd", "third"]) == 125
    for wrong in ("status=odd", "exited=x", "before=nobody", "odd=1"):
        assert run(["ps", "-f", wrong]) == 125


def test_start_attached() -> None:
    """`start -a` shows everything from the first byte on, and gives the exit code; `-i` passes input on."""
    script = "echo first; echo error >&2; seq 20000; exit 3"
    assert command("create", "--name", "talk", "box:1", "sh", "-c", script)[0] == 0
    expected = "first\n" + "".join(f"{number}\n" for number in range(1, 20_001))
    for _ in range(10):
        assert command("start", "-a", "talk") == (3, expected, "error\n")
    assert command("create", "-i", "--name", "echo", "box:1", "sh", "-c", "head -n 2; exit 4")[0] == 0
    assert command("start", "-a", "-i", "echo", data=b"one\ntwo\n") == (4, "one\ntwo\n", "")
    code, _, err = command("start", "-a", "talk", "echo")
    assert (code, "one container" in err) == (125, True)


def test_networks(capsys: pytest.CaptureFixture[str]) -> None:
    """A network is made, shown, used by containers of several commands, kept meanwhile, and removed."""
    assert run(["network", "create", "--subnet", "10.99.4.0/24", "--label", "a=b", "net"]) == 0
    assert len(capsys.readouterr().out.strip()) == 64
    assert run(["network", "create", "--internal", "-o", "com.docker.network.driver.mtu=1400", "inside"]) == 0
    assert run(["network", "create", "net"]) == 125
    assert "is in use" in capsys.readouterr().err
    assert run(["network", "ls", "--format", "json"]) == 0
    listed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(each["name"], each["internal"], each["mtu"]) for each in listed] == [
        *(("inside", True, 1400), ("net", False, 1500))
    ]
    server = ("nc", "-ll", "-p", "7", "-e", "cat")
    assert (
        command("run", "-d", "--name", "web", "--network", "net", "--ip", "10.99.4.9", "box:1", *server)[0]
        == 0
    )
    script = "until echo hello | nc web 7; do :; done; cat /etc/resolv.conf"
    code, out, _ = command(
        *("run", "--network", "net", "--add-host", "web:10.99.4.9", "--dns", "10.99.4.1"),
        *("--dns-search", "corp", "box:1", "sh", "-c", script),
    )
    assert code == 0
    assert out.startswith("hello\n")
    assert {"nameserver 10.99.4.1", "search corp"} <= set(out.splitlines())
    capsys.readouterr()
    assert run(["network", "inspect", "net", "nothing"]) == 1
    shown = capsys.readouterr()
    assert json.loads(shown.out)[0]["Containers"]["web"]["IPv4Address"] == "10.99.4.9/24"
    assert "'nothing' does not exist" in shown.err
    assert run(["inspect", "web"]) == 0
    found = json.loads(capsys.readouterr().out)[0]
    assert found["NetworkSettings"]["Networks"] == {"net": {"IPAddress": "10.99.4.9"}}
    assert (found["HostConfig"]["NetworkMode"], found["HostConfig"]["ExtraHosts"]) == ("net", [])
    assert run(["network", "rm", "net"]) == 1
    assert "is that of web" in capsys.readouterr().err
    assert run(["network", "prune"]) == 125
    assert "give --force" in capsys.readouterr().err
    assert run(["network", "prune", "-f", "--filter", "label=a"]) == 0
    assert capsys.readouterr().out == ""
    assert run(["network", "prune", "-f"]) == 0
    assert capsys.readouterr().out.split() == ["Deleted", "Networks:", "inside"]
    assert run(["rm", "-f", "web"]) == run(["prune", "-f"]) == 0
    assert "Deleted Networks:\nnet\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("network", "create", "--subnet", "x", "net"), "give for example"),
        (("network", "create", "-o", "other=1", "net"), "there are no other options"),
        (("network", "create", "-d", "overlay", "net"), "overlay"),
        (("run", "--network", "nothing", "box:1", "true"), "'nothing' does not exist"),
        (("run", "--ip", "10.0.0.1", "box:1", "true"), "for a network of the store"),
        (("run", "--add-host", "a", "box:1", "true"), "write NAME:ADDRESS"),
        (("run", "--dns", "one", "box:1", "true"), "a list of addresses"),
        (("run", "--device-read-bps", "sda:1mb", "box:1", "true"), "such as /dev/sda:1mb"),
    ],
)
def test_bad_networks(arguments: tuple[str, ...], problem: str) -> None:
    """Each is refused with what to write instead."""
    code, _, err = command(*arguments)
    assert code == 125
    assert problem in err


def test_rates_of_a_device(capsys: pytest.CaptureFixture[str]) -> None:
    """Each of the four flags becomes its own limit."""
    rates = {"read-bps": "1mb", "write-bps": "2mb", "read-iops": "30", "write-iops": "40"}
    flags = [word for name, rate in rates.items() for word in (f"--device-{name}", f"/dev/loop0:{rate}")]
    assert run(["create", "--name", "slow", *flags, "box:1", "true"]) == 0
    capsys.readouterr()
    assert run(["inspect", "slow"]) == 0
    host = json.loads(capsys.readouterr().out)[0]["HostConfig"]
    assert [host[f"BlkioDevice{name}"] for name in ("ReadBps", "WriteBps", "ReadIOps", "WriteIOps")] == [
        [{"Path": "/dev/loop0", "Rate": rate}] for rate in (1 << 20, 2 << 20, 30, 40)
    ]
