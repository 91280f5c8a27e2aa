"""A registry of a few hundred lines on loopback, real HTTP, any answer of which a test can replace.

It keeps everything in memory and checks what a registry must check. Its token service is one of its own: see
`support.token_service`.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import json
import re
import threading
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

import attrs

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterator, Mapping

__all__ = ["Reply", "Request", "SmallRegistry", "digest_of", "listening", "serve"]

_ROUTE = re.compile(r"/v2/(?P<name>.+)/(?P<kind>manifests|blobs/uploads|blobs|tags|referrers)/(?P<rest>.*)")
_INDEX = "application/vnd.oci.image.index.v1+json"


@attrs.frozen
class Request:
    """What arrived."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes = attrs.field(repr=False)

    @property
    def target(self) -> str:
        """Method and path."""
        return f"{self.method} {self.path}"


@attrs.frozen
class Reply:
    """What is answered; `None` as the body drops the connection without an answer."""

    status: int = 200
    headers: Mapping[str, str] = attrs.field(factory=dict)
    body: bytes | None = b""


def digest_of(data: bytes) -> str:
    """Return the digest of `data`."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


@attrs.define(eq=False)
class SmallRegistry:
    """The registry. Attributes may be changed while it runs.

    Attributes:
        host: Where it listens, once it does.
        intercept: Asked before anything else; what it returns is the answer.
        challenge: Sent with 401 to requests that `admits` does not admit.
        admits: Told request and needed scope.
        page: Names on a page of a list.
        lists_referrers: Whether there is a referrers API.
        mounts: Whether blobs are mounted from other repositories.
        most_bytes: Longest body that is taken; 413 for more.
    """

    host: str = ""
    intercept: Callable[[Request], Reply | None] = lambda _request: None
    challenge: str = ""
    admits: Callable[[Request, str], bool] = lambda _request, _scope: True
    page: int = 1000
    lists_referrers: bool = True
    mounts: bool = True
    most_bytes: int = 1 << 30
    blobs: dict[tuple[str, str], bytes] = attrs.field(factory=dict)
    manifests: dict[tuple[str, str], tuple[str, bytes]] = attrs.field(factory=dict)
    uploads: dict[str, bytearray] = attrs.field(factory=dict)
    upload_headers: dict[str, str] = attrs.field(factory=dict)
    requests: list[Request] = attrs.field(factory=list)

    def targets(self, beginning: str = "") -> list[str]:
        """Return method and path of each request so far, of those that begin so."""
        return [request.target for request in self.requests if request.target.startswith(beginning)]

    def answer(self, request: Request) -> Reply:  # noqa: PLR0911 - a table of answers
        """Answer a request."""
        self.requests.append(request)
        found = self.intercept(request)
        if found is not None:
            return found
        route = _ROUTE.fullmatch(request.path)
        name = route["name"] if route else ""
        action = "pull" if request.method in {"GET", "HEAD"} else "push"
        if not self.admits(request, f"repository:{name}:{action}" if name else ""):
            return Reply(401, {"WWW-Authenticate": self.challenge})
        if len(request.body) > self.most_bytes:
            return Reply(413)
        if request.path == "/v2/":
            return Reply()
        if request.path == "/v2/_catalog":
            return self._list(request, "repositories", sorted({name for name, _ in self.manifests}))
        if route is None:
            return Reply(404)
        kind: Callable[[str, str, Request], Reply] = {
            "manifests": self._manifests,
            "blobs": self._blobs,
            "blobs/uploads": self._uploads,
            "tags": self._tags,
            "referrers": self._referrers,
        }[route["kind"]]
        return kind(name, route["rest"], request)

    def _list(self, request: Request, key: str, names: list[str]) -> Reply:
        start = next((i for i, n in enumerate(names) if n > request.query.get("last", "")), len(names))
        shown = names[start : start + self.page]
        headers = {"Content-Type": "application/json"}
        if start + self.page < len(names):
            headers["Link"] = f'<{request.path}?n={self.page}&last={shown[-1]}>; rel="next"'
        return Reply(200, headers, json.dumps({key: shown}).encode())

    def _tags(self, name: str, _rest: str, request: Request) -> Reply:
        names = sorted(tag for repository, tag in self.manifests if repository == name and ":" not in tag)
        return self._list(request, "tags", names) if names else Reply(404)

    def _manifests(self, name: str, rest: str, request: Request) -> Reply:
        if request.method == "PUT":
            kind, digest = request.headers["content-type"], digest_of(request.body)
            self.manifests[name, digest] = self.manifests[name, rest] = (kind, request.body)
            subject = json.loads(request.body).get("subject")
            told = {"OCI-Subject": subject["digest"]} if subject and self.lists_referrers else {}
            return Reply(201, {"Docker-Content-Digest": digest, **told})
        found = self.manifests.get((name, rest))
        if found is None:
            return Reply(404)
        if request.method == "DELETE":
            gone = [key for key in self.manifests if key[0] == name and self.manifests[key] == found]
            for key in gone if ":" in rest else [(name, rest)]:
                del self.manifests[key]
            return Reply(202)
        return Reply(200, {"Content-Type": found[0], "Docker-Content-Digest": digest_of(found[1])}, found[1])

    def _blobs(self, name: str, rest: str, request: Request) -> Reply:
        data = self.blobs.get((name, rest))
        if data is None:
            return Reply(404)
        start = int(request.headers.get("range", "bytes=0-").removeprefix("bytes=").removesuffix("-"))
        if not start:
            return Reply(200, {}, data)
        return Reply(206, {"Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"}, data[start:])

    def _uploads(self, name: str, rest: str, request: Request) -> Reply:  # noqa: PLR0911 - as above
        if request.method == "POST":
            source = (request.query.get("from", ""), request.query.get("mount", ""))
            if self.mounts and source in self.blobs:
                self.blobs[name, source[1]] = self.blobs[source]
                return Reply(201, {"Location": f"/v2/{name}/blobs/{source[1]}"})
            rest = str(len(self.uploads))
            self.uploads[rest] = bytearray()
            return Reply(202, {**self._progress(name, rest), **self.upload_headers})
        upload = self.uploads.get(rest)
        if upload is None:
            return Reply(404)
        if request.method == "GET":
            return Reply(204, self._progress(name, rest))
        start = request.headers.get("content-range", f"{len(upload)}-").partition("-")[0]
        if int(start) != len(upload):
            return Reply(416, self._progress(name, rest))
        upload += request.body
        if request.method == "PATCH":
            return Reply(202, self._progress(name, rest))
        digest = request.query["digest"]
        if digest_of(bytes(upload)) != digest:
            return Reply(400, {}, json.dumps({"errors": [{"code": "DIGEST_INVALID"}]}).encode())
        self.blobs[name, digest] = bytes(self.uploads.pop(rest))
        return Reply(201, {"Location": f"/v2/{name}/blobs/{digest}"})

    def _progress(self, name: str, upload: str) -> dict[str, str]:
        end = max(len(self.uploads[upload]) - 1, 0)
        return {"Location": f"/v2/{name}/blobs/uploads/{upload}", "Range": f"0-{end}"}

    def _referrers(self, name: str, rest: str, _request: Request) -> Reply:
        if not self.lists_referrers:
            return Reply(404)
        found = {}
        for (repository, _tag), (kind, raw) in self.manifests.items():
            document = json.loads(raw)
            if repository == name and document.get("subject", {}).get("digest") == rest:
                entry = {"mediaType": kind, "digest": digest_of(raw), "size": len(raw)}
                found[digest_of(raw)] = {**entry, "artifactType": document.get("artifactType", "")}
        index = {"schemaVersion": 2, "mediaType": _INDEX, "manifests": list(found.values())}
        return Reply(200, {"Content-Type": _INDEX}, json.dumps(index).encode())


def _handler(answer: Callable[[Request], Reply]) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_one_request(self) -> None:
            with contextlib.suppress(ConnectionError):
                super().handle_one_request()

        def answer(self) -> None:
            parts = urlsplit(self.path)
            query = {name: values[0] for name, values in parse_qs(parts.query).items()}
            if "scope" in query:
                query["scope"] = " ".join(parse_qs(parts.query)["scope"])
            headers = {name.lower(): value for name, value in self.headers.items()}
            body = self.rfile.read(int(headers.get("content-length", "0")))
            reply = answer(Request(self.command, parts.path, query, headers, body))
            if reply.body is None:
                self.close_connection = True
                return
            self.send_response(reply.status)
            for name, value in {"Content-Length": str(len(reply.body)), **reply.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(reply.body)
                # What is shorter than it says is a connection that breaks.
                self.close_connection |= "Content-Length" in reply.headers

        do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = answer  # noqa: N815 - the library's names

        def log_message(self, *_: object) -> None:
            pass

    return Handler


@contextlib.contextmanager
def listening(
    answer: Callable[[Request], Reply], tls: ssl.SSLContext | None = None, address: str = "127.0.0.1"
) -> Iterator[str]:
    """Answer requests on a port, and give the host with the port."""

    class Server(http.server.ThreadingHTTPServer):
        def handle_error(self, *_: object) -> None:
            """Say nothing of clients that went away."""

    with Server((address, 0), _handler(answer)) as server:
        if tls is not None:
            server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"{address}:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@contextlib.contextmanager
def serve(
    registry: SmallRegistry | None = None, tls: ssl.SSLContext | None = None
) -> Iterator[SmallRegistry]:
    """Run a registry."""
    made = registry or SmallRegistry()
    with listening(made.answer, tls) as host:
        made.host = host
        yield made
