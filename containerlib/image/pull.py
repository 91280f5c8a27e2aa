"""Pulling an image: from a registry into the store.

Manifest and configuration come first and decide what is needed; the lease protects all of it before any of
it is looked for. Layers are fetched side by side, and each is unpacked while it comes. The reference is set
last: until then nobody sees anything of the image.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import attrs

from containerlib.errors import DigestMismatch, InvalidManifest, LayerError, PlatformNotFound, SizeMismatch
from containerlib.image.collect import discard
from containerlib.image.fetch import LayerFetch
from containerlib.image.image_record import MAX_INDEX_DEPTH, load_image, platform_not_found
from containerlib.image.naming import names_of, point, tell
from containerlib.image.progress import ignore
from containerlib.image.unpack import LayerSource, unpack_layers
from containerlib.oci.digest import Digest, chain_ids
from containerlib.oci.image_config import MAX_CONFIG_BYTES, ImageConfig
from containerlib.oci.manifest import Index, Manifest, parse_manifest

if TYPE_CHECKING:
    from containerlib.image.image_record import ImageRecord
    from containerlib.image.lock_file import LockedImage
    from containerlib.image.progress import Progress
    from containerlib.image.unpack import UnpackPolicy
    from containerlib.oci.descriptor import Descriptor
    from containerlib.oci.platform import Platform
    from containerlib.oci.reference import Reference
    from containerlib.registry.client import RepositoryClient
    from containerlib.store.lease import Lease
    from containerlib.store.stores import Stores

__all__ = ["fetch_config", "pull_image"]


@attrs.frozen
class _Found:
    """What a reference means: the documents on the way, the last of which is the image's manifest."""

    target: Descriptor
    documents: tuple[Index | Manifest, ...]
    manifest: Manifest
    config: ImageConfig


class _Buffer:
    """A small blob in memory."""

    def __init__(self, limit: int) -> None:
        self.data = b""
        self._limit = limit

    @property
    def size(self) -> int:
        return len(self.data)

    def write(self, data: bytes, /) -> int:
        self.data += data
        if len(self.data) > self._limit:
            raise SizeMismatch("image configuration", expected=self._limit, actual=len(self.data))
        return len(data)


def pull_image(
    stores: Stores,
    repository: RepositoryClient,
    reference: Reference,
    *,
    platform: Platform | None = None,
    progress: Progress = ignore,
    policy: UnpackPolicy | None = None,
    locked: LockedImage | None = None,
) -> ImageRecord:
    """Fetch the image that `reference` means and point `reference` at it.

    What the store has already is not fetched, and what another process is fetching is waited for. On failure
    the store shows nothing of it, and what it had stays.

    Args:
        stores: Where it goes.
        repository: Whom to ask.
        reference: What to ask for, and the name of the image.
        platform: Which image of an index; what this host runs best if None.
        progress: Told about each layer.
        policy: What layers may hold.
        locked: What `reference` means instead of what the registry says by now.

    Raises:
        RegistryError: The registry refuses or cannot be reached; `RemoteNotFound` if it has no such image.
        PlatformNotFound: It is not made for the platform.
        InvalidManifest: It is damaged, ambiguous, or no container image.
        LayerError: A layer cannot be unpacked.
        VerificationError: The registry sent something else than promised.

    Source: OCI distribution-spec 1.1, "Pull".
    """
    stored: list[Digest] = []
    try:
        with stores.leases.acquire(f"pull {reference.familiar}") as lease:
            if locked is not None:
                platform, pinned = locked.select(platform)
                found = _find(repository, reference, platform, locked.digest, pinned)
            else:
                found = _find(repository, reference, platform)
            stored += [document.digest for document in found.documents]
            stored += [found.config.digest, *(layer.digest for layer in found.manifest.layers)]
            names = chain_ids(found.config.diff_ids)
            lease.protect([*stored, *names])
            _fetch_layers(stores, lease, repository, found, progress, policy)
            stores.content.put(found.config.raw, digest=found.config.digest)
            for document in reversed(found.documents):
                stores.content.put(document.raw, digest=document.digest)
            stores.settle(names)
            target = attrs.evolve(found.target, platform=platform)
            point(stores, reference.canonical, target)
            pulled = load_image(stores, target, names_of(stores, target.digest))
    except BaseException:
        discard(stores, stored)
        raise
    tell(stores, "pull", pulled.id, reference.canonical)
    return pulled


