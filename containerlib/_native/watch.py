"""Waiting for changes in a directory."""

from __future__ import annotations

import contextlib
import os
import select
from typing import TYPE_CHECKING, Self

from containerlib._native.ffi import ffi, lib

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["Watch"]

_EVENTS = 1 << 16


class Watch:
    """Tells when a file in one directory is written, made or removed, from its own making on."""

    def __init__(self, directory: str) -> None:
        """Begin.

        Raises:
            OSError: There is no such directory, or the user has too many watches.
        """
        fd = lib.ctr_watch(ffi.new("char[]", os.fsencode(directory)))
        if fd < 0:
            raise OSError(-fd, os.strerror(-fd), directory)
        self._fd = int(fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def fileno(self) -> int:
        """A descriptor that becomes readable with a change."""
        return self._fd

    def wait(self, other_fd: int = -1, timeout_s: float | None = None) -> bool:
        """Wait for a change, or for `other_fd` to become readable; whether either has come."""
        poller = select.poll()
        poller.register(self._fd, select.POLLIN)
        if other_fd >= 0:
            poller.register(other_fd, select.POLLIN)
        ready = poller.poll(None if timeout_s is None else max(0.0, timeout_s * 1000))
        with contextlib.suppress(BlockingIOError):
            os.read(self._fd, _EVENTS)
        return bool(ready)

    def close(self) -> None:
        """End it. Again: nothing happens."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)
