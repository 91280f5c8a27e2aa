"""Published ports: what a caller may ask for, in the library and on the command line."""

from __future__ import annotations

from typing import Any

import pytest

from containerlib import InvalidOption, PortMapping
from containerlib.cli.ports import parse_publish
from containerlib.network_options import as_port_mappings


def mapping(port: int, host_port: int | None = None, host: str = "*", protocol: str = "tcp") -> PortMapping:
    """One port."""
    fields: dict[str, Any] = {"host": host, "protocol": protocol}
    return PortMapping(container_port=port, host_port=host_port, **fields)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("80", [mapping(80)]),
        ("53/udp", [mapping(53, protocol="udp")]),
        ("8080:80", [mapping(80, 8080)]),
        ("8080:80/tcp", [mapping(80, 8080)]),
        ("127.0.0.1:8080:80", [mapping(80, 8080, "127.0.0.1")]),
        ("127.0.0.1::80", [mapping(80, None, "127.0.0.1")]),
        ("localhost::80", [mapping(80, None, "localhost")]),
        ("0.0.0.0:8080:80", [mapping(80, 8080, "0.0.0.0")]),  # noqa: S104 - what is asked for
        ("[::1]:8080:80", [mapping(80, 8080, "::1")]),
        ("8000-8002:80-82", [mapping(80, 8000), mapping(81, 8001), mapping(82, 8002)]),
        ("80-81", [mapping(80), mapping(81)]),
    ],
)
def test_publish(text: str, expected: list[PortMapping]) -> None:
    """Docker's forms."""
    assert list(parse_publish(text)) == expected


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            ":",
            "a",
            "80:",
            "80:a",
            "8080:80:",
            "1:2:3:4",
            "80/",
            "80/sctp",
            "8000-8001:80",
            "82-80",
            "-80",
        ),
        *("0:80", "65536:80", "80-", "[::1:8080:80", "example.com:80:80", "127.0.0.1:80"),
    ],
)
def test_what_is_no_port(text: str) -> None:
    """It is an error, which names what is wrong."""
    with pytest.raises(ValueError, match=r"\w"):
        parse_publish(text)


def test_mappings() -> None:
    """Numbers and texts are ports of the loopback addresses."""
    found = as_port_mappings([80, "53/udp", "90/tcp", mapping(7)])
    assert found == (
        mapping(80, None, "localhost"),
        mapping(53, None, "localhost", "udp"),
        mapping(90, None, "localhost"),
        mapping(7),
    )


@pytest.mark.parametrize(
    ("fields", "option"),
    [
        ({"container_port": 0}, "container_port"),
        ({"container_port": True}, "container_port"),
        ({"container_port": None}, "container_port"),
        ({"container_port": "80"}, "container_port"),
        ({"container_port": 1, "host_port": 65536}, "host_port"),
        ({"container_port": 1, "host": "example.com"}, "host"),
        ({"container_port": 1, "host": None}, "host"),
        ({"container_port": 1, "protocol": "sctp"}, "protocol"),
        ({"container_port": 1, "protocol": ["tcp"]}, "protocol"),
    ],
)
def test_bad_mappings(fields: dict[str, Any], option: str) -> None:
    """The field is named."""
    with pytest.raises(InvalidOption, match=option):
        PortMapping(**fields)


@pytest.mark.parametrize("value", ["80", 80, None, [None], ["a"], [1.5], ["80/"], [True], [[80]]])
def test_what_is_no_list(value: Any) -> None:
    """It is said what a list of ports is."""
    with pytest.raises(InvalidOption, match="give a"):
        as_port_mappings(value)


def test_one_port_for_two() -> None:
    """The same port of the same address is wanted by two; on two addresses that is no matter."""
    assert len(as_port_mappings([mapping(1, 80, "127.0.0.1"), mapping(1, 80, "127.0.0.2")])) == 2
    with pytest.raises(InvalidOption, match="two ports"):
        as_port_mappings([mapping(1, 80), mapping(2, 80)])


def test_where_it_is() -> None:
    """This host reaches it by a loopback address, unless it is on another one."""
    assert mapping(1, 80).address == ("127.0.0.1", 80)
    assert mapping(1, 80, "localhost").address == ("127.0.0.1", 80)
    assert mapping(1, 80, "::").address == ("::1", 80)
    assert mapping(1, 80, "192.0.2.1").address == ("192.0.2.1", 80)
    with pytest.raises(InvalidOption, match=r"see Container\.ports"):
        assert mapping(1).address
    assert str(mapping(1, 80, "::1", "udp")) == "[::1]:80->1/udp"
