"""Token services: both forms of the question, identity tokens, tokens that run out, and who may be one."""
# ruff: noqa: S106 - the secrets here are made up

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest
from support.small_registry import Reply, Request, SmallRegistry, digest_of, serve
from support.token_service import TokenService, guard, token_service

import containerlib as cl
from containerlib.registry.auth import Grant
from containerlib.registry.client import Registries
from containerlib.registry.credentials import Credentials
from containerlib.registry.listing import list_tags
from containerlib.registry.source import Source

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MANIFEST = "application/vnd.oci.image.manifest.v1+json"


@pytest.fixture
def service() -> Iterator[TokenService]:
    """Return a token service that knows one user."""
    with token_service(TokenService(users={"ann": "secret"})) as running:
        yield running


@pytest.fixture
def small(service: TokenService) -> Iterator[SmallRegistry]:
    """Return a registry that wants tokens of that service, and has one tag."""
    with serve() as running:
        guard(running, service)
        running.manifests["x", "1"] = (MANIFEST, b"{}")
        yield running


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> cl.Engine:
    """Return an engine of a user who has no credentials anywhere."""
    for name in ("DOCKER_AUTH_CONFIG", "DOCKER_CONFIG", "REGISTRY_AUTH_FILE", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    monkeypatch.setenv("HOME", str(tmp_path))
    return cl.Engine(tmp_path / "r", tmp_path / "n")


def test_password_is_exchanged_for_a_token(
    engine: cl.Engine, small: SmallRegistry, service: TokenService
) -> None:
    """The token service sees the password and the scope; the registry sees tokens only."""
    here = engine.registry(small.host)
    with pytest.raises(cl.AuthenticationFailed, match="log in"):
        here.tags("x")
    here.login("ann", "secret", store=False)
    assert here.tags("x") == ["1"]
    asked = service.requests[-1]
    assert (asked.query["scope"], asked.query["service"]) == ("repository:x:pull", "small")
    assert (asked.query["account"], asked.query["client_id"]) == ("ann", "containerlib")
    seen = [request.headers.get("authorization", "") for request in small.requests]
    assert all(not header or header.startswith("Bearer token") for header in seen)


def test_wrong_password_is_refused_by_the_service(
    engine: cl.Engine, small: SmallRegistry, tmp_path: Path
) -> None:
    """What the token service refuses is not kept, and is in no message."""
    with pytest.raises(cl.AuthenticationFailed, match="refused the credentials") as caught:
        engine.registry(small.host).login("ann", "hunter2")
    assert "hunter2" not in str(caught.value)
    assert not (tmp_path / ".docker").exists()


@pytest.mark.parametrize("forms", [("GET", "POST"), ("POST",)])
def test_identity_token_is_kept_instead_of_the_password(
    engine: cl.Engine, small: SmallRegistry, service: TokenService, tmp_path: Path, forms: tuple[str, ...]
) -> None:
    """Where the service gives identity tokens, no password reaches the disk, and the token is exchanged."""
    service.gives_identity, service.forms = True, forms
    done = engine.registry(small.host).login("ann", "secret")
    assert done.is_token
    text = (tmp_path / ".docker/config.json").read_text()
    assert "identitytoken" in text
    service.forms = ("POST",)
    service.users.clear()  # the password is of no use any more
    with cl.Engine(engine.root, engine.run_root) as other:
        assert other.registry(small.host).tags("x") == ["1"]
    assert service.requests[-1].method == "POST"
    assert b"grant_type=refresh_token" in service.requests[-1].body


def test_rotated_identity_token_is_used_from_then_on(
    engine: cl.Engine, small: SmallRegistry, service: TokenService
) -> None:
    """A service that replaces identity tokens at each use gets the new one at the next."""
    service.identities["first"] = "ann"
    service.rotates = True
    small.manifests["x", "2"] = (MANIFEST, b"{}")
    small.page = 1
    pages = iter(range(9))

    def expire(request: Request) -> Reply | None:
        if request.path.endswith("/tags/list") and next(pages) == 2:
            service.expire()
        return None

    auth = {"auths": {small.host: {"identitytoken": "first"}}}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DOCKER_AUTH_CONFIG", json.dumps(auth))
        small.intercept = expire
        assert engine.registry(small.host).tags("x") == ["1", "2"]
        assert engine.registry(small.host).tags("x") == ["1", "2"]  # another operation of the same engine
    used = [request.body.rpartition(b"refresh_token=")[2] for request in service.requests]
    assert used == [b"first", b"identity1", b"identity2"]


def test_refused_identity_token_says_to_log_in(engine: cl.Engine, small: SmallRegistry) -> None:
    """An identity token that is not good any more is an error that says what to do."""
    with pytest.raises(cl.AuthenticationFailed, match="log in again"):
        engine.registry(small.host).login("ann", identity_token="old", store=False)


def test_registry_token_goes_to_the_registry_itself(
    engine: cl.Engine, small: SmallRegistry, service: TokenService
) -> None:
    """A registry token is shown as it is, and no token service is asked."""
    service.valid["given"] = ("repository:x:pull",)
    here = engine.registry(small.host)
    here.login(registry_token="given", store=False)
    assert here.tags("x") == ["1"]
    assert service.requests == []


@pytest.mark.parametrize("expires_in", [None, 0, -5, 1 << 40])
def test_any_lifetime_of_a_token_is_survived(
    engine: cl.Engine, small: SmallRegistry, service: TokenService, expires_in: int | None
) -> None:
    """A token that says nothing sensible of its lifetime is good for a while, and asked for once."""
    service.users.clear()
    service.expires_in = expires_in
    assert engine.registry(small.host).referrers(f"x@sha256:{'0' * 64}") == []
    assert len(service.requests) == 1


def test_token_that_ran_out_is_renewed_once(
    engine: cl.Engine, small: SmallRegistry, service: TokenService
) -> None:
    """A registry that refuses every token is not asked for ever."""
    service.users.clear()
    small.admits = lambda _request, _scope: False
    with pytest.raises(cl.AuthenticationFailed, match="access denied"):
        engine.registry(small.host).tags("x")
    assert len(small.requests) == 2


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{}", b'{"token": 1}', b'{"token": "a\\nb"}', b"x" * (2 << 20), b'{"token": ""}']
)
def test_answer_that_is_no_token_is_refused(
    engine: cl.Engine, small: SmallRegistry, service: TokenService, body: bytes
) -> None:
    """What a token service answers is checked before it becomes a header."""
    service.intercept = lambda _request: Reply(200, {}, body)
    with pytest.raises(cl.AuthenticationFailed, match="no token"):
        engine.registry(small.host).tags("x")


