"""Work in threads and waiting for descriptors, from an event loop."""

from __future__ import annotations

import asyncio
import select
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Sequence

    from containerlib.image.progress import Progress, TransferEvent

__all__ = ["call", "each", "ready", "transfer"]

_T = TypeVar("_T")
_U = TypeVar("_U")
_THREADS = 32

_pool: ThreadPoolExecutor | None = None
_pool_lock = threading.Lock()


def _executor() -> ThreadPoolExecutor:
    """Threads of our own: those of the loop may all be waiting for what we do."""
    global _pool  # noqa: PLW0603 - the one pool of the process, made on demand
    with _pool_lock:
        if _pool is None:
            _pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="containerlib")
        return _pool


async def call(
    work: Callable[[], _T],
    *,
    undo: Callable[[_T], object] | None = None,
    cancel: Callable[[], object] | None = None,
) -> _T:
    """Do some work in a thread, and return what it returns.

    A task that is cancelled meanwhile goes on only when the work has ended, so that nothing is done behind
    its back.

    Args:
        work: The work.
        undo: Takes back what the work has done, if the task was cancelled meanwhile.
        cancel: Tells the work that it is no longer wanted.
    """
    loop = asyncio.get_running_loop()
    future = loop.run_in_executor(_executor(), work)
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        if cancel is not None:
            cancel()
        await _settle(future)
        if undo is not None and not future.cancelled() and future.exception() is None:
            result = future.result()
            await _settle(loop.run_in_executor(_executor(), lambda: undo(result)))
        raise


async def _settle(future: asyncio.Future[_U]) -> None:
    """Wait for the end of something, even if the task is cancelled again."""
    while not future.done():
        try:
            await asyncio.wait([future])
        except asyncio.CancelledError:
            continue  # that it was cancelled is known already
    if not future.cancelled():
        future.exception()


class _NoLongerWantedError(Exception):
    """Ends a transfer whose task was cancelled."""


async def transfer(work: Callable[[Progress], _T], progress: Progress | None) -> _T:
    """Do a transfer in a thread. Cancelling the task ends it; `progress` is called in threads.

    Args:
        work: The transfer, given whom to tell about its progress.
        progress: Who wants to know, too.
    """
    unwanted = threading.Event()

    def tell(event: TransferEvent) -> None:
        if unwanted.is_set():
            raise _NoLongerWantedError
        if progress is not None:
            progress(event)

    return await call(lambda: work(tell), cancel=unwanted.set)


async def each(work: Callable[[], Iterable[_T]], make: Callable[[_T], _U]) -> AsyncIterator[_U]:
    """Yield what a quick step in a thread gives, each made into something else."""
    for item in await call(lambda: list(work())):
        yield make(item)


def _tell(told: asyncio.Future[None]) -> None:
    if not told.done():
        told.set_result(None)


async def ready(fds: Sequence[int], timeout_s: float | None = None, *, writable: int = -1) -> bool:
    """Wait until one of several descriptors is readable, or `writable` is writable.

    Any number of tasks may wait for the same descriptor.

    Args:
        fds: Descriptors to be read from.
        timeout_s: Longest wait in seconds.
        writable: A descriptor to be written to; -1 for none.

    Returns:
        Whether there is one; False when the time is up.
    """
    loop = asyncio.get_running_loop()
    # A descriptor of one's own: a loop has room for one reader of each.
    with select.epoll() as watched:
        for fd in fds:
            watched.register(fd, select.EPOLLIN)
        if writable >= 0:
            watched.register(writable, select.EPOLLOUT)
        told = loop.create_future()
        loop.add_reader(watched.fileno(), _tell, told)
        try:
            done, _ = await asyncio.wait([told], timeout=timeout_s)
        finally:
            loop.remove_reader(watched.fileno())
            told.cancel()
        return bool(done)
