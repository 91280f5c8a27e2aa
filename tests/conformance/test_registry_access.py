"""Ways to images that containerlib and other engines share: digests, platforms, passwords, certificates."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING

import pytest
from support.authority import Authority
from support.capabilities import need
from support.docker_registry import DockerRegistry, docker_registry, skopeo_copy
from support.engine import busybox_tree
from support.oci_layout import INDEX, OciLayout
from support.peers import NAMES, Peer, digest_of, raw_of
from support.session import temporary_directory
from support.zoo import tar_of

import containerlib as cl

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from containerlib import Engine

pytestmark = [pytest.mark.root]

HTPASSWD = "ann:$2b$04$A4gdF34YbxXzojKIPZplCeiPVBBfPc9I8A.gPFqcb.C20iQc31VYK\n"  # the password is "secret"
PLATFORMS = ("amd64", "arm64")
every_peer = pytest.mark.parametrize("peer", NAMES, indirect=True)


@pytest.fixture(scope="module")
def layout(request: pytest.FixtureRequest) -> Iterator[OciLayout]:
    """Return a layout for the images of this module."""
    need(request.config, "peers", ("docker-registry", "skopeo", "busybox", "tar"))
    with temporary_directory("o") as path:
        yield OciLayout(path / "layout")


@pytest.fixture(scope="module")
def images(layout: OciLayout) -> dict[str, dict[str, object]]:
    """Return the manifests of an image for two platforms; what runs in it is this host's."""
    made = {}
    for name in PLATFORMS:
        with temporary_directory("t") as tree:
            busybox_tree(tree)
            (tree / "etc" / "platform").write_text(name, encoding="ascii")
            config = {"Cmd": ["/bin/cat", "/etc/platform"], "Env": ["PATH=/bin"]}
            made[name] = layout.add_image([tar_of(tree)], architecture=name, config=config)
    return made


@pytest.fixture(scope="module")
def registry(layout: OciLayout, images: dict[str, dict[str, object]]) -> Iterator[DockerRegistry]:
    """Return a registry with `single:amd64`, `single:arm64` and the index `many:1`."""
    with temporary_directory("g") as path, docker_registry(path) as running:
        for name, image in images.items():
            skopeo_copy(layout.name(image, "1"), f"docker://{running.host}/single:{name}")
        index = layout.add_index(list(images.values()))
        skopeo_copy(layout.name(index, "1"), f"docker://{running.host}/many:1", "--all")
        yield running


@every_peer
def test_images_by_digest(peer: Peer, registry: DockerRegistry, engine: Engine) -> None:
    """What one has pushed the other pulls by its digest, without any tag."""
    image = engine.images.pull(f"{registry.host}/single:amd64")
    image.push(f"{registry.host}/digest/{peer.name}:ours")
    ours = f"{registry.host}/digest/{peer.name}@{image.digest}"
    assert peer.pull(ours) == image.digest
    assert peer.run(ours, "/bin/cat", "/etc/platform") == "amd64"
    theirs = f"{registry.host}/digest/{peer.name}:theirs"
    if peer.name != "docker":
        peer.push(ours, theirs)
    else:
        peer.call("tag", ours, theirs)
        peer.push(theirs, theirs)
    found = digest_of(theirs)
    pulled = engine.images.pull(f"{registry.host}/digest/{peer.name}@{found}")
    assert pulled.digest == found
    assert f"{registry.host}/digest/{peer.name}@{found}" in pulled.references
    assert pulled.call().text == "amd64"


@every_peer
def test_index_that_we_push(peer: Peer, registry: DockerRegistry, engine: Engine) -> None:
    """A peer that pulls an index of ours gets the image for this host, and the index is the same."""
    name = f"{registry.host}/many/{peer.name}:1"
    for platform in PLATFORMS:
        image = engine.images.pull(f"{registry.host}/many:1", platform=f"linux/{platform}")
    image.push(name)
    assert raw_of(name) == raw_of(f"{registry.host}/many:1")
    if peer.name == "umoci":  # of an index skopeo takes the image for this host
        name = f"{registry.host}/many/{peer.name}@{json.loads(raw_of(name))['manifests'][0]['digest']}"
    peer.pull(name)
    assert peer.run(name, "/bin/cat", "/etc/platform") == "amd64"


