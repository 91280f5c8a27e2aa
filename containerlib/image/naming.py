"""Which names point at which image, and how an image without a name is kept.

An image is held by every entry of the reference store that points at its manifest. An *anonymous* entry is
called by the manifest's digest, which no reference can be called. It is made whenever a name is about to stop
pointing at an image, because a container may still use that; only removing the image removes it. So no two
processes changing different names need to wait for each other.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from containerlib.errors import InvalidDigest
from containerlib.oci.digest import Digest
from containerlib.oci.reference import Reference

if TYPE_CHECKING:
    from containerlib.oci.descriptor import Descriptor
    from containerlib.store.stores import Stores

__all__ = ["is_anonymous", "names_of", "point", "release", "tell"]


def is_anonymous(name: str) -> bool:
    """Say whether an entry of the reference store is not a name but holds a nameless image."""
    with contextlib.suppress(InvalidDigest):
        Digest(name)
        return True
    return False


def names_of(stores: Stores, digest: Digest) -> tuple[str, ...]:
    """Return the names that point at the image with this manifest digest, sorted."""
    return tuple(
        name
        for name, target in stores.references.list(skip_damaged=True).items()
        if target.digest == digest and not is_anonymous(name)
    )


def point(stores: Stores, name: str | None, target: Descriptor) -> None:
    """Make the canonical `name` point at `target`, or keep `target` without a name.

    This is the commit point of an image: its content must be complete, and protected by a lease or by the
    collection lock. An image that had the name before stays, without it.
    """
    if name is None:
        stores.references.set(target.digest, target)
        return
    with stores.references.lock(name):
        old = stores.references.get(name)
        if old is not None and old.digest != target.digest:
            stores.references.set(old.digest, old)
        stores.references.set(name, target)


def tell(stores: Stores, action: str, image_id: str, name: str = "") -> None:
    """Write into the journal what has become of an image, and under which canonical name."""
    shown = Reference.parse(name).familiar if name else ""
    stores.journal.record("image", action, str(image_id), shown)


def release(stores: Stores, name: str) -> bool:
    """Remove `name` and keep its image; return whether it was there."""
    with stores.references.lock(name):
        old = stores.references.get(name)
        if old is None:
            return False
        stores.references.set(old.digest, old)
        return stores.references.remove_locked(name)
