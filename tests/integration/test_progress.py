"""What a transfer shows of itself on the command line: on a terminal, in a pipe, as JSON, not at all."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
import termios
import threading
from typing import TYPE_CHECKING

import attrs
import pytest
from support.archives import archive, file
from support.fault_registry import FaultRegistry
from support.session import temporary_directory, tracked_root

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

pytestmark = [pytest.mark.root]

WITHOUT_RICH = (
    "import sys; sys.modules['rich'] = None; from containerlib.cli.main import main; sys.exit(main())"
)


@pytest.fixture
def registry() -> Iterator[FaultRegistry]:
    """Return a registry with an image of two layers."""
    with FaultRegistry() as running:
        running.add_image([archive(file(b"a", bytes(3_000_000))), archive(file(b"b", b"b"))], "1")
        yield running


@pytest.fixture
def environment() -> Iterator[Mapping[str, str]]:
    """Return an environment with an empty store of its own."""
    with temporary_directory("p") as base, tracked_root(base / "n"):
        roots = {"CONTAINERLIB_ROOT": str(base / "r"), "CONTAINERLIB_RUN_ROOT": str(base / "n")}
        yield {**os.environ, **roots, "TERM": "xterm"}


def run(environment: Mapping[str, str], *args: str) -> subprocess.CompletedProcess[str]:
    """Run the command line in pipes."""
    command = [sys.executable, "-m", "containerlib", *args]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def on_terminal(environment: Mapping[str, str], *command: str) -> tuple[int, str, str]:
    """Run a command with standard error on a terminal; return exit code, output and what the terminal got."""
    master, slave = pty.openpty()
    termios.tcsetwinsize(slave, (40, 120))
    seen = bytearray()

    def watch() -> None:
        while True:
            try:
                data = os.read(master, 1 << 16)
            except OSError:  # the last one has closed it
                return
            seen.extend(data)

    process = subprocess.Popen(
        [sys.executable, *command], env=environment, stdout=subprocess.PIPE, stderr=slave, text=True
    )
    os.close(slave)
    watcher = threading.Thread(target=watch)
    watcher.start()
    output, _ = process.communicate()
    watcher.join()
    os.close(master)
    return process.returncode, output, re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", seen.decode())


def test_bars_on_a_terminal(registry: FaultRegistry, environment: Mapping[str, str]) -> None:
    """On a terminal there is a bar for each layer, with bytes and state, and one for all of them."""
    code, output, seen = on_terminal(environment, "-m", "containerlib", "pull", registry.name)
    assert (code, output) == (0, f"{registry.name}\n"), seen
    layers = [layer["digest"][7:19] for layer in json.loads(registry.manifests["1"][1])["layers"]]
    last = [next(line for line in reversed(seen.splitlines()) if name in line) for name in (*layers, "Total")]
    for line in last[:2]:
        assert "Pull complete" in line
        assert "━" in line
    assert "2 of 2" in last[2]
    assert re.search(r"3\.0/3\.0 MB", last[2])
    assert "Digest: sha256:" in seen


def test_bars_of_a_push(registry: FaultRegistry, environment: Mapping[str, str]) -> None:
    """A push shows what it uploads, and of another tag that everything is there."""
    run(environment, "pull", "-q", registry.name)
    registry.blobs.clear()
    code, output, seen = on_terminal(environment, "-m", "containerlib", "push", registry.name)
    assert (code, output) == (0, f"{registry.name}\n"), seen
    assert "Pushed" in seen
    assert "3 of 3" in seen
    code, _, seen = on_terminal(environment, "-m", "containerlib", "push", registry.name)
    assert (code, "Pushed" in seen, "Already exists" in seen) == (0, False, True)


@pytest.mark.parametrize("how", ["without rich", "dumb terminal"])
def test_lines_where_no_bars_can_be(
    registry: FaultRegistry, environment: Mapping[str, str], how: str
) -> None:
    """Without the package that draws, and on a terminal that cannot, there are plain lines."""
    if how == "without rich":
        code, output, seen = on_terminal(environment, "-c", WITHOUT_RICH, "pull", registry.name)
    else:
        dumb = {**environment, "TERM": "dumb"}
        code, output, seen = on_terminal(dumb, "-m", "containerlib", "pull", registry.name)
    assert (code, output) == (0, f"{registry.name}\n"), seen
    assert seen.count(": Pull complete\r\n") == 2
    assert "━" not in seen


def test_lines_in_a_pipe(registry: FaultRegistry, environment: Mapping[str, str]) -> None:
    """Without a terminal there is a line for each step on standard error, and the name alone as output."""
    done = run(environment, "pull", registry.name)
    assert (done.returncode, done.stdout) == (0, f"{registry.name}\n")
    lines = done.stderr.splitlines()
    assert sorted(line.partition(": ")[2] for line in lines[:-1]) == ["Pull complete"] * 2 + ["Unpacking"] * 2
    assert lines[-1].startswith("Digest: sha256:")
    assert "\x1b" not in done.stderr


def test_quiet(registry: FaultRegistry, environment: Mapping[str, str]) -> None:
    """With --quiet there is the name and nothing else, on a terminal too."""
    done = run(environment, "pull", "--quiet", registry.name)
    assert (done.stdout, done.stderr) == (f"{registry.name}\n", "")
    assert on_terminal(environment, "-m", "containerlib", "pull", "-q", registry.name)[1:] == (
        done.stdout,
        "",
    )


def test_json(registry: FaultRegistry, environment: Mapping[str, str]) -> None:
    """With --format json each line of the output is an object: the steps, and the result at the end."""
    done = run(environment, "pull", "--format", "json", registry.name)
    assert (done.returncode, done.stderr) == (0, "")
    *events, result = map(json.loads, done.stdout.splitlines())
    assert result["reference"] == registry.name
    assert {event["phase"] for event in events} == {"waiting", "downloading", "unpacking", "done"}
    assert all(event.keys() == {"digest", "phase", "current_bytes", "total_bytes"} for event in events)
    layer = json.loads(registry.manifests["1"][1])["layers"][0]
    come = [event["current_bytes"] for event in events if event["digest"] == layer["digest"]]
    assert max(come) == layer["size"]
    registry.blobs.clear()
    done = run(environment, "push", "--format", "json", registry.name)
    *events, pushed = map(json.loads, done.stdout.splitlines())
    assert pushed == {"reference": registry.name, "digest": result["digest"]}
    assert {event["phase"] for event in events} == {"uploading", "done"}


def test_failure_leaves_the_terminal_in_order(
    registry: FaultRegistry, environment: Mapping[str, str]
) -> None:
    """When a pull fails under its bars, the cursor comes back, and the message stands below."""
    config = json.loads(registry.manifests["1"][1])["config"]["digest"]
    others = f"GET /v2/x/blobs/(?!{config})"
    registry.fault(others, lambda _, reply: attrs.evolve(reply, body=bytes(len(reply.body))))
    code, output, seen = on_terminal(environment, "-m", "containerlib", "pull", registry.name)
    assert (code, output) == (125, "")
    assert seen.rstrip().splitlines()[-1].startswith("containerlib: ")


def test_run_shows_what_it_pulls(registry: FaultRegistry, environment: Mapping[str, str]) -> None:
    """An image that is pulled to be run has its bars on a terminal, and is silent in a pipe."""
    code, _, seen = on_terminal(environment, "-m", "containerlib", "run", registry.name, "/nothing")
    assert code == 127
    assert "Pull complete" in seen
    registry.add_image([archive(file(b"other", b"x"))], "2")
    done = run(environment, "run", f"{registry.host}/x:2", "/nothing")
    assert done.returncode == 127
    assert "Pull complete" not in done.stderr
