"""The lock file of an engine: what names mean, for those who want it to stay so."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import frozen

from containerlib.errors import ImageNotFound, InvalidReference, NotLocked
from containerlib.image import resolve
from containerlib.oci.reference import Reference

if TYPE_CHECKING:
    from containerlib.image.image_record import ImageRecord
    from containerlib.image.lock_file import LockedImage
    from containerlib.store.stores import Stores

__all__ = ["Locks"]


@frozen
class Locks:
    """Made of an engine's settings. The file is read each time, and not at all if there is none.

    Attributes:
        path: The file; empty if there is none.
        is_strict: Whether nothing else may be used.
    """

    path: str = ""
    is_strict: bool = False

    def get(self, name: str, *, must: bool = False) -> LockedImage | None:
        """Return what `name` is locked to.

        Args:
            name: As for `Images.get`. Ids and names with a digest are not in a lock file, and need not be.
            must: Whether a name that is not locked is an error, if the engine is strict.

        Raises:
            NotLocked: It is not locked and has to be.
            InvalidInputError: The file is not a lock file.
        """
        if not self.path:
            return None
        from containerlib.image.lock_file import LockFile  # noqa: PLC0415 - most engines have none

        try:
            reference = Reference.parse(name)
        except InvalidReference:
            return None
        locked = LockFile.load(self.path).get(reference)
        if (
            locked is None
            and must
            and self.is_strict
            and reference.digest is None
            and not resolve.is_id(name)
        ):
            raise NotLocked(
                f"{reference.familiar!r} is not in lock file {self.path!r}, and nothing else may be used; "
                f"add it with: containerlib lock -f {self.path} {reference.familiar}"
            )
        return locked

    @staticmethod
    def find(stores: Stores, locked: LockedImage) -> ImageRecord:
        """Return a locked image of the store, for this host.

        Raises:
            ImageNotFound: The store does not have it.
            PlatformNotFound: It is not locked for this host.
        """
        from containerlib.image.lock import find_locked  # noqa: PLC0415 - as above

        record = find_locked(stores, locked, None)
        if record is None:
            name = Reference.parse(locked.reference).familiar
            raise ImageNotFound(
                f"image {name!r} is locked to {locked.digest}, which is not in the store; pull it"
            )
        return record
