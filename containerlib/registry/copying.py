"""Copying an image from one repository to another, which may be of another registry.

Blobs go straight from one to the other, in bounded memory and byte for byte; nothing is unpacked, and nothing
is kept here. What the target has already is not sent, and within one registry blobs are not sent at all.
What a document points at is there before the document is, and the tag comes last.
"""

from __future__ import annotations

import concurrent.futures
import threading
from typing import TYPE_CHECKING, Literal, Protocol

from containerlib.errors import InvalidManifest, PlatformNotFound
from containerlib.oci import media_type
from containerlib.oci.image_config import MAX_CONFIG_BYTES, ImageConfig
from containerlib.oci.manifest import Index, Manifest, parse_manifest
from containerlib.registry.blob_reader import BlobReader, UnreadableError
from containerlib.registry.referrers import list_referrers, publish_referrers
from containerlib.registry.upload import has_blob, put_blob, put_manifest

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from containerlib.oci.descriptor import Descriptor
    from containerlib.oci.digest import Digest
    from containerlib.oci.platform import Platform
    from containerlib.registry.client import RepositoryClient

__all__ = ["OnBlob", "copy_image"]

Phase = Literal["exists", "uploading", "done"]

_WORKERS = 4
_MAX_DEPTH = 4
_MAX_DOCUMENTS = 2000
_MAX_BLOBS = 10_000


class OnBlob(Protocol):
    """Told about each blob, one at a time."""

    def __call__(self, blob: Descriptor, phase: Phase, current_bytes: int, /) -> None:
        """Take note: ``exists``, ``uploading`` or ``done``, and how many bytes of it are there."""


def copy_image(
    source: RepositoryClient,
    target: RepositoryClient,
    name: str,
    tag: str,
    *,
    platforms: Sequence[Platform] | None,
    with_referrers: bool,
    on_blob: OnBlob,
) -> Descriptor:
    """Copy what `name` means in `source`, and let `tag` mean it in `target`.

    Args:
        source: Where it is.
        target: Where it goes.
        name: A tag or a digest.
        tag: Its name there.
        platforms: Which images of an index; of one the manifest alone is copied, of several a new index is
            made. None copies all, and the digest stays the same.
        with_referrers: Whether what refers to it, and to what is in it, is copied as well.
        on_blob: Told about each blob.

    Raises:
        RemoteNotFound: There is no such image.
        PlatformNotFound: It is not made for one of the platforms.
        InvalidManifest: It is damaged, or has too many parts.
        VerificationError: A part is not what it should be.
        RegistryError: One of the registries refuses or cannot be reached. What was copied by then has no
            name in the target.

    Source: OCI distribution-spec 1.1, "Push".
    """
    copy = _Copy(source, target, on_blob)
    descriptor, raw = source.fetch_manifest(name)
    root = parse_manifest(raw, descriptor.media_type)
    if platforms is not None:
        root = copy.select(root, platforms)
    documents = copy.collect(root)
    copy.send(documents)
    for document in documents[:-1]:
        put_manifest(target, document.raw, document.media_type, None)
    if with_referrers:
        copy.send_referrers([document.digest for document in documents], 1)
    return put_manifest(target, root.raw, root.media_type, tag)


class _AbandonedError(Exception):
    """Another blob has failed, so this one is of no use any more."""


