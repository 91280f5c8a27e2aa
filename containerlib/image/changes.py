"""How the file systems of two images differ."""

from __future__ import annotations

from typing import TYPE_CHECKING

from containerlib.image.held import held_layers
from containerlib.layer.compare import Change, compare

if TYPE_CHECKING:
    from containerlib.image.image_record import ImageRecord
    from containerlib.store.stores import Stores

__all__ = ["Change", "image_changes"]


def image_changes(stores: Stores, new: ImageRecord, old: ImageRecord) -> list[Change]:
    """Return how what `new` holds differs from what `old` holds; see `compare`.

    Raises:
        ImageNotFound: One of them was removed meanwhile.
    """
    with held_layers(stores, "compare images", new, old) as (ours, theirs):
        return compare(ours, theirs)
