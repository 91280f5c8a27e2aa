"""Images go between containerlib and other engines, by way of Debian's registry, and stay the same."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest
from support.capabilities import need
from support.docker_registry import DockerRegistry, docker_registry, skopeo_copy
from support.oci_layout import OciLayout
from support.peers import Buildah, Peer, Podman, Umoci, dockerd, invoke, stacked
from support.session import temporary_directory
from support.trees import tree
from support.zoo import PROGRAMS, zoo_layers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from containerlib import Engine, Image

pytestmark = [pytest.mark.root]

TOOLS = ("docker-registry", "skopeo", *PROGRAMS)
NEEDS = {
    "podman": ("podman", "runc"),
    "buildah": ("buildah", "runc"),
    "docker": ("dockerd", "docker", "runc"),
    "umoci": ("umoci", "skopeo", "chroot"),
}
CONFIG = {"Cmd": ["/bin/sh"], "Env": ["PATH=/bin", "A=b"]}
# Which layers each can read: Debian's docker and umoci have no zstd, and umoci nothing but OCI's documents.
CASES = [("podman", form) for form in ("gzip", "zstd", "plain", "mixed", "schema2")]
CASES += [("buildah", form) for form in ("gzip", "mixed", "schema2")]
CASES += [("docker", form) for form in ("gzip", "plain", "schema2")]
CASES += [("umoci", form) for form in ("gzip", "plain")]


@pytest.fixture(scope="module")
def registry(request: pytest.FixtureRequest) -> Iterator[DockerRegistry]:
    """Return a registry that lets everybody in."""
    need(request.config, "peers", TOOLS)
    with temporary_directory("g") as path, docker_registry(path) as running:
        yield running


@pytest.fixture(scope="module")
def zoo(registry: DockerRegistry) -> Iterator[Callable[[str], str]]:
    """Return where in the registry the image with one of everything is, by how its layers are compressed."""
    with temporary_directory("z") as work:
        layers = zoo_layers(work)
        layout = OciLayout(work / "layout")
        forms = {
            "gzip": ["gzip"] * 3,
            "zstd": ["zstd"] * 3,
            "plain": [""] * 3,
            "mixed": ["gzip", "zstd", ""],
        }
        for form, compressions in forms.items():
            config = {**CONFIG, "Labels": {"form": form}}  # so that no two are the same image to a peer
            image = layout.add_image(layers, config=config, compress=compressions)
            skopeo_copy(layout.name(image, "1"), f"docker://{registry.host}/zoo:{form}")
        image = layout.add_image(layers, config=CONFIG)
        skopeo_copy(layout.name(image, "1"), f"docker://{registry.host}/zoo:schema2", "--format=v2s2")
        yield lambda form: f"{registry.host}/zoo:{form}"


@pytest.fixture(scope="module")
def peer(request: pytest.FixtureRequest) -> Iterator[Peer]:
    """Return the other engine that the test names, with a store of its own."""
    need(request.config, "peers", NEEDS[request.param])
    with contextlib.ExitStack() as stack:
        base = stack.enter_context(temporary_directory("p"))
        if request.param == "docker":
            yield stack.enter_context(dockerd(base))
        else:
            kinds: dict[str, type[Peer]] = {"podman": Podman, "buildah": Buildah, "umoci": Umoci}
            yield stack.enter_context(contextlib.closing(kinds[request.param](base)))


@contextlib.contextmanager
def our_tree(image: Image) -> Iterator[Path]:
    """Show an image of ours, as its containers see it."""
    with temporary_directory("v") as path, stacked(path / "seen", image.record.lowers) as root:
        yield root


def assert_same(ours: Path, theirs: Path) -> None:
    """Compare two trees: names, modes, owners, sizes, content, times, links, attributes."""
    mine, other = tree(ours), tree(theirs)
    found = [
        f"{name}: {mine.get(name)} here, {other.get(name)} there"
        for name in sorted(mine.keys() | other.keys())
        if mine.get(name) != other.get(name)
    ]
    assert not found, "\n".join(found[:20])


def digest_of(name: str) -> str:
    """Return the digest that skopeo sees under this name."""
    return invoke("skopeo", "inspect", "--tls-verify=false", "--format={{.Digest}}", f"docker://{name}")


@pytest.mark.parametrize(("peer", "form"), CASES, indirect=["peer"])
def test_what_we_push_they_pull(
    peer: Peer, form: str, zoo: Callable[[str], str], engine: Engine, registry: DockerRegistry
) -> None:
    """A peer pulls what we have pushed: the same digest, the same tree, and its programs run."""
    image = engine.images.pull(zoo(form))
    name = f"{registry.host}/from-us/{type(peer).__name__.lower()}:{form}"
    assert image.push(name).digest == digest_of(name) == image.digest
    assert peer.pull(name) == image.digest
    with our_tree(image) as ours, peer.tree(name) as theirs:
        assert_same(ours, theirs)
    assert peer.run(name, "/bin/cat", "/etc/gone") == image.call(["cat", "/etc/gone"]).text == "back again"
