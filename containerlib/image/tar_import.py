"""An image made of an archive of a root file system, compressed or not.

The layer is the uncompressed archive byte for byte, whatever follows its end mark included, so the same input
gives the same image and a compressed copy of it does too.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, BinaryIO

from containerlib.errors import InvalidInputError
from containerlib.image.assemble import complete_image
from containerlib.image.collect import discard
from containerlib.image.unpack import UnpackPolicy
from containerlib.layer.clamp import clamp_times
from containerlib.layer.compression import decompressed
from containerlib.oci.reference import Reference

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from containerlib.image.image_record import ImageRecord
    from containerlib.oci.image_config import Config
    from containerlib.oci.platform import Platform
    from containerlib.store.content import Blob
    from containerlib.store.lease import Lease
    from containerlib.store.stores import Stores

__all__ = ["from_tar"]

_BUFFER_BYTES = 1 << 20


def from_tar(
    stores: Stores,
    source: str | BinaryIO,
    *,
    config: Config | None = None,
    reference: str | None = None,
    platform: Platform | None = None,
    policy: UnpackPolicy | None = None,
    latest_mtime: int | None = None,
    created: str = "",
    comment: str = "",
) -> ImageRecord:
    """Make an image of the archive `source`.

    Args:
        stores: Where the image goes.
        source: Path of the archive, or a binary stream, which is read to its end and not closed. Plain, or
            compressed by gzip, zstd, bzip2 or xz.
        config: Defaults for containers of the image.
        reference: Name for the image.
        platform: What it runs on; this host if None.
        policy: What the archive may hold.
        latest_mtime: Later times become this one, in seconds since 1970, and the archive is written anew;
            None leaves it as it is.
        created: When the image says it was made, in RFC 3339; empty leaves it out.
        comment: Goes into the history.

    Raises:
        LayerError: The archive is damaged, over a limit or could harm the host; nothing is left of it.
        InvalidInputError: `source` is not a file.
    """
    if reference is not None:
        Reference.parse(reference)
    stored: list[Blob] = []
    try:
        with stores.leases.acquire("import archive") as lease:
            stored.append(_store(stores, lease, source, policy or UnpackPolicy(), latest_mtime))
            return complete_image(
                stores,
                lease,
                stored,
                config=config,
                reference=reference,
                platform=platform,
                policy=policy,
                created=created,
                comment=comment,
            )
    except BaseException:
        discard(stores, [blob.digest for blob in stored])
        raise


def _store(
    stores: Stores, lease: Lease, source: str | BinaryIO, policy: UnpackPolicy, latest_mtime: int | None
) -> Blob:
    """Put the uncompressed archive into the content store."""
    with _opened(source) as stream, stores.content.writer() as writer:
        plain = decompressed(stream, limits=policy.decompression)
        if latest_mtime is not None:
            clamp_times(plain, writer, latest_mtime=latest_mtime)
        while chunk := plain.read(_BUFFER_BYTES):
            # What follows the end mark of a clamped archive is read, for its damage, but not kept.
            if latest_mtime is None:
                writer.write(chunk)
        lease.protect([writer.digest])
        return writer.commit()


def _opened(source: str | BinaryIO) -> AbstractContextManager[BinaryIO]:
    if not isinstance(source, str):
        return contextlib.nullcontext(source)
    try:
        return open(source, "rb", buffering=_BUFFER_BYTES)
    except (FileNotFoundError, IsADirectoryError):
        raise InvalidInputError(f"{source!r} is not a file") from None
