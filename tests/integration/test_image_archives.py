from __future__ import annotations

import gzip
import hashlib
import io
import json
import lzma
import os
import tarfile
from typing import TYPE_CHECKING

import pytest
import zstandard
from support.archives import archive, file, link, symlink
from support.image_archives import (
    BASE,
    LAYOUT,
    NAME,
    OTHER,
    UPPER,
    blob,
    index_of,
    layered,
    layout,
    leftovers,
    make,
    old_docker,
    saved,
)

from containerlib.errors import (
    ContainerlibError,
    DigestMismatch,
    InvalidInputError,
    InvalidOption,
    InvalidReference,
    PlatformNotFound,
    StoreCorrupted,
)
from containerlib.image.archive_load import load
from containerlib.image.archive_save import SaveFormat, save
from containerlib.image.collect import collect
from containerlib.image.resolve import get_image, list_images
from containerlib.layer.compress import Compression, Compressor
from containerlib.oci import media_type
from containerlib.oci.descriptor import Descriptor
from containerlib.oci.digest import Digest
from containerlib.oci.image_config import ImageConfig
from containerlib.oci.manifest import Index
from containerlib.oci.platform import Platform
from containerlib.store.stores import Stores

if TYPE_CHECKING:
    from pathlib import Path


pytestmark = pytest.mark.root


@pytest.fixture
def stores(tmp_path: Path) -> Stores:
    """Give empty stores."""
    return Stores.open(f"{tmp_path}/root", f"{tmp_path}/run", durable=False)


@pytest.fixture
def other(tmp_path: Path) -> Stores:
    """Give other empty stores."""
    return Stores.open(f"{tmp_path}/other", f"{tmp_path}/run", durable=False)


@pytest.mark.parametrize("form", ["docker", "oci", "oci-directory"])
def test_saved_images_come_back_as_they_were(
    stores: Stores, other: Stores, tmp_path: Path, form: SaveFormat
) -> None:
    """Images keep digest, names and files through every form, and layers they share are written once."""
    first = make(stores, BASE, UPPER)
    make(stores, BASE, OTHER, name="localhost:5000/other:x")
    second = get_image(stores, "localhost:5000/other:x")
    out = f"{tmp_path}/out"
    save(stores, [(first, first.references), (second, second.references)], out, format=form)
    assert [name for name in os.listdir(tmp_path) if name.startswith(".tmp")] == []
    loaded = load(other, out)
    assert [image.digest for image in loaded] == [first.digest, second.digest]
    assert [image.references for image in loaded] == [(NAME,), ("localhost:5000/other:x",)]
    assert [image.id for image in loaded] == [first.id, second.id]
    assert sorted(os.listdir(f"{loaded[0].lowers[0]}/bin")) == ["a", "b"]
    assert sorted(blob.digest for blob in other.content.list()) == sorted(
        {
            *(first.digest, first.id, second.digest, second.id),
            *map(Digest.of, (BASE, UPPER, OTHER)),
        }
    )
    again = f"{tmp_path}/again"
    save(other, [(image, image.references) for image in loaded], again, format=form)
    if form != "oci-directory":
        with open(out, "rb") as one, open(again, "rb") as two:
            assert one.read() == two.read()
    assert [image.digest for image in load(other, again)] == [first.digest, second.digest]


def test_saving_is_deterministic(stores: Stores, tmp_path: Path) -> None:
    """The same images give the same bytes, to a stream and to a file, with no time of today in them."""
    image = make(stores, BASE, UPPER)
    data = saved(stores, image)
    assert data == saved(stores, image)
    save(stores, [(image, image.references)], f"{tmp_path}/out")
    with open(f"{tmp_path}/out", "rb") as written:
        assert written.read() == data
    with tarfile.open(fileobj=io.BytesIO(data)) as members:
        assert {entry.mtime for entry in members} == {0}
        assert {"index.json", "oci-layout", "manifest.json"} < set(members.getnames())


@pytest.mark.parametrize("compression", ["none", "gzip", "zstd"])
def test_layers_compressed_anew(stores: Stores, other: Stores, compression: Compression) -> None:
    """Layers written with another compression have the same files, and nothing of it stays in the store."""
    image = make(stores, BASE, OTHER)
    before = leftovers(stores)
    out = io.BytesIO()
    save(stores, [(image, ["hello:2"])], out, compression=compression)
    assert leftovers(stores) == before
    out.seek(0)
    (loaded,) = load(other, out)
    assert loaded.config.raw == image.config.raw
    assert loaded.chain_id == image.chain_id
    assert {media_type.layer_compression(layer.media_type) for layer in loaded.layers} == {compression}


