"""Published ports: who reaches them, from where, who holds them, and what is left of them."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest
from support.outside import (
    HOST,
    WORLD,
    another_host,
    echoed,
    network_process,
    reaches,
    socket_on,
    stopped_network_process,
    wait_until,
)

from containerlib import InvalidOption, InvalidState, PortMapping, ResourceInUse
from containerlib._native.netlink import Netlink, NetlinkError
from containerlib._native.supervisor import SupervisorState
from containerlib.network import nftables as nft

if TYPE_CHECKING:
    from collections.abc import Iterator

    from containerlib import Container, Engine, Image, Network

pytestmark = [pytest.mark.root, pytest.mark.cgroup]

ECHO = ["nc", "-ll", "-p", "7", "-e", "cat"]
FREE = 45_871


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
    """Return a network with a way out."""
    with engine.networks.create("net") as made:
        yield made


@pytest.fixture
def world() -> Iterator[int]:
    """Return the network namespace of another host."""
    with another_host() as namespace:
        yield namespace


def published(host: str = "localhost", *, port: int | None = FREE, inner: int = 7) -> PortMapping:
    """One port."""
    return PortMapping(container_port=inner, host_port=port, host=host)


def serving(image: Image, *ports: PortMapping | int | str, **options: object) -> Container:
    """A container that says what it hears, and listens already."""
    container = image.run(ECHO, network="net", ports=ports, **options)  # type: ignore[arg-type]
    container.connect(7).close()
    return container


def translated() -> int:
    """How many maps of ports lead somewhere."""
    with Netlink(nft.NETFILTER) as connection, contextlib.suppress(NetlinkError):
        names = ("ports", "ports-of-all")
        bodies = [body for name in names for body in connection.dump(nft.list_elements("containerlib", name))]
        return sum(nft.has_elements(body) for body in bodies)
    return 0


def listeners(port: int) -> int:
    """How many sockets of this host listen at a port."""
    found = 0
    for version in ("tcp", "tcp6", "udp", "udp6"):
        with open(f"/proc/net/{version}", encoding="ascii") as file:
            found += sum(f":{port:04X} " in line.split()[1] + " " for line in file if ":" in line)
    return found


def test_a_free_port(image: Image, network: Network, world: int) -> None:
    """The same one on both loopback addresses, there when the start returns, and from nowhere else."""
    with serving(image, 7) as container:
        (mapping,) = container.ports
        assert (mapping.container_port, mapping.host, mapping.protocol) == (7, "localhost", "tcp")
        address, port = container.published(7)
        assert (address, port) == ("127.0.0.1", mapping.host_port)
        assert echoed(None, "127.0.0.1", port)
        with socket.create_connection(("::1", port), timeout=30) as six:
            six.sendall(b"hello\n")
            assert six.recv(10) == b"hello\n"
        assert not echoed(None, str(network.gateway), port)
        assert not echoed(world, HOST, port)
        assert translated() == 0
        container.stop(timeout_s=0)
        assert container.ports == ()
        assert listeners(port) == 0


def test_every_address(image: Image, network: Network, world: int) -> None:
    """From this host by all its addresses, from another one, from other containers and from itself."""
    with serving(image, published("*")) as container, image.run(["sleep", "600"], network="net") as other:
        for namespace, address in ((None, "127.0.0.1"), (None, HOST), (None, "127.3.2.1"), (world, HOST)):
            assert echoed(namespace, address, FREE), address
        for each in (container, other):
            said = each.exec(["sh", "-c", f"echo hello | nc -w 5 {network.gateway} {FREE}"]).text
            assert said == "hello\n"
        assert container.published(7) == ("127.0.0.1", FREE)
    assert translated() == 0
    assert not echoed(world, HOST, FREE)


def test_other_networks(image: Image, network: Network, engine: Engine) -> None:
    """Through the host's address; an internal network has the host as well."""
    with (
        serving(image, published("*")),
        engine.networks.create("other") as other,
        engine.networks.create("inside", internal=True) as inside,
    ):
        for there in (other, inside):
            command = ["sh", "-c", f"echo hello | nc -w 2 {there.gateway} {FREE}"]
            assert image.call(command, network=there.name).text == "hello\n", there.name
        assert network.containers()


