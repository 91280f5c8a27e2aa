"""Device nodes in images: refused unless the engine takes them, and no way around the device rules."""

from __future__ import annotations

import io
import tarfile
from typing import TYPE_CHECKING

import pytest
from support.archives import archive, directory, member
from support.capabilities import need
from support.engine import busybox_tree, new_engine
from support.session import temporary_directory, tracked_root

import containerlib as cl

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from containerlib import Engine

pytestmark = pytest.mark.root

TREE = archive(
    directory(b"nodes"),
    member(b"nodes/null", b"3", major=1, minor=3, mode=0o666),
    member(b"nodes/kmsg", b"3", major=1, minor=11, mode=0o666),
)


@pytest.fixture
def taking() -> Iterator[Engine]:
    """Return an engine that takes images with devices."""
    config = cl.EngineConfig(image_devices=True)
    with temporary_directory("e") as base:
        run_root = base / "n"
        with tracked_root(run_root), new_engine(base / "r", run_root, config=config) as made:
            yield made


def test_devices_of_an_archive(engine: Engine, taking: Engine) -> None:
    """The error of an engine that refuses names the option of one that does not."""
    with pytest.raises(cl.UnsafePath, match="image_devices=True"):
        engine.images.from_tar(io.BytesIO(TREE))
    assert taking.images.from_tar(io.BytesIO(TREE)).layers


def test_devices_of_a_saved_image(engine: Engine, taking: Engine, tmp_path: Path) -> None:
    """An image with devices can be saved, and is loaded only where devices are taken."""
    saved = tmp_path / "saved.tar"
    made = taking.images.from_tar(io.BytesIO(TREE), reference="nodes:1")
    taking.images.save(["nodes:1"], saved)
    with pytest.raises(cl.UnsafePath, match="nodes/null"):
        engine.images.load(saved)
    assert engine.images.list() == []
    made.remove(force=True)
    assert [image.id for image in taking.images.load(saved)] == [made.id]


def test_device_rules_hold_for_nodes_of_an_image(
    taking: Engine, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """A container opens the nodes that its rules allow, and no others."""
    need(request.config, "peers", ("busybox",))
    with tarfile.open(tmp_path / "rootfs.tar", "w") as rootfs:
        rootfs.add(busybox_tree(tmp_path / "tree"), arcname=".")
        for name, minor in (("null", 3), ("kmsg", 11)):
            node = tarfile.TarInfo(f"nodes/{name}")
            node.type, node.mode, node.devmajor, node.devminor = tarfile.CHRTYPE, 0o666, 1, minor
            rootfs.addfile(node)
    made = taking.images.from_tar(tmp_path / "rootfs.tar")
    made.call(["sh", "-c", "echo x > /nodes/null"], check=True)
    result = made.call(["dd", "if=/nodes/kmsg", "of=/dev/null", "count=1"])
    assert result.exit_code == 1
    assert "Operation not permitted" in result.stderr.decode()
