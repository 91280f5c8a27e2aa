"""Pushing several images as one: an index that has one of them for each platform."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from containerlib.errors import InvalidInputError
from containerlib.image.push import push_documents
from containerlib.oci import media_type
from containerlib.oci.manifest import Index, Manifest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from containerlib.image.image_record import ImageRecord
    from containerlib.image.mount_sources import MountSources
    from containerlib.image.progress import Progress
    from containerlib.oci.descriptor import Descriptor
    from containerlib.oci.platform import Platform
    from containerlib.registry.client import RepositoryClient
    from containerlib.store.stores import Stores

__all__ = ["build_index", "push_index"]


def build_index(images: Sequence[ImageRecord]) -> Index:
    """Return the index of `images`: OCI's, or Docker's if all of them are Docker's.

    Raises:
        InvalidInputError: There are none, or two are for one platform.
    """
    entries: dict[Platform, Descriptor] = {}
    for image in images:
        platform = image.config.platform
        if platform in entries:
            raise InvalidInputError(f"two images are for {platform}; an index has one for each platform")
        entries[platform] = attrs.evolve(image.manifest.descriptor, platform=platform)
    if not entries:
        raise InvalidInputError("an index without images is of no use; give at least one")
    kinds = {entry.media_type for entry in entries.values()}
    kind = media_type.DOCKER_INDEX if kinds == {media_type.DOCKER_MANIFEST} else media_type.OCI_INDEX
    return Index.build(list(entries.values()), kind)


def push_index(
    stores: Stores,
    repository: RepositoryClient,
    images: Sequence[ImageRecord],
    tag: str,
    *,
    progress: Progress,
    mounts: MountSources | None = None,
) -> Descriptor:
    """Upload `images` and their index, and let `tag` mean the index; see `push_image`.

    Raises:
        InvalidInputError: As for `build_index`; nothing was uploaded.
    """
    index = build_index(images)
    documents: list[Index | Manifest] = [*(image.manifest for image in images), index]
    return push_documents(stores, repository, documents, tag, progress=progress, mounts=mounts)