def _find(
    repository: RepositoryClient,
    reference: Reference,
    platform: Platform | None,
    start: Digest | None = None,
    pinned: Digest | None = None,
) -> _Found:
    """Find the image for `platform`, from the document `start` on if that is given; it must be `pinned`."""
    target, raw = repository.fetch_manifest(str(start or reference.digest or reference.tag))
    document = parse_manifest(raw, target.media_type)
    documents: list[Index | Manifest] = [document]
    for _ in range(MAX_INDEX_DEPTH):
        if not isinstance(document, Index):
            break
        exact = (each for each in document.manifests if each.digest == pinned)
        entry = next(exact, None) or document.select(platform)
        if entry is None:
            raise platform_not_found(reference.familiar, document, platform)
        document = parse_manifest(repository.fetch_manifest(entry)[1], entry.media_type)
        documents.append(document)
    if isinstance(document, Index):
        raise InvalidManifest(f"{reference.familiar}: indexes in indexes, over {MAX_INDEX_DEPTH} deep")
    if pinned is not None and document.digest != pinned:
        raise DigestMismatch(f"{reference.familiar}, as locked", expected=pinned, actual=document.digest)
    if not document.is_image:
        kind = document.artifact_type or document.config.media_type
        raise InvalidManifest(f"{reference.familiar} is not a container image but {kind[:120]!r}")
    config = fetch_config(repository, document)
    _check_platform(reference, config, platform)
    return _Found(target, tuple(documents), document, config)


def fetch_config(repository: RepositoryClient, manifest: Manifest) -> ImageConfig:
    """Fetch the configuration of an image, and check that it fits.

    Raises:
        VerificationError: It is not what the manifest says.
        InvalidManifest: It is damaged, or about other layers.
        RegistryError: See `RepositoryClient.download`.
    """
    descriptor = manifest.config
    if descriptor.size > MAX_CONFIG_BYTES:
        raise SizeMismatch(
            f"configuration {descriptor.digest}", expected=MAX_CONFIG_BYTES, actual=descriptor.size
        )
    buffer = _Buffer(descriptor.size)
    repository.download(descriptor, buffer)
    actual = Digest.of(buffer.data, descriptor.digest.algorithm)
    if actual != descriptor.digest:
        raise DigestMismatch("image configuration", expected=descriptor.digest, actual=actual)
    config = ImageConfig.parse(buffer.data)
    if len(config.diff_ids) != len(manifest.layers):
        raise InvalidManifest(
            f"image {descriptor.digest}: {len(manifest.layers)} layers but {len(config.diff_ids)} diff ids"
        )
    return config


def _check_platform(reference: Reference, config: ImageConfig, platform: Platform | None) -> None:
    """An image outside of an index is for one platform alone, which may have been another one."""
    if platform is not None and platform.best_of([config.platform]) is None:
        raise PlatformNotFound(
            f"{reference.familiar} is for {config.platform}, not for {platform}",
            platforms=(str(config.platform),),
        )


def _fetch_layers(
    stores: Stores,
    lease: Lease,
    repository: RepositoryClient,
    found: _Found,
    progress: Progress,
    policy: UnpackPolicy | None,
) -> None:
    """Fetch and unpack at the same time; what was here before and turns out to be damaged is fetched anew."""
    content = stores.content
    digests = {layer.digest for layer in found.manifest.layers}
    begun = [digest for digest in digests if content.has_begun(digest)]
    try:
        _fetch_once(stores, lease, repository, found, progress, policy)
    except (LayerError, DigestMismatch):
        damaged = [digest for digest in digests if content.exists(digest) and not content.matches(digest)]
        if not damaged and not begun:
            raise
        for digest in damaged:
            content.delete(digest)
        for digest in begun:
            content.forget(digest)
        _fetch_once(stores, lease, repository, found, progress, policy)


def _fetch_once(
    stores: Stores,
    lease: Lease,
    repository: RepositoryClient,
    found: _Found,
    progress: Progress,
    policy: UnpackPolicy | None,
) -> None:
    layers = found.manifest.layers
    with LayerFetch(stores, repository, progress) as fetching:
        fetching.begin(layers)
        sources = [
            LayerSource(
                diff_id,
                functools.partial(fetching.open, layer),
                functools.partial(fetching.tell, layer, "done", layer.size),
            )
            for layer, diff_id in zip(layers, found.config.diff_ids, strict=True)
        ]
        unpack_layers(stores, lease, sources, policy=policy, give_up=fetching.give_up)
        for layer in layers:
            fetching.wait(layer)
