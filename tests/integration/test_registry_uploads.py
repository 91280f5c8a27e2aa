"""Pushing to registries that lose, refuse, misplace or misunderstand what they are sent."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import attrs
import pytest
from support.archives import archive, file
from support.fault_registry import FaultRegistry, Reply, Seen, digest_of, refusal
from support.faulty_pull import hasty

import containerlib as cl

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from support.fault_registry import Fault

    from containerlib import Engine, Image

pytestmark = [pytest.mark.root]

LAYER_BYTES = archive(file(b"etc/motd", b"hello" * 40_000))
BEGIN = "POST /v2/x/blobs/uploads/"
SEND = "PUT /v2/x/blobs/uploads/"
NAME = "PUT /v2/x/manifests/2"


@pytest.fixture
def registry() -> Iterator[FaultRegistry]:
    """Return an empty registry."""
    with FaultRegistry() as running:
        yield running


@pytest.fixture
def image(engine: Engine, registry: FaultRegistry) -> Image:
    """Return an image of one layer, which the registry has forgotten."""
    registry.add_image([LAYER_BYTES], "1")
    made = hasty(engine).images.pull(registry.name)
    registry.blobs.clear()
    registry.manifests.clear()
    registry.seen.clear()
    return made


def is_whole(registry: FaultRegistry, image: Image) -> bool:
    """Say whether the registry has all of the image under the tag that it was pushed to."""
    _, raw = registry.manifests.get("2", ("", b"{}"))
    manifest = json.loads(raw)
    blobs = [manifest["config"], *manifest["layers"]] if manifest else []
    return digest_of(raw) == image.digest and all(blob["digest"] in registry.blobs for blob in blobs)


def push(registry: FaultRegistry, image: Image) -> None:
    """Push, and find all of it there."""
    assert image.push(f"{registry.host}/x:2").digest == image.digest
    assert is_whole(registry, image)


def refused(registry: FaultRegistry, image: Image, kind: type[Exception], match: str) -> None:
    """Push and expect this error, no tag there, the store as it was, and a push that works afterwards."""
    before = visible_of(image)
    with pytest.raises(kind, match=match) as caught:
        image.push(f"{registry.host}/x:2")
    assert type(caught.value) is kind
    assert not is_whole(registry, image)
    assert visible_of(image) == before
    registry.heal()
    push(registry, image)


def visible_of(image: Image) -> tuple[set[str], set[str]]:
    """Return what the store of the image shows."""
    stores = image._session.stores
    return set(stores.references.list()), {str(blob.digest) for blob in stores.content.list()}


def located(place: Callable[[FaultRegistry, str], str], registry: FaultRegistry) -> Fault:
    """Return a fault that says in another way where an upload has to go."""
    return lambda _, reply: reply.having(location=place(registry, reply.headers["Location"]))


PLACES: dict[str, Callable[[FaultRegistry, str], str]] = {
    "path": lambda _, place: place,
    "address": lambda registry, place: f"{registry.url}{place}",
    "without scheme": lambda registry, place: f"//{registry.host}{place}",
    "with a query": lambda _, place: f"{place}?_state=a%2Bb&x",
    "address with a query": lambda registry, place: f"{registry.url}{place}?_state=abc==",
}


@pytest.mark.parametrize("kind", PLACES)
def test_place_of_an_upload(registry: FaultRegistry, image: Image, kind: str) -> None:
    """Where an upload goes may be said in every way that an address can be written, and is kept as it is."""
    registry.fault(BEGIN, located(PLACES[kind], registry))
    push(registry, image)
    for sent in registry.asked(SEND):
        assert "digest=sha256" in sent.path
        assert ("_state" in sent.path) == ("query" in kind)


@pytest.mark.parametrize("place", ["", "file:///etc/passwd", "a b", "http://[x/"])
def test_place_that_is_none(registry: FaultRegistry, image: Image, place: str) -> None:
    """A registry that does not say where an upload has to go is an error."""
    registry.fault(BEGIN, lambda _, reply: reply.having(location=place))
    refused(registry, image, cl.RegistryError, "where to|not followed")


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("step", [BEGIN, SEND, NAME])
def test_asked_to_wait(registry: FaultRegistry, image: Image, step: str, status: int) -> None:
    """A registry that asks to wait, at whatever step, gets it again; the body is sent from its beginning."""
    registry.instead(step, refusal(status, retry_after="0"), times=2)
    push(registry, image)


@pytest.mark.parametrize("step", [BEGIN, SEND, NAME])
def test_too_many_requests(registry: FaultRegistry, image: Image, step: str) -> None:
    """A registry that asks to wait for longer than anybody does is given up, and the error says how long."""
    registry.instead(step, refusal(429, retry_after="7200"))
    refused(registry, image, cl.RateLimited, "it asks to wait 7200 s")


@pytest.mark.parametrize("step", [SEND, NAME])
def test_answer_that_is_lost(registry: FaultRegistry, image: Image, step: str) -> None:
    """When the connection ends after all was taken but before the answer, the push succeeds if it was."""
    registry.fault(step, lambda _, __: Reply(raw=b""), times=1)
    push(registry, image)
    assert len(registry.asked(NAME)) == (2 if step == NAME else 1)


def test_upload_that_is_lost(registry: FaultRegistry, image: Image) -> None:
    """A registry that has forgotten the upload in the middle gets it again."""
    registry.instead(SEND, refusal(404, "BLOB_UPLOAD_UNKNOWN"), times=1)
    push(registry, image)


@pytest.mark.parametrize(
    ("reply", "kind", "match"),
    [
        (refusal(400, "DIGEST_INVALID", "other bytes"), cl.RegistryError, "400: other bytes"),
        (refusal(401), cl.AuthenticationFailed, "log in"),
        (refusal(403, "DENIED", "read only"), cl.AuthenticationFailed, "read only.*log in"),
        (refusal(405), cl.RegistryError, "405"),
        (refusal(500), cl.RegistryUnavailable, "500.*try again later"),
        (refusal(507, "FULL", "no space left"), cl.RegistryUnavailable, "no space left"),
        (Reply(status=418), cl.RegistryError, "answered 418"),
    ],
)
@pytest.mark.parametrize("step", [BEGIN, SEND, NAME])
def test_refusals(
    registry: FaultRegistry, image: Image, step: str, reply: Reply, kind: type[Exception], match: str
) -> None:
    """Each refusal has its own error at each step; nothing has a name there, and a later push works."""
    registry.instead(step, reply)
    refused(registry, image, kind, match)


def test_manifest_that_was_misunderstood(registry: FaultRegistry, image: Image) -> None:
    """A registry that calls the manifest by another digest has taken something else for it."""

    def lie(_request: Seen, reply: Reply) -> Reply:
        registry.manifests.clear()
        return reply.having(docker_content_digest=digest_of(b"other"))

    registry.fault(NAME, lie)
    refused(registry, image, cl.DigestMismatch, "manifest '2'")


def test_blob_of_another_size_is_no_blob(registry: FaultRegistry, image: Image) -> None:
    """What the registry has under the digest but with another length is uploaded again."""
    for digest in (str(layer.digest) for layer in image.layers):
        registry.blobs[digest] = b"short"
    push(registry, image)
    assert registry.blobs[str(image.layers[0].digest)] == LAYER_BYTES


def test_answer_before_the_end(registry: FaultRegistry, image: Image) -> None:
    """A registry that does not take a blob of that size, in one piece or in many, says so."""
    registry.instead(SEND, attrs.evolve(refusal(413, "SIZE_INVALID", "too large"), cut=1 << 20))
    refused(registry, image, cl.RegistryError, "413|too large")
