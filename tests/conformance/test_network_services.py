"""Services of Debian in networks: redis, nginx and iperf3, by names and by published ports."""

from __future__ import annotations

import json
import socket
from typing import TYPE_CHECKING, Any

import pytest
from support.capabilities import need, skip_or_fail
from support.debian_image import DebianArchiveError, debian_root
from support.outside import HOST, another_host, socket_on

from containerlib import DEVNULL, PortMapping, Security

if TYPE_CHECKING:
    from collections.abc import Iterator

    from containerlib import Container, Engine, Image, Network

pytestmark = [pytest.mark.root, pytest.mark.cgroup, pytest.mark.slow]

PACKAGES = (
    "redis-server",
    "nginx-light",
    "iperf3",
    "bind9-dnsutils",
    "iputils-ping",
    "curl",
    "netcat-openbsd",
)
REDIS = ["redis-server", "--bind", "0.0.0.0", "--protected-mode", "no", "--save", "", "--dir", "/tmp"]  # noqa: S104 - in a container
NGINX = ["nginx", "-g", "daemon off;"]


@pytest.fixture(scope="module")
def image(request: pytest.FixtureRequest, shared_engine: Engine) -> Image:
    """Return Debian with services and clients."""
    need(request.config, "peers", ("mmdebstrap", "apt-get"))
    try:
        archive = debian_root(PACKAGES)
    except DebianArchiveError as error:
        skip_or_fail(request.config, "peers", f"no Debian archive: {error}")
    with archive.open("rb") as file:
        made = shared_engine.images.from_tar(file, reference="services:1")
    made.call(["true"], check=True)
    return made


@pytest.fixture
def network(shared_engine: Engine) -> Iterator[Network]:
    """Return a network with a way out."""
    with shared_engine.networks.create("services") as made:
        yield made


def redis(namespace: int | None, address: tuple[str, int]) -> bytes:
    """What redis says to a ping of another host, or of this one."""
    with socket_on(namespace, socket.SOCK_STREAM) as made:
        try:
            made.connect(address)
            made.sendall(b"PING\r\n")
            return made.recv(100)
        except OSError:
            return b""


def test_redis(image: Image, network: Network) -> None:
    """A client in the same network by name; this host, and another one where that was asked for."""
    everywhere = PortMapping(container_port=6379, host="*")
    with (
        another_host() as world,
        image.run(REDIS, network="services", name="redis", ports=[6379], stdin=DEVNULL) as service,
        image.run(REDIS, network="services", ports=[everywhere], stdin=DEVNULL) as public,
    ):
        for each in (service, public):
            each.connect(6379, timeout_s=60).close()
        script = "redis-cli -h redis set greeting hello && redis-cli -h redis.services get greeting"
        assert image.call(["sh", "-c", script], network="services", check=True).text == "OK\nhello\n"
        assert redis(None, service.published(6379)) == b"+PONG\r\n"
        with socket.create_connection(("::1", service.published(6379)[1]), timeout=30) as six:
            six.sendall(b"GET greeting\r\n")
            assert six.recv(100) == b"$5\r\nhello\r\n"
        assert redis(world, (HOST, service.published(6379)[1])) == b""
        assert redis(world, (HOST, public.published(6379)[1])) == b"+PONG\r\n"
        assert network.containers()["redis"] == service.ip_address


def test_nginx(image: Image, network: Network) -> None:
    """A neighbour fetches its page by each of its names, and this host by the published port."""
    security = Security(cap_add=("CHOWN", "SETUID", "SETGID"))
    options: Any = {"network_aliases": ["www"], "ports": [80], "stdin": DEVNULL, "security": security}
    with image.run(NGINX, network="services", name="web", **options) as service:
        service.connect(80, timeout_s=60).close()
        for url in ("http://web/", "http://www/", "http://www.services/", f"http://{service.ip_address}/"):
            page = image.call(["curl", "-sS", "--max-time", "20", url], network="services", check=True).text
            assert "Welcome to nginx!" in page
        host, port = service.published(80)
        with socket.create_connection((host, port), timeout=30) as made:
            made.sendall(b"GET / HTTP/1.0\r\n\r\n")
            with made.makefile("rb") as file:
                assert b"Welcome to nginx!" in file.read()
        assert network.containers()


def test_iperf(image: Image, network: Network) -> None:
    """Much goes between neighbours, and through a published port, by TCP and by UDP."""
    ports = [PortMapping(container_port=5201), PortMapping(container_port=5201, protocol="udp")]
    with image.run(["iperf3", "-s"], network="services", name="meter", ports=ports, stdin=DEVNULL) as server:
        server.connect(5201, timeout_s=60).close()
        for more in ((), ("-R",), ("-u", "-b", "50M")):
            command = ["iperf3", "-J", "-t", "1", "-c", "meter", *more]
            result = json.loads(image.call(command, network="services", check=True).text)
            assert result["end"]["sum_received" if "-u" not in more else "sum"]["bytes"] > 1_000_000
        assert network.containers()


def dig(container: Container, *arguments: str) -> list[str]:
    """The answers that dig prints."""
    return container.exec(["dig", "+short", "+tries=1", "+time=5", *arguments], check=True).text.split()


def test_dig(image: Image, network: Network) -> None:
    """The resolver as dig sees it: addresses, names, TCP, and what it does not have."""
    with (
        image.run(["sleep", "600"], network="services", name="db", network_aliases=["store"]) as db,
        image.run(["sleep", "600"], network="services") as client,
    ):
        for name in ("db", "db.services", "store", db.id[:12], "DB"):
            assert dig(client, name) == [db.ip_address]
            assert dig(client, "+tcp", name) == [db.ip_address]
        assert dig(client, "db", "AAAA") == []
        assert dig(client, "-x", str(db.ip_address)) == ["db.services."]
        status = client.exec(["dig", "db", "AAAA"], check=True).text
        assert "status: NOERROR" in status
        assert client.exec(["getent", "hosts", "store"], check=True).text.split()[0] == db.ip_address
        assert network.containers()