def test_one_address(image: Image, network: Network, world: int) -> None:
    """That one and no other, whoever asks."""
    with serving(image, published(HOST)) as container:
        assert container.published(7) == (HOST, FREE)
        assert echoed(None, HOST, FREE)
        assert echoed(world, HOST, FREE)
        assert not echoed(None, "127.0.0.1", FREE)
        assert not echoed(None, str(network.gateway), FREE)
    with pytest.raises(InvalidOption, match="no address of this host"):
        serving(image, published("192.0.2.99"))


def test_what_passes_by(image: Image, network: Network, world: int) -> None:
    """A packet for the same port of a third host is none for us, though this one passes it on (T-FIB)."""
    with serving(image, published("*")), another_host_behind(world) as address:
        assert echoed(world, HOST, FREE)
        assert not reaches(None, address, FREE)
    assert network.containers() == {}


@contextlib.contextmanager
def another_host_behind(world: int) -> Iterator[str]:
    """An address to which this host sends by the other one, where nobody listens."""
    from ipaddress import ip_interface  # noqa: PLC0415 - needed once

    from containerlib.network import link  # noqa: PLC0415 - needed once

    with Netlink(namespace_fd=world) as there, Netlink() as here:
        there.call(link.add_address(1, ip_interface("203.0.113.9/32")), link.raise_link(1))
        subprocess.run(["ip", "route", "add", "203.0.113.9/32", "via", WORLD], check=True)
        try:
            yield "203.0.113.9"
        finally:
            subprocess.run(["ip", "route", "del", "203.0.113.9/32"], check=True)
            del here


def test_the_sender(image: Image, network: Network, world: int) -> None:
    """A service sees who has connected, and not the host instead of it (T-SRCIP)."""
    with (
        image.run(["sleep", "600"], network="net", ports=[published("*")]) as container,
        container.socket() as listener,
    ):
        listener.bind((str(container.ip_address), 7))
        listener.listen()
        listener.settimeout(30)
        for namespace, expected in ((world, WORLD), (None, HOST)):
            with socket_on(namespace, socket.SOCK_STREAM) as client:
                client.connect((HOST, FREE))
                accepted, peer = listener.accept()
                accepted.close()
                assert peer[0] == expected
    assert network.containers() == {}


def test_datagrams(image: Image, network: Network, world: int) -> None:
    """By UDP as by TCP: several clients at once, each with its own answers."""
    mapping = PortMapping(container_port=9, host_port=FREE, host="*", protocol="udp")
    with (
        image.run(["sleep", "600"], network="net", ports=[mapping]) as container,
        container.socket(kind=socket.SOCK_DGRAM) as server,
    ):
        server.bind((str(container.ip_address), 9))
        server.settimeout(30)
        assert container.published(9, "udp") == ("127.0.0.1", FREE)
        with contextlib.ExitStack() as stack:
            clients = []
            for namespace, address in ((None, "127.0.0.1"), (None, "127.0.0.1"), (None, HOST), (world, HOST)):
                client = stack.enter_context(socket_on(namespace, socket.SOCK_DGRAM))
                client.connect((address, FREE))
                clients.append(client)
            for _ in range(3):
                for number, client in enumerate(clients):
                    client.send(b"%d" % number)
                for _ in clients:
                    data, sender = server.recvfrom(100)
                    server.sendto(data * 2, sender)
                assert [client.recv(100) for client in clients] == [b"00", b"11", b"22", b"33"]
    assert network.containers() == {}


