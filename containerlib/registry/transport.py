"""HTTP to registries: the one place that knows the HTTP library, and where its errors become ours.

Connections are kept per origin. Redirects are followed here, because what may go along with them depends on
where they lead: credentials never leave the origin they belong to, and TLS is never given up on the way. A
request that may be repeated is repeated when the registry is out of order for a moment.
"""

from __future__ import annotations

import contextlib
import random
import ssl
import time
from typing import TYPE_CHECKING, Protocol, TypeAlias, cast
from urllib.parse import urljoin, urlsplit

import attrs
import urllib3
from urllib3.exceptions import HTTPError, NameResolutionError, NewConnectionError, ProxyError, SSLError
from urllib3.exceptions import TimeoutError as HTTPTimeoutError

from containerlib.errors import RegistryError, RegistryUnavailable
from containerlib.registry.addresses import ForbiddenPlaceError
from containerlib.registry.answers import MAX_ERROR_BYTES, Refusal, redacted, retry_after_s, shown
from containerlib.registry.connections import Connections
from containerlib.registry.pace import Pace, TooSlowError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import BinaryIO, Self

    from containerlib.registry.addresses import Place
    from containerlib.registry.source import Source

__all__ = ["Answer", "Body", "Readable", "Transport", "TransportSettings"]

Body: TypeAlias = "bytes | BinaryIO | Readable"
_REPEATED = frozenset((429, 500, 502, 503, 504))
_NOT_BEGUN = frozenset((429, 503))
_REDIRECTS = frozenset((301, 302, 303, 307, 308))
_NOT_TLS = ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "UNEXPECTED_EOF_WHILE_READING", "HTTP_REQUEST")
_REDIRECT_PLACES: frozenset[Place] = frozenset(("public", "private"))
_SAFE = frozenset(("GET", "HEAD"))
_PORTS = {"http": ":80", "https": ":443"}  # what an address means that names none
_MAX_REDIRECTS = 10
_MIRROR_ATTEMPTS = 2  # the registry itself is still to be asked
_MAX_CHUNK = 1 << 20
_PACE = Pace(bytes_per_s=1024, window_s=30)


@attrs.frozen(kw_only=True)
class TransportSettings:
    """How patient the transport is.

    Attributes:
        connect_timeout_s: For connecting.
        stall_timeout_s: For the next bytes of an answer.
        pace: The least number of bytes an answer must bring while it is waited for.
        attempts: How often a request is made that may be repeated.
        first_wait_s: Longest wait before the second attempt; before each further one it is twice as long.
        max_wait_s: Longest wait between two attempts; a registry that asks for more is given up.
    """

    connect_timeout_s: float = 10.0
    stall_timeout_s: float = 30.0
    pace: Pace = _PACE
    attempts: int = 5
    first_wait_s: float = 1.0
    max_wait_s: float = 30.0

    def wait_s(self, attempt: int, asked_s: float | None) -> float:
        """Return how long to wait after an attempt, the first of which is 1.

        Args:
            attempt: Which one has failed.
            asked_s: What the registry asks for, which is waited for at least; None if it says nothing.
        """
        spread = random.uniform(0.5, 1.0)  # noqa: S311 - no secret, only spread
        own = min(self.first_wait_s * 2.0 ** min(attempt, 60) / 2, self.max_wait_s) * spread
        return min(max(own, asked_s or 0.0), self.max_wait_s)


class Readable(Protocol):
    """What a body is read from: part of a file, or content that comes from another registry."""

    def read(self, size: int = -1, /) -> bytes:
        """Return up to `size` bytes; empty at the end."""

    def seek(self, offset: int, /) -> int:
        """Go to a position, counted from the beginning."""


@attrs.frozen
class _Request:
    """What stays the same of a request wherever it is redirected to; headers may get fewer."""

    method: str
    headers: dict[str, str]
    body: Callable[[], Body] | None
    what: str


class Answer:
    """The answer to a request; a context manager that gives the connection back."""

    def __init__(self, response: urllib3.BaseHTTPResponse, request: _Request, url: str) -> None:
        self._response = response
        self._what = request.what
        self._is_authorized = "Authorization" in request.headers
        self._is_read = False
        self.method = request.method
        self.url = url
        self.status = response.status
        self.headers = {name.lower(): value for name, value in response.headers.items()}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def read(self, size: int) -> bytes:
        """Return up to `size` bytes of the body; empty at its end.

        Raises:
            RegistryUnavailable: The connection broke off, stalled or was too slow.
        """
        try:
            # Not `read`, which waits for all of it.
            data = self._response.read1(min(size, _MAX_CHUNK), decode_content=False)
        except (HTTPError, OSError) as error:
            raise _unavailable(self.method, self.url, error, self._what) from error
        self._is_read = not data
        return data

    def read_all(self, limit: int) -> bytes:
        """Return the whole body, at most one byte more than `limit`."""
        data = bytearray()
        while len(data) <= limit and (chunk := self.read(limit + 1 - len(data))):
            data += chunk
        return bytes(data)

    def refusal(self) -> Refusal:
        """Return what is to be known of an answer that is a refusal."""
        body = b""
        with contextlib.suppress(RegistryError):
            body = self.read_all(MAX_ERROR_BYTES)
        return Refusal(self.method, self.url, self.status, self.headers, body, self._is_authorized)

    def close(self) -> None:
        """Give the connection back, or drop it if the body was not read to its end."""
        if self._is_read:
            self._response.release_conn()
        else:
            self._response.close()


