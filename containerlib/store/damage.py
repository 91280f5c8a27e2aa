"""What a check of the store can find, as values."""

from __future__ import annotations

from typing import Literal, TypeAlias

import attrs

__all__ = ["Damage", "DamageKind", "Remedy"]

DamageKind: TypeAlias = Literal[
    "blob-content",
    "blob-kind",
    "blob-missing",
    "container-layer",
    "container-record",
    "format",
    "image",
    "permissions",
    "reference",
    "snapshot-content",
    "snapshot-missing",
    "snapshot-parent",
    "snapshot-record",
    "snapshot-tree",
    "unknown",
    "leftover",
]
Remedy: TypeAlias = Literal["collect", "repair", "pull", "look"]


@attrs.frozen(order=True)
class Damage:
    """One finding.

    Attributes:
        kind: What is wrong. ``"leftover"`` is what dead processes have left, or what nothing needs any more;
            it does no harm but takes room.
        path: The file or directory.
        reason: What is wrong with it, in words.
        remedy: How it goes away: ``"collect"`` by `Engine.prune` or `Engine.repair`, ``"repair"`` by the
            latter alone, ``"pull"`` by pulling or making `images` again, ``"look"`` by nobody but a person.
        images: Names of the images that cannot be used, pushed or saved because of it; the digest of one
            without a name.
    """

    kind: DamageKind
    path: str
    reason: str
    remedy: Remedy
    images: tuple[str, ...] = ()

    @property
    def is_leftover(self) -> bool:
        """Whether it does no harm but takes room."""
        return self.kind == "leftover"
