"""Damage of every kind is found, mended or named, and never used."""

from __future__ import annotations

import io
import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.archives import archive, directory, file, link, member, pax, symlink
from support.capabilities import need
from support.docker_registry import docker_registry
from support.session import temporary_directory
from support.stock import BIG, NAME, Stock, load_two_layers, take_stock

import containerlib as cl
from containerlib._util import file_lock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from support.docker_registry import DockerRegistry

    from containerlib import Engine

pytestmark = [pytest.mark.root]


@pytest.fixture
def stock(engine: Engine) -> Stock:
    """Return a store with one image."""
    return take_stock(engine)


def test_nothing_is_wrong(stock: Stock) -> None:
    """A store that nobody has damaged has no findings, and looking at it changes nothing."""
    before = sorted(str(path) for path in stock.root.rglob("*"))
    assert stock.check() == stock.check(deep=True) == []
    assert sorted(str(path) for path in stock.root.rglob("*") if path.parent.name != "locks") == [
        path for path in before if "/locks/" not in path
    ]
    assert stock.engine.repair() == cl.RepairReport()


def test_layers_of_every_kind_of_entry(engine: Engine) -> None:
    """A deep check takes nothing for damage that a layer may hold, and finds a change of each of it."""
    capability = b"\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0"
    layer = archive(
        directory(b"d", mode=0o1777),
        file(b"d/one", b"x" * 5000, mtime=12345, uid=7, gid=8, mode=0o4755),
        link(b"d/two", b"d/one"),
        symlink(b"d/three", b"/nowhere"),
        member(b"d/fifo", b"6"),
        pax((b"SCHILY.xattr.security.capability", capability)),
        file(b"ping", b"ping", mode=0o755),
        file(b"d/.wh..wh..opq", b""),
        file(b".wh.gone", b""),
        directory(b"implicit/without/header"),
    )
    image = engine.images.from_tar(io.BytesIO(layer), reference="every:1")
    engine.images.from_host(["sh", "cat"])
    assert engine.check(deep=True) == ()
    root = Path(image.record.lowers[0])
    changes: list[Callable[[], object]] = [
        lambda: os.utime(root / "d/one", (1, 1)),
        lambda: os.unlink(root / "d/two"),
        lambda: os.removexattr(root / "ping", "security.capability"),
        lambda: os.unlink(root / "gone"),
        lambda: os.removexattr(root / "d", "trusted.overlay.opaque"),
        lambda: (os.unlink(root / "d/fifo"), (root / "d/fifo").write_bytes(b"")),
        lambda: (os.unlink(root / "d/two"), shutil.copy2(root / "d/one", root / "d/two")),
    ]
    for change in changes:
        change()
        assert [found.kind for found in engine.check(deep=True)] == ["snapshot-content"]
        assert engine.repair(deep=True).left == ()
        assert engine.check(deep=True) == ()


def test_an_empty_store(engine: Engine) -> None:
    """A store that does not exist yet is in order, and is not made by looking at it."""
    assert engine.check(deep=True) == ()
    assert engine.repair() == cl.RepairReport()
    assert not os.path.exists(engine.root)


def flip(path: Path) -> None:
    """Change one bit in the middle of a file and nothing else about it."""
    info, data = path.stat(), bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns))


def replace_by_directory(path: Path) -> None:
    """Put a directory with a file in it where a file was."""
    path.unlink()
    path.mkdir()
    (path / "x").write_bytes(b"x")


