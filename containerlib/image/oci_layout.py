"""OCI image layouts: a directory or archive with ``index.json``, and content by digest below ``blobs``.

The index leads to images, and through lists of them to images for several platforms, of which an archive
often holds one only. Everything that is there and that the index leads to is brought into the store.

Source: OCI image-spec 1.1, "Image Layout".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, BinaryIO

import attrs

from containerlib._util import strict_json
from containerlib.errors import InvalidInputError, InvalidManifest
from containerlib.image.archive_tar import DOCUMENT_LIMITS
from containerlib.image.image_record import MAX_INDEX_DEPTH, platform_not_found
from containerlib.layer.tree import Tree
from containerlib.oci import fields, media_type
from containerlib.oci.manifest import MAX_MANIFEST_BYTES, Index, Manifest, parse_manifest
from containerlib.oci.platform import Platform

if TYPE_CHECKING:
    from collections.abc import Callable

    from containerlib.image.archive_spool import Spool
    from containerlib.oci.descriptor import Descriptor
    from containerlib.oci.digest import Digest

__all__ = [
    "IMAGE_NAME",
    "LAYOUT",
    "REF_NAME",
    "LayoutDirectory",
    "LayoutGraph",
    "LayoutRoot",
    "parse_layout",
]

LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'
REF_NAME = "org.opencontainers.image.ref.name"
IMAGE_NAME = "io.containerd.image.name"

_MAX_DESCRIPTORS = 10_000


@attrs.define
class LayoutRoot:
    """One image that the index lists.

    Attributes:
        descriptor: Its manifest or index.
        names: The names that the index gives it.
        labels: What else it is called there: by the specification's annotation, often a tag alone.
    """

    descriptor: Descriptor
    names: list[str]
    labels: list[str]


def parse_layout(layout: bytes, index: bytes) -> list[LayoutRoot]:
    """Check ``oci-layout`` and return what ``index.json`` lists, each digest once.

    Raises:
        InvalidManifest: One of them is damaged, ambiguous, or of a version that is not known.
    """
    try:
        version = fields.text(
            strict_json.loads_object(layout, limit=DOCUMENT_LIMITS["oci-layout"], what="oci-layout"),
            "imageLayoutVersion",
        )
    except InvalidManifest:
        raise
    except InvalidInputError as error:
        raise InvalidManifest(str(error)) from None
    if not version.startswith("1."):
        raise InvalidManifest(f"oci-layout: version is {version!r}, expected '1.0.0'")
    document = parse_manifest(index, media_type.OCI_INDEX)
    roots: dict[Digest, LayoutRoot] = {}
    for entry in document.manifests if isinstance(document, Index) else ():
        if media_type.is_index(entry.media_type) or media_type.is_manifest(entry.media_type):
            root = roots.setdefault(entry.digest, LayoutRoot(entry, [], []))
            root.names += [name for name in [_name(entry)] if name and name not in root.names]
            root.labels += filter(None, [entry.annotations.get(REF_NAME)])
    return list(roots.values())


def _name(entry: Descriptor) -> str:
    """Return the name that an entry of the index gives its image; empty if none.

    The specification's annotation is often the tag alone, which without a repository names nothing.
    """
    name = entry.annotations.get(IMAGE_NAME) or entry.annotations.get(REF_NAME, "")
    return name if "/" in name or ":" in name else ""


class LayoutDirectory:
    """A layout on disk; no link in it is followed."""

    def __init__(self, root_fd: int) -> None:
        self._tree = Tree(root_fd, follow=False)

    def close(self) -> None:
        """Close what the walk has opened."""
        self._tree.forget()

    def documents(self) -> dict[str, bytes]:
        """Return the documents at its top.

        Raises:
            InvalidManifest: One of them is over its limit.
        """
        found = {}
        for name, limit in DOCUMENT_LIMITS.items():
            file = self._open(name)
            if file is None:
                continue
            with file:
                data = file.read(limit + 1)
            if len(data) > limit:
                raise InvalidManifest(f"image layout: {name} is larger than the limit of {limit} bytes")
            found[name] = data
        return found

    def provide(self, spool: Spool, descriptor: Descriptor) -> bool:
        """Bring the content of `descriptor` into the store; return whether it was there or here."""
        if spool.has(descriptor):
            return True
        file = self._open(f"blobs/{descriptor.digest.algorithm}/{descriptor.digest.hex}")
        if file is None:
            return False
        with file:
            spool.put_stream(file.read, size=descriptor.size, digest=descriptor.digest)
        return True

    def _open(self, path: str) -> BinaryIO | None:
        try:
            return open(self._tree.open_regular(path.encode()), "rb", buffering=0)
        except FileNotFoundError:
            return None


class LayoutGraph:
    """What the roots lead to, walked once, with bounds."""

    def __init__(self, spool: Spool, provide: Callable[[Descriptor], bool]) -> None:
        self._spool = spool
        self._provide = provide
        self._documents: dict[Digest, Manifest | Index] = {}
        self._walked: set[Digest] = set()

    @property
    def reached(self) -> frozenset[Digest]:
        """Everything that the walk came by."""
        return frozenset(self._walked)

    def add(self, descriptor: Descriptor, depth: int = 0) -> Manifest | Index | None:
        """Bring in `descriptor` and all below it that there is; return its document if it is one.

        Raises:
            InvalidManifest: A document is damaged, or the graph is too deep or too large.
            VerificationError: Content is not what its descriptor says.
        """
        digest = descriptor.digest
        if depth > MAX_INDEX_DEPTH:
            raise InvalidManifest(f"image layout: lists of images nested more than {MAX_INDEX_DEPTH} deep")
        if digest in self._walked:
            return self._documents.get(digest)
        if len(self._walked) >= _MAX_DESCRIPTORS:
            raise InvalidManifest(f"image layout: more than {_MAX_DESCRIPTORS} descriptors")
        self._walked.add(digest)
        is_document = media_type.is_index(descriptor.media_type) or media_type.is_manifest(
            descriptor.media_type
        )
        if not self._provide(descriptor) or not is_document:
            return None
        raw = self._spool.stores.content.read_descriptor(descriptor, limit=MAX_MANIFEST_BYTES)
        document = parse_manifest(raw, descriptor.media_type)
        self._documents[digest] = document
        children = document.manifests if isinstance(document, Index) else (document.config, *document.layers)
        for child in children:
            self.add(child, depth + 1)
        return document

    def is_here(self, descriptor: Descriptor) -> bool:
        """Say whether the content of `descriptor` is in the store, with the size it says."""
        return self._spool.has(descriptor)

    def select(self, index: Index, platform: Platform | None) -> tuple[Platform | None, Manifest]:
        """Return the image of `index` for `platform` (this host's if None), of those that are here.

        Returns:
            The platform by which the index is asked for this image, None if it is the usual one; the image.

        Raises:
            PlatformNotFound: There is none.
        """
        present = [entry for entry in index.manifests if self._is_image(entry)]
        chosen = (platform or Platform.host()).best_of([entry.platform for entry in present])
        if chosen is None and platform is None and len(present) == 1:
            chosen = 0  # of all platforms the archive has one, so this is the one that is meant
        if chosen is None:
            raise platform_not_found("the archive", attrs.evolve(index, manifests=tuple(present)), platform)
        entry = present[chosen]
        document = self._documents[entry.digest]
        usual = index.select()
        asked = None if usual is not None and usual.digest == entry.digest else entry.platform
        if isinstance(document, Index):
            _, document = self.select(document, platform)
        if not isinstance(document, Manifest):
            raise InvalidManifest(f"index {index.digest}: {document.digest} is not an image")
        return asked, document

    def _is_image(self, entry: Descriptor) -> bool:
        """Say whether an entry of an index is here and is an image or a list of images."""
        document = self._documents.get(entry.digest)
        if isinstance(document, Manifest):
            return document.is_image and (entry.platform is None or entry.platform.os != "unknown")
        return document is not None
