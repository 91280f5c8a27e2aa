"""Small JSON documents, one file per object, written by rename and guarded by one lock per object.

There is no lock over all of them: two processes wait for each other only if they change the same object.
Readers never wait. What a document means is the caller's business.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

import attrs

from containerlib._util import file_lock, strict_json
from containerlib._util.atomic_file import remove_file, write_atomic
from containerlib.errors import InvalidInputError, NameInUse, NotFoundError, StoreCorrupted
from containerlib.store.layout import checked_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

__all__ = ["FORMAT", "RecordStore", "check_format"]

FORMAT = 1
"""The form of the documents of the store. A document of another form says so in its field ``format``."""

_LIMIT = 16 << 20
_SUFFIX = ".json"
_LOCK_SUFFIX = ".lock"


def check_format(document: Mapping[str, object], path: str) -> None:
    """Refuse a document that a later version has written in a form of its own.

    Raises:
        StoreCorrupted: It is of another form than this version knows.
    """
    found = document.get("format", FORMAT)
    if found != FORMAT:
        raise StoreCorrupted(path, f"has format {str(found)[:20]}: it needs a newer version of containerlib")


@attrs.frozen
class RecordStore:
    """Documents of one kind in one directory.

    Attributes:
        directory: Where they lie; made by the first write.
        what: What one is, for messages.
        durable: Whether a document must survive a power loss once a write returns.
    """

    directory: str
    what: str = "record"
    durable: bool = True

    def get(self, name: str) -> dict[str, object]:
        """Return the document called `name`.

        Raises:
            NotFoundError: There is none.
            StoreCorrupted: The file is damaged.
        """
        path = self._path(name)
        try:
            with open(path, "rb", buffering=0) as file:
                document = strict_json.loads_object(file.read(), limit=_LIMIT, what=self.what)
        except FileNotFoundError:
            raise NotFoundError(f"no {self.what} {name!r}") from None
        except IsADirectoryError:
            raise StoreCorrupted(path, "not a file") from None
        except InvalidInputError as error:
            raise StoreCorrupted(path, str(error)) from None
        check_format(document, path)
        return document

    def exists(self, name: str) -> bool:
        """Say whether there is a document called `name`."""
        return os.path.exists(self._path(name))

    def set(self, name: str, document: Mapping[str, object]) -> None:
        """Write the document called `name`, replacing an earlier one in one step."""
        write_atomic(self._path(name), strict_json.dumps(document), durable=self.durable)

    def create(self, name: str, document: Mapping[str, object]) -> None:
        """Write a new document.

        Raises:
            NameInUse: There is one with this name.
        """
        with self.lock(name):
            if self.exists(name):
                raise NameInUse(f"{self.what} {name!r} exists already")
            self.set(name, document)

    def update(
        self, name: str, change: Callable[[dict[str, object]], Mapping[str, object]]
    ) -> Mapping[str, object]:
        """Replace a document by what `change` makes of it, alone; return the new one.

        Raises:
            NotFoundError: There is no such document.
        """
        with self.lock(name):
            document = change(self.get(name))
            self.set(name, document)
            return document

    def remove(self, name: str) -> bool:
        """Remove a document and its lock file; return whether it was there."""
        with self.lock(name):
            return self.remove_locked(name)

    def remove_locked(self, name: str) -> bool:
        """Do what `remove` does, for a caller that holds the lock of the document."""
        existed = remove_file(self._path(name))
        remove_file(f"{self.directory}/{name}{_LOCK_SUFFIX}")
        return existed

    def list(self) -> list[str]:
        """Return the names of all documents, sorted."""
        try:
            entries = os.listdir(self.directory)
        except FileNotFoundError:
            return []
        # Names never begin with a dot, files being written always do.
        return sorted(
            entry.removesuffix(_SUFFIX)
            for entry in entries
            if entry.endswith(_SUFFIX) and not entry.startswith(".")
        )

    @contextlib.contextmanager
    def lock(self, name: str) -> Iterator[None]:
        """Hold the lock of one document, for several steps that belong together."""
        path = f"{self.directory}/{checked_name(name, self.what)}{_LOCK_SUFFIX}"
        with file_lock.locked(path):
            try:
                yield
            except BaseException:
                # It was to guard a document that did not come to be.
                if not self.exists(name):
                    remove_file(path)
                raise

    def _path(self, name: str) -> str:
        return f"{self.directory}/{checked_name(name, self.what)}{_SUFFIX}"
