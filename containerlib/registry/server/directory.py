"""A registry's content in a directory of its own.

    registry.json                                marks the directory
    blobs/<algorithm>/<hex>                      content of blobs and manifests, each once
    repositories/<name>/_blobs/<digest>          which blobs a repository has; empty files
    repositories/<name>/_manifests/<digest>.json which manifests it has, with their media types
    repositories/<name>/_referrers/<subject>/<digest>
    repositories/<name>/_tags/<tag>.json         what a tag means
    incoming/                                    uploads; whatever a dead process left there is removed

Every file gets its name complete, by one rename, so a crash leaves nothing by half. Components of repository
names begin with a letter or a digit, so none can be one of the directories with an underscore.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from containerlib._util import file_lock, strict_json
from containerlib._util.atomic_file import (
    TEMPORARY_PREFIX,
    collect_temporary_files,
    make_directory,
    remove_file,
    write_atomic,
)
from containerlib.errors import BlobNotFound, InvalidInputError
from containerlib.oci.digest import Digest
from containerlib.oci.manifest import MAX_MANIFEST_BYTES, parse_manifest
from containerlib.registry.server.incoming import FileIncoming
from containerlib.registry.server.storage import StoredManifest, referrer

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import BinaryIO

    from containerlib.oci.descriptor import Descriptor
    from containerlib.oci.manifest import Index, Manifest
    from containerlib.registry.server.storage import Incoming

__all__ = ["DirectoryStorage"]

_VERSION = 1
_RECORD_LIMIT = 64 << 10
_JSON = ".json"
_PARTS = ("_blobs", "_manifests", "_referrers", "_tags")


class DirectoryStorage:
    """Storage in a directory; see `Storage`. Any number of processes may use one."""

    deletes_blobs = True

    def __init__(self, directory: str) -> None:
        """Take the directory, which is made if it is missing.

        Raises:
            InvalidInputError: There is something in it that is not a registry's.
        """
        self._root = directory
        make_directory(directory)
        mark = f"{directory}/registry.json"
        if not os.path.exists(mark) and any(
            not name.startswith(TEMPORARY_PREFIX) and name != "lost+found" for name in os.listdir(directory)
        ):
            raise InvalidInputError(f"{directory!r} is neither empty nor the directory of a registry")
        if not os.path.exists(mark):
            write_atomic(mark, strict_json.dumps({"version": _VERSION}), durable=True)
        if _read(mark).get("version") != _VERSION:
            raise InvalidInputError(f"{directory!r} is of another version of containerlib")
        collect_temporary_files(self._incoming)

    def repositories(self) -> list[str]:
        """See `Storage`. Cost: looks at every repository."""
        return sorted(name for name in self._walk() if _names(self._part(name, "_manifests")))

    def has_repository(self, repository: str) -> bool:
        """See `Storage`."""
        return any(os.path.isdir(self._part(repository, part)) for part in ("_manifests", "_blobs"))

    def tags(self, repository: str) -> list[str]:
        """See `Storage`."""
        return sorted(name.removesuffix(_JSON) for name in _names(self._part(repository, "_tags")))

    def find_manifest(self, repository: str, reference: str | Digest) -> StoredManifest | None:
        """See `Storage`."""
        digest = reference if isinstance(reference, Digest) else self._tag(repository, reference)
        if digest is None:
            return None
        try:
            record = _read(self._manifest(repository, digest))
            with self._open(digest) as file:
                raw = file.read(MAX_MANIFEST_BYTES)
        except (FileNotFoundError, BlobNotFound):
            return None
        if Digest.of(raw, digest.algorithm) != digest:
            return None  # damaged; pushing it again mends it
        return StoredManifest(str(record.get("mediaType")), digest, raw)

    def has_manifest(self, repository: str, digest: Digest) -> bool:
        """See `Storage`."""
        return os.path.exists(self._manifest(repository, digest))

    def put_manifest(
        self, repository: str, document: Manifest | Index, digest: Digest, tags: Sequence[str]
    ) -> None:
        """See `Storage`. The record of the manifest is what makes it visible, and each tag itself."""
        with file_lock.locked(self._lock, shared=True):
            write_atomic(self._content(digest), document.raw, durable=True)
            if document.subject is not None:
                part = f"{self._part(repository, '_referrers')}/{_file(document.subject.digest)}"
                _touch(part, _file(digest))
            record = {"mediaType": document.media_type, "size": len(document.raw)}
            write_atomic(self._manifest(repository, digest), strict_json.dumps(record), durable=True)
            for tag in tags:
                path = f"{self._part(repository, '_tags')}/{tag}{_JSON}"
                write_atomic(path, strict_json.dumps({"digest": str(digest)}), durable=True)

    def remove_tag(self, repository: str, tag: str) -> bool:
        """See `Storage`."""
        return remove_file(f"{self._part(repository, '_tags')}/{tag}{_JSON}")

    def remove_manifest(self, repository: str, digest: Digest) -> bool:
        """See `Storage`. Cost: looks at every repository."""
        with file_lock.locked(self._lock):
            for tag in self.tags(repository):
                if self._tag(repository, tag) == digest:
                    self.remove_tag(repository, tag)
            if not remove_file(self._manifest(repository, digest)):
                return False
            self._drop_unused(digest)
        return True

    def referrers(self, repository: str, subject: Digest) -> list[Descriptor]:
        """See `Storage`."""
        found = []
        for name in sorted(_names(f"{self._part(repository, '_referrers')}/{_file(subject)}")):
            digest = Digest(name.replace("-", ":", 1))
            stored = self.find_manifest(repository, digest)
            if stored is not None:
                found.append(referrer(parse_manifest(stored.raw, stored.media_type), digest))
        return found

    def blob_size(self, repository: str, digest: Digest) -> int | None:
        """See `Storage`."""
        if not os.path.exists(self._blob(repository, digest)):
            return None
        try:
            return os.stat(self._content(digest), follow_symlinks=False).st_size
        except FileNotFoundError:
            return None

    def open_blob(self, repository: str, digest: Digest) -> BinaryIO:
        """See `Storage`."""
        if not os.path.exists(self._blob(repository, digest)):
            raise BlobNotFound(f"no blob {digest} in {repository}")
        return self._open(digest)

    def begin(self, algorithm: str, limit: int) -> Incoming:
        """See `Storage`."""
        return FileIncoming(self._incoming, algorithm, limit)

    def commit(self, repository: str, incoming: Incoming, digest: Digest) -> None:
        """See `Storage`. Makes the blob durable."""
        if not isinstance(incoming, FileIncoming):
            raise TypeError(f"{type(incoming).__name__} did not come from this storage")
        with file_lock.locked(self._lock, shared=True):
            incoming.publish(os.path.dirname(self._content(digest)), digest.hex)
            _touch(self._part(repository, "_blobs"), _file(digest))

    def mount(self, repository: str, source: str, digest: Digest) -> bool:
        """See `Storage`."""
        with file_lock.locked(self._lock, shared=True):
            if self.blob_size(source, digest) is None:
                return False
            _touch(self._part(repository, "_blobs"), _file(digest))
        return True

    def remove_blob(self, repository: str, digest: Digest) -> bool:
        """See `Storage`. Cost: looks at every repository."""
        with file_lock.locked(self._lock):
            if not remove_file(self._blob(repository, digest)):
                return False
            self._drop_unused(digest)
        return True

    def close(self) -> None:
        """See `Storage`: nothing is held."""

    @property
    def _incoming(self) -> str:
        return f"{self._root}/incoming"

    @property
    def _lock(self) -> str:
        """Held shared to give a repository content, exclusively to delete content that none has any more."""
        return f"{self._root}/lock"

    def _part(self, repository: str, part: str) -> str:
        return f"{self._root}/repositories/{repository}/{part}"

    def _blob(self, repository: str, digest: Digest) -> str:
        return f"{self._part(repository, '_blobs')}/{_file(digest)}"

    def _manifest(self, repository: str, digest: Digest) -> str:
        return f"{self._part(repository, '_manifests')}/{_file(digest)}{_JSON}"

    def _content(self, digest: Digest) -> str:
        return f"{self._root}/blobs/{digest.algorithm}/{digest.hex}"

    def _open(self, digest: Digest) -> BinaryIO:
        try:
            fd = os.open(self._content(digest), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            raise BlobNotFound(f"no blob {digest}") from None
        return open(fd, "rb", buffering=0)

    def _tag(self, repository: str, tag: str) -> Digest | None:
        with contextlib.suppress(FileNotFoundError):
            return Digest(_read(f"{self._part(repository, '_tags')}/{tag}{_JSON}").get("digest"))
        return None

    def _drop_unused(self, digest: Digest) -> None:
        """Delete content that no repository has any more; the lock is held exclusively."""
        for name in self._walk():
            if os.path.exists(self._blob(name, digest)) or self.has_manifest(name, digest):
                return
        remove_file(self._content(digest))

    def _walk(self) -> Iterator[str]:
        """Yield the names of all repositories."""
        top = f"{self._root}/repositories"
        for parent, directories, _ in os.walk(top):
            if not set(directories).isdisjoint(_PARTS):
                yield os.path.relpath(parent, top)
            directories[:] = [name for name in directories if not name.startswith("_")]


def _file(digest: Digest) -> str:
    return f"{digest.algorithm}-{digest.hex}"


def _names(directory: str) -> list[str]:
    try:
        return [name for name in os.listdir(directory) if not name.startswith(".")]
    except (FileNotFoundError, NotADirectoryError):
        return []


def _read(path: str) -> dict[str, object]:
    with open(path, "rb", buffering=0) as file:
        return strict_json.loads_object(file.read(_RECORD_LIMIT), limit=_RECORD_LIMIT, what=path)


def _touch(directory: str, name: str) -> None:
    """Make an empty file; one that is there already stays."""
    make_directory(directory)
    with contextlib.suppress(FileExistsError):
        os.close(os.open(f"{directory}/{name}", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
