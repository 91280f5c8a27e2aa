"""The layer of a container: what stays of a run, and how the root file system is made."""

from __future__ import annotations

import io
import os
import tarfile
from typing import TYPE_CHECKING

import attrs
import pytest
from support.archives import archive, directory, file
from support.engine import BUSYBOX, busybox_tree, new_engine
from support.oci_layout import OciLayout
from support.session import temporary_directory, tracked_root

import containerlib as cl

if TYPE_CHECKING:
    from collections.abc import Iterator

    from containerlib import Container, Engine, Image

pytestmark = [pytest.mark.root, pytest.mark.guest]

KINDS = ["overlay", "copy"]


@pytest.fixture(scope="module", params=KINDS)
def small(request: pytest.FixtureRequest, image: Image) -> Iterator[Image]:
    """Return an image of a few programs in a store of its own, for each way to make a root file system."""
    del image  # what one engine of the process makes lazily is then made
    with temporary_directory("k") as base:
        config = cl.EngineConfig(root_kind=request.param)
        with tracked_root(base / "n"), new_engine(base / "r", base / "n", config=config) as engine:
            made = engine.images.from_host(["sh", "cat", "ls", "rm", "id", "stat", "true"])
            made.call(["true"], layer="disk")
            yield made


def make(image: Image, script: str, **options: object) -> Container:
    """Make a container that runs a script, with its layer on the disk."""
    containers = cl.Containers(image._session, image._remote)
    return containers.create(image, ["sh", "-c", script], **{"layer": "disk", **options})  # type: ignore[arg-type]


def run(container: Container) -> str:
    """Start a container, wait for its end and return its output."""
    container.start(stdin=cl.DEVNULL, stdout=cl.PIPE, stderr=cl.DEVNULL)
    assert container.stdout is not None
    with container.stdout as stdout:
        output = stdout.read()
    container.wait()
    return output.decode()


SCRIPT = "cat /kept; echo more >> /kept; rm /etc/nsswitch.conf && echo removed; echo x > /etc/group"


def test_second_start_finds_the_layer(small: Image) -> None:
    """What a container wrote is there when it is started again, if its layer is on the disk."""
    with make(small, SCRIPT) as container:
        assert [run(container) for _ in range(3)] == ["removed\n", "more\n", "more\nmore\n"]


def test_second_start_without_a_layer(small: Image) -> None:
    """A container whose layer is in memory begins anew."""
    with make(small, SCRIPT, layer="memory") as container:
        assert [run(container) for _ in range(2)] == ["removed\n"] * 2


def test_accounts_come_from_the_layer(small: Image) -> None:
    """A user that a container has added to its passwd file is known when it is started again."""
    script = "echo new:x:77:88::/home/new:/bin/sh >> /etc/passwd; id -u; echo $HOME"
    with make(small, script) as container:
        assert run(container) == "0\n/root\n"
        again = make(small, script, user="new")
        with again, pytest.raises(cl.InvalidOption, match="'new'"):
            again.start()


def test_layers_are_separate(small: Image) -> None:
    """What one container writes no other sees, and the image stays as it is."""
    with make(small, "echo x > /mine; echo x > /etc/passwd; rm /bin/cat") as first:
        run(first)
        assert small.call(["sh", "-c", "ls /mine /bin/cat; id -un"]).text == "/bin/cat\nroot\n"


def test_failed_start_leaves_it_as_it_was(small: Image) -> None:
    """A container that could not be started can be started when the cause is gone, on the same layer."""
    with make(small, "cat /kept; echo more > /kept", workdir="/missing") as container:
        entry = container.entry
        broken, good = entry.config, attrs.evolve(entry.config, workdir="/")
        for state, output in (("created", ""), ("exited", "more\n")):
            entry.config = broken
            for _ in range(2):
                with pytest.raises(cl.InvalidOption, match="workdir='/missing'"):
                    container.start()
                assert container.state == state
            entry.config = good
            assert run(container) == output


def test_root_directory_is_open_to_all(small: Image) -> None:
    """The root directory of a container belongs to root and can be searched by every user."""
    for layer in ("memory", "disk"):
        result = small.call(["stat", "-c", "%a %u %g", "/"], user="4711", layer=layer)  # type: ignore[arg-type]
        assert result.text == "755 0 0\n"


def test_leftovers_of_a_removal_are_collected(engine: Engine) -> None:
    """What a process left that died while it removed a layer goes with the next engine's first container."""
    left = f"{engine.root}/containers/.rm-0123456789abcdef"
    os.makedirs(f"{left}/below")
    with engine.images.from_host(["true"]).run(["true"], stdin=cl.DEVNULL) as container:
        container.wait()
    assert not os.path.exists(left)


def test_engines_with_other_run_roots_leave_it(small: Image) -> None:
    """An engine on the same store with a run root of its own does not collect this one's layers."""
    root = small._session.stores.layout.root
    with make(small, "cat /kept; echo more > /kept") as container:
        assert run(container) == ""
        with (
            temporary_directory("o") as base,
            tracked_root(base / "n"),
            new_engine(root, base / "n") as other,
        ):
            other.images.get(small.id).call(["true"])
        assert run(container) == "more\n"


def deep_image(engine: Engine, count: int) -> Image:
    """Load an image of busybox and `count` layers above it, each with a file of its own."""
    with temporary_directory("deep") as base:
        busybox_tree(base / "tree")
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as tar:
            tar.add(base / "tree", arcname=".")
        layout = OciLayout(base / "layout")
        above = [archive(directory(b"many"), file(b"many/%d" % number, b"x")) for number in range(count)]
        layout.name(layout.add_image([packed.getvalue(), *above], compress=False), "deep:1")
        return engine.images.load(base / "layout")[0]


@pytest.mark.parametrize("count", [3, 60, 126])
def test_deep_images(engine: Engine, count: int) -> None:
    """As many layers as builders make, each with a long path, are all seen, and the root is no copy."""
    if not BUSYBOX.exists():
        pytest.skip("busybox is not installed")
    image = deep_image(engine, count)
    for layer in ("memory", "disk"):
        script = "ls /many | wc -l; grep -c ' / overlay ' /proc/mounts"
        assert image.call(["sh", "-c", script], layer=layer).text.split() == [str(count), "1"]  # type: ignore[arg-type]
    with make(image, "true") as container:
        container.put(b"new", f"/many/{count}")
        assert (container.fs / f"many/{count}").read_bytes() == b"new"
        assert len(list((container.fs / "many").iterdir())) == count + 1