def test_service_out_of_order_is_no_wrong_password(
    engine: cl.Engine, small: SmallRegistry, service: TokenService
) -> None:
    """A token service that fails is reported as that, and asked again first."""
    service.users.clear()
    replies = iter([Reply(503, {"Retry-After": "0"}), Reply(503, {"Retry-After": "0"})])
    service.intercept = lambda _request: next(replies, None)
    assert engine.registry(small.host).tags("x") == ["1"]
    service.intercept = lambda _request: Reply(500, {"Retry-After": "0"})
    with pytest.raises(
        cl.RegistryUnavailable, match=r"the token service: the server is out of order \(500\)"
    ):
        engine.registry(small.host).tags("x")


def test_each_credential_has_its_own_tokens(
    engine: cl.Engine, small: SmallRegistry, service: TokenService
) -> None:
    """Who logs in as somebody else is not let in with the tokens of before."""
    service.users["bob"] = "other"
    here = engine.registry(small.host)
    for name, password in (("ann", "secret"), ("bob", "other")):
        here.login(name, password, store=False)
        here.tags("x")
        assert service.requests[-1].query["account"] == name


def test_token_that_runs_out_between_parts_is_renewed(
    engine: cl.Engine, small: SmallRegistry, service: TokenService
) -> None:
    """A copy whose token is refused on the way asks for another one and goes on."""
    service.users.clear()
    config, layer = b"{}", b"layer" * 1000
    parts = [{"mediaType": "x/y", "digest": digest_of(data), "size": len(data)} for data in (config, layer)]
    document = {"schemaVersion": 2, "mediaType": MANIFEST, "config": parts[0], "layers": parts[1:]}
    small.manifests["x", "1"] = (MANIFEST, json.dumps(document).encode())
    for data in (config, layer):
        small.blobs["x", digest_of(data)] = data
    left = iter(range(1))

    def expire(request: Request) -> None:
        if request.target.startswith("GET /v2/x/blobs") and next(left, None) is not None:
            service.expire()

    small.intercept = expire
    with serve() as target:
        engine.registry(small.host).copy("x:1", f"{target.host}/y:1")
        assert set(target.blobs.values()) == {config, layer}
    assert len(service.requests) == 2


