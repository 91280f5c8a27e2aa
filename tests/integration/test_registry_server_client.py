"""Our registry and our client of registries: whatever the one can do, the other understands."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from support.registry_http import RawRegistry, artifact, descriptor, index

import containerlib as cl

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from containerlib import Engine, RegistryServer

pytestmark = pytest.mark.root

HTPASSWD = "ann:$2b$04$A4gdF34YbxXzojKIPZplCeiPVBBfPc9I8A.gPFqcb.C20iQc31VYK\n"  # the password is "secret"


@pytest.fixture(params=["open", "password", "token"])
def server(request: pytest.FixtureRequest, tmp_path: Path, engine: Engine) -> Iterator[RegistryServer]:
    """Return a registry to which the engine is logged in, if it has users."""
    (tmp_path / "users").write_text(HTPASSWD, encoding="ascii")
    users = None if request.param == "open" else tmp_path / "users"
    with cl.Registry.serve(htpasswd=users, token_auth=request.param == "token") as running:
        if users is not None:
            engine.registry(running.name).login("ann", "secret", store=False)
        yield running


def test_everything_that_a_registry_can_do(engine: Engine, server: RegistryServer) -> None:
    """Push, list, resolve, copy, delete: each verb of our client works on our server."""
    image = engine.images.from_host(["sh", "cat"], reference="tools:1")
    registry = engine.registry(server.name)
    assert image.push(f"{server.name}/team/tools:1").digest == image.digest
    assert registry.catalog() == ["team/tools"]
    assert registry.tags("team/tools") == ["1"]
    assert registry.resolve("team/tools:1").digest == image.digest
    assert registry.manifest("team/tools:1").raw == image.record.manifest.raw
    assert registry.copy("team/tools:1", f"{server.name}/copy/tools:2").digest == image.digest
    assert registry.catalog() == ["copy/tools", "team/tools"]
    registry.delete("copy/tools:2")
    assert registry.tags("copy/tools") == []
    registry.delete(f"copy/tools@{image.digest}")
    with pytest.raises(cl.RemoteNotFound):
        registry.resolve(f"copy/tools@{image.digest}")
    assert engine.images.pull(f"{server.name}/team/tools:1").call(["sh", "-c", "echo 1"]).stdout == b"1\n"


def test_many_tags(engine: Engine, server: RegistryServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lists that come in pages come whole to the caller."""
    monkeypatch.setattr("containerlib.registry.listing._PAGE", 7)
    image = engine.images.from_host(["sh"], reference="x:1")
    for number in range(30):
        image.push(f"{server.name}/x:{number}")
    assert engine.registry(server.name).tags("x") == sorted(str(number) for number in range(30))


def test_index_of_several(engine: Engine, server: RegistryServer) -> None:
    """An index of images is pushed, pulled, and copied to another registry as a whole."""
    image = engine.images.from_host(["sh"], reference="x:1")
    pushed = engine.images.push_index(f"{server.name}/many:1", [image])
    registry = engine.registry(server.name)
    found = registry.manifest("many:1")
    assert (found.is_index, found.descriptor.digest) == (True, pushed.digest)
    assert engine.images.pull(f"{server.name}/many:1").digest == pushed.digest
    with cl.Registry.serve() as other:
        copied = registry.copy("many:1", f"{other.name}/many:1", referrers=True)
        assert copied.digest == pushed.digest
        assert engine.registry(other.name).manifest("many:1").raw == found.raw


def test_referrers(engine: Engine) -> None:
    """What refers to an image is found, filtered, described and copied along, manifests and indexes alike."""
    with cl.Registry.serve() as server, cl.Registry.serve() as other:
        raw = RawRegistry(server.host, server.port)
        raw.push_blob("x", b"{}")
        digest = raw.push_manifest("x", artifact(), "1")
        subject = descriptor(json.dumps(artifact()).encode(), artifact()["mediaType"])
        sbom = raw.push_manifest("x", artifact(subject=subject, artifactType="a/sbom"))
        group = raw.push_manifest("x", index(subject=subject, artifactType="a/group"))
        registry = engine.registry(server.name)
        assert {str(each.digest) for each in registry.referrers("x:1")} == {sbom, group}
        assert [str(each.digest) for each in registry.referrers(f"x@{digest}", "a/group")] == [group]
        described = registry.manifest(f"x@{group}")
        assert described.subject is not None
        assert (str(described.subject.digest), described.artifact_type) == (digest, "a/group")
        registry.copy("x:1", f"{other.name}/y:1", referrers=True)
        there = engine.registry(other.name)
        assert {str(each.digest) for each in there.referrers("y:1")} == {sbom, group}


def test_login_is_checked(engine: Engine, tmp_path: Path) -> None:
    """A wrong password is refused when it is given, by password and by token."""
    (tmp_path / "users").write_text(HTPASSWD, encoding="ascii")
    for by_token in (False, True):
        with cl.Registry.serve(htpasswd=tmp_path / "users", token_auth=by_token) as server:
            registry = engine.registry(server.name)
            with pytest.raises(cl.AuthenticationFailed):
                registry.tags("x")
            with pytest.raises(cl.AuthenticationFailed):
                registry.login("ann", "wrong", store=False)
            registry.login("ann", "secret", store=False)
            with pytest.raises(cl.RemoteNotFound):
                registry.tags("x")


def test_cache_logs_in_upstream(engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache of our own registry uses the credentials of its host, by token, too."""
    (tmp_path / "users").write_text(HTPASSWD, encoding="ascii")
    image = engine.images.from_host(["sh"], reference="x:1")
    with cl.Registry.serve(htpasswd=tmp_path / "users", token_auth=True) as upstream:
        engine.registry(upstream.name).login("ann", "secret", store=False)
        image.push(f"{upstream.name}/x:1")
        auth = {"auths": {upstream.name: {"username": "ann", "password": "secret"}}}
        monkeypatch.setenv("DOCKER_AUTH_CONFIG", json.dumps(auth))
        with cl.Registry.serve(upstream=upstream.name) as server:
            assert engine.registry(server.name).resolve("x:1").digest == image.digest
            assert engine.images.pull(f"{server.name}/x:1").digest == image.digest
