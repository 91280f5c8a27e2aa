"""What passes between networks, the host and the world, and the rules that see to it."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from ipaddress import ip_interface
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.outside import (
    HOST,
    WORLD,
    Server,
    another_host,
    reaches,
    stopped_network_process,
    wait_until,
)

from containerlib import PIPE
from containerlib._native.netlink import Netlink, NetlinkError, new_network
from containerlib.network import link
from containerlib.network import nftables as nft

if TYPE_CHECKING:
    from collections.abc import Iterator

    from containerlib import Container, Engine, Image

pytestmark = [pytest.mark.root, pytest.mark.cgroup]

FORWARDING = Path("/proc/sys/net/ipv4/ip_forward")
ECHO = ["nc", "-ll", "-p", "7", "-e", "cat"]


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
def world() -> Iterator[int]:
    """Return the network namespace of another host."""
    with another_host() as namespace:
        yield namespace


def tables() -> set[str]:
    """The tables of nftables of ours that there are."""
    known = {"containerlib": "bridges", "containerlib-guard": "devices"}
    with Netlink(nft.NETFILTER) as connection:
        return {table for table, name in known.items() if exists(connection, table, name)}


def exists(connection: Netlink, table: str, name: str) -> bool:
    """Whether a table has a set."""
    try:
        list(connection.dump(nft.list_elements(table, name)))
    except NetlinkError:
        return False
    return True


def flush(table: str = "containerlib") -> None:
    """Take our rules away, as somebody might who resets the host's firewall."""
    with Netlink(nft.NETFILTER) as connection:
        connection.batch(nft.batch_begin(), [nft.delete_table(table)], nft.batch_end())


def ask(container: Container, address: str, port: int = 9) -> str:
    """What a container gets from a server; empty if it does not reach it."""
    return container.exec(["nc", "-w", "2", address, str(port)]).stdout.decode()


def test_a_way_out(engine: Engine, image: Image, world: int) -> None:
    """A container reaches the world under the host's address, and the world does not reach it."""
    with (
        engine.networks.create("out"),
        image.run(ECHO, network="out") as container,
        Server(world, WORLD),
    ):
        assert ask(container, WORLD) == HOST
        container.connect(7).close()
        assert reaches(None, container.address(7)[0])
        assert not reaches(world, container.address(7)[0])
        with stopped_network_process(engine):
            flush()
            assert reaches(world, container.address(7)[0])  # so it is the rules that keep the world out


def test_no_way_out(engine: Engine, image: Image, world: int) -> None:
    """From an internal network only the host is reached, whatever routes a container has."""
    with (
        engine.networks.create("out"),
        engine.networks.create("inside", internal=True) as inside,
        image.run(["sleep", "600"], network="inside", security=_with_routes()) as container,
        image.run(ECHO, network="inside") as other,
        Server(world, WORLD),
    ):
        assert ask(container, WORLD) == ""
        container.exec(["ip", "route", "add", "default", "via", str(inside.gateway)], check=True)
        assert ask(container, WORLD) == ""
        other.connect(7).close()
        assert not reaches(world, other.address(7)[0])
        assert reaches(None, other.address(7)[0])


def _with_routes() -> object:
    from containerlib import Security  # noqa: PLC0415 - needed once

    return Security(cap_add=("NET_ADMIN", "NET_RAW"))


def test_networks_are_apart(engine: Engine, image: Image) -> None:
    """A host that passes packets on does so between no two of them."""
    with (
        engine.networks.create("one"),
        engine.networks.create("two"),
        engine.networks.create("three", internal=True) as three,
        image.run(ECHO, network="one") as server,
        image.run(["sleep", "600"], network="two") as second,
        image.run(["sleep", "600"], network="three", security=_with_routes()) as third,
        image.run(["sleep", "600"], network="one") as neighbour,
    ):
        server.connect(7).close()
        assert FORWARDING.read_text(encoding="ascii") == "1\n"
        third.exec(["ip", "route", "add", "default", "via", str(three.gateway)], check=True)
        for stranger in (second, third):
            assert stranger.exec(["sh", "-c", f"echo x | nc -w 2 {server.ip_address} 7"]).stdout == b""
        assert neighbour.exec(["sh", "-c", f"echo x | nc -w 2 {server.ip_address} 7"]).stdout == b"x\n"


