"""Other programs use our registry as any other one: plain, with passwords, with tokens, and with TLS."""

from __future__ import annotations

import contextlib
import json
import ssl
from base64 import b64encode
from typing import TYPE_CHECKING, Any

import pytest
from support.authority import Authority
from support.capabilities import need
from support.docker_registry import docker_registry, skopeo_copy
from support.engine import busybox_tree, new_engine
from support.oci_layout import OciLayout
from support.peers import NAMES, Peer, digest_of, invoke, raw_of
from support.registry_http import RawRegistry
from support.session import temporary_directory, tracked_root
from support.zoo import tar_of

import containerlib as cl

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from containerlib import Engine, RegistryServer

pytestmark = [pytest.mark.root]

HTPASSWD = "ann:$2b$04$A4gdF34YbxXzojKIPZplCeiPVBBfPc9I8A.gPFqcb.C20iQc31VYK\n"  # the password is "secret"
MODES = ("plain", "password", "token", "tls", "store")


@pytest.fixture(scope="module")
def authority() -> Authority:
    """Return the authority that the registries with TLS have their certificates of."""
    return Authority("registry")


@pytest.fixture(scope="module")
def servers(authority: Authority) -> Iterator[Callable[[str], RegistryServer]]:
    """Return how our registries are had, by what they ask of clients; each is started once."""
    started: dict[str, RegistryServer] = {}
    with contextlib.ExitStack() as stack:
        base = stack.enter_context(temporary_directory("g"))
        (base / "users").write_text(HTPASSWD, encoding="ascii")
        for name, data in zip(("cert", "key"), authority.issue("server"), strict=True):
            (base / name).write_bytes(data)
        stack.enter_context(tracked_root(base / "n"))
        options: dict[str, Callable[[], dict[str, Any]]] = {
            "plain": lambda: {"directory": base / "plain"},
            "password": lambda: {"htpasswd": base / "users"},
            "token": lambda: {"htpasswd": base / "users", "token_auth": True},
            "tls": lambda: {
                "htpasswd": base / "users",
                "token_auth": True,
                "tls_cert": base / "cert",
                "tls_key": base / "key",
            },
            "store": lambda: {"engine": stack.enter_context(new_engine(base / "r", base / "n"))},
        }

        def find(mode: str) -> RegistryServer:
            if mode not in started:
                started[mode] = stack.enter_context(cl.Registry.serve(**options[mode]()))
            return started[mode]

        yield find


@pytest.fixture(scope="module")
def layout(request: pytest.FixtureRequest) -> Iterator[OciLayout]:
    """Return a place to make images in, by hand."""
    need(request.config, "peers", ("busybox", "skopeo"))
    with temporary_directory("l") as base:
        yield OciLayout(base / "layout")


@pytest.fixture(scope="module")
def image(layout: OciLayout) -> dict[str, object]:
    """Return the descriptor of an image of two layers."""
    with temporary_directory("t") as tree:
        base = tar_of(busybox_tree(tree / "base"))
        (tree / "more" / "etc").mkdir(parents=True)
        (tree / "more" / "etc" / "hello").write_text("hello", encoding="ascii")
        return layout.add_image([base, tar_of(tree / "more")], config={"Env": ["PATH=/bin"]})


