"""Archives of images made by hand, so that they can be wrong, and what a store has of them."""

from __future__ import annotations

import gzip
import io
import json
import os
from typing import TYPE_CHECKING

from support.archives import archive, directory, file, symlink

from containerlib.image.archive_save import SaveFormat, save
from containerlib.image.assemble import complete_image
from containerlib.oci import media_type
from containerlib.oci.descriptor import Descriptor
from containerlib.oci.digest import Digest
from containerlib.oci.image_config import Config, ImageConfig
from containerlib.oci.manifest import Index, Manifest

if TYPE_CHECKING:
    from containerlib.image.image_record import ImageRecord
    from containerlib.oci.platform import Platform
    from containerlib.store.stores import Stores

__all__ = [
    "BASE",
    "LAYOUT",
    "NAME",
    "OTHER",
    "UPPER",
    "blob",
    "index_of",
    "layered",
    "layout",
    "leftovers",
    "make",
    "old_docker",
    "saved",
]

BASE = archive(directory(b"bin"), file(b"bin/a", b"a" * 1000), file(b"bin/b", b"b"), symlink(b"c", b"bin/a"))
UPPER = archive(directory(b"bin"), file(b"bin/.wh.b", b""), file(b"bin/a", b"new"))
OTHER = archive(file(b"other", b"o" * 70_000))
NAME = "docker.io/library/hello:1"
LAYOUT = file(b"oci-layout", b'{"imageLayoutVersion":"1.0.0"}')


def make(stores: Stores, *layers: bytes, name: str | None = NAME, cmd: str = "/bin/a") -> ImageRecord:
    """Make an image of uncompressed layers."""
    with stores.leases.acquire("test") as lease:
        blobs = []
        for layer in layers:
            lease.protect([Digest.of(layer)])
            blobs.append(stores.content.put(layer))
        return complete_image(stores, lease, blobs, config=Config(cmd=(cmd,)), reference=name)


def leftovers(stores: Stores) -> list[str]:
    """Return every file of the store but lock files."""
    return sorted(
        os.path.relpath(os.path.join(top, name), stores.layout.root)
        for kind in ("blobs", "snapshots", "references", "leases")
        for top, _, names in os.walk(f"{stores.layout.root}/{kind}")
        for name in names
        if not name.endswith(".lock")
    )


def saved(stores: Stores, *images: ImageRecord, form: SaveFormat = "docker") -> bytes:
    """Return the archive of images under the names that they have."""
    out = io.BytesIO()
    save(stores, [(image, image.references) for image in images], out, format=form)
    return out.getvalue()


def blob(data: bytes) -> bytes:
    """Return the member of a layout that holds `data`."""
    return file(b"blobs/sha256/" + Digest.of(data).hex.encode(), data)


def layered(*layers: bytes, platform: Platform | None = None, compress: bool = True) -> list[bytes]:
    """Return manifest, configuration and layers of an image, as they lie in a layout."""
    config = ImageConfig.build([Digest.of(layer) for layer in layers], platform=platform)
    blobs = [gzip.compress(layer, mtime=0) if compress else layer for layer in layers]
    kind = media_type.OCI_LAYER_GZIP if compress else media_type.OCI_LAYER
    manifest = Manifest.build(config.descriptor, [Descriptor.of(data, kind) for data in blobs])
    return [manifest.raw, config.raw, *blobs]


def index_of(raw: bytes, kind: str = media_type.OCI_MANIFEST, **annotations: str) -> bytes:
    """Return an index.json with one entry."""
    names = {key.replace("_", "."): value for key, value in annotations.items()}
    return Index.build([Descriptor(kind, Digest.of(raw), len(raw), annotations=names)]).raw


def layout(parts: list[bytes], **annotations: str) -> bytes:
    """Return the archive of a layout with one image."""
    return archive(LAYOUT, file(b"index.json", index_of(parts[0], **annotations)), *map(blob, parts))


def old_docker(*layers: bytes, tags: tuple[str, ...] = ("hello:1",)) -> list[bytes]:
    """Return the members of what Docker wrote before version 25."""
    config = ImageConfig.build([Digest.of(layer) for layer in layers]).raw
    members, names = [], []
    for number, layer in enumerate(layers):
        top = b"%064x" % number
        members += [
            *(directory(top + b"/"), file(top + b"/VERSION", b"1.0"), file(top + b"/json", b"{}")),
            file(top + b"/layer.tar", layer),
        ]
        names.append((top + b"/layer.tar").decode())
    digits = Digest.of(config).hex
    entry = {"Config": f"{digits}.json", "RepoTags": list(tags), "Layers": names}
    return [
        *members,
        file(f"{digits}.json".encode(), config),
        file(b"manifest.json", json.dumps([entry]).encode()),
        file(b"repositories", b"{}"),
    ]
