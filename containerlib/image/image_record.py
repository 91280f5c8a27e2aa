"""An image of the store as one value: everything that is known about it, derived from bytes that are kept."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import attrs

from containerlib.errors import InvalidManifest
from containerlib.oci.image_config import MAX_CONFIG_BYTES, ImageConfig
from containerlib.oci.manifest import MAX_MANIFEST_BYTES, Index, Manifest, parse_manifest

if TYPE_CHECKING:
    from containerlib.oci.descriptor import Descriptor
    from containerlib.oci.digest import ChainId, Digest
    from containerlib.store.stores import Stores

__all__ = ["ImageRecord", "load_config", "load_image", "load_manifest"]


@attrs.frozen(eq=False)
class ImageRecord:
    """One image.

    Attributes:
        id: Digest of the configuration; what Docker calls the image id.
        digest: Digest of the manifest.
        references: Names that point at it, in canonical form, sorted.
        chain_id: Name of its stack of layers; None if it has no layer.
        lowers: Directories to stack, absolute, top-most first.
        size_bytes: Size of its blobs: manifest, configuration and layers as stored.
    """

    id: Digest
    digest: Digest
    references: tuple[str, ...]
    config: ImageConfig = attrs.field(repr=False)
    manifest: Manifest = attrs.field(repr=False)
    chain_id: ChainId | None
    lowers: tuple[str, ...] = attrs.field(repr=False)
    size_bytes: int

    @property
    def layers(self) -> tuple[Descriptor, ...]:
        """The layers as stored, lowest first."""
        return self.manifest.layers


def load_image(stores: Stores, digest: Digest, references: tuple[str, ...] = ()) -> ImageRecord:
    """Read the image whose manifest (or index of manifests) has this digest.

    What was read before is remembered; then only the presence of its content is looked at.

    Raises:
        BlobNotFound: Part of it is missing.
        SnapshotNotFound: It was never unpacked.
        InvalidManifest: It is not a container image, or not for this platform.
    """
    known = stores.derived.get(digest)
    if isinstance(known, ImageRecord) and _is_present(stores, known):
        return attrs.evolve(known, references=references)
    image = _read_image(stores, digest)
    stores.derived.put(digest, image)
    return attrs.evolve(image, references=references)


def _is_present(stores: Stores, image: ImageRecord) -> bool:
    digests = {image.digest, image.manifest.digest, image.id}
    return all(map(stores.content.exists, digests)) and all(map(os.path.exists, image.lowers))


def _read_image(stores: Stores, digest: Digest) -> ImageRecord:
    manifest = load_manifest(stores, digest)
    config = load_config(stores, manifest)
    chain_id = config.chain_id if config.diff_ids else None
    return ImageRecord(
        id=config.digest,
        digest=digest,
        references=(),
        config=config,
        manifest=manifest,
        chain_id=chain_id,
        lowers=tuple(stores.snapshots.lowers(chain_id)) if chain_id is not None else (),
        size_bytes=len(manifest.raw) + len(config.raw) + sum(layer.size for layer in manifest.layers),
    )


def load_manifest(stores: Stores, digest: Digest) -> Manifest:
    """Read a manifest; of an index, the manifest that this host runs best and that is in the store."""
    document = parse_manifest(stores.content.read(digest, limit=MAX_MANIFEST_BYTES))
    if isinstance(document, Index):
        entry = document.select()
        if entry is None:
            raise InvalidManifest(f"index {digest} has no image for this platform")
        document = parse_manifest(
            stores.content.read_descriptor(entry, limit=MAX_MANIFEST_BYTES), entry.media_type
        )
    if isinstance(document, Index) or not document.is_image:
        raise InvalidManifest(f"manifest {digest} is not a container image")
    return document


def load_config(stores: Stores, manifest: Manifest) -> ImageConfig:
    """Read the configuration `manifest` points at, which must be about the same number of layers."""
    config = ImageConfig.parse(stores.content.read_descriptor(manifest.config, limit=MAX_CONFIG_BYTES))
    if len(config.diff_ids) != len(manifest.layers):
        raise InvalidManifest(
            f"image {config.digest}: {len(manifest.layers)} layers but {len(config.diff_ids)} diff ids"
        )
    return config
