"""From layers, wherever they come from, to snapshots.

Each layer is unpacked by itself into the directory that will be its overlay layer; no parent is needed or
mounted, so several are unpacked at a time. What is applied is hashed on the way and must be what the
configuration promises. Snapshots are committed from the bottom up.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import functools
import hashlib
import os
import threading
from typing import TYPE_CHECKING, BinaryIO

import attrs

from containerlib._util.disk_error import translated
from containerlib._util.failpoint import reach
from containerlib.errors import DigestMismatch
from containerlib.layer.apply import ApplyLimits, apply_blocks
from containerlib.layer.compression import DecompressionLimits, decompressed_blocks
from containerlib.layer.inherit import inherit
from containerlib.oci.digest import Digest, chain_ids

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager

    from containerlib.layer.apply import ApplyResult, Devices
    from containerlib.oci.digest import ChainId, DiffId
    from containerlib.oci.image_config import ImageConfig
    from containerlib.oci.manifest import Manifest
    from containerlib.store.lease import Lease
    from containerlib.store.stores import Stores

__all__ = ["LayerSource", "UnpackPolicy", "unpack_aside", "unpack_image", "unpack_layer", "unpack_layers"]

_WORKERS = max(2, min(4, os.cpu_count() or 1))


@attrs.frozen
class UnpackPolicy:
    """What layers may hold and how large they may get."""

    devices: Devices = "refuse"
    apply: ApplyLimits = attrs.field(factory=ApplyLimits)
    decompression: DecompressionLimits = attrs.field(factory=DecompressionLimits)

    @classmethod
    def of(cls, stores: Stores) -> UnpackPolicy:
        """Return what layers of these stores may hold."""
        return cls(devices="create" if stores.image_devices else "refuse")


@attrs.frozen
class LayerSource:
    """A layer to be unpacked.

    Attributes:
        diff_id: What it hashes to, uncompressed.
        open: Opens it, compressed or not, from its beginning; may be called in another thread.
        done: Called when its snapshot is there, in whatever order.
    """

    diff_id: DiffId
    open: Callable[[], AbstractContextManager[BinaryIO]]
    done: Callable[[], None] = attrs.field(default=lambda: None)


class _AbandonedError(Exception):
    """Another layer has failed, so this one is of no use any more."""


def unpack_image(
    stores: Stores,
    lease: Lease,
    manifest: Manifest,
    config: ImageConfig,
    *,
    policy: UnpackPolicy | None = None,
) -> ChainId | None:
    """Make the snapshots of every layer of an image whose blobs are in the store.

    Layers that are unpacked already are not touched.

    Returns:
        The chain id of the whole stack, or None for an image without layers.

    Raises:
        LayerError: A layer cannot be applied.
        DigestMismatch: A layer is not what the configuration says.
    """
    sources = [
        LayerSource(diff_id, functools.partial(stores.content.open, layer.digest))
        for layer, diff_id in zip(manifest.layers, config.diff_ids, strict=True)
    ]
    return unpack_layers(stores, lease, sources, policy=policy)


def unpack_layers(
    stores: Stores,
    lease: Lease,
    layers: Sequence[LayerSource],
    *,
    policy: UnpackPolicy | None = None,
    give_up: Callable[[], None] | None = None,
) -> ChainId | None:
    """Make the snapshots of a stack of layers, several at a time.

    Args:
        stores: Where they go.
        lease: Protects them until they have a reference.
        layers: Lowest first.
        policy: What they may hold.
        give_up: Called at the first failure, to make the sources end that are still waiting for something.

    Returns:
        The chain id of the whole stack, or None if there are no layers.

    Raises:
        LayerError: A layer cannot be applied; nothing is left of it, and those below it stay.
        DigestMismatch: A layer is not what the configuration says.
    """
    names = chain_ids([layer.diff_id for layer in layers])
    lease.protect(names)
    if not layers:
        return None
    _Stack(stores, lease, layers, names, policy or UnpackPolicy.of(stores)).run(give_up or _ignore)
    return names[-1]


def unpack_layer(
    stores: Stores,
    lease: Lease,
    stream: BinaryIO,
    *,
    diff_id: DiffId,
    name: ChainId,
    parent: ChainId | None,
    policy: UnpackPolicy | None = None,
    wait: Callable[[], None] | None = None,
    stop: threading.Event | None = None,
) -> None:
    """Make the snapshot `name` from one layer, compressed or not; if it exists, do nothing.

    Several callers of the same name, in whatever processes, do the work once: the others wait.

    Args:
        stores: Where it goes.
        lease: Protects it until it has a reference.
        stream: The layer.
        diff_id: What it hashes to, uncompressed.
        name: Its chain id.
        parent: The chain id of what is below.
        policy: What it may hold.
        wait: Called before the commit, to wait until the parent is committed.
        stop: Ends the work when it is set.

    Raises:
        LayerError: The layer cannot be applied; nothing is left of it.
        DigestMismatch: The uncompressed layer does not hash to `diff_id`.
    """
    with stores.snapshots.lock(name):
        if stores.snapshots.exists(name):
            return
        active = stores.snapshots.prepare(lease)
        try:
            with translated(active.path):
                reach("unpack", active.path)
                result = _apply(stream, active.path, diff_id, policy or UnpackPolicy.of(stores), stop)
            if wait is not None:
                wait()
            _inherit(stores, active.path, result, parent)
            stores.snapshots.commit(active.key, name=name, parent=parent, size_bytes=result.size_bytes)
        except BaseException:
            stores.snapshots.abort(active.key)
            raise


@contextlib.contextmanager
def unpack_aside(
    stores: Stores,
    lease: Lease,
    digest: Digest,
    diff_id: DiffId,
    *,
    parent: ChainId | None,
    policy: UnpackPolicy | None = None,
) -> Iterator[str]:
    """Unpack the layer in the blob `digest` over `parent` for the length of a block, for those who compare.

    Raises:
        LayerError, DigestMismatch: As `unpack_layer`.
    """
    active = stores.snapshots.prepare(lease)
    try:
        with stores.content.open(digest) as stream, translated(active.path):
            result = _apply(stream, active.path, diff_id, policy or UnpackPolicy.of(stores), None)
        _inherit(stores, active.path, result, parent)
        yield active.path
    finally:
        stores.snapshots.abort(active.key)


class _Stack:
    """The layers of one image being unpacked. A layer waits for the one below only to be committed."""

    def __init__(
        self,
        stores: Stores,
        lease: Lease,
        layers: Sequence[LayerSource],
        names: Sequence[ChainId],
        policy: UnpackPolicy,
    ) -> None:
        self._stores = stores
        self._lease = lease
        self._layers = layers
        self._names = names
        self._policy = policy
        self._stop = threading.Event()
        self._work: list[concurrent.futures.Future[None]] = []

    def run(self, give_up: Callable[[], None]) -> None:
        """Unpack what is missing; the first failure ends it."""
        with concurrent.futures.ThreadPoolExecutor(_WORKERS, "containerlib-unpack") as pool:
            try:
                # In this order: what a layer waits for has always begun before it.
                for number in range(len(self._layers)):
                    self._work.append(pool.submit(self._unpack, number))
                concurrent.futures.wait(self._work, return_when=concurrent.futures.FIRST_EXCEPTION)
                for work in sorted(self._work, key=_is_consequence):
                    if work.done():
                        work.result()
            except BaseException:
                self._stop.set()
                give_up()
                pool.shutdown(wait=True, cancel_futures=True)
                raise

    def _unpack(self, number: int) -> None:
        layer, name = self._layers[number], self._names[number]
        if self._stop.is_set():
            raise _AbandonedError
        if not self._stores.snapshots.exists(name):
            with layer.open() as stream:
                unpack_layer(
                    self._stores,
                    self._lease,
                    stream,
                    diff_id=layer.diff_id,
                    name=name,
                    parent=self._names[number - 1] if number else None,
                    policy=self._policy,
                    wait=functools.partial(self._wait_below, number),
                    stop=self._stop,
                )
        layer.done()

    def _wait_below(self, number: int) -> None:
        if number and self._work[number - 1].exception() is not None:
            raise _AbandonedError


def _is_consequence(work: concurrent.futures.Future[None]) -> bool:
    return work.done() and isinstance(work.exception(), _AbandonedError)


def _ignore() -> None:
    pass


def _inherit(stores: Stores, path: str, result: ApplyResult, parent: ChainId | None) -> None:
    """Make directories that the layer says nothing of what they are below, which is committed by now."""
    if result.implied:
        inherit(path, result.implied, [] if parent is None else stores.snapshots.lowers(parent))


def _apply(
    stream: BinaryIO, path: str, diff_id: DiffId, policy: UnpackPolicy, stop: threading.Event | None
) -> ApplyResult:
    hashing = hashlib.new(diff_id.algorithm)

    def hashed() -> Iterator[bytes]:
        for block in decompressed_blocks(stream, limits=policy.decompression):
            if stop is not None and stop.is_set():
                raise _AbandonedError
            hashing.update(block)
            yield block

    root_fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        result = apply_blocks(hashed(), root_fd, devices=policy.devices, limits=policy.apply)
    finally:
        os.close(root_fd)
    actual = Digest(f"{diff_id.algorithm}:{hashing.hexdigest()}")
    if actual != diff_id:
        raise DigestMismatch("layer", expected=diff_id, actual=actual)
    return result
