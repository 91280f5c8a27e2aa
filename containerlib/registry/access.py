"""Requests to one registry, with what the registry asks for to let them in.

What it asks for is found out by being refused, once, and renewed when it has run out: before a request if
that is known, and after it if the registry says so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import attrs

from containerlib.registry.challenge import Challenge, parse_challenges

if TYPE_CHECKING:
    from collections.abc import Callable

    from containerlib.registry.auth import Authorizer, Grant
    from containerlib.registry.source import Source
    from containerlib.registry.transport import Answer, Body, Transport

__all__ = ["Asks", "RegistryAccess"]

_UNAUTHORIZED = 401


class Asks(Protocol):
    """Something that makes requests; see `RegistryAccess.request`."""

    def request(self, method: str, path: str, what: str, headers: dict[str, str] | None = None) -> Answer:
        """Make a request without a body."""


@attrs.define(eq=False)
class RegistryAccess:
    """One registry, or one repository of it, for certain purposes. Shared by threads."""

    source: Source
    _transport: Transport = attrs.field(repr=False)
    _authorizer: Authorizer = attrs.field(repr=False)
    _scopes: tuple[str, ...] = ()
    _grant: Grant | None = attrs.field(default=None, init=False, repr=False)
    _challenges: list[Challenge] = attrs.field(factory=list, init=False, repr=False)

    @property
    def is_challenged(self) -> bool:
        """Whether the registry has asked for credentials."""
        return bool(self._challenges)

    def request(
        self,
        method: str,
        path: str,
        what: str,
        headers: dict[str, str] | None = None,
        body: Callable[[], Body] | None = None,
    ) -> Answer:
        """Make a request, and once again with what the registry asks to get in.

        Args:
            method: ``GET`` and so on.
            path: Below the repository, or an absolute path or URL that the registry gave.
            what: What is asked for, for messages.
            headers: Sent along.
            body: See `Transport.request`.
        """
        wanted = dict(headers or {})
        is_given = path.startswith("/") or "://" in path
        url = path if is_given else f"/v2/{self.source.repository}/{path}"
        grant = self._grant
        if self._challenges and (grant is None or not grant.is_fresh):
            grant = self._renew(what)
        if grant is not None:
            wanted["Authorization"] = grant.header
        answer = self._transport.request(self.source, method, url, what=what, headers=wanted, body=body)
        if answer.status != _UNAUTHORIZED:
            return answer
        challenges = parse_challenges(answer.headers.get("www-authenticate", ""))
        # Where the registry redirected to has no say in who we are.
        if not challenges or not self._transport.is_at(self.source, answer.url):
            return answer
        answer.close()
        if grant is not None:
            self._authorizer.forget(grant)
        self._challenges = challenges
        wanted["Authorization"] = self._renew(what).header
        return self._transport.request(self.source, method, url, what=what, headers=wanted, body=body)

    def _renew(self, what: str) -> Grant:
        self._grant = self._authorizer.grant(self.source, self._challenges, self._scopes, what)
        return self._grant