@pytest.fixture
def credentials(
    servers: Callable[[str], RegistryServer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Have skopeo and this library know the password of each registry that has one."""
    word = b64encode(b"ann:secret").decode()
    auths = {servers(mode).name: {"auth": word} for mode in ("password", "token", "tls")}
    (tmp_path / "auth.json").write_text(json.dumps({"auths": auths}), encoding="ascii")
    monkeypatch.setenv("REGISTRY_AUTH_FILE", str(tmp_path / "auth.json"))


@pytest.fixture(params=MODES)
def server(
    request: pytest.FixtureRequest, servers: Callable[[str], RegistryServer], credentials: None
) -> RegistryServer:
    """Return one of our registries."""
    assert credentials is None
    return servers(request.param)


@pytest.fixture
def pushed(server: RegistryServer, layout: OciLayout, image: dict[str, object]) -> str:
    """Return the name of the image, which skopeo has pushed."""
    skopeo_copy(layout.name(image, "1"), f"docker://{server.name}/team/box:1", "--preserve-digests")
    return f"{server.name}/team/box:1"


def asks_for_password(server: RegistryServer) -> bool:
    """Tell whether a registry lets nobody in who does not say who that is."""
    context = ssl._create_unverified_context() if server.url.startswith("https") else None  # noqa: S323
    return RawRegistry(server.host, server.port, context).ask("GET", "/v2/").status == 401


@pytest.mark.parametrize("name", NAMES)
def test_peers_pull_and_push(
    name: str,
    server: RegistryServer,
    pushed: str,
    image: dict[str, object],
    peers: Callable[[str], Peer],
    engine: Engine,
) -> None:
    """A peer pulls what is there, with the same digest and content; what it pushes we pull, and it runs."""
    peer = peers(name)
    if asks_for_password(server):
        peer.login(server.name, "ann", "secret")
    assert peer.pull(pushed) == image["digest"]
    with peer.tree(pushed) as root:
        assert (root / "etc" / "hello").read_text(encoding="ascii") == "hello"
    target = f"{server.name}/from/{name}:1"
    peer.push(pushed, target)
    found = engine.images.pull(target)
    assert found.digest == digest_of(target)
    assert found.call(["cat", "/etc/hello"]).stdout == b"hello"
    assert found.record.manifest.raw.decode().strip() == raw_of(target)


def test_we_pull_and_push(
    server: RegistryServer, pushed: str, image: dict[str, object], engine: Engine
) -> None:
    """This library pulls and pushes with the same digest, and skopeo sees the same bytes under both names."""
    found = engine.images.pull(pushed)
    assert found.digest == image["digest"]
    assert found.call(["cat", "/etc/hello"]).stdout == b"hello"
    target = f"{server.name}/from/us:1"
    assert found.push(target).digest == image["digest"] == digest_of(target)
    assert raw_of(target) == raw_of(pushed)


def test_skopeo_copies_every_form(
    server: RegistryServer, pushed: str, layout: OciLayout, image: dict[str, object]
) -> None:
    """Skopeo copies within the registry and out of it, in both kinds of manifest, indexes as a whole."""
    for option in ("--format=oci", "--format=v2s2"):
        target = f"{server.name}/copied/{option[-3:]}:1"
        skopeo_copy(f"docker://{pushed}", f"docker://{target}", option)
        assert digest_of(target)
    assert digest_of(f"{server.name}/copied/oci:1") == image["digest"]
    arm = layout.add_image([b"\0" * 1024], architecture="arm64")
    whole = layout.add_index([{**image, "platform": {"os": "linux", "architecture": "amd64"}}, arm])
    many = f"{server.name}/many:1"
    skopeo_copy(layout.name(whole, "m"), f"docker://{many}", "--all", "--preserve-digests")
    raw = raw_of(many)
    assert raw.encode() == layout.blobs[str(whole["digest"])]
    tags = json.loads(invoke("skopeo", "list-tags", "--tls-verify=false", f"docker://{server.name}/many"))
    assert tags["Tags"] == ["1"]


def test_skopeo_deletes(server: RegistryServer, pushed: str, layout: OciLayout) -> None:
    """Skopeo deletes an image, and it is gone."""
    alone = layout.add_image([b"\0" * 10240], config={"Labels": {"of": server.name}})
    name = f"{server.name}/gone:1"
    skopeo_copy(layout.name(alone, "g"), f"docker://{name}", "--preserve-digests")
    invoke("skopeo", "delete", "--tls-verify=false", f"docker://{name}")
    with pytest.raises(AssertionError, match=r"manifest unknown|name unknown|no repository|has no manifest"):
        digest_of(name)
    assert digest_of(pushed)


def test_certificate_is_checked(
    servers: Callable[[str], RegistryServer],
    authority: Authority,
    layout: OciLayout,
    image: dict[str, object],
    credentials: None,
    tmp_path: Path,
) -> None:
    """Who knows the authority needs no exception for our TLS, and who does not is not let down."""
    assert credentials is None
    (tmp_path / "ca.crt").write_bytes(authority.pem)
    target = f"docker://{servers('tls').name}/checked:1"
    command = ["skopeo", "--insecure-policy", "copy", "--quiet", layout.name(image, "1"), target]
    invoke(*command, f"--dest-cert-dir={tmp_path}")
    with pytest.raises(AssertionError, match="certificate"):
        invoke(*command)


def test_wrong_password(
    servers: Callable[[str], RegistryServer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: Engine
) -> None:
    """A wrong password is told apart from a missing image, by skopeo and by this library."""
    word = b64encode(b"ann:wrong").decode()
    for mode in ("password", "token"):
        name = servers(mode).name
        (tmp_path / "auth.json").write_text(json.dumps({"auths": {name: {"auth": word}}}), encoding="ascii")
        monkeypatch.setenv("REGISTRY_AUTH_FILE", str(tmp_path / "auth.json"))
        with pytest.raises(AssertionError, match=r"authentication required|unauthorized|invalid username"):
            digest_of(f"{name}/none:1")
        with pytest.raises(cl.AuthenticationFailed):
            engine.images.pull(f"{name}/none:1")


def test_cache_of_docker_registry(
    request: pytest.FixtureRequest,
    layout: OciLayout,
    image: dict[str, object],
    peers: Callable[[str], Peer],
    engine: Engine,
) -> None:
    """As a cache of Debian's registry we serve its images with the same digests, also when it has ended."""
    need(request.config, "peers", ("docker-registry",))
    podman = peers("podman")
    with temporary_directory("u") as base, contextlib.ExitStack() as stack:
        upstream = stack.enter_context(docker_registry(base))
        skopeo_copy(layout.name(image, "1"), f"docker://{upstream.host}/box:1", "--preserve-digests")
        with cl.Registry.serve(directory=base / "cache", upstream=upstream.host) as server:
            name = f"{server.name}/box:1"
            assert engine.images.pull(name).digest == image["digest"]
            before = len(upstream.requests())
            assert podman.pull(name) == image["digest"]
            assert not [line for line in upstream.requests()[before:] if line.startswith("GET")]
            stack.close()
            with (
                temporary_directory("e") as fresh,
                tracked_root(fresh / "n"),
                new_engine(fresh / "r", fresh / "n") as other,
            ):
                found = other.images.pull(name)
                assert found.digest == image["digest"]
                assert found.call(["cat", "/etc/hello"]).stdout == b"hello"
            with pytest.raises(cl.RegistryUnavailable):
                engine.images.pull(f"{server.name}/other:1")
