"""Our registry as a cache: what it fetches, keeps and verifies, and serves when the other one is down."""

from __future__ import annotations

import contextlib
import http.client
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from support.oci_layout import MANIFEST
from support.registry_http import EMPTY, RawRegistry, artifact, descriptor, digest_of, until
from support.small_registry import Reply, Request, SmallRegistry, serve

import containerlib as cl

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.root

BLOB = bytes(range(256)) * 20_000
DIGEST = digest_of(BLOB)
DOCUMENT = artifact(BLOB)
RAW = json.dumps(DOCUMENT).encode()
NAME = digest_of(RAW)


def fill(upstream: SmallRegistry, repository: str = "team/app") -> None:
    """Give a registry one image."""
    for data in (BLOB, EMPTY):
        upstream.blobs[repository, digest_of(data)] = data
    for name in ("1", NAME):
        upstream.manifests[repository, name] = (MANIFEST, RAW)


@pytest.fixture
def upstream() -> Iterator[SmallRegistry]:
    """Return the other registry, with one image."""
    with serve() as running:
        fill(running)
        yield running


@pytest.fixture
def raw(upstream: SmallRegistry, tmp_path: Path) -> Iterator[RawRegistry]:
    """Return a client of the cache."""
    with cl.Registry.serve(directory=tmp_path / "d", upstream=upstream.host) as server:
        yield RawRegistry(server.host, server.port)


def down(_request: Request) -> Reply:
    """Be out of order."""
    return Reply(503)


def instead(method: str, beginning: str, reply: Callable[[Request], Reply | None]) -> Any:
    """Answer the requests that begin so in another way."""
    return lambda request: (
        reply(request) if request.method == method and request.path.startswith(beginning) else None
    )


def test_image_is_fetched_once(raw: RawRegistry, upstream: SmallRegistry, tmp_path: Path) -> None:
    """What is asked for a second time comes from here; only the tag is asked after, with HEAD."""
    for _ in range(3):
        reply = raw.ask("GET", "/v2/team/app/manifests/1")
        assert (reply.status, reply.body, reply.headers["content-type"]) == (200, RAW, MANIFEST)
        assert raw.ask("GET", f"/v2/team/app/manifests/{NAME}").body == RAW
        assert raw.ask("GET", f"/v2/team/app/blobs/{DIGEST}").body == BLOB
        head = raw.ask("HEAD", f"/v2/team/app/blobs/{DIGEST}")
        assert (head.status, head.headers["content-length"]) == (200, str(len(BLOB)))
    assert upstream.targets("GET /v2/team/app/manifests/") == ["GET /v2/team/app/manifests/1"]
    assert len(upstream.targets(f"GET /v2/team/app/blobs/{DIGEST}")) == 1
    assert len(upstream.targets("HEAD /v2/team/app/manifests/1")) == 2
    assert raw.ask("GET", "/v2/_catalog").json == {"repositories": ["team/app"]}
    assert list((tmp_path / "d" / "incoming").iterdir()) == []


def test_parts_of_blobs(raw: RawRegistry, upstream: SmallRegistry) -> None:
    """A part of a blob that is not here yet is given when all of it is here and verified."""
    path = f"/v2/team/app/blobs/{DIGEST}"
    reply = raw.ask("GET", path, headers={"Range": "bytes=100-199"})
    assert (reply.status, reply.body) == (206, BLOB[100:200])
    assert raw.ask("GET", path).body == BLOB
    assert len(upstream.targets(f"GET {path}")) == 1
    empty = digest_of(b"")
    upstream.blobs["team/app", empty] = b""
    assert raw.ask("GET", f"/v2/team/app/blobs/{empty}").body == b""


def test_moved_tag_is_noticed(raw: RawRegistry, upstream: SmallRegistry) -> None:
    """A tag that means something else there means that here, too; one that is gone is gone."""
    assert raw.ask("GET", "/v2/team/app/manifests/1").body == RAW
    other = json.dumps(artifact()).encode()
    upstream.manifests["team/app", "1"] = (MANIFEST, other)
    assert raw.ask("GET", "/v2/team/app/manifests/1").body == other
    del upstream.manifests["team/app", "1"]
    assert raw.ask("GET", "/v2/team/app/manifests/1").codes == ["MANIFEST_UNKNOWN"]
    assert raw.ask("GET", f"/v2/team/app/manifests/{NAME}").body == RAW


def test_many_ask_at_once(raw: RawRegistry, upstream: SmallRegistry) -> None:
    """Eight clients that want the same blob at the same time cost the other registry one download."""
    held = threading.Event()
    upstream.intercept = instead("GET", "/v2/team/app/blobs/", lambda _: held.wait(30) and None)
    with ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(raw.ask, "GET", f"/v2/team/app/blobs/{DIGEST}") for _ in range(8)]
        until(lambda: bool(upstream.targets("GET /v2/team/app/blobs/")), "the download")
        held.set()
        assert [each.result().body == BLOB for each in asked] == [True] * 8
    assert len(upstream.targets("GET /v2/team/app/blobs/")) == 1


