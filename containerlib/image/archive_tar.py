"""Reading the outer archive of images as a stream: documents are kept, content is spooled, links remembered.

The archive is hostile. Only names that image archives are made of are looked at; nothing is written under a
name of the archive, and a name or link that leads out of it is refused.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from containerlib.errors import InvalidManifest, UnsafePath, UnsupportedLayer
from containerlib.layer.names import clean, shown
from containerlib.layer.tar_reader import TarEntry, TarReader
from containerlib.oci.digest import Digest
from containerlib.oci.image_config import MAX_CONFIG_BYTES

if TYPE_CHECKING:
    from typing import BinaryIO

    from containerlib.image.archive_spool import Spool
    from containerlib.store.content import Blob

__all__ = ["DOCUMENT_LIMITS", "TarContents", "read_tar"]

DOCUMENT_LIMITS = {"oci-layout": 4 << 10, "index.json": 4 << 20, "manifest.json": 16 << 20}
"""The documents that an archive may have at its top, and how many bytes each may have."""

_MAX_MEMBERS = 100_000
_MAX_LINKS = 8

_BLOB = re.compile(rb"blobs/([^/]+)/([^/]+)")
_NAMED_CONFIG = re.compile(rb"([0-9a-f]{64})\.json")
_CONFIG = re.compile(rb"(?:[^/]+/)?(?:[^/]+\.json|sha256:[0-9a-f]{64})")
_LAYER = re.compile(rb"(?:[^/]+/)?[^/]+\.(?:tar|tar\.gz|tgz|tar\.zst)")
_NAMED_LAYER = re.compile(rb"([0-9a-f]{64})\.tar(?:\.gz)?")


class TarContents:
    """What an archive held.

    Attributes:
        documents: Those of `DOCUMENT_LIMITS` that were there.
        files: All content, by name.
        links: Links from name to name.
    """

    def __init__(self) -> None:
        self.documents: dict[str, bytes] = {}
        self.files: dict[bytes, Blob] = {}
        self.links: dict[bytes, bytes] = {}

    def file(self, name: str) -> Blob:
        """Return the content called `name`, through links inside the archive.

        Raises:
            InvalidManifest: There is none.
            UnsafePath: The name leads out of the archive.
        """
        path = clean(name.encode("utf-8", "surrogateescape"))
        for _ in range(_MAX_LINKS):
            if path in self.files:
                return self.files[path]
            if path not in self.links:
                break
            path = self.links[path]
        raise InvalidManifest(f"image archive: manifest.json names {name[:256]!r}, which is not there")


def read_tar(stream: BinaryIO, spool: Spool) -> TarContents:
    """Read the uncompressed archive `stream` to its end mark.

    Raises:
        UnsupportedLayer: It is damaged, cut off, or holds two things under one name.
        UnsafePath: A name or link leads out of it.
        VerificationError: Content is not what its name says.
    """
    contents = TarContents()
    reader = TarReader(stream)
    for number, entry in enumerate(reader, 1):
        if number > _MAX_MEMBERS:
            raise UnsupportedLayer(f"image archive: more than {_MAX_MEMBERS} members")
        _take(contents, spool, reader, entry)
    return contents


def _take(contents: TarContents, spool: Spool, reader: TarReader, entry: TarEntry) -> None:
    path = clean(entry.name)
    if entry.kind in {"symlink", "hardlink"}:
        contents.links[path] = _link_target(entry, path)
    elif entry.kind == "file":
        text = path.decode("utf-8", "surrogateescape")
        if text in DOCUMENT_LIMITS:
            _take_document(contents, reader, entry, text)
        else:
            _take_content(contents, spool, reader, entry, path)
    elif entry.kind != "directory":
        raise UnsafePath(entry.shown_name, f"an archive of images holds no {entry.kind} device or pipe")


def _link_target(entry: TarEntry, path: bytes) -> bytes:
    if entry.kind == "hardlink":
        return clean(entry.linkname)
    if entry.linkname.startswith(b"/"):
        raise UnsafePath(entry.shown_name, f"link to {shown(entry.linkname)!r}, out of the archive")
    return clean(path.rpartition(b"/")[0] + b"/" + entry.linkname)


def _take_document(contents: TarContents, reader: TarReader, entry: TarEntry, name: str) -> None:
    limit = DOCUMENT_LIMITS[name]
    if entry.size > limit:
        raise InvalidManifest(f"image archive: {name} has {entry.size} bytes, more than the limit of {limit}")
    parts = []
    while part := reader.read(entry.size):
        parts.append(part)
    if contents.documents.setdefault(name, b"".join(parts)) != b"".join(parts):
        raise UnsupportedLayer(f"image archive: holds two different {name}")


def _take_content(
    contents: TarContents, spool: Spool, reader: TarReader, entry: TarEntry, path: bytes
) -> None:
    digest = None
    if match := _BLOB.fullmatch(path):
        digest = Digest(b":".join(match.groups()).decode("ascii", "replace"))
    elif _CONFIG.fullmatch(path):
        if entry.size > MAX_CONFIG_BYTES:
            raise InvalidManifest(
                f"image archive: {entry.shown_name!r} has {entry.size} bytes, "
                f"more than the limit of {MAX_CONFIG_BYTES}"
            )
        if match := _NAMED_CONFIG.fullmatch(path):
            digest = Digest(f"sha256:{match[1].decode()}")
    elif not _LAYER.fullmatch(path):
        return  # versions of old formats, and what tools keep beside them
    elif match := _NAMED_LAYER.fullmatch(path):
        digest = _present(spool, Digest(f"sha256:{match[1].decode()}"), entry.size)
    blob = spool.put_stream(reader.read, size=entry.size, digest=digest)
    if contents.files.setdefault(path, blob) != blob:
        raise UnsupportedLayer(f"image archive: holds two different {entry.shown_name!r}")


def _present(spool: Spool, digest: Digest, size: int) -> Digest | None:
    """Return `digest` if the store has such content.

    Most programs name layers so, but others use the same form for something else: nothing promises it.
    """
    if spool.is_here(digest) and spool.stores.content.size(digest) == size:
        return digest
    return None
