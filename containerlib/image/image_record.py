"""An image of the store as one value: everything that is known about it, derived from bytes that are kept."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import attrs

from containerlib.errors import InvalidManifest, PlatformNotFound
from containerlib.oci.image_config import MAX_CONFIG_BYTES, ImageConfig
from containerlib.oci.manifest import MAX_MANIFEST_BYTES, Index, Manifest, parse_manifest
from containerlib.oci.platform import Platform

if TYPE_CHECKING:
    from containerlib.oci.descriptor import Descriptor
    from containerlib.oci.digest import ChainId, Digest
    from containerlib.store.stores import Stores

__all__ = [
    "MAX_INDEX_DEPTH",
    "ImageRecord",
    "load_config",
    "load_image",
    "load_manifest",
    "platform_not_found",
]

MAX_INDEX_DEPTH = 4


@attrs.frozen(eq=False)
class ImageRecord:
    """One image.

    Attributes:
        id: Digest of the configuration; what Docker calls the image id.
        target: What its names point at: its manifest, or an index that has it for the target's platform.
        digest: Digest of the target.
        references: Names that point at it, in canonical form, sorted.
        chain_id: Name of its stack of layers; None if it has no layer.
        lowers: Directories to stack, absolute, top-most first.
        size_bytes: Size of its blobs: manifest, configuration and layers as stored.
    """

    id: Digest
    target: Descriptor
    references: tuple[str, ...]
    config: ImageConfig = attrs.field(repr=False)
    manifest: Manifest = attrs.field(repr=False)
    chain_id: ChainId | None
    lowers: tuple[str, ...] = attrs.field(repr=False)
    size_bytes: int

    @property
    def digest(self) -> Digest:
        """Digest of what its names point at."""
        return self.target.digest

    @property
    def layers(self) -> tuple[Descriptor, ...]:
        """The layers as stored, lowest first."""
        return self.manifest.layers


def load_image(stores: Stores, target: Descriptor, references: tuple[str, ...] = ()) -> ImageRecord:
    """Read the image that `target` points at, directly or through an index of manifests.

    What was read before is remembered; then only the presence of its content is looked at.

    Raises:
        BlobNotFound: Part of it is missing.
        SnapshotNotFound: It was never unpacked.
        InvalidManifest: It is not a container image.
        PlatformNotFound: It is an index without the wanted platform.
    """
    known = stores.derived.get(target.digest)
    if isinstance(known, ImageRecord) and known.target == target and _is_present(stores, known):
        return attrs.evolve(known, references=references)
    image = _read_image(stores, target)
    stores.derived.put(target.digest, image)
    return attrs.evolve(image, references=references)


def _is_present(stores: Stores, image: ImageRecord) -> bool:
    digests = {image.digest, image.manifest.digest, image.id}
    return all(map(stores.content.exists, digests)) and all(map(os.path.exists, image.lowers))


def _read_image(stores: Stores, target: Descriptor) -> ImageRecord:
    manifest = load_manifest(stores, target)
    config = load_config(stores, manifest)
    chain_id = config.chain_id if config.diff_ids else None
    return ImageRecord(
        id=config.digest,
        target=target,
        references=(),
        config=config,
        manifest=manifest,
        chain_id=chain_id,
        lowers=tuple(stores.snapshots.lowers(chain_id)) if chain_id is not None else (),
        size_bytes=len(manifest.raw) + len(config.raw) + sum(layer.size for layer in manifest.layers),
    )


def load_manifest(stores: Stores, target: Descriptor) -> Manifest:
    """Read the manifest that `target` points at.

    Of an index it is the manifest for the target's platform. A target that names none means this host's, or
    else the only image of the index that is in the store.
    """
    document = _parse(stores, target)
    for _ in range(MAX_INDEX_DEPTH):
        if not isinstance(document, Index):
            break
        document = _parse(stores, _select(stores, document, target.platform))
    if isinstance(document, Index) or not document.is_image:
        raise InvalidManifest(f"manifest {target.digest} is not a container image")
    return document


def _parse(stores: Stores, target: Descriptor) -> Manifest | Index:
    return parse_manifest(stores.content.read(target.digest, limit=MAX_MANIFEST_BYTES), target.media_type)


def _select(stores: Stores, index: Index, platform: Platform | None) -> Descriptor:
    chosen = index.select(platform)
    present = [entry for entry in index.manifests if stores.content.exists(entry.digest)]
    if chosen is not None and (chosen in present or platform is not None):
        return chosen
    images = [entry for entry in present if entry.platform is None or entry.platform.os != "unknown"]
    if platform is None and len(images) == 1:
        return images[0]
    if chosen is not None:
        return chosen
    raise platform_not_found(f"index {index.digest}", index, platform)


def platform_not_found(what: str, index: Index, platform: Platform | None) -> PlatformNotFound:
    """Return the error for an index without an image for `platform`, this host's if None."""
    wanted = Platform.host() if platform is None else platform
    known = tuple(str(entry.platform) for entry in index.manifests if entry.platform is not None)
    there = ", ".join(name for name in known if not name.startswith("unknown")) or "none"
    return PlatformNotFound(f"{what} has no image for {wanted}; there are: {there}", platforms=known)


def load_config(stores: Stores, manifest: Manifest) -> ImageConfig:
    """Read the configuration `manifest` points at, which must be about the same number of layers."""
    config = ImageConfig.parse(stores.content.read_descriptor(manifest.config, limit=MAX_CONFIG_BYTES))
    if len(config.diff_ids) != len(manifest.layers):
        raise InvalidManifest(
            f"image {config.digest}: {len(manifest.layers)} layers but {len(config.diff_ids)} diff ids"
        )
    return config
