"""Where saved images go, what goes wrong there, and what is seen of it meanwhile."""

from __future__ import annotations

import io
import json
import os
import pty
import subprocess
import sys
import tarfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from support.session import temporary_directory
from support.stock import load_two_layers

import containerlib as cl
from containerlib.cli.main import run

if TYPE_CHECKING:
    from collections.abc import Iterator

    from containerlib import Engine, Image

pytestmark = [pytest.mark.root]

FORMS = ("docker", "oci", "oci-directory")


@pytest.fixture
def base() -> Iterator[Path]:
    """Give a short directory for archives."""
    with temporary_directory("a") as path:
        yield path


@pytest.fixture
def small(base: Path) -> Iterator[Path]:
    """Give a disk on which no image has room."""
    mount = base / "m"
    mount.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k,nr_inodes=200", "tmpfs", mount], check=True)
    yield mount
    subprocess.run(["umount", mount], check=True)


@pytest.fixture
def image(engine: Engine) -> Image:
    """Return an image of two layers, of some 70 kB."""
    return load_two_layers(engine)


@pytest.fixture
def _command_line(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the command line use the test's store."""
    monkeypatch.setenv("CONTAINERLIB_ROOT", engine.root)
    monkeypatch.setenv("CONTAINERLIB_RUN_ROOT", engine.run_root)


@pytest.mark.parametrize("form", FORMS)
def test_a_full_disk_leaves_nothing(image: Image, small: Path, form: Any) -> None:
    """An archive or directory without room is an error of its own, and no part of it stays."""
    with pytest.raises(cl.StoreFull):
        image.save(small / "out", format=form)
    assert os.listdir(small) == []


def test_what_was_there_stays_if_saving_fails(image: Image, small: Path) -> None:
    """An older archive is replaced by a complete one or not at all."""
    (small / "out").write_bytes(b"older")
    with pytest.raises(cl.StoreFull):
        image.save(small / "out")
    assert (small / "out").read_bytes() == b"older"
    assert os.listdir(small) == ["out"]


def test_a_full_disk_while_compressing(engine: Engine, image: Image, small: Path) -> None:
    """Layers that were made for an archive without room do not stay in the store."""
    before = {path for path in Path(engine.root).rglob("*") if path.parent.name == "sha256"}
    with pytest.raises(cl.StoreFull):
        image.save(small / "out", compression="zstd")
    assert {path for path in Path(engine.root).rglob("*") if path.parent.name == "sha256"} == before


def test_links_and_files_are_replaced(engine: Engine, image: Image, base: Path) -> None:
    """The target of a link is replaced, not the link; a file is replaced, for its owner's eyes only."""
    (base / "target").write_bytes(b"older")
    (base / "link").symlink_to("target")
    image.save(base / "link")
    assert (base / "link").is_symlink()
    assert (base / "target").stat().st_mode & 0o777 == 0o600
    assert engine.images.load(base / "target") == [image]
    assert sorted(os.listdir(base)) == ["link", "target"]


def test_pipes_and_devices_are_written_to(engine: Engine, image: Image, base: Path) -> None:
    """A pipe or device that has the path takes the archive as a stream, and stays what it is."""
    os.mkfifo(base / "pipe")
    os.mknod(base / "null", 0o020666, os.makedev(1, 3))
    image.save(base / "null")
    assert (base / "null").is_char_device()
    writer = threading.Thread(target=image.save, args=(base / "pipe",))
    writer.start()
    assert engine.images.load(base / "pipe") == [image]
    writer.join()
    assert (base / "pipe").is_fifo()


def test_names_in_the_archive(engine: Engine, image: Image) -> None:
    """An image that is given by an id, whole or not, has all its names; by a name, that name only."""
    image.tag("second:1")
    digits = image.id.removeprefix("sha256:")
    both, one = ("docker.io/library/second:1", "docker.io/library/t:1"), ("docker.io/library/second:1",)
    asked = {digits[:12]: both, digits: both, image.id: both, image.digest: both, "second:1": one}
    for name, expected in asked.items():
        out = io.BytesIO()
        engine.images.save(name, out)
        out.seek(0)
        with tarfile.open(fileobj=out) as members:
            manifest = members.extractfile("manifest.json")
            assert manifest is not None
            (entry,) = json.load(manifest)
        assert entry["RepoTags"] == [each.removeprefix("docker.io/library/") for each in expected], name


@pytest.mark.parametrize("form", FORMS)
def test_no_directory_for_it(image: Image, base: Path, form: Any) -> None:
    """A path in no directory, or below a file, is refused, and directories are not made."""
    (base / "file").write_bytes(b"")
    for out in (base / "missing" / "out", base / "file" / "out"):
        with pytest.raises(cl.InvalidInputError, match="is not a directory"):
            image.save(out, format=form)
    assert os.listdir(base) == ["file"]


@pytest.mark.usefixtures("_command_line", "image")
def test_nothing_for_a_terminal(base: Path) -> None:
    """`save` writes no archive to a terminal, and `load` reads none from it."""
    controller, terminal = pty.openpty()
    try:
        for arguments, hint in ((["save", "t:1"], b"--output"), (["load"], b"--input")):
            command = [sys.executable, "-m", "containerlib", *arguments]
            done = subprocess.run(
                command, stdin=terminal, stdout=terminal, stderr=subprocess.PIPE, check=False, cwd=base
            )
            assert done.returncode == 125
            assert hint in done.stderr
    finally:
        os.close(controller)
        os.close(terminal)


@pytest.mark.usefixtures("_command_line")
def test_signals_of_import(base: Path, engine: Engine, capsys: pytest.CaptureFixture[str]) -> None:
    """A stop signal that no host knows is refused before anything is made."""
    (base / "tree.tar").write_bytes(bytes(1024))
    assert run(["import", "-c", "STOPSIGNAL SIGWHAT", f"{base}/tree.tar"]) == 125
    assert "SIGWHAT" in capsys.readouterr().err
    assert engine.images.list() == []
    assert run(["import", "-c", "STOPSIGNAL SIGQUIT", f"{base}/tree.tar", "mine:1"]) == 0
    assert engine.images.get("mine:1").config.stop_signal == "SIGQUIT"


@pytest.mark.usefixtures("_command_line")
def test_load_says_what_has_no_name(
    base: Path, engine: Engine, image: Image, capsys: pytest.CaptureFixture[str]
) -> None:
    """An image without a name is told by its id; what an archive lacks is an error, and nothing changes."""
    nameless = engine.images.from_tar(io.BytesIO(bytes(1024)))
    assert run(["save", "-o", f"{base}/out", nameless.id, image.references[0]]) == 0
    assert run(["load", "-i", f"{base}/out"]) == 0
    assert capsys.readouterr().out == f"Loaded image ID: {nameless.id}\nLoaded image: t:1\n"
    assert run(["load", "-i", f"{base}/out", "--platform", "linux/s390x"]) == 125
    assert "s390x" in capsys.readouterr().err
    (base / "out").write_bytes((base / "out").read_bytes()[:3000])
    assert run(["load", "-i", f"{base}/out"]) == 125
    assert len(engine.images.list()) == 2