def replace_by_link(path: Path, target: str = "/etc/passwd") -> None:
    """Put a symbolic link to the host where something was."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()
    path.symlink_to(target)


def edit(path: Path, **fields: object) -> None:
    """Set fields of a JSON document."""
    path.write_text(json.dumps({**json.loads(path.read_bytes()), **fields}), encoding="ascii")


BLOB_DAMAGE: dict[str, Callable[[Path], object]] = {
    "bit flip": flip,
    "truncated": lambda path: os.truncate(path, path.stat().st_size - 1),
    "emptied": lambda path: os.truncate(path, 0),
    "zeroed": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "extended": lambda path: os.truncate(path, path.stat().st_size + 1),
    "deleted": lambda path: path.unlink(),
    "directory": replace_by_directory,
    "symlink": replace_by_link,
    "fifo": lambda path: (path.unlink(), os.mkfifo(path)),
}
SAME_SIZE = {"bit flip", "zeroed"}


@pytest.mark.parametrize("damage", BLOB_DAMAGE)
@pytest.mark.parametrize("which", ["layer", "config", "manifest"])
def test_damaged_blobs(stock: Stock, damage: str, which: str) -> None:
    """A damaged blob is found, a repair says which image to make again, and making it again mends all."""
    path = {"layer": stock.layers[0], "config": stock.config, "manifest": stock.manifest}[which]
    BLOB_DAMAGE[damage](path)
    deep = which == "layer" and damage in SAME_SIZE
    kind = {"deleted": "blob-missing", "directory": "blob-kind", "symlink": "blob-kind", "fifo": "blob-kind"}
    place = str(path.relative_to(stock.root))
    assert (kind.get(damage, "blob-content"), place) in stock.check(deep=deep)
    (found,) = [found for found in stock.engine.check(deep=deep) if found.path == str(path)]
    assert found.images == (NAME,)
    report = stock.engine.repair(deep=deep)
    assert report.pull_again == (NAME,)
    assert report.left == stock.engine.check(deep=True)
    assert not os.path.lexists(path)
    # The name is still there, and so is what is intact, so that little has to be fetched again.
    load_two_layers(stock.engine)
    assert stock.check(deep=True) == []


def test_giving_up(stock: Stock) -> None:
    """An image that cannot be made whole goes if one says so, and then nothing at all is found."""
    stock.layers[0].unlink()
    stock.snapshots[0].rename(stock.root / "gone")
    shutil.rmtree(stock.root / "gone")
    report = stock.engine.repair(forget=True)
    assert report.left == ()
    assert stock.check(deep=True) == []
    assert stock.engine.images.list() == []
    with pytest.raises(cl.ImageNotFound):
        stock.engine.images.get("t:1")


SNAPSHOT_DAMAGE: dict[str, tuple[str, Callable[[Path], object]]] = {
    "record missing": ("snapshot-record", lambda path: (path / "snapshot.json").unlink()),
    "record empty": ("snapshot-record", lambda path: (path / "snapshot.json").write_bytes(b"")),
    "record garbage": ("snapshot-record", lambda path: (path / "snapshot.json").write_bytes(b"\xff{")),
    "record incomplete": ("snapshot-record", lambda path: (path / "snapshot.json").write_bytes(b"{}")),
    "record a directory": ("snapshot-record", lambda path: replace_by_directory(path / "snapshot.json")),
    "tree missing": ("snapshot-tree", lambda path: shutil.rmtree(path / "fs")),
    "tree a link": ("snapshot-tree", lambda path: replace_by_link(path / "fs", "/")),
    "snapshot a link": ("snapshot-record", lambda path: replace_by_link(path, "/")),
    "snapshot a file": ("snapshot-record", lambda path: (shutil.rmtree(path), path.write_bytes(b"x"))),
    "snapshot missing": ("snapshot-missing", shutil.rmtree),
    "content": ("snapshot-content", lambda path: flip(next((path / "fs" / "d").iterdir()))),
    "file missing": ("snapshot-content", lambda path: next((path / "fs" / "d").iterdir()).unlink()),
    "file too much": ("snapshot-content", lambda path: (path / "fs" / "d" / "new").write_bytes(b"")),
    "mode": ("snapshot-content", lambda path: os.chmod(path / "fs" / "d", 0o700)),
    "owner": ("snapshot-content", lambda path: os.chown(path / "fs" / "d", 5, 5)),
    "attribute": ("snapshot-content", lambda path: os.setxattr(path / "fs" / "d", "user.x", b"x")),
    "link elsewhere": ("snapshot-content", lambda path: replace_by_link(path / "fs" / "l", "/etc")),
}


@pytest.mark.parametrize("damage", SNAPSHOT_DAMAGE)
def test_damaged_snapshots(stock: Stock, damage: str) -> None:
    """A damaged layer is found, and unpacked again from its blob, after which nothing is found."""
    kind, do = SNAPSHOT_DAMAGE[damage]
    do(stock.snapshots[0])
    deep = kind == "snapshot-content"
    assert kind in [found for found, _ in stock.check(deep=deep)]
    report = stock.engine.repair(deep=deep)
    assert kind in {found.kind for found in report.mended}
    assert (report.left, report.pull_again) == ((), ())
    assert stock.check(deep=True) == []
    assert (stock.snapshots[0] / "fs" / "d" / "a").read_bytes() == BIG


@pytest.mark.parametrize("level", [0, 1])
@pytest.mark.parametrize("parent", ["missing", "itself", "none", "garbage"])
def test_wrong_parents(stock: Stock, level: int, parent: str) -> None:
    """A layer on a parent that is missing, on itself, or on another one is unpacked again."""
    record = stock.snapshots[level] / "snapshot.json"
    right = json.loads(record.read_bytes())
    wrong = {"missing": f"sha256:{'0' * 64}", "itself": right["name"], "none": None, "garbage": 7}[parent]
    edit(record, parent=wrong)
    assert bool(stock.check()) is (wrong != right["parent"])
    assert stock.engine.repair().left == ()
    assert json.loads(record.read_bytes())["parent"] == right["parent"]
    assert stock.check(deep=True) == []


def test_two_that_stand_on_each_other(stock: Stock) -> None:
    """Layers that are each other's ancestors are found without going round for ever, and mended."""
    edit(stock.snapshots[0] / "snapshot.json", parent=stock.snapshots[1].name.replace("-", ":", 1))
    assert {kind for kind, _ in stock.check()} == {"snapshot-parent", "snapshot-record"}
    assert stock.engine.repair().left == ()
    assert stock.check(deep=True) == []


