"""Bearer tokens: who may do what in which repository, for a short while, signed by this process alone.

The form is that of a JSON Web Token, because some clients look inside. Only tokens with exactly the header
that is written here are read, so there is no choice of algorithm for anybody to make.

Source: RFC 7515, RFC 7519; Docker Registry v2 authentication via central service.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import re
import time
from typing import TYPE_CHECKING

import attrs

from containerlib._util import strict_json
from containerlib.errors import InvalidInputError
from containerlib.oci.reference import is_repository
from containerlib.registry.server.refused import Refused

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

__all__ = ["ACTIONS", "CATALOG", "Access", "Tokens", "parse_scopes"]

ACTIONS = ("pull", "push", "delete")
CATALOG = "registry:catalog"
_MAX_TOKEN = 8 << 10
_MAX_SCOPES = 32
_HEADER = base64.urlsafe_b64encode(b'{"alg":"HS256","typ":"JWT"}').rstrip(b"=").decode()
_SCOPE = re.compile(r"(repository(?:\([a-z0-9]+\))?|registry):([^:]+(?::\d+/[^:]+)?):([a-z*,]*)")


@attrs.frozen
class Access:
    """Which actions are allowed on one thing: a repository, or `CATALOG`."""

    name: str
    actions: tuple[str, ...]


class Tokens:
    """Makes tokens and reads them again; those of another process are worth nothing."""

    def __init__(
        self, service: str, lifetime_s: int = 300, *, clock: Callable[[], float] = time.time
    ) -> None:
        self.service = service
        self.lifetime_s = lifetime_s
        self._clock = clock
        self._key = os.urandom(32)

    def issue(self, user: str, access: Iterable[Access]) -> str:
        """Return a token that lets `user` do what `access` says, from now on."""
        now = int(self._clock())
        claims = {
            "iss": self.service,
            "aud": self.service,
            "sub": user,
            "iat": now,
            "nbf": now,
            "exp": now + self.lifetime_s,
            "jti": os.urandom(8).hex(),
            "access": [_claim(each) for each in access],
        }
        signed = f"{_HEADER}.{_encoded(strict_json.dumps(claims))}"
        return f"{signed}.{_encoded(self._signature(signed))}"

    def read(self, token: str) -> tuple[str, tuple[Access, ...]] | None:
        """Return the user of a token and what it allows; None if it is not ours or not valid any more."""
        signed, _, signature = token.rpartition(".")
        header, _, payload = signed.partition(".")
        if len(token) > _MAX_TOKEN or header != _HEADER:
            return None
        if not hmac.compare_digest(_encoded(self._signature(signed)).encode(), signature.encode()):
            return None
        try:
            data = base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4))
            claims = strict_json.loads_object(data, limit=_MAX_TOKEN, what="token")
        except (InvalidInputError, binascii.Error):  # pragma: no cover - we have signed it
            return None
        expiry, access = claims.get("exp"), claims.get("access")
        if not isinstance(expiry, int) or expiry <= self._clock() or not isinstance(access, list):
            return None
        return str(claims.get("sub")), tuple(map(_access, access))

    def _signature(self, signed: str) -> bytes:
        return hmac.digest(self._key, signed.encode(), hashlib.sha256)


def parse_scopes(texts: Sequence[str]) -> list[Access]:
    """Return what a client asks for: ``repository:name:pull,push`` or ``registry:catalog:*``.

    Each text may be several, with blanks between.

    Raises:
        Refused: One cannot be understood, or there are too many.
    """
    words = [word for text in texts for word in text.split()]
    if len(words) > _MAX_SCOPES:
        raise Refused("DENIED", f"more than {_MAX_SCOPES} scopes at once", status=400)
    found = []
    for word in words:
        match = _SCOPE.fullmatch(word)
        if match is None:
            raise Refused("DENIED", f"scope {word[:120]!r} cannot be understood", status=400)
        kind, name, actions = match.groups()
        wanted = set(actions.split(","))
        if kind == "registry":
            found.append(Access(f"registry:{name}", ("*",)))
        elif is_repository(name):
            granted = tuple(each for each in ACTIONS if each in wanted or "*" in wanted)
            found.append(Access(name, granted))
        else:
            raise Refused("NAME_INVALID", f"{name[:80]!r} is not the name of a repository")
    return found


def _claim(access: Access) -> dict[str, object]:
    kind, _, name = access.name.rpartition(":")
    return {"type": kind or "repository", "name": name, "actions": list(access.actions)}


def _access(claim: object) -> Access:
    if not isinstance(claim, dict):  # pragma: no cover - we have signed it
        return Access("", ())
    kind = claim["type"]
    name = claim["name"] if kind == "repository" else f"{kind}:{claim['name']}"
    return Access(name, tuple(claim["actions"]))


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
