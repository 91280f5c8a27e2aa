"""The lock file of an engine: what names mean, for those who want it to stay so."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from attrs import field, frozen

from containerlib.errors import ImageNotFound, InvalidReference, NotLocked
from containerlib.image import resolve
from containerlib.oci.reference import Reference

if TYPE_CHECKING:
    from collections.abc import Sequence

    from containerlib.image.image_record import ImageRecord
    from containerlib.image.lock_file import LockedImage, LockFile
    from containerlib.store.stores import Stores

__all__ = ["Locks"]

_SETTLED_NS = 100_000_000


@frozen
class Locks:
    """Made of an engine's settings. The file is read when it has changed, and not at all if there is none.

    Attributes:
        path: The file; empty if there is none.
        is_strict: Whether nothing else may be used.
    """

    path: str = ""
    is_strict: bool = False
    _known: dict[tuple[int, ...], LockFile] = field(factory=dict, init=False, eq=False, repr=False)

    def get(self, names: Sequence[str], *, must: bool = False) -> LockedImage | None:
        """Return what the first of `names` that is locked is locked to.

        Args:
            names: As for `Images.get`: what was asked for, and what else it may mean.
            must: Whether a name that is not locked is an error, if the engine is strict. Ids and names with a
                digest are not in a lock file, and need not be.

        Raises:
            NotLocked: It is not locked and has to be.
            InvalidInputError: The file is not a lock file.
        """
        try:
            references = [Reference.parse(name) for name in names]
        except InvalidReference:
            return None
        file = self._read()
        for reference in references:
            locked = file.get(reference)
            if locked is not None:
                return locked
        own = references[0]
        if must and self.is_strict and own.digest is None and not resolve.is_id(names[0]):
            raise NotLocked(
                f"{own.familiar!r} is not in lock file {self.path!r}, and nothing else may be used; "
                f"add it with: containerlib lock -f {self.path} {own.familiar}"
            )
        return None

    def _read(self) -> LockFile:
        """Read the file, unless it is what it was the last time."""
        from containerlib.image.lock_file import LockFile  # noqa: PLC0415 - most engines have none

        try:
            info = os.stat(self.path)
        except OSError:
            return LockFile.load(self.path)  # says why
        stamp = (info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns)
        known = self._known.get(stamp)
        if known is None:
            known = LockFile.load(self.path)
            self._known.clear()
            # Two changes within one tick of the file system's clock have the same stamp.
            if time.time_ns() - info.st_ctime_ns > _SETTLED_NS:
                self._known[stamp] = known
        return known

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