class Transport:
    """Connections to any number of registries, shared by threads."""

    def __init__(self, settings: TransportSettings | None = None) -> None:
        self._settings = settings or TransportSettings()
        self._connections = Connections(self._settings.pace)
        self._plain: set[str] = set()

    def close(self) -> None:
        """Close every connection."""
        self._connections.close()

    def place(self, source: Source) -> Place | None:
        """Return where the host of `source` turned out to be; None if nobody has connected to it yet."""
        return self._connections.place(source.host)

    def is_at(self, source: Source, url: str) -> bool:
        """Say whether `url` is of the very host, port and scheme by which `source` is reached."""
        return _origin(url) == _origin(self.base_url(source))

    def base_url(self, source: Source) -> str:
        """Return scheme and host by which `source` is reached, as far as it is known by now."""
        return f"http://{source.host}" if source.host in self._plain else source.base_url

    def request(
        self,
        source: Source,
        method: str,
        path: str,
        *,
        what: str,
        headers: Mapping[str, str] | None = None,
        body: Callable[[], Body] | None = None,
    ) -> Answer:
        """Make a request to the host of `source` and return its answer, whatever its status.

        Args:
            source: Whose host is asked, and how it is to be trusted.
            method: ``GET`` and so on.
            path: Beginning with a slash, or an absolute URL of the same host.
            what: What is asked for, for messages.
            headers: Sent along; ``Authorization`` only to this very origin.
            body: Gives the body, from its beginning each time it is called; its length must be among the
                headers. When the registry is out of order or the connection breaks, only ``GET`` and ``HEAD``
                are repeated; when it says that it has not even begun, every request is.

        Raises:
            RegistryUnavailable: The host cannot be reached, or not safely, or stays out of order.
            RegistryError: It redirects to where we do not go.
        """
        attempts = self._attempts(source)
        repeated = _REPEATED if method in _SAFE else _NOT_BEGUN
        for attempt in range(1, attempts + 1):
            asked = None
            try:
                answer = self._follow(source, _Request(method, dict(headers or {}), body, what), path)
            except RegistryUnavailable as error:
                if attempt == attempts or method not in _SAFE or not _may_pass(error.__cause__):
                    raise
            else:
                if answer.status not in repeated or attempt == attempts:
                    return answer
                asked = retry_after_s(answer.headers)
                if asked is not None and asked > self._settings.max_wait_s:
                    return answer
                answer.close()
            time.sleep(self._settings.wait_s(attempt, asked))
        raise AssertionError("the last attempt returns or raises")

    def _attempts(self, source: Source) -> int:
        limit = _MIRROR_ATTEMPTS if source.is_mirror else self._settings.attempts
        return min(limit, self._settings.attempts)

    def _follow(self, source: Source, request: _Request, path: str) -> Answer:
        method, headers, what = request.method, request.headers, request.what
        url = _joined(self.base_url(source), path, what)
        origin = _origin(self.base_url(source))
        if _origin(url) != origin:
            _check_redirect(origin, url, what)
            headers.pop("Authorization", None)
        for _ in range(_MAX_REDIRECTS + 1):
            answer = self._once(source, request, url)
            if answer.status not in _REDIRECTS or "location" not in answer.headers:
                return answer
            answer.close()
            target = _joined(answer.url, answer.headers["location"], what)
            _check_redirect(answer.url, target, what)
            if _origin(target) != origin:
                if source.keeps_origin:
                    raise RegistryError(
                        f"{what}: redirected to another host, {redacted(target)!r}, where secrets must not go"
                    )
                headers.pop("Authorization", None)
            url = target
        raise RegistryError(f"{what}: more than {_MAX_REDIRECTS} redirects", method=method, url=redacted(url))

    def _once(self, source: Source, request: _Request, url: str) -> Answer:
        method, what = request.method, request.what
        try:
            return self._send(source, request, url)
        except SSLError as error:
            if not self._speaks_no_tls(source, url, error):
                raise _unavailable(method, url, error, what) from error
        except ForbiddenPlaceError as error:
            raise RegistryError(f"{what}: {error}", method=method, url=redacted(url)) from error
        except (HTTPError, OSError) as error:
            raise _unavailable(method, url, error, what) from error
        # Loopback and hosts declared insecure may speak plain text. A bad certificate never leads here.
        self._plain.add(source.host)
        try:
            return self._send(source, request, url.replace("https://", "http://", 1))
        except (HTTPError, OSError) as error:
            raise _unavailable(method, url, error, what) from error

    def _send(self, source: Source, request: _Request, url: str) -> Answer:
        verify = source.verify_tls or _host(url) != source.host
        pool = self._connections.pool(url, verify=verify, allowed=self._allowed(source, url))
        response = pool.request(
            request.method,
            url,
            body=None if request.body is None else cast("bytes | BinaryIO", request.body()),
            headers={"User-Agent": "containerlib", "Accept-Encoding": "identity", **request.headers},
            redirect=False,
            retries=False,
            preload_content=False,
            decode_content=False,
            timeout=urllib3.Timeout(
                connect=self._settings.connect_timeout_s, read=self._settings.stall_timeout_s
            ),
        )
        return Answer(response, request, url)

    def _allowed(self, source: Source, url: str) -> frozenset[Place] | None:
        """Return where `url` may lead: a host that a user named anywhere, one that a registry named not."""
        if _host(url) == source.host:
            return source.places
        place = self.place(source)
        return _REDIRECT_PLACES if place is None else _REDIRECT_PLACES | {place}

    def _speaks_no_tls(self, source: Source, url: str, error: SSLError) -> bool:
        is_certificate = bool(error.args) and isinstance(error.args[0], ssl.SSLCertVerificationError)
        return (
            source.allows_http
            and _host(url) == source.host
            and not is_certificate
            and any(text in _tls_words(error) for text in _NOT_TLS)
        )


