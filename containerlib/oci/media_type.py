"""Media types of images, and what follows from them. Tables only."""

from __future__ import annotations

from containerlib.errors import InvalidManifest

__all__ = [
    "DOCKER_CONFIG",
    "DOCKER_INDEX",
    "DOCKER_LAYER_GZIP",
    "DOCKER_MANIFEST",
    "EMPTY",
    "OCI_CONFIG",
    "OCI_INDEX",
    "OCI_LAYER",
    "OCI_LAYER_GZIP",
    "OCI_LAYER_ZSTD",
    "OCI_MANIFEST",
    "is_config",
    "is_foreign_layer",
    "is_index",
    "is_layer",
    "is_manifest",
    "layer_compression",
]

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
OCI_LAYER_GZIP = OCI_LAYER + "+gzip"
OCI_LAYER_ZSTD = OCI_LAYER + "+zstd"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER_GZIP = "application/vnd.docker.image.rootfs.diff.tar.gzip"
EMPTY = "application/vnd.oci.empty.v1+json"

_OCI_FOREIGN = "application/vnd.oci.image.layer.nondistributable.v1.tar"

_LAYERS = {
    OCI_LAYER: "none",
    OCI_LAYER_GZIP: "gzip",
    OCI_LAYER_ZSTD: "zstd",
    _OCI_FOREIGN: "none",
    _OCI_FOREIGN + "+gzip": "gzip",
    _OCI_FOREIGN + "+zstd": "zstd",
    "application/vnd.docker.image.rootfs.diff.tar": "none",
    DOCKER_LAYER_GZIP: "gzip",
    "application/vnd.docker.image.rootfs.diff.tar.zstd": "zstd",
    "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip": "gzip",
}


def is_index(media_type: str) -> bool:
    """Say whether `media_type` is a list of manifests, in OCI's or Docker's words."""
    return media_type in {OCI_INDEX, DOCKER_INDEX}


def is_manifest(media_type: str) -> bool:
    """Say whether `media_type` is the manifest of one image."""
    return media_type in {OCI_MANIFEST, DOCKER_MANIFEST}


def is_config(media_type: str) -> bool:
    """Say whether `media_type` is the configuration of a container image."""
    return media_type in {OCI_CONFIG, DOCKER_CONFIG}


def is_layer(media_type: str) -> bool:
    """Say whether `media_type` is a layer that can become part of a root file system."""
    return media_type in _LAYERS


def is_foreign_layer(media_type: str) -> bool:
    """Say whether `media_type` marks a layer that must not be uploaded."""
    return media_type.startswith(_OCI_FOREIGN) or ".rootfs.foreign." in media_type


def layer_compression(media_type: str) -> str:
    """Return ``none``, ``gzip`` or ``zstd``.

    Raises:
        InvalidManifest: `media_type` is not a layer's.
    """
    try:
        return _LAYERS[media_type]
    except KeyError:
        raise InvalidManifest(f"media type {media_type!r} is not a file system layer") from None
