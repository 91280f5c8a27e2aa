"""Pushing images to Debian's registry, from where skopeo and another engine read them."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from support.archives import archive, file
from support.capabilities import need
from support.docker_registry import DockerRegistry, docker_registry, skopeo_copy
from support.engine import new_engine
from support.oci_layout import OciLayout
from support.session import temporary_directory, tracked_root

import containerlib as cl

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from containerlib import Engine

pytestmark = [pytest.mark.root]

HTPASSWD = "ann:$2b$04$A4gdF34YbxXzojKIPZplCeiPVBBfPc9I8A.gPFqcb.C20iQc31VYK\n"  # the password is "secret"


@pytest.fixture(scope="module")
def registry(request: pytest.FixtureRequest) -> Iterator[DockerRegistry]:
    """Return a registry that lets everybody in."""
    need(request.config, "peers", ("docker-registry", "skopeo"))
    with temporary_directory("g") as path, docker_registry(path) as running:
        yield running


def inspect(name: str) -> dict[str, object]:
    """Return what skopeo sees under this name: the manifest as it is."""
    command = ["skopeo", "inspect", "--raw", "--tls-verify=false", f"docker://{name}"]
    found: dict[str, object] = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    return found


def test_what_was_made_here_is_pulled_elsewhere(engine: Engine, registry: DockerRegistry) -> None:
    """An image made of host files is pushed, and another engine and skopeo get the very same."""
    name = f"{registry.host}/made/here:1"
    image = engine.images.from_host(["sh", "cat"], reference=name)
    pushed = image.push(name)
    assert pushed.digest == image.digest
    with (
        temporary_directory("e") as base,
        tracked_root(base / "n"),
        new_engine(base / "r", base / "n") as other,
    ):
        assert other.images.pull(name).digest == image.digest
        assert other.images.get(name).call(["sh", "-c", "echo there"]).text == "there\n"
    with temporary_directory("o") as path:
        skopeo_copy(f"docker://{name}", f"oci:{path}/layout:1", "--preserve-digests")
        index = json.loads((path / "layout" / "index.json").read_bytes())
    assert index["manifests"][0]["digest"] == image.digest


def test_second_push_uploads_nothing(engine: Engine, registry: DockerRegistry) -> None:
    """What the registry has is found out by asking, and not uploaded again."""
    name = f"{registry.host}/twice:1"
    image = engine.images.from_host(["sh"], reference=name)
    image.push(name)
    before = len(registry.requests())
    events: list[cl.TransferEvent] = []
    image.push(f"{registry.host}/twice:2", progress=events.append)
    assert {event.phase for event in events} == {"exists"}
    assert not any(line.startswith(("POST", "PATCH")) for line in registry.requests()[before:])


def test_pulled_image_keeps_its_digest(engine: Engine, registry: DockerRegistry, tmp_path: Path) -> None:
    """An image that was pulled, compressed layers and all, is pushed byte for byte."""
    layout = OciLayout(tmp_path / "layout")
    made = layout.add_image([archive(file(b"a", b"1")), archive(file(b"b", b"2"))])
    source, target = f"{registry.host}/from:1", f"{registry.host}/to:1"
    skopeo_copy(layout.name(made, "1"), f"docker://{source}")
    engine.images.pull(source).push(target)
    assert inspect(source) == inspect(target)


def test_whole_index_or_one_platform(engine: Engine, registry: DockerRegistry, tmp_path: Path) -> None:
    """Of an index of which one platform was pulled, that platform's image is pushed alone."""
    layout = OciLayout(tmp_path / "layout")
    images = [layout.add_image([archive(file(b"a", n.encode()))], architecture=n) for n in ("amd64", "arm64")]
    source, target = f"{registry.host}/index:1", f"{registry.host}/one:1"
    skopeo_copy(layout.name(layout.add_index(images), "m"), f"docker://{source}", "--all")
    image = engine.images.pull(source, platform="linux/arm64")
    pushed = image.push(target)
    assert pushed.digest == images[1]["digest"]
    engine.images.pull(source, platform="linux/amd64").push(f"{registry.host}/both:1")
    assert inspect(f"{registry.host}/both:1") == inspect(source)


