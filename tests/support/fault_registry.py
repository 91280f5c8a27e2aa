"""A registry on loopback that is honest, except where a test makes it lie, break off, dawdle or refuse.

What it answers is computed honestly first. A *fault* then makes another answer of it: it is a function of the
request and the honest reply. Faults are set for requests that match a pattern, for some times or for good.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import http.server
import json
import re
import socket
import ssl
import threading
import urllib.parse
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import attrs
from support.oci_layout import CONFIG, LAYER, MANIFEST

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Self

__all__ = ["Fault", "FaultRegistry", "Reply", "Seen", "digest_of", "refusal"]

_PATIENCE_S = 30.0
_JSON = "application/json"


@attrs.frozen
class Seen:
    """A request that came: path with query, headers by lower-case name."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes = attrs.field(repr=False)


@attrs.frozen(kw_only=True)
class Reply:
    """An answer.

    Attributes:
        status: The status.
        headers: ``Content-Length`` among them replaces the true one.
        body: What is sent.
        cut: The connection ends after so many bytes of the body; None for its end.
        drip_s: Pause after each byte of the answer, its headers included.
        framing: How the end is told: by a length, in chunks, or by closing the connection.
        raw: Sent as it is instead of all of this; the connection ends behind it.
    """

    status: int = 200
    headers: Mapping[str, str] = attrs.field(factory=dict)
    body: bytes = attrs.field(default=b"", repr=False)
    cut: int | None = None
    drip_s: float = 0.0
    framing: Literal["length", "chunked", "close"] = "length"
    raw: bytes | None = None

    def having(self, **headers: str) -> Reply:
        """Return the reply with other headers; underscores stand for hyphens."""
        more = {name.replace("_", "-").title(): value for name, value in headers.items()}
        return attrs.evolve(self, headers={**self.headers, **more})


Fault: TypeAlias = "Callable[[Seen, Reply], Reply]"


