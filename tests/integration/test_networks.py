"""Networks of the store: containers in them, what reaches them, and what is left of them."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from containerlib import (
    DEVNULL,
    PIPE,
    AddressesExhausted,
    ContainerNotFound,
    InvalidInputError,
    InvalidOption,
    InvalidState,
    NameInUse,
    NetworkNotFound,
    OperationTimeout,
    ResourceInUse,
    RestartPolicy,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from containerlib import Container, Engine, Image, Network

pytestmark = [pytest.mark.root, pytest.mark.cgroup]

ECHO = "nc -ll -p 7 -e cat"


@pytest.fixture
def image(busybox_image: Image) -> Image:
    """Return an image with nc and ip."""
    return busybox_image


@pytest.fixture
def engine(image: Image, shared_engine: Engine) -> Engine:
    """Return the engine of the image, which has started something."""
    image.call(["true"], check=True)
    return shared_engine


@pytest.fixture
def network(engine: Engine) -> Iterator[Network]:
    """Return a network, which is empty afterwards."""
    with engine.networks.create("net", internal=True) as made:
        yield made


def links(network: Network) -> set[str]:
    """The ports of its bridge."""
    return set(os.listdir(f"/sys/class/net/{network.bridge}/brif"))


def wait_until_gone(network: Network, count: int = 0) -> None:
    """The kernel removes devices some time after their namespace."""
    give_up = threading.Event()
    timer = threading.Timer(30, give_up.set)
    timer.start()
    try:
        while len(links(network)) > count and not give_up.is_set():
            os.sched_yield()
    finally:
        timer.cancel()
    assert len(links(network)) == count


def reach(container: Container) -> socket.socket:
    """Connect from outside to what listens in a container, once it does."""
    container.connect(7).close()
    return socket.create_connection(container.address(7), timeout=30)


def echo(connection: socket.socket, text: bytes = b"hello\n") -> None:
    """Send something, and see it come back."""
    with connection:
        connection.settimeout(30)
        connection.sendall(text)
        assert connection.recv(100) == text


# The objects


def test_life_of_a_network(engine: Engine) -> None:
    """It is made with all it was asked for, found by name and id, listed, shown, and removed."""
    made = engine.networks.create("one", internal=True, mtu=1400, labels={"a": "b"})
    assert (made.name, made.driver, made.internal, made.mtu, made.labels) == (
        "one",
        "bridge",
        True,
        1400,
        {"a": "b"},
    )
    assert made.gateway == made.subnet.network_address + 1
    assert made.subnet.prefixlen == 24
    for key in ("one", made.id, made.id[:8]):
        assert engine.networks.get(key).id == made.id
    assert [each.name for each in engine.networks.list()] == ["one"]
    shown: Any = made.inspect().to_json()
    assert shown["IPAM"]["Config"] == [{"Subnet": str(made.subnet), "Gateway": str(made.gateway)}]
    device = Path("/sys/class/net") / made.bridge
    assert (device / "mtu").read_text(encoding="ascii") == "1400\n"
    assert Path(f"/proc/sys/net/ipv6/conf/{made.bridge}/disable_ipv6").read_text(encoding="ascii") == "1\n"
    made.remove()
    assert not device.exists()
    with pytest.raises(NetworkNotFound, match="'one' has been removed"):
        made.remove()
    with pytest.raises(NetworkNotFound, match="there are: none"):
        engine.networks.get("one")
    assert [event.action for event in engine.events(follow=False) if event.id == made.id] == [
        "create",
        "destroy",
    ]


def test_many_subnets(engine: Engine) -> None:
    """Forty networks have forty subnets, none of which this host had before."""
    with contextlib.ExitStack() as stack:
        made = [
            stack.enter_context(engine.networks.create(f"n{number}", internal=True)) for number in range(40)
        ]
        subnets = [each.subnet for each in made]
        assert not any(a.overlaps(b) for n, a in enumerate(subnets) for b in subnets[:n])
    assert engine.networks.list() == []


def test_subnet_and_gateway(engine: Engine, image: Image) -> None:
    """What is asked for is what there is."""
    asked = {"subnet": "10.99.0.0/29", "gateway": "10.99.0.6", "internal": True}
    with engine.networks.create("small", **asked) as made:
        assert made.subnet == ipaddress.IPv4Network("10.99.0.0/29")
        with image.run(["sleep", "600"], network="small") as container:
            assert container.ip_address == "10.99.0.1"


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"name": "a/b"}, "expected 1 to 255 letters"),
        ({"name": "host"}, "mean something else"),
        ({"subnet": "10.0.0.0/33"}, "give for example"),
        ({"subnet": "10.0.0.1/24"}, "host bits set"),
        ({"subnet": "10.99.0.0/31"}, "has no room"),
        ({"subnet": "127.1.0.0/24"}, "other purposes"),
        ({"subnet": "fd00::/64"}, "subnet="),
        ({"subnet": "10.99.0.0/24", "gateway": "10.98.0.1"}, "is no address of a host in"),
        ({"gateway": "one"}, "gateway='one'"),
        ({"mtu": 20}, "must be from 576"),
    ],
)
def test_bad_networks(engine: Engine, options: dict[str, Any], problem: str) -> None:
    """Each is refused by name, and nothing is made."""
    before = os.listdir("/sys/class/net")
    with pytest.raises(InvalidInputError, match=problem):
        engine.networks.create(**{"name": "bad", "internal": True, **options})
    assert os.listdir("/sys/class/net") == before
    assert engine.networks.list() == []


def test_subnets_in_use(engine: Engine, network: Network) -> None:
    """A subnet that another network has, or the host, is refused with what has it."""
    with pytest.raises(InvalidOption, match=f"overlaps with {network.subnet}"):
        engine.networks.create("other", subnet=str(network.subnet), internal=True)
    with pytest.raises(NameInUse, match="'net' is in use"):
        engine.networks.create("net", internal=True)


def test_a_bridge_is_no_one_elses(engine: Engine, image: Image) -> None:
    """A device of that name that somebody else has made is left alone."""
    made = engine.networks.create("taken", internal=True)
    subprocess.run(["ip", "link", "delete", made.bridge], check=True)
    subprocess.run(["ip", "link", "add", made.bridge, "type", "bridge"], check=True)
    try:
        with pytest.raises(ResourceInUse, match="somebody else has made"):
            image.run(["true"], network="taken")
        made.remove()
        assert Path(f"/sys/class/net/{made.bridge}").exists()
    finally:
        subprocess.run(["ip", "link", "delete", made.bridge], check=True)


# Containers in them


def test_containers_reach_each_other(image: Image, network: Network) -> None:
    """By their addresses, from each other and from the host; nobody else is on the way."""
    with (
        image.run(["sh", "-c", ECHO], network="net") as server,
        image.run(["sleep", "600"], network="net") as client,
    ):
        address, port = server.address(7)
        assert (address, port) == (server.ip_address, 7)
        assert ipaddress.IPv4Address(address) in network.subnet
        echo(reach(server))
        done = client.exec(["sh", "-c", f"echo hello | nc -w 5 {address} 7"], check=True)
        assert done.stdout == b"hello\n"
        assert network.containers() == {server.name: address, client.name: client.ip_address}
        client.rename("other")
        assert network.containers() == {server.name: address, "other": client.ip_address}
        hosts = client.exec(["cat", "/etc/hosts"]).stdout.decode()
        assert f"{client.ip_address}\t{client.id[:12]}\n" in hosts


def test_what_a_container_finds(image: Image, network: Network) -> None:
    """One device besides the loopback device, with an address of version 4 only, and no way out."""
    script = (
        "ip -o addr; ip route; cat /proc/sys/net/ipv6/conf/eth0/disable_ipv6; cat /sys/class/net/eth0/mtu"
    )
    out = image.call(["sh", "-c", script], network="net", check=True).stdout.decode()
    assert f"inet {network.subnet.network_address + 2}/24" in out
    assert "eth0    inet6" not in out
    assert "default" not in out
    assert out.endswith("1\n1500\n")
    wait_until_gone(network)


def test_another_containers_network(image: Image, network: Network) -> None:
    """It has the same devices and ports; the other must run."""
    with (
        image.run(["sh", "-c", ECHO], network="net", name="first") as first,
        image.run(["sleep", "600"], network="container:first") as second,
    ):
        assert second.ip_address == first.ip_address
        assert (
            second.exec(["readlink", "/proc/self/ns/net"]).stdout
            == first.exec(["readlink", "/proc/self/ns/net"]).stdout
        )
        echo(second.connect(7))
        with pytest.raises(InvalidOption, match="would change others"):
            image.run(["true"], network="container:first", sysctls={"net.ipv4.ip_forward": "1"})
        first.kill()
        first.wait()
        with pytest.raises(InvalidState, match="cannot reach the network of container 'first'"):
            image.run(["true"], network="container:first")
    del network


def test_unknown_networks(image: Image, network: Network) -> None:
    """A name that is none is refused before anything is made, with those there are."""
    with pytest.raises(NetworkNotFound, match="'nett' does not exist in this store; there are: net"):
        image.run(["true"], network="nett")
    with pytest.raises(ContainerNotFound, match="nobody"):
        image.run(["true"], network="container:nobody")
    with pytest.raises(InvalidOption, match="container:NAME"):
        image.run(["true"], network="a b")
    with image.run(["sleep", "600"], network="host") as container:
        with pytest.raises(InvalidOption, match="give 'host'"):
            image.run(["true"], network=f"container:{container.name}")
        assert container.address(80) == ("127.0.0.1", 80)
    del network


def test_a_network_in_use_stays(image: Image, network: Network) -> None:
    """As long as a container is in it, running or not."""
    with image.run(["true"], network="net", name="user") as container:
        container.wait()
        with pytest.raises(ResourceInUse, match="is that of user; remove them first"):
            network.remove()


def test_restarts(image: Image, network: Network) -> None:
    """A container has the same address each time, and its device anew."""
    with image.run(["sleep", "600"], network="net") as container:
        address = container.ip_address
        for _ in range(5):
            container.restart(timeout_s=0)
            assert container.ip_address == address
            assert address is not None
            assert f"inet {address}/" in container.exec(["ip", "addr"]).stdout.decode()
        wait_until_gone(network, 1)
    wait_until_gone(network)


def test_an_address_that_is_asked_for(engine: Engine, image: Image) -> None:
    """It is given if it is one of the network's and nobody else has it."""
    with engine.networks.create("fixed", subnet="10.99.2.0/24") as network:
        asked = {"network": "fixed", "ip_address": "10.99.2.77"}
        with image.run(["sleep", "600"], name="holder", **asked) as container:
            assert container.ip_address == "10.99.2.77"
            shown: Any = container.inspect().to_json()["NetworkSettings"]
            assert (shown["IPAddress"], list(shown["Networks"])) == ("10.99.2.77", ["fixed"])
            with pytest.raises(ResourceInUse, match=r"10\.99\.2\.77 is that of container 'holder'"):
                image.run(["true"], **asked)
            for wrong in ("10.99.2.0", "10.99.3.1"):
                with pytest.raises(InvalidOption, match="is no address of a host in"):
                    image.run(["true"], network="fixed", ip_address=wrong)
            with pytest.raises(ResourceInUse, match="is the gateway"):
                image.run(["true"], network="fixed", ip_address="10.99.2.1")
        assert image.call(["hostname", "-i"], check=True, **asked).stdout == b"10.99.2.77\n"
        assert network.containers() == {}


