"""Users and their passwords, from a file as ``htpasswd -B`` writes it: bcrypt, and nothing weaker.

A password that was right is remembered, as a keyed hash, because checking one costs a tenth of a second on
purpose and some clients send it with every request.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
from typing import TYPE_CHECKING

import bcrypt

from containerlib.errors import InvalidInputError

if TYPE_CHECKING:
    from typing import Self

__all__ = ["Passwords"]

_MAX_BYTES = 10 << 20
_MAX_PASSWORD = 72  # bcrypt takes no more into account
_BCRYPT = re.compile(rb"\$2[aby]\$(0[4-9]|1[0-9]|2[0-4])\$[./A-Za-z0-9]{53}")


class Passwords:
    """The users of one registry. Shared by threads."""

    def __init__(self, hashes: dict[str, bytes]) -> None:
        self._hashes = hashes
        self._key = os.urandom(32)
        self._right: dict[str, bytes] = {}
        # Somebody who does not exist takes as long as somebody who does.
        self._nobody = next(iter(hashes.values()), bcrypt.hashpw(b"", bcrypt.gensalt(5)))

    @classmethod
    def load(cls, path: str) -> Self:
        """Read a file of users.

        Raises:
            InvalidInputError: It cannot be read, is not of this form, or has a password that is not bcrypt.
        """
        try:
            with open(path, "rb") as file:
                data = file.read(_MAX_BYTES + 1)
        except OSError as error:
            raise InvalidInputError(f"password file {path!r}: {error.strerror}") from None
        if len(data) > _MAX_BYTES:
            raise InvalidInputError(f"password file {path!r}: more than {_MAX_BYTES} bytes")
        return cls.parse(data, path)

    @classmethod
    def parse(cls, data: bytes, path: str = "htpasswd") -> Self:
        """Parse the content of a file; `path` is for messages."""
        hashes: dict[str, bytes] = {}
        for number, line in enumerate(data.split(b"\n"), 1):
            text = line.strip()
            if not text or text.startswith(b"#"):
                continue
            name, colon, hashed = text.partition(b":")
            user = name.decode("utf-8", "replace")
            if not colon or not name or not user.isprintable():
                raise InvalidInputError(f"password file {path!r}, line {number}: not of the form user:hash")
            if _BCRYPT.fullmatch(hashed) is None:
                raise InvalidInputError(
                    f"password file {path!r}, line {number}: the password of {user!r} is not bcrypt; "
                    "make it with htpasswd -B"
                )
            hashes[user] = hashed
        if not hashes:
            raise InvalidInputError(f"password file {path!r} has no users")
        return cls(hashes)

    def check(self, user: str, password: str) -> bool:
        """Say whether this is the password of `user`.

        Cost: what bcrypt costs, a tenth of a second or so; nothing for what was right before.
        """
        secret = password.encode("utf-8", "replace")
        if len(secret) > _MAX_PASSWORD or b"\0" in secret:
            return False
        seen = hmac.digest(self._key, user.encode("utf-8", "replace") + b"\0" + secret, hashlib.sha256)
        known = self._right.get(user)
        if known is not None and hmac.compare_digest(known, seen):
            return True
        is_right = bcrypt.checkpw(secret, self._hashes.get(user, self._nobody))
        if not is_right or user not in self._hashes:
            return False
        self._right[user] = seen
        return True
