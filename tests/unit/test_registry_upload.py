"""Uploads: in one piece, in chunks, taken from another repository, and after every kind of break."""

from __future__ import annotations

import io
import itertools
import json
from typing import TYPE_CHECKING

import pytest
from support.small_registry import Reply, Request, SmallRegistry, serve
from support.token_service import TokenService, guard, token_service

from containerlib.errors import RegistryError, RegistryUnavailable
from containerlib.oci.descriptor import Descriptor
from containerlib.registry import chunks
from containerlib.registry.client import Registries, RepositoryClient
from containerlib.registry.credentials import Credentials
from containerlib.registry.source import Source
from containerlib.registry.upload import has_blob, put_blob

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

DATA = bytes(range(256)) * 4000
BLOB = Descriptor.of(DATA, "application/octet-stream")


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make four chunks of the content."""
    monkeypatch.setattr(chunks, "_CHUNK_BYTES", 300_000)


@pytest.fixture
def small() -> Iterator[SmallRegistry]:
    """Return a registry that lets everybody in."""
    with serve() as running:
        yield running


@pytest.fixture
def repository(small: SmallRegistry) -> Iterator[RepositoryClient]:
    """Return a repository of it, to push to."""
    registries = Registries(Credentials({}, "/nonexistent"))
    yield registries.repository(Source(small.host, "x", scheme="http"), "pull,push")
    registries.close()


def put(repository: RepositoryClient, *mount_from: str, data: bytes = DATA) -> bool:
    """Upload the content."""
    descriptor = Descriptor.of(data, "application/octet-stream")
    return put_blob(repository, descriptor, lambda: io.BytesIO(data), mount_from)


def first(
    count: int, pattern: str, reply: Callable[[Request], Reply | None]
) -> Callable[[Request], Reply | None]:
    """Return what answers the first requests of a kind."""
    left = iter(range(count))
    return lambda request: (
        reply(request) if request.target.startswith(pattern) and next(left, None) is not None else None
    )


def test_blob_is_sent_in_one_piece(small: SmallRegistry, repository: RepositoryClient) -> None:
    """Without a reason for anything else, an upload is two requests; an empty blob is one as well."""
    assert put(repository)
    assert small.blobs["x", BLOB.digest] == DATA
    assert [request.method for request in small.requests] == ["POST", "PUT"]
    assert has_blob(repository, BLOB)
    assert put(repository, data=b"")


def test_registry_that_wants_chunks_gets_them(small: SmallRegistry, repository: RepositoryClient) -> None:
    """Chunks are as long as the registry asks for, in order, with their ranges."""
    small.upload_headers["OCI-Chunk-Min-Length"] = "400000"
    put(repository)
    assert small.blobs["x", BLOB.digest] == DATA
    ranges = [request.headers["content-range"] for request in small.requests if request.method == "PATCH"]
    assert ranges == ["0-399999", "400000-799999", "800000-1023999"]


@pytest.mark.parametrize("status", [404, 413, 416])
def test_refused_piece_is_sent_in_chunks(
    small: SmallRegistry, repository: RepositoryClient, status: int
) -> None:
    """A registry, or a proxy before it, that does not take the piece gets chunks."""
    small.intercept = first(1, "PUT /v2/x/blobs/uploads", lambda _request: Reply(status))
    put(repository)
    assert small.blobs["x", BLOB.digest] == DATA
    assert len(small.targets("PATCH")) == 4


def test_chunks_shrink_until_they_fit(small: SmallRegistry, repository: RepositoryClient) -> None:
    """Where a proxy limits the length of a body, chunks get shorter until they pass, and stay so."""
    small.most_bytes = 100_000
    put(repository)
    assert small.blobs["x", BLOB.digest] == DATA
    small.most_bytes = 1000
    with pytest.raises(RegistryError, match="413"):
        put(repository, data=DATA[1:])


def test_upload_goes_on_after_a_break(small: SmallRegistry, repository: RepositoryClient) -> None:
    """After a connection broke the registry is asked how far the upload is, and the rest is sent."""
    small.upload_headers["OCI-Chunk-Min-Length"] = "1"

    def half(request: Request) -> Reply:
        upload = small.uploads[request.path.rpartition("/")[2]]
        upload += request.body[:100_000]
        return Reply(body=None)

    small.intercept = first(2, "PATCH", half)
    put(repository)
    assert small.blobs["x", BLOB.digest] == DATA
    ranges = [request.headers["content-range"] for request in small.requests if request.method == "PATCH"]
    assert ranges[:3] == ["0-299999", "100000-399999", "200000-499999"]
    assert len(small.targets("GET /v2/x/blobs/uploads")) == 2


def test_upload_that_never_advances_is_given_up(small: SmallRegistry, repository: RepositoryClient) -> None:
    """A connection that breaks each time before anything came is not tried for ever."""
    small.upload_headers["OCI-Chunk-Min-Length"] = "1"
    small.intercept = first(1000, "PATCH", lambda _request: Reply(body=None))
    with pytest.raises(RegistryUnavailable, match="broke"):
        put(repository)
    assert len(small.targets("PATCH")) < 20


def test_registry_that_takes_nothing_is_given_up(small: SmallRegistry, repository: RepositoryClient) -> None:
    """A registry that says thank you and keeps nothing is an error, not a loop."""
    small.upload_headers["OCI-Chunk-Min-Length"] = "1"
    small.intercept = first(1000, "PATCH", lambda _request: Reply(202, {"Range": "0-0"}))
    with pytest.raises(RegistryError, match="takes no more than 0 bytes"):
        put(repository)


def test_registry_that_goes_back_and_forth_is_given_up(
    small: SmallRegistry, repository: RepositoryClient
) -> None:
    """What was there already and is there again is no progress."""
    small.upload_headers["OCI-Chunk-Min-Length"] = "1"
    ends = itertools.cycle((299_999, 0))
    small.intercept = first(1000, "PATCH", lambda _request: Reply(202, {"Range": f"0-{next(ends)}"}))
    with pytest.raises(RegistryError, match="takes no more than 300000 bytes"):
        put(repository)


def test_registry_that_has_too_much_is_an_error(small: SmallRegistry, repository: RepositoryClient) -> None:
    """A registry that claims more than there is is not believed."""
    small.upload_headers["OCI-Chunk-Min-Length"] = "1"
    small.intercept = first(1, "PATCH", lambda _request: Reply(202, {"Range": f"0-{len(DATA)}"}))
    with pytest.raises(RegistryError, match="of 1024000 bytes"):
        put(repository)


def test_wrong_range_is_corrected(small: SmallRegistry, repository: RepositoryClient) -> None:
    """A registry that expects another range is asked which."""
    small.upload_headers["OCI-Chunk-Min-Length"] = "1"
    small.intercept = first(1, "PATCH", lambda _request: Reply(416))
    put(repository)
    assert small.blobs["x", BLOB.digest] == DATA


def test_lost_upload_is_begun_anew(small: SmallRegistry, repository: RepositoryClient) -> None:
    """A registry that has forgotten the upload gets the blob again; one that forgets all is an error."""
    small.upload_headers["OCI-Chunk-Min-Length"] = "1"
    small.intercept = first(1, "PATCH", lambda _request: Reply(404))
    put(repository)
    assert small.blobs["x", BLOB.digest] == DATA
    assert len(small.targets("POST")) == 2
    small.intercept = first(1000, "PATCH", lambda _request: Reply(404))
    with pytest.raises(RegistryError, match="404"):
        put(repository, data=DATA[1:])


def test_answer_that_is_lost_after_all_came_is_no_failure(
    small: SmallRegistry, repository: RepositoryClient
) -> None:
    """When the connection breaks after the last byte, the blob is found to be there."""

    def keep(request: Request) -> Reply:
        small.blobs["x", request.query["digest"]] = request.body or DATA
        return Reply(body=None)

    small.intercept = first(1, "PUT", keep)
    put(repository)
    assert len(small.targets("PUT")) == 1
    small.upload_headers["OCI-Chunk-Min-Length"] = "1"
    small.blobs.clear()
    small.intercept = first(1, "PUT", keep)
    put(repository)
    assert len(small.targets("POST")) == 2


def test_wrong_digest_is_not_tried_again(small: SmallRegistry, repository: RepositoryClient) -> None:
    """A registry that says the content is wrong is right."""
    with pytest.raises(RegistryError, match="DIGEST_INVALID"):
        put_blob(repository, BLOB, lambda: io.BytesIO(DATA[::-1]))
    assert len(small.targets("PUT")) == 1


@pytest.mark.parametrize("place", ["", "ftp://x/", "javascript:x", "/a b", "/a\x7f"])
def test_place_of_an_upload_must_be_one(
    small: SmallRegistry, repository: RepositoryClient, place: str
) -> None:
    """A registry that does not say where to is an error that quotes it."""
    small.intercept = first(1, "POST", lambda _request: Reply(202, {"Location": place}))
    with pytest.raises(RegistryError, match="where to"):
        put(repository)


def test_blob_is_taken_from_another_repository(small: SmallRegistry, repository: RepositoryClient) -> None:
    """What another repository has is not sent; what it turns out not to have is."""
    small.blobs["other", BLOB.digest] = DATA
    assert not put(repository, "x", "none", "other")
    assert small.blobs["x", BLOB.digest] == DATA
    assert "PUT" not in {request.method for request in small.requests}
    small.blobs.clear()
    before = len(small.requests)
    assert put(repository, "other")
    assert small.blobs["x", BLOB.digest] == DATA
    # The upload that the registry has begun instead is the one that is used.
    assert [request.method for request in small.requests[before:]] == ["POST", "PUT"]


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 500])
def test_refused_mount_is_no_failure(small: SmallRegistry, repository: RepositoryClient, status: int) -> None:
    """Whatever a registry answers to a mount, the blob is uploaded."""
    small.intercept = lambda request: Reply(status) if "mount" in request.query else None
    assert put(repository, "other")
    assert small.blobs["x", BLOB.digest] == DATA


def test_mount_asks_for_both_scopes(small: SmallRegistry) -> None:
    """The token for a mount is for both repositories, and a service that refuses one does no harm."""
    with token_service(TokenService(users={"ann": "secret"})) as service:
        guard(small, service)
        auth = {"auths": {small.host: {"username": "ann", "password": "secret"}}}
        credentials = Credentials({"DOCKER_AUTH_CONFIG": json.dumps(auth)}, "/nonexistent")
        registries = Registries(credentials)
        repository = registries.repository(Source(small.host, "x", scheme="http"), "pull,push")
        small.blobs["other", BLOB.digest] = DATA
        assert not put(repository, "other")
        assert service.requests[-1].query["scope"] == "repository:x:pull,push repository:other:pull"
        service.intercept = lambda request: Reply(403) if "secret" in request.query.get("scope", "") else None
        assert put(repository, "secret", data=DATA[1:])
        registries.close()


@pytest.mark.parametrize("in_chunks", [False, True])
def test_token_that_runs_out_in_the_middle_is_renewed(small: SmallRegistry, *, in_chunks: bool) -> None:
    """An upload whose token is refused on the way asks for another one, once, and goes on."""
    with token_service() as service:
        guard(small, service)
        registries = Registries(Credentials({}, "/nonexistent"))
        repository = registries.repository(Source(small.host, "x", scheme="http"), "pull,push")
        if in_chunks:
            small.upload_headers["OCI-Chunk-Min-Length"] = "1"
        verb, moments = ("PATCH", (0, 2)) if in_chunks else ("PUT", (0,))
        count = itertools.count()

        def expire(request: Request) -> None:
            if request.method == verb and next(count) in moments:
                service.expire()

        small.intercept = expire
        put(repository)
        registries.close()
        assert small.blobs["x", BLOB.digest] == DATA
        assert len(service.requests) == (3 if in_chunks else 2)
        assert len(small.targets("POST")) == 2  # the first one was challenged