def test_command_line_pushes(
    engine: Engine, registry: DockerRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`containerlib push` prints the name; a name that is no image here is an error."""
    name = f"{registry.host}/cli:1"
    engine.images.from_host(["sh"], reference=name)
    monkeypatch.setenv("CONTAINERLIB_ROOT", engine.root)
    monkeypatch.setenv("CONTAINERLIB_RUN_ROOT", engine.run_root)
    command = [sys.executable, "-m", "containerlib", "push", name]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, name), done.stderr
    assert "Pushed" in done.stderr
    done = subprocess.run([*command[:-1], f"{name}x"], capture_output=True, text=True, check=False)
    assert done.returncode == 125
    assert "no image is called" in done.stderr


def test_password_is_needed_for_pushing(
    engine: Engine, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A registry with passwords refuses without, and takes the image with the right one."""
    need(request.config, "peers", ("docker-registry", "skopeo"))
    with temporary_directory("p") as path, docker_registry(path, htpasswd=HTPASSWD) as locked:
        monkeypatch.setenv("HOME", str(path))
        name = f"{locked.host}/private:1"
        image = engine.images.from_host(["sh"], reference=name)
        with pytest.raises(cl.AuthenticationFailed):
            image.push(name)
        auth = {"auths": {locked.host: {"username": "ann", "password": "secret"}}}
        monkeypatch.setenv("DOCKER_AUTH_CONFIG", json.dumps(auth))
        assert image.push(name).digest == image.digest


def test_bad_targets_are_refused(engine: Engine) -> None:
    """A digest is no place to push to, an offline engine pushes nothing, nobody listens on that port."""
    image = engine.images.from_host(["sh"], reference="x:1")
    with pytest.raises(cl.InvalidReference, match="by a tag"):
        image.push(f"127.0.0.1:9/x@{image.digest}")
    with pytest.raises(cl.RegistryUnavailable, match="cannot connect"):
        image.push("127.0.0.1:9/x:1")
    config = cl.EngineConfig(offline=True)
    with cl.Engine(engine.root, engine.run_root, config) as offline, pytest.raises(cl.Offline):
        offline.images.push("x:1")


def test_images_of_several_platforms_become_one(
    engine: Engine, registry: DockerRegistry, tmp_path: Path
) -> None:
    """An index of images of the store is what skopeo and another pull choose from; its order is kept."""
    layout = OciLayout(tmp_path / "layout")
    for name in ("amd64", "arm64"):
        made = layout.add_image([archive(file(b"a", name.encode()))], architecture=name)
        skopeo_copy(layout.name(made, name), f"docker://{registry.host}/single:{name}")
    images = [
        engine.images.pull(f"{registry.host}/single:{name}", platform=f"linux/{name}")
        for name in ("arm64", "amd64")
    ]
    name = f"{registry.host}/together:1"
    pushed = engine.images.push_index(name, [images[0], f"{registry.host}/single:amd64"])
    assert pushed.media_type == "application/vnd.oci.image.index.v1+json"
    entries: Any = inspect(name)["manifests"]
    assert [entry["digest"] for entry in entries] == [image.digest for image in images]
    assert [entry["platform"]["architecture"] for entry in entries] == ["arm64", "amd64"]
    chosen = engine.images.pull(name, platform="linux/arm64")
    assert chosen.id == images[0].id
    assert engine.images.push_index(name, images) == pushed
    with pytest.raises(cl.InvalidInputError, match="two images are for linux/arm64"):
        engine.images.push_index(name, [images[0], images[0]])
    with pytest.raises(cl.InvalidInputError, match="at least one"):
        engine.images.push_index(name, [])
    with pytest.raises(cl.ImageNotFound):
        engine.images.push_index(name, ["nobody/nothing"])


def test_index_of_docker_images_is_one_of_docker(
    engine: Engine, registry: DockerRegistry, tmp_path: Path
) -> None:
    """Images in Docker's format make a list in Docker's format."""
    layout = OciLayout(tmp_path / "layout")
    made = layout.add_image([archive(file(b"a", b"1"))])
    source, target = f"{registry.host}/docker:1", f"{registry.host}/docker:all"
    skopeo_copy(layout.name(made, "1"), f"docker://{source}", "--format=v2s2")
    pushed = engine.images.push_index(target, [engine.images.pull(source)])
    assert pushed.media_type == "application/vnd.docker.distribution.manifest.list.v2+json"
    assert inspect(target)["mediaType"] == pushed.media_type
