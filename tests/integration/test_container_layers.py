"""The layer of a container: what stays of a run, and how the root file system is made."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import attrs
import pytest
from support.engine import new_engine
from support.session import temporary_directory, tracked_root

import containerlib as cl

if TYPE_CHECKING:
    from collections.abc import Iterator

    from containerlib import Container, Engine, Image

pytestmark = pytest.mark.root

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
