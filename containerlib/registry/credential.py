"""One credential, and the names under which a registry's credentials are kept.

Values only. What is secret is in no representation and in no message.
"""

from __future__ import annotations

import hashlib
import os
import re

import attrs

from containerlib.errors import InvalidInputError

__all__ = ["HUB", "HUB_SERVER", "TOKEN_USER", "Credential", "normal_key", "server_of"]

HUB = "docker.io"
HUB_SERVER = "https://index.docker.io/v1/"
TOKEN_USER = "<token>"  # noqa: S105 - the word by which helpers say that the secret is an identity token

_HUB_HOSTS = frozenset({HUB, "index.docker.io", "registry-1.docker.io"})
_KEY = re.compile(r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?(?:/[A-Za-z0-9._/-]+)?")
_SALT = os.urandom(16)


@attrs.frozen
class Credential:
    """What a user shows to a registry: a name and a secret, or a token that stands for both.

    Attributes:
        username: Who; ``<token>`` if only a token is known.
        secret: Password or access token that goes with the name.
        identity_token: Token to exchange for access tokens (OAuth 2 refresh token).
        registry_token: Token to send to the registry itself, without asking for another.
    """

    username: str
    secret: str = attrs.field(default="", repr=False)
    identity_token: str = attrs.field(default="", repr=False)
    registry_token: str = attrs.field(default="", repr=False)

    def __attrs_post_init__(self) -> None:
        if ":" in self.username or not _is_printable(self.username):
            raise InvalidInputError("credential: the user name has a colon or a control character")
        if "\0" in self.secret or not (
            _is_printable(self.identity_token) and _is_printable(self.registry_token)
        ):
            raise InvalidInputError("credential: a secret has a control character")
        if not (self.secret or self.identity_token or self.registry_token):
            raise InvalidInputError("credential: no password and no token")

    @property
    def key(self) -> str:
        """A name for this credential that tells nothing about it; stable within this process."""
        digest = hashlib.blake2b(key=_SALT, digest_size=16)
        for part in (self.username, self.secret, self.identity_token, self.registry_token):
            data = part.encode("utf-8", "surrogatepass")
            digest.update(len(data).to_bytes(8, "big") + data)
        return digest.hexdigest()


def normal_key(written: str) -> str | None:
    """Return the one form of a registry's name, or of a namespace on it, however a program wrote it.

    ``https://host/v1/`` is the host, ``host/a/b`` stays a namespace, and all names of Docker Hub are
    ``docker.io``. None: it is no such name.
    """
    scheme, mark, rest = written.partition("://")
    if mark:
        if scheme not in {"http", "https"}:
            return None
        rest = rest.partition("/")[0]
    else:
        rest = re.sub(r"/(?:v1|v2)?/$|/$", "", written)
    if _KEY.fullmatch(rest) is None:
        return None
    host, slash, namespace = rest.partition("/")
    host = host.lower()
    return (HUB if host in _HUB_HOSTS else host) + slash + namespace


def server_of(key: str) -> str:
    """Return how Docker writes the normal form `key`: Docker Hub has a key of its own."""
    return HUB_SERVER if key == HUB else key


def _is_printable(text: str) -> bool:
    return all(character >= " " and character != "\x7f" for character in text)
