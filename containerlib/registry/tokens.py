"""Asking a token service for an access token: with a password, with an identity token, or as nobody.

Knows the two forms of the question. Whether the service may be asked at all is the business of `auth`.

Source: the token authentication specifications of the distribution project, with GET and by OAuth 2.
"""

from __future__ import annotations

import base64
import time
from typing import TYPE_CHECKING
from urllib.parse import urlencode, urlsplit

import attrs

from containerlib._util import strict_json
from containerlib.errors import AuthenticationFailed, InvalidInputError
from containerlib.registry.answers import refused

if TYPE_CHECKING:
    from containerlib.registry.credential import Credential
    from containerlib.registry.source import Source
    from containerlib.registry.transport import Answer, Transport

__all__ = ["Token", "TokenQuestion", "basic_header", "fetch_token"]

_CLIENT_ID = "containerlib"
_MAX_TOKEN_BYTES = 1 << 20
_DEFAULT_EXPIRY_S = 60.0
_MARGIN_S = 10.0
_OK, _NOT_FOUND, _NOT_ALLOWED = 200, 404, 405
_REFUSALS = frozenset((400, 401, 403, _NOT_FOUND, _NOT_ALLOWED))


@attrs.frozen
class Token:
    """An access token.

    Attributes:
        text: What is shown to the registry.
        expires_at: When it must not be used any more, on the monotonic clock.
        identity: An identity token that came with it; empty if none did.
    """

    text: str = attrs.field(repr=False)
    expires_at: float
    identity: str = attrs.field(default="", repr=False)


@attrs.frozen(kw_only=True)
class TokenQuestion:
    """What is asked of a token service.

    Attributes:
        service: Its place, as the registry names it.
        path: Path and query there.
        audience: The ``service`` that the registry calls itself.
        scopes: What is to be done, such as ``repository:library/alpine:pull``.
        credential: Who asks; None for nobody.
        wants_identity: Whether an identity token is asked for as well.
        what: What is asked for, for messages.
    """

    service: Source
    path: str
    audience: str
    scopes: tuple[str, ...]
    credential: Credential | None
    wants_identity: bool
    what: str


def fetch_token(transport: Transport, question: TokenQuestion) -> Token:
    """Ask a token service.

    Raises:
        AuthenticationFailed: It refuses, or its answer is no token.
        RegistryError: See `Transport.request`.
    """
    credential = question.credential
    if credential is not None and credential.identity_token:
        return _exchange(transport, question, _grant("refresh_token", question, credential))
    with _ask(transport, question) as answer:
        if credential is None or answer.status not in {_NOT_FOUND, _NOT_ALLOWED}:
            return _read(answer, question)
    # This service knows only the other form of the question.
    return _exchange(transport, question, _grant("password", question, credential))


def basic_header(credential: Credential) -> str:
    """Return the header that shows name and password."""
    pair = f"{credential.username}:{credential.secret}"
    return f"Basic {base64.b64encode(pair.encode()).decode()}"


def _ask(transport: Transport, question: TokenQuestion) -> Answer:
    fields = [("service", question.audience), *(("scope", scope) for scope in question.scopes)]
    headers = {}
    if question.credential is not None:
        fields += [("account", question.credential.username), ("client_id", _CLIENT_ID)]
        fields += [("offline_token", "true")] if question.wants_identity else []
        headers["Authorization"] = basic_header(question.credential)
    parts = urlsplit(question.path)
    query = urlencode([(name, text) for name, text in fields if text])
    path = f"{parts.path}?{'&'.join(filter(None, (parts.query, query)))}"
    return transport.request(question.service, "GET", path, what=_what(question), headers=headers)


def _grant(kind: str, question: TokenQuestion, credential: Credential) -> dict[str, str]:
    fields = {
        "grant_type": kind,
        "service": question.audience,
        "client_id": _CLIENT_ID,
        "scope": " ".join(question.scopes),
    }
    if kind == "refresh_token":
        return {**fields, "refresh_token": credential.identity_token}
    kept = {"access_type": "offline"} if question.wants_identity else {}
    return {**fields, **kept, "username": credential.username, "password": credential.secret}


def _exchange(transport: Transport, question: TokenQuestion, fields: dict[str, str]) -> Token:
    body = urlencode({name: text for name, text in fields.items() if text}).encode()
    headers = {"Content-Type": "application/x-www-form-urlencoded", "Content-Length": str(len(body))}
    with transport.request(
        question.service, "POST", question.path, what=_what(question), headers=headers, body=lambda: body
    ) as answer:
        return _read(answer, question)


def _read(answer: Answer, question: TokenQuestion) -> Token:
    if answer.status == _OK:
        return _parse_token(answer.read_all(_MAX_TOKEN_BYTES), question.what)
    if answer.status not in _REFUSALS:
        raise refused(answer.refusal(), f"{question.what}: the token service")
    credential = question.credential
    if credential is None:
        told = "no credentials; log in"
    else:
        told = "the identity token; log in again" if credential.identity_token else "the credentials"
    error = refused(answer.refusal(), f"{question.what}: the token service refused {told}")
    raise AuthenticationFailed(
        str(error), method=error.method, url=error.url, status=error.status, codes=error.codes
    )


def _parse_token(data: bytes, what: str) -> Token:
    try:
        document = strict_json.loads_object(data, limit=_MAX_TOKEN_BYTES, what="token")
    except InvalidInputError as error:
        raise AuthenticationFailed(f"{what}: the token service's answer is no token: {error}") from None
    text = document.get("token") or document.get("access_token")
    if not _is_token(text):
        raise AuthenticationFailed(f"{what}: the token service's answer holds no token")
    identity = document.get("refresh_token")
    expires = document.get("expires_in")
    lasts = float(expires) if isinstance(expires, int) and 0 < expires < 1 << 31 else _DEFAULT_EXPIRY_S
    return Token(
        str(text),
        time.monotonic() + max(lasts - _MARGIN_S, 1.0),
        str(identity) if _is_token(identity) else "",
    )


def _is_token(text: object) -> bool:
    return isinstance(text, str) and bool(text) and text.isascii() and text.isprintable() and " " not in text


def _what(question: TokenQuestion) -> str:
    return f"{question.what}: token"