def test_the_host_by_name(image: Image, network: Network) -> None:
    """A container knows the host by the names that it has elsewhere, and connects to what listens there."""
    with socket.create_server((str(network.gateway), 0)) as listener:
        listener.settimeout(30)
        port = listener.getsockname()[1]
        with image.run(
            ["sh", "-c", f"echo hello | nc host.docker.internal {port}"],
            network="net",
            extra_hosts={"me": "host-gateway"},
        ) as container:
            connection, peer = listener.accept()
            with connection:
                assert connection.recv(100) == b"hello\n"
            assert peer[0] == container.ip_address


def test_removal_while_containers_start(engine: Engine, image: Image) -> None:
    """Either the network is gone before a container is in it, or it stays."""
    failed: list[BaseException] = []

    def start() -> None:
        for _ in range(10):
            try:
                with image.run(["sleep", "600"], network="fought") as container:
                    container.exec(["ip", "addr", "show", "eth0"], check=True)
                    assert links(engine.networks.get("fought"))
            except NetworkNotFound:
                return
            except BaseException as error:  # noqa: BLE001 - told by the test
                failed.append(error)
                return

    for _ in range(10):
        network = engine.networks.create("fought")
        thread = threading.Thread(target=start)
        thread.start()
        while thread.is_alive():
            with contextlib.suppress(ResourceInUse, NetworkNotFound):
                network.remove()
        thread.join()
        with contextlib.suppress(NetworkNotFound):
            network.remove()
    assert failed == []
    assert engine.networks.list() == []


