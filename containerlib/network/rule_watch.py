"""Notices when somebody takes the firewall's rules away, or puts others in their way, and mends that.

Source: linux/netfilter/nfnetlink.h, NFNLGRP_NFTABLES.
"""

from __future__ import annotations

import socket
import struct
from typing import TYPE_CHECKING

from containerlib.errors import ContainerlibError
from containerlib.network import nftables as nft
from containerlib.network.firewall import passes_on, repair

if TYPE_CHECKING:
    from collections.abc import Callable

    from containerlib.network.event_loop import EventLoop

__all__ = ["RuleWatch"]

_GROUP = 1 << 6  # NFNLGRP_NFTABLES
_HEADER = struct.Struct("=IHHII")
_BYTES = 1 << 16


class RuleWatch:
    """Watches the rules of this network namespace, for all who use them."""

    def __init__(self, loop: EventLoop, repaired: Callable[[], None]) -> None:
        """Watch from now on.

        Args:
            loop: Whose turns make it look.
            repaired: Called after something was taken away: what is said of single containers may be missing.

        Raises:
            OSError: This process may not.
        """
        self._repaired = repaired
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, nft.NETFILTER)
        self._socket.bind((0, _GROUP))
        self._socket.setblocking(False)
        self._is_due = False
        self._with_guard = False
        loop.on_readable(self._socket, self._told)
        loop.on_tick(self._tick)

    def note(self, *, is_guarded: bool) -> None:
        """A network has come, and something may have been taken away since.

        Args:
            is_guarded: Whether the host's own devices were kept apart then.
        """
        self._with_guard = self._with_guard or is_guarded
        self._is_due = True

    def _told(self) -> None:
        try:
            data = self._socket.recv(_BYTES)
        except BlockingIOError:
            return
        except OSError:
            self._is_due = True  # more was told than there was room for
            return
        while len(data) >= _HEADER.size:
            size, kind, *_ = _HEADER.unpack_from(data)
            if size < _HEADER.size:
                return
            self._is_due = self._is_due or nft.is_change(kind)
            data = data[size + (-size % 4) :]

    def _tick(self, _now: float) -> None:
        if not self._is_due:
            return
        # Whoever reloads a firewall does so in several steps; the next one is told of as well.
        self._is_due = False
        try:
            self._with_guard = self._with_guard and passes_on()
            repair(with_guard=self._with_guard)
            self._repaired()
        except (ContainerlibError, OSError):
            self._is_due = True  # and again
