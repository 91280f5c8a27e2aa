"""Fetching the layers of an image side by side, each into the content store."""

from __future__ import annotations

import concurrent.futures
import contextlib
import threading
from typing import TYPE_CHECKING

from containerlib._util import file_lock
from containerlib.errors import SizeMismatch
from containerlib.image.progress import TransferEvent

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import TracebackType
    from typing import Self

    from containerlib.image.progress import Phase, Progress
    from containerlib.oci.descriptor import Descriptor
    from containerlib.registry.client import RepositoryClient
    from containerlib.store.stores import Stores

__all__ = ["MAX_LAYER_BYTES", "LayerFetch"]

MAX_LAYER_BYTES = 64 << 30
_WORKERS = 4


class _AbandonedError(Exception):
    """Another layer has failed, so this one is of no use any more."""


class LayerFetch:
    """The downloads of one pull; leaving its context ends those that are still going on.

    A layer that several threads or processes want is fetched by one of them, and the others wait for it.
    """

    def __init__(self, stores: Stores, repository: RepositoryClient, progress: Progress) -> None:
        self._stores = stores
        self._repository = repository
        self._progress = progress
        self._progress_lock = threading.Lock()
        self._abandoned = threading.Event()
        self._pool = concurrent.futures.ThreadPoolExecutor(_WORKERS, "containerlib-fetch")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self._abandoned.set()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def fetch(self, layers: Sequence[Descriptor]) -> Iterator[Descriptor]:
        """Fetch `layers` and yield each, in their order, when it is in the content store.

        Raises:
            RegistryError: The registry does not give one.
            VerificationError: What it gives is not what the manifest promises.
        """
        for layer in layers:
            if layer.size > MAX_LAYER_BYTES:
                raise SizeMismatch(f"layer {layer.digest}", expected=MAX_LAYER_BYTES, actual=layer.size)
        unique = {layer.digest: layer for layer in layers}
        pending = {digest: self._pool.submit(self._fetch, layer) for digest, layer in unique.items()}
        for layer in layers:
            pending[layer.digest].result()
            yield layer

    def tell(self, layer: Descriptor, phase: Phase, current_bytes: int) -> None:
        """Report a step of `layer`."""
        with self._progress_lock:
            self._progress(TransferEvent(str(layer.digest), phase, current_bytes, layer.size))

    def _fetch(self, layer: Descriptor) -> None:
        content = self._stores.content
        with contextlib.suppress(_AbandonedError), self._lock(layer):
            if content.holds(layer):
                self.tell(layer, "exists", layer.size)
                return
            with content.writer(digest=layer.digest, size=layer.size) as writer:

                def note(count: int) -> None:
                    del count
                    if self._abandoned.is_set():
                        raise _AbandonedError
                    self.tell(layer, "downloading", writer.size)

                self._repository.download(layer, writer, note)
                writer.commit()

    def _lock(self, layer: Descriptor) -> contextlib.AbstractContextManager[None]:
        return file_lock.locked(f"{self._stores.layout.locks}/blob-{layer.digest.hex}")