def _host(url: str) -> str:
    return urlsplit(url).netloc.rpartition("@")[2]


def _origin(url: str) -> str:
    scheme = urlsplit(url).scheme
    return f"{scheme}://{_host(url).lower().removesuffix(_PORTS.get(scheme, '/'))}"


def _joined(base: str, location: str, what: str) -> str:
    """Return where `location` leads, as seen from `base`."""
    try:
        target = urljoin(base, location)
        is_address = urlsplit(target).port != 0
    except ValueError:
        is_address = False
    if not is_address:
        raise RegistryError(f"{what}: the registry leads to what is no address, which is not followed")
    return target


def _check_redirect(source: str, target: str, what: str) -> None:
    parts = urlsplit(target)
    if parts.scheme not in {"http", "https"} or not parts.hostname or "@" in parts.netloc:
        raise RegistryError(f"{what}: redirected to {redacted(target)!r}, which is not followed")
    if urlsplit(source).scheme == "https" and parts.scheme != "https":
        raise RegistryError(f"{what}: redirected from TLS to plain text at {redacted(target)!r}")


def _unavailable(method: str, url: str, error: Exception, what: str) -> RegistryUnavailable:
    return RegistryUnavailable(f"{what}: {_host(url)}: {_reason(error)}", method=method, url=redacted(url))


def _reason(error: Exception) -> str:
    """Say what happened, and what to do about it."""
    if isinstance(error, SSLError):
        return _tls_reason(error)
    if isinstance(error, NameResolutionError):
        return "there is no such host, or its name cannot be looked up; check the name and the connection"
    if isinstance(error, NewConnectionError):
        return f"cannot connect: {str(error).rpartition(': ')[2]}; check host and port"
    if isinstance(error, ProxyError):
        return f"the proxy does not lead there: {error.original_error}"
    return _broken_reason(error)


def _broken_reason(error: Exception) -> str:
    if isinstance(error.__cause__, TooSlowError):
        return f"{error.__cause__}; try again later, or use a mirror"
    if isinstance(error, HTTPTimeoutError):
        return "it does not answer in time; try again later"
    broken = error.args[-1] if error.args else error
    return f"the connection broke: {shown(broken)}; try again"


def _tls_reason(error: SSLError) -> str:
    cause = error.args[0] if error.args else None
    if isinstance(cause, ssl.SSLCertVerificationError):
        return (
            f"TLS failed: its certificate is not valid: {cause.verify_message}; "
            "install its authority below certs.d"
        )
    if any(text in _tls_words(error) for text in _NOT_TLS):
        return "TLS failed: it does not speak TLS; if it is to be trusted without, name it as insecure"
    return f"TLS failed: {cause or error}"


def _tls_words(error: SSLError) -> str:
    cause = error.args[0] if error.args else None
    return str(getattr(cause, "reason", None) or error)


def _may_pass(cause: BaseException | None) -> bool:
    """Say whether another attempt could succeed."""
    return not isinstance(cause, (SSLError, NewConnectionError))
