"""Context managers of handles, entered and left in threads."""

from __future__ import annotations

from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from containerlib.aio.loop import call, transfer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractContextManager

    from containerlib.image.progress import Progress

__all__ = ["held"]

_T = TypeVar("_T")
_U = TypeVar("_U")


@asynccontextmanager
async def held(
    make: Callable[[Progress], AbstractContextManager[_T]],
    progress: Progress | None,
    wrap: Callable[[_T], _U],
) -> AsyncIterator[_U]:
    """Enter what `make` makes, and leave it at the end of the block.

    Args:
        make: Makes the context manager, given whom to tell about transfers.
        progress: Who wants to know, too.
        wrap: Makes what the block gets of what the context manager gives.
    """
    entered: list[AbstractContextManager[_T]] = []

    def enter(tell: Progress) -> _T:
        manager = make(tell)
        found = manager.__enter__()
        entered.append(manager)
        return found

    try:
        yield wrap(await transfer(enter, progress))
    finally:
        for manager in entered:
            await call(partial(manager.__exit__, None, None, None))
