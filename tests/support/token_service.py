"""A token service on loopback, as registries name them in their challenges."""

from __future__ import annotations

import base64
import contextlib
import json
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

import attrs
from support.small_registry import Reply, Request, listening

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterator

    from support.small_registry import SmallRegistry

__all__ = ["TokenService", "guard", "token_service"]


@attrs.define(eq=False)
class TokenService:
    """The service. Attributes may be changed while it runs.

    Attributes:
        users: Passwords by name.
        identities: Identity tokens that are good, and whose they are.
        forms: Which forms of the question it knows: ``GET``, ``POST``.
        gives_identity: Whether it gives identity tokens to who asks for them.
        rotates: Whether an identity token is replaced when it is used.
        expires_in: What it says of its tokens; None to say nothing.
        refuses: Scopes that it does not grant.
        mint: Makes a token for a user and scopes.
    """

    realm: str = ""
    users: dict[str, str] = attrs.field(factory=dict)
    identities: dict[str, str] = attrs.field(factory=dict)
    forms: tuple[str, ...] = ("GET", "POST")
    gives_identity: bool = False
    rotates: bool = False
    expires_in: int | None = 300
    refuses: tuple[str, ...] = ()
    valid: dict[str, tuple[str, ...]] = attrs.field(factory=dict)
    requests: list[Request] = attrs.field(factory=list)
    intercept: Callable[[Request], Reply | None] = lambda _request: None
    mint: Callable[[str, tuple[str, ...]], str] | None = None

    def admits(self, request: Request, scope: str) -> bool:
        """Say whether a request shows a token of ours for what it wants."""
        scopes = self.valid.get(request.headers.get("authorization", "").removeprefix("Bearer "))
        if scopes is None:
            return False
        name, _, action = scope.removeprefix("repository:").rpartition(":")
        return not scope or any(
            name in granted and action in granted.rpartition(":")[2].split(",") for granted in scopes
        )

    def expire(self) -> None:
        """Let no token be good any more."""
        self.valid.clear()

    def answer(self, request: Request) -> Reply:
        """Answer a question."""
        self.requests.append(request)
        found = self.intercept(request)
        if found is not None:
            return found
        if request.method not in self.forms:
            return Reply(405)
        if request.method == "GET":
            user, scopes = self._user(request), request.query.get("scope", "").split()
            wants = request.query.get("offline_token") == "true"
        else:
            form = dict(parse_qsl(request.body.decode()))
            user, scopes = self._user_of_form(form), form.get("scope", "").split()
            wants = form.get("access_type") == "offline"
        if user is None:
            return Reply(401, {}, json.dumps({"errors": [{"code": "UNAUTHORIZED"}]}).encode())
        return self._token(user, tuple(scope for scope in scopes if scope not in self.refuses), wants=wants)

    def _user(self, request: Request) -> str | None:
        header = request.headers.get("authorization")
        if header is None:
            return None if self.users else ""
        name, _, password = base64.b64decode(header.removeprefix("Basic ")).decode().partition(":")
        return name if self.users.get(name) == password else None

    def _user_of_form(self, form: dict[str, str]) -> str | None:
        if form.get("grant_type") == "refresh_token":
            given = form.get("refresh_token", "")
            return self.identities.pop(given, None) if self.rotates else self.identities.get(given)
        name = form.get("username", "")
        return name if self.users.get(name) == form.get("password") else None

    def _token(self, user: str, scopes: tuple[str, ...], *, wants: bool) -> Reply:
        token = f"token{len(self.requests)}" if self.mint is None else self.mint(user, scopes)
        self.valid[token] = scopes
        document: dict[str, object] = {"access_token": token}
        if self.expires_in is not None:
            document["expires_in"] = self.expires_in
        if (wants and self.gives_identity) or (self.rotates and user):
            identity = f"identity{len(self.requests)}"
            self.identities[identity] = user
            document["refresh_token"] = identity
        return Reply(200, {}, json.dumps(document).encode())


@contextlib.contextmanager
def token_service(
    service: TokenService | None = None, tls: ssl.SSLContext | None = None, address: str = "127.0.0.1"
) -> Iterator[TokenService]:
    """Run a token service."""
    made = service or TokenService()
    with listening(made.answer, tls, address) as host:
        made.realm = f"{'http' if tls is None else 'https'}://{host}/token"
        yield made


def guard(registry: SmallRegistry, service: TokenService, realm: str | None = None) -> None:
    """Let a registry ask for tokens of a service."""
    registry.challenge = f'Bearer realm="{realm or service.realm}",service="small"'
    registry.admits = service.admits
