"""How much room images take, and how much of it they share."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import attrs

from containerlib.errors import ContainerlibError, SnapshotNotFound, StoreCorrupted
from containerlib.image.collect import image_digests
from containerlib.image.image_record import load_manifest
from containerlib.image.naming import is_anonymous

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

    from containerlib.oci.descriptor import Descriptor
    from containerlib.oci.digest import Digest
    from containerlib.store.stores import Stores

__all__ = ["ImageUsage", "ImagesUsage", "images_usage"]


@attrs.frozen
class ImageUsage:
    """How much room one image takes: its layers as they came, and unpacked.

    Attributes:
        id: Digest of its configuration; of its manifest if that is damaged.
        references: Its names, in canonical form.
        size_bytes: All of it.
        shared_bytes: What other images need as well.
        unique_bytes: What only this one needs.
        containers: How many containers there are of it.
        is_active: Whether there are any, or a running engine holds it.
        set_at: When it was last pulled, made or named, in seconds since 1970.
    """

    id: str
    references: tuple[str, ...]
    size_bytes: int
    shared_bytes: int
    unique_bytes: int
    containers: int
    is_active: bool
    set_at: float


@attrs.frozen
class ImagesUsage:
    """How much room all images take together; what they share is counted once.

    Attributes:
        images: Each of them, by name.
        size_bytes: All of them.
        reclaimable_bytes: What pruning all images would free that no container uses.
        unneeded_bytes: Content that no image needs; pruning frees it as well.
    """

    images: tuple[ImageUsage, ...]
    size_bytes: int
    reclaimable_bytes: int
    unneeded_bytes: int


def images_usage(stores: Stores, count: Callable[[Collection[str]], int]) -> ImagesUsage:
    """Measure all images of a store.

    Args:
        stores: The store.
        count: Given the id and the names of an image, returns how many containers there are of it.

    Cost: reads each manifest and configuration, and looks at each blob and snapshot, not at files in layers.
    """
    sizes = _sizes(stores)
    protected = stores.leases.survey()
    targets: dict[Digest, Descriptor] = {}
    names: dict[Digest, list[str]] = {}
    for name, target in stores.references.list(skip_damaged=True).items():
        targets[target.digest] = target
        names.setdefault(target.digest, []).append(name)
    parts = {digest: image_digests(stores, target) for digest, target in targets.items()}
    users = Counter(part for each in parts.values() for part in each)
    found = []
    active: set[Digest] = set()
    for digest, target in targets.items():
        image_id = _image_id(stores, target)
        references = tuple(name for name in names[digest] if not is_anonymous(name))
        containers = count({image_id, *references})
        is_active = containers > 0 or digest in protected
        if is_active:
            active |= parts[digest]
        shared = _sum(sizes, (part for part in parts[digest] if users[part] > 1))
        whole = _sum(sizes, parts[digest])
        found.append(
            ImageUsage(
                id=image_id,
                references=references,
                size_bytes=whole,
                shared_bytes=shared,
                unique_bytes=whole - shared,
                containers=containers,
                is_active=is_active,
                set_at=max(map(stores.references.set_at, names[digest])),
            )
        )
    used = users.keys()
    return ImagesUsage(
        images=tuple(sorted(found, key=lambda image: (not image.references, image.references, image.id))),
        size_bytes=_sum(sizes, used),
        reclaimable_bytes=_sum(sizes, used - active),
        unneeded_bytes=_sum(sizes, sizes.keys() - used - protected),
    )


def _sizes(stores: Stores) -> dict[Digest, int]:
    """Return how much room each blob and snapshot takes; one digest may name one of either kind."""
    sizes: Counter[Digest] = Counter({blob.digest: blob.size for blob in stores.content.list()})
    for name in stores.snapshots.list():
        try:
            sizes[name] += stores.snapshots.get(name).size_bytes
        except (SnapshotNotFound, StoreCorrupted):
            continue
    return dict(sizes)


def _sum(sizes: Mapping[Digest, int], digests: Iterable[Digest]) -> int:
    return sum(sizes.get(digest, 0) for digest in digests)


def _image_id(stores: Stores, target: Descriptor) -> str:
    try:
        return str(load_manifest(stores, target).config.digest)
    except (ContainerlibError, OSError):
        return str(target.digest)
