from __future__ import annotations

import gzip
import hashlib
import io
import os
import socket
import stat
import subprocess
import sys
import tarfile
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
import zstandard
from support.archives import archive, directory, file, member, symlink

from containerlib.errors import (
    DigestMismatch,
    ImageNotFound,
    InvalidInputError,
    InvalidReference,
    LayerError,
    ResourceInUse,
    StoreCorrupted,
    UnsafePath,
)
from containerlib.image.assemble import assemble_image
from containerlib.image.collect import collect
from containerlib.image.directory import from_directory
from containerlib.image.prune import prune_images
from containerlib.image.resolve import (
    get_image,
    list_images,
    remove_image,
    tag_image,
    untag_image,
)
from containerlib.image.tar_import import from_tar
from containerlib.image.unpack import UnpackPolicy, unpack_image
from containerlib.layer.archive import LayerEntry
from containerlib.oci import media_type
from containerlib.oci.descriptor import Descriptor
from containerlib.oci.digest import Digest
from containerlib.oci.image_config import Config, ImageConfig
from containerlib.oci.manifest import Manifest
from containerlib.store.stores import Stores
from containerlib.store.view import read_file

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.root

HELLO = [LayerEntry("bin/hello", source=b"#!/bin/sh\n", mode=0o755)]
OTHER = [LayerEntry("bin/other", source=b"other", mode=0o755)]


@pytest.fixture
def stores(tmp_path: Path) -> Stores:
    """Give empty stores."""
    return Stores.open(f"{tmp_path}/root", f"{tmp_path}/run", durable=False)


def leftovers(stores: Stores) -> list[str]:
    """Return every file and snapshot of the store, but no lock files."""
    found = [
        os.path.relpath(os.path.join(top, name), stores.layout.root)
        for directory_name in ("blobs", "snapshots", "references", "leases")
        for top, _, names in os.walk(f"{stores.layout.root}/{directory_name}")
        for name in names
    ]
    return sorted(name for name in found if not name.endswith(".lock"))


def test_assembled_image_is_complete(stores: Stores) -> None:
    """An assembled image has its layer unpacked, a PATH, and the digests that its documents say."""
    image = assemble_image(stores, HELLO, config=Config(cmd=("/bin/hello",)), reference="hello")
    assert image.references == ("docker.io/library/hello:latest",)
    assert image.config.config.cmd == ("/bin/hello",)
    assert image.config.config.env[0].startswith("PATH=/")
    (layer,) = image.layers
    assert layer.media_type == media_type.OCI_LAYER
    assert layer.digest == image.config.diff_ids[0] == image.chain_id
    (lower,) = image.lowers
    assert stat.S_IMODE(os.stat(f"{lower}/bin/hello").st_mode) == 0o755
    assert image.size_bytes == sum(blob.size for blob in stores.content.list())
    with stores.content.open(layer.digest) as stream, tarfile.open(fileobj=stream) as members:
        assert members.getnames() == ["bin", "bin/hello"]


def test_same_entries_give_the_same_image(stores: Stores, tmp_path: Path) -> None:
    """Image ids depend on the content alone: not on time, order or store."""
    other = Stores.open(f"{tmp_path}/other", f"{tmp_path}/run", durable=False)
    first = assemble_image(stores, [*HELLO, *OTHER], reference="a")
    second = assemble_image(other, [*OTHER, *HELLO], reference="b")
    assert (first.id, first.digest) == (second.id, second.digest)
    again = assemble_image(stores, [*HELLO, *OTHER], reference="c")
    assert again.references == ("docker.io/library/a:latest", "docker.io/library/c:latest")
    assert len(list_images(stores)) == 1


def test_bad_reference_costs_nothing(stores: Stores) -> None:
    """A bad name is refused before anything is written."""
    with pytest.raises(InvalidReference):
        assemble_image(stores, HELLO, reference="Not Valid")
    assert not os.path.exists(stores.layout.root)


