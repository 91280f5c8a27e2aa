"""The root file system of an image as one flat archive."""

from __future__ import annotations

from typing import TYPE_CHECKING, BinaryIO

import attrs

from containerlib.image.held import held_layers
from containerlib.image.output import opened_output
from containerlib.layer.archive import LATEST
from containerlib.layer.diff import write_merged

if TYPE_CHECKING:
    from containerlib.image.image_record import ImageRecord
    from containerlib.store.stores import Stores

__all__ = ["Exported", "export_image"]


@attrs.frozen
class Exported:
    """What was written.

    Attributes:
        digest: Digest of the archive.
        size_bytes: Its size.
        entries: Number of its members.
    """

    digest: str
    size_bytes: int
    entries: int


def export_image(
    stores: Stores, image: ImageRecord, out: str | BinaryIO, *, latest_mtime: int | None = None
) -> Exported:
    """Write what a container of `image` finds below its root, as one uncompressed archive.

    Args:
        stores: Where the image is.
        image: The image.
        out: A path, or a binary stream, which is not closed.
        latest_mtime: Later times become this one, in seconds since 1970; None keeps all.

    Raises:
        InvalidInputError: `out` cannot be a file.
        ImageNotFound: The image was removed meanwhile.
    """
    with held_layers(stores, "export image", image) as (directories,), opened_output(out) as sink:
        written = write_merged(
            directories, sink, latest_mtime=LATEST if latest_mtime is None else latest_mtime
        )
    return Exported(str(written.diff_id), written.size, written.entries)