def test_a_damaged_layer_and_no_blob(stock: Stock) -> None:
    """What cannot be unpacked again is named, and making the image again mends it."""
    shutil.rmtree(stock.snapshots[1])
    stock.layers[1].unlink()
    report = stock.engine.repair()
    assert {found.kind for found in report.left} == {"blob-missing", "snapshot-missing"}
    assert report.pull_again == (NAME,)
    load_two_layers(stock.engine)
    assert stock.check(deep=True) == []


def test_a_layer_that_is_used(stock: Stock) -> None:
    """A damaged layer that a running engine uses is not taken from under it."""
    with (
        cl.Engine(stock.root, stock.engine.run_root) as other,
        other._session.holds.holding(other.images.get("t:1").record),
    ):
        flip(stock.snapshots[0] / "fs" / "d" / "a")
        report = stock.engine.repair(deep=True)
        assert [found.kind for found in report.left] == ["snapshot-content"]
        assert "use" in report.left[0].reason
    assert stock.engine.repair(deep=True).left == ()
    assert stock.check(deep=True) == []


REFERENCE_DAMAGE: dict[str, Callable[[Path], object]] = {
    "empty": lambda path: path.write_bytes(b""),
    "garbage": lambda path: path.write_bytes(b"\0\xff"),
    "other object": lambda path: path.write_bytes(b"{}"),
    "other name": lambda path: edit(path, name="docker.io/library/u:1"),
    "no digest": lambda path: edit(path, target={"mediaType": "x", "digest": "x", "size": 1}),
    "directory": replace_by_directory,
}


@pytest.mark.parametrize("damage", REFERENCE_DAMAGE)
def test_damaged_references(stock: Stock, damage: str) -> None:
    """A damaged name is put aside, its image stays without a name, and nothing is lost by collecting."""
    REFERENCE_DAMAGE[damage](stock.reference)
    assert stock.check() == [("reference", f"references/{stock.reference.name}")]
    report = stock.engine.repair()
    assert (report.left, [found.kind for found in report.mended]) == ((), ["reference"])
    assert stock.check(deep=True) == []
    assert len(list((stock.root / "quarantine").iterdir())) == 1
    (image,) = stock.engine.images.list()
    assert (image.references, image.digest) == ((), stock.image.digest)
    assert image.tag("t:1").references == (NAME,)


def test_a_reference_to_nothing(stock: Stock) -> None:
    """A name that points at nothing is found under the path of what is missing."""
    edit(stock.reference, target={"mediaType": "application/x", "digest": f"sha256:{'1' * 64}", "size": 1})
    found = stock.engine.check()
    assert found[0].kind == "blob-missing"
    assert found[0].images == (NAME,)
    assert stock.engine.repair().pull_again == (NAME,)
    stock.engine.images.remove("t:1")
    assert stock.check() == []


