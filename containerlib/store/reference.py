"""References: the names of images, each pointing at the descriptor of a manifest.

Setting a reference is the commit point of every operation that makes an image. One small file per reference;
since a name may hold slashes and be longer than a file name, the file is called by the name's hash and the
name stands in it.
"""

from __future__ import annotations

import hashlib
import os
import time
from typing import TYPE_CHECKING

import attrs

from containerlib.errors import InvalidInputError, NotFoundError, StoreCorrupted
from containerlib.oci.descriptor import Descriptor
from containerlib.store.record import RecordStore

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from containerlib.store.layout import Layout

__all__ = ["ReferenceStore", "reference_key"]

_MAX_NAME_LENGTH = 1024
_SETTLED_NS = 100_000_000


class _Listing:
    """The references as they were when the directory had a certain stamp."""

    def __init__(self) -> None:
        self._known: tuple[tuple[int, int], dict[str, Descriptor]] | None = None

    def entries_at(self, stamp: tuple[int, int]) -> dict[str, Descriptor] | None:
        known = self._known
        return known[1] if known is not None and known[0] == stamp else None

    def remember(self, stamp: tuple[int, int], entries: dict[str, Descriptor]) -> None:
        # Two changes within one tick of the file system's clock have the same stamp. So a listing is
        # remembered only if the last change before it is long past.
        if time.time_ns() - stamp[1] > _SETTLED_NS and stamp[1]:
            self._known = (stamp, entries)


@attrs.frozen
class ReferenceStore:
    """All references of one store."""

    layout: Layout
    durable: bool = True
    _listing: _Listing = attrs.field(factory=_Listing, init=False, eq=False, repr=False)

    def get(self, name: str) -> Descriptor | None:
        """Return what `name` points at, or None if it points at nothing.

        Raises:
            StoreCorrupted: The file of this reference is damaged.
        """
        listed = self._listing.entries_at(self._stamp())
        if listed is not None:
            return listed.get(name)
        records = self._records
        try:
            return self._target(reference_key(name), records.get(reference_key(name)), name)
        except NotFoundError:
            return None

    def set(self, name: str, target: Descriptor) -> None:
        """Make `name` point at `target` from now on, in one step."""
        self._records.set(reference_key(name), {"name": name, "target": target.to_json()})

    def remove(self, name: str) -> bool:
        """Remove the reference `name`; return whether it was there."""
        return self._records.remove(reference_key(name))

    def remove_locked(self, name: str) -> bool:
        """Do what `remove` does, for a caller that holds the lock of `name`."""
        return self._records.remove_locked(reference_key(name))

    def list(self, *, skip_damaged: bool = False) -> dict[str, Descriptor]:
        """Return every reference and its target, sorted by name.

        Args:
            skip_damaged: Whether to leave damaged references out, for those who only want to show them.

        Raises:
            StoreCorrupted: A reference is damaged and must not be skipped.

        Cost: one look at the directory if nothing changed since the last call, else one read per reference.
        """
        stamp = self._stamp()
        listed = self._listing.entries_at(stamp)
        if listed is not None:
            return dict(listed)
        result: dict[str, Descriptor] = {}
        damaged = False
        for key in self._records.list():
            try:
                document = self._records.get(key)
                name = document.get("name")
                result[str(name)] = self._target(key, document, str(name))
            except NotFoundError:
                continue  # removed since the directory was listed
            except StoreCorrupted:
                if not skip_damaged:
                    raise
                damaged = True
        result = dict(sorted(result.items()))
        if not damaged:
            self._listing.remember(stamp, result)
        return dict(result)

    def set_at(self, name: str) -> float:
        """Return when `name` was last set, in seconds since 1970; 0 if there is no such reference."""
        try:
            return os.stat(f"{self.layout.references}/{reference_key(name)}.json").st_mtime
        except FileNotFoundError:
            return 0.0

    def read(self, key: str) -> str | None:
        """Return the name in the file called `key`, or None if there is no such file.

        Raises:
            StoreCorrupted: It is no reference.
        """
        try:
            document = self._records.get(key)
        except NotFoundError:
            return None
        name = str(document.get("name"))
        self._target(key, document, name)
        return name

    def lock(self, name: str) -> AbstractContextManager[None]:
        """Return the lock of the reference `name`."""
        return self._records.lock(reference_key(name))

    def _stamp(self) -> tuple[int, int]:
        """Return what changes whenever a file of the directory is made, replaced or removed."""
        try:
            info = os.stat(self.layout.references)
        except FileNotFoundError:
            return (0, 0)
        return (info.st_ino, info.st_mtime_ns)

    @property
    def _records(self) -> RecordStore:
        return RecordStore(self.layout.references, "reference", self.durable)

    def _target(self, key: str, document: dict[str, object], name: str) -> Descriptor:
        path = f"{self.layout.references}/{key}.json"
        target = document.get("target")
        if document.get("name") != name or not isinstance(target, dict):
            raise StoreCorrupted(path, "not a reference")
        try:
            return Descriptor.from_json(target)
        except InvalidInputError as error:
            raise StoreCorrupted(path, str(error)) from None


def reference_key(name: str) -> str:
    """Return what the file of the reference `name` is called."""
    if not name or len(name) > _MAX_NAME_LENGTH:
        raise InvalidInputError(f"reference {name[:80]!r} is empty or too long")
    return hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()