def digest_of(data: bytes) -> str:
    """Return the sha256 digest of `data`."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def refusal(status: int, code: str = "UNKNOWN", message: str = "", **headers: str) -> Reply:
    """Return a refusal in the form that OCI prescribes."""
    body = json.dumps({"errors": [{"code": code, "message": message}]}).encode()
    return Reply(status=status, body=body, headers={"Content-Type": _JSON}).having(**headers)


@attrs.define
class _Rule:
    pattern: re.Pattern[str]
    fault: Fault
    left: float
    is_instead: bool = False


class FaultRegistry:
    """One registry with the repository ``x``; a context manager that serves while it is open.

    Attributes:
        blobs: Content by digest.
        manifests: Media type and bytes, by tag and by digest.
        seen: Every request so far.
        tokens: Bearer tokens that are accepted; None lets everybody in.
    """

    def __init__(
        self, *, address: str = "127.0.0.1", tls: ssl.SSLContext | None = None, protocol: str = "HTTP/1.1"
    ) -> None:
        self.blobs: dict[str, bytes] = {}
        self.manifests: dict[str, tuple[str, bytes]] = {}
        self.seen: list[Seen] = []
        self.tokens: set[str] | None = None
        self.issued = 0
        self.stopping = threading.Event()
        self._uploads: dict[str, bytes] = {}
        self._rules: list[_Rule] = []
        self._lock = threading.Lock()
        self._problems: list[BaseException] = []
        self._stack = contextlib.ExitStack()
        self._address, self._tls, self._protocol = address, tls, protocol
        self.port = 0

    def __enter__(self) -> Self:
        server = _Server(self, self._address, self._tls, self._protocol)
        self.port = int(server.server_address[1])
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        self._stack.callback(server.server_close)
        self._stack.callback(thread.join)
        self._stack.callback(server.shutdown)
        self._stack.callback(self.stopping.set)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()
        if self._problems:
            raise ExceptionGroup("the registry itself failed", self._problems)  # type: ignore[type-var]

    @property
    def host(self) -> str:
        """Address and port, as in the name of an image."""
        address = f"[{self._address}]" if ":" in self._address else self._address
        return f"{address}:{self.port}"

    @property
    def url(self) -> str:
        """Scheme, address and port."""
        return f"{'https' if self._tls else 'http'}://{self.host}"

    @property
    def name(self) -> str:
        """Name of the image with tag 1."""
        return f"{self.host}/x:1"

    def add_blob(self, data: bytes, media_type: str) -> dict[str, Any]:
        """Keep content, and return its descriptor."""
        self.blobs[digest_of(data)] = data
        return {"mediaType": media_type, "digest": digest_of(data), "size": len(data)}

    def add_image(
        self,
        layers: Sequence[bytes],
        *names: str,
        compress: bool = False,
        config: Mapping[str, object] | None = None,
        architecture: str = "amd64",
    ) -> dict[str, Any]:
        """Keep an image of uncompressed archives under these tags, and return its manifest."""
        document = {
            "os": "linux",
            "architecture": architecture,
            "config": dict(config or {}),
            "rootfs": {"type": "layers", "diff_ids": [digest_of(layer) for layer in layers]},
        }
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": self.add_blob(json.dumps(document).encode(), CONFIG),
            "layers": [
                self.add_blob(gzip.compress(layer, 1, mtime=0), f"{LAYER}+gzip")
                if compress
                else self.add_blob(layer, LAYER)
                for layer in layers
            ],
        }
        self.add_manifest(manifest, MANIFEST, *names)
        return manifest

    def add_manifest(self, document: object, media_type: str, *names: str) -> dict[str, Any]:
        """Keep a document, or bytes, under its digest and these tags; return its descriptor."""
        raw = document if isinstance(document, bytes) else json.dumps(document).encode()
        for name in (digest_of(raw), *names):
            self.manifests[name] = (media_type, raw)
        return {"mediaType": media_type, "digest": digest_of(raw), "size": len(raw)}

    def fault(self, pattern: str, make: Fault, *, times: float = float("inf")) -> None:
        """Let `make` change what is answered to requests whose ``METHOD path`` has `pattern` in it.

        The rule that was set first counts, as long as it has times left.
        """
        with self._lock:
            self._rules.append(_Rule(re.compile(pattern), make, times))

    def instead(self, pattern: str, reply: Reply, *, times: float = float("inf")) -> None:
        """Answer such requests with `reply`, and do nothing of what they ask for."""
        with self._lock:
            self._rules.append(_Rule(re.compile(pattern), lambda _, __: reply, times, is_instead=True))

    def heal(self) -> None:
        """Forget all faults."""
        with self._lock:
            self._rules.clear()

    def asked(self, pattern: str) -> list[Seen]:
        """Return the requests whose ``METHOD path`` has `pattern` in it."""
        with self._lock:
            return [each for each in self.seen if re.search(pattern, f"{each.method} {each.path}")]

    def answer(self, request: Seen) -> Reply:
        """Return what is answered to a request, faults included."""
        with self._lock:
            self.seen.append(request)
            target = f"{request.method} {request.path}"
            rule = next((each for each in self._rules if each.left > 0 and each.pattern.search(target)), None)
            reply = Reply() if rule is not None and rule.is_instead else self._honest(request)
            if rule is None:
                return reply
            rule.left -= 1
            return rule.fault(request, reply)

    def note(self, problem: BaseException) -> None:
        """Remember that something went wrong here that no test asked for."""
        if not isinstance(problem, (OSError, ssl.SSLError)):
            self._problems.append(problem)

    def _honest(self, request: Seen) -> Reply:
        path, _, query = request.path.partition("?")
        parameters = dict(urllib.parse.parse_qsl(query))
        if path == "/token":
            return self._issue()
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        if self.tokens is not None and token not in self.tokens:
            challenge = f'Bearer realm="{self.url}/token",service="test",scope="repository:x:pull"'
            return refusal(401, "UNAUTHORIZED", www_authenticate=challenge)
        return Reply() if path == "/v2/" else self._in_repository(request, path, parameters)

    def _in_repository(self, request: Seen, path: str, parameters: Mapping[str, str]) -> Reply:
        found = re.fullmatch(r"/v2/x/(manifests|blobs|blobs/uploads|tags)/([^/]*)", path)
        if found is None:
            return refusal(404, "NAME_UNKNOWN", "repository name not known")
        kind, name = found.groups()
        if kind == "manifests":
            return self._manifest(request, name)
        if kind == "blobs/uploads":
            return self._upload(request, name, parameters)
        if kind == "blobs":
            return self._blob(request, name)
        tags = [tag for tag in self.manifests if ":" not in tag]
        return Reply(body=json.dumps({"name": "x", "tags": tags}).encode(), headers={"Content-Type": _JSON})

    def _issue(self) -> Reply:
        self.issued += 1
        token = f"token-{self.issued}"
        if self.tokens is not None:
            self.tokens.add(token)
        return Reply(body=json.dumps({"token": token}).encode(), headers={"Content-Type": _JSON})

    def _manifest(self, request: Seen, name: str) -> Reply:
        if request.method == "PUT":
            self.add_manifest(request.body, request.headers.get("content-type", ""), name)
            digest = digest_of(request.body)
            return Reply(status=201, headers={"Docker-Content-Digest": digest, "Location": f"/v2/x/{digest}"})
        if name not in self.manifests:
            return refusal(404, "MANIFEST_UNKNOWN", "manifest unknown")
        kind, raw = self.manifests[name]
        return Reply(body=raw, headers={"Content-Type": kind, "Docker-Content-Digest": digest_of(raw)})

    def _blob(self, request: Seen, digest: str) -> Reply:
        if digest not in self.blobs:
            return refusal(404, "BLOB_UNKNOWN", "blob unknown to registry")
        data = self.blobs[digest]
        plain = {"Content-Type": "application/octet-stream", "Docker-Content-Digest": digest}
        asked = re.fullmatch(r"bytes=(\d+)-", request.headers.get("range", ""))
        if asked is None:
            return Reply(body=data, headers=plain)
        start = int(asked[1])
        if start >= len(data):
            return refusal(416, content_range=f"bytes */{len(data)}")
        place = f"bytes {start}-{len(data) - 1}/{len(data)}"
        return Reply(status=206, body=data[start:], headers={**plain, "Content-Range": place})

    def _upload(self, request: Seen, session: str, parameters: Mapping[str, str]) -> Reply:
        if request.method == "POST":
            session = str(len(self._uploads) + 1)
            self._uploads[session] = b""
            return Reply(status=202, headers={"Location": f"/v2/x/blobs/uploads/{session}"})
        if session not in self._uploads:
            return refusal(404, "BLOB_UPLOAD_UNKNOWN", "upload unknown")
        self._uploads[session] += request.body
        data = self._uploads[session]
        if request.method == "PUT":
            if digest_of(data) != parameters.get("digest"):
                return refusal(400, "DIGEST_INVALID", "provided digest did not match uploaded content")
            self.blobs[digest_of(data)] = data
            return Reply(status=201, headers={"Docker-Content-Digest": digest_of(data)})
        status = 204 if request.method == "GET" else 202
        place = f"/v2/x/blobs/uploads/{session}"
        return Reply(status=status, headers={"Location": place, "Range": f"0-{max(0, len(data) - 1)}"})


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = False

    def __init__(
        self, registry: FaultRegistry, address: str, tls: ssl.SSLContext | None, protocol: str
    ) -> None:
        self.registry = registry
        self.address_family = socket.AF_INET6 if ":" in address else socket.AF_INET
        handler = type("Handler", (_Handler,), {"registry": registry, "protocol_version": protocol})
        super().__init__((address, 0), handler)
        if tls is not None:
            self.socket = tls.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)

    def handle_error(self, request: object, client_address: object) -> None:
        """Remember what went wrong."""
        del request, client_address
        import sys  # noqa: PLC0415 - only on failure

        problem = sys.exception() if hasattr(sys, "exception") else sys.exc_info()[1]
        if problem is not None:
            self.registry.note(problem)


class _Handler(http.server.BaseHTTPRequestHandler):
    registry: FaultRegistry
    timeout = _PATIENCE_S

    def answer(self) -> None:
        """Answer one request."""
        length = int(self.headers.get("Content-Length") or 0)
        headers = {name.lower(): value for name, value in self.headers.items()}
        path = self.path
        if "://" in path:  # as proxies are asked
            path = "/" + path.split("/", 3)[3]
        self._send(self.registry.answer(Seen(self.command, path, headers, self.rfile.read(length))))

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = answer  # noqa: N815 - the base's names

    def _send(self, reply: Reply) -> None:
        if reply.raw is not None:
            self._write(reply.raw, reply.drip_s)
            self.close_connection = True
            return
        body = b"" if self.command == "HEAD" else reply.body[: reply.cut]
        headers = dict(reply.headers)
        if reply.framing == "chunked":
            headers["Transfer-Encoding"] = "chunked"
            pieces = [body[start : start + 1000] for start in range(0, len(body), 1000)]
            body = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces)
            body += b"" if reply.cut is not None else b"0\r\n\r\n"
        elif reply.framing == "length":
            headers.setdefault("Content-Length", str(len(reply.body)))
        if reply.framing == "close" or reply.cut is not None:
            self.close_connection = True
        lines = [
            f"{self.protocol_version} {reply.status} x",
            *(f"{name}: {headers[name]}" for name in headers),
        ]
        head = "".join(f"{line}\r\n" for line in [*lines, ""]).encode("latin-1")
        self._write(head + body, reply.drip_s)

    def _write(self, data: bytes, drip_s: float) -> None:
        if not drip_s:
            self.wfile.write(data)
            return
        for byte in data:
            self.wfile.write(bytes([byte]))
            if self.registry.stopping.wait(drip_s):
                return

    def log_message(self, *_: object) -> None:
        """Say nothing."""