@pytest.mark.parametrize("size", [1, 3 << 20])
@pytest.mark.parametrize(
    ("form", "compression"), [("docker", None), ("oci", None), ("oci-directory", None), ("oci", "zstd")]
)
def test_damaged_blobs_are_not_saved(
    stores: Stores, tmp_path: Path, form: SaveFormat, compression: Compression | None, size: int
) -> None:
    """Content that is not what its name says does not get into an archive, and none is made."""
    layer = archive(file(b"big", size * b"x"))
    image = make(stores, layer)
    with open(stores.layout.blob(Digest.of(layer)), "r+b") as blob_file:
        blob_file.seek(520)
        blob_file.write(b"y")
    before = leftovers(stores)
    with pytest.raises(StoreCorrupted):
        save(stores, [(image, ["a:1"])], f"{tmp_path}/out", format=form, compression=compression)
    assert not os.path.exists(f"{tmp_path}/out")
    assert leftovers(stores) == before


def test_refusals_of_save(stores: Stores, tmp_path: Path) -> None:
    """What cannot be written is refused before a file is made."""
    image = make(stores, BASE)
    pairs = [(image, ["x"])]
    taken = tmp_path / "taken"
    taken.mkdir()
    with pytest.raises(InvalidInputError, match="no image"):
        save(stores, [], f"{tmp_path}/new")
    with pytest.raises(InvalidReference):
        save(stores, [(image, ["../X"])], f"{tmp_path}/new")
    with pytest.raises(InvalidOption, match="format"):
        save(stores, pairs, f"{tmp_path}/new", format="zip")  # type: ignore[arg-type]
    with pytest.raises(InvalidOption, match="compression"):
        save(stores, pairs, f"{tmp_path}/new", compression="rar")  # type: ignore[arg-type]
    with pytest.raises(InvalidOption, match="path"):
        save(stores, pairs, io.BytesIO(), format="oci-directory")
    with pytest.raises(InvalidInputError, match="exists"):
        save(stores, pairs, str(taken), format="oci-directory")
    with pytest.raises(InvalidInputError, match="is a directory"):
        save(stores, pairs, str(taken))
    with pytest.raises(InvalidInputError, match="not a directory"):
        save(stores, pairs, f"{tmp_path}/missing/new")
    stores.content.delete(Digest.of(BASE))
    with pytest.raises(ContainerlibError, match="lacks"):
        save(stores, pairs, f"{tmp_path}/new")
    assert not os.path.exists(f"{tmp_path}/new")


@pytest.mark.parametrize("pack", [bytes, gzip.compress, lzma.compress, zstandard.ZstdCompressor().compress])
def test_compressed_archives(stores: Stores, pack: object) -> None:
    """An archive may be compressed as a whole, and may come from a stream that cannot seek."""
    assert callable(pack)
    reading, writing = os.pipe()
    with open(reading, "rb") as source:
        with open(writing, "wb") as sink:
            sink.write(pack(layout(layered(BASE), org_opencontainers_image_ref_name="a.b/c:1")))
        (image,) = load(stores, source)
    assert image.references == ("a.b/c:1",)


def test_old_docker_archive(stores: Stores, other: Stores) -> None:
    """The old form gets a manifest over the layers as they are, in whatever order its members come."""
    members = old_docker(BASE, UPPER)
    (image,) = load(stores, io.BytesIO(archive(*members)))
    (same,) = load(other, io.BytesIO(archive(*reversed(members))))
    assert image.digest == same.digest
    assert image.references == (NAME,)
    assert [layer.digest for layer in image.layers] == [Digest.of(BASE), Digest.of(UPPER)]
    assert tuple(image.config.diff_ids) == (Digest.of(BASE), Digest.of(UPPER))
    assert get_image(stores, "hello:1").digest == image.digest
    assert image.size_bytes == sum(blob.size for blob in stores.content.list())


