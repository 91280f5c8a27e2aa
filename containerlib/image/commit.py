"""An image with one layer more: what a container has changed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import evolve

from containerlib.image.collect import discard
from containerlib.image.image_record import load_image
from containerlib.image.naming import names_of, point
from containerlib.image.unpack import unpack_layer
from containerlib.layer.archive import LATEST
from containerlib.layer.diff import write_diff
from containerlib.oci import media_type
from containerlib.oci.descriptor import Descriptor
from containerlib.oci.digest import DiffId, chain_ids
from containerlib.oci.image_config import History, ImageConfig
from containerlib.oci.manifest import Manifest
from containerlib.oci.reference import Reference

if TYPE_CHECKING:
    from collections.abc import Sequence

    from containerlib.image.image_record import ImageRecord
    from containerlib.oci.digest import Digest
    from containerlib.oci.image_config import Config
    from containerlib.store.content import Blob
    from containerlib.store.lease import Lease
    from containerlib.store.stores import Stores

__all__ = ["commit_layer"]

# A manifest of OCI's form has layers of OCI's types; they are the same bytes.
_OCI_TYPES = {
    "none": media_type.OCI_LAYER,
    "gzip": media_type.OCI_LAYER_GZIP,
    "zstd": media_type.OCI_LAYER_ZSTD,
}


def commit_layer(
    stores: Stores,
    base: ImageRecord,
    uppers: Sequence[str],
    *,
    config: Config,
    reference: str | None = None,
    author: str = "",
    comment: str = "",
    created: str = "",
    latest_mtime: int | None = None,
) -> ImageRecord:
    """Make an image of `base` and what upper directories of overlays over it hold.

    Args:
        stores: Where everything is.
        base: The image below.
        uppers: The directories, top-most first, each of which becomes a layer; nobody should write to them
            meanwhile.
        config: Defaults for containers of the new image.
        reference: Name for it; None leaves it without a name.
        author: Who has made it.
        comment: Goes into the history.
        created: When it was made, in RFC 3339; empty leaves it out.
        latest_mtime: Later times of files become this one, in seconds since 1970; None keeps all.

    Raises:
        InvalidReference: The name is none.
        InvalidInputError: A file cannot be in a layer, or changed while it was read.
        StoreFull: There is no room; nothing is left of it.
    """
    canonical = None if reference is None else Reference.parse(reference).canonical
    stored: list[Digest] = []
    try:
        with stores.leases.acquire("commit container") as lease:
            lease.protect([base.digest, base.manifest.digest, base.id, *chain_ids(base.config.diff_ids)])
            lease.protect(layer.digest for layer in base.manifest.layers)
            blobs = []
            for upper in reversed(uppers):
                blobs.append(_store_layer(stores, lease, upper, latest_mtime))
                stored.append(blobs[-1].digest)
            history = History(created=created, created_by="containerlib", author=author, comment=comment)
            made = ImageConfig.build(
                [*base.config.diff_ids, *stored],
                config=config,
                platform=base.config.platform,
                history=[*base.config.history, *[history] * len(blobs)],
                created=created,
                author=author,
            )
            layers = [*map(_oci_layer, base.manifest.layers), *map(_layer_of, blobs)]
            manifest = Manifest.build(made.descriptor, layers)
            _unpack(stores, lease, blobs, made)
            stores.content.put(made.raw, digest=made.digest)
            stores.content.put(manifest.raw, digest=manifest.digest)
            stores.settle(chain_ids(made.diff_ids)[-len(blobs) :])
            point(stores, canonical, manifest.descriptor)
            return load_image(stores, manifest.descriptor, names_of(stores, manifest.digest))
    except BaseException:
        discard(stores, stored)
        raise


def _store_layer(stores: Stores, lease: Lease, upper: str, latest_mtime: int | None) -> Blob:
    with stores.content.writer() as writer:
        written = write_diff(upper, writer, latest_mtime=LATEST if latest_mtime is None else latest_mtime)
        lease.protect([written.diff_id])
        return writer.commit()


def _unpack(stores: Stores, lease: Lease, blobs: Sequence[Blob], made: ImageConfig) -> None:
    """Unpack the last layers of an image."""
    names = chain_ids(made.diff_ids)
    lease.protect([made.digest, *names])
    below = len(names) - len(blobs)
    for number, blob in enumerate(blobs, start=below):
        if stores.snapshots.exists(names[number]):
            continue
        with stores.content.open(blob.digest) as stream:
            unpack_layer(
                stores,
                lease,
                stream,
                diff_id=DiffId(blob.digest),
                name=names[number],
                parent=names[number - 1] if number else None,
            )


def _layer_of(blob: Blob) -> Descriptor:
    return Descriptor(media_type.OCI_LAYER, blob.digest, blob.size)


def _oci_layer(layer: Descriptor) -> Descriptor:
    return evolve(layer, media_type=_OCI_TYPES[media_type.layer_compression(layer.media_type)])
