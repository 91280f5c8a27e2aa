"""The engine's store behind our registry: its images are served, and what is pushed becomes one of them."""

from __future__ import annotations

import gzip
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from support.archives import archive, file
from support.engine import new_engine
from support.oci_layout import LAYER
from support.registry_http import RawRegistry, artifact, descriptor, digest_of, image, index, serve_command
from support.session import temporary_directory, tracked_root

import containerlib as cl
from containerlib.image.collect import collect

if TYPE_CHECKING:
    from collections.abc import Iterator

    from containerlib import Engine, RegistryServer

pytestmark = pytest.mark.root


@pytest.fixture
def server(engine: Engine) -> Iterator[RegistryServer]:
    """Return a registry of the engine's images."""
    with cl.Registry.serve(engine=engine) as running:
        yield running


@pytest.fixture
def raw(server: RegistryServer) -> RawRegistry:
    """Return a client of the registry."""
    return RawRegistry(server.host, server.port)


@pytest.fixture
def other() -> Iterator[Engine]:
    """Return an engine with a store of its own."""
    with temporary_directory("o") as base:
        run_root = base / "n"
        with tracked_root(run_root), new_engine(base / "r", run_root) as made:
            yield made


def push_parts(
    raw: RawRegistry, repository: str, layer: bytes, architecture: str = "amd64"
) -> dict[str, Any]:
    """Upload the blobs of an image with one layer, and return its manifest."""
    config = json.dumps(
        {
            "os": "linux",
            "architecture": architecture,
            "rootfs": {"type": "layers", "diff_ids": [digest_of(layer)]},
        }
    ).encode()
    packed = gzip.compress(layer, 1, mtime=0)
    raw.push_blob(repository, config)
    raw.push_blob(repository, packed)
    return image(config) | {"layers": [descriptor(packed, f"{LAYER}+gzip")]}


def test_images_of_the_engine_are_served(
    engine: Engine, other: Engine, server: RegistryServer, raw: RawRegistry
) -> None:
    """What one engine has another one pulls, with the same digest, and runs."""
    made = engine.images.from_host(["sh", "cat"], reference="tools/shell:1")
    pulled = other.images.pull(f"{server.name}/tools/shell:1")
    assert pulled.digest == made.digest
    assert pulled.call(["sh", "-c", "echo it runs"]).stdout == b"it runs\n"
    assert raw.ask("GET", "/v2/_catalog").json == {"repositories": ["tools/shell"]}
    assert raw.ask("GET", "/v2/tools/shell/tags/list").json["tags"] == ["1"]


def test_official_names_have_two_forms(engine: Engine, raw: RawRegistry) -> None:
    """An image of Docker's own is found with and without ``library/``, as mirrors are asked for it."""
    made = engine.images.from_host(["sh"], reference="busy:1")
    engine.images.tag("busy:1", "ghcr.io/org/busy:2")
    engine.images.tag("busy:1", "localhost:5000/busy:3")
    for name in ("busy/manifests/1", "library/busy/manifests/1", "ghcr.io/org/busy/manifests/2"):
        reply = raw.ask("HEAD", f"/v2/{name}")
        assert (reply.status, reply.headers["docker-content-digest"]) == (200, made.digest), name
    assert raw.ask("GET", "/v2/_catalog").json == {"repositories": ["busy", "ghcr.io/org/busy"]}


def test_names_that_the_engine_does_not_have(raw: RawRegistry) -> None:
    """A repository whose name is too long with the default registry, or an image id, is NAME_INVALID."""
    for name in ("a" * 64, "x" * 250):
        for method, path in (("GET", "manifests/1"), ("GET", "tags/list"), ("POST", "blobs/uploads/")):
            reply = raw.ask(method, f"/v2/{name}/{path}", None if method == "GET" else b"")
            if method == "POST":
                end = f"{reply.headers['location']}?digest={digest_of(b'')}"
                reply = raw.ask("PUT", end, b"")
            assert (reply.status, reply.codes) == (400, ["NAME_INVALID"])


