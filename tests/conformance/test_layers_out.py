"""Other programs read our layers and flat archives, and see the trees that they were made of."""

from __future__ import annotations

import io
import json
import os
import socket
import stat
import subprocess
from typing import TYPE_CHECKING

import pytest
from support.capabilities import need
from support.oci_layout import OciLayout
from support.session import temporary_directory
from support.trees import overlay, tree

import containerlib as cl
from containerlib.image.archive_load import load
from containerlib.image.archive_save import save
from containerlib.image.unpack import UnpackPolicy
from containerlib.layer.diff import write_diff, write_merged

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from support.peers import Peer

    from containerlib import Engine
    from containerlib.image.image_record import ImageRecord

pytestmark = pytest.mark.root

CAPABILITY = b"\x01\0\0\x02\0\x20\0\0" + bytes(12)
LONG = "l" * 120


class Made:
    """A base layer and a diff, as uncompressed archives, with what an overlay of both shows."""

    def __init__(self, base: Path) -> None:
        lower, upper, work = (base / name for name in ("lower", "upper", "work"))
        for directory in (lower, upper, work):
            directory.mkdir()
            directory.chmod(0o755)
        fill(lower)
        self.lower_tree = tree(lower)
        self.base = archive_of(write_merged, [str(lower)])
        with overlay(base / "seen", [lower], upper=upper, work=work) as seen:
            change(seen)
            self.tree = tree(seen)
        self.diff = archive_of(write_diff, str(upper))
        self.flat = archive_of(write_merged, [str(upper), str(lower)])


def archive_of(write: object, source: object) -> bytes:
    """Return what one of the writers writes."""
    out = io.BytesIO()
    write(source, out, devices="include")  # type: ignore[operator]
    return out.getvalue()


def fill(root: Path) -> None:
    """Make a tree with what archives find hard."""
    for number in range(40):
        directory = root / f"directory-{number}"
        directory.mkdir(mode=0o750)
        (directory / "file").write_bytes(os.urandom(number * 100))
        (directory / "removed").write_bytes(b"x")
    for name in ("gone", "again", "kept"):
        (root / name / "below").mkdir(parents=True)
        (root / name / "below" / "file").write_bytes(name.encode())
    (root / "suid").write_bytes(b"#!")
    os.chown(root / "suid", 1234, 2_200_000)
    (root / "suid").chmod(0o6755)
    os.link(root / "suid", root / "kept" / "second name")
    (root / LONG / LONG).mkdir(parents=True)
    (root / LONG / LONG / ("ü" * 60)).write_bytes(b"long")
    (root / "link").symlink_to(f"/{LONG}/{LONG}/nowhere")
    os.mkfifo(root / "pipe", 0o600)
    os.mknod(root / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.utime(root / "link", (1, 1_600_000_000), follow_symlinks=False)


def change(root: Path) -> None:
    """Change it."""
    for number in range(0, 40, 3):
        (root / f"directory-{number}" / "removed").unlink()
    for name in ("gone", "again"):
        subprocess.run(["rm", "-r", str(root / name)], check=True)
    (root / "again").mkdir()
    (root / "again" / "new").write_bytes(b"new")
    os.link(root / "again" / "new", root / "again" / "newer")
    (root / "capable").write_bytes(b"#!")
    os.setxattr(root / "capable", "security.capability", CAPABILITY)
    os.setxattr(root / "capable", "user.note", b"\0binary\n")
    (root / "link").unlink()
    (root / "link").mkdir()
    (root / "directory-1").chmod(0o1777)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(root / "socket"))


@pytest.fixture(scope="module")
def made() -> Iterator[Made]:
    """Return the layers of this module."""
    with temporary_directory("v") as base:
        yield Made(base)


