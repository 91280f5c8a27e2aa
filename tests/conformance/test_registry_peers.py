"""Images go between containerlib and other engines, by way of Debian's registry, and stay the same."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING

import pytest
from support.capabilities import need
from support.docker_registry import DockerRegistry, docker_registry, skopeo_copy
from support.oci_layout import OciLayout
from support.peers import NAMES, Peer, digest_of, raw_of, stacked
from support.session import temporary_directory
from support.trees import tree
from support.zoo import PROGRAMS, fill_base, tar_of, zoo_layers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from containerlib import Engine, Image

pytestmark = [pytest.mark.root, pytest.mark.slow]

TOOLS = ("docker-registry", "skopeo", *PROGRAMS)
CONFIG = {"Cmd": ["/bin/sh"], "Env": ["PATH=/bin", "A=b"]}
# Which layers each can read: Debian's docker and umoci have no zstd, and umoci nothing but OCI's documents.
CASES = [("podman", form) for form in ("gzip", "zstd", "plain", "mixed", "schema2")]
CASES += [("buildah", form) for form in ("gzip", "mixed", "schema2")]
CASES += [("docker", form) for form in ("gzip", "plain", "schema2")]
CASES += [("umoci", form) for form in ("gzip", "plain")]

# How each can push what it has made: as it does by itself, and otherwise.
PUSHES = [("podman", "--format=oci"), ("podman", "--format=v2s2"), ("podman", "--compression-format=zstd")]
PUSHES += [("buildah", "--format=oci"), ("buildah", "--disable-compression"), ("docker", ""), ("umoci", "")]
PUSHES += [("umoci", "--format=v2s2")]
SCRIPT = """set -e; export PATH=/bin
rm /etc/gone /links/second /becomes-link; rm -r /gone-directory /opaque /many/d3
mkdir /opaque; echo new > /opaque/new; ln -s etc/kept /becomes-link
rm /becomes-directory; mkdir /becomes-directory; echo inside > /becomes-directory/inside
echo more >> /links/first; ln /etc/kept /etc/kept-too; chmod 4711 /etc/replaced; chown 12:34 /mode
mv /names/.hidden /names/moved; touch -d @1234567890 /etc/kept; mkfifo /pipe; rm /attributes/marked
"""
# Not by umoci, which adds whiteouts below what is a file then. Docker does not read such layers, nor do we.
FILE_FOR_DIRECTORY = "rm -r /becomes-file; echo file > /becomes-file"


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
def made(peers: Callable[[str], Peer]) -> Callable[[str], str]:
    """Return how a peer's own image is had, by the name of the peer; each is made once."""
    names: dict[str, str] = {}

    def find(name: str) -> str:
        if name not in names:
            script = SCRIPT if name == "umoci" else SCRIPT + FILE_FOR_DIRECTORY
            with temporary_directory("m") as work:
                (work / "tree").mkdir()
                fill_base(work / "tree")
                (work / "tree.tar").write_bytes(tar_of(work / "tree"))
                peers(name).make("made:1", work / "tree.tar", script)
            names[name] = "made:1"
        return names[name]

    return find


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
    assert not found, "\n".join(found[:5])


@pytest.mark.parametrize(("peer", "form"), CASES, indirect=["peer"])
def test_what_we_push_they_pull(
    peer: Peer, form: str, zoo: Callable[[str], str], engine: Engine, registry: DockerRegistry
) -> None:
    """A peer pulls what we have pushed: the same digest, the same tree, and its programs run."""
    image = engine.images.pull(zoo(form))
    name = f"{registry.host}/from-us/{peer.name}:{form}"
    assert image.push(name).digest == digest_of(name) == image.digest
    assert peer.pull(name) == image.digest
    with our_tree(image) as ours, peer.tree(name) as theirs:
        assert_same(ours, theirs)
    assert peer.run(name, "/bin/cat", "/etc/gone") == image.call(["cat", "/etc/gone"]).text == "back again"


@pytest.mark.parametrize("peer", NAMES, indirect=True)
@pytest.mark.parametrize("kind", ["directory", "host"])
def test_what_we_make_they_pull(peer: Peer, kind: str, engine: Engine, registry: DockerRegistry) -> None:
    """An image that was made here, of a directory or of programs of the host, is the same at a peer."""
    name = f"{registry.host}/made/{peer.name}:{kind}"
    if kind == "host":
        image = engine.images.from_host(["sh", "cat"], reference=name)
    else:
        with temporary_directory("f") as path:
            fill_base(path / "tree")
            image = engine.images.from_directory(path / "tree", reference=name)
    image.push(name)
    assert peer.pull(name) == image.digest
    with our_tree(image) as ours, peer.tree(name) as theirs:
        assert_same(ours, theirs)
    assert peer.run(name, "/bin/sh", "-c", "echo made") == "made"


@pytest.mark.parametrize(("peer", "option"), PUSHES, indirect=["peer"])
def test_what_they_push_we_pull(
    peer: Peer, option: str, made: Callable[[str], str], engine: Engine, registry: DockerRegistry
) -> None:
    """We pull what a peer has made and pushed: the same digests, the same tree, and its programs run."""
    name = f"{registry.host}/to-us/{peer.name}:{option.strip('-').replace('=', '-') or '1'}"
    peer.push(made(peer.name), name, *filter(None, [option]))
    image = engine.images.pull(name)
    assert image.digest == digest_of(name)
    raw = raw_of(name)
    manifest = json.loads(raw)
    assert [str(layer.digest) for layer in image.layers] == [layer["digest"] for layer in manifest["layers"]]
    assert image.id == manifest["config"]["digest"]
    assert image.record.manifest.raw.decode().strip() == raw
    with our_tree(image) as ours, peer.tree(made(peer.name)) as theirs:
        assert_same(ours, theirs)
    assert image.call(["/bin/cat", "/becomes-directory/inside"]).text == "inside\n"
    assert image.push(f"{name}-again").digest == digest_of(f"{name}-again") == image.digest
