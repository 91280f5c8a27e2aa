"""A real image: Debian with Python, and a layer with everything over it, from Debian's registry."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from support.capabilities import need
from support.docker_registry import DockerRegistry, docker_registry, skopeo_copy
from support.oci_layout import OciLayout
from support.peers import stacked
from support.session import temporary_directory
from support.trees import tree
from support.zoo import PROGRAMS, fill_base, tar_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from support.peers import Peer

    from containerlib import Engine

pytestmark = [pytest.mark.root, pytest.mark.slow]

FILES = 10_000  # fewer are not the whole of it


@pytest.fixture(scope="module")
def registry(request: pytest.FixtureRequest, debian_tar: Path) -> Iterator[DockerRegistry]:
    """Return a registry with `python:3`, which is Debian alone, and `python:more`, with a second layer."""
    need(request.config, "peers", ("docker-registry", "skopeo", *PROGRAMS))
    debian = debian_tar.read_bytes()
    config = {"Cmd": ["python3"], "Env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"]}
    with temporary_directory("o") as path, docker_registry(path) as running:
        layout = OciLayout(path / "layout")
        image = layout.add_image([debian], config=config)
        skopeo_copy(layout.name(image, "1"), f"docker://{running.host}/python:3")
        (path / "tree").mkdir()
        fill_base(path / "tree" / "zoo")
        (path / "tree" / "usr" / "share").mkdir(parents=True)
        (path / "tree" / "usr" / "share" / ".wh.doc").touch()
        (path / "tree" / "etc").mkdir()
        (path / "tree" / "etc" / ".wh.debian_version").touch()
        image = layout.add_image([debian, tar_of(path / "tree", "--sparse")], config=config)
        skopeo_copy(layout.name(image, "1"), f"docker://{running.host}/python:more")
        yield running


def test_first_line_of_a_user(registry: DockerRegistry) -> None:
    """`containerlib.run` with the name of an image and nothing else, on a store that has nothing."""
    script = "import sys, containerlib as cl\n"
    script += "print(cl.run(['python3', '-c', 'print(1)'], image=sys.argv[1]).text)"
    with temporary_directory("u") as base:
        variables = {"CONTAINERLIB_ROOT": f"{base}/r", "CONTAINERLIB_RUN_ROOT": f"{base}/n"}
        done = subprocess.run(
            [sys.executable, "-c", script, f"{registry.host}/python:3"],
            capture_output=True,
            text=True,
            env={**os.environ, **variables},
            check=False,
        )
    assert done.stdout.strip() == "1", done.stderr


def test_whole_tree_is_that_of_podman(
    registry: DockerRegistry, engine: Engine, peers: Callable[[str], Peer]
) -> None:
    """Every name of a real image is what podman makes of it, and programs that need its libraries run."""
    podman, name = peers("podman"), f"{registry.host}/python:more"
    image = engine.images.pull(name)
    assert podman.pull(name) == image.digest
    with (
        temporary_directory("v") as path,
        stacked(path / "seen", image.record.lowers) as ours,
        podman.tree(name) as theirs,
    ):
        mine, other = tree(ours), tree(theirs)
    assert list(mine.items() ^ other.items()) == []
    assert len(mine) > FILES
    assert not {"usr/share/doc", "etc/debian_version"} & mine.keys()
    lines = "import ssl, sqlite3, sys; print(sys.prefix)"
    assert image.call(["python3", "-c", lines]).text == podman.run(name, "python3", "-c", lines) + "\n"
