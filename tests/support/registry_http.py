"""A registry's client that does as it is told, right or wrong: for tests of our own registry."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import attrs
from support.oci_layout import CONFIG, INDEX, LAYER, MANIFEST

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterable, Iterator, Mapping

__all__ = [
    "EMPTY",
    "RawRegistry",
    "Reply",
    "artifact",
    "descriptor",
    "digest_of",
    "image",
    "index",
    "serve_command",
    "until",
]

_PATIENCE_S = 30.0
EMPTY = b"{}"


def digest_of(data: bytes, algorithm: str = "sha256") -> str:
    """Return the digest of some bytes, without the code that is tested."""
    return f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}"


def until(condition: Callable[[], bool], what: str) -> None:
    """Wait for something that happens elsewhere."""
    deadline = time.monotonic() + _PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.005)


@attrs.frozen
class Reply:
    """One answer; header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body as a document."""
        return json.loads(self.body)

    @property
    def codes(self) -> list[str]:
        """Codes of an error document."""
        assert self.headers["content-type"] == "application/json"
        return [error["code"] for error in self.json["errors"]]


class RawRegistry:
    """Requests to one registry, each by a connection of its own."""

    def __init__(self, host: str, port: int, context: ssl.SSLContext | None = None) -> None:
        self.host, self.port = host, port
        self._context = context
        self.headers: dict[str, str] = {}

    def connect(self) -> http.client.HTTPConnection:
        """Return a new connection."""
        if self._context is not None:
            return http.client.HTTPSConnection(
                self.host, self.port, timeout=_PATIENCE_S, context=self._context
            )
        return http.client.HTTPConnection(self.host, self.port, timeout=_PATIENCE_S)

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | Iterable[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        """Make a request. An iterable is sent in chunks, bytes with their length."""
        connection = self.connect()
        try:
            connection.request(method, path, body=body, headers={**self.headers, **(headers or {})})
            answer = connection.getresponse()
            return Reply(
                answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
            )
        finally:
            connection.close()

    def push_blob(self, repository: str, data: bytes, algorithm: str = "sha256") -> str:
        """Upload a blob in one request, and return its digest."""
        digest = digest_of(data, algorithm)
        reply = self.ask("POST", f"/v2/{repository}/blobs/uploads/?digest={digest}", data)
        assert reply.status == 201, reply
        return digest

    def push_manifest(self, repository: str, document: Mapping[str, Any], name: str | None = None) -> str:
        """Upload a manifest under a tag or its digest, and return its digest."""
        raw = json.dumps(document).encode()
        digest = digest_of(raw)
        headers = {"Content-Type": document["mediaType"]}
        reply = self.ask("PUT", f"/v2/{repository}/manifests/{name or digest}", raw, headers)
        assert reply.status == 201, reply
        return digest

    def push_image(self, repository: str, name: str | None = None, *, layer: bytes = b"layer") -> str:
        """Upload an image that cannot be unpacked, and return its digest."""
        document = artifact(layer)
        self.push_blob(repository, EMPTY)
        self.push_blob(repository, layer)
        return self.push_manifest(repository, document, name)


@contextlib.contextmanager
def serve_command(*options: str) -> Iterator[tuple[subprocess.Popen[str], RawRegistry]]:
    """Run ``containerlib registry serve``, and give its process and a client."""
    process = subprocess.Popen(
        [sys.executable, "-m", "containerlib", "registry", "serve", "--port=0", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        assert url.startswith("http://127.0.0.1:"), process.communicate()[1]
        yield process, RawRegistry("127.0.0.1", int(url.rpartition(":")[2]))
    finally:
        process.kill()
        process.communicate()


def descriptor(data: bytes, kind: str, algorithm: str = "sha256") -> dict[str, Any]:
    """Return the descriptor of some bytes."""
    return {"mediaType": kind, "digest": digest_of(data, algorithm), "size": len(data)}


def artifact(*layers: bytes, **more: Any) -> dict[str, Any]:
    """Return the manifest of something that is no container image."""
    return {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": descriptor(EMPTY, "application/vnd.oci.empty.v1+json"),
        "layers": [descriptor(layer, "text/plain") for layer in layers],
        **more,
    }


def image(config: bytes, *layers: bytes, **more: Any) -> dict[str, Any]:
    """Return the manifest of an image with uncompressed layers."""
    return {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": descriptor(config, CONFIG),
        "layers": [descriptor(layer, LAYER) for layer in layers],
        **more,
    }


def index(*manifests: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    """Return an index of manifests that are documents."""
    entries = [descriptor(json.dumps(each).encode(), each["mediaType"]) for each in manifests]
    return {"schemaVersion": 2, "mediaType": INDEX, "manifests": entries, **more}
