"""Who is asking, and whether that may be done: open to everybody, by password, or by token.

Source: RFC 7617 (Basic), RFC 6750 (Bearer); Docker Registry v2 authentication via central service.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import re
from typing import TYPE_CHECKING

import attrs

from containerlib._util import strict_json
from containerlib.registry.server.refused import Refused
from containerlib.registry.server.tokens import CATALOG, Access, Tokens, parse_scopes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from typing import TypeAlias

    from aiohttp import web

    from containerlib.registry.server.htpasswd import Passwords

    Authorize: TypeAlias = Callable[[str, str, str], bool]

__all__ = ["AccessControl", "Grant"]

_HOST = re.compile(r"[A-Za-z0-9.-]{1,253}(?::\d{1,5})?|\[[0-9A-Fa-f:.]{2,45}\](?::\d{1,5})?")
_MAX_HEADER = 8 << 10
_CHECKS = 2
_SERVICE = "containerlib"


@attrs.frozen
class Grant:
    """What one request may do.

    Attributes:
        user: Who asks; empty if nobody has to say.
        authorize: Decides about a user, a repository and an action; None allows everything.
        access: What a token allows; None if there is no token.
    """

    user: str = ""
    authorize: Authorize | None = None
    access: Sequence[Access] | None = None

    async def allows(self, repository: str, action: str) -> bool:
        """Say whether `action` (``pull``, ``push``, ``delete``) is allowed in `repository`."""
        if self.access is not None and not any(
            each.name == repository and action in each.actions for each in self.access
        ):
            return False
        return await _decide(self.authorize, self.user, repository, action)

    def sees_catalog(self) -> bool:
        """Say whether the names of repositories may be listed at all."""
        return self.access is None or any(each.name == CATALOG for each in self.access)


class AccessControl:
    """The rules of one registry."""

    def __init__(
        self,
        passwords: Passwords | None = None,
        *,
        by_token: bool = False,
        authorize: Authorize | None = None,
        scheme: str = "http",
        public_url: str | None = None,
    ) -> None:
        """Make the rules.

        Args:
            passwords: The users; None lets everybody in.
            by_token: Whether a token stands for the password, as with Docker's own registry.
            authorize: Decides about a user, a repository and an action; None allows users everything.
            scheme: By which clients come, for the address of the token endpoint.
            public_url: Scheme and host by which clients come, where that is not how this host is called.
        """
        self._passwords = passwords
        self._tokens = Tokens(_SERVICE) if by_token else None
        self._authorize = authorize
        self._scheme = scheme
        self._public_url = public_url
        self._checks = asyncio.Semaphore(_CHECKS)

    async def grant(self, request: web.Request, scope: str = "") -> Grant:
        """Return what the sender of `request` may do.

        Args:
            request: The request.
            scope: What it takes, for the challenge.

        Raises:
            Refused: The sender does not say who it is, or not rightly.
        """
        if self._passwords is None:
            return Grant(authorize=None)
        if self._tokens is None:
            user = await self._basic(request)
            if user is None:
                raise self.challenge(request, scope)
            return Grant(user, self._authorize)
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        found = self._tokens.read(token.strip()) if scheme.lower() == "bearer" else None
        if found is None:
            raise self.challenge(request, scope, "invalid_token" if token else "")
        return Grant(found[0], self._authorize, found[1])

    def denial(self, request: web.Request, grant: Grant, scope: str, what: str) -> Refused:
        """Return the refusal of something that `grant` does not allow."""
        if grant.access is not None:
            return self.challenge(request, scope, "insufficient_scope")
        return Refused("DENIED", f"user {grant.user!r} may not {what}")

    def challenge(self, request: web.Request, scope: str, error: str = "") -> Refused:
        """Return the refusal that says how to get in."""
        if self._tokens is None:
            value = f'Basic realm="{_SERVICE}", charset="UTF-8"'
        else:
            url = self._public_url or f"{self._scheme}://{_host(request)}"
            value = f'Bearer realm="{url}/token",service="{_SERVICE}"'
            value += f',scope="{scope}"' if scope else ""
            value += f',error="{error}"' if error else ""
        return Refused("UNAUTHORIZED", "authentication required", headers={"WWW-Authenticate": value})

    async def token(self, request: web.Request, query: Mapping[str, list[str]], form: bytes) -> bytes:
        """Answer a request for a token: the document with it.

        Args:
            request: With the password in its ``Authorization``; or with the form of OAuth2.
            query: Its parameters: ``service`` and any number of ``scope``.
            form: Its body; empty for ``GET``.

        Raises:
            Refused: Tokens are not used here; or the password is wrong, or what is asked for is no scope.
        """
        tokens = self._tokens
        if tokens is None:
            raise Refused("UNSUPPORTED", "this registry gives no tokens", status=404)
        user = await self._oauth(query) if form else await self._basic(request)
        if user is None:
            header = {"WWW-Authenticate": f'Basic realm="{_SERVICE}", charset="UTF-8"'}
            raise Refused("UNAUTHORIZED", "user name and password are needed", headers=header)
        if query.get("service", [_SERVICE]) != [_SERVICE]:
            raise Refused("DENIED", f"this is the service {_SERVICE!r}", status=400)
        access = await self._granted(user, parse_scopes(query.get("scope", [])))
        token = tokens.issue(user, access)
        document = {"token": token, "access_token": token, "expires_in": tokens.lifetime_s}
        return strict_json.dumps(document)

    async def _granted(self, user: str, asked: Iterable[Access]) -> list[Access]:
        granted = []
        for each in asked:
            actions = each.actions
            if not each.name.startswith("registry:"):
                actions = tuple(
                    [name for name in actions if await _decide(self._authorize, user, each.name, name)]
                )
            granted.append(Access(each.name, actions))
        return granted

    async def _basic(self, request: web.Request) -> str | None:
        scheme, _, encoded = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "basic" or len(encoded) > _MAX_HEADER:
            return None
        try:
            text = base64.b64decode(encoded.strip(), validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            return None
        user, colon, password = text.partition(":")
        return user if colon and await self._is_right(user, password) else None

    async def _oauth(self, form: Mapping[str, list[str]]) -> str | None:
        if form.get("grant_type") != ["password"]:
            raise Refused("UNSUPPORTED", "only grant_type=password is supported", status=400)
        user, password = form.get("username", [""])[0], form.get("password", [""])[0]
        return user if await self._is_right(user, password) else None

    async def _is_right(self, user: str, password: str) -> bool:
        if self._passwords is None:
            return False
        async with self._checks:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(None, self._passwords.check, user, password)


async def _decide(authorize: Authorize | None, user: str, repository: str, action: str) -> bool:
    if authorize is None:
        return True
    loop = asyncio.get_running_loop()
    return bool(await loop.run_in_executor(None, authorize, user, repository, action))


def _host(request: web.Request) -> str:
    """Return how the client calls this host; what it is bound to if that is not a name."""
    host = request.headers.get("Host", "")
    if _HOST.fullmatch(host):
        return host
    name, port = (request.transport.get_extra_info("sockname") if request.transport else ("", 0))[:2]
    return f"[{name}]:{port}" if ":" in str(name) else f"{name}:{port}"
