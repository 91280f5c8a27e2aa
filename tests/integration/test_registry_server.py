"""Our registry by the tables of the specification: pull, push, content discovery, content management.

Each test runs twice: with a directory of the registry's own, and with the engine's store behind it.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from support.oci_layout import INDEX, MANIFEST
from support.registry_http import EMPTY, RawRegistry, artifact, descriptor, digest_of, index

import containerlib as cl

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from containerlib import Engine, RegistryServer

pytestmark = pytest.mark.root

DUMMY = "sha256:" + "0" * 64
BLOB = bytes(range(256)) * 300
DIGEST = digest_of(BLOB)
DOCKER = "application/vnd.docker.distribution.manifest.v2+json"


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


# What is not there, or not asked for rightly: method, path, status, code. One line for each row of the
# specification's table of endpoints, with its failures.
REFUSED = [
    ("GET", "/v3/", 404, "NAME_UNKNOWN"),
    ("GET", f"/v2/none/blobs/{DUMMY}", 404, "NAME_UNKNOWN"),
    ("GET", f"/v2/here/blobs/{DUMMY}", 404, "BLOB_UNKNOWN"),
    ("GET", "/v2/here/blobs/sha256:zz", 400, "DIGEST_INVALID"),
    ("GET", "/v2/here/blobs/md5:" + "0" * 32, 400, "DIGEST_INVALID"),
    ("GET", "/v2/none/manifests/1", 404, "NAME_UNKNOWN"),
    ("GET", "/v2/here/manifests/nope", 404, "MANIFEST_UNKNOWN"),
    ("GET", "/v2/here/manifests/.INVALID", 404, "MANIFEST_UNKNOWN"),
    ("GET", f"/v2/here/manifests/{DUMMY}", 404, "MANIFEST_UNKNOWN"),
    ("GET", "/v2/here/manifests/sha256:12", 400, "DIGEST_INVALID"),
    ("GET", f"/v2/here/manifests/{DIGEST}", 404, "MANIFEST_UNKNOWN"),  # a blob is no manifest
    ("POST", f"/v2/here/blobs/uploads/?digest={DUMMY}", 400, "DIGEST_INVALID"),
    ("POST", "/v2/here/blobs/uploads/?digest=nonsense", 400, "DIGEST_INVALID"),
    ("POST", "/v2/here/blobs/uploads/?digest-algorithm=md5", 400, "DIGEST_INVALID"),
    ("POST", "/v2/here/blobs/uploads/?mount=nonsense&from=other", 400, "DIGEST_INVALID"),
    ("PATCH", "/v2/here/blobs/uploads/no-such", 404, "BLOB_UPLOAD_UNKNOWN"),
    ("PATCH", "/v2/here/blobs/uploads/01234567-89ab-cdef-0123-456789abcdef", 404, "BLOB_UPLOAD_UNKNOWN"),
    ("PUT", f"/v2/here/blobs/uploads/01234567-89ab-cdef-0123-456789abcdef?digest={DIGEST}", 404,
     "BLOB_UPLOAD_UNKNOWN"),
    ("GET", "/v2/here/blobs/uploads/01234567-89ab-cdef-0123-456789abcdef", 404, "BLOB_UPLOAD_UNKNOWN"),
    ("DELETE", "/v2/here/blobs/uploads/01234567-89ab-cdef-0123-456789abcdef", 404, "BLOB_UPLOAD_UNKNOWN"),
    ("PUT", "/v2/here/manifests/-bad", 400, "MANIFEST_INVALID"),
    ("PUT", f"/v2/here/manifests/{DUMMY}", 400, "MANIFEST_INVALID"),
    ("GET", "/v2/none/tags/list", 404, "NAME_UNKNOWN"),
    ("GET", "/v2/here/tags/list?n=-1", 400, "UNSUPPORTED"),
    ("GET", "/v2/here/tags/list?n=x", 400, "UNSUPPORTED"),
    ("DELETE", "/v2/none/manifests/1", 404, "NAME_UNKNOWN"),
    ("DELETE", "/v2/here/manifests/nope", 404, "MANIFEST_UNKNOWN"),
    ("DELETE", f"/v2/here/manifests/{DUMMY}", 404, "MANIFEST_UNKNOWN"),
    ("GET", "/v2/here/referrers/sha256:12", 400, "DIGEST_INVALID"),
    ("POST", "/v2/", 405, "UNSUPPORTED"),
    ("PUT", "/v2/_catalog", 405, "UNSUPPORTED"),
    ("PATCH", "/v2/here/manifests/1", 405, "UNSUPPORTED"),
    ("GET", "/v2/here/blobs/uploads/", 405, "UNSUPPORTED"),
    ("GET", "/v2/Here/manifests/1", 400, "NAME_INVALID"),
    ("GET", "/v2/a//b/manifests/1", 400, "NAME_INVALID"),
    ("GET", "/v2/../../etc/manifests/passwd", 400, "NAME_INVALID"),
    ("GET", "/v2/%2e%2e/%2e%2e/manifests/1", 400, "NAME_INVALID"),
    ("GET", "/v2/a%2f..%2fb/manifests/1", 400, "NAME_INVALID"),
    ("GET", "/v2/here/manifests/..%2f..%2fregistry.json", 404, "NAME_UNKNOWN"),
    ("GET", "/v2/here/_tags/manifests/1", 400, "NAME_INVALID"),
    ("GET", "/v2/a%00b/manifests/1", 400, "NAME_INVALID"),
    ("GET", "/v2/h%C3%A9/manifests/1", 400, "NAME_INVALID"),
    ("GET", f"/v2/{'a' * 256}/manifests/1", 400, "NAME_INVALID"),
    ("GET", f"/v2/{'a/' * 600}b/manifests/1", 414, "NAME_INVALID"),
    ("GET", "/token", 404, "UNSUPPORTED"),
]  # fmt: skip


def test_what_is_refused(raw: RawRegistry) -> None:
    """Each request that cannot be served gets the status and the code that the specification has for it."""
    raw.push_blob("here", BLOB)
    raw.push_image("here", "1")
    seen = []
    for method, path, _status, _code in REFUSED:
        body = b"body" if method in {"POST", "PUT", "PATCH"} else None
        reply = raw.ask(method, path, body)
        seen.append((method, path, reply.status, *reply.codes))
    assert seen == REFUSED


def test_support_is_announced(raw: RawRegistry) -> None:
    """``/v2/`` answers 200, with or without its slash, and says which protocol this is."""
    for path in ("/v2/", "/v2"):
        reply = raw.ask("GET", path)
        assert (reply.status, reply.headers["docker-distribution-api-version"]) == (200, "registry/2.0")


def test_manifests_come_back_byte_for_byte(raw: RawRegistry) -> None:
    """A manifest is served under tag and digest with its own type, exactly as it was written."""
    raw.push_blob("team/app", EMPTY)
    data = json.dumps(artifact(), indent=3).encode() + b"\n  "
    put = raw.ask("PUT", "/v2/team/app/manifests/1", data, {"Content-Type": f"{MANIFEST}; charset=utf-8"})
    digest = digest_of(data)
    assert put.status == 201
    assert put.headers["location"] == f"/v2/team/app/manifests/{digest}"
    assert put.headers["docker-content-digest"] == digest
    for name in ("1", digest, digest.replace(":", "%3A")):
        for method in ("GET", "HEAD"):
            reply = raw.ask(method, f"/v2/team/app/manifests/{name}", headers={"Accept": "text/plain"})
            assert (reply.status, reply.body) == (200, data if method == "GET" else b"")
            assert reply.headers["content-type"] == MANIFEST
            assert reply.headers["docker-content-digest"] == digest
            assert reply.headers["content-length"] == str(len(data))
    again = raw.ask("GET", "/v2/team/app/manifests/1", headers={"If-None-Match": f'"{digest}"'})
    assert (again.status, again.body) == (304, b"")


RANGES = [
    ("bytes=0-0", 206, BLOB[:1]),
    ("bytes=10-19", 206, BLOB[10:20]),
    ("bytes=76700-", 206, BLOB[76700:]),
    ("bytes=-7", 206, BLOB[-7:]),
    ("bytes=0-99999999", 206, BLOB),
    ("bytes=76800-", 416, None),
    ("bytes=9-3", 416, None),
]


def test_blobs_are_read_whole_and_in_parts(raw: RawRegistry) -> None:
    """A blob comes whole, or the range of it that was asked for; a range beyond its end is 416."""
    raw.push_blob("x", BLOB)
    path = f"/v2/x/blobs/{DIGEST}"
    for method in ("GET", "HEAD"):
        reply = raw.ask(method, path)
        assert (reply.status, reply.body) == (200, BLOB if method == "GET" else b"")
        assert reply.headers["content-length"] == str(len(BLOB))
        assert reply.headers["docker-content-digest"] == DIGEST
        assert reply.headers["accept-ranges"] == "bytes"
    for asked, status, expected in RANGES:
        reply = raw.ask("GET", path, headers={"Range": asked})
        assert reply.status == status, asked
        assert expected is None or reply.body == expected, asked
        assert reply.headers["content-range"].endswith(f"/{len(BLOB)}"), asked


def test_blob_is_pushed_in_every_way(raw: RawRegistry) -> None:
    """One request, two requests, a stream and chunks all end with the blob at the place that is given."""
    pieces = [BLOB[:1000], BLOB[1000:50_000], BLOB[50_000:]]
    whole = raw.ask("POST", f"/v2/w/blobs/uploads/?digest={DIGEST}", BLOB)
    begun = raw.ask("POST", "/v2/t/blobs/uploads/")
    two = raw.ask("PUT", f"{begun.headers['location']}?digest={DIGEST}", BLOB)
    stream = raw.ask("POST", "/v2/s/blobs/uploads/").headers["location"]
    assert raw.ask("PATCH", stream, iter(pieces)).status == 202
    streamed = raw.ask("PUT", f"{stream}?digest={DIGEST}", b"")
    place, sent = raw.ask("POST", "/v2/c/blobs/uploads/").headers["location"], 0
    for piece in pieces:
        chunk = {"Content-Range": f"{sent}-{sent + len(piece) - 1}"}
        reply = raw.ask("PATCH", place, piece, chunk)
        place, sent = reply.headers["location"], sent + len(piece)
        assert (reply.status, reply.headers["range"]) == (202, f"0-{sent - 1}")
    chunked = raw.ask("PUT", f"{place}?digest={DIGEST}", b"")
    for repository, reply in zip("wtsc", (whole, two, streamed, chunked), strict=True):
        assert reply.status == 201, reply
        assert reply.headers["location"] == f"/v2/{repository}/blobs/{DIGEST}"
        assert raw.ask("GET", reply.headers["location"]).body == BLOB


def test_last_chunk_may_come_with_the_end(raw: RawRegistry) -> None:
    """The request that closes an upload may bring its last chunk, and only the right one."""
    place = raw.ask("POST", "/v2/c/blobs/uploads/").headers["location"]
    raw.ask("PATCH", place, BLOB[:500], {"Content-Range": "0-499"})
    end = f"{place}?digest={DIGEST}"
    wrong = raw.ask("PUT", end, BLOB[600:], {"Content-Range": f"600-{len(BLOB) - 1}"})
    assert (wrong.status, wrong.codes) == (416, ["BLOB_UPLOAD_INVALID"])
    assert wrong.headers["range"] == "0-499"


def test_chunks_out_of_order_are_told_where_to_go_on(raw: RawRegistry) -> None:
    """A chunk that leaves a gap, repeats or lies about its length is refused, and the upload goes on."""
    place = raw.ask("POST", "/v2/c/blobs/uploads/").headers["location"]
    assert raw.ask("GET", place).status == 204
    gap = raw.ask("PATCH", place, BLOB[10:20], {"Content-Range": "10-19"})
    assert (gap.status, gap.headers["location"]) == (416, place)
    raw.ask("PATCH", place, BLOB[:10], {"Content-Range": "0-9"})
    twice = raw.ask("PATCH", place, BLOB[:10], {"Content-Range": "0-9"})
    assert (twice.status, twice.headers["range"]) == (416, "0-9")
    for text, code in (("bytes 10-19/*", "BLOB_UPLOAD_INVALID"), ("19-10", "BLOB_UPLOAD_INVALID"),
                       ("10-25", "SIZE_INVALID")):  # fmt: skip
        reply = raw.ask("PATCH", place, BLOB[10:20], {"Content-Range": text})
        assert (reply.status, reply.codes) == (400, [code]), text
    status = raw.ask("GET", place)
    assert (status.status, status.headers["range"], status.headers["location"]) == (204, "0-9", place)
    done = raw.ask("PUT", f"{place}?digest={DIGEST}", BLOB[10:], {"Content-Range": f"10-{len(BLOB) - 1}"})
    assert done.status == 201


def test_upload_is_cancelled(raw: RawRegistry) -> None:
    """What is cancelled is gone, and so is what ended with a wrong digest."""
    place = raw.ask("POST", "/v2/c/blobs/uploads/").headers["location"]
    raw.ask("PATCH", place, BLOB)
    assert raw.ask("DELETE", place).status == 204
    assert raw.ask("PUT", f"{place}?digest={DIGEST}", b"").codes == ["BLOB_UPLOAD_UNKNOWN"]
    place = raw.ask("POST", "/v2/c/blobs/uploads/").headers["location"]
    wrong = raw.ask("PUT", f"{place}?digest={DUMMY}", BLOB)
    assert (wrong.status, wrong.codes) == (400, ["DIGEST_INVALID"])
    assert raw.ask("GET", place).status == 404
    assert raw.ask("HEAD", f"/v2/c/blobs/{DIGEST}").status == 404
    assert raw.ask("HEAD", f"/v2/c/blobs/{DUMMY}").status == 404


def test_other_algorithm(raw: RawRegistry) -> None:
    """Blobs and manifests named by sha512 work, whether the algorithm was announced or not."""
    digest = digest_of(BLOB, "sha512")
    for query in ("", "?digest-algorithm=sha512"):
        place = raw.ask("POST", f"/v2/long{query[1:4]}/blobs/uploads/{query}").headers["location"]
        assert raw.ask("PUT", f"{place}?digest={digest}", BLOB).status == 201
    assert raw.ask("GET", f"/v2/long/blobs/{digest}").body == BLOB
    raw.push_blob("long", EMPTY)
    data = json.dumps(artifact(BLOB) | {"layers": [descriptor(BLOB, "text/plain", "sha512")]}).encode()
    name = digest_of(data, "sha512")
    put = raw.ask("PUT", f"/v2/long/manifests/{name}", data, {"Content-Type": MANIFEST})
    assert (put.status, put.headers["docker-content-digest"]) == (201, name)
    assert raw.ask("GET", f"/v2/long/manifests/{name}").body == data


def test_blob_is_mounted(raw: RawRegistry) -> None:
    """A blob of another repository is taken from there; one that is not there begins an upload."""
    raw.push_blob("from/here", BLOB)
    mounted = raw.ask("POST", f"/v2/to/blobs/uploads/?mount={DIGEST}&from=from/here")
    assert (mounted.status, mounted.headers["location"]) == (201, f"/v2/to/blobs/{DIGEST}")
    assert raw.ask("GET", f"/v2/to/blobs/{DIGEST}").body == BLOB
    for query in (f"mount={DUMMY}&from=from/here", f"mount={DIGEST}&from=nowhere", f"mount={DIGEST}",
                  f"mount={DIGEST}&from=../from/here"):  # fmt: skip
        reply = raw.ask("POST", f"/v2/other/blobs/uploads/?{query}")
        assert reply.status == 202, query
        assert raw.ask("PUT", f"{reply.headers['location']}?digest={digest_of(b'')}", b"").status == 201


def test_blobs_belong_to_their_repository(raw: RawRegistry) -> None:
    """What one repository has cannot be read by the name of another."""
    raw.push_image("secret", "1", layer=BLOB)
    raw.push_image("public", "1", layer=b"other")
    assert raw.ask("GET", f"/v2/public/blobs/{DIGEST}").codes == ["BLOB_UNKNOWN"]
    digest = raw.ask("HEAD", "/v2/secret/manifests/1").headers["docker-content-digest"]
    assert raw.ask("GET", f"/v2/public/manifests/{digest}").codes == ["MANIFEST_UNKNOWN"]


AMBIGUOUS: list[tuple[str, str, bytes]] = [
    ("schema 1", "application/vnd.docker.distribution.manifest.v1+prettyjws",
     b'{"schemaVersion": 1, "name": "x", "tag": "1", "fsLayers": [], "history": []}'),
    ("both kinds", INDEX, json.dumps(artifact() | {"mediaType": INDEX, "manifests": []}).encode()),
    ("manifests in a manifest", MANIFEST, json.dumps(artifact() | {"manifests": []}).encode()),
    ("another type", DOCKER, json.dumps(artifact()).encode()),
    ("no type at all", "", json.dumps({k: v for k, v in artifact().items() if k != "mediaType"}).encode()),
    ("no manifest", "text/plain", json.dumps(artifact() | {"mediaType": "text/plain"}).encode()),
    ("a key twice", MANIFEST, json.dumps(artifact()).encode()[:-1] + b', "layers": []}'),
    ("no config", MANIFEST, json.dumps({k: v for k, v in artifact().items() if k != "config"}).encode()),
    ("wrong digest", MANIFEST, json.dumps(artifact(b"x")).replace("sha256:", "sha256:../").encode()),
    ("no JSON", MANIFEST, b"\xff\xfe"),
    ("a list", MANIFEST, b"[]"),
    ("nothing", MANIFEST, b""),
    ("too deep", MANIFEST, b'{"schemaVersion": 2, "a": ' + b"[" * 1000 + b"]" * 1000 + b"}"),
    ("wrong size", MANIFEST,
     json.dumps(artifact() | {"config": descriptor(EMPTY, "a/b") | {"size": 3}}).encode()),
]  # fmt: skip


def test_manifests_that_can_be_misread_are_refused(raw: RawRegistry) -> None:
    """Old, damaged and ambiguous manifests are MANIFEST_INVALID, and their tag stays what it was."""
    raw.push_blob("x", EMPTY)
    digest = raw.push_manifest("x", artifact(), "1")
    seen = {}
    for what, kind, data in AMBIGUOUS:
        reply = raw.ask("PUT", "/v2/x/manifests/1", data, {"Content-Type": kind} if kind else {})
        seen[what] = (reply.status, reply.codes)
    assert seen == {what: (400, ["MANIFEST_INVALID"]) for what, _, _ in AMBIGUOUS}
    assert raw.ask("HEAD", "/v2/x/manifests/1").headers["docker-content-digest"] == digest


def test_manifest_needs_its_parts(raw: RawRegistry) -> None:
    """A manifest whose parts are missing is told which; foreign layers and subjects may be missing."""
    raw.push_blob("x", EMPTY)
    missing = artifact(BLOB)
    reply = raw.ask("PUT", "/v2/x/manifests/1", json.dumps(missing).encode(), {"Content-Type": MANIFEST})
    assert (reply.status, reply.codes) == (404, ["MANIFEST_BLOB_UNKNOWN"])
    assert reply.json["errors"][0]["detail"] == {"digests": [DIGEST]}
    whole = index(missing)
    reply = raw.ask("PUT", "/v2/x/manifests/1", json.dumps(whole).encode(), {"Content-Type": INDEX})
    assert (reply.status, reply.codes) == (404, ["MANIFEST_BLOB_UNKNOWN"])
    foreign = descriptor(b"far", "application/vnd.oci.image.layer.nondistributable.v1.tar")
    raw.push_manifest("x", artifact() | {"layers": [foreign], "subject": descriptor(b"none", MANIFEST)}, "f")
    raw.push_manifest("x", artifact())
    raw.push_manifest("x", index(artifact()), "i")


def test_several_tags_at_once(raw: RawRegistry) -> None:
    """A manifest that is pushed by digest takes further tags along, and only proper ones."""
    raw.push_blob("x", EMPTY)
    data = json.dumps(artifact()).encode()
    path = f"/v2/x/manifests/{digest_of(data)}"
    query = "&".join(f"tag=t{number}" for number in range(12))
    reply = raw.ask("PUT", f"{path}?{query}", data, {"Content-Type": MANIFEST})
    assert (reply.status, reply.headers["oci-tag"].split(", ")) == (201, [f"t{n}" for n in range(12)])
    assert len(raw.ask("GET", "/v2/x/tags/list").json["tags"]) == 12
    assert raw.ask("PUT", f"{path}?tag=-no", data, {"Content-Type": MANIFEST}).status == 400
    many = "&".join(f"tag=t{number}" for number in range(40))
    assert raw.ask("PUT", f"{path}?{many}", data, {"Content-Type": MANIFEST}).status == 414
