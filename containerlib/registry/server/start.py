"""From options to a registry that serves: sockets, TLS, users and storage put together."""

from __future__ import annotations

import ipaddress
import re
import ssl
from typing import TYPE_CHECKING

import attrs

from containerlib._util.http_service import HttpLimits, HttpService, listen
from containerlib.errors import InvalidOption
from containerlib.registry.server.access import AccessControl
from containerlib.registry.server.app import make_app
from containerlib.registry.server.htpasswd import Passwords
from containerlib.registry.server.service import ServerSettings, Service

if TYPE_CHECKING:
    from collections.abc import Callable

    from containerlib.registry.server.cache import Cache
    from containerlib.registry.server.storage import Storage

__all__ = ["Endpoint", "Running", "start"]

_URL = re.compile(r"https?://[A-Za-z0-9.\[\]:-]{1,253}")


@attrs.frozen(kw_only=True)
class Endpoint:
    """Where a registry is reached, and by whom.

    Attributes:
        host: Address or name to bind to.
        port: Port; 0 for a free one.
        htpasswd: File of users; None lets everybody in.
        by_token: Whether users get tokens for their passwords.
        authorize: Decides about a user, a repository and an action.
        tls_cert: File of the certificate and its chain; None for plain http.
        tls_key: File of its key.
        allow_anonymous: Whether everybody may be let in on an address that others reach.
        public_url: Scheme and host by which clients come, if a proxy stands in between.
        limits: What clients may take.
    """

    host: str = "127.0.0.1"
    port: int = 0
    htpasswd: str | None = None
    by_token: bool = False
    authorize: Callable[[str, str, str], bool] | None = None
    tls_cert: str | None = None
    tls_key: str | None = None
    allow_anonymous: bool = False
    public_url: str | None = None
    limits: HttpLimits = attrs.field(factory=HttpLimits)


@attrs.frozen
class Running:
    """A registry that serves.

    Attributes:
        scheme: ``http`` or ``https``.
        host: The address that it is bound to.
        port: The port that it is bound to.
    """

    scheme: str
    host: str
    port: int
    _service: HttpService

    def stop(self) -> None:
        """Stop to serve; safe to call again."""
        self._service.stop()


def start(
    endpoint: Endpoint,
    storage: Storage,
    settings: ServerSettings,
    make_cache: Callable[[], Cache] | None = None,
) -> Running:
    """Serve `storage`; returns when clients can connect.

    Args:
        endpoint: Where, and for whom.
        storage: What is served.
        settings: How.
        make_cache: Makes the cache before `storage`, if there is one, in the thread that serves.

    Raises:
        InvalidOption: Options contradict each other, or a file cannot be used.
        OSError: The address cannot be bound.
    """
    passwords = None if endpoint.htpasswd is None else Passwords.load(endpoint.htpasswd)
    _check(endpoint)
    context = _tls_context(endpoint)
    scheme = "http" if context is None else "https"
    sock = listen(endpoint.host, endpoint.port)
    host, port = sock.getsockname()[:2]

    def make_service() -> Service:
        access = AccessControl(
            passwords,
            by_token=endpoint.by_token,
            authorize=endpoint.authorize,
            scheme=scheme,
            public_url=endpoint.public_url,
        )
        return Service(storage, access, settings, None if make_cache is None else make_cache())

    service = HttpService(
        lambda: make_app(make_service), [sock], ssl_context=context, limits=endpoint.limits, name="registry"
    )
    service.start()
    return Running(scheme, host, port, service)


def _check(endpoint: Endpoint) -> None:
    if endpoint.public_url is not None and _URL.fullmatch(endpoint.public_url) is None:
        raise InvalidOption("public_url", endpoint.public_url, "give scheme and host: https://registry.site")
    if not 0 <= endpoint.port < 1 << 16:
        raise InvalidOption("port", endpoint.port, "give 0 to 65535")
    if endpoint.htpasswd is None:
        if endpoint.by_token:
            raise InvalidOption("token_auth", endpoint.by_token, "tokens need users: give htpasswd, too")
        if endpoint.authorize is not None:
            raise InvalidOption("authorize", endpoint.authorize, "there are no users: give htpasswd, too")
        if not endpoint.allow_anonymous and not _is_loopback(endpoint.host):
            raise InvalidOption(
                "host",
                endpoint.host,
                "others reach this address, and there are no users: give htpasswd, or allow_anonymous=True",
            )


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _tls_context(endpoint: Endpoint) -> ssl.SSLContext | None:
    if endpoint.tls_cert is None and endpoint.tls_key is None:
        return None
    if endpoint.tls_cert is None or endpoint.tls_key is None:
        option = "tls_cert" if endpoint.tls_cert is None else "tls_key"
        raise InvalidOption(option, None, "TLS needs both a certificate and its key")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(endpoint.tls_cert, endpoint.tls_key)
    except (OSError, ValueError) as error:  # an SSLError is an OSError
        raise InvalidOption("tls_cert", endpoint.tls_cert, f"cannot be used with its key: {error}") from None
    return context