def test_token_that_is_known_to_have_run_out_is_not_shown(
    small: SmallRegistry, service: TokenService
) -> None:
    """A token whose time is over is replaced before the registry has to refuse it."""
    service.users.clear()
    registries = Registries(Credentials({}, "/nonexistent"))
    repository = registries.repository(Source(small.host, "x", scheme="http"))
    assert list_tags(repository, "x") == ["1"]
    repository._grant = Grant("Bearer old", expires_at=0.0)
    registries._authorizer.forget(Grant("Bearer token1"))
    assert list_tags(repository, "x") == ["1"]
    registries.close()
    shown = [request.headers.get("authorization") for request in small.requests]
    assert shown == [None, "Bearer token1", "Bearer token2"]


def test_each_verb_asks_for_what_it_needs(
    engine: cl.Engine, small: SmallRegistry, service: TokenService
) -> None:
    """The scope of a token is that of the verb, and no more."""
    service.users.clear()
    here = engine.registry(small.host)
    here.catalog()
    here.resolve("x:1")
    service.intercept = lambda _request: Reply(200, {}, b'{"token": "all"}')
    service.valid["all"] = ("repository:x:pull,delete,push",)
    here.delete("x:1")
    assert [request.query["scope"] for request in service.requests] == [
        "registry:catalog:*",
        "repository:x:pull",
        "repository:x:pull,delete",
    ]


def test_helper_keeps_what_the_configuration_gives_it(
    engine: cl.Engine, small: SmallRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a credential helper the file holds no secret, and the result names the helper."""
    helper = tmp_path / "docker-credential-made"
    helper.write_text(f"#!/bin/sh\n/bin/cat >{tmp_path}/kept\n")
    helper.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / ".docker").mkdir()
    (tmp_path / ".docker/config.json").write_text('{"credsStore": "made"}')
    done = engine.registry(small.host).login("ann", "secret")
    assert done == cl.Login("ann", "docker-credential-made", is_token=False)
    kept = json.loads((tmp_path / "kept").read_text())
    assert kept == {"ServerURL": small.host, "Username": "ann", "Secret": "secret"}
    assert 'auth"' not in (tmp_path / ".docker/config.json").read_text()


def test_names_are_those_of_the_registry(engine: cl.Engine) -> None:
    """Names of Docker Hub follow its rules; those of other registries are what they say."""
    with cl.Engine(engine.root, engine.run_root, cl.EngineConfig(offline=True)) as offline:
        for host, name, full in (
            ("docker.io", "python:3", "docker.io/library/python"),
            ("docker.io", "docker.io/python", "docker.io/library/python"),
            ("Example.test:5000", "python:3", "example.test:5000/python"),
            ("localhost", "a/b", "localhost/a/b"),
            ("[::1]:5000", "[::1]:5000/a", "[::1]:5000/a"),
        ):
            with pytest.raises(cl.Offline, match=re.escape(f"{full} cannot")):
                offline.registry(host).resolve(name)