@pytest.fixture(scope="module")
def layout(made: Made) -> Iterator[OciLayout]:
    """Return a layout with an image of both layers under the tag ``both``."""
    with temporary_directory("o") as path:
        result = OciLayout(path / "layout")
        history = [{"created": "2024-01-01T00:00:00Z", "created_by": name} for name in ("base", "diff")]
        history.insert(1, {"created": "2024-01-01T00:00:01Z", "created_by": "CMD", "empty_layer": True})  # type: ignore[dict-item]
        image = result.add_image(
            [made.base, made.diff],
            config={"Env": ["A=b"], "Cmd": ["/suid"], "Labels": {"k": "v"}, "ExposedPorts": {"80/tcp": {}}},
            history=history,
            created="2024-01-02T00:00:00Z",
            author="ann",
        )
        result.name(image, "both")
        yield result


def stored(engine: Engine, source: Path) -> ImageRecord:
    """Load an image that has a device, which the engine takes only where it is told to."""
    stores = engine.images._session.stores
    (record,) = load(stores, str(source), policy=UnpackPolicy(devices="create"))
    return record


def run(*command: str | Path, data: bytes | None = None) -> str:
    """Run a program and return its output; its complaints are the test's."""
    done = subprocess.run(list(map(str, command)), input=data, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()


def test_gnu_tar(request: pytest.FixtureRequest, made: Made, tmp_path: Path) -> None:
    """GNU tar unpacks the flat archive, attributes, owners and devices included, and complains of nothing."""
    need(request.config, "peers", ("tar",))
    flags = ["--xattrs", "--xattrs-include=*", "--numeric-owner", "-xp", "--same-owner"]
    done = subprocess.run(
        ["tar", *flags, "-C", str(tmp_path)], input=made.flat, capture_output=True, check=True
    )
    assert done.stderr == b""
    assert tree(tmp_path) == made.tree
    names = run("tar", "-t", "--quoting-style=literal", data=made.diff).splitlines()
    assert names.index(".wh.gone") < names.index("again/")
    assert names[names.index("again/") + 1] == "again/.wh..wh..opq"


def test_umoci(request: pytest.FixtureRequest, made: Made, layout: OciLayout, tmp_path: Path) -> None:
    """What umoci makes of the base and of our diff is what the overlay showed."""
    need(request.config, "peers", ("umoci",))
    run("umoci", "unpack", "--image", f"{layout.path}:both", tmp_path / "bundle")
    assert tree(tmp_path / "bundle" / "rootfs") == made.tree


@pytest.fixture
def docker(peers: Callable[[str], Peer]) -> Peer:
    """Return docker with a daemon of its own."""
    return peers("docker")


@pytest.fixture
def podman(peers: Callable[[str], Peer]) -> Peer:
    """Return podman with storage of its own."""
    return peers("podman")


def test_podman(podman: Peer, made: Made, layout: OciLayout) -> None:
    """What podman makes of the base and of our diff is what the overlay showed."""
    image = podman.call("pull", "--quiet", f"oci:{layout.path}:both").strip()
    with podman.tree(image) as root:
        assert tree(root) == made.tree


def test_podman_imports_the_flat_archive(podman: Peer, made: Made, tmp_path: Path) -> None:
    """Podman makes an image of an exported root file system that has the same tree."""
    (tmp_path / "flat.tar").write_bytes(made.flat)
    image = podman.call("import", "--quiet", str(tmp_path / "flat.tar")).strip()
    with podman.tree(image) as root:
        assert tree(root) == made.tree


def test_podman_agrees_on_history_and_inspect(podman: Peer, engine: Engine, layout: OciLayout) -> None:
    """Both print the same facts about one image, and match the same layers with the same steps."""
    image_id = podman.call("pull", "--quiet", f"oci:{layout.path}:both").strip()
    theirs = json.loads(podman.call("image", "inspect", image_id))[0]
    image = engine.images.get(str(stored(engine, layout.path).id))
    ours = image.inspect().to_json()
    for key in ("Author", "Architecture", "Os", "RootFS", "Created"):
        assert ours[key] == theirs[key], key
    assert f"sha256:{theirs['Id']}" == ours["Id"]
    for key, value in theirs["Config"].items():
        assert ours["Config"][key] == value, key  # type: ignore[index]
    steps = json.loads(podman.call("history", "--format", "json", image_id))
    assert [step["CreatedBy"] for step in steps] == [entry.created_by for entry in image.history()]
    assert [step["size"] > 0 for step in steps] == [entry.size_bytes > 0 for entry in image.history()]


def test_docker_agrees_on_history_and_inspect(
    docker: Peer, engine: Engine, layout: OciLayout, tmp_path: Path
) -> None:
    """Both print the same facts about one image, in the same form, and so do the commands."""
    record = stored(engine, layout.path)
    image = engine.images.get(str(record.id)).tag("team/both:1")
    save(engine.images._session.stores, [(image.record, ["team/both:1"])], str(tmp_path / "saved.tar"))
    docker.call("load", "--input", str(tmp_path / "saved.tar"))
    theirs = json.loads(docker.call("image", "inspect", "team/both:1"))[0]
    ours = image.inspect().to_json()
    # What docker has besides: fields of containers and of its storage. It counts the text of links, too.
    assert ours.keys() - {"Size", "RepoDigests", "Config"} <= theirs.keys()
    for key in ours.keys() - {"Size", "RepoDigests", "Config"}:
        assert ours[key] == theirs[key], key
    config: dict[str, object] = ours["Config"]  # type: ignore[assignment]
    for key, value in config.items():
        assert theirs["Config"][key] == value, key
    template = "{{.CreatedAt}}|{{.CreatedBy}}|{{.Comment}}|{{.ID}}"
    steps = docker.call("history", "--no-trunc", "--format", template, "team/both:1").splitlines()
    ids = [image.id, "<missing>", "<missing>"]
    expected = [
        f"{entry.created.isoformat()}|{entry.created_by}|{entry.comment}|{step_id}"
        for step_id, entry in zip(ids, image.history(), strict=True)
        if entry.created is not None
    ]
    assert [step.replace("Z|", "+00:00|") for step in steps] == expected


def test_docker_exports_the_same_tree(docker: Peer, made: Made, tmp_path: Path) -> None:
    """A container that docker makes of a flat archive has the same tree, beside what docker mounts on."""
    (tmp_path / "flat.tar").write_bytes(made.flat)
    image = docker.call("import", str(tmp_path / "flat.tar")).strip()
    container = docker.call("create", image, "/suid").strip()
    docker.call("export", container, "--output", str(tmp_path / "theirs.tar"))
    (tmp_path / "tree").mkdir()
    run("tar", "--xattrs", "--xattrs-include=*", "-xpf", tmp_path / "theirs.tar", "-C", tmp_path / "tree")
    theirs = tree(tmp_path / "tree")
    # Docker keeps capabilities, and no other attributes.
    assert os.getxattr(tmp_path / "tree" / "capable", "security.capability") == CAPABILITY
    added = {"capable", ".dockerenv", "dev", "etc", "proc", "sys"}
    kept = {path: fact for path, fact in theirs.items() if path.split("/")[0] not in added}
    assert kept == {path: fact for path, fact in made.tree.items() if path != "capable"}


def test_export_of_what_podman_saved(podman: Peer, engine: Engine, made: Made, tmp_path: Path) -> None:
    """An image goes through podman's hands and comes back as the same flat archive."""
    (tmp_path / "flat.tar").write_bytes(made.flat)
    image = podman.call("import", "--quiet", str(tmp_path / "flat.tar")).strip()
    podman.call("save", "--quiet", "--format=oci-archive", "-o", str(tmp_path / "saved.tar"), image)
    record = stored(engine, tmp_path / "saved.tar")
    out = io.BytesIO()
    exported = engine.images.get(str(record.id)).export(out)
    assert out.getvalue() == made.flat
    assert exported == cl.Exported(str(exported.digest), len(made.flat), exported.entries)