def test_much_goes_through(image: Image, network: Network) -> None:
    """Both ways at once, without a loss, and each side may end first."""
    with (
        image.run(["sleep", "600"], network="net", ports=[7]) as container,
        container.socket() as listener,
    ):
        listener.bind((str(container.ip_address), 7))
        listener.listen()
        listener.settimeout(30)
        block = os.urandom(1 << 20)
        with socket.create_connection(container.published(7), timeout=30) as client:
            inner, _ = listener.accept()
            with inner:
                inner.settimeout(30)
                heard: list[bytes] = []
                threads = [
                    threading.Thread(target=lambda: _send(client, block * 8)),
                    threading.Thread(target=lambda: _send(inner, block * 4)),
                    threading.Thread(target=lambda: heard.append(_read(client))),
                ]
                for thread in threads:
                    thread.start()
                assert _read(inner) == block * 8
                for thread in threads:
                    thread.join()
                assert heard == [block * 4]
    assert network.containers() == {}


def _send(sock: socket.socket, data: bytes) -> None:
    sock.sendall(data)
    sock.shutdown(socket.SHUT_WR)


def _read(sock: socket.socket) -> bytes:
    with sock.makefile("rb") as file:
        return file.read()


def test_nobody_listens_inside(image: Image, network: Network) -> None:
    """The connection ends at once."""
    with (
        image.run(["sleep", "600"], network="net", ports=[7]) as container,
        socket.create_connection(container.published(7), timeout=30) as client,
    ):
        assert client.recv(10) == b""
    assert network.containers() == {}


# Who holds a port


def test_in_use(image: Image, network: Network) -> None:
    """The message says whose it is: a container's, or a process's; and nothing is made."""
    with serving(image, published(), name="web"):
        with pytest.raises(ResourceInUse, match=f"port {FREE}/tcp of this host is that of container 'web'"):
            image.run(ECHO, network="net", ports=[published("*")])
        assert len(network.containers()) == 1
    with socket.create_server(("127.0.0.1", FREE)):
        with pytest.raises(ResourceInUse, match=rf"that of process {os.getpid()} \("):
            image.run(ECHO, network="net", ports=[7, published()])
        assert network.containers() == {}
    with serving(image, published()) as container:
        assert echoed(None, *container.published(7))


def test_an_end_that_nobody_has_seen(image: Image, network: Network, engine: Engine) -> None:
    """The next one who wants the port gets it, whatever the lifetime of the one who had it."""
    ports = [published()]
    first = image.run(["true"], network="net", ports=ports)
    pid = first.inspect().pid
    wait_until(lambda: not os.path.exists(f"/proc/{pid}"))
    second = image.run(["true"], network="net", ports=ports, lifetime="detached")

    def is_over() -> bool:
        word = SupervisorState.read(f"{engine.root}/containers/{second.id}")
        return word is not None and word.phase == "ended"

    wait_until(is_over)
    with serving(image, *ports) as third:
        assert echoed(None, *third.published(7))
    for each in (first, second):
        each.remove()
    assert network.containers() == {}


def test_restarts(image: Image, network: Network, engine: Engine) -> None:
    """A port that was asked for is there again, others are chosen anew."""
    container = engine.containers.create(image, ECHO, network="net", ports=[published(), 7])
    try:
        for _ in range(3):
            container.start()
            container.connect(7).close()
            assert container.ports[0] == published()
            assert all(echoed(None, "127.0.0.1", each.host_port or 0) for each in container.ports)
            container.kill()
            container.wait()
            assert container.ports == ()
            assert listeners(FREE) == 0
    finally:
        container.remove(force=True)
    assert network.containers() == {}


