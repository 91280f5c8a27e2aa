"""The parts of our registry that need no network: paths, queries, users, tokens, uploads, error documents."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from containerlib.errors import InvalidInputError, SizeMismatch
from containerlib.oci.digest import Digest
from containerlib.oci.manifest import parse_manifest
from containerlib.registry.server.directory import DirectoryStorage
from containerlib.registry.server.flight import Flight
from containerlib.registry.server.htpasswd import Passwords
from containerlib.registry.server.incoming import FileIncoming
from containerlib.registry.server.refused import Refused, error_document
from containerlib.registry.server.route import (
    Route,
    as_digest,
    as_reference,
    parse_count,
    parse_query,
    parse_route,
)
from containerlib.registry.server.tokens import CATALOG, Access, Tokens, parse_scopes
from containerlib.registry.server.uploads import UploadLimits, Uploads

if TYPE_CHECKING:
    from pathlib import Path

SESSION = "01234567-89ab-cdef-0123-456789abcdef"
DIGEST = "sha256:" + "a" * 64

ROUTES = [
    ("/v2", Route("base")),
    ("/v2/", Route("base")),
    ("/token", Route("token")),
    ("/v2/_catalog", Route("catalog")),
    ("/v2/a/tags/list", Route("tags", "a")),
    ("/v2/a/b/manifests/1", Route("manifest", "a/b", "1")),
    (f"/v2/a/manifests/{DIGEST}", Route("manifest", "a", DIGEST)),
    (f"/v2/a/manifests/{DIGEST.replace(':', '%3a')}", Route("manifest", "a", DIGEST)),
    (f"/v2/a/blobs/{DIGEST}", Route("blob", "a", DIGEST)),
    ("/v2/a/blobs/uploads", Route("uploads", "a")),
    ("/v2/a/blobs/uploads/", Route("uploads", "a")),
    (f"/v2/a/blobs/uploads/{SESSION}", Route("upload", "a", SESSION)),
    (f"/v2/a/referrers/{DIGEST}", Route("referrers", "a", DIGEST)),
    ("/v2/manifests/manifests/manifests/manifests", Route("manifest", "manifests/manifests", "manifests")),
    ("/v2/tags/list/tags/list", Route("tags", "tags/list")),
    ("/v2/a/blobs/uploads/blobs/uploads/", Route("uploads", "a/blobs/uploads")),
    ("/v2/a/blobs/x", Route("blob", "a", "x")),
]


@pytest.mark.parametrize(("path", "route"), ROUTES)
def test_paths_are_understood(path: str, route: Route) -> None:
    """Each form of path leads to its resource, names that look like one included."""
    assert parse_route(path) == route


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/", "NAME_UNKNOWN"),
        ("/v1/", "NAME_UNKNOWN"),
        ("/v2/a", "NAME_UNKNOWN"),
        ("/v2/a/manifests/", "MANIFEST_UNKNOWN"),
        ("/v2//manifests/1", "NAME_INVALID"),
        ("/v2/manifests/1", "NAME_UNKNOWN"),
        ("/v2/../manifests/1", "NAME_INVALID"),
        ("/v2/a/%2e%2e/b/manifests/1", "NAME_INVALID"),
        ("/v2/a/%252e/manifests/1", "NAME_INVALID"),
        ("/v2/A/manifests/1", "NAME_INVALID"),
        ("/v2/a%0ab/manifests/1", "NAME_INVALID"),
        ("/v2/a/blobs/uploads/../x", "NAME_UNKNOWN"),
        ("/v2/a/blobs/uploads/x", "BLOB_UPLOAD_UNKNOWN"),
        (f"/v2/a/blobs/uploads/{SESSION.upper()}", "BLOB_UPLOAD_UNKNOWN"),
        ("/v2/" + "a" * 2000, "NAME_INVALID"),
    ],
)
def test_paths_are_refused(path: str, code: str) -> None:
    """A path that leads nowhere, or tries to lead elsewhere, is refused."""
    if code == "MANIFEST_UNKNOWN":
        assert parse_route(path).reference == ""
        return
    with pytest.raises(Refused) as caught:
        parse_route(path)
    assert caught.value.code == code


@given(st.text(max_size=80))
def test_any_path_is_safe(text: str) -> None:
    """Whatever the path is, what comes out of it has no component that leads out of a directory."""
    try:
        route = parse_route(f"/v2/{text}")
    except Refused:
        return
    assert not {"", ".", ".."} & set(route.repository.split("/")) or not route.repository
    assert not any(part.startswith("_") for part in route.repository.split("/"))
    assert "/" not in route.reference


def test_queries() -> None:
    """Parameters come with all their values; too many of them, or what is no text, are refused."""
    assert parse_query("a=1&a=2&b=&c=%2F") == {"a": ["1", "2"], "b": [""], "c": ["/"]}
    for bad in ("a=%ff", "&".join(["a=1"] * 100), "a=" + "b" * 5000):
        with pytest.raises(Refused) as caught:
            parse_query(bad)
        assert caught.value.status in {400, 414}


@pytest.mark.parametrize(("text", "count"), [("0", 0), ("5", 5), ("100", 100), ("101", 100), ("9" * 50, 100)])
def test_counts(text: str, count: int) -> None:
    """A number of results is taken up to the limit."""
    assert parse_count({"n": [text]}, 100) == count
    assert parse_count({}, 100) == 100


@pytest.mark.parametrize("text", ["", "-1", "1.5", "x", "\u0661", "1 "])
def test_counts_are_refused(text: str) -> None:
    """What is no number is refused."""
    with pytest.raises(Refused):
        parse_count({"n": [text]}, 100)


def test_references() -> None:
    """What is asked for by is a tag or a digest of an algorithm that is known."""
    assert as_reference("1.0_x-y") == "1.0_x-y"
    assert isinstance(as_reference(DIGEST), Digest)
    for bad in ("", "-a", "a/b", "a" * 129, "sha256:a", "md5:" + "a" * 32, DIGEST.upper(), ":"):
        with pytest.raises(Refused):
            as_reference(bad)
    with pytest.raises(Refused):
        as_digest("latest")


def test_error_document() -> None:
    """A refusal is told in the specification's form, however long its message is."""
    refused = Refused("NAME_INVALID", "x" * 5000, detail={"a": 1})
    assert refused.status == 400
    document = json.loads(error_document(refused))
    assert document == {"errors": [{"code": "NAME_INVALID", "message": "x" * 1000, "detail": {"a": 1}}]}