def test_addresses_run_out(engine: Engine, image: Image) -> None:
    """The last address is given away; then there is an error, and what is given back is there again."""
    with (
        engine.networks.create("tiny", subnet="10.99.1.0/30", internal=True) as tiny,
        image.run(["sleep", "600"], network="tiny") as only,
    ):
        with pytest.raises(AddressesExhausted, match="make a network with a larger subnet"):
            image.run(["sleep", "600"], network="tiny")
        only.remove(force=True)
        with image.run(["sleep", "600"], network="tiny") as next_one:
            assert next_one.ip_address == "10.99.1.2"
        assert tiny.containers() == {}


def test_more_than_a_bridge_takes(engine: Engine, image: Image) -> None:
    """Containers at further bridges are in the same network, and nothing of those stays."""
    before = set(os.listdir("/sys/class/net"))
    with engine.networks.create("large", subnet="10.210.0.0/20", internal=True) as network:
        addresses = [str(network.subnet[offset]) for offset in (5, 999, 1000, 1007, 3999)]
        with contextlib.ExitStack() as stack:
            made = []
            for address in addresses:
                options: Any = {"network": "large", "ip_address": address, "stdin": DEVNULL}
                container = image.run(ECHO.split(), **options)
                container.connect(7).close()
                made.append(stack.enter_context(container))
            for container in made:
                echo(reach(container))
                for other in made:
                    text = container.exec(["sh", "-c", f"echo hello | nc -w 5 {other.name} 7"]).text
                    assert text == "hello\n", (container, other)
            bridges = {name for name in os.listdir("/sys/class/net") if name.startswith(network.bridge[:10])}
            assert len(bridges) == 3
        wait_until_gone(network, count=2)
    assert set(os.listdir("/sys/class/net")) == before


