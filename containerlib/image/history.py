"""How an image came about: the history of its configuration, matched with its layers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from containerlib.errors import InvalidManifest, SnapshotNotFound
from containerlib.oci import timestamp
from containerlib.oci.digest import chain_ids
from containerlib.oci.image_config import History

if TYPE_CHECKING:
    import datetime as dt

    from containerlib.image.image_record import ImageRecord
    from containerlib.store.stores import Stores

__all__ = ["HistoryEntry", "image_history", "unpacked_bytes"]


@attrs.frozen
class HistoryEntry:
    """One step in which an image was made.

    All texts are what the maker of the image wrote.

    Attributes:
        created: When; None if the image does not say.
        created_by: By which command.
        comment: What the maker says of it.
        author: Who.
        empty_layer: Whether only the configuration changed.
        size_bytes: Content of the files of its layer, unpacked; 0 without a layer.
        digest: Digest of its layer as stored; None without a layer.
    """

    created: dt.datetime | None
    created_by: str
    comment: str
    author: str
    empty_layer: bool
    size_bytes: int
    digest: str | None

    def to_json(self) -> dict[str, object]:
        """Return it as an object of JSON, with the time as text."""
        created = None if self.created is None else timestamp.text(self.created)
        return {**attrs.asdict(self), "created": created}


def image_history(stores: Stores, image: ImageRecord) -> tuple[HistoryEntry, ...]:
    """Return the history of `image`, newest first.

    Entries that are not marked as empty take the layers in their order, as Docker does it. Layers for which
    there is no entry get one without texts.

    Raises:
        InvalidManifest: The history speaks of more layers than there are.
    """
    history = image.config.history
    described = sum(not entry.empty_layer for entry in history)
    layers = image.layers
    if described > len(layers):
        raise InvalidManifest(
            f"image {image.id}: its history speaks of {described} layers, but it has {len(layers)}"
        )
    steps = [*history, *(History() for _ in layers[described:])]
    sizes = iter(zip(layers, _sizes(stores, image), strict=True))
    result = []
    for step in steps:
        layer, size_bytes = (None, 0) if step.empty_layer else next(sizes)
        result.append(
            HistoryEntry(
                created=timestamp.parse(step.created),
                created_by=step.created_by,
                comment=step.comment,
                author=step.author,
                empty_layer=step.empty_layer,
                size_bytes=size_bytes,
                digest=None if layer is None else str(layer.digest),
            )
        )
    return tuple(reversed(result))


def unpacked_bytes(stores: Stores, image: ImageRecord) -> int:
    """Return the size of the content of all layers of `image`, unpacked."""
    return sum(_sizes(stores, image))


def _sizes(stores: Stores, image: ImageRecord) -> list[int]:
    """Return the unpacked size of each layer, lowest first; 0 for one that is being removed."""
    result = []
    for name in chain_ids(image.config.diff_ids):
        try:
            result.append(stores.snapshots.get(name).size_bytes)
        except SnapshotNotFound:
            result.append(0)
    return result