def test_old_docker_archive_with_links(stores: Stores) -> None:
    """A layer that stands in the archive twice may be a link the second time, symbolic or hard."""
    config = ImageConfig.build([Digest.of(BASE)] * 3).raw
    manifest = [{"Config": "c.json", "RepoTags": None, "Layers": ["a/layer.tar", "b/layer.tar", "d.tar"]}]
    data = archive(
        file(b"a/layer.tar", BASE),
        symlink(b"b/layer.tar", b"../a/layer.tar"),
        link(b"d.tar", b"a/layer.tar"),
        file(b"c.json", config),
        file(b"manifest.json", json.dumps(manifest).encode()),
    )
    (image,) = load(stores, io.BytesIO(data))
    assert [layer.digest for layer in image.layers] == [Digest.of(BASE)] * 3
    assert image.references == ()
    assert [found.id for found in list_images(stores)] == [image.id]


def test_layers_that_are_here_are_not_read(stores: Stores) -> None:
    """A layer called by its digest is not stored again; a name that only looks like one is no promise."""
    config = ImageConfig.build([Digest.of(BASE), Digest.of(OTHER)]).raw
    names = [f"{Digest.of(BASE).hex}.tar", f"{Digest.of(UPPER).hex}.tar"]
    manifest = json.dumps([{"Config": "c.json", "RepoTags": ["x"], "Layers": names}]).encode()

    def old_form(first: bytes) -> io.BytesIO:
        layers = (file(name.encode(), data) for name, data in zip(names, (first, OTHER), strict=True))
        return io.BytesIO(archive(*layers, file(b"c.json", config), file(b"manifest.json", manifest)))

    with pytest.raises(DigestMismatch):
        load(stores, old_form(bytes(len(BASE))))
    make(stores, UPPER, name="other:1")
    (image,) = load(stores, old_form(BASE))
    (again,) = load(stores, old_form(bytes(len(BASE))))
    assert image.digest == again.digest


def test_compressed_layers_of_builders(stores: Stores) -> None:
    """Builders write compressed layers and name configurations by digest; both are read."""
    config = ImageConfig.build([Digest.of(BASE)]).raw
    packed = gzip.compress(BASE, mtime=0)
    name = Digest.of(config)
    manifest = [{"Config": name, "RepoTags": ["x"], "Layers": [f"{Digest.of(packed).hex}.tar.gz"]}]
    data = archive(
        file(name.encode(), config),
        file(f"{Digest.of(packed).hex}.tar.gz".encode(), packed),
        file(b"manifest.json", json.dumps(manifest).encode()),
    )
    (image,) = load(stores, io.BytesIO(data))
    assert image.layers[0].media_type == media_type.OCI_LAYER_GZIP


def test_names_of_a_layout(stores: Stores) -> None:
    """Names come from Docker's annotation, else from a whole name of OCI's, else from manifest.json."""
    parts = layered(BASE)
    entry = Descriptor(media_type.OCI_MANIFEST, Digest.of(parts[0]), len(parts[0]))

    def names(*annotations: dict[str, str], tags: str | None = None) -> tuple[str, ...]:
        entries = [Descriptor(entry.media_type, entry.digest, entry.size, item) for item in annotations]
        config = f"blobs/sha256/{Digest.of(parts[1]).hex}"
        manifest = json.dumps([{"Config": config, "RepoTags": [tags] if tags else None, "Layers": []}])
        (image,) = load(
            stores,
            io.BytesIO(
                archive(
                    *(LAYOUT, file(b"index.json", Index.build(entries).raw), *map(blob, parts)),
                    file(b"manifest.json", manifest.encode()),
                )
            ),
        )
        return image.references

    assert names({"org.opencontainers.image.ref.name": "latest"}) == ()
    whole = {"org.opencontainers.image.ref.name": "a.b/c:2"}
    docker = {"io.containerd.image.name": "docker.io/library/d:3", "org.opencontainers.image.ref.name": "3"}
    assert names({}, tags="from:json") == ("docker.io/library/from:json",)
    assert set(names(whole, docker)) >= {"a.b/c:2", "docker.io/library/d:3"}


