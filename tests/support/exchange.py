"""A thread that exchanges two names all the time, for tests of races between a path and its resolution."""

from __future__ import annotations

import contextlib
import ctypes
import os
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["exchange", "exchanging"]

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2


def exchange(one: Path, other: Path) -> None:
    """Give each of two names what the other one stands for, at once."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) != 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error), str(one))


@contextlib.contextmanager
def exchanging(one: Path, other: Path) -> Iterator[list[int]]:
    """Exchange two names in a thread for as long as the context is open.

    Yields a list with one number: how often they have been exchanged.
    """
    is_over = threading.Event()
    count = [0]

    def run() -> None:
        while not is_over.is_set():
            exchange(one, other)
            count[0] += 1

    thread = threading.Thread(target=run, name="exchange")
    thread.start()
    try:
        yield count
    finally:
        is_over.set()
        thread.join()
