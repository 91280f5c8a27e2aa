"""Getting in: from a registry's challenge to the ``Authorization`` header it wants.

A credential belongs to the registry it was given for. It goes to that registry, and to the token service
that the registry names, if that is a place a registry may name: over TLS if the registry is, and not some
address of this machine or its network, unless the registry itself is there.
"""

from __future__ import annotations

import base64
import ipaddress
import socket
import threading
import time
from typing import TYPE_CHECKING
from urllib.parse import urlencode, urlsplit

import attrs

from containerlib._util import strict_json
from containerlib.errors import AuthenticationFailed, InvalidInputError
from containerlib.registry.answers import redacted, refused

if TYPE_CHECKING:
    from containerlib.registry.challenge import Challenge
    from containerlib.registry.credential import Credential
    from containerlib.registry.credentials import Credentials
    from containerlib.registry.source import Source
    from containerlib.registry.transport import Transport

__all__ = ["Authorizer"]

_MAX_TOKEN_BYTES = 1 << 20
_DEFAULT_EXPIRY_S = 60.0
_MARGIN_S = 10.0
_OK = 200


@attrs.frozen
class _Token:
    text: str = attrs.field(repr=False)
    expires_at: float


class Authorizer:
    """Headers for registries, and the tokens that are still good. Shared by threads."""

    def __init__(self, transport: Transport, credentials: Credentials) -> None:
        self._transport = transport
        self._credentials = credentials
        self._tokens: dict[tuple[str, str, str, str], _Token] = {}
        self._lock = threading.Lock()

    def header(self, source: Source, challenges: list[Challenge], scope: str, what: str) -> str:
        """Return the header that answers the challenges of `source`.

        Args:
            source: Who challenged.
            challenges: Its ways in.
            scope: What is to be done there, such as ``repository:library/alpine:pull``.
            what: What is asked for, for messages.

        Raises:
            AuthenticationFailed: There is no way in, or the token service refuses.
        """
        credential = self._credentials.find(source.host, source.repository)
        if credential is not None and credential.registry_token:
            return f"Bearer {credential.registry_token}"
        ways = {challenge.scheme: challenge for challenge in reversed(challenges)}
        if "bearer" in ways:
            return f"Bearer {self._token(source, ways['bearer'], scope, credential, what)}"
        if "basic" not in ways:
            raise AuthenticationFailed(
                f"{what}: {source.host} asks for credentials in an unknown way: {sorted(ways)}"
            )
        if credential is None or credential.identity_token:
            raise AuthenticationFailed(
                f"{what}: {source.host} asks for a user name and a password, and none are known; log in"
            )
        return _basic(credential)

    def _token(
        self, source: Source, challenge: Challenge, scope: str, credential: Credential | None, what: str
    ) -> str:
        realm = challenge.parameters.get("realm", "")
        service = challenge.parameters.get("service", "")
        key = (realm, service, scope, "" if credential is None else credential.key)
        with self._lock:
            known = self._tokens.get(key)
        if known is not None and known.expires_at > time.monotonic():
            return known.text
        self._check_realm(source, realm, what)
        token = self._fetch(source, realm, service, scope, credential, what)
        with self._lock:
            self._tokens[key] = token
        return token.text

    def forget(self, header: str) -> None:
        """Do not use the token of `header` again: the registry has refused it."""
        with self._lock:
            self._tokens = {
                key: token for key, token in self._tokens.items() if header != f"Bearer {token.text}"
            }

    def _check_realm(self, source: Source, realm: str, what: str) -> None:
        parts = urlsplit(realm)
        base = urlsplit(self._transport.base_url(source))
        reason = ""
        if parts.scheme not in {"http", "https"} or not parts.hostname or "@" in parts.netloc:
            reason = "is not a web address"
        elif base.scheme == "https" and parts.scheme != "https":
            reason = "is plain text, while the registry uses TLS"
        elif parts.hostname != base.hostname and _is_internal(parts.hostname):
            reason = "leads to this machine or its network, where the registry is not"
        if reason:
            raise AuthenticationFailed(f"{what}: the token service {redacted(realm)[:200]!r} {reason}")

    def _fetch(
        self,
        source: Source,
        realm: str,
        service: str,
        scope: str,
        credential: Credential | None,
        what: str,
    ) -> _Token:
        if credential is not None and credential.identity_token:
            raise AuthenticationFailed(
                f"{what}: the credential for {source.host} is an identity token, which is not supported yet;"
                " log in with a user name and a password or access token"
            )
        parts = urlsplit(realm)
        query = urlencode([(name, text) for name, text in (("service", service), ("scope", scope)) if text])
        path = f"{parts.path or '/'}?{'&'.join(filter(None, (parts.query, query)))}"
        headers = {} if credential is None else {"Authorization": _basic(credential)}
        at = attrs.evolve(
            source,
            host=parts.netloc,
            scheme=parts.scheme,
            allows_http=False,
            verify_tls=source.verify_tls or parts.netloc != source.host,
        )
        with self._transport.request(at, "GET", path, what=f"{what}: token", headers=headers) as answer:
            if answer.status != _OK:
                told = "the credentials" if credential is not None else "no credentials; log in"
                error = refused(answer.refusal(), f"{what}: the token service refused {told}")
                raise AuthenticationFailed(
                    str(error), method="GET", url=error.url, status=error.status, codes=error.codes
                )
            return _parse_token(answer.read_all(_MAX_TOKEN_BYTES), what)


def _parse_token(data: bytes, what: str) -> _Token:
    try:
        document = strict_json.loads_object(data, limit=_MAX_TOKEN_BYTES, what="token")
    except InvalidInputError as error:
        raise AuthenticationFailed(f"{what}: the token service's answer is no token: {error}") from None
    text = document.get("token") or document.get("access_token")
    if not isinstance(text, str) or not text.isascii() or not text.isprintable() or " " in text:
        raise AuthenticationFailed(f"{what}: the token service's answer holds no token")
    expires = document.get("expires_in")
    lasts = float(expires) if isinstance(expires, int) and 0 < expires < 1 << 31 else _DEFAULT_EXPIRY_S
    return _Token(text, time.monotonic() + max(lasts - _MARGIN_S, 1.0))


def _basic(credential: Credential) -> str:
    pair = f"{credential.username}:{credential.secret}"
    return f"Basic {base64.b64encode(pair.encode()).decode()}"


def _is_internal(host: str) -> bool:
    """Say whether any address of `host` is one that only this machine or its network can mean."""
    try:
        found = {str(info[4][0]) for info in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)}
    except OSError:
        return False  # the request itself will say that there is no such host
    return any(not ipaddress.ip_address(address.partition("%")[0]).is_global for address in found)