def test_the_host_passes_on_nothing_else(engine: Engine, world: int) -> None:
    """Between devices that were there before, packets go no further than before."""
    other = new_network()
    try:
        with Netlink() as here, Netlink(namespace_fd=other) as there:
            here.call(link.add_bridge("clt-other", mac=b"\2\0\0\0\0\3", mtu=1500))
            bridge = here.index_of("clt-other")
            try:
                here.call(
                    link.raise_named("clt-other", alias=""),
                    link.add_address(bridge, ip_interface("203.0.113.1/24")),
                    link.add_pair(
                        "clt-port",
                        master=bridge,
                        mtu=1500,
                        peer="eth0",
                        peer_mac=b"\2\0\0\0\0\4",
                        network_fd=other,
                    ),
                    link.raise_named("clt-port", alias=""),
                )
                index = there.index_of("eth0")
                there.call(
                    link.raise_link(index),
                    link.add_address(index, ip_interface("203.0.113.2/24")),
                    link.add_default_route(index, ip_interface("203.0.113.1/24").ip),
                )
                with engine.networks.create("out"), Server(other, "203.0.113.2"):
                    assert FORWARDING.read_text(encoding="ascii") == "1\n"
                    assert reaches(None, "203.0.113.2", 9)
                    assert not reaches(world, "203.0.113.2", 9)
                    flush("containerlib-guard")
                    assert reaches(world, "203.0.113.2", 9)  # so it is the guard that keeps them apart
                    FORWARDING.write_text("0", encoding="ascii")
            finally:
                here.call(link.delete(here.index_of("clt-port")), link.delete(bridge))
    finally:
        os.close(other)


def test_rules_come_and_go(engine: Engine) -> None:
    """The first network brings them, the last one takes them away, and the host is as it was."""
    before = FORWARDING.read_text(encoding="ascii")
    assert tables() == set()
    inside = engine.networks.create("inside", internal=True)
    assert (tables(), FORWARDING.read_text(encoding="ascii")) == ({"containerlib"}, before)
    out = engine.networks.create("out")
    assert FORWARDING.read_text(encoding="ascii") == "1\n"
    out.remove()
    assert "containerlib" in tables()
    inside.remove()
    assert (tables(), FORWARDING.read_text(encoding="ascii")) == (set(), before)


def test_forwarding_of_somebody_elses(engine: Engine) -> None:
    """A host that passed packets on before does so afterwards."""
    before = FORWARDING.read_text(encoding="ascii")
    FORWARDING.write_text("1", encoding="ascii")
    try:
        with engine.networks.create("out"):
            assert tables() == {"containerlib"}
        assert FORWARDING.read_text(encoding="ascii") == "1\n"
    finally:
        FORWARDING.write_text(before, encoding="ascii")


def test_rules_that_were_flushed(engine: Engine, image: Image, world: int) -> None:
    """They are there again with the next container, and at once as long as there is one."""
    with engine.networks.create("out"), Server(world, WORLD):
        flush()
        assert "containerlib" not in tables()
        with image.run(["sleep", "600"], network="out") as container:
            assert "containerlib" in tables()
            assert ask(container, WORLD) == HOST
            for table in ("containerlib", "containerlib-guard"):
                flush(table)
                wait_until(lambda table=table: table in tables())  # type: ignore[misc]
            assert ask(container, WORLD) == HOST
        flush()
    assert tables() == set()


def strict_chain(*, is_there: bool) -> None:
    """Have, or have no more, a firewall of somebody else's that passes on nothing."""
    with Netlink(nft.NETFILTER) as connection:
        messages = [nft.delete_table("clt-strict")]
        if is_there:
            chain = nft.add_chain(
                "clt-strict", "f", hook="forward", kind="filter", priority=0, is_strict=True
            )
            messages = [nft.add_table("clt-strict"), chain]
        connection.batch(nft.batch_begin(), messages, nft.batch_end())


def strict_rules() -> int:
    """How many rules that firewall has."""
    with Netlink(nft.NETFILTER) as connection:
        return len(list(connection.dump(nft.list_rules("clt-strict"))))


@pytest.mark.parametrize("is_first", [True, False])
def test_beside_a_strict_firewall(engine: Engine, image: Image, world: int, *, is_first: bool) -> None:
    """One that drops what it does not know lets our networks by, and is left as it was."""
    if is_first:
        strict_chain(is_there=True)
    try:
        with (
            engine.networks.create("out") as network,
            image.run(["sleep", "600"], network="out") as container,
            image.run(ECHO, network="out") as other,
            Server(world, WORLD),
        ):
            if not is_first:
                strict_chain(is_there=True)
            wait_until(lambda: strict_rules() == 2)
            assert ask(container, WORLD) == HOST
            other.connect(7).close()
            assert not reaches(world, other.address(7)[0])
            assert network.containers()
        assert strict_rules() == 0
    finally:
        strict_chain(is_there=False)


