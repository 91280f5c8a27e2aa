"""How much room things take, and how it is got back: by name, label and age."""

from __future__ import annotations

import datetime as dt
import io
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from support.archives import archive, file
from support.stock import load_two_layers

import containerlib as cl

if TYPE_CHECKING:
    from containerlib import Engine, Image

pytestmark = [pytest.mark.root]

HOUR = dt.timedelta(hours=1)


def make(engine: Engine, name: str | None, content: bytes, **labels: str) -> Image:
    """Make an image of one file."""
    data = io.BytesIO(archive(file(b"file", content)))
    return engine.images.from_tar(data, reference=name, config=cl.ImageDefaults(labels=labels))


def age(engine: Engine, name: str, hours: float) -> None:
    """Let a name be set so many hours ago."""
    references = engine._session.stores.references
    from containerlib.store.reference import reference_key  # noqa: PLC0415

    then = time.time() - hours * 3600
    os.utime(f"{references.layout.references}/{reference_key(name)}.json", (then, then))


def names(engine: Engine) -> set[str]:
    """Return the short names of all images."""
    return {name.rpartition("/")[2] for image in engine.images.list() for name in image.references or ("",)}


def on_disk(engine: Engine) -> int:
    """Return the size of all blobs and of all files in layers."""
    root = Path(engine.root)
    return sum(
        path.lstat().st_size
        for top in (root / "blobs", root / "snapshots")
        for path in top.rglob("*")
        if path.is_file() and not path.is_symlink() and path.name != "snapshot.json"
    )


def test_usage(engine: Engine) -> None:
    """What two images share is counted once, and the whole is what lies on the disk."""
    one, two = load_two_layers(engine, "a:1", b"one"), load_two_layers(engine, "b:1", b"other")
    usage = engine.disk_usage()
    first, second = usage.images.images
    assert [image.references[0].rpartition("/")[2] for image in (first, second)] == ["a:1", "b:1"]
    assert (first.id, second.id) == (one.id, two.id)
    assert first.shared_bytes == second.shared_bytes > 1 << 17
    assert first.size_bytes == first.shared_bytes + first.unique_bytes
    assert usage.images.size_bytes == first.shared_bytes + first.unique_bytes + second.unique_bytes
    assert usage.images.reclaimable_bytes == usage.images.size_bytes == usage.size_bytes
    assert usage.images.size_bytes == on_disk(engine)
    assert (usage.images.unneeded_bytes, usage.containers, usage.volumes) == (0, (), ())


def test_usage_of_an_empty_store(engine: Engine) -> None:
    """A store that does not exist takes no room."""
    assert engine.disk_usage().size_bytes == 0


def test_usage_of_containers(engine: Engine) -> None:
    """A container has its image in use, and what it has written counts for itself."""
    one, _ = load_two_layers(engine, "a:1", b"one"), load_two_layers(engine, "b:1", b"other")
    made = engine.containers.create(one, ["x"], layer="disk")
    (Path(made.entry.layers.directory or "") / "upper" / "data").write_bytes(bytes(12345))
    usage = engine.disk_usage()
    (container,) = usage.containers
    assert (container.id, container.name, container.size_bytes) == (made.id, made.name, 12345)
    assert usage.containers_bytes == usage.containers_reclaimable_bytes == 12345
    first, second = usage.images.images
    assert (first.containers, first.is_active) == (1, True)
    assert (second.containers, second.is_active) == (0, False)
    assert usage.images.reclaimable_bytes == second.unique_bytes
    other = cl.Engine(engine.root, engine.run_root).disk_usage()
    assert [one.id for one in other.containers] == [made.id]
    assert other.images.images[0].containers == 1


def test_pruning_frees_what_was_said(engine: Engine) -> None:
    """Pruning all images frees what was called reclaimable and what nothing needed."""
    load_two_layers(engine, "a:1", b"one")
    engine._session.stores.content.put(bytes(1000))
    usage = engine.disk_usage()
    assert usage.images.unneeded_bytes == 1000
    assert engine.images.prune().freed_bytes == 1000
    report = engine.images.prune(all=True)
    assert report.freed_bytes == usage.images.reclaimable_bytes
    assert report.untagged == ("docker.io/library/a:1",)
    assert engine.disk_usage().size_bytes == on_disk(engine) == 0
    assert engine.check() == ()


def test_only_images_without_a_name(engine: Engine) -> None:
    """Without `all`, images with a name stay."""
    nameless = make(engine, None, b"1")
    make(engine, "a:1", b"2")
    report = engine.images.prune()
    assert (report.deleted, report.untagged) == ((nameless.id,), ())
    assert names(engine) == {"a:1"}


