"""What the images of a store need, and what of that is not there.

Follows every reference to its documents, layers and snapshots. What is missing is a finding with the names of
all images that miss it; where each snapshot comes from is kept for those who compare or mend.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import attrs

from containerlib.errors import (
    BlobNotFound,
    InvalidInputError,
    PlatformNotFound,
    SnapshotNotFound,
    StoreCorrupted,
    VerificationError,
)
from containerlib.image.image_record import load_config, load_manifest
from containerlib.image.naming import is_anonymous
from containerlib.oci.digest import chain_ids
from containerlib.store.damage import Damage

if TYPE_CHECKING:
    from containerlib.oci.descriptor import Descriptor
    from containerlib.oci.digest import ChainId, DiffId, Digest
    from containerlib.oci.image_config import ImageConfig
    from containerlib.oci.manifest import Manifest
    from containerlib.store.damage import DamageKind
    from containerlib.store.stores import Stores

__all__ = ["SnapshotSource", "Survey"]

_MENDABLE = frozenset({"blob-content", "blob-kind", "snapshot-record"})


@attrs.frozen
class SnapshotSource:
    """Where a snapshot comes from.

    Attributes:
        name: The snapshot.
        parent: The snapshot below it.
        diff_id: Digest of its uncompressed archive.
        blob: The layer as it is stored.
    """

    name: ChainId
    parent: ChainId | None
    diff_id: DiffId
    blob: Descriptor

    def is_here(self, stores: Stores) -> bool:
        """Say whether the layer is stored, with the size that it must have."""
        return stores.content.exists(self.blob.digest, size=self.blob.size)


class Survey:
    """All images of a store, as they were when this was made.

    Attributes:
        sources: Where the snapshots come from that images need.
        blobs: The blobs that images need.
    """

    def __init__(self, stores: Stores) -> None:
        self._stores = stores
        self._found: dict[str, Damage] = {}
        self.sources: dict[ChainId, SnapshotSource] = {}
        self.blobs: set[Digest] = set()
        self._owners: dict[str, set[str]] = {}
        names: dict[Digest, list[str]] = {}
        targets: dict[Digest, Descriptor] = {}
        for name, target in stores.references.list(skip_damaged=True).items():
            names.setdefault(target.digest, []).extend([] if is_anonymous(name) else [name])
            targets[target.digest] = target
        for digest, target in targets.items():
            self._image(target, tuple(names[digest]) or (str(digest),))

    @property
    def damages(self) -> list[Damage]:
        """What is missing, each with the images that miss it."""
        return [
            attrs.evolve(damage, images=tuple(sorted(self._owners[path])))
            for path, damage in self._found.items()
        ]

    def owners(self, path: str) -> tuple[str, ...]:
        """Return the names of the images that need the blob or snapshot at `path`."""
        return tuple(sorted(self._owners.get(path, ())))

    def _image(self, target: Descriptor, images: tuple[str, ...]) -> None:
        self._need(self._stores.layout.blob(target.digest), images)
        self.blobs.add(target.digest)
        try:
            manifest = load_manifest(self._stores, target)
            self._need(self._stores.layout.blob(manifest.digest), images)
            self._need(self._stores.layout.blob(manifest.config.digest), images)
            self.blobs |= {manifest.digest, manifest.config.digest}
            config = load_config(self._stores, manifest)
        except BlobNotFound as error:
            digest = str(error).rpartition(" ")[2]
            path = f"{self._stores.layout.blobs}/{digest.replace(':', '/')}"
            self._miss("blob-missing", path, "a document of images is missing", images)
        except StoreCorrupted as error:
            kind: DamageKind = "blob-kind" if "not a file" in str(error) else "blob-content"
            reason = "not a file" if kind == "blob-kind" else "content does not match its digest"
            self._miss(kind, error.path, reason, images)
        except (InvalidInputError, PlatformNotFound, VerificationError) as error:
            self._miss("image", self._stores.layout.blob(target.digest), str(error), images)
        else:
            self._layers(manifest, config, images)

    def _layers(self, manifest: Manifest, config: ImageConfig, images: tuple[str, ...]) -> None:
        parent: ChainId | None = None
        names = chain_ids(config.diff_ids)
        for blob, diff_id, name in zip(manifest.layers, config.diff_ids, names, strict=True):
            self.sources.setdefault(name, SnapshotSource(name, parent, diff_id, blob))
            self.blobs.add(blob.digest)
            self._blob(blob, images)
            path = self._stores.layout.snapshot(name)
            self._need(path, images)
            if not os.path.lexists(path):
                self._miss("snapshot-missing", path, "a layer of images is not unpacked", images, blob=blob)
            elif not self._has_parent(name, parent):
                self._miss("snapshot-record", path, "its record names another parent", images)
            parent = name

    def _has_parent(self, name: ChainId, parent: ChainId | None) -> bool:
        """Whether a snapshot stands on the right one; one without a readable record is another finding."""
        try:
            return self._stores.snapshots.get(name).parent == parent
        except (SnapshotNotFound, StoreCorrupted):
            return True

    def _blob(self, blob: Descriptor, images: tuple[str, ...]) -> None:
        path = self._stores.layout.blob(blob.digest)
        self._need(path, images)
        if not os.path.lexists(path):
            self._miss("blob-missing", path, "a layer of images is missing", images)
        elif self._stores.content.exists(blob.digest) and not self._stores.content.exists(
            blob.digest, size=blob.size
        ):
            size = self._stores.content.size(blob.digest)
            self._miss("blob-content", path, f"has {size} bytes instead of {blob.size}", images)

    def _need(self, path: str, images: tuple[str, ...]) -> None:
        self._owners.setdefault(path, set()).update(images)

    def _miss(
        self,
        kind: DamageKind,
        path: str,
        reason: str,
        images: tuple[str, ...],
        *,
        blob: Descriptor | None = None,
    ) -> None:
        """Note a finding; `blob` is what it could be made from."""
        self._need(path, images)
        mendable = kind in _MENDABLE or (
            blob is not None and self._stores.content.exists(blob.digest, size=blob.size)
        )
        self._found.setdefault(path, Damage(kind, path, reason, "repair" if mendable else "pull"))
