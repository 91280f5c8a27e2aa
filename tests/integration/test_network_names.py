"""Names in networks: who is found by which, what is asked elsewhere, and the process that answers."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Self

import pytest
from support.outside import network_process, stopped_network_process, wait_until

from containerlib import ResourceInUse

if TYPE_CHECKING:
    from collections.abc import Iterator

    from containerlib import Container, Engine, Image, Network

pytestmark = [pytest.mark.root, pytest.mark.cgroup]

UPSTREAM = "127.5.3.53"
SLEEP = ["sleep", "600"]
ADDRESS, AAAA, POINTER = 1, 28, 12
NO_ERROR, NO_SUCH_NAME = 0, 3


@pytest.fixture
def image(busybox_image: Image) -> Image:
    """Return an image with nslookup."""
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


def query(name: str, kind: int = ADDRESS) -> bytes:
    """A question."""
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    return struct.pack("!HHHHHH", 77, 0x0100, 1, 0, 0, 0) + labels + b"\0" + struct.pack("!HH", kind, 1)


def ask(network: Network, data: bytes) -> bytes:
    """What the resolver of a network says to the host, by UDP."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as made:
        made.settimeout(30)
        made.connect((str(network.gateway), 53))
        made.send(data)
        return made.recv(4096)


def ask_by_stream(network: Network, data: bytes) -> bytes:
    """The same by TCP."""
    with socket.create_connection((str(network.gateway), 53), timeout=30) as made:
        made.sendall(struct.pack("!H", len(data)) + data)
        with made.makefile("rb") as file:
            return file.read(int.from_bytes(file.read(2), "big"))


def outcome(reply: bytes) -> tuple[int, int]:
    """The code of an answer, and how many records it has."""
    _, flags, _, answers, _, _ = struct.unpack_from("!HHHHHH", reply)
    return flags & 0xF, answers


def found(reply: bytes) -> set[str]:
    """The addresses of an answer to a question for some."""
    _, count = outcome(reply)
    return {
        socket.inet_ntoa(reply[len(reply) - 16 * n + 12 : len(reply) - 16 * n + 16])
        for n in range(1, count + 1)
    }


def looked_up(container: Container, name: str) -> str | None:
    """The address that the programs of a container find."""
    text = container.exec(["ping", "-c", "1", "-w", "5", name]).text
    return text.partition("(")[2].partition(")")[0] or None


class Upstream:
    """A name server of the world, which knows ``known.example``, and counts what it is asked."""

    def __init__(self, *, is_silent: bool = False) -> None:
        self.asked: list[bytes] = []
        self._is_silent = is_silent
        self._udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._tcp = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        for each in (self._udp, self._tcp):
            each.bind((UPSTREAM, 53))
        self._tcp.listen()
        self._threads = [threading.Thread(target=self._serve), threading.Thread(target=self._serve_streams)]

    def _answer(self, data: bytes) -> bytes:
        self.asked.append(data)
        if b"\x05known\x07example" not in data.lower():
            return data[:2] + struct.pack("!HHHHH", 0x8183, 1, 0, 0, 0) + data[12:]
        record = b"\xc0\x0c" + struct.pack("!HHIH", 1, 1, 60, 4) + socket.inet_aton("192.0.2.77")
        return data[:2] + struct.pack("!HHHHH", 0x8180, 1, 1, 0, 0) + data[12:] + record

    def _serve(self) -> None:
        while True:
            data, client = self._udp.recvfrom(4096)
            if data == b"end":
                return
            reply = self._answer(data)
            if not self._is_silent:
                # A forger does not know the number.
                self._udp.sendto(bytes([reply[0] ^ 1]) + reply[1:], client)
                self._udp.sendto(reply, client)

    def _serve_streams(self) -> None:
        while True:
            connection, _ = self._tcp.accept()
            with connection, connection.makefile("rb") as file:
                data = file.read(int.from_bytes(file.read(2), "big"))
                if data == b"":
                    return
                reply = self._answer(data)
                connection.sendall(struct.pack("!H", len(reply)) + reply)

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as made:
            made.sendto(b"end", (UPSTREAM, 53))
        socket.create_connection((UPSTREAM, 53)).close()
        for thread in self._threads:
            thread.join()
        self._udp.close()
        self._tcp.close()


