"""Answers of nonsense, thousands of them: each is an error of ours, or harmless."""

from __future__ import annotations

import contextlib
import io
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from support.fault_registry import FaultRegistry, Reply

from containerlib.errors import ContainerlibError, InvalidDigest
from containerlib.oci.descriptor import Descriptor
from containerlib.oci.digest import Digest
from containerlib.registry.client import Registries, RepositoryClient
from containerlib.registry.credentials import Credentials
from containerlib.registry.pace import Pace
from containerlib.registry.source import Source
from containerlib.registry.transport import TransportSettings
from containerlib.registry.upload import put_blob, put_manifest

if TYPE_CHECKING:
    from collections.abc import Iterator

DATA = b"x" * 5000
BLOB = Descriptor.of(DATA, "application/octet-stream")
HASTY = TransportSettings(
    connect_timeout_s=5.0,
    stall_timeout_s=0.5,
    pace=Pace(bytes_per_s=1 << 20, window_s=0.5),
    attempts=2,
    first_wait_s=0.0,
    max_wait_s=0.0,
)

HEADERS = (
    *("Content-Type", "Content-Length", "Content-Range", "Content-Encoding", "Docker-Content-Digest"),
    *("Location", "WWW-Authenticate", "Retry-After", "Transfer-Encoding", "Link", "Range", "Connection"),
)
TEXTS = (
    *("0", "-1", "1", "5000", "99999999999999999999", "bytes 0-4/5", "bytes 10-1/2", "chunked", "gzip"),
    *("http://[", "http://h:99999999/", "file:///x", "//", "/v2/x/blobs/y", "sha256:", "\xe9", ""),
    *('Bearer realm="', 'Basic realm="x"', 'Bearer realm="http://[x",scope="', "<http://[>; rel=next"),
    "application/vnd.oci.image.manifest.v1+json",
)
STATUSES = (200, 201, 202, 204, 206, 301, 302, 307, 401, 403, 404, 405, 416, 429, 500, 503)
VALUES = st.one_of(
    st.sampled_from(TEXTS), st.text(st.characters(min_codepoint=32, max_codepoint=255), max_size=40)
)
ANSWERS = st.one_of(
    st.builds(
        Reply,
        status=st.sampled_from(STATUSES),
        headers=st.dictionaries(st.sampled_from(HEADERS), VALUES, max_size=4),
        body=st.binary(max_size=200),
        cut=st.just(1 << 20),
    ),
    st.builds(Reply, raw=st.binary(max_size=300)),
    st.builds(Reply, raw=st.binary(max_size=300).map(lambda data: b"HTTP/1.1 200 OK\r\n" + data)),
)


class Sink:
    """Takes at most as much as was promised."""

    def __init__(self) -> None:
        self.size = 0

    def write(self, data: bytes, /) -> int:
        """Count."""
        self.size += len(data)
        if self.size > BLOB.size:
            raise ContainerlibError("too much")
        return len(data)


@pytest.fixture(scope="module")
def registry() -> Iterator[FaultRegistry]:
    """Return a registry."""
    with FaultRegistry() as running:
        yield running


@pytest.fixture(scope="module")
def repository(registry: FaultRegistry) -> Iterator[RepositoryClient]:
    """Return a repository of it."""
    registries = Registries(Credentials({}, "/nonexistent"), HASTY)
    yield registries.repository(Source(registry.host, "x", scheme="http"), "pull,push")
    registries.close()


@given(
    answers=st.lists(ANSWERS, min_size=1, max_size=4),
    verb=st.sampled_from(["manifest", "head", "blob", "tags"]),
)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example(answers=[Reply(status=401, headers={"WWW-Authenticate": 'Bearer realm="http://[x"'})], verb="blob")
@example(answers=[Reply(status=206, headers={"Content-Range": "bytes 0-4999/5000"}, body=DATA)], verb="blob")
def test_nonsense_is_a_typed_error(
    registry: FaultRegistry, repository: RepositoryClient, answers: list[Reply], verb: str
) -> None:
    """Whatever a registry answers, what comes out is an error of ours, or what was asked for."""
    registry.heal()
    for answer in answers:
        registry.instead("", answer, times=1)
    registry.instead("", answers[-1])
    ask(repository, verb)


@pytest.mark.parametrize("header", HEADERS)
def test_every_header_with_every_status(
    registry: FaultRegistry, repository: RepositoryClient, header: str
) -> None:
    """No header has a value that is too much for a kind of answer in which it means something."""
    for text in TEXTS:
        for status in (200, 202, 206, 302, 401, 503):
            registry.heal()
            registry.instead("", Reply(status=status, headers={header: text}, body=b"{}", cut=9), times=2)
            registry.instead("", Reply(status=404))
            ask(repository, "blob")
            if status == 202:
                put(repository)


def ask(repository: RepositoryClient, verb: str) -> None:
    """Ask for something, and bear every error of ours."""
    with contextlib.suppress(ContainerlibError):
        if verb == "manifest":
            repository.fetch_manifest("1")
        elif verb == "head":
            repository.describe_manifest("1")
        elif verb == "blob":
            repository.download(BLOB, Sink())
        else:
            repository.request("GET", "tags/list", "tags").close()


def put(repository: RepositoryClient) -> None:
    """Upload something, and bear every error of ours."""
    with contextlib.suppress(ContainerlibError):
        put_blob(repository, BLOB, lambda: contextlib.nullcontext(io.BytesIO(DATA)))
    with contextlib.suppress(ContainerlibError):
        put_manifest(repository, b"{}", "application/vnd.oci.image.manifest.v1+json", "1")


@given(answers=st.lists(ANSWERS, min_size=1, max_size=4))
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_nonsense_about_an_upload_is_a_typed_error(
    registry: FaultRegistry, repository: RepositoryClient, answers: list[Reply]
) -> None:
    """The same holds for what is answered to an upload."""
    registry.heal()
    for answer in answers:
        registry.instead("", answer, times=1)
    registry.instead("", answers[-1])
    put(repository)


@given(st.one_of(st.text(max_size=100), st.from_regex(r"sha(256|512):[0-9a-fA-F./]{0,140}", fullmatch=True)))
def test_digest_is_one_or_refused(text: str) -> None:
    """A text becomes a digest only if it is exactly the pattern, so nothing of it can lead anywhere."""
    try:
        digest = Digest(text)
    except InvalidDigest:
        return
    assert digest == text
    assert set(digest.hex) <= set("0123456789abcdef")
    assert len(digest.hex) == {"sha256": 64, "sha512": 128}[digest.algorithm]
