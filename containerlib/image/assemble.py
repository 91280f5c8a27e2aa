"""Making an image from what is on this host, with nothing pulled.

The layer is written to the content store uncompressed, so its digest is its diff id, then unpacked from
there. Configuration and manifest are printed in canonical form without a date: the same entries and the same
configuration give the same image everywhere. The reference is set last.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from containerlib.image.collect import discard
from containerlib.image.image_record import load_image
from containerlib.image.naming import names_of, point, tell
from containerlib.image.unpack import UnpackPolicy, unpack_layer
from containerlib.layer.archive import write_layer
from containerlib.oci import media_type
from containerlib.oci.descriptor import Descriptor
from containerlib.oci.digest import DiffId, chain_ids
from containerlib.oci.image_config import DEFAULT_PATH, Config, History, ImageConfig
from containerlib.oci.manifest import Manifest
from containerlib.oci.reference import Reference

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from containerlib.image.image_record import ImageRecord
    from containerlib.layer.archive import LayerEntry
    from containerlib.oci.digest import Digest
    from containerlib.oci.platform import Platform
    from containerlib.store.content import Blob
    from containerlib.store.lease import Lease
    from containerlib.store.stores import Stores

__all__ = ["assemble_image", "complete_image"]

_EPOCH = 0


def assemble_image(
    stores: Stores,
    entries: Iterable[LayerEntry],
    *,
    config: Config | None = None,
    reference: str | None = None,
    platform: Platform | None = None,
    comment: str = "",
    latest_mtime: int = _EPOCH,
    created: str = "",
) -> ImageRecord:
    """Make an image of one layer that holds `entries`.

    The same arguments give the same image; making it again is quick for its snapshot, not for its layer.

    Args:
        stores: Where everything goes.
        entries: What the image holds.
        config: Defaults for its containers; a missing PATH is added.
        reference: Name for it; None leaves it without a name.
        platform: What it runs on; this host if None.
        comment: Goes into the history, so into the image's id.
        latest_mtime: Later times of entries become this one, in seconds since 1970.
        created: When the image says it was made, in RFC 3339; empty leaves it out.

    Raises:
        InvalidInputError: An entry cannot be written, or the reference is not one.
    """
    _check_reference(reference)
    stored: list[Digest] = []
    try:
        with stores.leases.acquire("assemble image") as lease, stores.content.writer() as writer:
            written = write_layer(entries, writer, mtime=latest_mtime)
            lease.protect([written.diff_id])
            stored.append(written.diff_id)
            blob = writer.commit()
            return complete_image(
                stores,
                lease,
                [blob],
                config=config,
                reference=reference,
                platform=platform,
                comment=comment,
                created=created,
            )
    except BaseException:
        if stored:
            discard(stores, stored)
        raise


def complete_image(
    stores: Stores,
    lease: Lease,
    layers: Sequence[Blob],
    *,
    config: Config | None = None,
    reference: str | None = None,
    platform: Platform | None = None,
    comment: str = "",
    policy: UnpackPolicy | None = None,
    created: str = "",
) -> ImageRecord:
    """Make an image of uncompressed layers that are in the content store and protected by `lease`.

    Args:
        stores: Where everything goes.
        lease: Protects `layers`, and from here on all that is made.
        layers: The layers, lowest first.
        config: Defaults for its containers; a missing PATH is added.
        reference: Name for it; None leaves it without a name.
        platform: What it runs on; this host if None.
        comment: Goes into the history.
        policy: What the layers may hold.
        created: When the image says it was made, in RFC 3339; empty leaves it out.

    Raises:
        LayerError: A layer cannot be applied.
    """
    image_config = ImageConfig.build(
        [blob.digest for blob in layers],
        config=_with_path(config or Config()),
        platform=platform,
        history=[History(created=created, created_by="containerlib", comment=comment) for _ in layers],
        created=created,
    )
    manifest = Manifest.build(
        image_config.descriptor, [Descriptor(media_type.OCI_LAYER, blob.digest, blob.size) for blob in layers]
    )
    names = chain_ids(image_config.diff_ids)
    lease.protect([image_config.digest, manifest.digest, *names])
    parent = None
    for blob, name in zip(layers, names, strict=True):
        if not stores.snapshots.exists(name):
            with stores.content.open(blob.digest) as stream:
                unpack_layer(
                    stores,
                    lease,
                    stream,
                    diff_id=DiffId(blob.digest),
                    name=name,
                    parent=parent,
                    policy=policy,
                )
        parent = name
    stores.content.put(image_config.raw, digest=image_config.digest)
    stores.content.put(manifest.raw, digest=manifest.digest)
    stores.settle(names)
    canonical = None if reference is None else Reference.parse(reference).canonical
    point(stores, canonical, manifest.descriptor)
    made = load_image(stores, manifest.descriptor, names_of(stores, manifest.digest))
    tell(stores, "import", made.id, canonical or "")
    return made


def _check_reference(reference: str | None) -> None:
    """Refuse a bad name before any work is done."""
    if reference is not None:
        Reference.parse(reference)


def _with_path(config: Config) -> Config:
    if any(entry.startswith("PATH=") for entry in config.env):
        return config
    return attrs.evolve(config, env=(f"PATH={DEFAULT_PATH}", *config.env))