def test_a_race_for_free_ports() -> None:
    """Eight processes take a thousand of them, and no two get the same one."""
    program = (
        "from containerlib import PortMapping\n"
        "from containerlib.network.publish import hold_ports\n"
        "held = hold_ports([PortMapping(container_port=1)] * 125)\n"
        "print(*(each.host_port for each in held.mappings), flush=True)\n"
        "input()\n"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(8)
    ]
    try:
        chosen = [
            port for process in processes if process.stdout for port in process.stdout.readline().split()
        ]
    finally:
        for process in processes:
            process.communicate("\n")
    assert len(chosen) == 1000
    assert len(set(chosen)) == 1000


def test_no_free_port() -> None:
    """When all are taken it is said so; tried where the kernel may choose from two."""
    program = (
        "from containerlib import PortMapping, UnsupportedHost\n"
        "from containerlib.network.publish import hold_ports\n"
        "held = hold_ports([PortMapping(container_port=1)] * 2)\n"
        "try:\n    hold_ports([PortMapping(container_port=1)])\n"
        "except UnsupportedHost as error:\n    print(error)\n"
        "held.close()\n"
        "print(len(hold_ports([PortMapping(container_port=1)] * 2).mappings))\n"
    )
    few = 'ip link set lo up && echo 40000 40001 > /proc/sys/net/ipv4/ip_local_port_range && exec "$@"'
    command = ["unshare", "-n", "sh", "-c", few, "sh", sys.executable, "-c", program]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    assert "a free port" in said[0]
    assert said[1:] == ["2"]


# Faults


