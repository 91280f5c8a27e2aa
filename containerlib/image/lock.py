"""From a tag, as a registry understands it now, to what is locked; and from what is locked to the store."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from containerlib.errors import (
    BlobNotFound,
    InvalidManifest,
    PlatformNotFound,
    SnapshotNotFound,
)
from containerlib.image.image_record import MAX_INDEX_DEPTH, load_image
from containerlib.image.lock_file import LockedImage
from containerlib.image.naming import names_of
from containerlib.image.pull import fetch_config
from containerlib.oci import media_type
from containerlib.oci.manifest import Index, Manifest, parse_manifest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from containerlib.image.image_record import ImageRecord
    from containerlib.oci.descriptor import Descriptor
    from containerlib.oci.digest import Digest
    from containerlib.oci.platform import Platform
    from containerlib.oci.reference import Reference
    from containerlib.registry.client import RepositoryClient
    from containerlib.store.stores import Stores

__all__ = ["find_locked", "resolve_lock"]

_UNKNOWN = "unknown"  # what builders call the platform of what is no image


def resolve_lock(
    repository: RepositoryClient, reference: Reference, platforms: Sequence[Platform] | None
) -> LockedImage:
    """Ask a registry what `reference` means, without fetching any layer.

    Args:
        repository: Whom to ask.
        reference: A name with a tag.
        platforms: Which ones to lock; all that there are if None.

    Raises:
        PlatformNotFound: The image is not made for one of them.
        InvalidManifest: It is damaged, ambiguous, or no container image.
        RegistryError: See `RepositoryClient.fetch_manifest`.

    Cost: one request for an index that names its platforms, and two for an image of one platform.
    """
    target, raw = repository.fetch_manifest(str(reference.tag))
    document = parse_manifest(raw, target.media_type)
    found = _walk(repository, document, 0)
    if not found:
        raise InvalidManifest(f"{reference.familiar} is not a container image, nor an index of such")
    if platforms is not None:
        found = dict(_choose(reference, found, platform) for platform in platforms)
    locked = {str(platform): digest for platform, digest in found.items()}
    return LockedImage(reference.canonical, target.digest, dict(sorted(locked.items())))


def find_locked(stores: Stores, locked: LockedImage, platform: Platform | None) -> ImageRecord | None:
    """Return the locked image if the store has it complete, under whatever name.

    Raises:
        PlatformNotFound: It is not locked for the platform.
    """
    wanted, digest = locked.select(platform)
    for target in stores.references.list(skip_damaged=True).values():
        if target.digest not in {locked.digest, digest}:
            continue
        try:
            record = load_image(
                stores, attrs.evolve(target, platform=wanted), names_of(stores, target.digest)
            )
        except (BlobNotFound, SnapshotNotFound, InvalidManifest, PlatformNotFound):
            continue
        if record.manifest.digest == digest:
            return record
    return None


def _walk(repository: RepositoryClient, document: Index | Manifest, depth: int) -> dict[Platform, Digest]:
    """Return the images below a document by platform; of several for one, the one that is chosen to run."""
    if isinstance(document, Manifest):
        return {fetch_config(repository, document).platform: document.digest} if document.is_image else {}
    if depth > MAX_INDEX_DEPTH:
        raise InvalidManifest(f"{repository.source.name}: indexes in indexes, over {MAX_INDEX_DEPTH} deep")
    found: dict[Platform, Digest] = {}
    for entry in document.manifests:
        for platform, digest in _below(repository, entry, depth).items():
            if platform.os != _UNKNOWN:
                found.setdefault(attrs.evolve(platform, os_version=""), digest)
    return found


def _below(repository: RepositoryClient, entry: Descriptor, depth: int) -> dict[Platform, Digest]:
    if media_type.is_manifest(entry.media_type) and entry.platform is not None:
        return {entry.platform: entry.digest}
    document = parse_manifest(repository.fetch_manifest(entry)[1], entry.media_type)
    return _walk(repository, document, depth + 1)


def _choose(
    reference: Reference, found: dict[Platform, Digest], platform: Platform
) -> tuple[Platform, Digest]:
    known = list(found)
    index = platform.best_of(known)
    if index is None:
        there = ", ".join(map(str, known))
        raise PlatformNotFound(
            f"{reference.familiar} has no image for {platform}; there are: {there}",
            platforms=tuple(map(str, known)),
        )
    return known[index], found[known[index]]
