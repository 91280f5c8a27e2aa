"""Faults of networks on demand: what is lost, late or slow, and what comes back when they are cleared."""

from __future__ import annotations

import os
import socket
import time
from typing import TYPE_CHECKING, Any

import pytest
from support.outside import echoed, wait_until

from containerlib import InvalidOption, InvalidState, UnsupportedHost
from containerlib._native.netlink import Netlink
from containerlib.network import nftables as nft

if TYPE_CHECKING:
    from collections.abc import Iterator

    from containerlib import Container, Engine, Image, Network

pytestmark = [pytest.mark.root, pytest.mark.cgroup]

ECHO = ["nc", "-ll", "-p", "7", "-e", "cat"]
SLEEP = ["sleep", "600"]


@pytest.fixture
def image(busybox_image: Image) -> Image:
    """Return an image with nc."""
    return busybox_image


@pytest.fixture
def engine(image: Image, shared_engine: Engine) -> Engine:
    """Return the engine of the image, which has started something."""
    image.call(["true"], check=True)
    return shared_engine


@pytest.fixture
def network(engine: Engine) -> Iterator[Network]:
    """Return a network."""
    with engine.networks.create("net", internal=True) as made:
        yield made


@pytest.fixture
def service(image: Image, network: Network) -> Iterator[Container]:
    """Return a container that says what it hears."""
    with image.run(ECHO, network=network.name, name="service") as container:
        container.connect(7).close()
        yield container


def reached(client: Container, service: Container) -> bool:
    """Whether a container hears of another one."""
    return client.exec(["sh", "-c", f"echo hello | nc -w 1 {service.ip_address} 7"]).text == "hello\n"


def tables() -> list[str]:
    """The tables of faults that there are."""
    with Netlink(nft.NETFILTER) as connection:
        names = list(nft.table_names(connection.dump(nft.of_bridges(nft.list_tables()))))
    return [name for name in names if "fault" in name]


def test_a_partition(image: Image, network: Network, service: Container) -> None:
    """Nobody reaches the container, nor it anybody, in this network only; until it is healed."""
    with image.run(SLEEP, network="net") as client, image.run(SLEEP, network="net") as other:
        assert reached(client, service)
        with network.faults(client, partition=True) as fault:
            assert not reached(client, service)
            assert reached(other, service)
            assert "drop=1.0" in repr(fault)
        assert reached(client, service)
        with network.faults(service, partition=True):
            assert not reached(other, service)
            assert not echoed(None, *service.address(7))
            # Its own loopback device is not in this network.
            service.connect(7).close()
        assert echoed(None, *service.address(7))
    assert tables() == []


def test_losses(image: Image, network: Network, service: Container) -> None:
    """Some of the datagrams arrive, and some do not."""
    with image.run(SLEEP, network="net") as receiver, receiver.socket(kind=socket.SOCK_DGRAM) as there:
        there.bind((str(receiver.ip_address), 9))
        there.setblocking(False)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as here:
            here.connect((str(receiver.ip_address), 9))
            here.send(b"first")  # so that the host knows its neighbour, which may get lost as well
            wait_until(lambda: _heard(there) > 0)
            with network.faults(receiver, drop=0.5):
                for number in range(400):
                    here.send(b"%d" % number)
            wait_until(lambda: _heard(there) > 0)
            count = 1 + sum(_heard(there) for _ in range(400))
        assert 50 < count < 390
    assert service.name == "service"


def _heard(sock: socket.socket) -> int:
    try:
        return len(sock.recv(100)) > 0
    except BlockingIOError:
        return 0


def test_a_narrow_line(image: Image, network: Network, service: Container) -> None:
    """What takes no time otherwise takes its time."""
    block = bytes(200_000)
    with image.run(SLEEP, network="net") as server, server.socket() as listener:
        listener.bind((str(server.ip_address), 9))
        listener.listen()
        with network.faults(server, rate_bytes_per_s=100_000):
            started = time.monotonic()
            with socket.create_connection((str(server.ip_address), 9), timeout=60) as client:
                accepted, _ = listener.accept()
                client.sendall(block)
                client.shutdown(socket.SHUT_WR)
                with accepted, accepted.makefile("rb") as file:
                    assert file.read() == block
            # Less than the bucket holds goes at once.
            assert time.monotonic() - started > 1
    assert service.name == "service"


def test_a_delay(image: Image, network: Network, service: Container) -> None:
    """Packets come later, or it is said what the kernel lacks, and nothing is wrong."""
    with image.run(SLEEP, network="net") as client:
        problem = ""
        try:
            with network.faults(client, delay_s=0.3):
                started = time.monotonic()
                assert reached(client, service)
                assert time.monotonic() - started > 0.3
        except UnsupportedHost as error:
            problem = str(error)
        if problem:
            assert "netem" in problem
            assert not os.path.exists("/sys/module/sch_netem")
        assert reached(client, service)


def test_one_after_the_other(image: Image, network: Network, service: Container) -> None:
    """The next one is instead of the last one; clearing twice is no error, nor after the end."""
    with image.run(SLEEP, network="net") as client:
        first = network.faults("service", partition=True)
        second = network.faults(service, drop=0.0)
        assert reached(client, service)
        second.clear()
        first.clear()
        third = network.faults(service, partition=True)
        service.kill()
        service.wait()
        third.clear()
        assert tables() == []


def test_they_go_with_the_place(image: Image, network: Network, engine: Engine) -> None:
    """With the container, and with being disconnected; a new start has none."""
    container = engine.containers.create(image, SLEEP, network="net")
    for _ in range(2):
        container.start()
        assert tables() == []
        network.faults(container, partition=True)
        container.kill()
        container.wait()
    container.start()
    network.faults(container, partition=True)
    network.disconnect(container)
    assert tables() == []
    network.connect(container)
    network.faults(container, partition=True)
    container.remove(force=True)
    assert tables() == []


def test_what_cannot_be(image: Image, network: Network, engine: Engine, service: Container) -> None:
    """It is said so, and nothing is wrong."""
    options: list[tuple[dict[str, Any], str]] = [
        ({"drop": 1.5}, "a part from 0 to 1"),
        ({"drop": "x"}, "a part from 0 to 1"),
        ({"delay_s": -1}, "give seconds"),
        ({"rate_bytes_per_s": 0}, "at least 1"),
        ({"rate_bytes_per_s": 1.5}, "at least 1"),
    ]
    for values, problem in options:
        with pytest.raises(InvalidOption, match=problem):
            network.faults(service, **values)
    with (
        engine.networks.create("other"),
        image.run(SLEEP, network="other") as stranger,
        pytest.raises(InvalidState, match="is not in network 'net'"),
    ):
        network.faults(stranger, partition=True)
    stopped = engine.containers.create(image, SLEEP, network="net")
    with pytest.raises(InvalidState, match="start it first"):
        network.faults(stopped, partition=True)
    stopped.remove()
    assert tables() == []
    assert os.path.exists(f"/sys/class/net/{network.bridge}")
