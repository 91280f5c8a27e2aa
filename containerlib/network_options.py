"""What a caller asks for of networks: ports of the host, and places in several networks."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal

from attrs import field, frozen

from containerlib.errors import InvalidOption

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    import attrs

__all__ = [
    "ADDRESSES",
    "ANY_ADDRESS",
    "EVERY_ADDRESS",
    "LOOPBACK",
    "NetworkAttachment",
    "PortMapping",
    "as_attachments",
    "as_names",
    "as_port_mappings",
    "mac_bytes",
]

LOOPBACK = "localhost"
"""Both addresses of the loopback device."""

EVERY_ADDRESS = "*"
"""All addresses of the host, of both versions."""

ANY_ADDRESS = "0.0.0.0"  # noqa: S104 - what a caller asks for
"""All addresses of the host of version 4."""

ADDRESSES = {LOOPBACK: ("127.0.0.1", "::1"), EVERY_ADDRESS: (ANY_ADDRESS, "::")}
"""What those two stand for that are no addresses."""

_MOST = 65535


def _check_port(_instance: object, attribute: attrs.Attribute[Any], value: object) -> None:
    is_free = value is None and attribute.name == "host_port"
    if not is_free and (not isinstance(value, int) or isinstance(value, bool) or not 0 < value <= _MOST):
        raise InvalidOption(attribute.name, value, f"give a number from 1 to {_MOST}")


def _check_host(_instance: object, attribute: attrs.Attribute[str], value: object) -> None:
    if value in (LOOPBACK, EVERY_ADDRESS):
        return
    import ipaddress  # noqa: PLC0415 - few containers publish ports

    try:
        ipaddress.ip_address(value if isinstance(value, str) else "")
    except ValueError:
        remedy = f"give an address of this host, {LOOPBACK!r}, or {EVERY_ADDRESS!r} for all of them"
        raise InvalidOption(attribute.name, value, remedy) from None


def _check_protocol(_instance: object, attribute: attrs.Attribute[str], value: str) -> None:
    if value not in ("tcp", "udp"):
        raise InvalidOption(attribute.name, value, "give 'tcp' or 'udp'")


@frozen(kw_only=True)
class PortMapping:
    """A port of a container, and the port of the host that leads to it.

    Attributes:
        container_port: From 1 to 65535.
        host_port: From 1 to 65535; None for a free one, which nobody else can get from its choice on.
        host: Address of the host on which it is reached: ``"localhost"`` (the default), from this host only;
            ``"*"`` for every address, from everywhere; or one address. The first two are of both versions,
            with the same port.
        protocol: ``"tcp"`` or ``"udp"``.
    """

    container_port: int = field(validator=_check_port)
    host_port: int | None = field(default=None, validator=_check_port)
    host: str = field(default=LOOPBACK, validator=_check_host)
    protocol: Literal["tcp", "udp"] = field(default="tcp", validator=_check_protocol)

    @property
    def is_local(self) -> bool:
        """Whether it is reached from this host only."""
        import ipaddress  # noqa: PLC0415 - few containers publish ports

        found = ADDRESSES.get(self.host, (self.host,))
        return all(ipaddress.ip_address(each).is_loopback for each in found)

    @property
    def address(self) -> tuple[str, int]:
        """Where this host reaches it, as `socket.create_connection` takes it.

        Raises:
            InvalidOption: The port is not chosen yet.
        """
        if self.host_port is None:
            raise InvalidOption("host_port", None, "is chosen at the start; see Container.ports")
        own = {LOOPBACK: "127.0.0.1", EVERY_ADDRESS: "127.0.0.1", ANY_ADDRESS: "127.0.0.1", "::": "::1"}
        return own.get(self.host, self.host), self.host_port

    def __str__(self) -> str:
        """As the commands show it: ``127.0.0.1:8080->80/tcp``."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.host_port or ''}->{self.container_port}/{self.protocol}"


def _as_one(value: object) -> PortMapping:
    if isinstance(value, PortMapping):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return PortMapping(container_port=value)
    found = re.fullmatch(r"([0-9]{1,5})(?:/(tcp|udp))?", value) if isinstance(value, str) else None
    if found is None:
        raise InvalidOption("ports", value, "give a port, such as 80 or '53/udp', or a PortMapping")
    protocol: Literal["tcp", "udp"] = "udp" if found[2] == "udp" else "tcp"
    return PortMapping(container_port=int(found[1]), protocol=protocol)


