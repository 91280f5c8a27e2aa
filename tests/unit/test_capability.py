from __future__ import annotations

import pytest

from containerlib.errors import InvalidOption
from containerlib.runtime.capability import (
    CAPABILITIES,
    DEFAULT_CAPABILITIES,
    DOCKER_CAPABILITIES,
    apply,
    mask,
    parse_capability,
)

ALL_NAMES = frozenset(CAPABILITIES)


def test_numbers_are_those_of_the_kernel() -> None:
    """There are 41 names, and the landmarks have the numbers of linux/capability.h."""
    assert sorted(CAPABILITIES.values()) == list(range(41))
    landmarks = {
        "CAP_CHOWN": 0,
        "CAP_SETPCAP": 8,
        "CAP_NET_ADMIN": 12,
        "CAP_NET_RAW": 13,
        "CAP_SYS_CHROOT": 18,
        "CAP_SYS_ADMIN": 21,
        "CAP_MKNOD": 27,
        "CAP_AUDIT_WRITE": 29,
        "CAP_SETFCAP": 31,
        "CAP_SYSLOG": 34,
        "CAP_AUDIT_READ": 37,
        "CAP_PERFMON": 38,
        "CAP_BPF": 39,
        "CAP_CHECKPOINT_RESTORE": 40,
    }
    assert {name: CAPABILITIES[name] for name in landmarks} == landmarks


def test_default_sets() -> None:
    """Docker's set has 14 names and ours is that without three."""
    assert len(DOCKER_CAPABILITIES) == 14
    assert {"CAP_MKNOD", "CAP_NET_RAW", "CAP_AUDIT_WRITE"} == DOCKER_CAPABILITIES - DEFAULT_CAPABILITIES
    assert len(DEFAULT_CAPABILITIES) == 11
    assert DOCKER_CAPABILITIES < ALL_NAMES


@pytest.mark.parametrize("text", ["NET_ADMIN", "CAP_NET_ADMIN", "net_admin", "cap_Net_Admin"])
def test_spellings(text: str) -> None:
    """The prefix and the case do not matter."""
    assert parse_capability(text) == "CAP_NET_ADMIN"


@pytest.mark.parametrize("text", ["ALL", "all", "All"])
def test_all(text: str) -> None:
    """All is a word of its own."""
    assert parse_capability(text) == "ALL"


@pytest.mark.parametrize(
    "text",
    ["", "NET_ADMN", "CAP_", "CAP_ALL", "CAP_CAP_KILL", " KILL", "KILL\n", "0", "k\u0131ll", "SYS-ADMIN"],
)
def test_unknown_names_are_refused(text: str) -> None:
    """What is no capability is an error that quotes it, not a capability less."""
    with pytest.raises(InvalidOption) as caught:
        parse_capability(text, option="cap_drop")
    assert caught.value.option == "cap_drop"
    assert caught.value.value == text


def test_the_nearest_name_is_suggested() -> None:
    """A misspelt name brings the right one."""
    with pytest.raises(InvalidOption, match=r"did you mean NET_ADMIN\?"):
        parse_capability("NET_ADMN")


@pytest.mark.parametrize(
    ("add", "drop", "expected"),
    [
        ([], [], DEFAULT_CAPABILITIES),
        (["net_raw"], [], DEFAULT_CAPABILITIES | {"CAP_NET_RAW"}),
        ([], ["KILL"], DEFAULT_CAPABILITIES - {"CAP_KILL"}),
        ([], ["NET_RAW"], DEFAULT_CAPABILITIES),
        (["KILL"], ["KILL"], DEFAULT_CAPABILITIES),
        (["NET_RAW"], ["NET_RAW"], DEFAULT_CAPABILITIES | {"CAP_NET_RAW"}),
        (["ALL"], [], ALL_NAMES),
        (["ALL"], ["SYS_ADMIN"], ALL_NAMES - {"CAP_SYS_ADMIN"}),
        (["ALL", "SYS_ADMIN"], ["SYS_ADMIN"], ALL_NAMES - {"CAP_SYS_ADMIN"}),
        ([], ["all"], frozenset()),
        (["KILL"], ["ALL"], {"CAP_KILL"}),
        (["KILL"], ["ALL", "KILL"], {"CAP_KILL"}),
    ],
)
def test_add_and_drop(add: list[str], drop: list[str], expected: frozenset[str]) -> None:
    """Adding and dropping make of a set what Docker makes of it."""
    assert apply(DEFAULT_CAPABILITIES, add, drop) == expected


def test_adding_and_dropping_all_is_refused() -> None:
    """A contradiction is an error, not every capability there is."""
    with pytest.raises(InvalidOption, match="cap_add has ALL too"):
        apply(DEFAULT_CAPABILITIES, ["ALL"], ["ALL"])


@pytest.mark.parametrize(("add", "drop", "option"), [(["X"], [], "cap_add"), ([], ["X"], "cap_drop")])
def test_the_right_option_is_blamed(add: list[str], drop: list[str], option: str) -> None:
    """An unknown name is reported for the option that it was in, even where it would have no effect."""
    with pytest.raises(InvalidOption) as caught:
        apply(DEFAULT_CAPABILITIES, ["ALL", *add], drop)
    assert caught.value.option == option


def test_mask() -> None:
    """The bits are those of /proc/PID/status: Docker's default is the well-known a80425fb."""
    assert mask(()) == 0
    assert mask(DOCKER_CAPABILITIES) == 0xA80425FB
    assert mask(["ALL"]) == (1 << 41) - 1
    assert mask(["bpf", "CAP_CHOWN"]) == 1 << 39 | 1
