"""Which proxy stands between this process and a host, by the usual environment variables."""

from __future__ import annotations

import ipaddress
import os
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["proxy_for"]


def proxy_for(url: str, environ: Mapping[str, str] | None = None) -> str | None:
    """Return the URL of the proxy for `url`, or None to go directly.

    ``NO_PROXY`` may hold host names, which cover their subdomains, addresses, networks and ``*``.
    """
    variables = os.environ if environ is None else environ
    parts = urlsplit(url)
    host = (parts.hostname or "").lower()
    if _is_exempt(host, _variable(variables, "no_proxy")):
        return None
    proxy = _variable(variables, f"{parts.scheme}_proxy") or _variable(variables, "all_proxy")
    if not proxy:
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


def _variable(environ: Mapping[str, str], name: str) -> str:
    return environ.get(name) or environ.get(name.upper()) or ""


def _is_exempt(host: str, exemptions: str) -> bool:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        address = None
    if host == "localhost" or (address is not None and address.is_loopback):
        return True
    for exemption in (part.strip().lower() for part in exemptions.split(",")):
        if exemption == "*" or (exemption and _covers(exemption, host, address)):
            return True
    return False


def _covers(exemption: str, host: str, address: ipaddress.IPv4Address | ipaddress.IPv6Address | None) -> bool:
    if address is not None:
        try:
            return address in ipaddress.ip_network(exemption, strict=False)
        except ValueError:
            return False
    name = exemption.partition(":")[0].removeprefix("*").removeprefix(".")
    return host == name or host.endswith(f".{name}")
