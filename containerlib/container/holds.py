"""The images that one engine runs or is about to run: held by a lease, so that nobody collects them.

An image is still held when its last container is gone, because another one is likely to follow and a lease
costs time. An engine that removes images itself gives up first what it does not use at the moment.
"""

from __future__ import annotations

import contextlib
import os
import threading
from typing import TYPE_CHECKING

import attrs

from containerlib.errors import ContainerlibError, ImageNotFound, ReadOnlyStore, StoreFull
from containerlib.image.collect import collect
from containerlib.oci.digest import chain_ids

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from containerlib.image.image_record import ImageRecord
    from containerlib.oci.digest import Digest
    from containerlib.store.lease import Lease
    from containerlib.store.stores import Stores

__all__ = ["Holds"]


@attrs.define
class _Held:
    image: ImageRecord
    users: int = 0

    @property
    def digests(self) -> set[Digest]:
        """What must stay for the image to be run."""
        image = self.image
        return {image.digest, image.manifest.digest, image.id, *chain_ids(image.config.diff_ids)}


class Holds:
    """What one engine holds, by one lease; safe for threads."""

    def __init__(self, stores: Stores, is_used: Callable[[str], bool]) -> None:
        """Hold nothing yet; `is_used` says whether there are containers of an image id."""
        self._stores = stores
        self._is_used = is_used
        self._lock = threading.RLock()
        self._held: dict[Digest, _Held] = {}
        self._lease: Lease | None = None
        self._end = contextlib.ExitStack()

    @contextlib.contextmanager
    def holding(self, image: ImageRecord) -> Iterator[None]:
        """Keep the content of `image` for the length of a block, and for as long as it has containers.

        Raises:
            ImageNotFound: It has been removed meanwhile.
        """
        with self._lock:
            held = self._held.get(image.digest) or self._hold(image)
            held.users += 1
        try:
            yield
        finally:
            with self._lock:
                held.users -= 1

    def _hold(self, image: ImageRecord) -> _Held:
        held = _Held(image)
        # Where nothing can be written, nothing can be removed either.
        with contextlib.suppress(ReadOnlyStore):
            if self._lease is None:
                self._renew()
            if self._lease is not None:
                self._lease.protect(held.digests)
        if not all(map(os.path.exists, image.lowers)):
            name = image.references[0] if image.references else image.id
            raise ImageNotFound(f"image {name} has been removed by somebody else; pull or make it again")
        self._held[image.digest] = held
        return held

    def _renew(self) -> None:
        """Take a lease for what is held now, in place of the one before."""
        with contextlib.ExitStack() as stack:
            lease = stack.enter_context(self._stores.leases.acquire("images of an engine"))
            lease.protect(digest for held in self._held.values() for digest in held.digests)
            self._end.close()
            self._lease, self._end = lease, stack.pop_all()

    def release_idle(self) -> None:
        """Give up the images of which this engine has no containers."""
        with self._lock:
            idle = [
                digest
                for digest, held in self._held.items()
                if not held.users and not self._is_used(str(held.image.id))
            ]
            for digest in idle:
                del self._held[digest]
            if not self._held:
                self._lease = None
                self._end.close()
            elif idle and self._lease is not None:
                # On a full disk the old lease stays, and with it more than is needed.
                with contextlib.suppress(StoreFull):
                    self._renew()

    def close(self) -> None:
        """Give up everything, and collect what was only kept because of it."""
        with self._lock:
            held, self._held = self._held, {}
            self._lease = None
            self._end.close()
        if held:
            with contextlib.suppress(ContainerlibError, OSError):
                named = {target.digest for target in self._stores.references.list().values()}
                if held.keys() - named:
                    collect(self._stores)
