"""What a registry's refusals mean: status and error body in, typed error out."""

from __future__ import annotations

import email.utils
import time
from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit

import attrs

from containerlib._util import strict_json
from containerlib.errors import (
    AuthenticationFailed,
    InvalidInputError,
    RateLimited,
    RegistryError,
    RegistryUnavailable,
    RemoteNotFound,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["MAX_ERROR_BYTES", "Refusal", "redacted", "refused", "retry_after_s", "shown"]

MAX_ERROR_BYTES = 64 << 10
_MAX_CODES = 16
_MAX_MESSAGE = 300
_FOREVER_S = 1e12
_UNAUTHORIZED, _FORBIDDEN, _NOT_FOUND, _NOT_ALLOWED, _TOO_MANY = 401, 403, 404, 405, 429
_SERVER_ERROR = 500


@attrs.frozen
class Refusal:
    """An answer that is not what was asked for.

    Attributes:
        method: Of the request.
        url: Of the request.
        status: Of the answer.
        headers: Of the answer, by lower-case name.
        body: Its beginning.
        is_authorized: Whether the request showed credentials or a token.
    """

    method: str
    url: str
    status: int
    headers: Mapping[str, str]
    body: bytes
    is_authorized: bool = False

    def errors(self) -> list[tuple[str, str]]:
        """Codes and messages of the body, in OCI's form; empty if it has another."""
        try:
            found = strict_json.loads_object(self.body, limit=MAX_ERROR_BYTES, what="error").get("errors")
        except InvalidInputError:
            return []
        entries = found if isinstance(found, list) else []
        return [
            (shown(entry.get("code", ""), 64), shown(entry.get("message", "")))
            for entry in entries[:_MAX_CODES]
            if isinstance(entry, dict)
        ]


def shown(value: object, limit: int = _MAX_MESSAGE) -> str:
    """Return what somebody else has said as text of some length that does nothing to a terminal."""
    text = str(value)[:limit]
    return "".join(character if character.isprintable() else "?" for character in text)


def redacted(url: str) -> str:
    """Return `url` without user, password and query, any of which may be secret."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Return how long the answer asks to wait, in seconds; None if it does not say so understandably."""
    text = headers.get("retry-after", "").strip()
    if text.isdecimal():
        return min(float(text), _FOREVER_S)
    try:
        date = email.utils.parsedate_to_datetime(text)
        return max(0.0, date.timestamp() - time.time())
    except (ValueError, OverflowError):
        return None


def refused(refusal: Refusal, what: str, missing: str = "") -> RegistryError:
    """Return the error for an answer.

    Args:
        refusal: The answer.
        what: What was asked for, for people, such as ``manifest 'latest' of host/name``.
        missing: What to say if it is not there.
    """
    errors = refusal.errors()
    said = "; ".join(filter(None, (message or code for code, message in errors)))
    reason = f"{refusal.status}" + (f": {said}" if said else "")
    codes = tuple(code for code, _ in errors if code)
    method, url, status = refusal.method, redacted(refusal.url), refusal.status
    if status == _TOO_MANY:
        wait = retry_after_s(refusal.headers)
        hint = f"; it asks to wait {wait:.0f} s" if wait is not None else ""
        message = f"{what}: too many requests{hint}; log in, use a mirror, or try again later"
        return RateLimited(message, retry_after_s=wait, method=method, url=url, status=status, codes=codes)
    if status in {_UNAUTHORIZED, _FORBIDDEN}:
        return AuthenticationFailed(
            f"{what}: access denied ({reason}): {_denial(refusal)}",
            method=method,
            url=url,
            status=status,
            codes=codes,
        )
    if status == _NOT_FOUND:
        hint = f"; {missing}" if missing else ""
        return RemoteNotFound(
            f"{what}: not there ({reason}){hint}", method=method, url=url, status=status, codes=codes
        )
    if status >= _SERVER_ERROR:
        message = f"{what}: the server is out of order ({reason}); try again later"
        return RegistryUnavailable(message, method=method, url=url, status=status, codes=codes)
    hint = "; it does not do this, or is no registry" if status == _NOT_ALLOWED else ""
    message = f"{what}: the registry answered {reason}{hint}"
    return RegistryError(message, method=method, url=url, status=status, codes=codes)


def _denial(refusal: Refusal) -> str:
    """Say why, as far as the answer tells, and what to do."""
    if not refusal.is_authorized:
        return "it wants credentials; log in"
    if refusal.status == _UNAUTHORIZED:
        return "the credentials are not accepted; log in again"
    return "this account may not do that; log in with one that may"
