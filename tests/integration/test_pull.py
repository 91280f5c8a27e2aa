"""Pulling images: from Debian's registry, with what skopeo has pushed there."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
from typing import TYPE_CHECKING, Any

import pytest
from support.archives import archive, file
from support.capabilities import need
from support.docker_registry import DockerRegistry, docker_registry, skopeo_copy
from support.engine import busybox_tree
from support.oci_layout import OciLayout
from support.session import temporary_directory

import containerlib as cl

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from containerlib import Engine

pytestmark = [pytest.mark.root]

PEERS = ("docker-registry", "skopeo", "busybox")
HTPASSWD = "ann:$2b$04$A4gdF34YbxXzojKIPZplCeiPVBBfPc9I8A.gPFqcb.C20iQc31VYK\n"  # the password is "secret"


def tar_of(directory: Path) -> bytes:
    """Return an archive of a tree, written by the standard library."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w", format=tarfile.PAX_FORMAT) as tar:
        tar.add(directory, ".")
    return data.getvalue()


@pytest.fixture(scope="module")
def layers() -> list[bytes]:
    """Return two layers: busybox, and one that adds a file and removes another."""
    with temporary_directory("t") as tree:
        busybox_tree(tree)
        (tree / "etc" / "old").write_text("old", encoding="ascii")
        first = tar_of(tree)
    return [first, archive(file(b"etc/new", b"new"), file(b"etc/.wh.old", b""))]


@pytest.fixture(scope="module")
def layout(layers: list[bytes]) -> Iterator[OciLayout]:
    """Return a layout for the images of this module."""
    with temporary_directory("o") as path:
        made = OciLayout(path / "layout")
        made.add_image(layers)
        yield made


@pytest.fixture(scope="module")
def registry(request: pytest.FixtureRequest) -> Iterator[DockerRegistry]:
    """Return a registry that lets everybody in."""
    need(request.config, "peers", PEERS)
    with temporary_directory("g") as path, docker_registry(path) as running:
        yield running


@pytest.fixture(scope="module")
def pushed(registry: DockerRegistry, layout: OciLayout, layers: list[bytes]) -> str:
    """Return the name of an image that skopeo has pushed."""
    image = layout.add_image(layers, config={"Cmd": ["cat", "/etc/new"], "Env": ["PATH=/bin", "A=b"]})
    skopeo_copy(layout.name(image, "1"), f"docker://{registry.host}/team/box:1")
    return f"{registry.host}/team/box:1"


def blobs(engine: Engine) -> set[str]:
    """Return the names of everything in the content store, unfinished files included."""
    found = subprocess.run(
        ["find", f"{engine.root}/blobs", "-type", "f", "-printf", "%f\n"],
        capture_output=True,
        text=True,
        check=False,
    )
    return set(found.stdout.split())


def test_what_skopeo_pushed_runs(engine: Engine, pushed: str) -> None:
    """An image is pulled and unpacked with its whiteouts, and its own command runs in it."""
    image = engine.images.pull(pushed)
    assert image.references == (pushed,)
    assert image.call().stdout == b"new"
    assert image.call(["ls", "/etc/old"]).exit_code == 1
    assert image.config.env == ("PATH=/bin", "A=b")


def test_digests_are_those_of_the_registry(engine: Engine, pushed: str, registry: DockerRegistry) -> None:
    """The image has the digest that skopeo sees, and is found by it."""
    image = engine.images.pull(pushed)
    command = ["skopeo", "inspect", "--tls-verify=false", "--format={{.Digest}}", f"docker://{pushed}"]
    seen = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    assert image.digest == seen
    assert engine.images.get(f"{registry.host}/team/box@{seen}") == image
    assert engine.images.pull(f"{registry.host}/team/box@{seen}") == image


def test_second_pull_fetches_no_layer(engine: Engine, pushed: str, registry: DockerRegistry) -> None:
    """What is in the store is not asked for again."""
    image = engine.images.pull(pushed)
    before = len(registry.requests())
    events: list[cl.TransferEvent] = []
    assert engine.images.pull(pushed, progress=events.append) == image
    asked = " ".join(registry.requests()[before:])
    assert not any(str(layer.digest) in asked for layer in image.layers)
    assert {event.phase for event in events} == {"exists", "done"}


