"""What ``docker save`` writes: ``manifest.json`` beside configurations and layers.

The old form has no manifests. One is made for each image, over the configuration as it is and the layers as
they are in the archive, so the same archive gives the same image everywhere.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from containerlib._util import strict_json
from containerlib.errors import DigestMismatch, InvalidInputError, InvalidManifest, UnsupportedLayer
from containerlib.image.archive_tar import DOCUMENT_LIMITS
from containerlib.layer.compression import detect
from containerlib.oci import fields, media_type
from containerlib.oci.descriptor import Descriptor
from containerlib.oci.image_config import MAX_CONFIG_BYTES, ImageConfig
from containerlib.oci.manifest import MAX_LAYERS, Manifest

if TYPE_CHECKING:
    from containerlib.image.archive_spool import Spool
    from containerlib.image.archive_tar import TarContents
    from containerlib.store.content import Blob

__all__ = ["DockerImage", "build_manifest", "parse_manifest_json"]

_MAX_IMAGES = 1000
_MAGIC_BYTES = 6
_LAYER_TYPES = {
    "none": media_type.OCI_LAYER,
    "gzip": media_type.OCI_LAYER_GZIP,
    "zstd": media_type.OCI_LAYER_ZSTD,
}


@attrs.frozen
class DockerImage:
    """One entry of ``manifest.json``: names of files in the archive, and names for the image."""

    config: str
    layers: tuple[str, ...]
    names: tuple[str, ...]


def parse_manifest_json(raw: bytes) -> list[DockerImage]:
    """Parse ``manifest.json``.

    Raises:
        InvalidManifest: It is damaged, ambiguous, or over a limit.
    """
    try:
        document = strict_json.loads(raw, limit=DOCUMENT_LIMITS["manifest.json"], what="manifest.json")
        entries = fields.objects({"images": document}, "images")
        images = [
            DockerImage(
                fields.required_text(entry, "Config"),
                fields.texts(entry, "Layers"),
                fields.texts(entry, "RepoTags"),
            )
            for entry in entries
        ]
    except InvalidManifest:
        raise
    except InvalidInputError as error:
        raise InvalidManifest(str(error)) from None
    if not images or len(images) > _MAX_IMAGES:
        raise InvalidManifest(f"manifest.json: {len(images)} images, expected 1 to {_MAX_IMAGES}")
    for image in images:
        if len(image.layers) > MAX_LAYERS:
            raise InvalidManifest(f"manifest.json: an image of more than {MAX_LAYERS} layers")
    return images


def build_manifest(spool: Spool, contents: TarContents, image: DockerImage) -> Manifest:
    """Store and return a manifest for an image of the archive.

    Raises:
        InvalidManifest: The archive lacks a part of it, or its parts contradict each other.
        DigestMismatch: A layer is not what the configuration says.
    """
    config = ImageConfig.parse(
        spool.stores.content.read(contents.file(image.config).digest, limit=MAX_CONFIG_BYTES)
    )
    layers = [contents.file(name) for name in image.layers]
    if len(layers) != len(config.diff_ids):
        raise InvalidManifest(
            f"image {config.digest}: {len(layers)} layers but {len(config.diff_ids)} diff ids"
        )
    descriptors = [_layer(spool, blob) for blob in layers]
    for descriptor, diff_id in zip(descriptors, config.diff_ids, strict=True):
        if descriptor.media_type == media_type.OCI_LAYER and descriptor.digest != diff_id:
            raise DigestMismatch("layer", expected=diff_id, actual=descriptor.digest)
    manifest = Manifest.build(config.descriptor, descriptors)
    spool.put(manifest.raw)
    return manifest


def _layer(spool: Spool, blob: Blob) -> Descriptor:
    with spool.stores.content.open(blob.digest, buffer_bytes=0) as file:
        compression = detect(file.read(_MAGIC_BYTES))
    if compression not in _LAYER_TYPES:
        raise UnsupportedLayer(f"layer {blob.digest} is compressed by {compression}, which images do not use")
    return Descriptor(_LAYER_TYPES[compression], blob.digest, blob.size)
