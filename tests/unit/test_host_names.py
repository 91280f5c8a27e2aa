"""Names and addresses that a caller gives, and the files that are made of them."""

from __future__ import annotations

from typing import Any

import pytest

from containerlib.errors import InvalidOption
from containerlib.oci.image_config import Config
from containerlib.runtime import files
from containerlib.runtime.config import merge
from containerlib.runtime.files import JoinedNetwork, small_files


def made(place: JoinedNetwork | None = None, **options: Any) -> tuple[list[str], list[str]]:
    """The lines of /etc/hosts behind those of the loopback device, and of resolv.conf."""
    config = merge(Config(), command=["true"], **options)
    found = small_files(config, "box", place)
    return found["/etc/hosts"].decode().splitlines()[2:], found["/etc/resolv.conf"].decode().splitlines()


@pytest.fixture
def _host(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a host with these files."""
    texts = {
        "/etc/hosts": b"127.0.0.1 localhost\n10.1.1.1 db",
        "/etc/resolv.conf": b"nameserver 127.0.0.53\nnameserver 10.1.1.2\nsearch corp\noptions edns0\n",
    }
    monkeypatch.setattr(files, "_host_file", texts.__getitem__)


def joined(*, is_open: bool = True) -> JoinedNetwork:
    """A network with an address in it."""
    return JoinedNetwork(namespace_fd=-1, address="10.5.0.2", gateway="10.5.0.1", is_open=is_open)


HOST_LINE = "10.5.0.1\thost.docker.internal host.containers.internal"


@pytest.mark.usefixtures("_host")
def test_a_network_of_the_store() -> None:
    """The container's address, the host's names and domains; the host itself is asked for names."""
    hosts, resolvers = made(joined(), network="net")
    assert hosts == ["10.5.0.2\tbox", HOST_LINE]
    assert resolvers == ["search corp", "options edns0", "nameserver 10.5.0.1", "options ndots:0"]
    assert made(joined(is_open=False), network="net")[1] == ["nameserver 10.5.0.1", "options ndots:0"]
    assert made() == (["127.0.1.1\tbox"], [])


@pytest.mark.usefixtures("_host")
def test_further_names() -> None:
    """They come behind all others; one of them may be the host's address, where it has one."""
    extra = {"db": "10.0.0.9", "six": "fd00::1", "host": "host-gateway"}
    hosts, _ = made(joined(), network="net", extra_hosts=extra)
    assert hosts[2:] == ["10.0.0.9\tdb", "fd00::1\tsix", "10.5.0.1\thost"]
    config = merge(Config(), command=["true"], network="host", extra_hosts=extra)
    assert small_files(config, "box")["/etc/hosts"].decode().splitlines() == [
        *("127.0.0.1 localhost", "10.1.1.1 db", "10.0.0.9\tdb", "fd00::1\tsix", "127.0.0.1\thost")
    ]
    with pytest.raises(InvalidOption, match="takes a network in which the host has an address, not 'none'"):
        made(extra_hosts={"host": "host-gateway"})


@pytest.mark.usefixtures("_host")
def test_other_resolvers() -> None:
    """What is said replaces what the host has of the same kind; servers are asked by the host."""
    _, resolvers = made(joined(), network="net", dns=["10.0.0.1", "fd00::1"])
    assert resolvers == ["search corp", "options edns0", "nameserver 10.5.0.1", "options ndots:0"]
    _, resolvers = made(joined(), network="net", dns_search=["a.b", "c"], dns_options=["ndots:2", "rotate"])
    assert resolvers == ["nameserver 10.5.0.1", "search a.b c", "options ndots:2 rotate"]
    assert made(dns=["10.0.0.1"])[1] == ["nameserver 10.0.0.1"]


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"extra_hosts": {"a b": "10.0.0.1"}}, "by names"),
        ({"extra_hosts": {"a": "10.0.0"}}, "by names"),
        ({"extra_hosts": {"a": "10.0.0.1\n10.0.0.2 b"}}, "by names"),
        ({"extra_hosts": ["a:10.0.0.1"]}, "by names"),
        ({"dns": "10.0.0.1"}, "a list of addresses"),
        ({"dns": ["one"]}, "a list of addresses"),
        ({"dns_search": ["a b"]}, "a list of domains"),
        ({"dns_options": ["ndots:2\nnameserver 10.0.0.1"]}, "a list of options"),
        ({"ip_address": "fd00::1", "network": "net"}, "version 4"),
        ({"ip_address": "10.0.0", "network": "net"}, "version 4"),
        ({"ip_address": "10.0.0.1"}, "for a network of the store"),
        ({"ip_address": "10.0.0.1", "network": "container:one"}, "for a network of the store"),
    ],
)
def test_refused(options: dict[str, Any], problem: str) -> None:
    """What cannot be meant, or would write other lines than it says."""
    with pytest.raises(InvalidOption, match=problem):
        merge(Config(), command=["true"], **options)