def test_nobody_pretends(engine: Engine, image: Image) -> None:
    """A container that may change its device is heard with its own addresses only (T-SPOOF)."""
    with (
        engine.networks.create("net", internal=True) as network,
        image.run(ECHO, network="net") as victim,
        image.run(["sleep", "600"], network="net", security=_with_routes()) as attacker,
    ):
        victim.connect(7).close()
        own, other = f"{attacker.ip_address}/24", f"{network.subnet.network_address + 99}/24"
        mac = attacker.exec(["cat", "/sys/class/net/eth0/address"]).text.strip()

        def is_heard() -> bool:
            result = attacker.exec(["sh", "-c", f"echo hello | nc -w 1 {victim.ip_address} 7"])
            return result.text == "hello\n"

        def use(address: str, hardware: str) -> None:
            for command in (
                "ip link set eth0 down",
                f"ip link set eth0 address {hardware}",
                "ip addr flush dev eth0",
                "ip link set eth0 up",
                f"ip addr add {address} dev eth0",
            ):
                attacker.exec(command.split(), check=True)

        assert is_heard()
        use(other, mac)
        assert not is_heard()
        use(f"{victim.ip_address}/24", mac)
        assert reaches(None, str(victim.ip_address))
        use(own, "02:00:00:00:00:99")
        assert not is_heard()
        use(own, mac)
        assert is_heard()
        flush_locks()
        use(other, mac)
        wait_until(lambda: not is_heard())  # it is said again what was flushed
        with stopped_network_process(engine):
            flush_locks()
            assert is_heard()  # so it is the rules that keep it from being heard


def flush_locks() -> None:
    """Take away what is said of senders."""
    with Netlink(nft.NETFILTER) as connection:
        message = nft.of_bridges(nft.delete_table("containerlib"))
        connection.batch(nft.batch_begin(), [message], nft.batch_end())


def test_several_at_once(engine: Engine) -> None:
    """Networks that are made and removed at once leave nothing, and no rule is missed meanwhile."""
    failed: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for turn in range(5):
                with engine.networks.create(f"n{number}", internal=bool((number + turn) % 2)):
                    assert "containerlib" in tables()
        except BaseException as error:  # noqa: BLE001 - told by the test
            failed.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert tables() == set()


def test_version_six_is_off(engine: Engine, image: Image) -> None:
    """On all devices of a network of version 4: nobody in it can hand out other addresses."""
    with engine.networks.create("out") as network, image.run(["sleep", "600"], network="out") as container:
        ports = os.listdir(f"/sys/class/net/{network.bridge}/brif")
        for device in (network.bridge, *ports):
            settings = Path(f"/proc/sys/net/ipv6/conf/{device}")
            assert (settings / "disable_ipv6").read_text(encoding="ascii") == "1\n"
        assert (
            Path(f"/proc/sys/net/ipv6/conf/{network.bridge}/accept_ra").read_text(encoding="ascii") == "0\n"
        )
        assert b"inet6" not in container.exec(["ip", "addr", "show", "eth0"]).stdout
        setting = "/proc/sys/net/ipv6/conf/eth0/disable_ipv6"
        assert container.exec(["cat", setting], check=True).text == "1\n"


def test_two_stores(engine: Engine, image: Image) -> None:
    """Networks of different stores are apart as well, and the rules stay for the one that is left."""
    program = (
        "import containerlib, sys\n"
        "network = containerlib.default_engine().networks.create('out')\n"
        "print(network.subnet, flush=True)\n"
        "sys.stdin.read()\n"
        "network.remove()\n"
    )
    with (
        engine.networks.create("out") as network,
        subprocess.Popen(
            [sys.executable, "-c", program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as other,
    ):
        assert other.stdout is not None
        assert other.stdout.readline().strip() != str(network.subnet)
        other.communicate("")
        assert other.returncode == 0
        assert "containerlib" in tables()
        with image.run(["sleep", "600"], network="out", stdout=PIPE) as container:
            assert container.ip_address is not None
    assert tables() == set()
