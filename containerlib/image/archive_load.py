"""Loading images from archives: what ``docker save``, ``podman save`` and skopeo write, and OCI layouts.

What an archive is, is found from what is in it. Everything is stored, verified and unpacked before the first
name is set, so an archive is loaded whole or not at all.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, BinaryIO

import attrs

from containerlib.errors import (
    ImageNotFound,
    InvalidInputError,
    InvalidManifest,
    InvalidReference,
    PlatformNotFound,
)
from containerlib.image.archive_spool import Spool
from containerlib.image.archive_tar import read_tar
from containerlib.image.collect import discard
from containerlib.image.docker_archive import build_manifest, parse_manifest_json
from containerlib.image.image_record import load_config, load_image
from containerlib.image.naming import names_of, point, tell
from containerlib.image.oci_layout import LayoutDirectory, LayoutGraph, LayoutRoot, parse_layout
from containerlib.image.unpack import UnpackPolicy, unpack_image
from containerlib.layer.compression import decompressed
from containerlib.oci.descriptor import Descriptor
from containerlib.oci.digest import chain_ids
from containerlib.oci.manifest import Index, Manifest
from containerlib.oci.reference import Reference

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

    from containerlib.image.archive_tar import TarContents
    from containerlib.image.docker_archive import DockerImage
    from containerlib.image.image_record import ImageRecord
    from containerlib.oci.digest import ChainId, Digest
    from containerlib.oci.platform import Platform
    from containerlib.store.lease import Lease
    from containerlib.store.stores import Stores

__all__ = ["load"]

_BUFFER_BYTES = 1 << 20


@attrs.frozen
class _Found:
    """An image of the archive whose content is in the store.

    Attributes:
        target: What its names will point at: its manifest, or the index it was chosen from.
        names: Canonical names.
    """

    target: Descriptor
    manifest: Manifest
    names: tuple[str, ...]


def load(
    stores: Stores,
    source: str | BinaryIO,
    *,
    platform: Platform | None = None,
    only: str | None = None,
    keeps_names: bool = True,
    policy: UnpackPolicy | None = None,
) -> list[ImageRecord]:
    """Load the images of `source`.

    Args:
        stores: Where they go.
        source: Path of an archive or of an OCI layout directory; or a binary stream of an archive, which is
            not closed. An archive may be compressed by gzip, zstd, bzip2 or xz.
        platform: Which images to unpack where there are several for one name; this host's if None.
        only: Name of the one image to load: a reference, or what the layout's annotation calls it.
        keeps_names: Whether the images get the names that they have in the archive. Without them there can
            be only one image.
        policy: What layers may hold, and how far the archive may expand.

    Returns:
        The images in the order of the archive, with the names that they have now.

    Raises:
        InvalidInputError: `source` is not there, or holds no images; or a document of it is damaged.
        ImageNotFound: It has no image called `only`.
        InvalidReference: A name in it is not a name.
        PlatformNotFound: It has images, but not for `platform`.
        LayerError: It is damaged, over a limit or could harm the host.
        VerificationError: Content is not what its name or its descriptor says.
    """
    policy = policy or UnpackPolicy.of(stores)
    spool: Spool | None = None
    useful: frozenset[Digest] = frozenset()
    try:
        with stores.leases.acquire("load images") as lease:
            spool = Spool(stores, lease)
            found, useful = _read(spool, source, platform, only, policy)
            if not keeps_names:
                found = [attrs.evolve(image, names=()) for image in _single(found)]
            return _publish(stores, lease, found, platform, policy)
    except BaseException:
        useful = frozenset()
        raise
    finally:
        # Without the lease: what other images share is held by their names, the rest goes.
        if spool is not None and spool.stored - useful:
            discard(stores, spool.stored - useful)


def _read(
    spool: Spool,
    source: str | BinaryIO,
    platform: Platform | None,
    only: str | None,
    policy: UnpackPolicy,
) -> tuple[list[_Found], frozenset[Digest]]:
    """Store what `source` holds; return its images and all that they lead to."""
    if isinstance(source, str) and os.path.isdir(source):
        with _layout_directory(source) as directory:
            documents = directory.documents()
            _check_kind(documents, "index.json", "oci-layout")
            graph = LayoutGraph(spool, lambda descriptor: directory.provide(spool, descriptor))
            return _layout_images(graph, documents, platform, only)
    with _opened(source) as stream:
        contents = read_tar(decompressed(stream, limits=policy.decompression), spool)
    if {"index.json", "oci-layout"} <= contents.documents.keys():
        return _layout_images(LayoutGraph(spool, spool.has), contents.documents, platform, only)
    _check_kind(contents.documents, "manifest.json")
    return _docker_images(spool, contents, only)


def _single(found: Sequence[_Found]) -> Sequence[_Found]:
    if len(found) != 1:
        names = ", ".join(name for image in found for name in image.names) or "without names"
        raise InvalidInputError(f"the archive holds {len(found)} images ({names}): say which one")
    return found


def _check_kind(documents: Mapping[str, bytes], *needed: str) -> None:
    if not documents.keys() >= set(needed):
        raise InvalidInputError(
            "no archive of images: neither manifest.json nor oci-layout and index.json are in it; "
            "from_tar takes the archive of a root file system"
        )


def _layout_images(
    graph: LayoutGraph, documents: Mapping[str, bytes], platform: Platform | None, only: str | None
) -> tuple[list[_Found], frozenset[Digest]]:
    beside = parse_manifest_json(documents["manifest.json"]) if "manifest.json" in documents else []
    roots = parse_layout(documents["oci-layout"], documents["index.json"])
    if only is not None:
        called = {root.descriptor.digest: [*root.labels, *root.names] for root in roots}
        roots = [root for root in roots if _is_called(only, called[root.descriptor.digest])]
        _check_found(only, roots, [name for names in called.values() for name in names])
    found = [image for root in roots if (image := _root_image(graph, root, platform, beside)) is not None]
    if not found:
        raise InvalidManifest("index.json lists no image")
    return found, graph.reached


def _root_image(
    graph: LayoutGraph, root: LayoutRoot, platform: Platform | None, beside: Sequence[DockerImage]
) -> _Found | None:
    """Return the image of one entry of the index; None if that is no image but something beside one."""
    document = graph.add(root.descriptor)
    target = Descriptor(root.descriptor.media_type, root.descriptor.digest, root.descriptor.size)
    if document is None:
        raise InvalidManifest(f"index.json lists {target.digest}, which is not there")
    manifest = document
    if isinstance(document, Index):
        asked, manifest = graph.select(document, platform)
        target = attrs.evolve(target, platform=asked)
    if not isinstance(manifest, Manifest) or not manifest.is_image:
        return None
    for descriptor in (manifest.config, *manifest.layers):
        if not graph.is_here(descriptor):
            raise InvalidManifest(f"image {manifest.digest} needs {descriptor.digest}, which is not there")
    names = root.names or _names_beside(manifest, beside)
    return _Found(target, manifest, _canonical(names, target.digest))


def _names_beside(manifest: Manifest, beside: Sequence[DockerImage]) -> list[str]:
    """Return the names that Docker's document gives an image whose manifest has none."""
    return [
        name
        for image in beside
        if image.config.rpartition("/")[2].removesuffix(".json") == manifest.config.digest.hex
        for name in image.names
    ]