def test_name_with_tag_and_digest(engine: Engine, server: RegistryServer, raw: RawRegistry) -> None:
    """An image that was pulled by tag and digest together is found by its digest, and has no tag here."""
    digest = engine.images.from_host(["sh"], reference="made:1").digest
    target = engine.images.get("made:1").record.target
    engine._session.stores.references.set(f"docker.io/library/x:1@{digest}", target)
    assert raw.ask("GET", "/v2/x/tags/list").json["tags"] == []
    assert raw.ask("GET", "/v2/x/manifests/1").status == 404
    assert raw.ask("GET", f"/v2/x/manifests/{digest}").status == 200
    assert engine.registry(server.name).catalog() == ["made", "x"]


def test_pushed_image_runs(engine: Engine, other: Engine, server: RegistryServer) -> None:
    """What another engine pushes is an image of this one, unpacked and ready."""
    made = other.images.from_host(["sh", "cat"], reference="shell:1")
    made.push(f"{server.name}/team/shell:2")
    image_here = engine.images.get("team/shell:2")
    assert image_here.digest == made.digest
    assert image_here.call(["sh", "-c", "echo it runs"]).stdout == b"it runs\n"


def test_pushed_image_survives_pruning(engine: Engine, raw: RawRegistry, server: RegistryServer) -> None:
    """Neither what is being pushed nor what has a name is collected; the rest is, when the registry ends."""
    document = push_parts(raw, "x", archive(file(b"a", b"one")))
    loose = raw.push_blob("x", b"nobody needs this")
    collect(engine._session.stores)
    raw.push_manifest("x", document, "1")
    collect(engine._session.stores)
    assert raw.ask("HEAD", "/v2/x/manifests/1").status == 200
    assert raw.ask("HEAD", f"/v2/x/blobs/{loose}").status == 200
    server.close()
    collect(engine._session.stores)
    with cl.Registry.serve(engine=engine) as again:
        raw = RawRegistry(again.host, again.port)
        assert raw.ask("HEAD", "/v2/x/manifests/1").status == 200
        assert raw.ask("HEAD", f"/v2/x/blobs/{loose}").status == 404


def test_index_is_pushed(engine: Engine, raw: RawRegistry) -> None:
    """Of an index the image for this host is unpacked; all of it is served, after a restart, too."""
    documents = [
        push_parts(raw, "x", archive(file(b"a", name.encode())), name) for name in ("arm64", "amd64")
    ]
    for document in documents:
        raw.push_manifest("x", document)
    digest = raw.push_manifest("x", index(*documents), "1")
    assert engine.images.get("x:1").digest == digest
    with cl.Registry.serve(engine=engine) as again:
        there = RawRegistry(again.host, again.port)
        for document in (*documents, index(*documents)):
            name = digest_of(json.dumps(document).encode())
            assert there.ask("HEAD", f"/v2/x/manifests/{name}").status == 200


def test_artifacts_stay(engine: Engine, raw: RawRegistry) -> None:
    """What is no image is kept and found by its subject after a restart, and is not shown as an image."""
    raw.push_blob("x", b"{}")
    document = push_parts(raw, "x", archive(file(b"a", b"one")))
    target = descriptor(json.dumps(document).encode(), document["mediaType"])
    raw.push_manifest("x", document, "1")
    digest = raw.push_manifest("x", artifact(subject=target, artifactType="a/sbom"))
    with cl.Registry.serve(engine=engine) as again:
        there = RawRegistry(again.host, again.port)
        found = there.ask("GET", f"/v2/x/referrers/{target['digest']}").json["manifests"]
        assert [each["digest"] for each in found] == [digest]
    assert [each.references for each in engine.images.list()] == [("docker.io/library/x:1",)]


