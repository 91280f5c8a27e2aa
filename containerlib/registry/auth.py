"""Getting in: from a registry's challenge to the ``Authorization`` header it wants.

A credential belongs to the registry it was given for. It goes to that registry, and to the token service
that the registry names, if that is a place a registry may name: over TLS if the registry is, and not some
address of this machine or its network, unless the registry itself is there or the user trusts that service.
"""

from __future__ import annotations

import math
import threading
import time
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, urlsplit

import attrs

from containerlib.errors import AuthenticationFailed, InvalidInputError, RegistryError
from containerlib.registry.addresses import ForbiddenPlaceError
from containerlib.registry.answers import redacted
from containerlib.registry.credential import normal_key
from containerlib.registry.source import Source
from containerlib.registry.tokens import Token, TokenQuestion, basic_header, fetch_token

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from containerlib.registry.addresses import Place
    from containerlib.registry.challenge import Challenge
    from containerlib.registry.credential import Credential
    from containerlib.registry.credentials import Credentials
    from containerlib.registry.transport import Transport

__all__ = ["Authorizer", "Grant"]

_PORTS = {"http": 80, "https": 443}


@attrs.frozen
class Grant:
    """What opens a registry's door, and for how long."""

    header: str = attrs.field(repr=False)
    expires_at: float = math.inf

    @property
    def is_fresh(self) -> bool:
        """Whether it can still be used, as far as is known."""
        return time.monotonic() < self.expires_at


class Authorizer:
    """Headers for registries, and the tokens that are still good. Shared by threads."""

    def __init__(
        self,
        transport: Transport,
        credentials: Credentials,
        *,
        token_services: Collection[str] = (),
        wants_identity: bool = False,
    ) -> None:
        """Prepare; asks nobody.

        Args:
            transport: How token services are reached.
            credentials: Where credentials are found.
            token_services: Hosts, with their ports, that may be token services wherever they are.
            wants_identity: Whether token services are asked for identity tokens; the credentials note them.

        Raises:
            InvalidInputError: A token service is not of the form host or host:port.
        """
        self._transport = transport
        self._credentials = credentials
        self._token_services = frozenset(map(_checked_host, token_services))
        self._wants_identity = wants_identity
        self._known: dict[tuple[str, str], Credential | None] = {}
        self._tokens: dict[tuple[str, str, tuple[str, ...], str], Token] = {}
        # One question at a time: of several threads that need the same token, one asks.
        self._asking = threading.Lock()
        self._lock = threading.Lock()

    def grant(self, source: Source, challenges: list[Challenge], scopes: Sequence[str], what: str) -> Grant:
        """Return what answers the challenges of `source`.

        Args:
            source: Who challenged.
            challenges: Its ways in.
            scopes: What is to be done there, such as ``repository:library/alpine:pull``.
            what: What is asked for, for messages.

        Raises:
            AuthenticationFailed: There is no way in, or the token service refuses.
            RegistryError: The token service cannot be reached.
        """
        with self._asking:
            credential = self._credential(source)
            if credential is not None and credential.registry_token:
                return Grant(f"Bearer {credential.registry_token}")
            ways = {challenge.scheme: challenge for challenge in reversed(challenges)}
            if "bearer" in ways:
                token = self._token(source, ways["bearer"], tuple(scopes), credential, what)
                return Grant(f"Bearer {token.text}", token.expires_at)
        if "basic" not in ways:
            raise AuthenticationFailed(
                f"{what}: {source.host} asks for credentials in an unknown way: {sorted(ways)}"
            )
        if credential is None or not credential.secret:
            raise AuthenticationFailed(
                f"{what}: {source.host} asks for a user name and a password, and none are known; log in"
            )
        return Grant(basic_header(credential))

    def forget(self, grant: Grant) -> None:
        """Do not use `grant` again: the registry has refused it."""
        with self._lock:
            self._tokens = {
                key: token for key, token in self._tokens.items() if grant.header != f"Bearer {token.text}"
            }

    def _credential(self, source: Source) -> Credential | None:
        """Return the credential for `source`; helpers are asked once."""
        place = (source.host, source.repository)
        if place not in self._known:
            self._known[place] = self._credentials.find(*place)
        return self._known[place]

    def _token(
        self,
        source: Source,
        challenge: Challenge,
        scopes: tuple[str, ...],
        credential: Credential | None,
        what: str,
    ) -> Token:
        realm = challenge.parameters.get("realm", "")
        service = challenge.parameters.get("service", "")
        owner = "" if credential is None else credential.key
        key = (realm, service, scopes, owner)
        with self._lock:
            known = self._tokens.get(key)
        if known is not None and known.expires_at > time.monotonic():
            return known
        shown = credential
        if credential is not None and credential.identity_token:
            newest = self._credentials.newest_identity(credential) or credential.identity_token
            shown = attrs.evolve(credential, identity_token=newest)
        token = self._fetch(source, realm, service, scopes, shown, what)
        with self._lock:
            self._tokens[key] = token
        if token.identity and credential is not None:
            self._credentials.note_identity(credential, token.identity)
        return token

    def _fetch(
        self,
        source: Source,
        realm: str,
        service: str,
        scopes: tuple[str, ...],
        credential: Credential | None,
        what: str,
    ) -> Token:
        place = self._service(source, realm, what)
        parts = urlsplit(realm)
        question = TokenQuestion(
            service=place,
            path=f"{parts.path or '/'}{'?' if parts.query else ''}{parts.query}",
            audience=service,
            scopes=scopes,
            credential=credential,
            wants_identity=self._wants_identity,
            what=what,
        )
        try:
            return fetch_token(self._transport, question)
        except RegistryError as error:
            if not isinstance(error.__cause__, ForbiddenPlaceError):
                raise
            raise AuthenticationFailed(
                f"{what}: the token service {_shown(realm)}: {error.__cause__}; if it is to be "
                "trusted, name it in trusted_token_services of the engine's configuration"
            ) from error

    def _service(self, source: Source, realm: str, what: str) -> Source:
        """Return the token service as a place to ask, if a registry may name it."""
        base = urlsplit(self._transport.base_url(source))
        try:
            parts = urlsplit(realm)
            is_address = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
        except ValueError:
            is_address = False
        reason = ""
        if not is_address or "@" in parts.netloc or not realm.isprintable() or " " in realm:
            reason = "is not a web address"
        elif base.scheme == "https" and parts.scheme != "https":
            reason = "is plain text, while the registry uses TLS"
        if reason:
            raise AuthenticationFailed(f"{what}: the token service {_shown(realm)} {reason}")
        return Source(
            parts.netloc,
            "",
            scheme=parts.scheme,
            verify_tls=source.verify_tls or parts.netloc != source.host,
            places=self._places(source, parts),
            keeps_origin=True,
        )

    def _places(self, source: Source, realm: SplitResult) -> frozenset[Place] | None:
        """Return where the token service may be: anywhere if it is trusted, else in the world or with us."""
        port = realm.port or _PORTS[realm.scheme]
        if not self._token_services.isdisjoint((realm.netloc.lower(), f"{realm.hostname}:{port}")):
            return None
        place = self._transport.place(source)
        return frozenset(("public",) if place is None else ("public", place))


def _checked_host(text: str) -> str:
    key = None if "://" in text else normal_key(text)
    if key is None or "/" in text:
        raise InvalidInputError(f"trusted token service {text[:200]!r} is not of the form host or host:port")
    return text.lower()


def _shown(realm: str) -> str:
    try:
        return repr(redacted(realm)[:200])
    except ValueError:
        return "of the registry"
