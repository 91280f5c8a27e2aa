"""From layers in the content store to snapshots.

Each layer is unpacked by itself into the directory that will be its overlay layer; no parent is needed or
mounted. What is applied is hashed on the way and must be what the configuration promises.
"""

from __future__ import annotations

import contextlib
import io
import os
from typing import TYPE_CHECKING, BinaryIO

import attrs

from containerlib._util.disk_error import translated
from containerlib._util.failpoint import reach
from containerlib.errors import DigestMismatch
from containerlib.layer.apply import ApplyLimits, apply_layer
from containerlib.layer.compression import DecompressionLimits, HashingReader, decompressed
from containerlib.oci.digest import chain_ids

if TYPE_CHECKING:
    from collections.abc import Iterator

    from containerlib.layer.apply import Devices
    from containerlib.oci.descriptor import Descriptor
    from containerlib.oci.digest import ChainId, DiffId, Digest
    from containerlib.oci.image_config import ImageConfig
    from containerlib.oci.manifest import Manifest
    from containerlib.store.lease import Lease
    from containerlib.store.stores import Stores

__all__ = ["UnpackPolicy", "unpack_aside", "unpack_blob", "unpack_image", "unpack_layer"]

_BUFFER_BYTES = 1 << 20


@attrs.frozen
class UnpackPolicy:
    """What layers may hold and how large they may get."""

    devices: Devices = "refuse"
    apply: ApplyLimits = attrs.field(factory=ApplyLimits)
    decompression: DecompressionLimits = attrs.field(factory=DecompressionLimits)


def unpack_image(
    stores: Stores,
    lease: Lease,
    manifest: Manifest,
    config: ImageConfig,
    *,
    policy: UnpackPolicy | None = None,
) -> ChainId | None:
    """Make the snapshots of every layer of an image whose blobs are in the store.

    Layers that are unpacked already are not touched.

    Returns:
        The chain id of the whole stack, or None for an image without layers.

    Raises:
        LayerError: A layer cannot be applied.
        DigestMismatch: A layer is not what the configuration says.
    """
    parent: ChainId | None = None
    names = chain_ids(config.diff_ids)
    lease.protect(names)
    for layer, diff_id, name in zip(manifest.layers, config.diff_ids, names, strict=True):
        if not stores.snapshots.exists(name):
            with stores.content.open(layer.digest) as stream:
                unpack_layer(stores, lease, stream, diff_id=diff_id, name=name, parent=parent, policy=policy)
        parent = name
    return parent


def unpack_layer(
    stores: Stores,
    lease: Lease,
    stream: BinaryIO,
    *,
    diff_id: DiffId,
    name: ChainId,
    parent: ChainId | None,
    policy: UnpackPolicy | None = None,
) -> None:
    """Make the snapshot `name` from one layer, compressed or not; if it exists, do nothing.

    Several callers of the same name, in whatever processes, do the work once: the others wait.

    Raises:
        LayerError: The layer cannot be applied; nothing is left of it.
        DigestMismatch: The uncompressed layer does not hash to `diff_id`.
    """
    policy = policy or UnpackPolicy()
    with stores.snapshots.lock(name):
        if stores.snapshots.exists(name):
            return
        active = stores.snapshots.prepare(lease)
        try:
            with translated(active.path):
                reach("unpack", active.path)
                size_bytes = _apply(stream, active.path, diff_id, policy)
            stores.snapshots.commit(active.key, name=name, parent=parent, size_bytes=size_bytes)
        except BaseException:
            stores.snapshots.abort(active.key)
            raise


def unpack_blob(
    stores: Stores,
    lease: Lease,
    layer: Descriptor,
    *,
    diff_id: DiffId,
    name: ChainId,
    parent: ChainId | None,
    policy: UnpackPolicy | None = None,
) -> None:
    """Do what `unpack_layer` does, from the content store."""
    with stores.content.open(layer.digest) as stream:
        unpack_layer(stores, lease, stream, diff_id=diff_id, name=name, parent=parent, policy=policy)


@contextlib.contextmanager
def unpack_aside(
    stores: Stores, lease: Lease, digest: Digest, diff_id: DiffId, *, policy: UnpackPolicy | None = None
) -> Iterator[str]:
    """Unpack the layer in the blob `digest` for the length of a block, for those who compare.

    Raises:
        LayerError, DigestMismatch: As `unpack_layer`.
    """
    active = stores.snapshots.prepare(lease)
    try:
        with stores.content.open(digest) as stream, translated(active.path):
            _apply(stream, active.path, diff_id, policy or UnpackPolicy())
        yield active.path
    finally:
        stores.snapshots.abort(active.key)


def _apply(stream: BinaryIO, path: str, diff_id: DiffId, policy: UnpackPolicy) -> int:
    hashing = HashingReader(decompressed(stream, limits=policy.decompression), diff_id.algorithm)
    root_fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        buffered = io.BufferedReader(hashing, _BUFFER_BYTES)
        result = apply_layer(buffered, root_fd, devices=policy.devices, limits=policy.apply)
        hashing.drain()
    finally:
        os.close(root_fd)
    if hashing.digest != diff_id:
        raise DigestMismatch("layer", expected=diff_id, actual=hashing.digest)
    return result.size_bytes
