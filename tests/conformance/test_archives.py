"""Images go between containerlib and other programs in archives and layouts, and stay the same."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from typing import TYPE_CHECKING

import pytest
from support.capabilities import need
from support.engine import busybox_tree, new_engine
from support.peers import NAMES, Peer, Umoci, invoke, stacked
from support.session import temporary_directory, tracked_root
from support.trees import tree
from support.zoo import PROGRAMS, tar_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from containerlib import Engine, Image

pytestmark = [pytest.mark.root]

NAME = "localhost/made:1"
OUR_NAME = "localhost/ours:1"
SCRIPT = """set -e; export PATH=/bin
rm /etc/group; rm -r /gone; echo new > /etc/new; mkdir -p /deep/er; ln -s /etc/new /deep/er/link
ln /etc/new /deep/er/second; chmod 4711 /deep; chown 12:34 /etc/new; touch -d @1234567890 /etc/new
"""
LAYOUTS = ("oci", "oci-archive")

# What each writes, in the words of containers-transports(5).
THEIRS = [("podman", "docker-archive"), ("podman", "oci-archive"), ("podman", "oci")]
THEIRS += [("buildah", "docker-archive"), ("buildah", "oci-archive"), ("buildah", "oci")]
THEIRS += [("docker", "docker-archive"), ("umoci", "oci")]
# What skopeo makes of umoci's layout.
THEIRS += [("umoci", "docker-archive"), ("umoci", "oci-archive")]

TRANSPORTS = {"docker": "docker-archive", "oci": "oci-archive", "oci-directory": "oci"}
# Debian's umoci has no zstd, and docker needs manifest.json.
OURS = [
    (peer, form, how) for peer in ("podman", "buildah") for form in TRANSPORTS for how in ("keep", "gzip")
]
OURS += [(peer, "oci", "zstd") for peer in ("podman", "buildah")]
OURS += [("docker", "docker", how) for how in ("keep", "gzip", "zstd")]
OURS += [("umoci", form, how) for form in TRANSPORTS for how in ("keep", "gzip")]


@pytest.fixture(scope="module")
def base_tar(request: pytest.FixtureRequest) -> Iterator[Path]:
    """Return the archive of a small root file system."""
    need(request.config, "peers", ("skopeo", *PROGRAMS))
    with temporary_directory("z") as work:
        busybox_tree(work / "tree")
        (work / "tree" / "gone").mkdir()
        (work / "tree" / "gone" / "file").write_text("gone", encoding="ascii")
        (work / "tree.tar").write_bytes(tar_of(work / "tree"))
        yield work / "tree.tar"


@pytest.fixture(scope="module")
def made(peers: Callable[[str], Peer], base_tar: Path) -> Callable[[str], Peer]:
    """Return how a peer that has made its own image is had; each makes it once."""
    done: dict[str, Peer] = {}

    def find(name: str) -> Peer:
        if name not in done:
            peers(name).make(NAME, base_tar, SCRIPT)
            done[name] = peers(name)
        return done[name]

    return find


@pytest.fixture(scope="module")
def ours(base_tar: Path) -> Iterator[Image]:
    """Return an image of ours, in an engine that no test changes."""
    with (
        temporary_directory("o") as base,
        tracked_root(base / "n"),
        new_engine(base / "r", base / "n") as engine,
    ):
        image = engine.images.from_tar(base_tar, reference=OUR_NAME)
        image.call(["/bin/true"])
        yield image


def write(peer: Peer, transport: str, out: Path) -> None:
    """Let a peer write its image with its own command."""
    target = f"{transport}:{out}:{NAME}"
    if peer.name == "podman":
        form = {"oci": "oci-dir"}.get(transport, transport)
        peer.call("save", "--quiet", "--format", form, "--output", str(out), NAME)
    elif peer.name == "docker":
        peer.call("save", "--output", str(out), NAME)
    elif peer.name == "buildah":
        peer.call("push", "--quiet", NAME, target)
    elif isinstance(peer, Umoci):
        source = peer.image(NAME)
        if transport == "oci":
            invoke("cp", "-r", source.rpartition(":")[0], str(out))
        else:
            peer.skopeo("copy", "--quiet", f"oci:{source}", target)


def read(peer: Peer, form: str, path: Path) -> str:
    """Let a peer load an archive of ours with its own command, and return what it calls the image."""
    source = f"{TRANSPORTS[form]}:{path}"
    if peer.name in {"podman", "docker"}:
        name = peer.call("load", "--input", str(path)).rpartition("Loaded image: ")[2]
        assert name == OUR_NAME or form == "oci-directory"  # which podman names after its path
        return name
    if isinstance(peer, Umoci):
        peer.tags.pop(OUR_NAME, None)
        peer.skopeo("copy", "--quiet", f"{source}:{OUR_NAME}", f"oci:{peer.image(OUR_NAME)}")
        return OUR_NAME
    return peer.call("pull", "--quiet", source)


@contextlib.contextmanager
def our_tree(image: Image) -> Iterator[Path]:
    """Show an image of ours, as its containers see it."""
    with temporary_directory("v") as path, stacked(path / "seen", image.record.lowers) as root:
        yield root


def digest_of(source: str) -> str:
    """Return the digest of the manifest that skopeo sees in a layout or archive."""
    return invoke("skopeo", "inspect", "--format={{.Digest}}", source)


def image_id_at(peer: Peer, name: str) -> str:
    """Return what a peer has for the id of an image."""
    if isinstance(peer, Umoci):
        raw = invoke("skopeo", "inspect", "--raw", f"oci:{peer.image(name)}")
        return str(json.loads(raw)["config"]["digest"])
    if peer.name == "buildah":
        return f"sha256:{peer.call('images', '--no-trunc', '--quiet', name).removeprefix('sha256:')}"
    return f"sha256:{peer.call('image', 'inspect', '--format={{.Id}}', name).removeprefix('sha256:')}"


@pytest.mark.parametrize(("name", "transport"), THEIRS)
def test_what_they_save_we_load(
    name: str, transport: str, made: Callable[[str], Peer], engine: Engine, tmp_path: Path
) -> None:
    """What a peer writes is loaded: the same digest where the form keeps it, the same tree, and it runs."""
    peer = made(name)
    out = tmp_path / "out"
    write(peer, transport, out)
    (image,) = engine.images.load(out)
    if transport in LAYOUTS:
        assert image.digest == digest_of(f"{transport}:{out}")
    assert image.id == image_id_at(peer, NAME)
    if name != "umoci":  # which knows tags only
        assert image.references == (NAME,)
    with our_tree(image) as mine, peer.tree(NAME) as other:
        assert tree(mine) == tree(other)
    command = ["/bin/sh", "-c", "cat /deep/er/second; ls -d /gone /etc/group"]
    assert image.call(command).stdout == b"new\n"


@pytest.mark.parametrize(("name", "transport"), THEIRS)
def test_what_they_save_runs_from_there(
    name: str, transport: str, made: Callable[[str], Peer], engine: Engine, tmp_path: Path
) -> None:
    """What a peer writes runs straight from where it lies, and the second time nothing is loaded."""
    out = tmp_path / "out"
    write(made(name), transport, out)
    place = f"{transport}:{out}"
    image = engine.images.find(place)
    assert image.call(["/bin/cat", "/etc/new"]).stdout == b"new\n"
    assert image.references == ()
    blobs = sorted(path for top, _, files in os.walk(f"{engine.root}/blobs") for path in (top, *files))
    again = engine.images.find(place)
    assert again.digest == image.digest
    assert (
        sorted(path for top, _, files in os.walk(f"{engine.root}/blobs") for path in (top, *files)) == blobs
    )
    assert len(engine.images.list()) == 1


@pytest.fixture
def short() -> Iterator[Path]:
    """Return a directory whose path has no upper case: peers make a name of an image out of the path."""
    with temporary_directory("y") as path:
        yield path


@pytest.mark.parametrize(("name", "form", "how"), OURS)
def test_what_we_save_they_load(
    name: str, form: str, how: str, ours: Image, peers: Callable[[str], Peer], short: Path
) -> None:
    """A peer loads what we save: the same configuration, the same tree, and its programs run."""
    peer = peers(name)
    out = short / "out"
    ours.save(out, format=form, compression=None if how == "keep" else how)  # type: ignore[arg-type]
    if form != "docker" and how == "keep":
        assert digest_of(f"{TRANSPORTS[form]}:{out}") == ours.digest
    loaded = read(peer, form, out)
    if name != "umoci" or form != "docker":  # skopeo writes the configuration anew when it changes the form
        assert image_id_at(peer, loaded) == ours.id
    with our_tree(ours) as mine, peer.tree(loaded) as other:
        assert tree(mine) == tree(other)
    assert peer.run(loaded, "/bin/cat", "/gone/file") == "gone"


@pytest.mark.parametrize("form", TRANSPORTS)
def test_skopeo_finds_it_by_name(form: str, ours: Image, tmp_path: Path) -> None:
    """Skopeo sees the image alone and by its name: its manifest in layouts, its configuration everywhere."""
    ours.save(tmp_path / "out", format=form)  # type: ignore[arg-type]
    for source in (f"{TRANSPORTS[form]}:{tmp_path}/out", f"{TRANSPORTS[form]}:{tmp_path}/out:{OUR_NAME}"):
        raw = invoke("skopeo", "inspect", "--config", "--raw", source)
        assert f"sha256:{hashlib.sha256(raw.encode()).hexdigest()}" == ours.id
        if form != "docker":
            assert digest_of(source) == ours.digest


@pytest.mark.parametrize("form", TRANSPORTS)
@pytest.mark.parametrize("transport", TRANSPORTS.values())
def test_through_skopeo_and_back(
    form: str, transport: str, ours: Image, engine: Engine, tmp_path: Path
) -> None:
    """What skopeo copies out of our form into each of its own is loaded here as the same image again."""
    ours.save(tmp_path / "ours", format=form, compression="gzip")  # type: ignore[arg-type]
    source, target = f"{TRANSPORTS[form]}:{tmp_path}/ours", f"{transport}:{tmp_path}/copy"
    invoke("skopeo", "--insecure-policy", "copy", "--quiet", source, f"{target}:{OUR_NAME}")
    (image,) = engine.images.load(tmp_path / "copy")
    assert image.references == (OUR_NAME,)
    assert image.record.chain_id == ours.record.chain_id
    if transport in LAYOUTS:
        assert image.digest == digest_of(target)
    # Skopeo writes the configuration anew where it turns Docker's form into OCI's.
    assert image.id == ours.id or (form == "docker" and transport in LAYOUTS)


def test_umoci_unpacks_our_directory(ours: Image, tmp_path: Path, peers: Callable[[str], Peer]) -> None:
    """Umoci unpacks our layout in place, into the tree that the image has."""
    peers("umoci")
    ours.save(tmp_path / "layout", format="oci-directory", compression="gzip")
    invoke("umoci", "unpack", "--image", f"{tmp_path}/layout:{OUR_NAME}", f"{tmp_path}/bundle")
    with our_tree(ours) as mine:
        assert tree(tmp_path / "bundle" / "rootfs") == tree(mine)
    invoke("rm", "-rf", f"{tmp_path}/bundle")


def test_several_images_of_docker(made: Callable[[str], Peer], engine: Engine, tmp_path: Path) -> None:
    """An archive of several images and names is loaded whole, and one of them runs from there by name."""
    docker = made("docker")
    docker.call("tag", NAME, "localhost/made:second")
    docker.call("save", "--output", f"{tmp_path}/out", NAME, "localhost/made:second", "made:base")
    first = engine.images.find(f"docker-archive:{tmp_path}/out:made:base")
    assert first.call(["/bin/cat", "/gone/file"]).stdout == b"gone"
    loaded = engine.images.load(tmp_path / "out")
    assert {name for image in loaded for name in image.references} == {
        "localhost/made:1",
        "localhost/made:second",
        "docker.io/library/made:base",
    }
    assert len({image.id for image in loaded}) == 2


def test_insert_of_umoci(made: Callable[[str], Peer], engine: Engine, tmp_path: Path) -> None:
    """A layer that umoci has put into a layout is seen, and each tag of the layout runs by its name."""
    umoci = made("umoci")
    assert isinstance(umoci, Umoci)
    source, _, tag = umoci.image(NAME).rpartition(":")
    invoke("cp", "-r", source, f"{tmp_path}/layout")
    (tmp_path / "file").write_text("inserted", encoding="ascii")
    image = f"{tmp_path}/layout:{tag}"
    umoci.call("insert", "--image", image, "--tag", "more", f"{tmp_path}/file", "/inserted")
    more = engine.images.find(f"oci:{tmp_path}/layout:more")
    assert more.call(["/bin/cat", "/inserted"]).stdout == b"inserted"
    plain = engine.images.find(f"oci:{image}")
    assert plain.call(["/bin/cat", "/inserted"]).exit_code == 1
    assert {more.id, plain.id} <= {each.id for each in engine.images.load(tmp_path / "layout")}


def test_import_is_the_same_tree(base_tar: Path, engine: Engine, peers: Callable[[str], Peer]) -> None:
    """A root file system that docker imports is the same image file by file as here."""
    docker = peers("docker")
    docker.call("import", "--change", 'CMD ["/bin/cat", "/gone/file"]', str(base_tar), "localhost/imported:1")
    image = engine.images.from_tar(base_tar)
    with our_tree(image) as mine, docker.tree("localhost/imported:1") as other:
        assert tree(mine) == tree(other)


def test_all_peers_take_part() -> None:
    """Every peer there is reads and writes in the tests above."""
    assert {name for name, _ in THEIRS} == {name for name, _, _ in OURS} == set(NAMES)
