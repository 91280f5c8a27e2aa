"""The journal: what happens to the objects of a store, written down by whoever brings it about.

One file that all processes append to, each record with one write, supervisors of containers included; see
`struct ctr_event` in `csrc/ctr.h`. A full file is put aside under another name, in the place of the one
before. It is a record for people and programs that want to know, never the truth about an object; so what
cannot be written is missing, and nothing fails for it.
"""

from __future__ import annotations

import contextlib
import os
import struct
import sys
import time
from typing import TYPE_CHECKING, Any, Literal, Self

from attrs import field, frozen

from containerlib._util import file_lock, strict_json
from containerlib._util.atomic_file import make_directory
from containerlib.errors import ContainerlibError, InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["HEADER", "MAGIC", "Journal", "JournalRecord", "Tail"]

MAGIC = 0x31725443
_MAGIC = MAGIC.to_bytes(4, sys.byteorder)
HEADER = struct.Struct("=IIQIiiI64s")
"""magic, size with what follows, time, kind, value, code, nothing, id."""

Kind = Literal["text", "start", "die", "health", "destroy"]

_KINDS: tuple[Kind, ...] = ("text", "start", "die", "health", "destroy")
_NAME, _FORMER, _LOCK = "journal", "journal.1", "lock"
_FULL_BYTES = 1 << 20
_MOST_BYTES = 64 << 10
_CHUNK_BYTES = 1 << 20
_APPEND = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC


@frozen(kw_only=True)
class JournalRecord:
    """One record.

    Attributes:
        time_ns: When, in nanoseconds since the epoch.
        kind: ``"text"`` for what Python has written, otherwise what a supervisor tells.
        value: What the kind makes of it.
        code: The same.
        id: Of the object.
        document: What Python has written: ``type``, ``action``, ``id``, ``name`` and ``attributes``.
    """

    time_ns: int
    kind: Kind
    value: int = 0
    code: int = 0
    id: str
    document: Mapping[str, Any] = field(factory=dict)


@frozen
class Journal:
    """The journal in `directory`, which is made with the first record."""

    directory: str

    def record(
        self,
        type: str,  # noqa: A002 - Docker's word
        action: str,
        id: str,  # noqa: A002 - the same
        name: str = "",
        attributes: Mapping[str, str] | None = None,
    ) -> None:
        """Write down that something has happened; what cannot be written is missing.

        Cost: an open, a write and a close.
        """
        document = {
            "type": type,
            "action": action,
            "id": id,
            "name": name,
            "attributes": dict(attributes or {}),
        }
        with contextlib.suppress(OSError, ContainerlibError, UnicodeEncodeError):
            text = strict_json.dumps(document)
            if len(text) > _MOST_BYTES:
                text = strict_json.dumps({**document, "attributes": {}})
            self._append(_header(len(text)) + text)

    def _append(self, data: bytes) -> None:
        path = f"{self.directory}/{_NAME}"
        try:
            fd = os.open(path, _APPEND, 0o600)
        except FileNotFoundError:
            make_directory(self.directory)
            fd = os.open(path, _APPEND, 0o600)
        try:
            os.write(fd, data)
            is_full = os.fstat(fd).st_size > _FULL_BYTES
        finally:
            os.close(fd)
        if is_full:
            self._put_aside()

    def _put_aside(self) -> None:
        path = f"{self.directory}/{_NAME}"
        with file_lock.locked(f"{self.directory}/{_LOCK}"):
            if os.stat(path).st_size > _FULL_BYTES:
                os.rename(path, f"{self.directory}/{_FORMER}")

    def open_directory(self) -> int:
        """Open the directory, for who appends by itself; -1 if there can be none."""
        with contextlib.suppress(OSError, ContainerlibError):
            make_directory(self.directory)
            return os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        return -1

    def history(self) -> Iterator[JournalRecord]:
        """Everything that there is, oldest first."""
        with Tail(self.directory) as tail:
            yield from tail.read()


