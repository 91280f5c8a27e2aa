"""Fetching the layers of an image side by side, each into the content store.

A layer can be read while it comes: the reader waits for what is not here yet, and sees the end only when the
whole layer is verified. So whoever reads to the end has read the right bytes.
"""

from __future__ import annotations

import concurrent.futures
import io
import os
import threading
from typing import TYPE_CHECKING, BinaryIO, cast

from containerlib._util import file_lock
from containerlib.errors import SizeMismatch
from containerlib.image.progress import TransferEvent

if TYPE_CHECKING:
    import contextlib
    from collections.abc import Sequence
    from types import TracebackType
    from typing import Self

    from containerlib.image.progress import Phase, Progress
    from containerlib.oci.descriptor import Descriptor
    from containerlib.registry.client import RepositoryClient
    from containerlib.store.content import ContentStore
    from containerlib.store.ingest import Ingest
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
        self._coming: dict[str, _Coming] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self.give_up()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def begin(self, layers: Sequence[Descriptor]) -> None:
        """Begin to fetch `layers`, in this order.

        Raises:
            SizeMismatch: One is too large; nothing is fetched.
        """
        for layer in layers:
            if layer.size > MAX_LAYER_BYTES:
                raise SizeMismatch(f"layer {layer.digest}", expected=MAX_LAYER_BYTES, actual=layer.size)
        for layer in layers:
            if layer.digest not in self._coming:
                self._coming[layer.digest] = coming = _Coming(self._stores.content, layer)
                if not self._stores.content.exists(layer.digest, size=layer.size):
                    self.tell(layer, "waiting", 0)
                self._pool.submit(self._fetch, coming)

    def open(self, layer: Descriptor) -> contextlib.AbstractContextManager[BinaryIO]:
        """Open a layer for reading; its bytes come as they arrive.

        Raises:
            RegistryError: The registry does not give it. From the reads, too.
            VerificationError: What it gives is not what the manifest promises. From the reads, too.
        """
        self.tell(layer, "unpacking", layer.size)
        return self._coming[layer.digest].open()

    def wait(self, layer: Descriptor) -> None:
        """Wait until a layer is in the content store; errors as for `open`."""
        self._coming[layer.digest].wait()

    def give_up(self) -> None:
        """End all downloads, and all reads that wait for them."""
        self._abandoned.set()
        for coming in self._coming.values():
            coming.end(_AbandonedError())

    def tell(self, layer: Descriptor, phase: Phase, current_bytes: int) -> None:
        """Report a step of `layer`."""
        with self._progress_lock:
            self._progress(TransferEvent(str(layer.digest), phase, current_bytes, layer.size))

    def _fetch(self, coming: _Coming) -> None:
        try:
            self._download(coming)
        except BaseException as error:  # noqa: BLE001 - whoever reads the layer has to know
            coming.end(error)
        else:
            coming.end()

    def _download(self, coming: _Coming) -> None:
        layer, content = coming.layer, self._stores.content
        with self._lock(layer):
            if content.exists(layer.digest, size=layer.size):
                self.tell(layer, "exists", layer.size)
                return
            with content.ingest(layer.digest, layer.size) as ingest:

                def note(count: int) -> None:
                    del count
                    if self._abandoned.is_set():
                        raise _AbandonedError
                    coming.advance(ingest.size)
                    self.tell(layer, "downloading", ingest.size)

                coming.begin(ingest)
                self._repository.download(layer, ingest, note)
                ingest.commit()

    def _lock(self, layer: Descriptor) -> contextlib.AbstractContextManager[None]:
        return file_lock.locked(f"{self._stores.layout.locks}/blob-{layer.digest.hex}")


class _Coming:
    """A layer on its way: nothing of it is here, a part, all, or it will never come."""

    def __init__(self, content: ContentStore, layer: Descriptor) -> None:
        self.layer = layer
        self._content = content
        self._changed = threading.Condition()
        self._fd = -1
        self._size = 0
        self._is_over = False
        self._error: BaseException | None = None

    def begin(self, ingest: Ingest) -> None:
        """Let it be read from `ingest`, which is open and may be closed before anybody reads."""
        with self._changed:
            if not self._is_over:
                self._fd, self._size = ingest.open(), ingest.size
                self._changed.notify_all()

    def advance(self, size: int) -> None:
        """Note that `size` bytes are here."""
        with self._changed:
            self._size = size
            self._changed.notify_all()

    def end(self, error: BaseException | None = None) -> None:
        """Note that it is complete and verified, or why it will not be; only the first call counts."""
        with self._changed:
            if not self._is_over:
                self._is_over, self._error = True, error
                fd, self._fd = self._fd, -1
                if fd >= 0:
                    os.close(fd)
                self._changed.notify_all()

    def wait(self) -> None:
        """Wait for the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_over)
            self._check()

    def open(self) -> BinaryIO:
        """Open it for reading, once it is clear where from."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_over or self._fd >= 0)
            self._check()
            if self._is_over:
                return self._content.open(self.layer.digest)
            return cast("BinaryIO", _ComingReader(self, os.dup(self._fd)))

    def available(self, position: int) -> int:
        """Wait until there is something behind `position`; how much, and 0 at the verified end."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_over or self._size > position)
            self._check()
            return (self.layer.size if self._is_over else self._size) - position

    def _check(self) -> None:
        if self._error is not None:
            raise self._error


class _ComingReader(io.RawIOBase):
    """Reads a layer that is still coming."""

    def __init__(self, coming: _Coming, fd: int) -> None:
        super().__init__()
        self._coming = coming
        self._fd = fd
        self._position = 0

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        available = self._coming.available(self._position)
        data = os.pread(self._fd, available if size < 0 else min(size, available), self._position)
        self._position += len(data)
        return data

    def close(self) -> None:
        if not self.closed:
            os.close(self._fd)
        super().close()