class _Copy:
    """One copy on its way."""

    def __init__(self, source: RepositoryClient, target: RepositoryClient, on_blob: OnBlob) -> None:
        self._source = source
        self._target = target
        self._on_blob = on_blob
        self._lock = threading.Lock()
        self._abandoned = threading.Event()
        self._seen: set[Digest] = set()
        self._sent: set[Digest] = set()
        here, there = source.source, target.source
        self._mount_from = (here.repository,) if here.base_url == there.base_url else ()

    def select(self, root: Index | Manifest, platforms: Sequence[Platform]) -> Index | Manifest:
        """Return what has to be copied of `root` for these platforms."""
        if isinstance(root, Manifest):
            own = self._platform(root)
            for platform in platforms:
                if not own.matches(platform):
                    raise PlatformNotFound(
                        f"the image is for {own}, not for {platform}", platforms=(str(own),)
                    )
            return root
        found: dict[Digest, Descriptor] = {}
        for platform in platforms:
            entries = [
                entry
                for entry in root.manifests
                if entry.platform is not None and entry.platform.matches(platform)
            ]
            if not entries:
                there = tuple(str(entry.platform) for entry in root.manifests if entry.platform is not None)
                message = f"the image is not for {platform}; it is for {', '.join(there) or 'no platform'}"
                raise PlatformNotFound(message, platforms=there)
            found[entries[0].digest] = entries[0]
        if len(found) > 1:
            return Index.build(list(found.values()), root.media_type)
        return self._fetch(next(iter(found.values())))

    def collect(self, root: Index | Manifest, depth: int = 0) -> list[Index | Manifest]:
        """Fetch all documents below `root`; each comes before what points at it."""
        found: list[Index | Manifest] = []
        self._seen.add(root.digest)
        for entry in root.manifests if isinstance(root, Index) else ():
            if entry.digest in self._seen:
                continue
            if depth == _MAX_DEPTH or len(self._seen) >= _MAX_DOCUMENTS:
                raise InvalidManifest(
                    f"index {root.digest}: indexes in indexes over {_MAX_DEPTH} deep, or over "
                    f"{_MAX_DOCUMENTS} manifests"
                )
            found += self.collect(self._fetch(entry), depth + 1)
        return [*found, root]

    def send(self, documents: Iterable[Index | Manifest]) -> None:
        """Copy the blobs of all manifests, several at a time; the first failure ends it."""
        manifests = [document for document in documents if isinstance(document, Manifest)]
        blobs = {blob.digest: blob for each in manifests for blob in (each.config, *each.layers)}
        wanted = [
            blob
            for blob in blobs.values()
            if blob.digest not in self._sent and not media_type.is_foreign_layer(blob.media_type)
        ]
        if len(self._sent) + len(wanted) > _MAX_BLOBS:
            raise InvalidManifest(f"the image has more than {_MAX_BLOBS} blobs")
        with concurrent.futures.ThreadPoolExecutor(_WORKERS, "containerlib-copy") as pool:
            pending = [pool.submit(self._send_blob, blob) for blob in wanted]
            try:
                for copying in concurrent.futures.as_completed(pending):
                    copying.result()
            except BaseException:
                self._abandoned.set()
                pool.shutdown(wait=True, cancel_futures=True)
                raise
        self._sent.update(blob.digest for blob in wanted)

    def send_referrers(self, subjects: Sequence[Digest], depth: int) -> None:
        """Copy what refers to `subjects`, and what refers to that."""
        for subject in subjects:
            entries = list_referrers(self._source, subject)
            fresh = [entry for entry in entries if entry.digest not in self._seen]
            if fresh and (depth > _MAX_DEPTH or len(self._seen) + len(fresh) > _MAX_DOCUMENTS):
                raise InvalidManifest(f"what refers to {subject} is over {_MAX_DEPTH} deep, or too much")
            for entry in fresh:
                documents = self.collect(self._fetch(entry))
                self.send(documents)
                for document in documents:
                    put_manifest(self._target, document.raw, document.media_type, None)
                self.send_referrers([document.digest for document in documents], depth + 1)
            if entries:
                publish_referrers(self._target, subject, entries)

    def _fetch(self, entry: Descriptor) -> Index | Manifest:
        return parse_manifest(self._source.fetch_manifest(entry)[1], entry.media_type)

    def _platform(self, manifest: Manifest) -> Platform:
        if manifest.config.size > MAX_CONFIG_BYTES:
            raise InvalidManifest(f"configuration {manifest.config.digest}: over {MAX_CONFIG_BYTES} bytes")
        data = bytearray()
        try:
            with BlobReader(self._source, manifest.config, lambda _position: None) as reader:
                while chunk := reader.read():
                    data += chunk
        except UnreadableError as error:
            raise error.cause from None
        return ImageConfig.parse(bytes(data)).platform

    def _send_blob(self, blob: Descriptor) -> None:
        if has_blob(self._target, blob):
            self._tell(blob, "exists", blob.size)
            return
        self._tell(blob, "uploading", 0)
        try:
            was_sent = put_blob(
                self._target,
                blob,
                lambda: BlobReader(self._source, blob, lambda sent: self._tell(blob, "uploading", sent)),
                self._mount_from,
            )
        except UnreadableError as error:
            raise error.cause from None
        self._tell(blob, "done" if was_sent else "exists", blob.size)

    def _tell(self, blob: Descriptor, phase: Phase, current_bytes: int) -> None:
        if self._abandoned.is_set():
            raise _AbandonedError
        with self._lock:
            self._on_blob(blob, phase, current_bytes)
