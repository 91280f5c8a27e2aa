"""The command line on a terminal of its own."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import subprocess
import sys
import termios
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Terminal", "read_until"]

LIMIT_S = 60
COMMAND = (sys.executable, "-m", "containerlib")


def read_until(fd: int, marker: bytes) -> bytes:
    """Read until `marker` has come, and return everything before and with it."""
    seen = b""
    deadline = time.monotonic() + LIMIT_S
    poller = select.poll()
    poller.register(fd, select.POLLIN)
    while marker not in seen:
        assert poller.poll(max(0.0, deadline - time.monotonic()) * 1000), f"{marker!r} did not come: {seen!r}"
        data = os.read(fd, 4096)
        assert data, f"{marker!r} did not come before the end: {seen!r}"
        seen += data
    return seen


class Terminal:
    """A terminal with a command line on it, seen from where its user sits."""

    def __init__(
        self, *args: str, command: tuple[str, ...] = ("run",), environment: Mapping[str, str] | None = None
    ) -> None:
        """Start the command line with these arguments."""
        self.master, self.slave = pty.openpty()
        termios.tcsetwinsize(self.master, (30, 90))
        self.before = termios.tcgetattr(self.slave)
        self.process = subprocess.Popen(
            [*COMMAND, *command, *args],
            stdin=self.slave,
            stdout=self.slave,
            stderr=self.slave,
            env=environment,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509 - there are no threads
        )

    def read_until(self, marker: bytes) -> bytes:
        """Read what the user sees until `marker`."""
        return read_until(self.master, marker)

    def type(self, keys: bytes) -> None:
        """Press keys."""
        os.write(self.master, keys)

    @property
    def is_raw(self) -> bool:
        """Whether keys reach the program one by one."""
        return not termios.tcgetattr(self.slave)[3] & (termios.ICANON | termios.ECHO | termios.ISIG)

    @property
    def is_as_before(self) -> bool:
        """Whether all settings are what they were."""
        return termios.tcgetattr(self.slave) == self.before

    def wait(self) -> int:
        """Wait for the end of the command line; what it shows meanwhile is passed over."""
        deadline = time.monotonic() + LIMIT_S
        poller = select.poll()
        poller.register(self.master, select.POLLIN)
        while self.process.poll() is None:
            assert time.monotonic() < deadline, "it does not end"
            if poller.poll(20):
                os.read(self.master, 4096)
        return self.process.returncode

    def close(self) -> None:
        """Kill what still runs, and close the terminal."""
        self.process.kill()
        self.process.wait(LIMIT_S)
        os.close(self.master)
        os.close(self.slave)