BCRYPT = b"$2b$04$A4gdF34YbxXzojKIPZplCeiPVBBfPc9I8A.gPFqcb.C20iQc31VYK"  # of "secret"


def test_passwords() -> None:
    """The right password of a user is right each time, and everything else is wrong."""
    passwords = Passwords.parse(b"# comment\n\nann:" + BCRYPT + b"\r\nj\xc3\xb6rg:" + BCRYPT + b"\n")
    for _ in range(2):
        assert passwords.check("ann", "secret")
        assert passwords.check("jörg", "secret")
        for user, password in (
            ("ann", "Secret"),
            ("ann", ""),
            ("bob", "secret"),
            ("", ""),
            ("ann", "secret\0"),
            ("ann", "secret" * 100),
            ("ann", "\udc80"),
        ):
            assert not passwords.check(user, password)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"ann",
        b":" + BCRYPT,
        b"ann:secret",
        b"ann:$apr1$x$y",
        b"ann:" + BCRYPT[:-1],
        b"ann:" + BCRYPT.replace(b"$04$", b"$31$"),
        b"a\x1bnn:" + BCRYPT,
    ],
)
def test_password_files_are_refused(data: bytes) -> None:
    """A file without users, of another form, or with a weak or ruinous hash, is refused."""
    with pytest.raises(InvalidInputError, match="password file"):
        Passwords.parse(data)