def test_index_of_podman(peers: Callable[[str], Peer], registry: DockerRegistry, engine: Engine) -> None:
    """Of a manifest list that podman has put together, either platform is pulled."""
    podman, name = peers("podman"), f"{registry.host}/podman/many:1"
    podman.call("manifest", "create", "list:1")
    for platform in PLATFORMS:
        source = f"docker://{registry.host}/single:{platform}"
        podman.call("manifest", "add", "--tls-verify=false", "list:1", source)
    podman.call("manifest", "push", "--all", "--tls-verify=false", "list:1", f"docker://{name}")
    assert json.loads(raw_of(name))["mediaType"] == INDEX
    for platform in PLATFORMS:
        image = engine.images.pull(name, platform=f"linux/{platform}")
        assert image.call().text == platform
    with pytest.raises(cl.PlatformNotFound, match="linux/s390x"):
        engine.images.pull(name, platform="linux/s390x")


def test_index_of_docker(peers: Callable[[str], Peer], registry: DockerRegistry, engine: Engine) -> None:
    """Of a manifest list in Docker's own format, either platform is pulled, and it is pushed as it is."""
    docker = peers("docker")
    for platform in PLATFORMS:
        source, target = (f"docker://{registry.host}/{name}:{platform}" for name in ("single", "docker/one"))
        skopeo_copy(source, target, "--format=v2s2")
    name = f"{registry.host}/docker/one:list"
    parts = [f"{registry.host}/docker/one:{platform}" for platform in PLATFORMS]
    docker.call("manifest", "create", "--insecure", name, *parts)
    docker.call("manifest", "push", "--insecure", name)
    assert "manifest.list" in json.loads(raw_of(name))["mediaType"]
    for platform in PLATFORMS:
        image = engine.images.pull(name, platform=f"linux/{platform}")
        assert image.call().text == platform
    image.push(f"{name}-again")
    assert raw_of(f"{name}-again") == raw_of(name)


@every_peer
def test_credentials_that_a_peer_has_stored(
    peer: Peer, registry: DockerRegistry, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a peer's login we pull and push with the credentials that it has written down."""
    image = engine.images.pull(f"{registry.host}/single:amd64")
    with temporary_directory("l") as path, docker_registry(path, htpasswd=HTPASSWD) as locked:
        monkeypatch.setenv("HOME", str(path))
        name = f"{locked.host}/private:1"
        with pytest.raises(cl.AuthenticationFailed, match="none are known"):
            image.push(name)
        peer.login(locked.host, "ann", "secret")
        for variable, value in peer.credentials.items():
            monkeypatch.setenv(variable, value)
        assert image.push(name).digest == image.digest
        assert peer.pull(name) == image.digest
        peer.push(name, f"{locked.host}/private:2")
        assert engine.images.pull(f"{locked.host}/private:2").call().text == "amd64"


@every_peer
def test_registry_with_tls(
    peer: Peer, registry: DockerRegistry, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An authority in certs.d is enough for us and for a peer; without it nothing is sent."""
    image = engine.images.pull(f"{registry.host}/single:amd64")
    authority = Authority("conformance")
    with temporary_directory("s") as path, tls_registry(path, authority) as secure:
        monkeypatch.setenv("HOME", str(peer.base))
        monkeypatch.setenv("CONTAINERS_REGISTRIES_CONF", str(path / "registries.conf"))
        lines = f'[[registry]]\nlocation = "{secure.host}"\ninsecure = false\n'  # loopback would be by itself
        (path / "registries.conf").write_text(lines, encoding="ascii")
        name = f"{secure.host}/secure:1"
        with pytest.raises(cl.RegistryUnavailable, match=r"certs\.d"):
            image.push(name)
        directory = peer.base / ".config/containers/certs.d" / secure.host
        directory.mkdir(parents=True)
        (directory / "ca.crt").write_bytes(authority.pem)
        monkeypatch.setattr(peer, "checks_certificates", True)
        assert image.push(name).digest == image.digest
        assert peer.pull(name) == image.digest
        peer.push(name, f"{secure.host}/secure:2")
        assert engine.images.pull(f"{secure.host}/secure:2").call().text == "amd64"


@contextlib.contextmanager
def tls_registry(path: Path, authority: Authority) -> Iterator[DockerRegistry]:
    """Run a registry that speaks TLS alone, with a certificate of `authority`."""
    certificate, key = authority.issue("registry")
    (path / "cert.pem").write_bytes(certificate)
    (path / "key.pem").write_bytes(key)
    with docker_registry(path, tls=(path / "cert.pem", path / "key.pem")) as running:
        yield running
