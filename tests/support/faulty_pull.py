"""Pulling from a registry with faults: what must hold whenever it fails."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, TypeVar

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.fault_registry import FaultRegistry

    from containerlib import ContainerlibError, Engine

__all__ = ["hasty", "refuse", "visible"]

E = TypeVar("E", bound="ContainerlibError")


def hasty(
    engine: Engine, *, window_s: float = 5.0, stall_timeout_s: float = 5.0, attempts: int = 3
) -> Engine:
    """Let `engine` lose patience with registries soon, and return it."""
    from containerlib.registry.pace import Pace  # noqa: PLC0415 - unit tests run without the extension
    from containerlib.registry.transport import TransportSettings  # noqa: PLC0415

    engine._remote._settings = TransportSettings(
        connect_timeout_s=5.0,
        stall_timeout_s=stall_timeout_s,
        pace=Pace(bytes_per_s=1 << 20, window_s=window_s),
        attempts=attempts,
        first_wait_s=0.002,
        max_wait_s=0.01,
    )
    return engine


def visible(engine: Engine) -> tuple[set[str], set[str]]:
    """Return the names and the blobs that the store shows."""
    stores = engine._session.stores
    return set(stores.references.list()), {str(blob.digest) for blob in stores.content.list()}


@contextlib.contextmanager
def _unchanged(engine: Engine) -> Iterator[None]:
    before = visible(engine)
    yield
    assert visible(engine) == before


def refuse(engine: Engine, registry: FaultRegistry, kind: type[E], match: str, *, heals: bool = True) -> E:
    """Pull and expect this error, the store as before, and an honest pull that works afterwards.

    Args:
        engine: Whose store it is.
        registry: What is pulled from, with its faults.
        kind: The error, exactly.
        match: What the message must have in it.
        heals: Whether the image can be pulled once the faults are gone.
    """
    with _unchanged(engine), pytest.raises(kind, match=match) as caught:
        engine.images.pull(registry.name)
    assert type(caught.value) is kind
    if heals:
        registry.heal()
        assert engine.images.pull(registry.name).references == (registry.name,)
    return caught.value