def test_failure_leaves_nothing(stores: Stores) -> None:
    """Entries that cannot be written leave no blob, snapshot, reference or lease."""
    with pytest.raises(InvalidInputError):
        assemble_image(stores, [*HELLO, LayerEntry("bin/hello/x", source=b"")], reference="a")
    assert leftovers(stores) == []


def test_directory(stores: Stores, tmp_path: Path) -> None:
    """A directory becomes an image with everything but times, sockets and what links lead to."""
    source = tmp_path / "source"
    (source / "d").mkdir(parents=True, mode=0o750)
    (source / "d/file").write_bytes(b"x" * 100_000)
    os.chown(source / "d/file", 12, 34)
    os.chmod(source / "d/file", 0o4711)  # noqa: S103 - what the image is to keep
    os.link(source / "d/file", source / "a-hard")
    os.symlink("/etc", source / "etc")
    os.symlink("etc", source / "a-hardly")
    os.link(source / "a-hardly", source / "z-link", follow_symlinks=False)
    os.mkfifo(source / "pipe", 0o600)
    (source / os.fsdecode(b"\xff")).write_bytes(b"")
    capability = bytes.fromhex("0100000200200000000000000000000000000000")
    os.setxattr(source / "d/file", "security.capability", capability)
    os.setxattr(source / "d/file", "user.host", b"1")
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(source / "socket"))
    image = from_directory(stores, str(source), reference="dir")
    root = image.lowers[0]
    info = os.stat(f"{root}/d/file")
    assert (info.st_uid, info.st_gid, stat.S_IMODE(info.st_mode)) == (12, 34, 0o4711)
    assert (info.st_nlink, info.st_mtime, info.st_size) == (2, 0, 100_000)
    assert os.listxattr(f"{root}/d/file") == ["security.capability"]
    assert os.stat(f"{root}/a-hard").st_ino == info.st_ino
    assert os.readlink(f"{root}/etc") == "/etc"
    assert os.lstat(f"{root}/z-link").st_nlink == 2
    assert stat.S_ISFIFO(os.stat(f"{root}/pipe").st_mode)
    assert not os.path.exists(f"{root}/socket")
    assert os.fsencode(os.listdir(root)[0]) is not None
    assert b"\xff" in os.listdir(os.fsencode(root))
    os.utime(source / "d/file", (5, 5))
    assert from_directory(stores, str(source), reference="again").id == image.id


