"""Archives of images that are wrong: each is refused with the right error, and nothing is left."""

from __future__ import annotations

import gzip
import io
import os
from typing import TYPE_CHECKING

import pytest
from support.archives import archive, file, header, member, symlink
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
)

import containerlib as cl
from containerlib.errors import (
    ContainerlibError,
    DigestMismatch,
    InvalidInputError,
    InvalidManifest,
    InvalidReference,
    LayerError,
    SizeMismatch,
    UnsafePath,
    UnsupportedLayer,
)
from containerlib.image.archive_load import load
from containerlib.image.archive_save import save
from containerlib.image.collect import collect
from containerlib.image.resolve import get_image
from containerlib.oci import media_type
from containerlib.oci.descriptor import Descriptor
from containerlib.oci.digest import Digest
from containerlib.oci.image_config import ImageConfig
from containerlib.oci.manifest import Index, Manifest
from containerlib.store.stores import Stores

if TYPE_CHECKING:
    from pathlib import Path

    from containerlib import Engine

pytestmark = pytest.mark.root


@pytest.fixture
def stores(tmp_path: Path) -> Stores:
    """Give empty stores."""
    return Stores.open(f"{tmp_path}/root", f"{tmp_path}/run", durable=False)


def bad_archives() -> dict[str, tuple[type[ContainerlibError], bytes]]:
    """Return archives that are wrong, each with the error that says so."""
    parts = layered(BASE, UPPER)
    good = layout(parts, io_containerd_image_name=NAME)
    index = file(b"index.json", index_of(parts[0], io_containerd_image_name=NAME))
    blobs = list(map(blob, parts))
    old = old_docker(BASE, UPPER)
    first = b"%064x/layer.tar" % 0
    config = ImageConfig.build([Digest.of(OTHER)]).raw
    wrong = Manifest.build(
        Descriptor.of(config, media_type.OCI_CONFIG), [Descriptor.of(BASE, media_type.OCI_LAYER)]
    ).raw
    longer = Descriptor(media_type.OCI_MANIFEST, Digest.of(parts[0]), len(parts[0]) + 1)
    twice = b'[{"Config":"a","Config":"b","Layers":[]}]'
    deep = [parts[0]]
    for _ in range(6):
        kind = media_type.OCI_MANIFEST if len(deep) == 1 else media_type.OCI_INDEX
        deep.append(Index.build([Descriptor.of(deep[-1], kind)]).raw)
    return {
        "empty": (InvalidInputError, archive()),
        "no tar": (LayerError, b"x" * 2000),
        "no documents": (InvalidInputError, archive(file(b"etc/passwd"))),
        "no layout file": (InvalidInputError, archive(index, *blobs)),
        "unknown version": (
            InvalidManifest,
            archive(file(b"oci-layout", b'{"imageLayoutVersion":"2.0.0"}'), index, *blobs),
        ),
        "missing manifest": (InvalidManifest, archive(LAYOUT, index, *blobs[1:])),
        "missing layer": (InvalidManifest, archive(LAYOUT, index, *blobs[:-1])),
        "missing configuration": (InvalidManifest, archive(LAYOUT, index, blobs[0], *blobs[2:])),
        "wrong digest": (
            DigestMismatch,
            archive(LAYOUT, index, *blobs[1:], file(b"blobs/sha256/" + b"0" * 64, b"x")),
        ),
        "wrong size": (
            SizeMismatch,
            archive(LAYOUT, file(b"index.json", Index.build([longer]).raw), *blobs),
        ),
        "no digest": (InvalidInputError, archive(LAYOUT, index, file(b"blobs/sha256/x", b"x"))),
        "other algorithm": (InvalidInputError, archive(LAYOUT, index, file(b"blobs/md5/" + b"0" * 32))),
        "climbing name": (UnsafePath, archive(file(b"../x"), LAYOUT, index, *blobs)),
        "climbing digest": (UnsafePath, archive(LAYOUT, index, file(b"blobs/sha256/../../../x"), *blobs)),
        "device": (UnsafePath, archive(member(b"x.tar", b"3", major=1, minor=3), LAYOUT, index)),
        "link out of it": (
            UnsafePath,
            archive(symlink(first, b"../../etc/passwd"), *old[3:]),
        ),
        "absolute link": (UnsafePath, archive(symlink(first, b"/etc/passwd"), *old[4:])),
        "link to nothing": (InvalidManifest, archive(symlink(first, b"../x.tar"), *old[4:])),
        "link to itself": (InvalidManifest, archive(symlink(first, b"layer.tar"), *old[4:])),
        "missing old layer": (InvalidManifest, archive(*old[4:])),
        "name that climbs": (
            UnsafePath,
            archive(file(b"manifest.json", b'[{"Config":"../x","Layers":[]}]')),
        ),
        "huge claim": (InvalidManifest, archive(member(b"index.json", b"0", size=1 << 32))),
        "huge index": (InvalidManifest, archive(LAYOUT, file(b"index.json", b" " * ((4 << 20) + 1)))),
        "huge configuration": (InvalidManifest, archive(member(b"c.json", b"0", size=1 << 30))),
        "truncated": (UnsupportedLayer, good[: len(good) // 2]),
        "truncated gzip": (UnsupportedLayer, gzip.compress(good)[:-20]),
        "no end mark in a member": (UnsupportedLayer, good[:530]),
        "duplicate keys": (InvalidManifest, archive(file(b"manifest.json", twice))),
        "duplicate keys in the index": (
            InvalidManifest,
            archive(LAYOUT, file(b"index.json", b'{"schemaVersion":2,"manifests":[],"manifests":[]}')),
        ),
        "not a list": (InvalidManifest, archive(file(b"manifest.json", b"{}"))),
        "no images": (InvalidManifest, archive(file(b"manifest.json", b"[]"))),
        "index without images": (InvalidManifest, archive(LAYOUT, file(b"index.json", Index.build([]).raw))),
        "two documents": (UnsupportedLayer, archive(LAYOUT, index, file(b"index.json", b"{}"))),
        "two layers of one name": (UnsupportedLayer, archive(file(b"a.tar", b"1"), file(b"a.tar", b"2"))),
        "bad name": (InvalidReference, layout(parts, io_containerd_image_name="Not/A/Name")),
        "bad tag": (InvalidReference, archive(*old_docker(BASE, tags=("hello:1", "../x")))),
        "name of another": (
            InvalidReference,
            layout(parts, io_containerd_image_name=f"x@sha256:{'0' * 64}"),
        ),
        "wrong configuration name": (
            DigestMismatch,
            archive(*old[:8], file(b"0" * 64 + b".json", b"{}"), *old[9:]),
        ),
        "wrong diff id": (
            DigestMismatch,
            archive(LAYOUT, file(b"index.json", index_of(wrong)), blob(wrong), blob(config), blob(BASE)),
        ),
        "layers and diff ids": (
            InvalidManifest,
            archive(file(b"c.json", config), file(b"manifest.json", b'[{"Config":"c.json","Layers":[]}]')),
        ),
        "too deep": (
            InvalidManifest,
            archive(
                *(LAYOUT, file(b"index.json", index_of(deep[-1], media_type.OCI_INDEX))),
                *map(blob, [*deep, *parts[1:]]),
            ),
        ),
        "second layer refused": (UnsafePath, layout(layered(BASE, archive(file(b"../x"))))),
    }


@pytest.mark.parametrize("case", bad_archives())
def test_bad_archives(stores: Stores, case: str) -> None:
    """A bad archive is refused with the right error; not even content that was right stays."""
    expected, data = bad_archives()[case]
    with pytest.raises(expected) as caught:
        load(stores, io.BytesIO(data))
    assert isinstance(caught.value, ContainerlibError)
    assert [name for name in leftovers(stores) if not name.startswith("snapshots/")] == []
    collect(stores)
    assert leftovers(stores) == []


def test_bomb(stores: Stores) -> None:
    """A small file that expands to a huge archive is refused on the way."""
    data = gzip.compress(header(b"a.tar", size=100 << 20) + bytes(100 << 20), 9)
    with pytest.raises(UnsupportedLayer, match="expand"):
        load(stores, io.BytesIO(data))
    assert leftovers(stores) == []


def test_archives_cut_off_anywhere(stores: Stores) -> None:
    """An archive that ends at any block is refused, or lacks its end mark only."""
    data = layout(layered(BASE, compress=False))
    for end in range(0, len(data) - 1024, 512):
        with pytest.raises(ContainerlibError):
            load(stores, io.BytesIO(data[:end]))
    assert [name for name in leftovers(stores) if not name.startswith("snapshots/")] == []


def test_failed_load_spares_what_was_there(stores: Stores) -> None:
    """Content that an image of the store has stays when an archive with the same content fails."""
    image = make(stores, BASE, UPPER)
    before = leftovers(stores)
    parts = layered(BASE, UPPER, compress=False)
    with pytest.raises(InvalidManifest):
        load(
            stores,
            io.BytesIO(archive(LAYOUT, file(b"index.json", index_of(parts[0])), *map(blob, parts[1:]))),
        )
    assert leftovers(stores) == before
    assert get_image(stores, NAME).id == image.id


def test_useless_content_is_not_kept(stores: Stores) -> None:
    """What an archive holds beside its images does not stay in the store."""
    parts = layered(BASE)
    data = archive(
        *(LAYOUT, file(b"index.json", index_of(parts[0])), *map(blob, parts)),
        *(blob(b"unused"), file(b"unused.tar", b"x"), file(b"README", b"x")),
    )
    load(stores, io.BytesIO(data))
    assert {blob.digest for blob in stores.content.list()} == set(map(Digest.of, parts))


def test_links_in_a_layout_directory_are_not_followed(stores: Stores, tmp_path: Path) -> None:
    """A blob of a layout directory that is a link is refused, whatever it leads to."""
    image = make(stores, BASE)
    save(stores, [(image, ())], f"{tmp_path}/layout", format="oci-directory")
    layer = f"{tmp_path}/layout/blobs/sha256/{Digest.of(BASE).hex}"
    os.rename(layer, f"{tmp_path}/elsewhere")
    os.symlink(f"{tmp_path}/elsewhere", layer)
    fresh = Stores.open(f"{tmp_path}/fresh", f"{tmp_path}/run", durable=False)
    with pytest.raises(UnsafePath):
        load(fresh, f"{tmp_path}/layout")
    os.unlink(layer)
    with pytest.raises(InvalidManifest, match="not there"):
        load(fresh, f"{tmp_path}/layout")
    with open(layer, "wb") as damaged:
        damaged.write(bytes(len(BASE)))
    with pytest.raises(DigestMismatch):
        load(fresh, f"{tmp_path}/layout")
    with pytest.raises(InvalidInputError, match="no archive"):
        load(fresh, str(tmp_path))
    with pytest.raises(InvalidInputError, match="not there"):
        load(fresh, f"{tmp_path}/missing")
    assert leftovers(fresh) == []


@pytest.mark.parametrize("name", ["index.json", "oci-layout", "blob"])
def test_pipes_in_a_layout_directory_are_not_waited_for(stores: Stores, tmp_path: Path, name: str) -> None:
    """A pipe in place of a file of a layout is refused, not read."""
    image = make(stores, BASE)
    save(stores, [(image, ())], f"{tmp_path}/layout", format="oci-directory")
    path = f"{tmp_path}/layout/{name if name != 'blob' else 'blobs/sha256/' + image.id.hex}"
    os.unlink(path)
    os.mkfifo(path)
    fresh = Stores.open(f"{tmp_path}/fresh", f"{tmp_path}/run", durable=False)
    with pytest.raises(UnsafePath, match="not a regular file"):
        load(fresh, f"{tmp_path}/layout")
    assert leftovers(fresh) == []


@pytest.mark.parametrize("make", ["load", "from_tar"])
def test_what_is_no_archive_at_all(engine: Engine, tmp_path: Path, make: str) -> None:
    """A file of another kind is said to be one, and not to be a damaged archive."""
    path = tmp_path / "notes.txt"
    path.write_text("root:x:0:0:root:/root:/bin/sh\n" * 100)
    with pytest.raises(cl.ContainerlibError, match="does not begin with the header of a tar archive"):
        getattr(engine.images, make)(path)
    assert engine.images.list() == []
