"""The command line of the OCI runtime, without running anything."""

from __future__ import annotations

import json
import signal
from typing import TYPE_CHECKING

import pytest

from containerlib.errors import CommandNotExecutable, CommandNotFound
from containerlib.oci_cli.arguments import parse
from containerlib.oci_cli.errors import OciError, message_of
from containerlib.oci_cli.log import Log
from containerlib.oci_cli.signals import parse_signal

if TYPE_CHECKING:
    from pathlib import Path


def test_flags_of_engines() -> None:
    """As podman's monitor, containerd's shim and docker write them."""
    line = "--root /r --log /l --log-format json create --bundle /b --pid-file /p --console-socket /s"
    found = parse([*line.split(), "--no-pivot", "--preserve-fds", "2", "id1"])
    assert (found.command, found.id, found.bundle) == ("create", "id1", "/b")
    assert (found.root, found.log, found.log_format) == ("/r", "/l", "json")
    assert (found.pid_file, found.console_socket, found.no_pivot, found.preserve_fds) == ("/p", "/s", True, 2)
    found = parse(["kill", "--all", "id1", "9"])
    assert (found.id, found.signal, found.all) == ("id1", "9", True)
    assert parse(["kill", "id1"]).signal == "SIGTERM"
    found = parse(["exec", "--process", "/p", "--detach", "--tty", "id1"])
    assert (found.process, found.detach, found.tty, found.args) == ("/p", True, True, [])
    found = parse(["exec", "-e", "A=B", "-e", "C=D", "id1", "ls", "-l", "--all"])
    assert (found.env, found.args) == (["A=B", "C=D"], ["ls", "-l", "--all"])
    assert parse(["events", "--stats", "--interval", "500ms", "id1"]).interval == 0.5
    assert parse(["delete", "-f", "id1"]).force


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["nothing"],
        ["create"],
        ["create", "--bundel", "/b", "id1"],
        ["create", "--preserve-fds", "many", "id1"],
        ["state", "id1", "id2"],
        ["events", "--interval", "soon", "id1"],
        ["--log-format", "xml", "state", "id1"],
    ],
)
def test_wrong_words(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """They end with status 1 and a message."""
    with pytest.raises(SystemExit) as caught:
        parse(words)
    assert caught.value.code == 1
    assert capsys.readouterr().err.startswith("containerlib-oci")


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    """Containerd reads these lines."""
    with pytest.raises(SystemExit) as caught:
        parse(["--version"])
    assert caught.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("containerlib-oci version ")
    assert lines[2] == "spec: 1.2.0"


@pytest.mark.parametrize(
    ("text", "number"),
    [("9", 9), ("KILL", 9), ("SIGKILL", 9), ("sigterm", 15), ("RTMIN+3", int(signal.SIGRTMIN) + 3)],
)
def test_signals(text: str, number: int) -> None:
    """By name or number."""
    assert parse_signal(text) == number


@pytest.mark.parametrize("text", ["", "0", "65", "NOTHING", "SIG", "-9", "DFL", "_DFL"])
def test_wrong_signals(text: str) -> None:
    """There is no such signal."""
    with pytest.raises(OciError, match="unknown signal"):
        parse_signal(text)


def test_messages() -> None:
    """Engines look for these words, to end with 127 or 126."""
    options = {"step": "exec", "errno": 2}
    missing = CommandNotFound("no", detail="ls", **options)  # type: ignore[arg-type]
    assert message_of(missing) == 'exec: "ls": executable file not found in $PATH'
    missing = CommandNotFound("no", detail="/ls", **options)  # type: ignore[arg-type]
    assert message_of(missing) == 'exec: "/ls": no such file or directory'
    denied = CommandNotExecutable("no", detail="/ls", **options)  # type: ignore[arg-type]
    assert "permission denied" in message_of(denied)
    assert message_of(OSError(2, "No such file or directory", "/x")) == "/x: no such file or directory"


def test_log(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Errors go to both places, warnings to one; debugging only if asked for."""
    path = tmp_path / "log"
    log = Log(str(path), is_json=True)
    log.fail("bad")
    log.warning("odd")
    log.debug("not shown")
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert [(line["level"], line["msg"]) for line in lines] == [("error", "bad"), ("warning", "odd")]
    assert capsys.readouterr().err == "bad\n"
    Log().fail('with "quotes"')
    assert capsys.readouterr().err.endswith('level=error msg="with \\"quotes\\""\n')