def test_names(image: Image, network: Network) -> None:
    """A container is found by its name, with the network's behind it, and by its short id; in any case."""
    with image.run(SLEEP, network="net", name="db") as db, image.run(SLEEP, network="net") as client:
        for name in ("db", "DB", "db.net", db.id[:12]):
            assert found(ask(network, query(name))) == {db.ip_address}, name
            assert found(ask_by_stream(network, query(name))) == {db.ip_address}, name
        assert looked_up(client, "db") == db.ip_address
        assert outcome(ask(network, query("db", AAAA))) == (NO_ERROR, 0)
        address = ".".join(reversed(str(db.ip_address).split(".")))
        assert b"\x02db\x03net\0" in ask(network, query(f"{address}.in-addr.arpa", POINTER))
        db.rename("store")
        assert outcome(ask(network, query("db")))[0] != NO_ERROR
        assert found(ask(network, query("store"))) == {db.ip_address}


def test_the_answer_is_right_at_once(image: Image, network: Network) -> None:
    """Who has just been started is found by the first who asks, and who has ended by nobody."""
    with image.run(SLEEP, network="net") as client:
        for number in range(10):
            with image.run(SLEEP, network="net", name=f"s{number}") as service:
                assert looked_up(client, f"s{number}") == service.ip_address
            wait_until(lambda number=number: found(ask(network, query(f"s{number}"))) == set())  # type: ignore[misc]


def test_networks_do_not_share_names(image: Image, network: Network, engine: Engine) -> None:
    """The same name is somebody else in another network."""
    with (
        engine.networks.create("other", internal=True) as other,
        image.run(SLEEP, network="net", name="db") as mine,
        image.run(SLEEP, network="other", name="only") as theirs,
    ):
        assert found(ask(network, query("db"))) == {mine.ip_address}
        assert found(ask(other, query("only"))) == {theirs.ip_address}
        assert outcome(ask(other, query("db"))) == (NO_SUCH_NAME, 0)


def test_names_of_the_world(image: Image, network: Network) -> None:
    """They are asked of the servers that the container wants, by UDP and by TCP, whoever forges answers."""
    with Upstream() as upstream, image.run(SLEEP, network="net", dns=[UPSTREAM]) as client:
        # The servers are the container's; the host itself has those of the host.
        assert looked_up(client, "known.example") == "192.0.2.77"
        assert client.exec(["nslookup", "unknown.example"]).exit_code == 1
        assert upstream.asked
        text = client.exec(["sh", "-c", f"nslookup -type=a known.example {network.gateway}"]).text
        assert "192.0.2.77" in text


@pytest.mark.usefixtures("network")
def test_a_silent_server(image: Image) -> None:
    """Who does not answer is given up, and the next one is asked."""
    with Upstream(is_silent=True), image.run(SLEEP, network="net", dns=[UPSTREAM]) as client:
        assert client.exec(["nslookup", "known.example"]).exit_code == 1
        assert looked_up(client, client.name) == client.ip_address


def test_nothing_is_asked_from_an_internal_network(image: Image, engine: Engine) -> None:
    """Whatever servers there are: a question would carry something out."""
    with (
        Upstream() as upstream,
        engine.networks.create("inside", internal=True) as inside,
        image.run(SLEEP, network="inside", dns=[UPSTREAM], name="db") as client,
    ):
        assert client.exec(["nslookup", "secret.known.example"]).exit_code == 1
        assert outcome(ask(inside, query("known.example"))) == (NO_SUCH_NAME, 0)
        assert outcome(ask_by_stream(inside, query("known.example"))) == (NO_SUCH_NAME, 0)
        assert looked_up(client, "db") == client.ip_address
        assert upstream.asked == []
    # With a way out it is asked, so this test can fail.
    with engine.networks.create("out"), Upstream() as upstream:
        image.call(["nslookup", "known.example"], network="out", dns=[UPSTREAM])
        assert upstream.asked


