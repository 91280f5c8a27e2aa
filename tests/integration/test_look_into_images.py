"""Looking into images of a store: history, inspect, changes, export, lists; dates from the environment."""

from __future__ import annotations

import hashlib
import io
import json
import os
import stat
import subprocess
import tarfile
from typing import TYPE_CHECKING, Any

import pytest
from support.archives import archive, directory, file, symlink
from support.engine import new_engine
from support.oci_layout import OciLayout
from support.session import temporary_directory, tracked_root
from support.trees import applied, tree

import containerlib as cl
from containerlib.image.archive_load import load
from containerlib.layer.tar_reader import TarReader

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from containerlib import Engine, Image

pytestmark = pytest.mark.root

BASE = archive(
    directory(b"./", mode=0o755),
    directory(b"etc", mtime=10),
    file(b"etc/a", b"a" * 1000, mtime=10),
    file(b"etc/b", b"b", mtime=5000),
    directory(b"gone"),
    file(b"gone/x", b"x"),
    symlink(b"link", b"/etc/a"),
)
UPPER = archive(
    directory(b"etc", mtime=10), file(b"etc/a", b"new", mtime=20), file(b".wh.gone", b""), file(b"top", b"tt")
)
HISTORY = [
    {"created": "2024-01-01T00:00:00Z", "created_by": "/bin/sh -c #(nop) ADD file:1 in /", "comment": "c1"},
    {"created": "2024-01-02T00:00:00Z", "created_by": 'CMD ["x"]', "empty_layer": True, "author": "ann"},
    {"created": "2024-01-03T00:00:00.5Z", "created_by": "RUN make\t-j\x1b[31m " + "x" * 60, "comment": "c3"},
]


@pytest.fixture
def layout() -> Iterator[OciLayout]:
    """Give a layout to make images in."""
    with temporary_directory("o") as path:
        yield OciLayout(path / "layout")


def loaded(engine: Engine, layout: OciLayout, tag: str, *layers: bytes, **document: Any) -> Image:
    """Make an image with this configuration document, and load it under `tag`."""
    layout.name(layout.add_image(list(layers), **document), tag)
    load(engine.images._session.stores, str(layout.path))
    return engine.images.get(tag)


def exported(image: Image) -> bytes:
    """Return the flat archive of an image."""
    out = io.BytesIO()
    result = image.export(out)
    assert result.digest == f"sha256:{hashlib.sha256(out.getvalue()).hexdigest()}"
    assert result.size_bytes == len(out.getvalue())
    return out.getvalue()


def test_history_is_matched_with_layers(engine: Engine, layout: OciLayout) -> None:
    """Entries that are not empty take the layers in their order; the newest is first."""
    image = loaded(engine, layout, "box:1", BASE, UPPER, history=HISTORY)
    newest, middle, oldest = image.history()
    assert [entry.digest for entry in (newest, middle, oldest)] == [
        *(image.layers[1].digest, None, image.layers[0].digest)
    ]
    assert [entry.size_bytes for entry in (newest, middle, oldest)] == [5, 0, 1002]
    assert (middle.empty_layer, middle.author, oldest.comment) == (True, "ann", "c1")
    assert newest.created is not None
    assert newest.created.isoformat() == "2024-01-03T00:00:00.500000+00:00"
    assert json.loads(json.dumps(newest.to_json()))["created"] == "2024-01-03T00:00:00.500000Z"


def test_history_that_does_not_fit(engine: Engine, layout: OciLayout) -> None:
    """Layers without an entry get one; entries without a layer are an error."""
    image = loaded(engine, layout, "less:1", BASE, UPPER, history=HISTORY[:2])
    assert [(entry.created_by[:3], entry.size_bytes) for entry in image.history()] == [
        *(("", 5), ("CMD", 0), ("/bi", 1002))
    ]
    assert [entry.size_bytes for entry in loaded(engine, layout, "no:1", BASE).history()] == [1002]
    image = loaded(engine, layout, "more:1", BASE, history=HISTORY)
    with pytest.raises(cl.InvalidManifest, match="2 layers, but it has 1"):
        image.history()