def test_device_in_a_directory_is_refused(stores: Stores, tmp_path: Path) -> None:
    """A device in the directory is refused by name, and nothing stays."""
    os.mknod(tmp_path / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    with pytest.raises(InvalidInputError, match="null"):
        from_directory(stores, str(tmp_path), reference="x")
    assert leftovers(stores) == []
    for path in (f"{tmp_path}/missing", f"{tmp_path}/null"):
        with pytest.raises(InvalidInputError, match="not a directory"):
            from_directory(stores, path)


def test_archives_of_any_compression_are_one_image(stores: Stores, tmp_path: Path) -> None:
    """The same archive gives the same image however it is compressed, from a path or a stream."""
    data = archive(directory(b"bin"), file(b"bin/sh"), symlink(b"sh", b"bin/sh"))
    images = [from_tar(stores, io.BytesIO(data), reference="t:plain")]
    images.append(from_tar(stores, io.BytesIO(gzip.compress(data)), reference="t:gzip"))
    (tmp_path / "a.tar.zst").write_bytes(zstandard.compress(data))
    images.append(from_tar(stores, f"{tmp_path}/a.tar.zst"))
    assert len({(image.id, image.digest) for image in images}) == 1
    assert images[0].layers[0].digest == Digest.of(data)
    assert images[2].references == ("docker.io/library/t:gzip", "docker.io/library/t:plain")
    with open(f"{images[0].lowers[0]}/sh", "rb") as unpacked:
        assert unpacked.read() == b"data"


def test_garbage_behind_an_archive_counts(stores: Stores) -> None:
    """The layer's digest is over every byte, those behind the end mark included."""
    data = archive(file(b"a")) + b"garbage"
    assert from_tar(stores, io.BytesIO(data)).layers[0].digest == Digest.of(data)


@pytest.mark.parametrize(
    "data",
    [
        archive(file(b"../../canary")),
        archive(file(b"ok"), member(b"null", b"3", major=1, minor=3)),
        archive(file(b"ok", 1000 * b"x"))[:700],
        gzip.compress(archive(file(b"ok")))[:-4],
        b"this is no archive" * 100,
    ],
    ids=["outside", "device", "cut off", "compressed and cut off", "no archive"],
)
def test_bad_archives_leave_nothing(stores: Stores, data: bytes) -> None:
    """A refused archive leaves no image, no snapshot and no blob."""
    with pytest.raises(LayerError):
        from_tar(stores, io.BytesIO(data), reference="x")
    assert list_images(stores) == []
    assert leftovers(stores) == []


def test_missing_archive(stores: Stores, tmp_path: Path) -> None:
    """A path that is no file is refused."""
    for path in (f"{tmp_path}/missing", str(tmp_path)):
        with pytest.raises(InvalidInputError, match="not a file"):
            from_tar(stores, path)


def test_devices_by_policy(stores: Stores) -> None:
    """A trusted archive may bring devices."""
    data = archive(member(b"null", b"3", major=1, minor=3))
    with pytest.raises(UnsafePath):
        from_tar(stores, io.BytesIO(data))
    image = from_tar(stores, io.BytesIO(data), policy=UnpackPolicy(devices="create"))
    assert stat.S_ISCHR(os.stat(f"{image.lowers[0]}/null").st_mode)


def put_image(stores: Stores, layers: list[bytes], diff_ids: list[Digest] | None = None) -> Manifest:
    """Store the blobs of an image with gzip layers, as a pull would."""
    blobs = [gzip.compress(layer, mtime=0) for layer in layers]
    for blob in blobs:
        stores.content.put(blob)
    config = ImageConfig.build(diff_ids or [Digest.of(layer) for layer in layers])
    manifest = Manifest.build(
        config.descriptor, [Descriptor.of(blob, media_type.OCI_LAYER_GZIP) for blob in blobs]
    )
    stores.content.put(config.raw)
    stores.content.put(manifest.raw)
    return manifest


def test_several_layers(stores: Stores) -> None:
    """Compressed layers are unpacked one by one and stacked top-most first."""
    layers = [archive(file(b"a"), file(b"b")), archive(file(b".wh.a")), archive(file(b"c"))]
    manifest = put_image(stores, layers)
    stores.references.set("docker.io/library/x:latest", manifest.descriptor)
    config = ImageConfig.parse(stores.content.read(manifest.config.digest, limit=1 << 20))
    with stores.leases.acquire("test") as lease:
        assert unpack_image(stores, lease, manifest, config) == config.chain_id
        unpack_image(stores, lease, manifest, config)
    image = get_image(stores, "x")
    assert [sorted(os.listdir(lower)) for lower in image.lowers] == [["c"], ["a"], ["a", "b"]]
    removed = remove_image(stores, "x")
    assert removed.deleted == (image.id,)
    assert leftovers(stores) == []


def test_kernel_agrees(stores: Stores) -> None:
    """The kernel's overlay of the unpacked layers shows what the layers mean."""
    layers = [
        archive(file(b"gone"), file(b"kept"), file(b"d/old"), file(b"e/old"), file(b"f/old")),
        archive(
            *(file(b".wh.gone"), file(b"d/.wh..wh..opq"), file(b"d/new")),
            *(file(b".wh.e"), directory(b"e"), file(b"e/new"), file(b"f/.wh.old")),
        ),
    ]
    manifest = put_image(stores, layers)
    stores.references.set("docker.io/library/x:latest", manifest.descriptor)
    config = ImageConfig.parse(stores.content.read(manifest.config.digest, limit=1 << 20))
    with stores.leases.acquire("test") as lease:
        unpack_image(stores, lease, manifest, config)
    lowers = get_image(stores, "x").lowers
    script = f"mount -t overlay overlay -o lowerdir={':'.join(lowers)} /mnt && cd /mnt && find . | sort"
    shown = subprocess.run(["unshare", "-m", "sh", "-c", script], check=True, capture_output=True, text=True)
    assert shown.stdout.split() == [".", "./d", "./d/new", "./e", "./e/new", "./f", "./kept"]
    for name, expected in {
        "gone": None,
        "d/old": None,
        "e/old": None,
        "f/old": None,
        "kept": b"data",
    }.items():
        assert read_file(lowers, name, limit=100) == expected, name
    assert read_file(lowers, "e/new", limit=100) == b"data"


def test_wrong_diff_id_is_refused(stores: Stores) -> None:
    """A layer that is not what the configuration says is not kept."""
    manifest = put_image(stores, [archive(file(b"a"))], [Digest.of(b"other")])
    config = ImageConfig.parse(stores.content.read(manifest.config.digest, limit=1 << 20))
    with stores.leases.acquire("test") as lease, pytest.raises(DigestMismatch):
        unpack_image(stores, lease, manifest, config)
    assert os.listdir(stores.layout.snapshots) == []


def test_images_are_found(stores: Stores) -> None:
    """An image is found by name, id, digest, and the unambiguous beginning of either."""
    image = assemble_image(stores, HELLO, reference="localhost:5000/hello:1")
    for name in (
        "localhost:5000/hello:1",
        f"localhost:5000/hello@{image.digest}",
        f"localhost:5000/hello:1@{image.digest}",
        image.id,
        image.digest,
        image.id.hex,
        image.id.short,
        image.id[:11],
        image.digest.short,
    ):
        assert get_image(stores, name).id == image.id, name
    for name in (
        "hello",
        "localhost:5000/hello",
        "0" * 64,
        "sha256:" + "0" * 64,
        f"hello@{image.digest}",
        image.id[:9],
    ):
        with pytest.raises(ImageNotFound):
            get_image(stores, name)
    for name in ("", "Hello", "a b", image.id[:9] + "Z!", "../x"):
        with pytest.raises(InvalidReference):
            get_image(stores, name)


def test_ambiguous_beginning(stores: Stores) -> None:
    """A beginning that several ids have in common is refused, and a name wins over an id."""
    seen: dict[str, int] = {}
    for number in range(600):
        image = assemble_image(stores, [LayerEntry("f", source=b"%d" % number)])
        seen[image.id.hex[:4]] = seen.get(image.id.hex[:4], 0) + 1
        if seen[image.id.hex[:4]] > 1:
            break
    else:
        pytest.skip("no two ids begin alike")
    with pytest.raises(InvalidReference, match="2 image ids"):
        get_image(stores, image.id.hex[:4])
    tag_image(stores, image.id, image.id.hex[:4])
    assert get_image(stores, image.id.hex[:4]).id == image.id


def test_names_come_and_go(stores: Stores) -> None:
    """Names can be added and taken away; an image without a name stays until it is removed or pruned."""
    image = assemble_image(stores, HELLO, reference="a")
    assert tag_image(stores, "a", "b").references == (
        "docker.io/library/a:latest",
        "docker.io/library/b:latest",
    )
    untag_image(stores, "a")
    untag_image(stores, "b")
    with pytest.raises(ImageNotFound):
        untag_image(stores, "b")
    assert get_image(stores, image.id).references == ()
    assert collect(stores).blobs == 0
    assert os.path.isdir(image.lowers[0])
    with pytest.raises(InvalidReference):
        tag_image(stores, image.id, f"x@{image.digest}")
    prune_images(stores, in_use=lambda image_id: ["c"] if image_id == image.id else [])
    assert len(list_images(stores)) == 1
    prune_images(stores)
    assert list_images(stores) == []
    assert leftovers(stores) == []


def test_moved_name_keeps_the_old_image(stores: Stores) -> None:
    """A name that moves to another image leaves the old one without a name, because it may be in use."""
    old = assemble_image(stores, HELLO, reference="a")
    new = assemble_image(stores, OTHER, reference="a")
    collect(stores)
    assert get_image(stores, "a").id == new.id
    assert get_image(stores, old.id).references == ()
    assert os.path.isdir(old.lowers[0])
    assert [image.id for image in list_images(stores)] == [new.id, old.id]


def test_removal(stores: Stores) -> None:
    """A used image stays, one with several names loses one, and the last removal frees what is not shared."""
    image = assemble_image(stores, HELLO, reference="a")
    shared = assemble_image(stores, HELLO, reference="shared", comment="another configuration")
    tag_image(stores, "a", "b")
    with pytest.raises(ResourceInUse, match="has the names"):
        remove_image(stores, image.id)
    assert remove_image(stores, "a").untagged == ("docker.io/library/a:latest",)
    with pytest.raises(ResourceInUse, match="web"):
        remove_image(stores, "b", in_use=lambda image_id: ["web"] if image_id == image.id else [])
    assert get_image(stores, "b").id == image.id
    removed = remove_image(stores, "b", in_use=lambda _: [])
    assert removed.deleted == (image.id,)
    with pytest.raises(ImageNotFound):
        get_image(stores, image.id)
    assert os.path.isdir(get_image(stores, "shared").lowers[0])
    remove_image(stores, shared.id)
    assert leftovers(stores) == []


def test_forced_removal_by_id(stores: Stores) -> None:
    """By its id an image goes with all its names if that is wanted."""
    image = assemble_image(stores, HELLO, reference="a")
    tag_image(stores, "a", "b")
    assert remove_image(stores, image.id, force=True).untagged == (
        "docker.io/library/a:latest",
        "docker.io/library/b:latest",
    )
    assert leftovers(stores) == []


def test_incomplete_image_is_reported(stores: Stores) -> None:
    """An image whose content is gone is not found, with the remedy, and can still be removed."""
    image = assemble_image(stores, HELLO, reference="a")
    stores.content.delete(image.id)
    with pytest.raises(ImageNotFound, match="again"):
        get_image(stores, "a")
    assert list_images(stores) == []
    remove_image(stores, "a")
    assert leftovers(stores) == []


def test_damaged_reference_hurts_no_other(stores: Stores) -> None:
    """A damaged reference is left out of lists, but nothing is deleted while it is unclear what it held."""
    image = assemble_image(stores, HELLO, reference="a")
    assemble_image(stores, OTHER, reference="b")
    path = f"{stores.layout.references}/{hashlib.sha256(b'docker.io/library/b:latest').hexdigest()}.json"
    with open(path, "wb") as damaged:
        damaged.write(b"{")
    assert get_image(stores, "a").id == image.id
    assert [found.id for found in list_images(stores)] == [image.id]
    for verb in (collect, prune_images, lambda stores: get_image(stores, "b")):
        with pytest.raises(StoreCorrupted):
            verb(stores)
    remaining = len(list(stores.content.list()))
    assert remaining == 6


def test_remembered_images_are_looked_at_again(stores: Stores) -> None:
    """An image that was read before is not found once its content or a name is gone."""
    image = assemble_image(stores, HELLO, reference="a")
    time.sleep(0.2)
    assert get_image(stores, "a").references == get_image(stores, "a").references
    other = Stores.open(stores.layout.root, stores.layout.run_root, durable=False)
    tag_image(other, "a", "b")
    assert len(get_image(stores, image.id).references) == 2
    remove_image(other, image.id, force=True)
    with pytest.raises(ImageNotFound):
        get_image(stores, "a")


def test_lease_keeps_content_from_collection(stores: Stores) -> None:
    """What an operation under way has written is not collected under it."""
    blob = stores.content.put(b"fresh")
    with stores.leases.acquire("test") as lease:
        lease.protect([blob.digest])
        assert collect(stores).blobs == 0
        assert stores.content.exists(blob.digest)
    assert collect(stores).blobs == 1


WORKER = """
import os, sys
from containerlib.image.assemble import assemble_image
from containerlib.image.collect import collect
from containerlib.image.resolve import get_image, list_images, remove_image
from containerlib.image.prune import prune_images
from containerlib.layer.archive import LayerEntry
from containerlib.errors import ImageNotFound, ResourceInUse
from containerlib.store.stores import Stores
from containerlib.store.view import read_file
stores = Stores.open(sys.argv[1], sys.argv[2], durable=False)
worker = int(sys.argv[3])
for round in range(12):
    name = f"shared:{round % 3}"
    entries = [LayerEntry(f"f{n}", source=b"%d" % (n * (round % 3))) for n in range(40)]
    image = assemble_image(stores, entries, reference=name)
    mine = [*entries, LayerEntry("own", source=b"%d" % worker)]
    own = assemble_image(stores, mine, reference=f"own{worker}")
    assert get_image(stores, f"own{worker}").id == own.id
    assert len(os.listdir(own.lowers[0])) == 41
    list_images(stores)
    try:
        remove_image(stores, name)
    except (ImageNotFound, ResourceInUse):
        pass
    if round % 4 == worker % 4:
        prune_images(stores)
    assert len(os.listdir(get_image(stores, f"own{worker}").lowers[0])) == 41
remove_image(stores, f"own{worker}")
"""


@pytest.mark.slow
def test_processes_share_a_root(stores: Stores) -> None:
    """Sixteen processes that make, find, remove and prune the same images never disturb each other."""
    commands = [
        [sys.executable, "-c", WORKER, stores.layout.root, stores.layout.run_root, str(number)]
        for number in range(16)
    ]
    workers = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for command in commands]
    errors = [worker.communicate(timeout=120)[1] for worker in workers]
    assert [error for error in errors if error] == []
    for image in list_images(stores):
        remove_image(stores, image.id, force=True)
    prune_images(stores)
    assert leftovers(stores) == []