def test_many_push_the_same(engine: Engine, raw: RawRegistry) -> None:
    """Eight clients push the same image at once under names of their own: all are there, in one copy."""
    layer = archive(file(b"a", b"one"))

    def push(number: int) -> str:
        document = push_parts(raw, f"r{number % 3}", layer)
        return raw.push_manifest(f"r{number % 3}", document, f"t{number}")

    with ThreadPoolExecutor(8) as pool:
        digests = set(pool.map(push, range(8)))
    assert len(digests) == 1
    assert {str(each.digest) for each in engine.images.list()} == digests
    for number in range(8):
        assert engine.images.get(f"r{number % 3}:t{number}").digest in digests
    assert len(list(engine._session.stores.content.list())) == 3


BAD_LAYERS = {
    "escapes": archive(file(b"../../etc/passwd", b"x")),
    "no archive": b"this is no archive" * 100,
}


@pytest.mark.parametrize("what", sorted(BAD_LAYERS))
def test_harmful_image_is_refused(engine: Engine, raw: RawRegistry, what: str) -> None:
    """An image that cannot be unpacked is MANIFEST_INVALID, and the engine has nothing of it."""
    document = push_parts(raw, "x", BAD_LAYERS[what])
    data = json.dumps(document).encode()
    reply = raw.ask("PUT", "/v2/x/manifests/1", data, {"Content-Type": document["mediaType"]})
    assert (reply.status, reply.codes) == (400, ["MANIFEST_INVALID"])
    assert raw.ask("GET", "/v2/x/manifests/1").status == 404
    assert engine.images.list() == []


def test_wrong_diff_id_is_refused(engine: Engine, raw: RawRegistry) -> None:
    """A layer that is not what the configuration says is MANIFEST_INVALID, and so is a number of layers."""
    document = push_parts(raw, "x", archive(file(b"a", b"one")))
    other = gzip.compress(archive(file(b"a", b"two")), 1, mtime=0)
    raw.push_blob("x", other)
    for layers in ([descriptor(other, f"{LAYER}+gzip")], []):
        data = json.dumps(document | {"layers": layers}).encode()
        reply = raw.ask("PUT", "/v2/x/manifests/1", data, {"Content-Type": document["mediaType"]})
        assert (reply.status, reply.codes) == (400, ["MANIFEST_INVALID"])
    assert engine.images.list() == []


def test_killed_while_uploading(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGKILL in the middle of a push leaves nothing that is seen, and collecting removes what there is."""
    monkeypatch.setenv("CONTAINERLIB_ROOT", engine.root)
    monkeypatch.setenv("CONTAINERLIB_RUN_ROOT", engine.run_root)
    layer = archive(file(b"a", b"one"))
    with serve_command("--store") as (process, raw):
        push_parts(raw, "x", layer)
        place = raw.ask("POST", "/v2/x/blobs/uploads/").headers["location"]
        assert raw.ask("PATCH", place, b"half of it").status == 202
        process.kill()
        process.wait()
    assert engine.images.list() == []
    collected = collect(engine._session.stores)
    assert (collected.blobs, collected.stale >= 1) == (2, True)
    left = [entry for entry in Path(engine.root, "blobs").rglob("*") if entry.is_file()]
    assert left == []
    with serve_command("--store") as (_, raw):
        raw.push_manifest("x", push_parts(raw, "x", layer), "1")
    assert [each.references for each in engine.images.list()] == [("docker.io/library/x:1",)]


def test_deletion_takes_names_only(engine: Engine, raw: RawRegistry) -> None:
    """Deleting through the registry takes names away; the image stays in the store until it is pruned."""
    made = engine.images.from_host(["sh"], reference="x:1")
    engine.images.tag("x:1", "x:2")
    blob = made.layers[0].digest
    assert raw.ask("DELETE", f"/v2/x/blobs/{blob}").codes == ["UNSUPPORTED"]
    assert raw.ask("DELETE", "/v2/x/manifests/1").status == 202
    assert engine.images.get("x:2").digest == made.digest
    assert raw.ask("DELETE", f"/v2/x/manifests/{made.digest}").status == 202
    assert raw.ask("GET", f"/v2/x/manifests/{made.digest}").codes == ["NAME_UNKNOWN"]
    assert engine.images.get(made.digest).references == ()
