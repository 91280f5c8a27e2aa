"""Images in and out of archives, run straight from where they lie, and on the command line."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from support.archives import archive, directory, file
from support.session import temporary_directory

import containerlib as cl

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from containerlib import Engine, Image

pytestmark = [pytest.mark.root]


@pytest.fixture
def base() -> Iterator[Path]:
    """Give a short directory for archives."""
    with temporary_directory("a") as path:
        yield path


@pytest.fixture
def made(engine: Engine) -> Image:
    """Return an image with a name that can run."""
    return engine.images.from_host(["sh", "cat"], reference="tools:1")


@pytest.fixture
def fresh(engine: Engine) -> Iterator[Engine]:
    """Give an engine with another store."""
    with temporary_directory("f") as path, cl.Engine(path / "r", engine.run_root) as other:
        yield other


def command_line(engine: Engine, *arguments: str, **options: Any) -> subprocess.CompletedProcess[bytes]:
    """Run the command line on the store of `engine`."""
    environment = {**os.environ, "CONTAINERLIB_ROOT": engine.root, "CONTAINERLIB_RUN_ROOT": engine.run_root}
    command = [sys.executable, "-m", "containerlib", *arguments]
    return subprocess.run(command, capture_output=True, check=False, env=environment, **options)


@pytest.mark.parametrize("form", ["docker", "oci", "oci-directory"])
def test_saved_and_loaded(engine: Engine, fresh: Engine, made: Image, base: Path, form: Any) -> None:
    """An image comes back from every form with its name and digest, and runs."""
    engine.images.save("tools:1", base / "out", format=form)
    (loaded,) = fresh.images.load(base / "out")
    assert (loaded.digest, loaded.references) == (made.digest, made.references)
    assert loaded.call(["sh", "-c", "echo works"]).text == "works\n"


def test_streams_and_several_images(engine: Engine, fresh: Engine, made: Image) -> None:
    """Several images go into one stream and come out of it in their order."""
    made.tag("other/name:2")
    second = engine.images.from_tar(io.BytesIO(archive(file(b"x"))), reference="second:1")
    out = io.BytesIO()
    engine.images.save(["second:1", made.id], out)
    out.seek(0)
    first, rest = fresh.images.load(out)
    assert first.digest == second.digest
    assert rest.references == ("docker.io/library/tools:1", "docker.io/other/name:2")


def test_save_refuses_what_it_cannot(engine: Engine, made: Image, base: Path) -> None:
    """An unknown image, form or compression, and a directory that is there, leave nothing."""
    with pytest.raises(cl.ImageNotFound, match="nothing:1"):
        engine.images.save("nothing:1", base / "out")
    with pytest.raises(cl.InvalidOption, match="format"):
        made.save(base / "out", format="zip")  # type: ignore[arg-type]
    with pytest.raises(cl.InvalidOption, match="compression"):
        made.save(base / "out", compression="xz")  # type: ignore[arg-type]
    with pytest.raises(cl.InvalidInputError, match="no image"):
        engine.images.save([], base / "out")
    (base / "there").mkdir()
    with pytest.raises(cl.InvalidInputError, match="exists already"):
        made.save(base / "there", format="oci-directory")
    assert os.listdir(base) == ["there"]


@pytest.mark.parametrize(
    ("form", "transport"), [("docker", "docker-archive"), ("oci", "oci-archive"), ("oci-directory", "oci")]
)
def test_run_straight_from_where_it_lies(
    fresh: Engine, made: Image, base: Path, form: Any, transport: str
) -> None:
    """A name with a transport runs what lies there, loads it once, and gives it no name."""
    made.save(base / "out", format=form)
    name = f"{transport}:{base}/out"
    image = fresh.images.find(name)
    assert image.call(["sh", "-c", "echo works"]).text == "works\n"
    assert (image.digest, image.references) == (made.digest, ())
    before = {entry.name: entry.stat().st_mtime_ns for entry in os.scandir(f"{fresh.root}/blobs/sha256")}
    assert fresh.images.find(name, pull="never") == image
    after = {entry.name: entry.stat().st_mtime_ns for entry in os.scandir(f"{fresh.root}/blobs/sha256")}
    assert before == after
    assert fresh.images.find(f"{name}:tools:1") == image
    with pytest.raises(cl.ImageNotFound, match=r"there are: .*tools:1"):
        fresh.images.find(f"{name}:nope:1")
    fresh.images.remove(image.id)
    assert fresh.images.find(name) == image


def test_a_changed_layout_is_read_again(engine: Engine, fresh: Engine, made: Image, base: Path) -> None:
    """What lies there now counts, not what lay there before; and one of several must be named."""
    made.save(base / "out")
    first = fresh.images.find(f"docker-archive:{base}/out")
    other = engine.images.from_tar(io.BytesIO(archive(file(b"x"))), reference="second:1")
    engine.images.save(["tools:1", "second:1"], base / "out")
    with pytest.raises(cl.InvalidInputError, match=r"2 images .*say which one"):
        fresh.images.find(f"docker-archive:{base}/out")
    assert fresh.images.find(f"docker-archive:{base}/out:second:1").digest == other.digest
    assert fresh.images.find(f"docker-archive:{base}/out:tools:1") == first
    assert fresh.images.list(dangling=False) == []


def test_a_path_without_a_slash(
    fresh: Engine, made: Image, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file of the working directory is found by its name alone; without one it is the name of an image."""
    made.save(base / "out.tar")
    monkeypatch.chdir(base)
    assert fresh.images.find("docker-archive:out.tar").digest == made.digest
    with pytest.raises(cl.ImageNotFound, match="no image is called 'oci:latest'"):
        fresh.images.find("oci:latest", pull="never")