def test_a_start_that_fails(image: Image, network: Network) -> None:
    """Neither address nor device stays."""
    with pytest.raises(Exception, match="missing"):
        image.run(["/missing"], network="net")
    assert network.containers() == {}
    wait_until_gone(network)


def test_a_bridge_that_is_taken_away(image: Image, network: Network) -> None:
    """It is made anew for the next container."""
    subprocess.run(["ip", "link", "delete", network.bridge], check=True)
    with image.run(["sh", "-c", ECHO], network="net") as container:
        echo(reach(container))


# The way in


def test_connections_without_a_port(image: Image) -> None:
    """What listens on the loopback device of a container without any network is reached."""
    with image.run(["sh", "-c", "sleep 0.2; nc -l -p 7 -e cat; sleep 600"]) as container:
        echo(container.connect(7))
        with pytest.raises(OperationTimeout, match="nothing answers at port 8"):
            container.connect(8, timeout_s=0.1)
        with pytest.raises(InvalidState, match="connect\\(port\\) reaches"):
            container.address(7)
        with pytest.raises(InvalidOption, match="port=0"):
            container.connect(0)
        with pytest.raises(InvalidOption, match="give an address"):
            container.connect(7, host="localhost")
        container.kill()
        container.wait()
        with pytest.raises(InvalidState, match="start it first"):
            container.connect(7)


