"""Finding, naming and removing the images of the store.

An image is asked for as people write it: by reference, by image id or manifest digest, or by the beginning of
either.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import attrs

from containerlib._util import file_lock
from containerlib.errors import (
    BlobNotFound,
    ImageNotFound,
    InvalidManifest,
    InvalidReference,
    PlatformNotFound,
    ResourceInUse,
    SnapshotNotFound,
    StoreCorrupted,
)
from containerlib.image.collect import sweep
from containerlib.image.image_record import ImageRecord, load_image, load_manifest
from containerlib.image.naming import is_anonymous, names_of, point, release, tell
from containerlib.oci.reference import Reference

if TYPE_CHECKING:
    from collections.abc import Callable

    from containerlib.oci.descriptor import Descriptor
    from containerlib.oci.digest import Digest
    from containerlib.store.stores import Stores

__all__ = [
    "Removed",
    "get_image",
    "is_id",
    "list_images",
    "remove_image",
    "tag_image",
    "untag_image",
]

_ID_PREFIX = re.compile(r"(?:sha256:)?([0-9a-f]{4,64})")


@attrs.frozen
class Removed:
    """What removing an image did: the names it lost, the ids of images deleted, the bytes freed."""

    untagged: tuple[str, ...] = ()
    deleted: tuple[str, ...] = ()
    freed_bytes: int = 0


def get_image(stores: Stores, name: str) -> ImageRecord:
    """Return the image called `name`.

    Args:
        stores: The stores.
        name: A reference, ``sha256:`` and an id or manifest digest, or at least four hexadecimal digits
            that begin exactly one of these.

    Raises:
        ImageNotFound: There is no such image.
        InvalidReference: `name` is neither, or begins several ids.
    """
    target = _find(stores, name)
    try:
        return load_image(stores, target, names_of(stores, target.digest))
    except (BlobNotFound, SnapshotNotFound) as error:
        raise ImageNotFound(f"image {name!r} is not complete: {error}; pull or make it again") from None


def list_images(stores: Stores) -> list[ImageRecord]:
    """Return every complete image, those with names first, in the order of their names."""
    names: dict[Digest, list[str]] = {}
    targets: dict[Digest, Descriptor] = {}
    for name, target in stores.references.list(skip_damaged=True).items():
        names.setdefault(target.digest, []).extend([] if is_anonymous(name) else [name])
        targets[target.digest] = target
    images: list[ImageRecord] = []
    for digest, references in names.items():
        try:
            images.append(load_image(stores, targets[digest], tuple(references)))
        except (BlobNotFound, SnapshotNotFound, InvalidManifest, PlatformNotFound, StoreCorrupted):
            continue  # being removed, for another platform, or damaged, which a check tells
    return sorted(images, key=lambda image: (not image.references, image.references, image.id))


def tag_image(stores: Stores, name: str, reference: str) -> ImageRecord:
    """Give the image called `name` one more name; an image that had it keeps existing without it.

    Raises:
        ImageNotFound: There is no image called `name`.
        InvalidReference: `reference` is not a name with a tag.
    """
    target = Reference.parse(reference)
    if target.digest is not None:
        raise InvalidReference(f"{reference!r}: a tag cannot hold a digest")
    with file_lock.locked(stores.layout.collection_lock, shared=True):
        image = get_image(stores, name)
        point(stores, target.canonical, image.target)
    tell(stores, "tag", image.id, target.canonical)
    return attrs.evolve(image, references=names_of(stores, image.digest))


def untag_image(stores: Stores, reference: str) -> None:
    """Take a name away from its image, which stays even without any name.

    Raises:
        ImageNotFound: No image has this name.
    """
    name = Reference.parse(reference).canonical
    target = stores.references.get(name)
    if not release(stores, name) or target is None:
        raise ImageNotFound(f"no image is called {reference!r}")
    tell(stores, "untag", _image_id(stores, target) or target.digest, name)


def remove_image(
    stores: Stores, name: str, *, in_use: Callable[[str], list[str]] | None = None, force: bool = False
) -> Removed:
    """Remove a name of an image, and the image itself with the last name.

    Content that other images share stays.

    Args:
        stores: The stores.
        name: As for `get_image`. By a reference only that name goes if there are others; by id the whole
            image goes.
        in_use: Given an image id, returns the containers that use the image.
        force: Whether an image with several names may be removed by its id.

    Raises:
        ImageNotFound: There is no such image.
        ResourceInUse: A container uses the image, or it has several names and `force` is not given.
    """
    with file_lock.locked(stores.layout.collection_lock):
        target = _find(stores, name)
        digest = target.digest
        names = names_of(stores, digest)
        own = _own_name(stores, name)
        if own is not None and len(names) > 1:
            stores.references.remove(own)
            tell(stores, "untag", _image_id(stores, target) or digest, own)
            return Removed(untagged=(own,))
        if len(names) > 1 and not force:
            raise ResourceInUse(
                f"image {name!r} has the names {', '.join(names)}: remove these, or use force"
            )
        image_id = _image_id(stores, target)
        users = in_use(image_id) if in_use is not None and image_id is not None else []
        if users:
            raise ResourceInUse(f"image {name!r} is used by {', '.join(users)}: remove these first")
        for reference in (*names, digest):
            stores.references.remove(reference)
        swept = sweep(stores)
    stores.snapshots.empty_trash()
    for reference in names:
        tell(stores, "untag", image_id or digest, reference)
    tell(stores, "delete", image_id or digest)
    return Removed(names, (image_id or digest,), swept.freed_bytes)


def is_id(name: str) -> bool:
    """Say whether `name` can only be an image id or the beginning of one, and never be pulled."""
    if name.startswith("sha256:"):
        return True
    try:
        Reference.parse(name)
    except InvalidReference:
        return True
    return False


def _find(stores: Stores, name: str) -> Descriptor:
    """Return what the image called `name` is found by."""
    match = _ID_PREFIX.fullmatch(name)
    reference = None if match is not None and name.startswith("sha256:") else _reference(name, match)
    if reference is not None:
        found = _by_reference(stores, reference)
        if found is not None:
            return found
    if match is None:
        raise ImageNotFound(
            f"no image is called {name!r}; pull it, or make one with from_host, from_directory or from_tar"
        )
    return _by_prefix(stores, name, match[1])


def _reference(name: str, match: re.Match[str] | None) -> Reference | None:
    try:
        return Reference.parse(name)
    except InvalidReference:
        if match is None:
            raise
        return None


def _by_reference(stores: Stores, reference: Reference) -> Descriptor | None:
    target = stores.references.get(reference.canonical)
    if target is not None:
        return target
    if reference.digest is None:
        return None
    # A tag beside a digest says nothing; any name of the same repository with this content will do.
    for name, candidate in stores.references.list(skip_damaged=True).items():
        matches = candidate.digest == reference.digest and not is_anonymous(name)
        if matches and Reference.parse(name).name == reference.name:
            return candidate
    return None


def _by_prefix(stores: Stores, name: str, prefix: str) -> Descriptor:
    found: dict[Digest, Descriptor] = {}
    targets = stores.references.list(skip_damaged=True).values()
    for digest, target in {target.digest: target for target in targets}.items():
        image_id = _image_id(stores, target)
        if digest.hex.startswith(prefix) or (image_id is not None and image_id.hex.startswith(prefix)):
            found[image_id or digest] = target
    if not found:
        raise ImageNotFound(f"no image is called {name!r}, and no image id begins so")
    if len(found) > 1:
        raise InvalidReference(f"{name!r} is the beginning of {len(found)} image ids: use more digits")
    return next(iter(found.values()))


def _image_id(stores: Stores, target: Descriptor) -> Digest | None:
    try:
        return load_manifest(stores, target).config.digest
    except (BlobNotFound, InvalidManifest, PlatformNotFound, StoreCorrupted):
        return None


def _own_name(stores: Stores, name: str) -> str | None:
    """Return the entry of the reference store that `name` spells, if it spells one."""
    try:
        canonical = Reference.parse(name).canonical
    except InvalidReference:
        return None
    return canonical if stores.references.get(canonical) is not None else None
