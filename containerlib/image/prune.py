"""Removing images that nobody uses, by name, label and age."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import attrs

from containerlib._util import file_lock
from containerlib.errors import (
    BlobNotFound,
    InvalidInputError,
    InvalidOption,
    PlatformNotFound,
    StoreCorrupted,
    VerificationError,
)
from containerlib.image.collect import collect
from containerlib.image.image_record import load_config, load_manifest
from containerlib.image.naming import is_anonymous, tell

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from containerlib.oci.descriptor import Descriptor
    from containerlib.oci.digest import ChainId, Digest
    from containerlib.oci.image_config import ImageConfig
    from containerlib.store.stores import Stores

__all__ = ["ImageFilter", "PruneReport", "as_time", "has_labels", "prune_images"]


@attrs.frozen
class PruneReport:
    """What pruning images removed.

    Attributes:
        untagged: Names that images lost, in canonical form.
        deleted: Ids of the images.
        freed_bytes: How much room that made, with content that nothing needed any more.
        leftovers: How many things of dead processes were removed.
    """

    untagged: tuple[str, ...] = ()
    deleted: tuple[str, ...] = ()
    freed_bytes: int = 0
    leftovers: int = 0


def as_time(until: datetime | timedelta | None, *, now: datetime | None = None) -> float | None:
    """Return seconds since 1970 for a time, or for a time span before now.

    Raises:
        InvalidOption: It is before 1970.
    """
    if until is None:
        return None
    if isinstance(until, timedelta):
        until = (now or datetime.now(UTC)) - until
    seconds = until.timestamp()
    if seconds < 0:
        raise InvalidOption("until", str(until), "give a time after 1970")
    return seconds


def has_labels(
    labels: Mapping[str, str], wanted: Mapping[str, str | None], unwanted: Mapping[str, str | None]
) -> bool:
    """Say whether there are all of the `wanted` labels and none of the `unwanted` ones; None is any value."""

    def matches(name: str, value: str | None) -> bool:
        return name in labels and value in {None, labels[name]}

    has_wanted = all(matches(name, value) for name, value in wanted.items())
    return has_wanted and not any(matches(name, value) for name, value in unwanted.items())


@attrs.frozen
class ImageFilter:
    """Which images may go.

    Attributes:
        all: Also those with names.
        until: Only those that were last set before that time, in seconds since 1970.
        labels: Only those with all of these labels.
        without_labels: Only those with none of these.
    """

    all: bool = False
    until: float | None = None
    labels: Mapping[str, str | None] = attrs.field(factory=dict)
    without_labels: Mapping[str, str | None] = attrs.field(factory=dict)

    @classmethod
    def make(
        cls,
        *,
        all: bool = False,  # noqa: A002 - Docker's word
        until: datetime | timedelta | None = None,
        labels: Mapping[str, str | None] | None = None,
        without_labels: Mapping[str, str | None] | None = None,
    ) -> ImageFilter:
        """Check what the caller gives; see `Images.prune`."""
        for option, given in (("labels", labels), ("without_labels", without_labels)):
            if given is not None and not isinstance(given, Mapping):
                raise InvalidOption(
                    option, given, "give a mapping of names to values, or to None for any value"
                )
        return cls(all, as_time(until), dict(labels or {}), dict(without_labels or {}))

    @property
    def needs_config(self) -> bool:
        """Whether an image must be read to know whether it may go."""
        return bool(self.labels or self.without_labels)


@attrs.define
class _Candidate:
    """An image with all entries of the reference store that point at it."""

    target: Descriptor
    names: list[str]
    set_at: float = 0.0


def prune_images(
    stores: Stores,
    chosen: ImageFilter | None = None,
    *,
    in_use: Callable[[str], list[str]] | None = None,
    keep: Iterable[ChainId] = (),
) -> PruneReport:
    """Remove images that no container and no running operation uses, and all content that nothing needs.

    Args:
        stores: The stores.
        chosen: Which images; those without a name if None.
        in_use: Given an image id, returns the containers that use the image.
        keep: Chain ids of snapshots that containers use.

    Raises:
        StoreCorrupted: A reference is damaged, so that nobody knows what it needs.
    """
    chosen = chosen or ImageFilter()
    untagged: list[str] = []
    deleted: list[str] = []
    with file_lock.locked(stores.layout.collection_lock):
        protected = stores.leases.protected()
        for candidate in _candidates(stores):
            config = _config(stores, candidate.target)
            if candidate.target.digest in protected or not _may_go(chosen, candidate, config):
                continue
            image_id = str(candidate.target.digest if config is None else config.digest)
            if config is not None and in_use is not None and in_use(image_id):
                continue
            for name in candidate.names:
                stores.references.remove(name)
            untagged += [name for name in candidate.names if not is_anonymous(name)]
            deleted.append(image_id)
    collected = collect(stores, keep=keep)
    for image_id in deleted:
        tell(stores, "delete", image_id)
    return PruneReport(tuple(untagged), tuple(deleted), collected.freed_bytes, collected.stale)


def _candidates(stores: Stores) -> list[_Candidate]:
    found: dict[Digest, _Candidate] = {}
    for name, target in stores.references.list().items():
        candidate = found.setdefault(target.digest, _Candidate(target, []))
        candidate.names.append(name)
        candidate.set_at = max(candidate.set_at, stores.references.set_at(name))
    return list(found.values())


def _may_go(chosen: ImageFilter, candidate: _Candidate, config: ImageConfig | None) -> bool:
    if not chosen.all and not all(map(is_anonymous, candidate.names)):
        return False
    if chosen.until is not None and candidate.set_at >= chosen.until:
        return False
    if not chosen.needs_config:
        return True
    labels = {} if config is None else config.config.labels
    return has_labels(labels, chosen.labels, chosen.without_labels)


def _config(stores: Stores, target: Descriptor) -> ImageConfig | None:
    """Return the configuration of an image, or None if it is damaged."""
    try:
        return load_config(stores, load_manifest(stores, target))
    except (BlobNotFound, InvalidInputError, PlatformNotFound, StoreCorrupted, VerificationError):
        return None
