"""What a transfer tells about itself while it goes on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeAlias

import attrs

__all__ = ["Phase", "Progress", "TransferEvent", "ignore"]

Phase = Literal["waiting", "exists", "downloading", "unpacking", "uploading", "done"]


@attrs.frozen
class TransferEvent:
    """One step of one layer.

    Attributes:
        digest: Of the content.
        phase: What happens to it; ``exists`` means that nothing had to be transferred, and ``waiting`` that
            its turn will come. A layer may be unpacked while it is still being downloaded.
        current_bytes: How many bytes of it are transferred.
        total_bytes: Its size.
    """

    digest: str
    phase: Phase
    current_bytes: int
    total_bytes: int


Progress: TypeAlias = Callable[[TransferEvent], None]
"""Called from several threads, one at a time; what it raises ends the transfer."""


def ignore(event: TransferEvent) -> None:
    """Take no note of it."""
    del event
