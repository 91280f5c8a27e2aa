"""Containers in several networks: from the start, connected later, disconnected."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from support.failpoints import failing_at, hooked, record_steps
from support.outside import WORLD, Server, another_host, echoed, wait_until

from containerlib import (
    ContainerlibError,
    ContainerNotFound,
    InvalidOption,
    InvalidState,
    NetworkAttachment,
    NetworkNotFound,
    PortMapping,
    ResourceInUse,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from containerlib import Container, Engine, Image, Network

pytestmark = [pytest.mark.root, pytest.mark.cgroup]

SLEEP = ["sleep", "600"]
FREE = 45_872


@pytest.fixture
def image(busybox_image: Image) -> Image:
    """Return an image with ip and ping."""
    return busybox_image


@pytest.fixture
def engine(image: Image, shared_engine: Engine) -> Engine:
    """Return the engine of the image, which has started something."""
    image.call(["true"], check=True)
    return shared_engine


@pytest.fixture
def front(engine: Engine) -> Iterator[Network]:
    """Return a network with a way out."""
    with engine.networks.create("front") as made:
        yield made


@pytest.fixture
def back(engine: Engine) -> Iterator[Network]:
    """Return an internal network."""
    with engine.networks.create("back", internal=True) as made:
        yield made


def finds(container: Container, name: str) -> str | None:
    """The address that the programs of a container find by a name."""
    text = container.exec(["ping", "-c", "1", "-w", "3", name]).text
    return text.partition("(")[2].partition(")")[0] or None


def devices(container: Container) -> list[str]:
    """The names of the devices of a container."""
    return sorted(os.path.basename(path) for path in container.exec(["ls", "/sys/class/net"]).text.split())


def test_several_from_the_start(image: Image, front: Network, back: Network) -> None:
    """It has a place in each, finds and is found in each, and goes out by the one that has a way out."""
    place = NetworkAttachment(network="back", aliases=["database", "db"], mac_address="02:aa:bb:cc:dd:ee")
    with (
        image.run(SLEEP, network="back", networks=["front"], name="app", network_aliases=["web"]) as app,
        image.run(SLEEP, network="front", networks=[place], name="store") as store,
        image.run(SLEEP, network="back", name="inner") as inner,
        image.run(SLEEP, network="front", name="outer") as outer,
    ):
        assert list(app.ip_addresses) == ["back", "front"]
        assert app.ip_address == app.ip_addresses["back"]
        assert devices(app) == ["eth0", "eth1", "lo"]
        for name in ("database", "db", "store"):
            assert finds(inner, name) == store.ip_addresses["back"]
        assert finds(outer, "store") == store.ip_addresses["front"]
        assert finds(inner, "web") == app.ip_addresses["back"]
        # By whichever of its networks it asks, it learns what is in all of them.
        for each in (app, store):
            assert finds(each, "inner") == inner.ip_address
            assert finds(each, "outer") == outer.ip_address
        assert finds(inner, "outer") is None
        assert "02:aa:bb:cc:dd:ee" in store.exec(["cat", "/sys/class/net/eth1/address"]).text
        assert f"default via {front.gateway} dev eth1" in app.exec(["ip", "route"]).text
        assert f"default via {front.gateway} dev eth0" in store.exec(["ip", "route"]).text
        assert set(front.containers()) == {"app", "store", "outer"}
        assert set(back.containers()) == {"app", "store", "inner"}
        assert app.inspect().to_json()["NetworkSettings"]["Networks"].keys() == {"back", "front"}  # type: ignore[index]


def test_connecting_and_disconnecting(image: Image, front: Network, back: Network) -> None:
    """A running container comes into a network at once, and leaves it at once."""
    with (
        image.run(SLEEP, network="front", name="app") as app,
        image.run(SLEEP, network="back", name="db") as db,
    ):
        assert finds(app, "db") is None
        back.connect(app, aliases=["client"], ip_address=str(back.subnet.network_address + 77))
        assert app.ip_addresses["back"] == str(back.subnet.network_address + 77)
        assert finds(app, "db") == db.ip_address
        assert finds(db, "client") == app.ip_addresses["back"]
        with pytest.raises(ResourceInUse, match="is in network 'back' already"):
            back.connect("app")
        back.disconnect("app")
        assert finds(app, "db") is None
        assert finds(db, "client") is None
        assert devices(app) == ["eth0", "lo"]
        assert back.containers() == {"db": db.ip_address}
        with pytest.raises(InvalidState, match="is not in network 'back'"):
            back.disconnect(app)
        front.connect(db.id)
        assert devices(db) == ["eth0", "eth1", "lo"]
        assert finds(db, "app") == app.ip_address


def test_the_way_out(image: Image, engine: Engine, front: Network) -> None:
    """It changes over to another network when that is left by which it went."""
    with (
        another_host() as world,
        Server(world, WORLD),
        engine.networks.create("other") as other,
        image.run(SLEEP, network="front", networks=["other"]) as container,
    ):
        assert container.exec(["nc", "-w", "2", WORLD, "9"]).text
        front.disconnect(container)
        assert f"default via {other.gateway}" in container.exec(["ip", "route"]).text
        assert container.exec(["nc", "-w", "2", WORLD, "9"]).text
        other.disconnect(container)
        assert container.exec(["nc", "-w", "2", WORLD, "9"]).text == ""
        assert devices(container) == ["lo"]
        assert container.ip_address is None
        front.connect(container)
        assert container.exec(["nc", "-w", "2", WORLD, "9"]).text
        assert finds(container, container.name) == container.ip_address


def test_it_is_kept(image: Image, engine: Engine, front: Network, back: Network) -> None:
    """What was connected or disconnected is so at the next start, for other processes as well."""
    container = engine.containers.create(image, SLEEP, network="front", lifetime="detached", name="app")
    try:
        back.connect(container, aliases=["x"])
        assert container.ip_addresses == {}
        assert back.containers() == {"app": ""}
        container.start()
        assert devices(container) == ["eth0", "eth1", "lo"]
        address = container.ip_addresses["back"]
        container.restart(timeout_s=0)
        assert container.ip_addresses["back"] == address
        front.disconnect(container)
        container.restart(timeout_s=0)
        assert list(container.ip_addresses) == ["back"]
        shown = subprocess.run(
            [sys.executable, "-m", "containerlib", "inspect", "app"],
            env={**os.environ, "CONTAINERLIB_ROOT": engine.root, "CONTAINERLIB_RUN_ROOT": engine.run_root},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        assert f'"IPAddress": "{address}"' in shown
        container.stop(timeout_s=0)
        back.disconnect(container)
        container.start()
        assert devices(container) == ["lo"]
        assert front.containers() == back.containers() == {}
    finally:
        container.remove(force=True)


def test_ports_go_with_the_first_network(image: Image, front: Network, back: Network) -> None:
    """Who leaves it gives them up."""
    ports = [PortMapping(container_port=7, host_port=FREE)]
    with image.run(
        ["nc", "-ll", "-p", "7", "-e", "cat"], network="front", networks=["back"], ports=ports
    ) as app:
        app.connect(7).close()
        assert echoed(None, "127.0.0.1", FREE)
        back.disconnect(app)
        assert echoed(None, "127.0.0.1", FREE)
        front.disconnect(app)
        assert not echoed(None, "127.0.0.1", FREE)


@pytest.mark.usefixtures("front", "back")
def test_command_line(image: Image, engine: Engine) -> None:
    """``network connect`` and ``disconnect``, and several networks for ``run``."""
    environment = {**os.environ, "CONTAINERLIB_ROOT": engine.root, "CONTAINERLIB_RUN_ROOT": engine.run_root}

    def run(*arguments: str) -> None:
        subprocess.run([sys.executable, "-m", "containerlib", *arguments], env=environment, check=True)

    more = ["--network-alias", "x", "--mac-address", "02:00:00:00:00:07"]
    run("run", "-d", "--name", "app", "--network", "front", "--network", "back", *more, image.id, *SLEEP)
    try:
        app = engine.containers.get("app")
        assert list(app.ip_addresses) == ["front", "back"]
        assert "02:00:00:00:00:07" in app.exec(["cat", "/sys/class/net/eth0/address"]).text
        assert finds(app, "x") == app.ip_address
        run("network", "disconnect", "back", "app")
        run("network", "connect", "--alias", "y", "back", "app")
        assert finds(app, "y") == app.ip_addresses["back"]
    finally:
        run("rm", "-f", "app")


def test_bad_places(image: Image, front: Network, back: Network) -> None:
    """What cannot be is refused, and nothing is changed."""
    with image.run(SLEEP, network="front", name="app") as app, image.run(SLEEP, name="alone"):
        for options, problem in (
            ({"ip_address": "192.0.2.1"}, "no address of a host in"),
            ({"ip_address": "a"}, "give an address of version 4"),
            ({"mac_address": "01:00:00:00:00:00"}, "that of a group"),
            ({"mac_address": "x"}, "give six bytes"),
            ({"aliases": ["a b"]}, "use letters"),
            ({"aliases": "ab"}, "give a list of names"),
        ):
            with pytest.raises(InvalidOption, match=problem):
                back.connect(app, **options)  # type: ignore[arg-type]
        with pytest.raises(InvalidOption, match="container 'alone' was made for it"):
            back.connect("alone")
        with pytest.raises(ContainerNotFound):
            back.connect("nobody")
        with pytest.raises(ResourceInUse, match="that of container 'app'"):
            image.run(
                SLEEP,
                network="back",
                networks=[NetworkAttachment(network="front", ip_address=app.ip_address)],
            )
        with pytest.raises(NetworkNotFound):
            image.run(SLEEP, network="front", networks=["none-such"])
        for networks, problem in (
            (["front"], "is there twice"),
            (["back", "back"], "is there twice"),
            ("back", "a list"),
        ):
            with pytest.raises(InvalidOption, match=problem):
                image.run(SLEEP, network="front", networks=networks)
        assert devices(app) == ["eth0", "lo"]
        assert front.containers() == {"app": app.ip_address}
        assert back.containers() == {}


def test_errors_of_connecting(image: Image, front: Network, back: Network, engine: Engine) -> None:
    """Whatever fails: it is connected, or it is not."""
    app = image.run(SLEEP, network="front", name="app", lifetime="detached")
    try:
        steps = record_steps(lambda: back.connect(app), engine.root)
        back.disconnect(app)
        assert len(steps) > 3
        for step in steps:
            with hooked(failing_at(step, engine.root, 5)):
                try:
                    back.connect(app)
                except (ContainerlibError, OSError):
                    assert devices(app) == ["eth0", "lo"], step
                    assert back.containers() == {}, step
                    continue
            back.disconnect(app)
        assert front.containers()
    finally:
        app.remove(force=True)


def test_churn(image: Image, front: Network, back: Network) -> None:
    """A thousand times in and out leaves what was there before."""
    with image.run(SLEEP, network="front", name="app") as app:
        before = set(os.listdir("/sys/class/net"))
        for _ in range(1000):
            back.connect(app)
            back.disconnect(app)
        assert set(os.listdir("/sys/class/net")) == before
        assert devices(app) == ["eth0", "lo"]
        assert back.containers() == {}
        assert front.containers() == {"app": app.ip_address}


def test_many_networks(image: Image, engine: Engine) -> None:
    """Five hundred networks come and go, each with a container in it."""
    before = set(os.listdir("/sys/class/net"))
    for number in range(500):
        with (
            engine.networks.create(f"n{number}") as made,
            image.run(["true"], network=made.name) as container,
        ):
            assert container.wait().exit_code == 0
    wait_until(lambda: set(os.listdir("/sys/class/net")) == before)
    assert engine.networks.list() == []
