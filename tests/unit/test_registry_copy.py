"""Copying between registries, what refers to an image, and lists in pages."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from support.small_registry import Reply, Request, SmallRegistry, digest_of, serve

import containerlib as cl
from containerlib.oci.descriptor import Descriptor
from containerlib.oci.digest import Digest
from containerlib.registry.client import Registries
from containerlib.registry.copying import _AbandonedError, _Copy
from containerlib.registry.credentials import Credentials
from containerlib.registry.referrers import referrers_tag
from containerlib.registry.source import Source

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"
LAYER_SIZE = 3_000_000


@pytest.fixture
def source() -> Iterator[SmallRegistry]:
    """Return a registry to copy from."""
    with serve() as running:
        yield running


@pytest.fixture
def target() -> Iterator[SmallRegistry]:
    """Return a registry to copy to."""
    with serve() as running:
        yield running


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> cl.Engine:
    """Return an engine; copying needs no store."""
    monkeypatch.setenv("HOME", str(tmp_path))
    return cl.Engine(tmp_path / "r", tmp_path / "n")


def pointer(kind: str, data: bytes, **more: Any) -> dict[str, Any]:
    """Return a descriptor."""
    return {"mediaType": kind, "digest": digest_of(data), "size": len(data), **more}


def add(small: SmallRegistry, tag: str, document: dict[str, Any], kind: str = MANIFEST) -> bytes:
    """Put a document into the repository ``x``."""
    raw = json.dumps({"schemaVersion": 2, "mediaType": kind, **document}).encode()
    small.manifests["x", digest_of(raw)] = small.manifests["x", tag] = (kind, raw)
    return raw


def add_image(small: SmallRegistry, tag: str, architecture: str = "amd64", **more: Any) -> bytes:
    """Put an image of one layer into the repository ``x``, and return its manifest."""
    layer = architecture.encode() * (LAYER_SIZE // len(architecture))
    rootfs = {"type": "layers", "diff_ids": [digest_of(layer)]}
    config = json.dumps({"os": "linux", "architecture": architecture, "rootfs": rootfs}).encode()
    for data in (config, layer):
        small.blobs["x", digest_of(data)] = data
    return add(small, tag, {"config": pointer(CONFIG, config), "layers": [pointer(LAYER, layer)], **more})


def add_index(small: SmallRegistry, tag: str) -> bytes:
    """Put an index of two images into the repository ``x``."""
    images = {name: add_image(small, name, name) for name in ("amd64", "arm64")}
    entries = [
        pointer(MANIFEST, raw, platform={"os": "linux", "architecture": name}) for name, raw in images.items()
    ]
    return add(small, tag, {"manifests": entries}, INDEX)


def test_whole_index_is_copied_byte_for_byte(
    engine: cl.Engine, source: SmallRegistry, target: SmallRegistry
) -> None:
    """All platforms arrive with the digest that they had, and a second copy sends nothing."""
    raw = add_index(source, "1")
    events: list[cl.TransferEvent] = []
    here = engine.registry(source.host)
    copied = here.copy("x:1", f"{target.host}/team/y:2", progress=events.append)
    assert copied.digest == digest_of(raw)
    assert target.manifests["team/y", "2"] == source.manifests["x", "1"]
    assert set(target.blobs.values()) == set(source.blobs.values())
    assert len([event for event in events if event.phase == "done"]) == 4
    before = len(target.requests)
    assert here.copy("x:1", f"{target.host}/team/y:3").digest == copied.digest
    assert not any(request.target.startswith(("POST", "PATCH")) for request in target.requests[before:])


def test_copy_of_some_platforms(engine: cl.Engine, source: SmallRegistry, target: SmallRegistry) -> None:
    """One platform is copied as its image alone, two as a new index, and an unknown one is an error."""
    raw = add_index(source, "1")
    here = engine.registry(source.host)
    one = here.copy("x:1", f"{target.host}/y:1", platforms=["linux/arm64"])
    assert one.digest == digest_of(source.manifests["x", "arm64"][1])
    assert len(target.blobs) == 2
    two = here.copy("x:1", f"{target.host}/y:2", platforms=["linux/arm64", "linux/amd64"])
    assert two.digest != digest_of(raw)
    assert engine.registry(target.host).manifest("y:2").platforms == ("linux/arm64", "linux/amd64")
    with pytest.raises(cl.PlatformNotFound, match="linux/amd64, linux/arm64"):
        here.copy("x:1", f"{target.host}/y:3", platforms=["linux/s390x"])
    assert here.copy("x:arm64", f"{target.host}/y:4", platforms=["linux/arm64"]).digest == one.digest
    with pytest.raises(cl.PlatformNotFound, match="for linux/arm64, not for linux/amd64"):
        here.copy("x:arm64", f"{target.host}/y:5", platforms=["linux/amd64"])
    for bad in ([], "linux/amd64"):
        with pytest.raises((cl.InvalidOption, cl.InvalidInputError)):
            here.copy("x:1", f"{target.host}/y:6", platforms=bad)


def test_copy_within_a_registry_sends_nothing(engine: cl.Engine, source: SmallRegistry) -> None:
    """Within one registry blobs are mounted, not sent."""
    add_image(source, "1")
    here = engine.registry(source.host)
    here.copy("x:1", "team/y:1")
    assert source.manifests["team/y", "1"] == source.manifests["x", "1"]
    assert not source.targets("GET /v2/x/blobs")
    assert not source.targets("PUT /v2/team/y/blobs")
    here.copy("x:1", f"{source.host}/x:again")
    assert source.manifests["x", "again"] == source.manifests["x", "1"]


def test_source_that_breaks_off_is_continued(
    engine: cl.Engine, source: SmallRegistry, target: SmallRegistry
) -> None:
    """A download that breaks in the middle goes on at its byte while the upload goes on."""
    add_image(source, "1")
    left = iter(range(1))

    def cut(request: Request) -> Reply | None:
        data = source.blobs.get(("x", request.path.rpartition("/")[2]), b"")
        if len(data) < LAYER_SIZE - 10 or next(left, None) is None:
            return None
        return Reply(200, {"Content-Length": str(len(data))}, data[:1_000_000])

    source.intercept = cut
    engine.registry(source.host).copy("x:1", f"{target.host}/y:1")
    assert set(target.blobs.values()) == set(source.blobs.values())
    ranges = [request.headers.get("range") for request in source.requests if "blobs" in request.path]
    assert any(asked is not None and asked.startswith("bytes=") for asked in ranges)


@pytest.mark.parametrize("lie", ["content", "short", "missing"])
def test_lying_source_is_refused(
    engine: cl.Engine, source: SmallRegistry, target: SmallRegistry, lie: str
) -> None:
    """A blob that is not what the manifest says, or not there, ends the copy before there is a name."""
    add_image(source, "1")
    for key, data in source.blobs.items():
        if len(data) > LAYER_SIZE // 2:
            source.blobs[key] = {"content": bytes(len(data)), "short": data[:100], "missing": b""}[lie]
            large = key
    if lie == "missing":
        del source.blobs[large]
    with pytest.raises((cl.RegistryError, cl.VerificationError)) as caught:
        engine.registry(source.host).copy("x:1", f"{target.host}/y:1")
    if lie == "missing":
        assert isinstance(caught.value, cl.RemoteNotFound)
    assert target.manifests == {}


def test_what_is_told_of_progress_can_end_the_copy(
    engine: cl.Engine, source: SmallRegistry, target: SmallRegistry
) -> None:
    """What the callback raises ends the copy, and comes out of it."""
    add_index(source, "1")

    class EnoughError(Exception):
        pass

    def stop(event: cl.TransferEvent) -> None:
        if event.current_bytes:
            raise EnoughError

    with pytest.raises(EnoughError):
        engine.registry(source.host).copy("x:1", f"{target.host}/y:1", progress=stop)
    assert target.manifests == {}


def test_failure_ends_what_else_is_going_on(source: SmallRegistry, target: SmallRegistry) -> None:
    """When one blob cannot be had, the others are not sent to their end first."""
    add_image(source, "1")
    name, data = max(source.blobs.items(), key=lambda item: len(item[1]))
    registries = Registries(Credentials({}, "/nonexistent"))
    places = [Source(small.host, name[0], scheme="http") for small in (source, target)]
    copy = _Copy(*map(registries.repository, places), lambda *_: copy._abandoned.set())
    with pytest.raises(_AbandonedError):
        copy._send_blob(Descriptor.of(data, LAYER))
    registries.close()
    assert target.blobs == {}


def test_bad_copies_are_refused(engine: cl.Engine, source: SmallRegistry) -> None:
    """A digest is no place to copy to, and what is not there cannot be copied."""
    here = engine.registry(source.host)
    with pytest.raises(cl.InvalidReference, match="copied to a tag"):
        here.copy("x:1", f"y@sha256:{'0' * 64}")
    with pytest.raises(cl.RemoteNotFound):
        here.copy("x:1", "y:1")
    with (
        cl.Engine(engine.root, engine.run_root, cl.EngineConfig(offline=True)) as offline,
        pytest.raises(cl.Offline),
    ):
        offline.registry(source.host).copy("x:1", "y:1")


@pytest.mark.parametrize("lists", [True, False])
def test_what_refers_to_an_image_is_copied_with_it(
    engine: cl.Engine, source: SmallRegistry, target: SmallRegistry, *, lists: bool
) -> None:
    """Signatures, and what refers to them, arrive, also where clients have to keep the list."""
    target.lists_referrers = lists
    image = add_image(source, "1")
    empty = b"{}"
    source.blobs["x", digest_of(empty)] = empty
    base = {"config": pointer("application/vnd.oci.empty.v1+json", empty), "layers": []}
    signature = add(source, "s", {**base, "artifactType": "a/sig", "subject": pointer(MANIFEST, image)})
    add(source, "t", {**base, "artifactType": "a/stamp", "subject": pointer(MANIFEST, signature)})
    engine.registry(source.host).copy("x:1", f"{target.host}/y:1", referrers=True)
    there = engine.registry(target.host)
    found = there.referrers("y:1")
    assert [(entry.digest, entry.artifact_type) for entry in found] == [(digest_of(signature), "a/sig")]
    stamps = there.referrers(f"y@{digest_of(signature)}")
    assert [entry.artifact_type for entry in stamps] == ["a/stamp"]
    assert there.referrers("y:1", "a/other") == []
    assert (("y", referrers_tag(Digest(digest_of(image)))) in target.manifests) == (not lists)


def test_list_of_referrers_that_clients_keep(engine: cl.Engine, source: SmallRegistry) -> None:
    """Where the registry lists nothing, the index under the tag of the digest is read and filtered."""
    source.lists_referrers = False
    image = add_image(source, "1")
    here = engine.registry(source.host)
    assert here.referrers("x:1") == []
    entries = [pointer(MANIFEST, b"a", artifactType="a/b"), pointer(MANIFEST, b"b", artifactType="c/d")]
    add(source, digest_of(image).replace(":", "-"), {"manifests": entries}, INDEX)
    assert len(here.referrers("x:1")) == 2
    assert [str(entry.digest) for entry in here.referrers("x:1", "c/d")] == [digest_of(b"b")]


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{}", b'{"manifests": [1]}', b'{"manifests": [{}]}', b'{"mediaType": "x/y"}']
)
def test_damaged_list_of_referrers_is_refused(engine: cl.Engine, source: SmallRegistry, body: bytes) -> None:
    """What is no index is an error, and not an empty list."""
    source.intercept = lambda _request: Reply(200, {}, body)
    with pytest.raises((cl.InvalidManifest, cl.RegistryError)):
        engine.registry(source.host).referrers(f"x@sha256:{'0' * 64}")


def test_all_pages_of_a_list_are_read(engine: cl.Engine, source: SmallRegistry) -> None:
    """Tags and repositories come from as many pages as the registry makes of them."""
    for number in range(25):
        add(source, f"v{number:02}", {})
        source.manifests[f"r{number:02}", "1"] = (MANIFEST, b"{}")
    source.page = 10
    here = engine.registry(source.host)
    assert here.tags("x") == [f"v{number:02}" for number in range(25)]
    assert here.catalog() == [*(f"r{number:02}" for number in range(25)), "x"]
    assert len(source.targets("GET /v2/x/tags")) == 3


@pytest.mark.parametrize(
    ("link", "reason"),
    [
        ('</v2/x/tags/list?n=1>; rel="next"', "no end"),
        ('<https://other.test/v2/x/tags/list>; rel="next"', "not on the registry"),
        ('<//other.test/v2/x>; rel="next"', "not on the registry"),
        ('</admin>; rel="next"', "not on the registry"),
        ('<http://[::1/v2/>; rel="next"', "no address"),
    ],
)
def test_list_without_an_end_is_refused(
    engine: cl.Engine, source: SmallRegistry, link: str, reason: str
) -> None:
    """A next page that was there already, or is elsewhere, is not followed."""
    source.intercept = lambda _request: Reply(200, {"Link": link}, b'{"tags": ["a"]}')
    with pytest.raises(cl.RegistryError, match=reason):
        engine.registry(source.host).tags("x")
    assert len(source.requests) < 5


@pytest.mark.parametrize(
    "link", ["", "nonsense", '</v2/x>; rel="prev"', '</v2/x>; rel=prev, </v2/y>; rel="last"', "<", "<>;;"]
)
def test_link_to_nowhere_ends_the_list(engine: cl.Engine, source: SmallRegistry, link: str) -> None:
    """A header that names no next page is the end, and names that are none are left out."""
    body = json.dumps({"tags": ["a", "\x1b[31m", 7, "-x", "b"]}).encode()
    source.intercept = lambda _request: Reply(200, {"Link": link}, body)
    assert engine.registry(source.host).tags("x") == ["a", "b"]


@pytest.mark.parametrize(
    "header", ["docker-content-digest", "content-type", "Content-Length", "wrong digest"]
)
def test_name_is_resolved_whatever_the_registry_tells(
    engine: cl.Engine, source: SmallRegistry, header: str
) -> None:
    """A registry that does not tell enough without the content is asked for the content."""
    raw = add_image(source, "1")

    def answer(request: Request) -> Reply | None:
        if request.method != "HEAD":
            return None
        told = {"docker-content-digest": digest_of(raw), "content-type": MANIFEST}
        told["Content-Length"] = str(len(raw))
        told["docker-content-digest" if header == "wrong digest" else header] = "nonsense"
        return Reply(200, told)

    source.intercept = answer
    found = engine.registry(source.host).resolve("x:1")
    assert (found.digest, found.size, found.media_type) == (digest_of(raw), len(raw), MANIFEST)
    assert len(source.targets("GET /v2/x/manifests")) == 1