def test_a_container_that_ends_meanwhile(image: Image) -> None:
    """Nobody waits for what cannot happen any more."""
    with (
        image.run(["sh", "-c", "sleep 0.3"]) as container,
        pytest.raises(InvalidState, match="cannot reach the network"),
    ):
        container.connect(7, timeout_s=600)


def test_a_socket_inside(image: Image) -> None:
    """The caller listens in the container's network, and its processes connect."""
    with image.run(["sleep", "600"]) as container, container.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        listener.settimeout(30)
        port = listener.getsockname()[1]
        with container.popen(["sh", "-c", f"echo hello | nc 127.0.0.1 {port}"], stdout=PIPE) as process:
            connection, _ = listener.accept()
            with connection:
                assert connection.recv(100) == b"hello\n"
            process.kill()


# Containers that outlive their maker


def test_a_detached_container(image: Image, network: Network, engine: Engine) -> None:
    """Its supervisor starts it again in the same network, and it is found by another process."""
    script = "ip -o addr show eth0; echo up; read x < /tmp/never || sleep 0.1; exit 1"
    container: Container = image.run(
        ["sh", "-c", script],
        network="net",
        lifetime="detached",
        name="lasting",
        restart=RestartPolicy(name="on-failure", max_retries=3),
    )
    try:
        assert container.wait().exit_code == 1
        lines = [line.text for line in container.logs()]
        assert len([line for line in lines if f"inet {container.ip_address}/" in line]) == 4
        listed = subprocess.run(
            [sys.executable, "-m", "containerlib", "network", "inspect", "net"],
            env={**os.environ, "CONTAINERLIB_ROOT": engine.root, "CONTAINERLIB_RUN_ROOT": engine.run_root},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        assert f'"{container.ip_address}/24"' in listed
    finally:
        container.remove(force=True)
    wait_until_gone(network)


def test_nothing_is_left_of_a_process_that_is_killed(image: Image, network: Network, engine: Engine) -> None:
    """Its containers end, their devices go, and their addresses are given to others."""
    program = (
        "import containerlib, sys, time\n"
        "c = containerlib.default_engine().images.get(sys.argv[1]).run(['sleep', '600'], network='net')\n"
        "print(c.ip_address, flush=True)\n"
        "time.sleep(600)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, image.id],
        env={**os.environ, "CONTAINERLIB_ROOT": engine.root, "CONTAINERLIB_RUN_ROOT": engine.run_root},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        assert list(network.containers().values()) == [address]
        process.send_signal(signal.SIGKILL)
    wait_until_gone(network)
    engine.recover()
    assert network.containers() == {}


def test_many_at_once(image: Image, network: Network) -> None:
    """Containers started by several threads have each an address of its own."""
    made: list[Container] = []
    failed: list[BaseException] = []

    def start() -> None:
        try:
            made.extend(image.run(["sleep", "600"], network="net") for _ in range(5))
        except BaseException as error:  # noqa: BLE001 - told by the test
            failed.append(error)

    threads = [threading.Thread(target=start) for _ in range(8)]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failed == []
        assert len({each.ip_address for each in made}) == 40
        assert len(links(network)) == 40
    finally:
        for each in made:
            each.remove(force=True)
    wait_until_gone(network)
