"""Saving images into an archive or a directory that this and other programs can load.

The same images under the same names give the same bytes. All forms are OCI layouts; Docker's has a
``manifest.json`` besides, which older programs read instead of the index.
"""

from __future__ import annotations

import contextlib
import functools
import os
from typing import TYPE_CHECKING, BinaryIO, Literal

import attrs

from containerlib._util import strict_json
from containerlib._util.atomic_file import (
    make_directory,
    rename_directory,
    sync_filesystem,
    temporary_name,
)
from containerlib._util.disk_error import translated
from containerlib._util.remove_tree import remove_tree
from containerlib.errors import BlobNotFound, InvalidInputError, InvalidOption, InvalidReference
from containerlib.image.archive_spool import Spool
from containerlib.image.collect import discard
from containerlib.image.naming import tell
from containerlib.image.oci_layout import IMAGE_NAME, LAYOUT, REF_NAME, LayoutGraph
from containerlib.image.output import opened_output
from containerlib.layer.archive import LayerEntry, write_layer
from containerlib.layer.compress import Compression, Compressor
from containerlib.layer.compression import decompressed
from containerlib.oci import media_type
from containerlib.oci.descriptor import Descriptor
from containerlib.oci.manifest import Index, Manifest
from containerlib.oci.reference import Reference

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from containerlib.image.image_record import ImageRecord
    from containerlib.oci.digest import Digest
    from containerlib.store.stores import Stores

__all__ = ["SaveFormat", "names_for", "save"]

SaveFormat = Literal["docker", "oci", "oci-directory"]

_FORMATS = ("docker", "oci", "oci-directory")
_COPY_BYTES = 1 << 20
_LAYER_TYPES = {
    "none": media_type.OCI_LAYER,
    "gzip": media_type.OCI_LAYER_GZIP,
    "zstd": media_type.OCI_LAYER_ZSTD,
}


@attrs.frozen
class _Saved:
    """One image as it goes into the archive."""

    target: Descriptor
    manifest: Manifest
    names: tuple[Reference, ...]


def save(
    stores: Stores,
    images: Iterable[tuple[ImageRecord, Sequence[str]]],
    out: str | BinaryIO,
    *,
    format: SaveFormat = "docker",  # noqa: A002 - what every program calls it
    compression: Compression | None = None,
) -> None:
    """Write `images`, each with the names that it has in the archive.

    Args:
        stores: Where the images are.
        images: The images and names for them, which need not be names they have here.
        out: Path of the archive, or of the directory, which must not exist; or a binary stream for an
            archive, which is not closed. Under a path nothing is seen before it is complete; a pipe or
            device is written to as a stream.
        format: ``docker`` for what `docker save` writes, ``oci`` for an archive of an OCI layout,
            ``oci-directory`` for a directory.
        compression: None writes layers as they are stored, which keeps the digests of the images; otherwise
            layers are written anew and images get new digests, and of an image for several platforms only
            the one that is used here is written.

    Raises:
        InvalidReference: A name is not one.
        InvalidOption: There is no such format or compression.
        InvalidInputError: There is no image, or `out` is taken.
        BlobNotFound: Content of an image is missing.
        StoreCorrupted: Content of an image is damaged.
        StoreFull: There is no room where it goes.
    """
    if format not in _FORMATS:
        raise InvalidOption("format", format, f"expected one of {', '.join(_FORMATS)}")
    if compression is not None and compression not in _LAYER_TYPES:
        raise InvalidOption("compression", compression, f"expected one of {', '.join(_LAYER_TYPES)}")
    wanted = _merged(images)
    if not wanted:
        raise InvalidInputError("no image to save")
    made: dict[Digest, Descriptor] = {}
    try:
        with stores.leases.acquire("save images") as lease:
            spool = Spool(stores, lease)
            graph = LayoutGraph(spool, spool.has)
            saved = [
                _Saved(*_prepared(spool, graph, compression, made, image), tuple(names))
                for image, names in wanted
            ]
            blobs = [_blob(stores, digest) for digest in graph.reached if spool.is_here(digest)]
            write = _write_directory if format == "oci-directory" else _write_archive
            write([*_documents(saved, format), *blobs], out, durable=stores.durable)
        for image, _ in wanted:
            tell(stores, "save", image.id, image.references[0] if image.references else "")
    finally:
        if made:
            discard(stores, [descriptor.digest for descriptor in made.values()])


def names_for(image: ImageRecord, asked: str) -> Sequence[str]:
    """Return the names for an image that was asked for as `asked`: that name, or all it has for an id."""
    with contextlib.suppress(InvalidReference):
        if Reference.parse(asked).canonical in image.references:
            return (asked,)
    beginning = asked.removeprefix("sha256:")
    is_id = any(digest.hex.startswith(beginning) for digest in (image.id, image.digest))
    return image.references if is_id else (asked,)


def _merged(images: Iterable[tuple[ImageRecord, Sequence[str]]]) -> list[tuple[ImageRecord, list[Reference]]]:
    """Return each image once, with all its names, checked."""
    wanted: dict[Digest, tuple[ImageRecord, list[Reference]]] = {}
    for image, names in images:
        _, known = wanted.setdefault(image.digest, (image, []))
        for name in names:
            reference = Reference.parse(name)
            if reference.digest is None and reference not in known:
                known.append(reference)
    return list(wanted.values())


