"""Images and archives made of containers."""

from __future__ import annotations

import io
import subprocess
import sys
import tarfile
from typing import TYPE_CHECKING

import pytest
from support.engine import BUSYBOX, busybox_tree

import containerlib as cl

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from containerlib import Container, Engine, Image

pytestmark = [pytest.mark.root, pytest.mark.cgroup]

SCRIPT = "mkdir /new; echo data > /new/file; ln -s file /new/link; rm /etc/passwd; chmod 700 /tmp; echo done"


@pytest.fixture
def box(engine: Engine, tmp_path: Path) -> Iterator[Image]:
    """Return an image with busybox; detached containers that are left at the end are removed."""
    if not BUSYBOX.exists():
        pytest.skip("busybox is not installed")
    busybox_tree(tmp_path / "tree")
    (tmp_path / "tree" / "etc").mkdir(exist_ok=True)
    (tmp_path / "tree" / "etc" / "passwd").write_text("root:x:0:0::/:/bin/sh\n")
    (tmp_path / "tree" / "tmp").mkdir(exist_ok=True)
    yield engine.images.from_directory(tmp_path / "tree", reference="box:1")
    for container in engine.containers.list():
        container.remove(force=True)


def changed_container(engine: Engine, box: Image, **options: object) -> Container:
    """Return a container that has changed its files and ended."""
    container = engine.containers.create(box, ["sh", "-c", SCRIPT], **options)  # type: ignore[arg-type]
    container.start(stdin=cl.DEVNULL, stdout=cl.DEVNULL, stderr=cl.DEVNULL)
    assert container.wait().exit_code == 0
    return container


def test_a_committed_image_is_what_the_container_had(box: Image, engine: Engine) -> None:
    """A container of the new image finds the files, the absence and the modes; the old image is as before."""
    with changed_container(engine, box, env={"A": "b"}, workdir="/tmp", labels={"l": "v"}) as container:
        image = container.commit(
            "made:1", changes=['CMD ["sh", "-c", "cat /new/link; pwd; echo $A"]'], author="me", message="why"
        )
    assert "docker.io/library/made:1" in image.references
    assert image.call().stdout == b"data\n/tmp\nb\n"
    assert image.call(["test", "-e", "/etc/passwd"]).exit_code == 1
    assert image.call(["stat", "-c", "%a", "/tmp"]).text == "700\n"
    assert image.config.labels["l"] == "v"
    assert len(image.layers) == len(box.layers) + 1
    newest = image.history()[0] if image.history()[0].comment else image.history()[-1]
    assert newest.comment == "why"
    assert box.call(["test", "-e", "/new"]).exit_code == 1


def test_nothing_changed_and_no_name(box: Image, engine: Engine) -> None:
    """A container that changed nothing gives an image that runs alike, without a name."""
    with engine.containers.create(box, ["true"]) as container:
        image = container.commit()
    assert image.references == ()
    assert image.call(["cat", "/etc/passwd"]).text.startswith("root:")


def test_a_running_one_is_paused_meanwhile(box: Image) -> None:
    """A container that runs, also a detached one, goes on afterwards."""
    container = box.run(["sh", "-c", "echo x > /here; sleep 60"], lifetime="detached")
    while container.exec(["test", "-e", "/here"]).exit_code:
        assert container.state == "running"
    image = container.commit("made:2")
    assert container.state == "running"
    assert image.call(["cat", "/here"]).text == "x\n"
    container.pause()
    assert container.commit().layers[-1] == image.layers[-1]
    assert container.state == "paused"


def test_export_is_the_whole_root(box: Image, engine: Engine, tmp_path: Path) -> None:
    """The archive has the image's files and the container's, and not what it has removed."""
    with changed_container(engine, box) as container:
        stream = io.BytesIO()
        container.export(stream)
        exported = container.export(tmp_path / "root.tar")
    assert (tmp_path / "root.tar").read_bytes() == stream.getvalue()
    assert exported.size_bytes == len(stream.getvalue())
    with tarfile.open(fileobj=io.BytesIO(stream.getvalue())) as archive:
        names = {name.strip("/") for name in archive.getnames()}
        file = archive.extractfile("new/file")
        assert file is not None
        assert file.read() == b"data\n"
    assert "new/link" in names
    assert "bin/busybox" in names
    assert "etc/passwd" not in names


def test_what_cannot_be_committed(box: Image, engine: Engine) -> None:
    """A layer in memory, a removed container, a wrong name or change: refused, and no image is made."""
    before = len(engine.images.list())
    with engine.containers.create(box, ["true"], layer="memory") as container:
        for verb in (container.commit, lambda: container.export(io.BytesIO())):
            with pytest.raises(cl.InvalidState, match="memory"):
                verb()
    gone = engine.containers.create(box, ["true"])
    with pytest.raises(cl.InvalidReference):
        gone.commit("No Name")
    with pytest.raises(cl.InvalidOption, match="JUMP"):
        gone.commit("made:1", changes=["JUMP high"])
    gone.remove()
    with pytest.raises(cl.InvalidState, match="removed"):
        gone.commit("made:1")
    assert len(engine.images.list()) == before


def test_a_committed_image_moves(box: Image, engine: Engine, tmp_path: Path) -> None:
    """A committed image is saved and loaded like any other."""
    with changed_container(engine, box) as container:
        image = container.commit("made:1")
    engine.images.save(["made:1"], tmp_path / "made.tar")
    engine.images.remove("made:1")
    engine.images.load(tmp_path / "made.tar")
    assert engine.images.get("made:1").id == image.id


def test_the_command_line(
    box: Image, engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`commit` and `export` take detached containers by name."""
    monkeypatch.setenv("CONTAINERLIB_ROOT", engine.root)
    monkeypatch.setenv("CONTAINERLIB_RUN_ROOT", engine.run_root)
    container = changed_container(engine, box, lifetime="detached", name="web")
    program = [sys.executable, "-m", "containerlib"]
    made = subprocess.run(
        [*program, "commit", "-m", "why", "-c", "USER 5", "web", "made:3"],
        capture_output=True,
        text=True,
        check=True,
    )
    image = engine.images.get("made:3")
    assert made.stdout.strip() == image.id
    assert image.call(["id", "-u"]).text == "5\n"
    subprocess.run([*program, "export", "-o", str(tmp_path / "web.tar"), "web"], check=True)
    with tarfile.open(tmp_path / "web.tar") as archive:
        assert "new/file" in {name.strip("/") for name in archive.getnames()}
    container.remove()