def test_run_pulls_what_is_missing(pushed: str) -> None:
    """`containerlib.run` with the name of an image that the store does not have fetches it first."""
    script = "import sys, containerlib as cl; print(cl.run(['cat', '/etc/new'], image=sys.argv[1]).text)"
    with temporary_directory("d") as base:
        environment = {
            **os.environ,
            "HOME": str(base),
            "CONTAINERLIB_ROOT": str(base / "r"),
            "CONTAINERLIB_RUN_ROOT": str(base / "n"),
        }
        command = [sys.executable, "-c", script, pushed]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.stdout.strip() == "new", done.stderr


def test_command_line_pulls(engine: Engine, pushed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """`containerlib pull` prints the name, and the image is there afterwards."""
    monkeypatch.setenv("CONTAINERLIB_ROOT", engine.root)
    monkeypatch.setenv("CONTAINERLIB_RUN_ROOT", engine.run_root)
    command = [sys.executable, "-m", "containerlib", "pull", pushed]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, pushed), done.stderr
    assert "Pull complete" in done.stderr
    assert engine.images.get(pushed).digest in done.stderr


def test_docker_schema_is_read(engine: Engine, pushed: str, registry: DockerRegistry) -> None:
    """An image in Docker's own format is pulled like any other."""
    name = f"{registry.host}/team/box:schema2"
    skopeo_copy(f"docker://{pushed}", f"docker://{name}", "--format=v2s2")
    image = engine.images.pull(name)
    assert image.record.manifest.media_type == "application/vnd.docker.distribution.manifest.v2+json"
    assert image.call().stdout == b"new"


def test_platform_is_chosen_from_an_index(
    engine: Engine, registry: DockerRegistry, layout: OciLayout, layers: list[bytes]
) -> None:
    """Of an index the wanted image is taken; a platform that it does not have names the others."""
    images = [
        layout.add_image(layers, architecture=name, config={"Env": [f"WHICH={name}"]})
        for name in ("arm64", "amd64")
    ]
    name = f"{registry.host}/team/many:1"
    skopeo_copy(layout.name(layout.add_index(images), "m"), f"docker://{name}", "--all")
    chosen = engine.images.pull(name, platform="linux/amd64")
    assert "WHICH=amd64" in chosen.config.env
    other = engine.images.pull(name, platform="linux/arm64")
    assert "WHICH=arm64" in other.config.env
    assert "WHICH=arm64" in engine.images.get(name).config.env
    assert chosen.digest == other.digest
    with pytest.raises(cl.PlatformNotFound, match="linux/arm64, linux/amd64") as caught:
        engine.images.pull(name, platform="linux/s390x")
    assert set(caught.value.platforms) == {"linux/arm64", "linux/amd64"}


def test_unknown_tag_names_those_there_are(engine: Engine, pushed: str, registry: DockerRegistry) -> None:
    """A tag or repository that does not exist is told apart from the others."""
    assert pushed
    with pytest.raises(cl.RemoteNotFound, match=r"tags there are: .*1") as caught:
        engine.images.pull(f"{registry.host}/team/box:nope")
    assert isinstance(caught.value, cl.ImageNotFound)
    assert caught.value.status == 404
    with pytest.raises(cl.RemoteNotFound, match="no such repository"):
        engine.images.pull(f"{registry.host}/nobody/nothing:1")
    assert blobs(engine) == set()


def test_offline_engine_asks_nobody(engine: Engine, pushed: str) -> None:
    """An engine that is offline uses what it has and refuses to fetch."""
    engine.images.pull(pushed)
    with cl.Engine(engine.root, engine.run_root, cl.EngineConfig(offline=True)) as offline:
        assert offline.images.find(pushed).references == (pushed,)
        with pytest.raises(cl.Offline, match="offline"):
            offline.images.find(pushed.replace(":1", ":2"))


