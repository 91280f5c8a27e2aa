"""Which proxy a request to a registry goes through, by the environment.

Both spellings of each variable count, the upper case one first. The proxies of Docker's ``config.json`` are
for containers and not known here. A proxy's address may hold a password, so it is in no message.

Source: the rules of Go's httpproxy, which Docker follows, and ``ALL_PROXY``.
"""

from __future__ import annotations

import ipaddress
import os
import re
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import attrs

from containerlib.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Proxies"]

_SCHEMES = frozenset({"http", "https", "socks5", "socks5h"})
_PORTS = {"http": 80, "https": 443}
_Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@attrs.frozen
class _Exception:
    """One entry of ``NO_PROXY``.

    Attributes:
        suffix: Domain with a leading dot, or empty.
        name: Host that counts besides those below the domain, or empty.
        network: Addresses, or None.
        port: The only port, or None for all.
    """

    suffix: str = ""
    name: str = ""
    network: _Network | None = None
    port: int | None = None

    def matches(self, host: str, port: int | None) -> bool:
        if self.port is not None and self.port != port:
            return False
        if self.network is not None:
            address = _address(host)
            return address is not None and address in self.network
        return host == self.name or bool(self.suffix and host.endswith(self.suffix))


@attrs.frozen
class Proxies:
    """The proxies of an environment; made by `load`."""

    _by_scheme: Mapping[str, tuple[str, str]] = attrs.field(factory=dict, repr=False)
    _exceptions: tuple[_Exception, ...] = ()
    _is_off: bool = False

    @classmethod
    def load(cls, environ: Mapping[str, str] | None = None) -> Proxies:
        """Read the variables of `environ`; None means the environment of this process."""
        environ = os.environ if environ is None else environ
        by_scheme = {}
        for scheme in ("http", "https"):
            for name in (f"{scheme}_proxy", "all_proxy"):
                found = _variable(environ, name)
                if found is not None:
                    by_scheme[scheme] = found
                    break
        _name, text = _variable(environ, "no_proxy") or ("", "")
        entries = [entry for entry in re.split(r"[,\s]+", text) if entry]
        exceptions = tuple(_parse_exception(entry) for entry in entries)
        return cls(by_scheme, exceptions, "*" in entries)

    def proxy_for(self, url: str) -> str | None:
        """Return the address of the proxy for a request to `url`, or None to go there directly.

        The address is a URL of scheme http, https, socks5 or socks5h. This host itself is always reached
        directly, and so is what is not reached by HTTP.

        Raises:
            InvalidInputError: The variable that counts for `url` is not such an address.
        """
        parts = urlsplit(url)
        host = (parts.hostname or "").rstrip(".")
        found = self._by_scheme.get(parts.scheme)
        if found is None or not host or self._is_off or _is_this_host(host):
            return None
        port = parts.port or _PORTS.get(parts.scheme)
        if any(entry.matches(host, port) for entry in self._exceptions):
            return None
        return _proxy_url(*found)


def _variable(environ: Mapping[str, str], name: str) -> tuple[str, str] | None:
    """Return name and value of a variable that may be spelled in both cases."""
    for spelling in (name.upper(), name):
        # In a CGI program HTTP_PROXY is a header that the client of that program sent.
        if spelling == "HTTP_PROXY" and "REQUEST_METHOD" in environ:
            continue
        value = environ.get(spelling, "").strip()
        if value:
            return spelling, value
    return None


def _parse_exception(text: str) -> _Exception:
    """Parse an entry; one without meaning matches nothing, since other programs share the variable."""
    text = text.lower()
    try:
        return _Exception(network=ipaddress.ip_network(text.strip("[]"), strict=False))
    except ValueError:
        pass
    match = re.fullmatch(r"(.*?):([0-9]{1,5})", text)
    port = int(match[2]) if match else None
    name = match[1] if match else text
    address = _address(name.strip("[]"))
    if address is not None:
        return _Exception(network=ipaddress.ip_network(address), port=port)
    name = name.removeprefix("*")
    if name.startswith("."):
        return _Exception(suffix=name, port=port)
    return _Exception(suffix=f".{name}", name=name, port=port) if name else _Exception(port=0)


def _proxy_url(variable: str, value: str) -> str:
    url = value if "://" in value else f"http://{value}"
    try:
        parts = urlsplit(url)
        is_complete = bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_complete = False
    scheme = url.partition("://")[0].lower()
    if scheme not in _SCHEMES:
        raise InvalidInputError(f"{variable}: its scheme is not one of {', '.join(sorted(_SCHEMES))}")
    if not is_complete or any(character <= " " or character == "\x7f" for character in url):
        raise InvalidInputError(f"{variable}: not of the form scheme://host:port")
    return url


def _is_this_host(host: str) -> bool:
    address = _address(host)
    return host == "localhost" or (address is not None and address.is_loopback)


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None
