"""The small files that every container gets from us: /etc/hosts, /etc/hostname, /etc/resolv.conf."""

from __future__ import annotations

import posixpath
import re
from typing import TYPE_CHECKING

from attrs import frozen

if TYPE_CHECKING:
    from containerlib.runtime.config import ContainerConfig

__all__ = ["JoinedNetwork", "small_files"]


@frozen(kw_only=True)
class JoinedNetwork:
    """A network namespace that was made, or taken from another container, for a container to join.

    Attributes:
        namespace_fd: It.
        address: The container's address in it; empty if it has none of its own.
        is_open: Whether there is a way out, to those whom the host asks for names.
    """

    namespace_fd: int
    address: str = ""
    is_open: bool = False


_LOOPBACK = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n"
_LIMIT = 1 << 20


def _host_file(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(_LIMIT)
    except OSError:
        return b""


def _reachable(resolvers: bytes) -> bytes:
    """The lines of resolv.conf(5) without servers that are somebody else inside."""
    kept = [
        line
        for line in resolvers.splitlines(keepends=True)
        if not re.match(rb"\s*nameserver\s+(127\.|::1\b)", line)
    ]
    return b"".join(kept)


def small_files(
    config: ContainerConfig, hostname: str, network: JoinedNetwork | None = None
) -> dict[str, bytes]:
    """Content by path in the container, without those on or below one of the caller's mounts.

    With the host's network the host's own names and resolvers are right; with none there is nobody to ask.
    Where there is a way out those of the host's resolvers are right that are not on its loopback device.
    """
    if config.network == "host":
        hosts, resolvers = _host_file("/etc/hosts"), _host_file("/etc/resolv.conf")
    else:
        address = network.address if network is not None and network.address else "127.0.1.1"
        names = f"{hostname}.{config.domainname}\t{hostname}" if config.domainname else hostname
        hosts, resolvers = f"{_LOOPBACK}{address}\t{names}\n".encode(), b""
        if network is not None and network.is_open:
            resolvers = _reachable(_host_file("/etc/resolv.conf"))
    files = {"/etc/hosts": hosts, "/etc/hostname": f"{hostname}\n".encode(), "/etc/resolv.conf": resolvers}
    covered = {posixpath.normpath(mount.target) for mount in config.mounts}
    return {path: content for path, content in files.items() if path not in covered and "/etc" not in covered}
