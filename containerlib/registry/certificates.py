"""TLS settings of one registry, where Docker and podman keep them."""

from __future__ import annotations

import os
import ssl
from typing import TYPE_CHECKING

from containerlib.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["tls_context"]


def tls_context(host: str, *, verify: bool, environ: Mapping[str, str] | None = None) -> ssl.SSLContext:
    """Return the settings for `host`: system authorities, its own authorities, its client certificate.

    Args:
        host: ``name`` or ``name:port``.
        verify: Whether its certificate must be valid.
        environ: Where ``HOME`` is looked up; this process's environment if None.

    Raises:
        InvalidInputError: A certificate or key cannot be read.

    Source: Docker's "Verify repository client with certificates", containers-certs.d(5).
    """
    context = ssl.create_default_context()
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    for directory in _directories(host, os.environ if environ is None else environ):
        _load(context, directory)
    return context


def _directories(host: str, environ: Mapping[str, str]) -> list[str]:
    home = environ.get("HOME") or os.path.expanduser("~")
    bases = (f"{home}/.config/containers/certs.d", "/etc/containers/certs.d", "/etc/docker/certs.d")
    return [f"{base}/{host}" for base in bases if os.path.isdir(f"{base}/{host}")]


def _load(context: ssl.SSLContext, directory: str) -> None:
    for name in sorted(os.listdir(directory)):
        path = f"{directory}/{name}"
        try:
            if name.endswith(".crt"):
                context.load_verify_locations(cafile=path)
            elif name.endswith(".cert"):
                context.load_cert_chain(path, f"{path.removesuffix('.cert')}.key")
        except (OSError, ssl.SSLError) as error:
            raise InvalidInputError(f"certificate {path!r} cannot be used: {error}") from None