def test_threads_share_stores(stores: Stores) -> None:
    """Threads that make the same image at once all get it, and it is unpacked once."""
    with ThreadPoolExecutor(8) as pool:
        images = list(pool.map(lambda _: assemble_image(stores, HELLO, reference="a"), range(32)))
    assert len({image.id for image in images}) == 1
    assert len(os.listdir(stores.layout.snapshots)) == 1


KILLED = """
import os, signal, sys
import containerlib.image.assemble
from containerlib.layer.archive import LayerEntry
from containerlib.store.stores import Stores
from containerlib.store.view import read_file
left = int(sys.argv[3])
calls = {"rename", "mkdir", "open", "unlink", "link", "write"}
def count(event):
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
def wrap(name):
    real = getattr(os, name)
    def call(*args, **kwargs):
        count(name)
        result = real(*args, **kwargs)
        count(name)
        return result
    setattr(os, name, call)
for name in calls:
    wrap(name)
stores = Stores.open(sys.argv[1], sys.argv[2], durable=False)
entries = [LayerEntry("a", source=b"1"), LayerEntry("b/c", source=b"2")]
containerlib.image.assemble.assemble_image(stores, entries, reference="new")
print("done", left)
"""


@pytest.mark.slow
def test_death_at_any_point(stores: Stores) -> None:
    """Killed before or after any change to the disk, making an image leaves all of it or only garbage."""
    old = assemble_image(stores, HELLO, reference="old")
    entries = [LayerEntry("a", source=b"1"), LayerEntry("b/c", source=b"2")]
    before = leftovers(stores)
    point = 0
    while True:
        point += 1
        command = [sys.executable, "-c", KILLED, stores.layout.root, stores.layout.run_root, str(point)]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        names = [name for image in list_images(stores) for name in image.references]
        assert "docker.io/library/old:latest" in names
        for image in list_images(stores):
            for digest in (image.id, image.digest, image.layers[0].digest):
                stores.content.read(digest, limit=1 << 20)
            assert len(os.listdir(image.lowers[0])) in {1, 2}
        if done.returncode == 0:
            break
        assert done.returncode == -9, done.stderr
        if point % 5 == 0:
            assert assemble_image(stores, entries, reference="new").references
        if "docker.io/library/new:latest" in names or point % 5 == 0:
            remove_image(stores, "new")
        collect(stores)
        assert leftovers(stores) == before, point
    assert point > 50
    assert get_image(stores, "old").id == old.id
