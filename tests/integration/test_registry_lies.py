"""Registries that send something else than they promised: wrong bytes, sizes, types, documents."""

from __future__ import annotations

import gzip
import json
from typing import TYPE_CHECKING, Any

import attrs
import pytest
import zstandard
from support.archives import archive, base256, file
from support.fault_registry import FaultRegistry, Reply, Seen, digest_of, refusal
from support.faulty_pull import hasty, refuse, visible
from support.oci_layout import CONFIG, INDEX, LAYER, MANIFEST

import containerlib as cl

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from containerlib import Engine

pytestmark = [pytest.mark.root]

LAYER_BYTES = archive(file(b"etc/motd", b"hello" * 40_000))
BLOB = f"GET /v2/x/blobs/{digest_of(LAYER_BYTES)}"
TAG = "GET /v2/x/manifests/1"


@pytest.fixture
def registry() -> Iterator[FaultRegistry]:
    """Return a registry with one image, honest until it is changed."""
    with FaultRegistry() as running:
        running.add_image([LAYER_BYTES], "1")
        yield running


def body(change: Callable[[bytes], bytes]) -> Callable[[Seen, Reply], Reply]:
    """Return a fault that changes what is sent, and the length with it."""
    return lambda _request, reply: attrs.evolve(reply, body=change(reply.body))


def length(offset: int) -> Callable[[Seen, Reply], Reply]:
    """Return a fault that claims another length than is sent."""
    return lambda _request, reply: reply.having(content_length=str(len(reply.body) + offset))