def test_many_small_blobs(raw: RawRegistry, upstream: SmallRegistry) -> None:
    """Blobs that arrive faster than they are asked after come right, too, to several clients at once."""
    blobs = {digest_of(data): data for data in (b"%d" % number for number in range(40))}
    upstream.blobs.update({("team/app", digest): data for digest, data in blobs.items()})
    with ThreadPoolExecutor(8) as pool:
        asked = {
            pool.submit(raw.ask, "GET", f"/v2/team/app/blobs/{digest}"): data
            for digest, data in (*blobs.items(), *blobs.items(), *blobs.items())
        }
        assert [each.result().body for each in asked] == list(asked.values())


def test_blob_is_read_while_it_comes(raw: RawRegistry, upstream: SmallRegistry) -> None:
    """A client gets the first bytes before the last ones have arrived here."""
    held = threading.Event()
    half = len(BLOB) // 2

    def answer(request: Request) -> Reply | None:
        if "range" in request.headers:
            held.wait(30)
            return None
        return Reply(200, {"Content-Length": str(len(BLOB))}, BLOB[:half])  # and then the line breaks

    upstream.intercept = instead("GET", "/v2/team/app/blobs/", answer)
    connection = raw.connect()
    connection.request("GET", f"/v2/team/app/blobs/{DIGEST}")
    reply = connection.getresponse()
    assert (reply.status, reply.read(half)) == (200, BLOB[:half])
    held.set()
    assert reply.read() == BLOB[half:]
    connection.close()


def test_other_registry_is_down(raw: RawRegistry, upstream: SmallRegistry) -> None:
    """What is here is served while the other registry is out of order; the rest is 503 and says why."""
    raw.ask("GET", "/v2/team/app/manifests/1")
    raw.ask("GET", f"/v2/team/app/blobs/{DIGEST}")
    for reply in (Reply(503), Reply(429, {"Retry-After": "100"}), Reply(200, {}, None)):
        upstream.intercept = lambda _request, reply=reply: reply
        assert raw.ask("GET", "/v2/team/app/manifests/1").body == RAW
        assert raw.ask("GET", f"/v2/team/app/blobs/{DIGEST}").body == BLOB
        assert raw.ask("GET", "/v2/team/app/tags/list").json["tags"] == ["1"]
        for path in (f"blobs/{digest_of(EMPTY)}", "manifests/2"):
            missing = raw.ask("GET", f"/v2/team/app/{path}")
            assert (missing.status, missing.codes) == (503, ["UNAVAILABLE"]), reply


def test_other_registry_does_not_have_it(raw: RawRegistry) -> None:
    """What the other registry does not have is 404 here, and asking again asks again."""
    for path, code in (
        ("none/manifests/1", "NAME_UNKNOWN"),
        (f"team/app/blobs/{digest_of(b'x')}", "BLOB_UNKNOWN"),
        ("none/tags/list", "NAME_UNKNOWN"),
    ):
        reply = raw.ask("GET", f"/v2/{path}")
        assert (reply.status, reply.codes) == (404, [code]), path


def test_other_registry_lets_nobody_in(raw: RawRegistry, upstream: SmallRegistry) -> None:
    """Credentials that the cache does not have are its owner's business: clients are told 403."""
    upstream.admits = lambda _request, _scope: False
    upstream.challenge = 'Basic realm="x"'
    for path in ("manifests/1", f"blobs/{DIGEST}", "tags/list"):
        reply = raw.ask("GET", f"/v2/team/app/{path}")
        assert (reply.status, reply.codes) == (403, ["DENIED"]), path


