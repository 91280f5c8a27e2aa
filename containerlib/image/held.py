"""Relying on the unpacked layers of images for as long as something reads them."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from containerlib.errors import ImageNotFound, ReadOnlyStore, SnapshotNotFound
from containerlib.oci.digest import chain_ids

if TYPE_CHECKING:
    from collections.abc import Iterator

    from containerlib.image.image_record import ImageRecord
    from containerlib.store.stores import Stores

__all__ = ["held_layers"]


@contextlib.contextmanager
def held_layers(stores: Stores, purpose: str, *images: ImageRecord) -> Iterator[list[list[str]]]:
    """Keep the layers of `images` from being removed inside the block.

    Yields:
        For each image its layer directories, top-most first.

    Raises:
        ImageNotFound: An image was removed meanwhile.
    """
    with contextlib.ExitStack() as undo:
        # Where nothing can be written, nothing can be removed either.
        with contextlib.suppress(ReadOnlyStore):
            lease = undo.enter_context(stores.leases.acquire(purpose))
            for image in images:
                lease.protect(chain_ids(image.config.diff_ids))
        try:
            # Looked up once the lease protects them: until then they may go.
            found = [_lowers(stores, image) for image in images]
        except SnapshotNotFound as error:
            raise ImageNotFound(f"an image was removed meanwhile: {error}") from None
        yield found


def _lowers(stores: Stores, image: ImageRecord) -> list[str]:
    return [] if image.chain_id is None else stores.snapshots.lowers(image.chain_id)