def _is_called(wanted: str, names: Sequence[str]) -> bool:
    """Say whether one of `names` means the same as `wanted`."""
    if wanted in names:
        return True
    with contextlib.suppress(InvalidReference):
        canonical = Reference.parse(wanted).canonical
        return any("/" in name or ":" in name for name in names) and canonical in _canonical_of(names)
    return False


def _canonical_of(names: Sequence[str]) -> set[str]:
    found = set()
    for name in names:
        with contextlib.suppress(InvalidReference):
            found.add(Reference.parse(name).canonical)
    return found


def _check_found(wanted: str, found: Sequence[object], names: Sequence[str]) -> None:
    if not found:
        there = ", ".join(dict.fromkeys(names)) or "none that has a name"
        raise ImageNotFound(f"no image is called {wanted!r} in the archive; there are: {there}")


def _docker_images(
    spool: Spool, contents: TarContents, only: str | None
) -> tuple[list[_Found], frozenset[Digest]]:
    found = []
    images = parse_manifest_json(contents.documents["manifest.json"])
    if only is not None:
        names = [name for image in images for name in image.names]
        images = [image for image in images if _is_called(only, image.names)]
        _check_found(only, images, names)
    for image in images:
        manifest = build_manifest(spool, contents, image)
        found.append(_Found(manifest.descriptor, manifest, _canonical(image.names, manifest.digest)))
    useful = {
        digest
        for image in found
        for digest in (
            image.manifest.digest,
            image.manifest.config.digest,
            *(layer.digest for layer in image.manifest.layers),
        )
    }
    return found, frozenset(useful)


def _canonical(names: Sequence[str], digest: Digest) -> tuple[str, ...]:
    """Return the names of an image in canonical form, checked."""
    result = []
    for name in names:
        reference = Reference.parse(name)
        if reference.digest is not None and reference.digest != digest:
            raise InvalidReference(f"image {digest} in the archive is called {name!r}, which is another one")
        result.append(reference.canonical)
    return tuple(dict.fromkeys(result))


def _publish(
    stores: Stores, lease: Lease, found: Sequence[_Found], platform: Platform | None, policy: UnpackPolicy
) -> list[ImageRecord]:
    """Unpack all images, then set their names."""
    names: set[ChainId] = set()
    for image in found:
        config = load_config(stores, image.manifest)
        if platform is not None and platform.best_of([config.platform]) is None:
            raise PlatformNotFound(
                f"image {config.digest} in the archive is for {config.platform}, not for {platform}",
                platforms=(str(config.platform),),
            )
        unpack_image(stores, lease, image.manifest, config, policy=policy)
        load_image(stores, image.target)
        names.update(chain_ids(config.diff_ids))
    stores.settle(names)
    for image in found:
        for name in image.names or (None,):
            point(stores, name, image.target)
    loaded = [load_image(stores, image.target, names_of(stores, image.target.digest)) for image in found]
    for record in loaded:
        tell(stores, "load", record.id, record.references[0] if record.references else "")
    return loaded


@contextlib.contextmanager
def _layout_directory(path: str) -> Iterator[LayoutDirectory]:
    root_fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    directory = LayoutDirectory(root_fd)
    try:
        yield directory
    finally:
        directory.close()
        os.close(root_fd)


def _opened(source: str | BinaryIO) -> AbstractContextManager[BinaryIO]:
    if not isinstance(source, str):
        return contextlib.nullcontext(source)
    try:
        return open(source, "rb", buffering=_BUFFER_BYTES)
    except FileNotFoundError:
        raise InvalidInputError(f"{source!r} is not there") from None