def test_nothing_lies_there(engine: Engine, base: Path) -> None:
    """A missing file, a directory in its place, and a layout that is none are told apart."""
    for name in ("oci:/nowhere/at/all", f"oci:{base}", "oci-archive:/nowhere", "docker-archive:./nowhere"):
        with pytest.raises(cl.ImageNotFound, match="is not"):
            engine.images.find(name)
    with pytest.raises(cl.InvalidInputError, match="oci:"):
        engine.images.find(f"oci-archive:{base}")
    (base / "tar").write_bytes(archive(file(b"x")))
    with pytest.raises(cl.InvalidInputError, match="no archive of images"):
        engine.images.find(f"oci-archive:{base}/tar")
    assert engine.images.list() == []


def test_save_and_load_on_the_command_line(engine: Engine, fresh: Engine, made: Image, base: Path) -> None:
    """`save` writes to a file or standard output, `load` reads from either and says what it has loaded."""
    done = command_line(engine, "save", "-o", f"{base}/out", "tools:1")
    assert (done.returncode, done.stdout) == (0, b""), done.stderr
    loaded = command_line(fresh, "load", "-i", f"{base}/out")
    assert loaded.stdout == b"Loaded image: tools:1\n", loaded.stderr
    piped = command_line(engine, "save", "--compress", "gzip", made.id).stdout
    engine.images.tag("tools:1", "kept:1")
    again = command_line(fresh, "load", "--quiet", input=piped)
    assert again.stdout == b"Loaded image: tools:1\n", again.stderr
    run = command_line(fresh, "run", f"docker-archive:{base}/out", "sh", "-c", "echo straight")
    assert run.stdout == b"straight\n", run.stderr
    for bad in (
        ["save", "--format", "oci-directory", "tools:1"],
        ["load", "-i", "/nowhere"],
        ["save", "no:1"],
    ):
        assert command_line(engine, *bad, input=b"").returncode == 125


def test_import_on_the_command_line(engine: Engine, base: Path) -> None:
    """`import` makes an image of a root file system, with instructions, from a file or standard input."""
    tree = archive(directory(b"etc"), file(b"etc/motd", b"hi"))
    (base / "root.tar").write_bytes(tree)
    changes = ["-c", 'CMD ["/bin/x"]', "--change", "ENV A=1"]
    done = command_line(engine, "import", *changes, "-m", "by hand", f"{base}/root.tar", "mine:1")
    assert done.returncode == 0, done.stderr
    image = engine.images.get("mine:1")
    assert done.stdout.decode().strip() == image.id
    assert image.config.cmd == ("/bin/x",)
    assert "A=1" in image.config.env
    assert image.history()[0].comment == "by hand"
    other = command_line(engine, "import", "--platform", "linux/arm64", "-", input=tree)
    shown = json.loads(command_line(engine, "inspect", other.stdout.decode().strip()).stdout)
    assert (shown[0]["Architecture"], shown[0]["Os"]) == ("arm64", "linux")
    bad = command_line(engine, "import", "-c", "RUN x", "-", input=tree)
    assert (bad.returncode, bad.stdout) == (125, b"")
    assert b"RUN x" in bad.stderr
