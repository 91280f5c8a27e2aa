"""The small files that every container gets from us: /etc/hosts, /etc/hostname, /etc/resolv.conf."""

from __future__ import annotations

import posixpath
from typing import TYPE_CHECKING

from attrs import frozen

from containerlib.errors import InvalidOption
from containerlib.runtime.host_names import HOST_GATEWAY

if TYPE_CHECKING:
    from containerlib.runtime.config import ContainerConfig

__all__ = ["JoinedNetwork", "small_files"]


@frozen(kw_only=True)
class JoinedNetwork:
    """A network namespace that was made, or taken from another container, for a container to join.

    Attributes:
        namespace_fd: It.
        address: The container's address in it; empty if it has none of its own.
        gateway: The host's address in it, where names are resolved; empty if it has none.
        is_open: Whether there is a way out, so that the host's domains mean something.
    """

    namespace_fd: int
    address: str = ""
    gateway: str = ""
    is_open: bool = False


_LOOPBACK = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n"
_LIMIT = 1 << 20
_HOST_NAMES = "host.docker.internal host.containers.internal"


def _host_file(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(_LIMIT)
    except OSError:
        return b""


def _hosts(config: ContainerConfig, hostname: str, network: JoinedNetwork | None) -> bytes:
    if config.network == "host":
        text = _host_file("/etc/hosts").decode(errors="surrogateescape")
        if text and not text.endswith("\n"):
            text += "\n"
    else:
        address = network.address if network is not None and network.address else "127.0.1.1"
        names = f"{hostname}.{config.domainname}\t{hostname}" if config.domainname else hostname
        text = f"{_LOOPBACK}{address}\t{names}\n"
    gateway = network.gateway if network is not None else ""
    if gateway:
        text += f"{gateway}\t{_HOST_NAMES}\n"
    for name, given in config.extra_hosts.items():
        address = (gateway or _own_gateway(config)) if given == HOST_GATEWAY else given
        text += f"{address}\t{name}\n"
    return text.encode(errors="surrogateescape")


def _own_gateway(config: ContainerConfig) -> str:
    if config.network == "host":
        return "127.0.0.1"
    reason = f"{HOST_GATEWAY!r} takes a network in which the host has an address, not {config.network!r}"
    raise InvalidOption("extra_hosts", dict(config.extra_hosts), reason)


def _resolvers(config: ContainerConfig, network: JoinedNetwork | None) -> bytes:
    """What the host has, where that is right, with what the caller says instead."""
    lines: list[bytes] = []
    servers = config.dns
    if config.network == "host" or (network is not None and network.is_open):
        lines = _host_file("/etc/resolv.conf").splitlines()
    if network is not None and network.gateway:
        # Who answers there asks the caller's servers in turn.
        servers = (network.gateway,)
    said = {
        "nameserver": servers,
        "search": (" ".join(config.dns_search),) if config.dns_search else (),
        "options": (" ".join(config.dns_options),) if config.dns_options else (),
    }
    for word, values in said.items():
        if values:
            lines = [line for line in lines if line.split(None, 1)[:1] != [word.encode()]]
            lines += [f"{word} {value}".encode() for value in values]
    if servers != config.dns and not any(option.startswith("ndots:") for option in config.dns_options):
        # A name without a dot is first of all one of ours; of two such options the later one holds.
        lines.append(b"options ndots:0")
    return b"".join(line + b"\n" for line in lines)


def small_files(
    config: ContainerConfig, hostname: str, network: JoinedNetwork | None = None
) -> dict[str, bytes]:
    """Content by path in the container, without those on or below one of the caller's mounts.

    With the host's network the host's own names and resolvers are right; with none there is nobody to ask.
    In a network of the store the host itself is asked.

    Raises:
        InvalidOption: A name is to be the host's, who has no address in the container's network.
    """
    files = {
        "/etc/hosts": _hosts(config, hostname, network),
        "/etc/hostname": f"{hostname}\n".encode(),
        "/etc/resolv.conf": _resolvers(config, network),
    }
    covered = {posixpath.normpath(mount.target) for mount in config.mounts}
    return {path: content for path, content in files.items() if path not in covered and "/etc" not in covered}
