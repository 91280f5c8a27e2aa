"""Networks whose making, use or removal is cut short: at each step, by a kill or by an error of the host."""

from __future__ import annotations

import contextlib
import errno
import os
from typing import TYPE_CHECKING

import pytest
from support.failpoints import Step, died_at, failing_at, hooked, record_steps
from support.outside import wait_until

from containerlib import ContainerlibError, InvalidState, PortMapping, ResourceInUse
from containerlib.network.publish import hold_ports

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from containerlib import Engine, Image

pytestmark = [pytest.mark.root, pytest.mark.cgroup, pytest.mark.netadmin]


@pytest.fixture
def engine(busybox_image: Image, shared_engine: Engine) -> Iterator[Engine]:
    """Return an engine that has started something, and that is without networks in the end."""
    busybox_image.call(["true"], check=True)
    yield shared_engine
    for container in shared_engine.containers.list():
        container.remove(force=True)
    shared_engine.networks.prune()
    assert shared_engine.networks.list() == []
    # What children have left that were killed.
    shared_engine.recover()


def create(engine: Engine) -> None:
    """Make a network."""
    engine.networks.create("net")


def remove(engine: Engine) -> None:
    """Remove a network that is there."""
    engine.networks.get("net").remove()


def prepare(engine: Engine, operation: Callable[[Engine], None]) -> None:
    """Have the network there, or not, as an operation needs it."""
    names = [each.name for each in engine.networks.list()]
    if operation is remove and not names:
        create(engine)
    if operation is create and names:
        remove(engine)


def works(engine: Engine, image: Image) -> None:
    """A network of that name can be made unless it is there, used, and removed."""
    if not engine.networks.list():
        create(engine)
    assert image.call(["ip", "addr", "show", "eth0"], network="net", check=True).stdout
    assert engine.networks.get("net").containers() == {}
    remove(engine)
    # What was in containers goes a moment later.
    assert not [name for name in os.listdir("/sys/class/net") if name.startswith(("cl-o", "cl-i"))]


@pytest.mark.parametrize("operation", [create, remove])
def test_kills(engine: Engine, busybox_image: Image, operation: Callable[[Engine], None]) -> None:
    """Whoever comes after somebody who was killed at a step can go on."""
    prepare(engine, operation)
    # Those of a new engine, which the child is, have a test of their own.
    others = {step.name for step in record_steps(engine._session.enter, engine.root)}
    every = record_steps(lambda: operation(engine), engine.root)
    steps = [step for step in every if step.name not in others]
    assert len(steps) > 5
    for step in steps:
        prepare(engine, operation)
        died_at(lambda: operation(engine), engine.root, step)
        works(engine, busybox_image)


@pytest.mark.parametrize("operation", [create, remove])
def test_errors(engine: Engine, busybox_image: Image, operation: Callable[[Engine], None]) -> None:
    """What the host refuses is an error, after which all is as before or as after."""
    prepare(engine, operation)
    for step in record_steps(lambda: operation(engine), engine.root):
        prepare(engine, operation)
        with hooked(failing_at(step, engine.root, errno.EIO)):
            try:
                operation(engine)
            except (ContainerlibError, OSError):
                if operation is create:
                    assert engine.networks.list() == [], step
        works(engine, busybox_image)


def test_errors_of_a_start(engine: Engine, busybox_image: Image) -> None:
    """A container that cannot be started leaves neither an address nor a device."""
    create(engine)

    def start() -> None:
        busybox_image.call(["true"], network="net", check=True)

    network = engine.networks.get("net")
    steps = [step for step in record_steps(start, engine.root) if is_of_networks(step)]
    assert len(steps) > 3
    for step in steps:
        with hooked(failing_at(step, engine.root, errno.EIO)):
            try:
                start()
            except (ContainerlibError, OSError):
                assert network.containers() == {}, step
        start()
    remove(engine)


def is_of_networks(step: Step) -> bool:
    """Whether a step is of what a network adds to a start."""
    return any(word in step.name for word in ("endpoint", "firewall", "network"))


@pytest.mark.parametrize("verb", ["connect", "disconnect"])
def test_kills_of_memberships(engine: Engine, busybox_image: Image, verb: str) -> None:
    """A container that somebody was connecting or disconnecting can be disconnected and connected."""
    engine.networks.create("front")
    back = engine.networks.create("back", internal=True)
    container = busybox_image.run(["sleep", "600"], network="front", name="lasting", lifetime="detached")

    def act() -> None:
        # In a child: as somebody else who has opened the store.
        network = engine.networks.get("back")
        (network.connect if verb == "connect" else network.disconnect)("lasting")

    def ready() -> None:
        with contextlib.suppress(InvalidState):
            back.disconnect(container)
        if verb == "disconnect":
            back.connect(container)

    ready()
    steps = record_steps(act, engine.root)
    assert len(steps) > 3
    for step in steps:
        ready()
        died_at(act, engine.root, step)
        with contextlib.suppress(InvalidState):
            back.disconnect(container)
        back.connect(container)
        assert list(container.ip_addresses) == ["front", "back"], step
        address = container.ip_addresses["back"]
        assert f"inet {address}/" in container.exec(["ip", "addr", "show", "eth1"]).text, step
        back.disconnect(container)
        assert container.exec(["ls", "/sys/class/net"]).text.split() == ["eth0", "lo"], step
        assert back.containers() == {}, step


def test_kills_of_publishing(engine: Engine, busybox_image: Image) -> None:
    """Whoever was killed while a container with a port started leaves the port to others."""
    engine.networks.create("net")
    ports = [PortMapping(container_port=7, host_port=45_873, host="*")]

    def start() -> None:
        busybox_image.run(["true"], network="net", ports=ports)

    steps = [step for step in record_steps(start, engine.root) if is_of_networks(step)]
    assert len(steps) > 5
    for step in steps:
        died_at(start, engine.root, step)
        # The process of the networks notices within its next look that nobody is there.
        wait_until(lambda: can_be_held(ports))
        # Their addresses are theirs until somebody has looked after what was killed.
        engine.recover()


def can_be_held(ports: Sequence[PortMapping]) -> bool:
    """Whether these ports of the host are free."""
    try:
        hold_ports(ports).close()
    except ResourceInUse:
        return False
    return True