def test_lies_are_not_kept(raw: RawRegistry, upstream: SmallRegistry, tmp_path: Path) -> None:
    """Wrong bytes never arrive in whole at a client and are not kept; the right ones are fetched later."""
    wrong = BLOB[:-1] + b"!"
    upstream.intercept = instead("GET", "/v2/team/app/blobs/", lambda _: Reply(200, {}, wrong))
    path = f"/v2/team/app/blobs/{DIGEST}"
    with contextlib.suppress(http.client.HTTPException, ConnectionError):
        reply = raw.ask("GET", path)
        assert reply.status >= 500
    part = raw.ask("GET", path, headers={"Range": "bytes=0-9"})
    assert (part.status, part.codes) == (502, ["UNAVAILABLE"])
    assert not (tmp_path / "d" / "blobs").exists() or not any((tmp_path / "d" / "blobs").rglob(DIGEST[7:]))
    upstream.intercept = instead(
        "GET", "/v2/team/app/manifests/", lambda _: Reply(200, {"Content-Type": MANIFEST}, RAW + b" ")
    )
    reply = raw.ask("GET", f"/v2/team/app/manifests/{NAME}")
    assert (reply.status, reply.codes) == (502, ["UNAVAILABLE"])
    upstream.intercept = instead(
        "GET", "/v2/team/app/manifests/", lambda _: Reply(200, {"Content-Type": MANIFEST}, b"{}")
    )
    assert raw.ask("GET", "/v2/team/app/manifests/1").status == 502
    upstream.intercept = lambda _request: None
    assert raw.ask("GET", path).body == BLOB
    assert raw.ask("GET", f"/v2/team/app/manifests/{NAME}").body == RAW


def test_limit_of_size(upstream: SmallRegistry, tmp_path: Path) -> None:
    """A blob over the limit is not fetched."""
    with cl.Registry.serve(directory=tmp_path, upstream=upstream.host, max_blob_bytes=1000) as server:
        raw = RawRegistry(server.host, server.port)
        assert raw.ask("GET", f"/v2/team/app/blobs/{DIGEST}").status == 502
        assert upstream.targets("GET /v2/team/app/blobs/") == []


def test_number_of_downloads(upstream: SmallRegistry, tmp_path: Path) -> None:
    """A cache that fetches as much as it may says when to try again, and goes on when it has room."""
    held = threading.Event()
    upstream.intercept = instead("GET", f"/v2/team/app/blobs/{DIGEST}", lambda _: held.wait(30) and None)
    with cl.Registry.serve(directory=tmp_path, upstream=upstream.host, max_uploads=1) as server:
        raw = RawRegistry(server.host, server.port)
        with ThreadPoolExecutor(1) as pool:
            first = pool.submit(raw.ask, "GET", f"/v2/team/app/blobs/{DIGEST}")
            until(lambda: bool(upstream.targets("GET /v2/team/app/blobs/")), "the download")
            busy = raw.ask("GET", f"/v2/team/app/blobs/{digest_of(EMPTY)}")
            assert (busy.status, busy.codes) == (429, ["TOOMANYREQUESTS"])
            held.set()
            assert first.result().body == BLOB
        until(lambda: raw.ask("GET", f"/v2/team/app/blobs/{digest_of(EMPTY)}").body == EMPTY, "room")


def test_nothing_is_pushed_to_a_cache(raw: RawRegistry) -> None:
    """Pushing to a cache, and deleting from it, is 405."""
    for method, path in (
        ("PUT", "manifests/1"),
        ("POST", "blobs/uploads/"),
        ("DELETE", "manifests/1"),
        ("DELETE", f"blobs/{DIGEST}"),
    ):
        reply = raw.ask(method, f"/v2/team/app/{path}")
        assert (reply.status, reply.codes) == (405, ["UNSUPPORTED"])


def test_referrers_and_tags_of_the_other(raw: RawRegistry, upstream: SmallRegistry) -> None:
    """Tags and referrers are those of the other registry, so nothing that is new there is hidden."""
    signature = json.dumps(artifact(subject=descriptor(RAW, MANIFEST), artifactType="a/signature")).encode()
    upstream.manifests["team/app", digest_of(signature)] = (MANIFEST, signature)
    upstream.manifests["team/app", "2"] = (MANIFEST, RAW)
    found = raw.ask("GET", f"/v2/team/app/referrers/{NAME}?artifactType=a%2Fsignature").json["manifests"]
    assert [each["digest"] for each in found] == [digest_of(signature)]
    assert raw.ask("GET", "/v2/team/app/tags/list").json["tags"] == ["1", "2"]


def test_stops_while_fetching(upstream: SmallRegistry, tmp_path: Path) -> None:
    """Closing the cache in the middle of a download leaves nothing by half."""
    begun, held = threading.Event(), threading.Event()

    def answer(request: Request) -> Reply | None:
        if "range" in request.headers:
            held.wait(30)
            return None
        begun.set()
        return Reply(200, {"Content-Length": str(len(BLOB))}, BLOB[:1000])

    upstream.intercept = instead("GET", "/v2/team/app/blobs/", answer)
    with cl.Registry.serve(directory=tmp_path, upstream=upstream.host) as server:
        connection = RawRegistry(server.host, server.port).connect()
        connection.request("GET", f"/v2/team/app/blobs/{DIGEST}")
        assert begun.wait(30)
        closing = threading.Thread(target=server.close)
        closing.start()
        held.set()
        closing.join()
        connection.close()
    assert not any(path.is_file() for path in (tmp_path / "incoming").iterdir())