def test_age(engine: Engine) -> None:
    """Only what was set long enough ago goes; an image is as old as its youngest name."""
    for number, name in enumerate(("old:1", "new:1", "both:1")):
        make(engine, name, b"%d" % number)
        age(engine, f"docker.io/library/{name}", 30)
    age(engine, "docker.io/library/new:1", 1)
    engine.images.tag("both:1", "both:2")
    assert engine.images.prune(all=True, until=48 * HOUR).deleted == ()
    engine.images.prune(all=True, until=24 * HOUR)
    assert names(engine) == {"new:1", "both:1", "both:2"}
    engine.images.prune(all=True, until=dt.datetime.now(dt.UTC) + HOUR)
    assert names(engine) == set()


def test_making_again_makes_young(engine: Engine) -> None:
    """An image that is made or pulled again was used just now."""
    make(engine, "a:1", b"1")
    age(engine, "docker.io/library/a:1", 30)
    make(engine, "a:1", b"1")
    engine.images.prune(all=True, until=24 * HOUR)
    assert names(engine) == {"a:1"}


def test_labels(engine: Engine) -> None:
    """All wanted labels must be there, and no unwanted one."""
    make(engine, "a:1", b"1", team="x", keep="yes")
    make(engine, "b:1", b"2", team="x")
    make(engine, "c:1", b"3", team="y")
    assert engine.images.prune(all=True, labels={"team": "z"}).deleted == ()
    engine.images.prune(all=True, labels={"team": "x"}, without_labels={"keep": None})
    assert names(engine) == {"a:1", "c:1"}
    engine.images.prune(all=True, labels={"team": None, "keep": "yes"})
    assert names(engine) == {"c:1"}


@pytest.mark.parametrize(
    "options", [{"until": dt.timedelta(days=99999)}, {"labels": ["a"]}, {"without_labels": "a=b"}]
)
def test_conditions_that_are_none(engine: Engine, options: dict[str, Any]) -> None:
    """A time before all images, and labels that are no mapping, are refused before anything is removed."""
    make(engine, "a:1", b"1")
    with pytest.raises(cl.InvalidOption):
        engine.images.prune(all=True, **options)
    assert names(engine) == {"a:1"}


def test_images_in_use_stay(engine: Engine) -> None:
    """An image of which there is a container is not pruned, be it by its own engine or by another one."""
    image = make(engine, "a:1", b"1")
    made = engine.containers.create(image, ["x"])
    other = cl.Engine(engine.root, engine.run_root)
    for each in (engine, other):
        assert each.images.prune(all=True).deleted == ()
        assert each.prune(all=True, labels={"no": None}).images.deleted == ()
    made.remove()
    assert engine.images.prune(all=True).deleted == (image.id,)
    assert engine.check() == ()


def test_what_another_engine_ran_goes_when_it_ends(engine: Engine) -> None:
    """An image that is removed while another engine holds it is deleted when that engine is closed."""
    with cl.Engine(engine.root, engine.run_root) as other:
        image = make(engine, "a:1", b"1")
        with other.images.hold("a:1") as held:
            engine.images.remove("a:1")
            assert Path(image.record.lowers[0]).exists()
            assert held.id == image.id
    assert engine.check() == ()
    assert not Path(image.record.lowers[0]).exists()


def test_an_image_that_is_gone(engine: Engine) -> None:
    """A handle of an image that somebody has removed meanwhile says so when it is to run."""
    image = make(engine, "a:1", b"1")
    cl.Engine(engine.root, engine.run_root).images.remove("a:1")
    with pytest.raises(cl.ImageNotFound, match="removed by somebody else"):
        image.call(["x"])


def test_pruning_everything(engine: Engine) -> None:
    """Containers that do not run go first, then their images."""
    image = make(engine, "a:1", b"1")
    made = engine.containers.create(image, ["x"], layer="disk", labels={"team": "x"})
    (Path(made.entry.layers.directory or "") / "upper" / "data").write_bytes(bytes(5000))
    assert engine.prune(labels={"team": "y"}).containers == ()
    assert engine.prune(until=HOUR).containers == ()
    report = engine.prune(all=True)
    assert (report.containers, report.images.deleted) == ((made.id,), (image.id,))
    assert report.freed_bytes == report.images.freed_bytes + 5000
    assert (engine.containers.list(), engine.images.list(), engine.check()) == ([], [], ())
