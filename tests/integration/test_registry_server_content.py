"""Our registry: what it lists, and what can be deleted; with a directory, and with the engine's store."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest
from support.oci_layout import INDEX, MANIFEST
from support.registry_http import EMPTY, RawRegistry, artifact, descriptor, digest_of, index

import containerlib as cl

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from containerlib import Engine, RegistryServer

pytestmark = pytest.mark.root

BLOB = b"blob" * 1000


@pytest.fixture(params=["directory", "store"])
def server(request: pytest.FixtureRequest, tmp_path: Path, engine: Engine) -> Iterator[RegistryServer]:
    """Return a registry with nothing in it."""
    where: dict[str, Any] = (
        {"directory": tmp_path / "d"} if request.param == "directory" else {"engine": engine}
    )
    with cl.Registry.serve(**where) as running:
        yield running


@pytest.fixture
def raw(server: RegistryServer) -> RawRegistry:
    """Return a client of the registry."""
    return RawRegistry(server.host, server.port)


def follow(raw: RawRegistry, path: str, key: str) -> list[list[Any]]:
    """Return the pages of a list, as the links say."""
    pages = []
    while path:
        reply = raw.ask("GET", path)
        assert reply.status == 200, reply
        pages.append(reply.json[key])
        link = reply.headers.get("link", "")
        assert not link or link.endswith('>; rel="next"')
        path = link[1:].partition(">")[0]
    return pages


def test_tags_are_listed_in_pages(raw: RawRegistry) -> None:
    """Tags come sorted by their bytes, whole or in pages that lead to each other."""
    names = ["1", "10", "2", "B", "_x", "a", "b.c"]
    raw.push_blob("x", EMPTY)
    for name in reversed(names):
        raw.push_manifest("x", artifact(), name)
    reply = raw.ask("GET", "/v2/x/tags/list")
    assert reply.json == {"name": "x", "tags": names}
    assert "link" not in reply.headers
    assert follow(raw, "/v2/x/tags/list?n=3", "tags") == [names[:3], names[3:6], names[6:]]
    assert follow(raw, "/v2/x/tags/list?n=7", "tags") == [names]
    assert follow(raw, "/v2/x/tags/list?n=0", "tags") == [[]]
    assert follow(raw, "/v2/x/tags/list?last=B", "tags") == [names[4:]]
    assert follow(raw, "/v2/x/tags/list?n=2&last=A", "tags") == [["B", "_x"], ["a", "b.c"]]
    assert follow(raw, f"/v2/x/tags/list?n={10**30}", "tags") == [names]


def test_repository_without_tags(raw: RawRegistry) -> None:
    """A repository that has only something without a tag has an empty list."""
    raw.push_image("x")
    assert raw.ask("GET", "/v2/x/tags/list").json == {"name": "x", "tags": []}


def test_repositories_are_listed_in_pages(raw: RawRegistry) -> None:
    """The catalog has every repository with a manifest, one below the name of another, too."""
    names = ["a", "a/b", "a/b/c", "deep/er/est"]
    for name in names:
        raw.push_image(name, "1")
    assert raw.ask("GET", "/v2/_catalog").json == {"repositories": names}
    assert follow(raw, "/v2/_catalog?n=3", "repositories") == [names[:3], names[3:]]
    assert follow(raw, "/v2/_catalog?last=a/b", "repositories") == [names[2:]]


def test_referrers_are_listed(raw: RawRegistry) -> None:
    """What has a subject is found by it, with type and annotations, whichever came first; by type, too."""
    raw.push_blob("x", EMPTY)
    raw.push_blob("x", b"sbom")
    subject = artifact(b"sbom")
    target = descriptor(b"", MANIFEST) | {"digest": raw.push_manifest("x", subject, "1")}
    made = [
        artifact(subject=target, artifactType="a/sbom", annotations={"k": "v"}),
        artifact(b"sbom", subject=target),
        index(subject, subject=target, artifactType="a/index"),
        index(subject, subject=target, annotations={"no": "type"}),
    ]
    expected = {}
    for document, kind in zip(made, ("a/sbom", "application/vnd.oci.empty.v1+json", "a/index", None),
                              strict=True):  # fmt: skip
        digest = raw.push_manifest("x", document)
        expected[digest] = (kind, document.get("annotations"), document["mediaType"])
    path = f"/v2/x/referrers/{target['digest']}"
    reply = raw.ask("GET", path)
    assert (reply.status, reply.headers["content-type"], reply.json["mediaType"]) == (200, INDEX, INDEX)
    assert "oci-filters-applied" not in reply.headers
    found = {
        each["digest"]: (each.get("artifactType"), each.get("annotations"), each["mediaType"])
        for each in reply.json["manifests"]
    }
    assert found == expected
    filtered = raw.ask("GET", f"{path}?artifactType={quote('a/sbom', safe='')}")
    assert filtered.headers["oci-filters-applied"] == "artifactType"
    assert [each["artifactType"] for each in filtered.json["manifests"]] == ["a/sbom"]
    pages = follow(raw, f"{path}?n=3", "manifests")
    assert [len(page) for page in pages] == [3, 1]
    assert [each["digest"] for page in pages for each in page] == sorted(expected)


def test_subject_is_confirmed(raw: RawRegistry) -> None:
    """Who pushes something with a subject is told that it was noticed."""
    raw.push_blob("x", EMPTY)
    data = descriptor(b"gone", MANIFEST)
    for document in (artifact(subject=data), index(subject=data)):
        body = json.dumps(document).encode()
        reply = raw.ask("PUT", "/v2/x/manifests/s", body, {"Content-Type": document["mediaType"]})
        assert (reply.status, reply.headers["oci-subject"]) == (201, data["digest"])


def test_what_has_no_referrers(raw: RawRegistry) -> None:
    """An empty list is the answer for a manifest, or a repository, that is not there."""
    raw.push_image("x", "1")
    for repository in ("x", "none"):
        reply = raw.ask("GET", f"/v2/{repository}/referrers/{digest_of(b'')}")
        assert (reply.status, reply.json["manifests"]) == (200, [])


def test_tag_is_deleted(raw: RawRegistry) -> None:
    """A tag goes alone: the manifest stays under its digest and its other tags."""
    raw.push_image("x", "2")
    digest = raw.push_image("x", "1")
    assert raw.ask("DELETE", "/v2/x/manifests/1").status == 202
    assert raw.ask("GET", "/v2/x/manifests/1").status == 404
    assert raw.ask("DELETE", "/v2/x/manifests/1").status == 404
    assert raw.ask("GET", "/v2/x/manifests/2").status == 200
    assert raw.ask("GET", f"/v2/x/manifests/{digest}").status == 200


def test_manifest_is_deleted(raw: RawRegistry) -> None:
    """A manifest goes with all its tags, and from the list of referrers; what is beside it stays."""
    raw.push_blob("x", EMPTY)
    kept = raw.push_manifest("x", artifact(), "kept")
    target = descriptor(b"", MANIFEST) | {"digest": kept}
    digest = raw.push_manifest("x", artifact(subject=target), "1")
    raw.push_manifest("x", artifact(subject=target), "2")
    assert len(raw.ask("GET", f"/v2/x/referrers/{kept}").json["manifests"]) == 1
    assert raw.ask("DELETE", f"/v2/x/manifests/{digest}").status == 202
    for name in ("1", "2", digest):
        assert raw.ask("GET", f"/v2/x/manifests/{name}").status == 404
    assert raw.ask("DELETE", f"/v2/x/manifests/{digest}").codes == ["MANIFEST_UNKNOWN"]
    assert raw.ask("GET", f"/v2/x/referrers/{kept}").json["manifests"] == []
    assert raw.ask("GET", "/v2/x/tags/list").json["tags"] == ["kept"]
    assert raw.push_manifest("x", artifact(subject=target), "1") == digest
    assert raw.ask("GET", "/v2/x/manifests/1").status == 200


def test_damaged_manifest_is_not_served(tmp_path: Path) -> None:
    """A manifest whose file was changed is not there any more, and pushing it again brings it back."""
    with cl.Registry.serve(directory=tmp_path) as server:
        raw = RawRegistry(server.host, server.port)
        digest = raw.push_image("x", "1")
        (tmp_path / "blobs" / "sha256" / digest.partition(":")[2]).write_bytes(b"{}")
        assert raw.ask("GET", "/v2/x/manifests/1").codes == ["MANIFEST_UNKNOWN"]
        assert raw.push_image("x", "1") == digest
        assert raw.ask("GET", "/v2/x/manifests/1").headers["docker-content-digest"] == digest


def test_blob_is_deleted(tmp_path: Path) -> None:
    """A blob goes from one repository and stays in the others; its content goes with the last."""
    with cl.Registry.serve(directory=tmp_path) as server:
        raw = RawRegistry(server.host, server.port)
        digest = raw.push_blob("x", BLOB)
        raw.push_blob("y", BLOB)
        content = tmp_path / "blobs" / "sha256" / digest.partition(":")[2]
        assert raw.ask("DELETE", f"/v2/x/blobs/{digest}").status == 202
        assert raw.ask("HEAD", f"/v2/x/blobs/{digest}").status == 404
        assert raw.ask("DELETE", f"/v2/x/blobs/{digest}").codes == ["BLOB_UNKNOWN"]
        assert raw.ask("DELETE", f"/v2/none/blobs/{digest}").codes == ["NAME_UNKNOWN"]
        assert raw.ask("GET", f"/v2/y/blobs/{digest}").body == BLOB
        assert content.exists()
        assert raw.ask("DELETE", f"/v2/y/blobs/{digest}").status == 202
        assert not content.exists()


def test_deleting_can_be_forbidden(tmp_path: Path) -> None:
    """Without deletion, and read-only, the requests that change something are 405, and nothing changes."""
    with cl.Registry.serve(directory=tmp_path, allow_delete=False) as server:
        raw = RawRegistry(server.host, server.port)
        digest, blob = raw.push_image("x", "1"), digest_of(b"layer")
        for path in ("manifests/1", f"manifests/{digest}", f"blobs/{blob}"):
            reply = raw.ask("DELETE", f"/v2/x/{path}")
            assert (reply.status, reply.codes) == (405, ["UNSUPPORTED"])
    with cl.Registry.serve(directory=tmp_path, read_only=True) as server:
        raw = RawRegistry(server.host, server.port)
        for method, path in (
            ("DELETE", "manifests/1"),
            ("PUT", "manifests/1"),
            ("POST", "blobs/uploads/"),
            ("PATCH", "blobs/uploads/01234567-89ab-cdef-0123-456789abcdef"),
            ("DELETE", f"blobs/{blob}"),
        ):
            reply = raw.ask(method, f"/v2/x/{path}")
            assert (reply.status, reply.codes) == (405, ["UNSUPPORTED"])
        assert raw.ask("HEAD", "/v2/x/manifests/1").headers["docker-content-digest"] == digest
        assert raw.ask("GET", f"/v2/x/blobs/{blob}").body == b"layer"