@pytest.mark.parametrize("what", ["snapshot", "reference"])
def test_documents_of_a_later_version(stock: Stock, what: str) -> None:
    """What a later version has written is not damage: it is said, and left alone."""
    path = stock.reference if what == "reference" else stock.snapshots[1] / "snapshot.json"
    edit(path, format=2)
    before = path.read_bytes()
    (found,) = stock.engine.check()
    assert (found.kind, found.remedy) == ("format", "look")
    assert "newer version" in found.reason
    report = stock.engine.repair()
    assert report.left == (found,)
    assert path.read_bytes() == before
    assert all(blob.exists() for blob in (*stock.layers, stock.config, stock.manifest))
    other = cl.Engine(stock.root, stock.engine.run_root)
    with pytest.raises(cl.StoreCorrupted, match="newer version"):
        other.images.get("t:1")


def leftovers(root: Path) -> list[Path]:
    """Make one of each kind that processes leave when they are killed."""
    made = [
        root / "leases" / "0123456789abcdef",
        root / "blobs" / "sha256" / ".tmp-1-x",
        root / "references" / ".tmp-1-x",
        root / "references" / f"{'a' * 64}.lock",
        root / "snapshots" / "active-0123456789abcdef-01234567",
        root / "snapshots" / ".trash-0123456789abcdef",
        root / "snapshots" / ".rm-0123456789abcdef",
        root / "containers" / ".rm-0123456789abcdef",
        root / "blobs" / "sha256" / cl.Engine.__module__.encode().hex().ljust(64, "0")[:64],
        root / "snapshots" / f"sha256-{'b' * 64}",
    ]
    for path in made:
        path.parent.mkdir(mode=0o700, exist_ok=True)
        if path.parent.name in {"snapshots", "containers"}:
            (path / "fs").mkdir(parents=True)
            path.chmod(0o700)
            (path / "fs" / "file").write_bytes(b"x")
        else:
            path.write_bytes(b"x")
    (made[-1] / "snapshot.json").write_text('{"parent": null, "size_bytes": 1}', encoding="ascii")
    return made


def test_leftovers(stock: Stock) -> None:
    """What dead processes have left is found as such, and collected."""
    made = leftovers(stock.root)
    found = stock.engine.check()
    assert sorted(damage.path for damage in found) == sorted(map(str, made))
    assert {(damage.kind, damage.remedy) for damage in found} == {("leftover", "collect")}
    assert stock.engine.repair().left == ()
    assert stock.check(deep=True) == []
    assert not any(os.path.lexists(path) for path in made)


def test_what_is_being_made_is_no_finding(stock: Stock) -> None:
    """Files and layers that a living process is writing are left alone."""
    stores = stock.engine._session.stores
    with stores.leases.acquire("test") as lease, stores.content.writer() as writer:
        writer.write(b"x" * 100)
        lease.protect([writer.digest])
        active = stores.snapshots.prepare(lease)
        assert stock.check(deep=True) == []
        assert stock.engine.repair() == cl.RepairReport()
        writer.commit()
        assert stock.check() == []
        stores.snapshots.abort(active.key)
    assert [kind for kind, _ in stock.check()] == ["leftover"]


@pytest.mark.parametrize(
    "place", ["", "blobs", "blobs/sha256", "snapshots", "snapshots/sha256-*", "references", "leases"]
)
def test_wrong_permissions(stock: Stock, place: str) -> None:
    """A directory that others may look into, or that is another's, is found and closed."""
    (path, *_) = stock.root.glob(place) if place else [stock.root]
    for spoil in (lambda: path.chmod(0o777), lambda: os.chown(path, 65534, 65534)):
        spoil()
        assert [kind for kind, _ in stock.check()] == ["permissions"]
        assert stock.engine.repair().left == ()
        assert (path.stat().st_mode & 0o777, path.stat().st_uid) == (0o700, 0)
    assert stock.check(deep=True) == []


@pytest.mark.parametrize(
    "place", ["x", "blobs/md5", "blobs/sha256/notes", "snapshots/notes", "references/notes", "containers/a b"]
)
def test_unknown_files(stock: Stock, place: str) -> None:
    """A file of which nobody knows is named and never touched."""
    path = stock.root / place
    path.parent.mkdir(mode=0o700, exist_ok=True)
    path.write_bytes(b"precious")
    assert stock.check(deep=True) == [("unknown", place)]
    assert [found.kind for found in stock.engine.repair(deep=True, forget=True).left] == ["unknown"]
    stock.engine.images.remove("t:1")
    assert path.read_bytes() == b"precious"