def as_port_mappings(values: Iterable[int | str | PortMapping]) -> tuple[PortMapping, ...]:
    """What is to be published; no port of the host twice.

    Raises:
        InvalidOption: One of them is no port, or two want the same one of the host.
    """
    if isinstance(values, str) or not hasattr(values, "__iter__"):
        raise InvalidOption("ports", values, "give a list of ports")
    found = tuple(map(_as_one, values))
    taken: set[tuple[str, int, str]] = set()
    for each in found:
        if each.host_port is None:
            continue
        wanted = (each.host, each.host_port, each.protocol)
        if wanted in taken:
            raise InvalidOption("ports", str(each), "two ports of the container want this port of the host")
        taken.add(wanted)
    return found


_ALIAS = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,252}"
_MAC = r"([0-9A-Fa-f]{2}:){5}[0-9A-Fa-f]{2}"


def as_names(values: Iterable[object]) -> tuple[str, ...]:
    """Further names of a container.

    Raises:
        InvalidOption: One of them is none.
    """
    if isinstance(values, str) or not hasattr(values, "__iter__"):
        raise InvalidOption("aliases", values, "give a list of names")
    found = []
    for each in values:
        if not isinstance(each, str) or re.fullmatch(_ALIAS, each) is None:
            raise InvalidOption("aliases", each, "use letters, digits, '_', '.', '-'")
        found.append(each)
    return tuple(found)


def mac_bytes(text: str) -> bytes:
    """The address of a device.

    Raises:
        InvalidOption: It is none, or one of a group.
    """
    if re.fullmatch(_MAC, str(text)) is None:
        raise InvalidOption("mac_address", text, "give six bytes, such as '02:42:ac:11:00:02'")
    packed = bytes.fromhex(text.replace(":", ""))
    if packed[0] & 1 or not any(packed):
        raise InvalidOption("mac_address", text, "is that of a group; the first byte has to be even")
    return packed


def _check_address(_instance: object, attribute: attrs.Attribute[Any], value: object) -> None:
    if value is None:
        return
    import ipaddress  # noqa: PLC0415 - few containers are told of any

    try:
        ipaddress.IPv4Address(value if isinstance(value, str) else "")
    except ValueError:
        remedy = "give an address of version 4, such as '10.5.0.7'"
        raise InvalidOption(attribute.name, value, remedy) from None


def _check_mac(_instance: object, _attribute: attrs.Attribute[Any], value: str | None) -> None:
    if value is not None:
        mac_bytes(value)


def _check_name(_instance: object, attribute: attrs.Attribute[str], value: object) -> None:
    if not isinstance(value, str) or re.fullmatch(_ALIAS, value) is None or value in {"none", "host"}:
        raise InvalidOption(attribute.name, value, "give the name of a network of the store")


@frozen(kw_only=True)
class NetworkAttachment:
    """A place in a network, beside others.

    Attributes:
        network: Name of a network of the store.
        ip_address: The container's address in it; a free one if left out.
        mac_address: That of its device; one that goes with the address if left out.
        aliases: What the others there find it by, besides its name.
    """

    network: str = field(validator=_check_name)
    ip_address: str | None = field(default=None, validator=_check_address)
    mac_address: str | None = field(default=None, validator=_check_mac)
    aliases: tuple[str, ...] = field(default=(), converter=as_names)


def as_attachments(values: Iterable[str | NetworkAttachment]) -> tuple[NetworkAttachment, ...]:
    """Further networks; each of them once.

    Raises:
        InvalidOption: One of them is none, or is there twice.
    """
    if isinstance(values, str) or not hasattr(values, "__iter__"):
        raise InvalidOption("networks", values, "give a list of names")
    found = tuple(
        each if isinstance(each, NetworkAttachment) else NetworkAttachment(network=each) for each in values
    )
    names = [each.network for each in found]
    for name in names:
        if names.count(name) > 1:
            raise InvalidOption("networks", name, "is there twice")
    return found