def test_inspect(engine: Engine, layout: OciLayout) -> None:
    """Everything of the configuration is there, and the size is that of the files."""
    config = {"Env": ["A=b"], "Labels": {"x": "y"}, "Hostname": "kept", "Volumes": {"/data": {}}}
    image = loaded(
        engine,
        layout,
        "team/box:1",
        BASE,
        UPPER,
        config=config,
        history=HISTORY,
        created="2024-01-03T00:00:00.123456789Z",
        author="bob",
        variant="v3",
    )
    image.tag("localhost:5000/box:2")
    found = engine.images.get(image.id).inspect()
    assert found.repo_tags == ("team/box:1", "localhost:5000/box:2")
    document = found.to_json()
    assert json.loads(json.dumps(document)) == document
    assert document["Id"] == image.id
    assert document["RepoDigests"] == [f"localhost:5000/box@{image.digest}", f"team/box@{image.digest}"]
    assert (document["Created"], document["Author"], document["Comment"]) == (
        "2024-01-03T00:00:00.123456789Z",
        "bob",
        "c3",
    )
    assert (document["Os"], document["Architecture"], document["Variant"]) == ("linux", "amd64", "v3")
    assert document["Size"] == 1007
    assert document["RootFS"] == {
        "Type": "layers",
        "Layers": [f"sha256:{hashlib.sha256(layer).hexdigest()}" for layer in (BASE, UPPER)],
    }
    assert document["Config"] == {
        **config,
        **dict.fromkeys(("Cmd", "Entrypoint", "OnBuild")),
        **dict.fromkeys(("User", "WorkingDir"), ""),
    }
    assert "GraphDriver" not in document


def test_changes(engine: Engine, layout: OciLayout) -> None:
    """Images that share a layer, and those that share nothing but content, are compared by what they show."""
    lower = loaded(engine, layout, "lower:1", BASE)
    upper = loaded(engine, layout, "upper:1", BASE, UPPER)
    expected = [
        *(("modified", "/etc/a"), ("deleted", "/gone"), ("deleted", "/gone/x"), ("added", "/top")),
    ]
    assert [(each.kind, each.path) for each in upper.changes(lower)] == expected
    flat = engine.images.from_tar(io.BytesIO(exported(lower)))
    assert flat.layers != lower.layers
    assert flat.changes(lower) == []
    assert [(each.kind, each.path) for each in upper.changes(flat)] == expected


def test_changes_need_both_images_here(engine: Engine, layout: OciLayout) -> None:
    """An image of another store is refused, and one that was removed meanwhile is not found."""
    here = loaded(engine, layout, "here:1", BASE)
    gone = loaded(engine, layout, "gone:1", BASE, UPPER)
    with (
        temporary_directory("e") as base,
        tracked_root(base / "n"),
        new_engine(base / "r", base / "n") as other,
    ):
        there = loaded(other, layout, "there:1", BASE)
        with pytest.raises(cl.InvalidOption, match="not in the store"):
            here.changes(there)
    gone.remove()
    with pytest.raises(cl.ImageNotFound, match="removed meanwhile"):
        here.changes(gone)
    with pytest.raises(cl.ImageNotFound, match="removed meanwhile"):
        gone.export(io.BytesIO())


def test_export_is_the_merged_tree(engine: Engine, layout: OciLayout, tmp_path: Path) -> None:
    """The archive holds what a container sees, without whiteouts, and imported again it is the same."""
    image = loaded(engine, layout, "box:1", BASE, UPPER)
    data = exported(image)
    assert data == exported(image)
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        assert tar.getnames() == ["etc", "etc/a", "etc/b", "link", "top"]
    assert tree(applied(data, tmp_path / "tree"))["etc/a"] == tree(applied(UPPER, tmp_path / "u"))["etc/a"]
    assert exported(engine.images.from_tar(io.BytesIO(data))) == data


def test_export_to_places(engine: Engine, layout: OciLayout, tmp_path: Path) -> None:
    """A file is replaced when the archive is complete; pipes, devices and raw streams take it, too."""
    image = loaded(engine, layout, "box:1", BASE)
    target = tmp_path / "out.tar"
    target.write_bytes(b"old")
    (tmp_path / "link").symlink_to("out.tar")
    image.export(tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert target.read_bytes() == exported(image)
    image.export("/dev/null")
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)
    reader, writer = os.pipe()
    with open(reader, "rb") as source, open(writer, "wb", buffering=0) as raw:
        image.export(raw)
        assert not raw.closed
        raw.close()
        assert source.read() == exported(image)
    with pytest.raises(OSError, match="No space left"):
        image.export("/dev/full")
    for bad in (tmp_path, tmp_path / "missing" / "x"):
        with pytest.raises(cl.InvalidInputError):
            image.export(bad)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "out.tar"]


def test_image_without_layers(engine: Engine, layout: OciLayout) -> None:
    """An image of nothing has no history, no changes and an empty archive."""
    image = loaded(engine, layout, "empty:1")
    assert image.history() == ()
    assert exported(image) == bytes(1024)
    other = loaded(engine, layout, "other:1", BASE)
    assert {change.kind for change in other.changes(image)} == {"added"}
    assert image.inspect().size_bytes == 0


def test_lists(engine: Engine, layout: OciLayout) -> None:
    """Images are chosen by pattern, name, label and age, and all conditions hold for those listed."""
    old = loaded(engine, layout, "team/old:1", BASE, created="2024-01-01T00:00:00Z")
    new = loaded(
        engine,
        layout,
        "team/new:2",
        UPPER,
        created="2024-01-02T00:00:00Z",
        config={"Labels": {"a": "1", "b": ""}},
    )
    undated = loaded(engine, layout, "solo:1", BASE, UPPER)
    new.tag("alone:2")
    old.tag("team/new:1")
    loaded(engine, layout, "team/old:1", BASE + bytes(512))  # takes the name, but `old` keeps another
    engine.images._session.stores.references.remove("docker.io/team/new:1")
    images = engine.images

    def listed(**conditions: Any) -> list[str]:
        return [image.digest for image in images.list(**conditions)]

    assert listed(reference="team/*") == sorted(listed(reference="team/*"), key=listed().index)
    assert new.digest in listed(reference="team/*:2")
    assert [image.references for image in images.list(reference=["team/new", "none"])] == [
        ("docker.io/team/new:2",)
    ]
    assert listed(reference="*") == [image.digest for image in images.list(reference=["solo", "alone:?"])]
    assert listed(labels={"a": None}) == listed(labels={"a": "1"}) == [new.digest]
    assert listed(labels={"a": "2"}) == listed(labels={"a": None, "c": None}) == []
    assert listed(labels={"b": ""}) == [new.digest]
    assert old.digest in listed(dangling=True)
    assert undated.digest in listed(before="team/new:2")
    assert listed(since="solo:1") == [new.digest, old.digest]
    assert listed(since=old.id) == [new.digest]
    assert listed(before=old.id, dangling=True) == []
    assert len(listed(dangling=False)) + len(listed(dangling=True)) == len(listed())
    with pytest.raises(cl.ImageNotFound):
        images.list(before="nosuch")
    with pytest.raises(cl.InvalidOption, match="pattern"):
        images.list(reference="[")


