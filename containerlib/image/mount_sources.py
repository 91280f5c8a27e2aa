"""Which repositories of a registry may have a blob already, by the names of the images of the store."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from containerlib.image.resolve import list_images
from containerlib.oci.reference import Reference

if TYPE_CHECKING:
    from collections.abc import Mapping

    from containerlib.oci.digest import Digest
    from containerlib.store.stores import Stores

__all__ = ["MountSources"]

_MOST = 2  # each costs a request, and the blob may be in none


class MountSources:
    """The repositories of one registry by the blobs of their images; looked for when first asked."""

    def __init__(self, stores: Stores, target: Reference) -> None:
        """Prepare for a push to the repository of `target`."""
        self._stores = stores
        self._target = target
        self._lock = threading.Lock()
        self._known: Mapping[Digest, list[str]] | None = None

    def of(self, digest: Digest) -> list[str]:
        """Return the names of repositories that may have a blob, without the registry."""
        with self._lock:
            if self._known is None:
                self._known = self._look()
        return self._known.get(digest, [])[:_MOST]

    def _look(self) -> Mapping[Digest, list[str]]:
        found: dict[Digest, list[str]] = {}
        for image in list_images(self._stores):
            names = [Reference.parse(name, default_tag=None) for name in image.references]
            repositories = {name.repository for name in names if name.registry == self._target.registry}
            for repository in sorted(repositories - {self._target.repository}):
                for blob in (image.manifest.config, *image.manifest.layers):
                    if repository not in found.setdefault(blob.digest, []):
                        found[blob.digest].append(repository)
        return found
