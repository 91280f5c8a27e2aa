"""The network of a container, from outside."""

# made by containerlib.aio.generate; change the module of the same name in containerlib.api
from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from containerlib.aio.container_handle import ContainerHandle
from containerlib.aio.loop import call

if TYPE_CHECKING:
    from containerlib.api import container_network as sync_module
    from containerlib.network_options import PortMapping
__all__ = ["ContainerNetwork"]


class ContainerNetwork(ContainerHandle):
    """How services of a container are reached without publishing a port; a part of `Container`."""

    sync: sync_module.ContainerNetwork

    @property
    def ip_address(self) -> str | None:
        """Its address in its network, by which the host and the others there reach it.

        None before its first start, and for one that is in no network of the store. It stays the same over
        restarts until the container is removed, but not over a reboot.
        """
        return self.sync.ip_address

    @property
    def ip_addresses(self) -> dict[str, str]:
        """Its addresses by the names of its networks, in their order; see `ip_address`."""
        return self.sync.ip_addresses

    @property
    def ports(self) -> tuple[PortMapping, ...]:
        """What is published of it, with the ports of the host; empty unless it runs.

        They are there when `start` returns, and others may have them once its end is noticed, here or by
        the next who wants one of them. A free port may be another one after a restart.
        """
        return self.sync.ports

    async def published(self, port: int, protocol: str = "tcp") -> tuple[str, int]:
        """Where this host reaches a published port.

        Args:
            port: The port in the container.
            protocol: ``"tcp"`` or ``"udp"``.

        Returns:
            An address and a port, as `socket.create_connection` takes them.

        Raises:
            InvalidState: It does not run, or has not published that port; the message says which it has.
        """
        return await call(lambda: self.sync.published(port, protocol))

    async def address(self, port: int) -> tuple[str, int]:
        """Where the host and the other containers of its network reach one of its ports.

        Args:
            port: The port in the container; nothing is published for that.

        Returns:
            Its address and the port, as `socket.create_connection` takes them.

        Raises:
            InvalidState: It has no address; the message names what to use instead.
            InvalidOption: There is no such port.
        """
        return await call(lambda: self.sync.address(port))

    async def connect(self, port: int, *, host: str = "127.0.0.1", timeout_s: float = 10.0) -> socket.socket:
        """Connect to a TCP port from inside its network, as its own processes would.

        Works with every network, ``"none"`` included, and reaches services that listen on its loopback device
        only. As long as nobody listens it is tried again.

        Args:
            port: The port.
            host: An address in its network; names are not looked up.
            timeout_s: How long to try.

        Returns:
            A connected socket, which the caller closes; its timeout is what is left of `timeout_s`.

        Raises:
            InvalidState: It does not run, or ends meanwhile.
            InvalidOption: There is no such port, or `host` is not an address.
            OperationTimeout: Nobody has answered.

        Cost: a tenth of a millisecond, and a thread for as long, for each attempt.
        """
        return await call(lambda: self.sync.connect(port, host=host, timeout_s=timeout_s))

    async def socket(self, family: int = socket.AF_INET, kind: int = socket.SOCK_STREAM) -> socket.socket:
        """Make a socket inside its network, and leave the rest to the caller: bind, listen, connect, send.

        It stays in that network, and keeps it alive, until it is closed.

        Args:
            family: Such as ``socket.AF_INET``.
            kind: Such as ``socket.SOCK_DGRAM``.

        Raises:
            InvalidState: The container does not run.
            OSError: As socket(2).
        """
        return await call(lambda: self.sync.socket(family, kind))