class Tail:
    """One reading of the journal, from its beginning to what is written while it is read."""

    def __init__(self, directory: str) -> None:
        """Begin with the file that was put aside, if there is one."""
        self._directory = directory
        self._fds: list[int] = []
        self._rest = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the files; safe to call again."""
        while self._fds:
            os.close(self._fds.pop())

    def read(self) -> Iterator[JournalRecord]:
        """Yield what has been written since the last call, or since ever."""
        if not self._fds:
            self._fds = self._others()
        while self._fds:
            data = os.read(self._fds[0], _CHUNK_BYTES)
            if data:
                yield from self._parse(self._rest + data)
            elif not self._go_on():
                return

    def _go_on(self) -> bool:
        """Go on with the next file; False if this one, read to its end, is the last.

        One that was put aside is read once more before it is left, for what came between.
        """
        if len(self._fds) == 1:
            self._fds += self._others()
            return len(self._fds) > 1
        os.close(self._fds.pop(0))
        self._rest = b""
        return True

    def _others(self) -> list[int]:
        """Open the files that came after the one being read, the older first."""
        known = [_identity(fd) for fd in self._fds]
        while True:
            found = [fd for fd in map(self._open, (_FORMER, _NAME)) if fd >= 0]
            identities = [_identity(fd) for fd in found]
            if len(set(identities)) == len(identities) and self._is_still(found):
                break
            for fd in found:  # put aside between the two
                os.close(fd)
        after = identities.index(known[0]) + 1 if known and known[0] in identities else 0
        for fd in found[:after]:
            os.close(fd)
        return found[after:]

    def _is_still(self, found: list[int]) -> bool:
        """Whether the last of these is what has the name now."""
        try:
            now = os.stat(f"{self._directory}/{_NAME}")
        except OSError:
            return True
        return bool(found) and _identity(found[-1]) == (now.st_dev, now.st_ino)

    def _open(self, name: str) -> int:
        try:
            return os.open(f"{self._directory}/{name}", os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            return -1

    def _parse(self, data: bytes) -> list[JournalRecord]:
        """The whole records in `data`; what is damaged is passed over up to the next that is not."""
        found: list[JournalRecord] = []
        at = 0
        while len(data) - at >= HEADER.size:
            size = _size_at(data, at)
            if size > len(data) - at:
                break  # not written yet
            record = _record(data[at : at + size]) if size else None
            if record is not None:
                found.append(record)
                at += size
                continue
            following = data.find(_MAGIC, at + 1)
            at = following if following >= 0 else max(at + 1, len(data) - len(_MAGIC) + 1)
        self._rest = data[at:]
        return found


def _header(size: int) -> bytes:
    """The header of a text of `size` bytes, which has the id itself."""
    return HEADER.pack(MAGIC, HEADER.size + size, time.time_ns(), _KINDS.index("text"), 0, 0, 0, b"")


def _size_at(data: bytes, at: int) -> int:
    """Size of the record that begins there; 0 if none does."""
    magic, size = HEADER.unpack_from(data, at)[:2]
    return size if magic == MAGIC and HEADER.size <= size <= HEADER.size + _MOST_BYTES else 0


def _record(data: bytes) -> JournalRecord | None:
    """One record; None if it is damaged."""
    _, size, time_ns, kind, value, code, _, identity = HEADER.unpack_from(data)
    if kind >= len(_KINDS) or (size > HEADER.size) != (_KINDS[kind] == "text"):
        return None
    document: Mapping[str, Any] = {}
    if _KINDS[kind] == "text":
        try:
            document = strict_json.loads_object(data[HEADER.size :], limit=_MOST_BYTES)
        except InvalidInputError:
            return None
        if not _is_whole(document):
            return None
    return JournalRecord(
        time_ns=time_ns,
        kind=_KINDS[kind],
        value=value,
        code=code,
        id=str(document.get("id", "")) or identity.rstrip(b"\0").decode("ascii", "replace"),
        document=document,
    )


def _is_whole(document: Mapping[str, Any]) -> bool:
    attributes = document.get("attributes")
    return isinstance(attributes, dict) and all(
        isinstance(text, str)
        for text in (*(document.get(name) for name in ("type", "action", "id", "name")), *attributes.values())
    )


def _identity(fd: int) -> tuple[int, int]:
    info = os.fstat(fd)
    return info.st_dev, info.st_ino