def test_a_server_in_an_internal_network(image: Image, engine: Engine) -> None:
    """One that is in the network itself is asked."""
    with (
        engine.networks.create("inside", internal=True),
        image.run(SLEEP, network="inside") as server,
        server.socket(kind=socket.SOCK_DGRAM) as made,
        image.run(SLEEP, network="inside", dns=[str(server.ip_address)]) as client,
    ):
        made.bind((str(server.ip_address), 53))
        made.settimeout(30)
        with client.popen(["nslookup", "known.example"]) as asking:
            assert b"known" in made.recv(512)
            asking.kill()


def test_what_is_no_question(image: Image, network: Network) -> None:
    """Rubbish, and who begins and never ends, keep nobody else from an answer."""
    with image.run(SLEEP, network="net", name="db") as db:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as made, contextlib.ExitStack() as stack:
            for size in range(200):
                made.sendto(os.urandom(size), (str(network.gateway), 53))
            for _ in range(100):
                half = stack.enter_context(socket.create_connection((str(network.gateway), 53)))
                half.sendall(b"\0")
            assert found(ask(network, query("db"))) == {db.ip_address}
        assert found(ask_by_stream(network, query("db"))) == {db.ip_address}


@pytest.mark.usefixtures("network")
def test_the_process_is_killed(image: Image, engine: Engine) -> None:
    """The next start has another one, which knows those who run."""
    with image.run(SLEEP, network="net", name="db") as db:
        killed = network_process(engine)
        assert killed is not None
        os.kill(killed, signal.SIGKILL)
        wait_until(lambda: network_process(engine) is None)
        with image.run(SLEEP, network="net") as client:
            assert network_process(engine) not in {None, killed}
            assert looked_up(client, "db") == db.ip_address


def test_the_process_ends(image: Image, engine: Engine) -> None:
    """With the last container some time later, with the network at once."""
    with engine.networks.create("net"):
        image.call(["true"], network="net", check=True)
        first = network_process(engine)
        assert first is not None
        wait_until(lambda: network_process(engine) is None)
        with image.run(SLEEP, network="net", name="db") as db:
            assert network_process(engine) not in {None, first}
            assert looked_up(db, "db") == db.ip_address
    wait_until(lambda: network_process(engine) is None)
    assert not os.path.exists(f"{engine.run_root}/network-process")


def test_it_stays_for_a_detached_container(image: Image, network: Network, engine: Engine) -> None:
    """Whoever has started it: names are resolved as long as it runs."""
    program = (
        "import containerlib, sys\n"
        "image = containerlib.default_engine().images.get(sys.argv[1])\n"
        "image.run(['sleep', '600'], network='net', name='lasting', lifetime='detached')\n"
    )
    subprocess.run(
        [sys.executable, "-c", program, image.id],
        env={**os.environ, "CONTAINERLIB_ROOT": engine.root, "CONTAINERLIB_RUN_ROOT": engine.run_root},
        check=True,
    )
    container = engine.containers.get("lasting")
    try:
        assert found(ask(network, query("lasting"))) == {container.ip_address}
        assert looked_up(container, "lasting") == container.ip_address
    finally:
        container.remove(force=True)


def test_somebody_else_answers_there(image: Image, network: Network) -> None:
    """A server that has port 53 of all addresses is named, and nothing is left of the start."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as made:
        made.bind(("0.0.0.0", 53))  # noqa: S104 - as dnsmasq does
        with pytest.raises(ResourceInUse, match="answers on port 53"):
            image.run(SLEEP, network="net")
        assert network.containers() == {}
    image.call(["true"], network="net", check=True)


def test_it_is_busy(image: Image, network: Network, engine: Engine) -> None:
    """Starts do not wait for the process, and questions do not get lost."""
    with image.run(SLEEP, network="net", name="db") as db, stopped_network_process(engine):
        client = image.run(SLEEP, network="net", ports=[7])
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as made:
            made.connect((str(network.gateway), 53))
            made.send(query("db"))
            made.settimeout(30)
            pid = network_process(engine)
            assert pid is not None
            os.kill(pid, signal.SIGCONT)
            assert found(made.recv(512)) == {db.ip_address}
        client.remove(force=True)
