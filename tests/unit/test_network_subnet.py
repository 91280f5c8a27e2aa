"""Which subnet a network gets, and which ones are refused."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Network, ip_network

import pytest

from containerlib.errors import AddressesExhausted, InvalidOption
from containerlib.network.subnet import choose_subnet, gateway_of, parse_subnet


def subnets(*texts: str) -> list[IPv4Network | IPv6Network]:
    """Networks of these texts."""
    return [ip_network(text) for text in texts]


@pytest.mark.parametrize(
    ("taken", "chosen"),
    [
        ((), "10.128.0.0/24"),
        (("10.128.0.0/24",), "10.128.1.0/24"),
        (("10.128.1.0/24", "10.128.0.0/24", "10.128.3.0/24"), "10.128.2.0/24"),
        (("10.128.0.128/25",), "10.128.1.0/24"),
        (("10.128.0.0/16", "10.128.7.0/24"), "10.129.0.0/24"),
        (("10.0.0.0/9", "192.168.0.0/16", "fd00::/8"), "10.128.0.0/24"),
        (("10.128.0.4/32", "10.128.1.9/32"), "10.128.2.0/24"),
    ],
)
def test_the_first_free_one(taken: tuple[str, ...], chosen: str) -> None:
    """It overlaps with none in use, whatever their sizes and order."""
    assert choose_subnet(subnets(*taken)) == IPv4Network(chosen)


def test_none_is_left() -> None:
    """Then there is an error."""
    with pytest.raises(AddressesExhausted, match="all subnets of"):
        choose_subnet(subnets("10.0.0.0/8"))
    assert choose_subnet(subnets("10.128.0.0/10", "10.192.0.0/11")) == IPv4Network("10.224.0.0/24")


def test_as_many_as_there_are() -> None:
    """Each of the pool is found, and after the last one none."""
    taken = [IPv4Network((int(IPv4Address("10.128.0.0")) + 256 * n, 24)) for n in range(32767)]
    last = choose_subnet(taken)
    assert last == IPv4Network("10.255.255.0/24")
    with pytest.raises(AddressesExhausted):
        choose_subnet([*taken, last])


def test_asked_for() -> None:
    """A subnet that nobody uses is taken as it is; one of version 6 is not there yet."""
    assert parse_subnet("172.30.0.0/16", subnets("10.0.0.0/8", "fd00::/8")) == IPv4Network("172.30.0.0/16")
    with pytest.raises(InvalidOption, match=r"overlaps with 172\.30\.4\.0/24"):
        parse_subnet("172.30.0.0/16", subnets("172.30.4.0/24"))
    with pytest.raises(InvalidOption, match="fd00::/64"):
        parse_subnet("fd00::/64", [])


def test_gateway() -> None:
    """The first address, or the one that is asked for."""
    subnet = IPv4Network("10.1.0.0/24")
    assert gateway_of(subnet, None) == IPv4Address("10.1.0.1")
    assert gateway_of(subnet, "10.1.0.254") == IPv4Address("10.1.0.254")
    for wrong in ("10.1.0.0", "10.1.0.255", "10.2.0.1", "x", "::1"):
        with pytest.raises(InvalidOption, match="gateway"):
            gateway_of(subnet, wrong)
