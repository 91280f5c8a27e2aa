"""Starts a program that stays when this process ends: nobody's child, with nothing of what we have open."""

from __future__ import annotations

import os
import select
from typing import TYPE_CHECKING

from containerlib._native.channel import close_all
from containerlib._native.ffi import ffi, lib
from containerlib._native.spawn import DetachedStarter

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["start_companion"]


class _Companion(DetachedStarter):
    def __init__(self) -> None:
        super().__init__("ctr-companion", -1, ())

    def become(self, arguments: Sequence[str], given_fds: Sequence[int]) -> None:
        message = b"".join(os.fsencode(each) + b"\0" for each in arguments)
        result = lib.ctr_send(self._control, message, len(message), list(given_fds), len(given_fds))
        if result < 0:
            raise OSError(-result, os.strerror(-result), arguments[0])
        status = ffi.new("struct ctr_status *")
        poller = select.poll()
        poller.register(self._control, select.POLLIN)
        poller.poll()
        # The end of the socket is the good news: it is closed by the execution.
        if lib.ctr_receive(self._control, status, ffi.new("int *", -1)) > 0:
            raise OSError(status.value, os.strerror(status.value), arguments[0])

    def close(self) -> None:
        control, self._control = self._control, -1
        pidfd, self.pidfd = self.pidfd, -1
        close_all([fd for fd in (control, pidfd) if fd >= 0])


def start_companion(arguments: Sequence[str], given_fds: Sequence[int]) -> None:
    """Start a program, and return when it was executed.

    Args:
        arguments: Absolute path of the program, and what it is told.
        given_fds: Its first standard streams, two at most; the others lead nowhere.

    Raises:
        OSError: It cannot be executed.
        UnsupportedHost: A memory file cannot be executed here.

    Cost: some two milliseconds, and whatever the program itself takes.
    """
    companion = _Companion()
    try:
        companion.become(arguments, given_fds)
    finally:
        companion.close()