def test_a_process_that_is_killed(image: Image, network: Network, engine: Engine) -> None:
    """Its ports are given up though nobody is there to say so."""
    program = (
        "import containerlib as cl, sys\n"
        "ports = [cl.PortMapping(container_port=7, host_port=int(sys.argv[2]), host='*')]\n"
        "image = cl.default_engine().images.get(sys.argv[1])\n"
        "c = image.run(['sleep', '600'], network='net', ports=ports)\n"
        "print(c.ports, flush=True)\n"
        "input()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, image.id, str(FREE)],
        env={**os.environ, "CONTAINERLIB_ROOT": engine.root, "CONTAINERLIB_RUN_ROOT": engine.run_root},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert str(FREE) in process.stdout.readline()
        assert translated() == 1
        assert listeners(FREE) == 2
        process.send_signal(signal.SIGKILL)
    wait_until(lambda: listeners(FREE) == 0)
    assert translated() == 0
    engine.recover()
    assert network.containers() == {}


def test_the_network_process_is_killed(image: Image, network: Network, engine: Engine, world: int) -> None:
    """What the kernel does goes on; the port is given up with the container, and can be had again."""
    with serving(image, published("*")):
        killed = network_process(engine)
        assert killed is not None
        os.kill(killed, signal.SIGKILL)
        wait_until(lambda: network_process(engine) is None)
        assert echoed(world, HOST, FREE)
    assert translated() == 0
    with serving(image, published("*")):
        assert echoed(None, "127.0.0.1", FREE)
        assert echoed(world, HOST, FREE)
    assert network.containers() == {}


def test_flushed_rules(image: Image, network: Network, engine: Engine, world: int) -> None:
    """Ports come back with the rules; in between nothing is reached that was not asked for."""
    with serving(image, published("*")) as container:
        with stopped_network_process(engine), Netlink(nft.NETFILTER) as connection:
            connection.batch(nft.batch_begin(), [nft.delete_table("containerlib")], nft.batch_end())
        wait_until(lambda: translated() == 1)
        assert echoed(world, HOST, FREE)
        assert not reaches(world, str(container.ip_address))
    assert network.containers() == {}


def test_without_the_rules(image: Image, network: Network, engine: Engine) -> None:
    """An internal network is reached by loopback alone."""
    with engine.networks.create("inside", internal=True):
        for host in ("*", HOST, "::", "fd00::1"):
            with pytest.raises(InvalidOption, match="is internal; only 'localhost' leads into it"):
                image.run(ECHO, network="inside", ports=[published(host)])
        with image.run(ECHO, network="inside", ports=[7]) as container:
            container.connect(7).close()
            assert echoed(None, *container.published(7))
    assert network.containers() == {}


def test_what_else_is_refused(image: Image, network: Network) -> None:
    """Before anything is made."""
    for name in ("none", "host", "container:other"):
        with pytest.raises(InvalidOption, match="is for a network of the store"):
            image.run(ECHO, network=name, ports=[7])
    for ports, problem in (
        ([0], "from 1 to 65535"),
        (["7/sctp"], "give a port, such as 80"),
        ("7", "give a list of ports"),
        ([published(), published()], "two ports of the container want this port"),
    ):
        with pytest.raises(InvalidOption, match=problem):
            image.run(ECHO, network="net", ports=ports)
    problem = r"has not published port 8/tcp; published: localhost:\d+->7/tcp"
    with serving(image, 7) as container, pytest.raises(InvalidState, match=problem):
        container.published(8)
    assert network.containers() == {}


def test_only_what_was_asked_for(image: Image, network: Network, engine: Engine) -> None:
    """The process listens at the ports, at names, and nowhere else (T-LISTEN)."""
    with serving(image, published()):
        assert echoed(None, "127.0.0.1", FREE)
        pid = network_process(engine)
        found = set()
        inodes = {os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")}
        for version in ("tcp", "tcp6", "udp", "udp6", "raw", "packet"):
            with open(f"/proc/{pid}/net/{version}", encoding="ascii") as file:
                for line in file.readlines()[1:]:
                    words = line.split()
                    inode = words[-1] if version == "packet" else words[9]
                    listens = words[3] == ("07" if version.startswith("udp") else "0A")
                    if f"socket:[{inode}]" in inodes and listens:
                        found.add((version, int(words[1].partition(":")[2], 16)))
    assert found == {("tcp", FREE), ("tcp6", FREE), ("tcp", 53), ("udp", 53)}
    assert network.containers() == {}


def test_the_default_network(image: Image, engine: Engine) -> None:
    """Who publishes ports and names no network is in the one of all; nothing of it stays on the host."""
    before = set(os.listdir("/sys/class/net"))
    for _ in range(2):
        with (
            image.run(ECHO, ports=[7]) as container,
            image.run(ECHO, network="bridge", name="other") as other,
        ):
            container.connect(7).close()
            assert echoed(None, *container.published(7))
            bridge = engine.networks.get("bridge")
            assert set(bridge.containers()) == {container.name, "other"}
            assert other.ip_address in container.exec(["nslookup", "other"]).text
            with pytest.raises(ResourceInUse):
                bridge.remove()
        wait_until(lambda: set(os.listdir("/sys/class/net")) == before)
    engine.networks.get("bridge").remove()
    assert engine.networks.list() == []


def test_command_line(image: Image, network: Network, engine: Engine) -> None:
    """``-p`` as in Docker, ``port``, and what ``inspect`` says."""
    environment = {
        **os.environ,
        "CONTAINERLIB_ROOT": engine.root,
        "CONTAINERLIB_RUN_ROOT": engine.run_root,
    }

    def run(*arguments: str) -> str:
        command = [sys.executable, "-m", "containerlib", *arguments]
        return subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout

    ports = ["-p", f"127.0.0.1:{FREE}:7", "-p", "7/udp"]
    run("run", "-d", "--name", "web", "--network", "net", *ports, image.id, *ECHO)
    try:
        lines = run("port", "web").splitlines()
        assert lines[0] == f"7/tcp -> 127.0.0.1:{FREE}"
        assert lines[1].startswith("7/udp -> *:")
        assert run("port", "web", "7") == f"127.0.0.1:{FREE}\n"
        shown = run("inspect", "web")
        assert f'"HostPort": "{FREE}"' in shown
        engine.containers.get("web").connect(7).close()
        assert echoed(None, "127.0.0.1", FREE)
    finally:
        run("rm", "-f", "web")
    assert network.containers() == {}
