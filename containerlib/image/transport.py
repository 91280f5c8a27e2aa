"""Images that lie in a file or directory: ``oci:``, ``oci-archive:`` or ``docker-archive:`` and a path.

The words are those of podman and skopeo. Such an image is loaded without the names that it has there, and
found again by its digest as long as the file has not changed.

Source: containers-transports(5).
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import attrs

from containerlib._util.memo import Memo
from containerlib.errors import BlobNotFound, ImageNotFound, InvalidInputError, SnapshotNotFound
from containerlib.image.archive_load import load
from containerlib.image.image_record import load_image
from containerlib.image.naming import names_of

if TYPE_CHECKING:
    from containerlib.image.image_record import ImageRecord
    from containerlib.oci.descriptor import Descriptor
    from containerlib.oci.platform import Platform
    from containerlib.store.stores import Stores

__all__ = ["Place"]

_TRANSPORTS = ("oci", "oci-archive", "docker-archive")

_Seen = tuple[object, ...]
_known: Memo[_Seen, Descriptor] = Memo()


@attrs.frozen
class Place:
    """Where an image lies.

    Attributes:
        transport: ``oci`` for a directory, ``oci-archive`` or ``docker-archive`` for a file.
        path: The directory or file.
        reference: Which of its images; None if it has only one.
    """

    transport: str
    path: str
    reference: str | None

    @classmethod
    def parse(cls, name: str) -> Place | None:
        """Read a name; None if it is not the name of a place.

        A path without a slash counts if it exists: ``oci:latest`` may be an image as well.

        Raises:
            InvalidInputError: It has a transport and no path.
        """
        transport, colon, rest = name.partition(":")
        path, _, reference = rest.partition(":")
        if not colon or transport not in _TRANSPORTS or not ("/" in path or os.path.exists(path)):
            return None
        if not path or "\0" in path:
            raise InvalidInputError(f"{name!r}: write {transport}:PATH or {transport}:PATH:REFERENCE")
        return cls(transport, os.path.abspath(path), reference or None)

    def find(self, stores: Stores, *, platform: Platform | None = None) -> ImageRecord:
        """Return the image, loaded into the store unless it is there already; without a name.

        Raises:
            ImageNotFound: There is no such file, or no such image in it.
            InvalidInputError: It has several images, and `reference` does not say which.
            LayerError, VerificationError: See `archive_load.load`.
        """
        return _find(stores, self, platform=platform)

    def stamp(self) -> _Seen:
        """Return what changes when the images there do.

        Raises:
            ImageNotFound: There is no such file or directory.
            InvalidInputError: It is a directory where a file should be, or the other way round.
        """
        is_directory = self.transport == "oci"
        try:
            info = os.stat(f"{self.path}/index.json" if is_directory else self.path)
        except (FileNotFoundError, NotADirectoryError):
            what = "an OCI layout, with an index.json" if is_directory else "an archive"
            raise ImageNotFound(f"{self.path!r} is not {what}") from None
        if not is_directory and os.path.isdir(self.path):
            raise InvalidInputError(f"{self.path!r} is a directory; oci:{self.path} reads a layout")
        return info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns


def _find(stores: Stores, place: Place, *, platform: Platform | None = None) -> ImageRecord:
    key = (stores.layout.root, place, platform, *place.stamp())
    target = _known.get(key)
    if target is not None:
        try:
            return load_image(stores, target, names_of(stores, target.digest))
        except (BlobNotFound, SnapshotNotFound):
            pass  # it was removed since
    (found,) = load(stores, place.path, platform=platform, only=place.reference, keeps_names=False)
    _known.put(key, found.target)
    return found
