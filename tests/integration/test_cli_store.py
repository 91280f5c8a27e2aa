"""`containerlib system`, `prune` and `image prune` as their users meet them."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.stock import load_two_layers

from containerlib.cli.main import run

if TYPE_CHECKING:
    from containerlib import Engine

pytestmark = pytest.mark.root


@pytest.fixture(autouse=True)
def _store(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the command line use the test's store."""
    monkeypatch.setenv("CONTAINERLIB_ROOT", engine.root)
    monkeypatch.setenv("CONTAINERLIB_RUN_ROOT", engine.run_root)


def images(engine: Engine) -> int:
    """Return how many images there are."""
    return len(engine.images.list())


def test_df(engine: Engine, capsys: pytest.CaptureFixture[str]) -> None:
    """The table has Docker's columns, the numbers are those of the library, and -v shows each image."""
    load_two_layers(engine, "a:1", b"one")
    assert run(["system", "df"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["TYPE", "TOTAL", "ACTIVE", "SIZE", "RECLAIMABLE"]
    assert lines[1].split()[:3] == ["Images", "1", "0"]
    assert lines[1].endswith("(100%)")
    assert [line.split()[0] for line in lines[2:]] == ["Containers", "Local", "Leftovers"]
    assert run(["system", "df", "-v"]) == 0
    assert "UNIQUE SIZE" in capsys.readouterr().out
    assert run(["system", "df", "-v", "--format", "json"]) == 0
    documents = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert documents[0]["size_bytes"] == engine.disk_usage().images.size_bytes
    assert documents[0]["images"][0]["references"] == ["docker.io/library/a:1"]


def test_check(engine: Engine, capsys: pytest.CaptureFixture[str]) -> None:
    """What is found is printed and makes the exit code 1; repairing makes it 0 again."""
    image = load_two_layers(engine, "a:1", b"one")
    assert run(["system", "check", "--deep"]) == 0
    assert capsys.readouterr() == ("", "containerlib: the store is in order\n")
    os.unlink(f"{Path(image.record.lowers[0]).parent}/snapshot.json")
    assert run(["system", "check"]) == 1
    assert "found: snapshot-record: " in capsys.readouterr().out
    assert run(["system", "check", "--format", "json"]) == 1
    (document,) = map(json.loads, capsys.readouterr().out.splitlines())
    assert (document["kind"], document["images"]) == ("snapshot-record", ["docker.io/library/a:1"])
    assert run(["system", "check", "--repair"]) == 0
    assert "mended: snapshot-record: " in capsys.readouterr().out
    assert run(["system", "check", "--forget"]) == 125


def test_check_says_what_to_pull(engine: Engine, capsys: pytest.CaptureFixture[str]) -> None:
    """What only pulling mends is said by name, and can be given up."""
    image = load_two_layers(engine, "a:1", b"one")
    os.unlink(engine._session.stores.layout.blob(image.layers[0].digest))
    assert run(["system", "check", "--repair"]) == 1
    assert "pull or make again: docker.io/library/a:1" in capsys.readouterr().err
    assert run(["system", "check", "--repair", "--forget"]) == 0
    assert images(engine) == 0


@pytest.mark.parametrize("command", [["image", "prune"], ["prune"], ["system", "prune"]])
def test_nobody_to_ask(engine: Engine, command: list[str]) -> None:
    """Without a terminal and without --force nothing is removed."""
    load_two_layers(engine, "a:1", b"one")
    arguments = [sys.executable, "-m", "containerlib", *command, "--all"]
    done = subprocess.run(arguments, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert done.returncode == 125
    assert "--force" in done.stderr
    assert images(engine) == 1


def test_prune(engine: Engine, capsys: pytest.CaptureFixture[str]) -> None:
    """With --force and --all every image goes, in Docker's words."""
    image = load_two_layers(engine, "a:1", b"one")
    assert run(["image", "prune", "--force"]) == 0
    assert capsys.readouterr().out == "Total reclaimed space: 0B\n"
    assert run(["image", "prune", "-f", "-a", "--filter", "until=24h"]) == 0
    assert run(["image", "prune", "-f", "-a", "--filter", "label=x"]) == 0
    assert images(engine) == 1
    capsys.readouterr()
    assert run(["image", "prune", "-f", "--filter", "dangling=false", "--filter", "label!=x"]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"Deleted Images:\nuntagged: a:1\ndeleted: {image.id}\n\nTotal reclaimed space: ")
    assert images(engine) == 0


def test_prune_everything(engine: Engine, capsys: pytest.CaptureFixture[str]) -> None:
    """Detached containers that do not run go, and then their images."""
    image = load_two_layers(engine, "a:1", b"one")
    made = engine.containers.create(image, ["x"], lifetime="detached")
    engine.close()
    assert run(["system", "prune", "--all", "--force"]) == 0
    out = capsys.readouterr().out
    assert f"Deleted Containers:\n{made.id}\n" in out
    assert f"deleted: {image.id}" in out


@pytest.mark.parametrize(
    "filters",
    [
        ["until=yesterday"],
        ["until=24h", "until=1h"],
        ["until=9999999999999h"],
        ["unknown=1"],
        ["until!=24h"],
        ["label"],
        ["dangling=maybe"],
    ],
)
def test_bad_filters(engine: Engine, filters: list[str]) -> None:
    """A filter that is none is refused before anything is removed."""
    load_two_layers(engine, "a:1", b"one")
    arguments = [word for one in filters for word in ("--filter", one)]
    assert run(["image", "prune", "-a", "-f", *arguments]) == 125
    assert images(engine) == 1


@pytest.mark.parametrize(("answer", "left", "code"), [(b"n\n", 1, 1), (b"y\n", 0, 0)])
def test_asking(engine: Engine, answer: bytes, left: int, code: int) -> None:
    """On a terminal it is asked, and what is answered decides."""
    load_two_layers(engine, "a:1", b"one")
    master, slave = pty.openpty()
    os.write(master, answer)
    with subprocess.Popen(
        [sys.executable, "-m", "containerlib", "image", "prune", "-a"],
        stdin=slave,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        error = process.communicate()[1]
    os.close(master)
    os.close(slave)
    assert b"WARNING! This will remove:" in error
    assert (process.returncode, images(engine)) == (code, left)
