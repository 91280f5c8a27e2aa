"""References: the names of images, each pointing at the descriptor of a manifest.

Setting a reference is the commit point of every operation that makes an image. One small file per reference;
since a name may hold slashes and be longer than a file name, the file is called by the name's hash and the
name stands in it.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import attrs

from containerlib.errors import InvalidInputError, NotFoundError, StoreCorrupted
from containerlib.oci.descriptor import Descriptor
from containerlib.store.record import RecordStore

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from containerlib.store.layout import Layout

__all__ = ["ReferenceStore"]

_MAX_NAME_LENGTH = 1024


@attrs.frozen
class ReferenceStore:
    """All references of one store."""

    layout: Layout
    durable: bool = True

    def get(self, name: str) -> Descriptor | None:
        """Return what `name` points at, or None if it points at nothing.

        Raises:
            StoreCorrupted: The file of this reference is damaged.
        """
        records = self._records
        try:
            return self._target(_key(name), records.get(_key(name)), name)
        except NotFoundError:
            return None

    def set(self, name: str, target: Descriptor) -> None:
        """Make `name` point at `target` from now on, in one step."""
        self._records.set(_key(name), {"name": name, "target": target.to_json()})

    def remove(self, name: str) -> bool:
        """Remove the reference `name`; return whether it was there."""
        return self._records.remove(_key(name))

    def remove_locked(self, name: str) -> bool:
        """Do what `remove` does, for a caller that holds the lock of `name`."""
        return self._records.remove_locked(_key(name))

    def list(self) -> dict[str, Descriptor]:
        """Return every reference and its target, sorted by name."""
        result: dict[str, Descriptor] = {}
        for key in self._records.list():
            try:
                document = self._records.get(key)
            except NotFoundError:
                continue  # removed since the directory was listed
            name = document.get("name")
            if isinstance(name, str):
                result[name] = self._target(key, document, name)
        return dict(sorted(result.items()))

    def lock(self, name: str) -> AbstractContextManager[None]:
        """Return the lock of the reference `name`."""
        return self._records.lock(_key(name))

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


def _key(name: str) -> str:
    if not name or len(name) > _MAX_NAME_LENGTH:
        raise InvalidInputError(f"reference {name[:80]!r} is empty or too long")
    return hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()
