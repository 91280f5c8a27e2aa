"""From a reference to the host that has it, by Docker's rules."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

from containerlib.oci.reference import DEFAULT_REGISTRY
from containerlib.registry.source import Source

if TYPE_CHECKING:
    from collections.abc import Collection

    from containerlib.oci.reference import Reference

__all__ = ["is_loopback", "source_of"]

_DEFAULT_HOST = "registry-1.docker.io"


def is_loopback(host: str) -> bool:
    """Say whether `host`, with or without a port, is this machine."""
    name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name == "localhost"


def source_of(reference: Reference, *, insecure: Collection[str] = ()) -> Source:
    """Return where `reference` is pulled from.

    Args:
        reference: The image.
        insecure: Hosts that need no valid certificate and may speak plain http. This machine's own are
            always among them, as with Docker.
    """
    host = _DEFAULT_HOST if reference.registry == DEFAULT_REGISTRY else reference.registry
    trusted = host not in insecure and not is_loopback(host)
    return Source(host, reference.repository, verify_tls=trusted, allows_http=not trusted)