def _prepared(
    spool: Spool,
    graph: LayoutGraph,
    compression: Compression | None,
    made: dict[Digest, Descriptor],
    image: ImageRecord,
) -> tuple[Descriptor, Manifest]:
    """Return what stands for `image` in the archive, with all its content protected."""
    manifest = image.manifest
    target = manifest.descriptor
    if compression is not None:
        layers = [_compressed(spool, layer, compression, made) for layer in manifest.layers]
        manifest = Manifest.build(manifest.config, layers, manifest.annotations)
        target = manifest.descriptor
        made[target.digest] = target
        spool.put(manifest.raw)
    elif image.digest != manifest.digest:
        target = Descriptor(image.target.media_type, image.digest, image.target.size)
    graph.add(target)
    for descriptor in (target, manifest.descriptor, manifest.config, *manifest.layers):
        if not graph.is_here(descriptor):
            raise BlobNotFound(f"image {image.digest} lacks {descriptor.digest}; pull or load it again")
    return target, manifest


def _compressed(
    spool: Spool, layer: Descriptor, compression: Compression, made: dict[Digest, Descriptor]
) -> Descriptor:
    """Return a layer with this compression, and remember it if it had to be made."""
    if media_type.layer_compression(layer.media_type) == compression:
        return layer
    if layer.digest not in made:
        if not spool.has(layer):
            raise BlobNotFound(f"no blob {layer.digest}")
        with spool.stores.content.open_verified(layer.digest) as stored, spool.writer() as writer:
            compressor = Compressor(writer, compression)
            plain = decompressed(stored)
            while chunk := plain.read(_COPY_BYTES):
                compressor.write(chunk)
            compressor.finish()
            blob = spool.commit(writer)
        made[layer.digest] = Descriptor(_LAYER_TYPES[compression], blob.digest, blob.size)
    return made[layer.digest]


def _documents(saved: Sequence[_Saved], save_format: SaveFormat) -> list[LayerEntry]:
    """Return the documents at the top of the layout."""
    documents = {"oci-layout": LAYOUT, "index.json": _index(saved, save_format)}
    if save_format == "docker":
        documents["manifest.json"] = strict_json.dumps([_docker_entry(image) for image in saved])
    return [LayerEntry(name, source=data, mode=0o644) for name, data in documents.items()]


def _index(saved: Sequence[_Saved], save_format: SaveFormat) -> bytes:
    entries = []
    for image in saved:
        for name in image.names:
            # Docker writes the tag alone; other programs take this annotation for the whole name.
            ref_name = str(name.tag) if save_format == "docker" else name.canonical
            annotations = {IMAGE_NAME: name.canonical, REF_NAME: ref_name}
            entries.append(attrs.evolve(image.target, annotations=annotations))
        if not image.names:
            entries.append(image.target)
    return Index.build(entries).raw


def _docker_entry(image: _Saved) -> dict[str, object]:
    return {
        "Config": _blob_name(image.manifest.config.digest),
        "RepoTags": [name.familiar for name in image.names] or None,
        "Layers": [_blob_name(layer.digest) for layer in image.manifest.layers],
    }


def _blob_name(digest: Digest) -> str:
    return f"blobs/{digest.algorithm}/{digest.hex}"


def _blob(stores: Stores, digest: Digest) -> LayerEntry:
    source = functools.partial(stores.content.open_verified, digest)
    size = os.stat(stores.layout.blob(digest), follow_symlinks=False).st_size
    return LayerEntry(_blob_name(digest), source=source, size=size, mode=0o644)


def _write_archive(entries: Sequence[LayerEntry], out: str | BinaryIO, *, durable: bool) -> None:
    with opened_output(out, durable=durable) as sink:
        write_layer(entries, sink)


def _write_directory(entries: Sequence[LayerEntry], out: str | BinaryIO, *, durable: bool) -> None:
    if not isinstance(out, str):
        raise InvalidOption("format", "oci-directory", "a directory needs a path, not a stream")
    path = os.path.abspath(out)
    if os.path.lexists(path):
        raise InvalidInputError(f"{out!r} exists already")
    _check_parent(path)
    temporary = f"{os.path.dirname(path)}/{temporary_name()}"
    try:
        for entry in entries:
            target = f"{temporary}/{entry.path}"
            make_directory(os.path.dirname(target), 0o755)
            _write_file(entry, target)
        if durable:
            sync_filesystem()
        if not rename_directory(temporary, path, durable=durable):
            raise InvalidInputError(f"{out!r} exists already")
    finally:
        remove_tree(temporary)


def _check_parent(path: str) -> None:
    parent = os.path.dirname(path)
    if not os.path.isdir(parent):
        raise InvalidInputError(f"{parent!r} is not a directory")


def _write_file(entry: LayerEntry, path: str) -> None:
    with translated(path), open(path, "xb") as file:
        if isinstance(entry.source, bytes):
            file.write(entry.source)
        elif callable(entry.source):
            source = entry.source()
            with open(source, "rb", buffering=0) if isinstance(source, int) else source as stored:
                while chunk := stored.read(_COPY_BYTES):
                    file.write(chunk)
        os.fchmod(file.fileno(), 0o644)