def test_dates_come_from_the_environment(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With SOURCE_DATE_EPOCH images have that date, no file is younger, the same input is the same image."""
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "file").write_bytes(b"x")
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1000")
    images = [
        engine.images.from_directory(tmp_path / "tree"),
        engine.images.from_tar(io.BytesIO(BASE)),
        engine.images.from_host(["true"]),
    ]
    for image in images:
        assert image.created is not None
        assert image.created.timestamp() == 1000
        assert [entry.created for entry in image.history()] == [image.created]
        times = {entry.mtime_ns // 10**9 for entry in TarReader(io.BytesIO(exported(image)))}
        assert max(times) <= 1000
    os.utime(tmp_path / "tree" / "file", (9, 9))
    assert engine.images.from_directory(tmp_path / "tree") == images[0]
    assert engine.images.from_tar(io.BytesIO(BASE + bytes(4096))) == images[1]
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "5")
    assert {entry.mtime_ns // 10**9 for entry in TarReader(io.BytesIO(exported(images[1])))} <= {0, 5}
    monkeypatch.delenv("SOURCE_DATE_EPOCH")
    assert engine.images.from_directory(tmp_path / "tree").created is None
    assert engine.images.from_tar(io.BytesIO(BASE)) != images[1]


@pytest.mark.parametrize("value", ["tomorrow", "-1", "1.5", "1e3", " 5", "99999999999", "٣"])
def test_dates_that_are_none(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    """What is no number of seconds is refused before anything is made."""
    image = engine.images.from_directory(tmp_path)
    monkeypatch.setenv("SOURCE_DATE_EPOCH", value)
    for make in (
        lambda: engine.images.from_directory(tmp_path),
        lambda: engine.images.from_host(["true"]),
        lambda: engine.images.from_tar(io.BytesIO(BASE)),
        lambda: image.export(tmp_path / "out"),
    ):
        with pytest.raises(cl.InvalidOption, match="SOURCE_DATE_EPOCH"):
            make()
    assert not list(tmp_path.iterdir())


def command(engine: Engine, *args: str, code: int = 0) -> tuple[str, str]:
    """Run the command line on the engine's store, and return what it printed."""
    environment = {**os.environ, "CONTAINERLIB_ROOT": engine.root, "CONTAINERLIB_RUN_ROOT": engine.run_root}
    done = subprocess.run(
        ["containerlib", *args], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == code, done.stderr
    return done.stdout, done.stderr


def test_history_command(engine: Engine, layout: OciLayout) -> None:
    """The table is Docker's: ids of the first row only, commands cut short unless told otherwise."""
    image = loaded(engine, layout, "box:1", BASE, UPPER, history=HISTORY)
    header, first, second, third = command(engine, "history", "box:1")[0].splitlines()
    assert header.split() == ["IMAGE", "CREATED", "CREATED", "BY", "SIZE", "COMMENT"]
    assert first.startswith(image.id[7:19])
    assert "RUN make -j?[31m xxxxxxxxxxxxxxxxxxxxxxxxxxx…" in first
    assert second.startswith("<missing>")
    assert "1kB" in third
    assert third.endswith("c1")
    assert "x" * 60 in command(engine, "image", "history", "--no-trunc", "box:1")[0]
    assert command(engine, "history", "-q", "box:1")[0] == f"{image.id[7:19]}\n<missing>\n<missing>\n"
    lines = command(engine, "history", "--format", "json", "box:1")[0].splitlines()
    assert [json.loads(line)["comment"] for line in lines] == ["c3", "", "c1"]


def test_inspect_command(engine: Engine, layout: OciLayout) -> None:
    """What is found is printed as one array, what is not is an error, and the exit code is 1."""
    image = loaded(engine, layout, "box:1", BASE)
    out, err = command(engine, "inspect", "box:1", "nosuch", image.id[7:19], "BAD", code=1)
    assert [each["Id"] for each in json.loads(out)] == [image.id] * 2
    assert ["nosuch" in err, "BAD" in err] == [True, True]
    assert json.loads(command(engine, "image", "inspect", "-f", "json", "box:1")[0])[0]["Id"] == image.id
    assert command(engine, "inspect", "nosuch", code=1)[0] == "[]\n"
    assert "json" in command(engine, "inspect", "--format", "{{.Id}}", "box:1", code=125)[1]


def test_export_command(engine: Engine, layout: OciLayout, tmp_path: Path) -> None:
    """The archive goes to a file or to standard output, and an unknown image leaves no file."""
    image = loaded(engine, layout, "box:1", BASE)
    command(engine, "export", "box:1", "-o", str(tmp_path / "out.tar"))
    assert (tmp_path / "out.tar").read_bytes() == exported(image)
    command(engine, "export", "nosuch", "-o", str(tmp_path / "none.tar"), code=125)
    assert not (tmp_path / "none.tar").exists()


def test_images_command(engine: Engine, layout: OciLayout) -> None:
    """Docker's columns and options: age, digests, whole ids, filters, and a name to match."""
    image = loaded(engine, layout, "team/box:1", BASE, created="2024-01-01T00:00:00Z")
    loaded(engine, layout, "solo:1", BASE, UPPER)
    header, *rows = command(engine, "images", "-a")[0].splitlines()
    assert header.split() == ["REPOSITORY", "TAG", "IMAGE", "ID", "CREATED", "SIZE"]
    assert " years ago" in next(row for row in rows if row.startswith("team/box"))
    assert " N/A " in next(row for row in rows if row.startswith("solo"))
    out = command(engine, "image", "ls", "--digests", "--no-trunc", "team/*")[0]
    assert image.digest in out
    assert image.id in out
    assert "solo" not in out
    assert (
        command(engine, "images", "-q", "--no-trunc", "--filter", "reference=team/box")[0] == f"{image.id}\n"
    )
    assert command(engine, "images", "-q", "-f", "since=solo:1")[0] == f"{image.id[7:19]}\n"
    assert "reference, dangling, label" in command(engine, "images", "-f", "size=1", code=125)[1]
    assert "team/box" in command(engine, "image", "rm", "team/box:1")[0]