def several_platforms(*platforms: str, missing: tuple[str, ...] = ()) -> tuple[bytes, list[list[bytes]]]:
    """Return the archive of an index over several platforms, and the parts of each image."""
    images, entries = [], []
    for number, text in enumerate(platforms):
        platform = Platform.parse(text)
        parts = layered(archive(file(b"for", b"%d" % number)), platform=platform)
        images.append(parts)
        entries.append(
            Descriptor(media_type.OCI_MANIFEST, Digest.of(parts[0]), len(parts[0]), platform=platform)
        )
    index = Index.build(entries).raw
    top = index_of(index, media_type.OCI_INDEX, io_containerd_image_name=NAME)
    present = [
        part for text, parts in zip(platforms, images, strict=True) if text not in missing for part in parts
    ]
    return archive(LAYOUT, file(b"index.json", top), blob(index), *map(blob, present)), images


def test_several_platforms(stores: Stores, other: Stores) -> None:
    """The name points at the index, this host's image is unpacked, and all of them are kept and saved."""
    host = str(Platform.host())
    foreign = "linux/riscv64"
    data, images = several_platforms(foreign, host)
    (image,) = load(stores, io.BytesIO(data))
    assert image.manifest.digest == Digest.of(images[1][0])
    assert image.digest != image.manifest.digest
    assert get_image(stores, NAME).id == image.id
    collect(stores)
    assert stores.content.exists(Digest.of(images[0][2]))
    assert not stores.snapshots.exists(ImageConfig.parse(images[0][1]).chain_id)
    (again,) = load(other, io.BytesIO(saved(stores, image)))
    assert (again.digest, again.id) == (image.digest, image.id)
    assert other.content.exists(Digest.of(images[0][2]))


def test_platform_asked_for(stores: Stores) -> None:
    """Another platform than the host's is unpacked if asked for; one that is not there is refused."""
    foreign = "linux/riscv64"
    data, images = several_platforms(foreign, str(Platform.host()))
    (image,) = load(stores, io.BytesIO(data), platform=Platform.parse(foreign))
    assert image.manifest.digest == Digest.of(images[0][0])
    assert get_image(stores, NAME).id == image.id
    before = leftovers(stores)
    with pytest.raises(PlatformNotFound, match="s390x") as caught:
        load(stores, io.BytesIO(data), platform=Platform.parse("s390x"))
    assert set(caught.value.platforms) == {foreign, str(Platform.host())}
    with pytest.raises(PlatformNotFound, match="s390x"):
        load(stores, io.BytesIO(layout(layered(BASE))), platform=Platform.parse("s390x"))
    assert leftovers(stores) == before


def test_index_of_which_one_platform_is_there(stores: Stores) -> None:
    """Of an index most of which was left out of the archive, what is there is loaded."""
    host = str(Platform.host())
    data, images = several_platforms("linux/riscv64", host, missing=("linux/riscv64",))
    (image,) = load(stores, io.BytesIO(data))
    assert image.manifest.digest == Digest.of(images[1][0])


def test_index_of_which_only_a_foreign_platform_is_there(stores: Stores) -> None:
    """The only image of an archive is the one that is meant, even if this host cannot run it."""
    host = str(Platform.host())
    data, images = several_platforms("linux/riscv64", host, missing=(host,))
    (image,) = load(stores, io.BytesIO(data))
    assert image.manifest.digest == Digest.of(images[0][0])
    assert get_image(stores, NAME).id == image.id


def test_name_moves_to_the_loaded_image(stores: Stores) -> None:
    """An image whose name a loaded one takes stays, without the name."""
    old = make(stores, OTHER)
    (new,) = load(stores, io.BytesIO(archive(*old_docker(BASE))))
    assert get_image(stores, NAME).id == new.id
    assert get_image(stores, old.id).references == ()


def test_memory_stays_small(stores: Stores, other: Stores) -> None:
    """An archive of many blocks passes through a pipe-like stream that is read in bounded pieces."""
    layer = archive(file(b"large", os.urandom(1 << 20) * 8))
    data = saved(stores, make(stores, layer))

    class Narrow(io.BytesIO):
        largest = 0

        def read(self, size: int | None = -1, /) -> bytes:
            assert size is not None
            assert 0 <= size <= 1 << 20
            return super().read(min(size, 1000))

    (image,) = load(other, Narrow(data))
    assert image.layers[0].digest == Digest(f"sha256:{hashlib.sha256(layer).hexdigest()}")


def test_own_compressor_is_read_back() -> None:
    """What the compressor writes is what others decompress."""
    out = io.BytesIO()
    compressor = Compressor(out, "gzip")
    compressor.write(BASE)
    compressor.finish()
    assert gzip.decompress(out.getvalue()) == BASE