def test_containers(stock: Stock) -> None:
    """A detached container that is damaged is named, and neither mended nor removed."""
    made = stock.engine.containers.create(stock.image, ["x"], lifetime="detached", name="keep")
    directory = Path(made.entry.layers.directory or "")
    (directory / "upper" / "data").write_bytes(b"precious")
    assert stock.check(deep=True) == []
    (directory / "record.json").write_bytes(b"{")
    assert [kind for kind, _ in stock.check()] == ["container-record"]
    assert [found.kind for found in stock.engine.repair(deep=True, forget=True).left] == ["container-record"]
    assert (directory / "upper" / "data").read_bytes() == b"precious"
    shutil.rmtree(directory)


def test_everything_at_once(stock: Stock) -> None:
    """Damage of many kinds at once is mended in one go."""
    leftovers(stock.root)
    flip(stock.snapshots[1] / "fs" / "d" / "b")
    (stock.snapshots[0] / "snapshot.json").write_bytes(b"x")
    (stock.root / "blobs").chmod(0o755)
    assert stock.engine.repair(deep=True).left == ()
    assert stock.check(deep=True) == []


def test_awkward_paths() -> None:
    """A store is checked and mended wherever it lies, and whatever the caller's umask is."""
    for mask, name in ((0, "a b,c:d\\e"), (0o777, "ü" * 60)):
        with temporary_directory("p") as base:
            root = base / name
            old = os.umask(mask)
            try:
                with cl.Engine(root / "r", base / "n") as engine:
                    load_two_layers(engine)
                    assert engine.check(deep=True) == ()
                    for path in (root / "r" / "snapshots").glob("sha256-*"):
                        shutil.rmtree(path)
                    assert engine.check()
                    assert engine.repair().left == ()
                    assert engine.check(deep=True) == ()
            finally:
                os.umask(old)


def test_a_check_waits_for_nobody(stock: Stock) -> None:
    """What others hold shared does not keep a check waiting."""
    with file_lock.locked(stock.engine._session.stores.layout.collection_lock, shared=True):
        assert stock.check() == []


@pytest.fixture(scope="module")
def registry(request: pytest.FixtureRequest) -> Iterator[DockerRegistry]:
    """Return a registry on loopback."""
    need(request.config, "peers", ("docker-registry",))
    with temporary_directory("g") as path, docker_registry(path) as running:
        yield running


@pytest.mark.parametrize("damage", BLOB_DAMAGE)
def test_pulling_again_mends(stock: Stock, damage: str, registry: DockerRegistry) -> None:
    """A layer that is damaged here is fetched again by a pull that has to unpack it, without a repair."""
    name = f"{registry.host}/box:1"
    stock.image.push(name)
    stock.engine.images.remove("t:1")
    stock.engine.images.pull(name)
    shutil.rmtree(stock.snapshots[0])
    BLOB_DAMAGE[damage](stock.layers[0])
    assert stock.engine.images.pull(name).references == (name,)
    assert stock.check(deep=True) == []


@pytest.mark.parametrize("damage", BLOB_DAMAGE)
def test_damaged_layers_are_never_sent(stock: Stock, damage: str, registry: DockerRegistry) -> None:
    """A push of a damaged layer fails here, by an error that says what to do, and sets no name there."""
    name = f"{registry.host}/never/{damage.replace(' ', '')}:1"
    BLOB_DAMAGE[damage](stock.layers[0])
    with pytest.raises((cl.StoreCorrupted, cl.BlobNotFound, cl.SizeMismatch)):
        stock.image.push(name)
    with pytest.raises(cl.RemoteNotFound):
        stock.engine.images.pull(name)


def test_damaged_layers_are_not_pushed(stock: Stock) -> None:
    """Whoever reads a blob to its end to send it somewhere learns that it is damaged."""
    content = stock.engine._session.stores.content
    digest = stock.image.layers[0].digest
    with content.open_verified(digest) as stream:
        whole = stream.read()
        stream.seek(0)
        assert stream.read() == whole
    flip(stock.layers[0])
    with content.open_verified(digest) as stream, pytest.raises(cl.StoreCorrupted, match="pull it again"):
        stream.read()