def test_tokens() -> None:
    """A token says what was put in, until it ends."""
    now = [1000.0]
    tokens = Tokens("s", 60, clock=lambda: now[0])
    access = (Access("a/b", ("pull", "push")), Access(CATALOG, ("*",)))
    token = tokens.issue("ann", access)
    assert tokens.read(token) == ("ann", access)
    payload = json.loads(base64.urlsafe_b64decode(token.split(".")[1] + "=="))
    assert payload["access"][0] == {"type": "repository", "name": "a/b", "actions": ["pull", "push"]}
    now[0] += 59
    assert tokens.read(token) is not None
    now[0] += 1
    assert tokens.read(token) is None
    assert Tokens("s", clock=lambda: 1000.0).read(token) is None


@given(st.text(max_size=200))
def test_no_text_is_a_token(text: str) -> None:
    """Whatever a client sends for a token, it is none, and nothing breaks."""
    assert Tokens("s").read(text.encode("utf-8", "replace").decode()) is None


def test_scopes() -> None:
    """Scopes are understood in all the forms that clients write, and only known actions are granted."""
    assert parse_scopes(["repository:a/b:pull,push repository:c:*", "registry:catalog:*"]) == [
        Access("a/b", ("pull", "push")),
        Access("c", ("pull", "push", "delete")),
        Access(CATALOG, ("*",)),
    ]
    assert parse_scopes(["repository:a:", "repository(plugin):a:destroy"]) == [Access("a", ())] * 2
    for bad in ("a", "repository:A:pull", "repository:a/../b:pull", "repository:a", "x:a:pull"):
        with pytest.raises(Refused):
            parse_scopes([bad])


def test_incoming_is_bounded(tmp_path: Path) -> None:
    """A blob that is coming takes as much as it may, and one that is dropped leaves nothing."""
    incoming = FileIncoming(str(tmp_path), "sha256", 10)
    incoming.write(b"0123456789")
    with pytest.raises(SizeMismatch):
        incoming.write(b"x")
    assert (incoming.size, incoming.digest) == (10, Digest.of(b"0123456789"))
    with incoming.open() as file:
        assert file.read() == b"0123456789"
    incoming.discard()
    incoming.discard()
    assert list(tmp_path.iterdir()) == []


def test_uploads(tmp_path: Path) -> None:
    """Uploads are limited in number and time, and one that is being used does not expire."""

    async def scenario() -> None:
        now = [0.0]
        uploads = Uploads(UploadLimits(open_uploads=2, expiry_s=10), lambda: now[0])

        async def make() -> FileIncoming:
            return FileIncoming(str(tmp_path), "sha256", 10)

        first, second = await uploads.begin("a", make), await uploads.begin("a", make)
        with pytest.raises(Refused) as caught:
            await uploads.begin("a", make)
        assert caught.value.code == "TOOMANYREQUESTS"
        with uploads.use(first), pytest.raises(Refused) as caught, uploads.use(first):
            pass
        assert caught.value.status == 409
        now[0] = 9.0
        with uploads.use(first):
            now[0] = 15.0
            assert uploads.expire() == 1
        with pytest.raises(Refused):
            uploads.get("a", second.id)
        assert uploads.get("a", first.id) is first
        now[0] = 25.0
        assert uploads.expire() == 1
        await uploads.begin("b", make)
        uploads.close()

    asyncio.run(scenario())
    assert list(tmp_path.iterdir()) == []


def test_upload_that_cannot_begin_takes_no_place(tmp_path: Path) -> None:
    """A failure while an upload is begun leaves room for the next one."""

    async def scenario() -> None:
        uploads = Uploads(UploadLimits(open_uploads=1), lambda: 0.0)

        async def fail() -> FileIncoming:
            raise OSError("no")

        async def make() -> FileIncoming:
            return FileIncoming(str(tmp_path), "sha256", 10)

        with pytest.raises(OSError, match="no"):
            await uploads.begin("a", fail)
        await uploads.begin("a", make)
        uploads.close()

    asyncio.run(scenario())