WRONG_BLOBS = {
    "other bytes": (body(lambda data: bytes(len(data))), cl.DigestMismatch, "expected sha256:"),
    "one bit": (body(lambda data: data[:-1] + bytes([data[-1] ^ 1])), cl.DigestMismatch, "expected sha256:"),
    "too short": (body(lambda data: data[:-1]), cl.RegistryUnavailable, "ends after"),
    "empty": (body(lambda _: b""), cl.RegistryUnavailable, "ends after 0 of"),
    "too long": (body(lambda data: data + b"more"), cl.SizeMismatch, "expected"),
    "length too long": (lambda r, reply: attrs.evolve(length(7)(r, reply), cut=1 << 30), None, ""),
    "length not a number": (
        lambda _, reply: attrs.evolve(reply, cut=1 << 30).having(content_length="many"),
        None,
        "",
    ),
    "no length": (lambda _, reply: attrs.evolve(reply, framing="close"), None, ""),
    "no length, too long": (
        lambda _, reply: attrs.evolve(reply, framing="close", body=reply.body * 2),
        cl.SizeMismatch,
        "expected",
    ),
    "chunked": (lambda _, reply: attrs.evolve(reply, framing="chunked"), None, ""),
    "chunked, too long": (
        lambda _, reply: attrs.evolve(reply, framing="chunked", body=reply.body + b"x"),
        cl.SizeMismatch,
        "expected",
    ),
    "chunked, other bytes": (
        lambda _, reply: attrs.evolve(reply, framing="chunked", body=bytes(len(reply.body))),
        cl.DigestMismatch,
        "expected",
    ),
    "broken chunks": (
        lambda _, __: Reply(raw=b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"),
        cl.RegistryUnavailable,
        "broke",
    ),
    "no HTTP": (
        lambda _, __: Reply(raw=b"SSH-2.0\x1b[2J\r\n"),
        cl.RegistryUnavailable,
        r"broke: SSH-2\.0\?\[2J",
    ),
    "too many headers": (
        lambda _, __: Reply(raw=b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200 + b"\r\n"),
        cl.RegistryUnavailable,
        "headers",
    ),
    "endless header": (
        lambda _, __: Reply(raw=b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000),
        cl.RegistryUnavailable,
        "broke",
    ),
    "encoded": (
        lambda _, reply: attrs.evolve(reply, body=gzip.compress(reply.body)).having(content_encoding="gzip"),
        cl.RegistryError,
        "encoded although",
    ),
    "page of a portal": (
        lambda _, __: Reply(body=b"<html>log in", headers={"Content-Type": "text/html"}),
        cl.RegistryUnavailable,
        "ends after 12 of",
    ),
}


@pytest.mark.parametrize("name", WRONG_BLOBS)
def test_blob(engine: Engine, registry: FaultRegistry, name: str) -> None:
    """A layer is what the manifest says, or it is refused; how its length is told does not matter."""
    fault, kind, match = WRONG_BLOBS[name]
    registry.fault(BLOB, fault)
    hasty(engine)
    if kind is None:
        assert engine.images.pull(registry.name).references == (registry.name,)
    else:
        refuse(engine, registry, kind, match)


def test_lie_of_one_request_is_no_lie_of_the_next(engine: Engine, registry: FaultRegistry) -> None:
    """A layer that came damaged is fetched again by the next pull, from its beginning."""
    registry.fault(BLOB, body(lambda data: bytes(len(data))), times=1)
    refuse(engine, registry, cl.DigestMismatch, "expected")
    assert [each.headers.get("range") for each in registry.asked(BLOB)] == [None, None]


def document(manifest: dict[str, Any], **changes: object) -> bytes:
    """Return the manifest with other fields; None takes one away."""
    changed = {**manifest, **changes}
    return json.dumps({name: value for name, value in changed.items() if value is not None}).encode()


MANIFESTS: dict[str, tuple[Callable[[dict[str, Any]], bytes], str, str]] = {
    "manifest and index": (lambda m: document(m, manifests=[]), MANIFEST, "'manifests'"),
    "index and manifest": (
        lambda m: document(m, mediaType=INDEX, manifests=[]),
        INDEX,
        "'config'|'layers'",
    ),
    "first schema within": (lambda m: document(m, fsLayers=[]), MANIFEST, "fsLayers"),
    "type of the answer differs": (document, INDEX, "was fetched as"),
    "type of the document differs": (lambda m: document(m, mediaType=INDEX), MANIFEST, "was fetched as"),
    "key twice": (
        lambda m: document(m)[:-1] + b', "schemaVersion": 2}',
        MANIFEST,
        "schemaVersion|twice|duplicate",
    ),
    "schema 1": (lambda m: document(m, schemaVersion=1), MANIFEST, "schemaVersion is 1"),
    "signed schema 1": (
        lambda m: document(m, schemaVersion=1),
        "application/vnd.docker.distribution.manifest.v1+prettyjws",
        "media type",
    ),
    "no JSON": (lambda _: b"\x1f\x8b\x08\x00", MANIFEST, "manifest"),
    "not an object": (lambda _: b"[]", MANIFEST, "not an object"),
    "too deep": (lambda _: b'{"a":' * 5000 + b"1" + b"}" * 5000, MANIFEST, "deep"),
    "too large": (lambda m: document(m, padding="x" * (4 << 20)), MANIFEST, "larger than"),
    "no configuration": (lambda m: document(m, config=None), MANIFEST, "'config' is missing"),
    "501 layers": (lambda m: document(m, layers=m["layers"] * 501), MANIFEST, "501 layers"),
    "size below zero": (
        lambda m: document(m, layers=[{**m["layers"][0], "size": -1}]),
        MANIFEST,
        "'size'",
    ),
    "text of a web page": (lambda _: b"<html>", "text/html", "media type 'text/html'"),
    "an artifact": (
        lambda m: document(m, config={**m["config"], "mediaType": "application/vnd.example"}),
        MANIFEST,
        "not a container image",
    ),
}


@pytest.mark.parametrize("name", MANIFESTS)
def test_manifest(engine: Engine, registry: FaultRegistry, name: str) -> None:
    """A document that is damaged, too large or could be read in two ways is refused."""
    make, media_type, match = MANIFESTS[name]
    registry.add_manifest(make(registry.add_image([LAYER_BYTES])), media_type, "1")
    refuse(engine, registry, cl.InvalidManifest, match, heals=False)
    registry.add_image([LAYER_BYTES], "1")
    engine.images.pull(registry.name)


@pytest.mark.parametrize(
    "digest",
    [
        "",
        "sha256:",
        "sha256:..",
        "sha256:../../../../etc/passwd",
        "sha256:" + "0" * 63,
        "sha256:" + "0" * 65,
        "sha256:" + "A" * 64,
        "md5:" + "0" * 32,
        "sha256:" + "0" * 63 + "\0",
        "sha512:" + "0" * 64,
        "0" * 64,
    ],
)
def test_malformed_digest(engine: Engine, registry: FaultRegistry, digest: str) -> None:
    """What is not a digest is refused wherever it stands, and nothing is asked for by it."""
    manifest = registry.add_image([LAYER_BYTES])
    for bad in (
        {**manifest, "layers": [{**manifest["layers"][0], "digest": digest}]},
        {**manifest, "config": {**manifest["config"], "digest": digest}},
    ):
        registry.add_manifest(bad, MANIFEST, "1")
        with pytest.raises(cl.InvalidInputError, match="digest"):
            engine.images.pull(registry.name)
    entry = {"mediaType": MANIFEST, "digest": digest, "size": 7}
    registry.add_manifest({"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]}, INDEX, "1")
    with pytest.raises(cl.InvalidInputError, match="digest"):
        engine.images.pull(registry.name)
    assert {each.path for each in registry.seen} == {"/v2/x/manifests/1"}
    assert visible(engine) == (set(), set())


def test_digest_of_the_header_must_be_right(engine: Engine, registry: FaultRegistry) -> None:
    """A manifest that is not what the answer's own header calls it is refused, and so is a bad header."""
    registry.fault(TAG, lambda _, reply: reply.having(docker_content_digest=digest_of(b"other")))
    refuse(engine, registry, cl.DigestMismatch, "manifest '1'")
    registry.fault(TAG, lambda _, reply: reply.having(docker_content_digest="sha256:../.."))
    with pytest.raises(cl.InvalidInputError, match=r"manifest '1'.*digest"):
        engine.images.pull(registry.name)


def test_configuration_must_be_right(engine: Engine, registry: FaultRegistry) -> None:
    """A configuration with other bytes, of another size or with other layers than the manifest is refused."""
    hasty(engine)
    manifest = registry.add_image([LAYER_BYTES], "1")
    path = f"GET /v2/x/blobs/{manifest['config']['digest']}"
    registry.fault(path, body(lambda data: bytes(len(data))))
    refuse(engine, registry, cl.DigestMismatch, "configuration")
    other = FaultRegistry().add_image([])
    registry.blobs |= {other["config"]["digest"]: b'{"os": "linux", "architecture": "amd64"}'}
    for size, kind in ((9 << 20, cl.SizeMismatch), (1, cl.SizeMismatch)):
        config = {**manifest["config"], "size": size}
        registry.add_manifest({**manifest, "config": config}, MANIFEST, "1")
        with pytest.raises(kind, match="configuration"):
            engine.images.pull(registry.name)
    registry.add_manifest({**manifest, "layers": []}, MANIFEST, "1")
    with pytest.raises(cl.InvalidManifest, match="0 layers but 1 diff ids"):
        engine.images.pull(registry.name)


def index_of(registry: FaultRegistry, entries: list[dict[str, Any]], *names: str) -> dict[str, Any]:
    """Keep an index, and return its descriptor."""
    document = {"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}
    return registry.add_manifest(document, INDEX, *names)


def test_floods_of_manifests_are_refused(engine: Engine, registry: FaultRegistry) -> None:
    """Ten thousand references to one child, deep nesting and a cycle cost a few requests, not thousands."""
    manifest = registry.add_image([LAYER_BYTES])
    child = {
        **registry.add_manifest(manifest, MANIFEST),
        "platform": {"os": "linux", "architecture": "amd64"},
    }
    index_of(registry, [child] * 10_000, "1")
    refuse(engine, registry, cl.InvalidManifest, "10000 entries", heals=False)
    nested = child
    for _ in range(50):
        nested = {**index_of(registry, [nested]), "platform": child["platform"]}
    index_of(registry, [nested], "1")
    refuse(engine, registry, cl.InvalidManifest, "deep", heals=False)
    assert len(registry.seen) < 10
    # A cycle needs a digest that lies, and is found out by that.
    self = {"mediaType": INDEX, "digest": digest_of(b"itself"), "size": 300, "platform": child["platform"]}
    raw = index_of(registry, [self], "1")
    registry.manifests[digest_of(b"itself")] = registry.manifests[raw["digest"]]
    refuse(engine, registry, cl.DigestMismatch, "expected", heals=False)
    assert len(registry.seen) < 20


def test_platforms_there_are_named(engine: Engine, registry: FaultRegistry) -> None:
    """An index without an image for this host lists those that it has."""
    manifest = registry.add_manifest(registry.add_image([LAYER_BYTES]), MANIFEST)
    entries = [
        {**manifest, "platform": {"os": "linux", "architecture": name}} for name in ("s390x", "riscv64")
    ]
    index_of(registry, entries, "1")
    error = refuse(engine, registry, cl.PlatformNotFound, "linux/s390x, linux/riscv64", heals=False)
    assert error.platforms == ("linux/s390x", "linux/riscv64")


def test_tag_that_moves_meanwhile(engine: Engine, registry: FaultRegistry) -> None:
    """A tag that moves during a pull changes nothing: what it meant at the beginning is fetched."""
    first = registry.manifests["1"][1]

    def move(_request: Seen, reply: Reply) -> Reply:
        registry.add_image([archive(file(b"other", b"x"))], "1")
        return reply

    registry.fault("GET /v2/x/blobs/", move, times=1)
    assert engine.images.pull(registry.name).digest == digest_of(first)
    assert engine.images.pull(registry.name).digest == digest_of(registry.manifests["1"][1])


def test_missing_blob_says_that_the_image_is_broken(engine: Engine, registry: FaultRegistry) -> None:
    """A manifest whose layer the registry has lost is told apart from an image that is not there."""
    registry.fault(BLOB, lambda _, __: refusal(404, "BLOB_UNKNOWN"))
    refuse(engine, registry, cl.RemoteNotFound, "incomplete there; push it again")


def zeros() -> tuple[bytes, str]:
    """Return a layer of some megabytes that unpacks to ten gigabytes."""
    head = archive(file(b"zeros", b"", size=64 << 30))[:512]
    return gzip.compress(head) + gzip.compress(bytes(64 << 20), 9) * 160, "gzip"


def wide_window() -> tuple[bytes, str]:
    """Return a layer that wants a gigabyte of memory to be unpacked."""
    parameters = zstandard.ZstdCompressionParameters(window_log=30, write_content_size=False)
    compressor = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    return compressor.compress(LAYER_BYTES) + compressor.flush(), "zstd"


def endless() -> tuple[bytes, str]:
    """Return a layer with a file that is said to have eight exbibytes."""
    return gzip.compress(archive(file(b"endless", b"x", size=base256(2**63 - 1, 12)))), "gzip"


@pytest.mark.parametrize("make", [zeros, wide_window, endless])
def test_bombs(engine: Engine, registry: FaultRegistry, make: Callable[[], tuple[bytes, str]]) -> None:
    """A small layer that would take much of disk or memory is stopped early, and leaves nothing."""
    bomb, kind = make()
    diff_ids = {"type": "layers", "diff_ids": [digest_of(LAYER_BYTES)]}
    config = json.dumps({"os": "linux", "architecture": "amd64", "rootfs": diff_ids}).encode()
    document = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": registry.add_blob(config, CONFIG),
        "layers": [registry.add_blob(bomb, f"{LAYER}+{kind}")],
    }
    registry.add_manifest(document, MANIFEST, "1")
    assert len(bomb) < 12 << 20
    refuse(engine, registry, cl.UnsupportedLayer, "times|expand|window|memory|impossible", heals=False)


@pytest.mark.parametrize("compress", [False, True])
def test_damaged_beginning_is_not_gone_on_with(
    engine: Engine, registry: FaultRegistry, *, compress: bool
) -> None:
    """What broke off and was not of the layer is thrown away by the next pull, which fetches all of it."""
    manifest = registry.add_image([LAYER_BYTES], "1", compress=compress)
    blob = f"GET /v2/x/blobs/{manifest['layers'][0]['digest']}"
    registry.fault(blob, lambda _, reply: attrs.evolve(reply, body=b"<html>" + reply.body, cut=600), times=1)
    registry.fault(blob, lambda _, reply: attrs.evolve(reply, cut=0))
    refuse(hasty(engine), registry, cl.RegistryUnavailable, "broke|ends after", heals=False)
    registry.heal()
    engine.images.pull(registry.name)
    assert [each.headers.get("range") for each in registry.asked(blob)][-1] is None
