"""Which subnet a network gets, and what may be given to one. Pure."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

from containerlib.errors import AddressesExhausted, InvalidOption

if TYPE_CHECKING:
    from collections.abc import Iterable
    from ipaddress import IPv4Address, IPv4Network, IPv6Network

__all__ = ["choose_subnet", "gateway_of", "parse_address", "parse_subnet"]

_POOL = ipaddress.ip_network("10.128.0.0/9")
_PREFIX = 24
_LONGEST_PREFIX = 30


def parse_subnet(text: str, taken: Iterable[IPv4Network | IPv6Network]) -> IPv4Network:
    """A subnet that a caller asks for.

    Args:
        text: Such as ``"10.5.0.0/16"``.
        taken: Those that are in use on this host.

    Raises:
        InvalidOption: It is none, too small, or overlaps with another one.
    """
    try:
        subnet = ipaddress.IPv4Network(text)
    except ValueError as error:
        raise InvalidOption("subnet", text, f"{error}; give for example '10.5.0.0/24'") from None
    if subnet.prefixlen > _LONGEST_PREFIX:
        raise InvalidOption("subnet", text, f"has no room; its prefix is /{_LONGEST_PREFIX} at most")
    if subnet.is_loopback or subnet.is_multicast or subnet.is_link_local or subnet.is_unspecified:
        raise InvalidOption("subnet", text, "is for other purposes; take a private one")
    for each in taken:
        if each.version == 4 and subnet.overlaps(each):  # noqa: PLR2004
            raise InvalidOption(
                "subnet", text, f"overlaps with {each}, which this host uses; take another one"
            )
    return subnet


def choose_subnet(taken: Iterable[IPv4Network | IPv6Network]) -> IPv4Network:
    """The first subnet of the pool that overlaps with none in use; there are 32,768.

    Raises:
        AddressesExhausted: All are in use.
    """
    used = [each for each in taken if each.version == 4 and each.overlaps(_POOL)]  # noqa: PLR2004
    candidate = int(_POOL.network_address)
    step = 1 << (32 - _PREFIX)
    # Past whatever is in the way, in order, instead of trying each subnet with each.
    for each in sorted(used, key=lambda network: int(network.network_address)):
        if int(each.network_address) >= candidate + step:
            break
        candidate = max(candidate, -(-(int(each.broadcast_address) + 1) // step) * step)
    if candidate + step - 1 > int(_POOL.broadcast_address):
        raise AddressesExhausted(f"all subnets of {_POOL} are in use; remove networks, or give a subnet")
    return ipaddress.IPv4Network((candidate, _PREFIX))


def gateway_of(subnet: IPv4Network, text: str | None) -> IPv4Address:
    """The host's address in a subnet: the first one unless the caller says otherwise.

    Raises:
        InvalidOption: It is not in the subnet.
    """
    return subnet.network_address + 1 if text is None else parse_address("gateway", text, subnet)


def parse_address(option: str, text: str, subnet: IPv4Network) -> IPv4Address:
    """An address of a subnet that a caller asks for.

    Raises:
        InvalidOption: It is none, or not one of this subnet's.
    """
    try:
        address = ipaddress.IPv4Address(text)
    except ValueError as error:
        raise InvalidOption(option, text, str(error)) from None
    if address not in subnet or address in {subnet.network_address, subnet.broadcast_address}:
        raise InvalidOption(option, text, f"is no address of a host in {subnet}")
    return address