def test_last_byte_waits_for_the_digest(tmp_path: Path) -> None:
    """Of a blob that is coming, all but the last byte may be read; the rest when it is verified, or never."""

    async def scenario() -> None:
        for error in (None, OSError("wrong")):
            incoming = FileIncoming(str(tmp_path), "sha256", 10)
            flight = Flight("a", Digest.of(b"0123456789"), 10, incoming)
            reading = asyncio.create_task(flight._readable(0))
            flight.write(b"0123")
            assert await reading == 4
            flight.write(b"456789")
            assert await flight._readable(4) == 9
            waiting = asyncio.create_task(flight._readable(9))
            await asyncio.sleep(0)
            assert not waiting.done()
            flight.end(error)
            assert flight.has_ended
            if error is None:
                assert await waiting == 10
                await flight.wait()
            else:
                with pytest.raises(OSError, match="wrong"):
                    await waiting
            incoming.discard()

    asyncio.run(scenario())


def test_stopped_download_takes_nothing_more(tmp_path: Path) -> None:
    """After a download was stopped its next bytes end it, and who waits for it is told."""

    async def scenario() -> None:
        incoming = FileIncoming(str(tmp_path), "sha256", 10)
        flight = Flight("a", Digest.of(b""), 10, incoming)
        waiting = asyncio.create_task(flight.wait())
        await asyncio.sleep(0)
        flight.stop()
        with pytest.raises(ConnectionAbortedError):
            await waiting
        with pytest.raises(ConnectionAbortedError):
            flight.write(b"x")
        incoming.discard()

    asyncio.run(scenario())


def put(storage: DirectoryStorage, repository: str, data: bytes) -> Digest:
    """Store a blob."""
    incoming = storage.begin("sha256", 1 << 20)
    incoming.write(data)
    storage.commit(repository, incoming, incoming.digest)
    return incoming.digest


def test_directory_is_shared(tmp_path: Path) -> None:
    """Two storages of one directory, as in two processes, see each other's changes."""
    first, second = DirectoryStorage(str(tmp_path / "d")), DirectoryStorage(str(tmp_path / "d"))
    digest = put(first, "a", b"{}")
    assert second.blob_size("a", digest) == 2
    raw = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {"mediaType": "a/b", "digest": digest, "size": 2},
            "layers": [],
        }
    ).encode()
    document = parse_manifest(raw)
    first.put_manifest("a", document, document.digest, ["1", "2"])
    found = second.find_manifest("a", "1")
    assert found is not None
    assert (found.raw, found.digest) == (raw, document.digest)
    assert second.remove_manifest("a", document.digest)
    assert first.tags("a") == []
    assert first.find_manifest("a", document.digest) is None


def test_unfinished_blobs_are_removed_at_the_next_start(tmp_path: Path) -> None:
    """What a living process is writing stays, and what a dead one left goes."""
    storage = DirectoryStorage(str(tmp_path / "d"))
    living = storage.begin("sha256", 10)
    (tmp_path / "d" / "incoming" / ".tmp-dead").write_bytes(b"x")
    DirectoryStorage(str(tmp_path / "d"))
    assert len(list((tmp_path / "d" / "incoming").iterdir())) == 1
    living.write(b"x")
    storage.commit("a", living, living.digest)


def test_directory_of_something_else(tmp_path: Path) -> None:
    """A directory with other things in it, or of a later version, is left alone."""
    (tmp_path / "letter").write_text("dear", encoding="ascii")
    with pytest.raises(InvalidInputError, match="neither empty"):
        DirectoryStorage(str(tmp_path))
    later = tmp_path / "later"
    later.mkdir()
    (later / "registry.json").write_text('{"version": 99}', encoding="ascii")
    with pytest.raises(InvalidInputError, match="version"):
        DirectoryStorage(str(later))
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["later", "letter", "registry.json"]
