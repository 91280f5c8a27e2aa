"""Messages to the kernel's network configuration, in network namespaces of the test's own."""

from __future__ import annotations

import errno
import os
import socket
import struct
import threading
from ipaddress import ip_address, ip_interface, ip_network
from typing import TYPE_CHECKING

import pytest

from containerlib._native.netlink import (
    Message,
    Netlink,
    NetlinkError,
    attribute,
    attributes,
    new_network,
    socket_in_network,
    text_attribute,
)
from containerlib.network import link

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.root


@pytest.fixture
def namespace() -> Iterator[int]:
    """Return a new network namespace."""
    fd = new_network()
    try:
        yield fd
    finally:
        os.close(fd)


def test_attributes() -> None:
    """They are padded, nested and read back; damaged ones end the reading."""
    data = text_attribute(3, "abc") + attribute(7, [attribute(1, b"x"), attribute(2, b"")])
    assert len(data) % 4 == 0
    found = attributes(data)
    assert found[3] == b"abc\0"
    assert attributes(found[7]) == {1: b"x", 2: b""}
    assert attributes(data + b"\1\0\0\0") == found
    assert attributes(b"\xff\xff\1\0ab") == {1: b"ab"}


def test_this_thread_stays_where_it_is(namespace: int) -> None:
    """What is made elsewhere is made by another thread."""
    before = os.readlink("/proc/thread-self/ns/net")
    with socket_in_network(namespace, socket.AF_INET, socket.SOCK_DGRAM) as made:
        assert made.family == socket.AF_INET
        with pytest.raises(OSError, match="unreachable"):
            made.connect(("127.0.0.1", 1))
    assert os.readlink("/proc/thread-self/ns/net") == before
    other = os.open("/proc/self/ns/uts", os.O_RDONLY | os.O_CLOEXEC)
    try:
        with pytest.raises(OSError, match="argument"):
            socket_in_network(other, socket.AF_INET, socket.SOCK_STREAM)
    finally:
        os.close(other)


def test_devices_addresses_and_routes(namespace: int) -> None:
    """A bridge, a pair between two namespaces, addresses at both ends: a packet comes through."""
    inner = new_network()
    try:
        with Netlink(namespace_fd=namespace) as outside, Netlink(namespace_fd=inner) as inside:
            outside.call(link.add_bridge("br", mac=b"\2\0\0\0\0\1", mtu=1400))
            bridge = outside.index_of("br")
            outside.call(
                link.raise_named("br", alias="mine"),
                link.add_address(bridge, ip_interface("10.9.0.1/24")),
                link.add_pair(
                    "port", master=bridge, mtu=1400, peer="eth0", peer_mac=b"\2\0\0\0\0\2", network_fd=inner
                ),
                link.raise_named("port", alias="of eth0"),
            )
            found = {each.name: each for each in link.list_links(outside)}
            assert (found["br"].alias, found["port"].alias) == ("mine", "of eth0")
            assert found["port"].master == bridge
            index = inside.index_of("eth0")
            inside.call(
                link.raise_link(index),
                link.add_address(index, ip_interface("10.9.0.2/24")),
                link.add_default_route(index, ip_address("10.9.0.1")),
            )
            assert (ip_network("10.9.0.0/24"), bridge) in set(link.list_subnets(outside))
            with (
                socket_in_network(namespace, socket.AF_INET, socket.SOCK_DGRAM) as receiver,
                socket_in_network(inner, socket.AF_INET, socket.SOCK_DGRAM) as sender,
            ):
                receiver.bind(("10.9.0.1", 9))
                receiver.settimeout(30)
                sender.sendto(b"hello", ("10.9.0.1", 9))
                assert receiver.recvfrom(100)[1][0] == "10.9.0.2"
            outside.call(link.delete(bridge))
            assert link.find(outside, "br") is None
    finally:
        os.close(inner)


def test_refusals(namespace: int) -> None:
    """The first message that is refused is told, with the kernel's own words where it has some."""
    with Netlink(namespace_fd=namespace) as connection:
        with pytest.raises(NetlinkError) as caught:
            connection.call(link.raise_link(1), link.raise_link(77), link.raise_link(78))
        assert (caught.value.errno, caught.value.index) == (errno.ENODEV, 1)
        with pytest.raises(NetlinkError, match=r"(?i)exists"):
            connection.call(link.add_bridge("lo", mac=b"\2\0\0\0\0\1", mtu=1500))
        with pytest.raises(OSError, match="device"):
            connection.index_of("nothing")
        # After a refusal it goes on.
        connection.call(link.raise_link(1))
        with pytest.raises(NetlinkError):
            list(connection.dump(Message(9999, 0, struct.pack("=I", 0))))


def test_threads_share_a_connection(namespace: int) -> None:
    """Each gets the answers to what it has asked."""
    wrong: list[object] = []
    with Netlink(namespace_fd=namespace) as connection:

        def work() -> None:
            for _ in range(50):
                if [each.name for each in link.list_links(connection) if each.name == "lo"] != ["lo"]:
                    wrong.append("no lo")
                try:
                    connection.call(link.raise_link(77))
                except NetlinkError as error:
                    wrong.extend([error] if error.errno != errno.ENODEV else [])

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []
