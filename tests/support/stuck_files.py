"""A file system whose server takes every question and answers none: who asks waits in the kernel for ever.

FUSE as the kernel speaks it (linux/fuse.h): the server is a thread of this process. What has been read from
the device and is not answered keeps even a killed process, until the device is closed.
"""

from __future__ import annotations

import ctypes
import os
import stat
import struct
import threading
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["StuckFiles"]

_IN = struct.Struct("=IIQQIIII")
_OUT = struct.Struct("=IiQ")
_INIT = struct.Struct("=IIIIHHIIHHI28x")
_ATTR = struct.Struct("=QIIQQQQQQIIIIIIIIII")
_LOOKUP, _GETATTR, _STATFS, _INIT_CALL, _INTERRUPT = 1, 3, 17, 26, 36
_ENOSYS = -38
_MNT_FORCE, _MNT_DETACH = 1, 2
_LIBC = ctypes.CDLL(None, use_errno=True)


class StuckFiles:
    """A mount at `path`: its root can be looked at, nothing below it ever answers."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.asked = threading.Event()
        self._fd = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
        options = f"fd={self._fd},rootmode=40000,user_id=0,group_id=0,allow_other"
        if _LIBC.mount(b"stuck", os.fsencode(path), b"fuse", 0, options.encode()):
            os.close(self._fd)
            raise OSError(ctypes.get_errno(), "mount")
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.let_go()

    def let_go(self) -> None:
        """End: whoever waits gets an error."""
        if self._fd < 0:
            return
        # By force: that breaks the connection, whoever else has the mount.
        _LIBC.umount2(os.fsencode(self.path), _MNT_FORCE | _MNT_DETACH)
        self._thread.join(10)
        os.close(self._fd)
        self._fd = -1

    def _serve(self) -> None:
        while True:
            try:
                request = os.read(self._fd, 1 << 17)
            except OSError:
                return
            _, call, unique, node, *_ = _IN.unpack_from(request)
            if call == _INIT_CALL:
                self._answer(unique, _INIT.pack(7, 31, 0, 0, 1, 1, 4096, 1, 1, 0, 0))
            elif call == _GETATTR and node == 1:
                attributes = (stat.S_IFDIR | 0o755, 2, 0, 0, 0, 4096, 0)
                self._answer(unique, _ATTR.pack(60, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, *attributes))
            elif call == _LOOKUP:
                self.asked.set()
            elif call != _INTERRUPT:
                os.write(self._fd, _OUT.pack(_OUT.size, _ENOSYS, unique))

    def _answer(self, unique: int, body: bytes) -> None:
        os.write(self._fd, _OUT.pack(_OUT.size + len(body), 0, unique) + body)
