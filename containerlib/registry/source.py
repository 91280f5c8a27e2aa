"""Where a repository is really reached, which need not be where its name says: mirrors and rewrites.

A value only. Made by the configuration of registries, used by the client.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from containerlib.registry.addresses import Place

__all__ = ["Source"]


@attrs.frozen
class Source:
    """One repository on one host.

    Attributes:
        host: ``name``, ``name:port`` or ``[address]:port``.
        repository: Its name there, without the host.
        scheme: ``https``, or ``http`` where plain text was asked for.
        verify_tls: Whether the certificate of the host must be valid.
        allows_http: Whether plain http may be tried when the host does not speak TLS. Never follows from a
            certificate that is not valid.
        is_mirror: Whether it stands in for another registry.
        places: Where the host may lead, if it was a registry that named it; None for anywhere.
        keeps_origin: Whether redirects to other hosts are refused instead of followed without credentials.
    """

    host: str
    repository: str
    scheme: str = "https"
    verify_tls: bool = True
    allows_http: bool = False
    is_mirror: bool = False
    places: frozenset[Place] | None = None
    keeps_origin: bool = False

    @property
    def base_url(self) -> str:
        """Scheme and host, without a slash at the end."""
        return f"{self.scheme}://{self.host}"

    @property
    def name(self) -> str:
        """Host and repository, for people."""
        return f"{self.host}/{self.repository}" if self.repository else self.host