def test_policy_never_and_always(engine: Engine, pushed: str) -> None:
    """``never`` looks into the store only; ``always`` asks the registry; anything else is refused."""
    with pytest.raises(cl.ImageNotFound, match="pull it"):
        engine.images.find(pushed, pull="never")
    assert engine.images.find(pushed, pull="always").references == (pushed,)
    with pytest.raises(cl.InvalidOption, match="missing"):
        engine.images.find(pushed, pull="sometimes")  # type: ignore[arg-type]


def test_password_is_asked_for(
    engine: Engine,
    layout: OciLayout,
    layers: list[bytes],
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No credentials, wrong ones and right ones are told apart, and no message holds a password."""
    need(request.config, "peers", PEERS)
    with temporary_directory("p") as path, docker_registry(path, htpasswd=HTPASSWD) as locked:
        image = layout.add_image(layers)
        name = f"{locked.host}/private:1"
        skopeo_copy(layout.name(image, "1"), f"docker://{name}", "--dest-creds=ann:secret")
        monkeypatch.setenv("HOME", str(path))
        with pytest.raises(cl.AuthenticationFailed, match="none are known"):
            engine.images.pull(name)
        auth: dict[str, Any] = {"auths": {locked.host: {"username": "ann", "password": "wrong"}}}
        monkeypatch.setenv("DOCKER_AUTH_CONFIG", json.dumps(auth))
        with pytest.raises(cl.AuthenticationFailed, match="access denied") as caught:
            engine.images.pull(name)
        assert "wrong" not in str(caught.value)
        auth["auths"][locked.host] |= {"password": "secret"}
        monkeypatch.setenv("DOCKER_AUTH_CONFIG", json.dumps(auth))
        assert engine.images.pull(name).references == (name,)


def test_mirror_stands_in(
    engine: Engine,
    pushed: str,
    registry: DockerRegistry,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A mirror of registries.conf is asked first, the name stays the registry's, and blocked is blocked."""
    conf = tmp_path / "registries.conf"
    conf.write_text(
        f"""
        [[registry]]
        prefix = "images.invalid"
        location = "images.invalid"
        [[registry.mirror]]
        location = "{registry.host}"
        insecure = true
        [[registry]]
        location = "blocked.invalid"
        blocked = true
        """,
        encoding="ascii",
    )
    monkeypatch.setenv("CONTAINERS_REGISTRIES_CONF", str(conf))
    image = engine.images.pull("images.invalid/team/box:1")
    assert image.references == ("images.invalid/team/box:1",)
    assert image.digest == engine.images.pull(pushed).digest
    with pytest.raises(cl.RegistryUnavailable, match="no such host"):
        engine.images.pull("images.invalid/team/box:other")
    with pytest.raises(cl.RegistryBlocked, match=r"blocked\.invalid"):
        engine.images.pull("blocked.invalid/x:1")


def test_short_names_mean_what_the_host_says(
    engine: Engine,
    pushed: str,
    registry: DockerRegistry,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Aliases and search registries say what a name without a registry means, also in the store."""
    conf = tmp_path / "registries.conf"
    conf.write_text(
        f"""
        unqualified-search-registries = ["127.0.0.1:9", "{registry.host}"]
        [aliases]
        "box" = "{registry.host}/team/box"
        """,
        encoding="ascii",
    )
    monkeypatch.setenv("CONTAINERS_REGISTRIES_CONF", str(conf))
    image = engine.images.pull("box:1")
    assert image.references == (pushed,)
    assert engine.images.find("box:1", pull="never") == image
    assert engine.images.pull("team/box:1") == image
    assert engine.images.get("team/box:1") == image
    with pytest.raises(cl.RemoteNotFound, match="tags there are") as caught:
        engine.images.pull("team/box:nope")
    assert "127.0.0.1:9" in caught.value.__notes__[0]
    assert engine.images.remove("box:1").untagged == (pushed,)
    with pytest.raises(cl.ImageNotFound):
        engine.images.get("box:1")


def test_unknown_host_and_refused_connection(engine: Engine) -> None:
    """A host that does not exist and a port where nobody listens are told apart, without delay."""
    with pytest.raises(cl.RegistryUnavailable, match="no such host"):
        engine.images.pull("registry.invalid/x:1")
    with pytest.raises(cl.RegistryUnavailable, match="cannot connect"):
        engine.images.pull("127.0.0.1:9/x:1")
