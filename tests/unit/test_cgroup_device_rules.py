from __future__ import annotations

import ctypes
import errno
import os
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.ebpf_interpreter import run_device_program

from containerlib.errors import CgroupError, InvalidOption, UnsupportedHost
from containerlib.runtime.device_program import compile_bpf, load_and_attach
from containerlib.runtime.device_rules import (
    ALLOW_ALL,
    DEFAULT_RULES,
    DENY_ALL,
    DeviceRule,
    denies,
    parse_rule,
    v1_lines,
)

KINDS = {"b": 1, "c": 2}
BITS = {"m": 1, "r": 2, "w": 4}

numbers = st.none() | st.sampled_from([0, 1, 2, 136, 2**31, 2**32 - 1])
rules = st.builds(
    DeviceRule,
    st.booleans(),
    st.sampled_from("abc"),
    numbers,
    numbers,
    st.sampled_from(["r", "w", "m", "rw", "rm", "wm", "rwm"]),
)
requests = st.tuples(
    st.sampled_from("bc"),
    st.sampled_from([0, 1, 2, 3, 136, 2**31, 2**32 - 1]),
    st.sampled_from([0, 1, 2, 3, 136, 2**31, 2**32 - 1]),
    st.sampled_from(["r", "w", "m", "rw", "rwm"]),
)


def is_allowed(rules: list[DeviceRule], kind: str, major: int, minor: int, access: str) -> bool:
    """Decide each kind of access by the last rule that names it."""

    def decide(letter: str) -> bool:
        decision = False
        for rule in rules:
            if (
                rule.kind in ("a", kind)
                and rule.major in (None, major)
                and rule.minor in (None, minor)
                and letter in rule.access
            ):
                decision = rule.allow
        return decision

    return all(decide(letter) for letter in access)


def is_allowed_by_v1(lines: list[tuple[str, str]], kind: str, major: int, minor: int, access: str) -> bool:
    """Decide as the kernel's version 1 does: a default, and exceptions that must cover the whole request."""
    default = lines[0] == ("devices.allow", "a")
    for _, line in lines[1:]:
        line_kind, line_numbers, line_access = line.split()
        line_major, line_minor = line_numbers.split(":")
        if line_kind != kind or line_major not in ("*", str(major)) or line_minor not in ("*", str(minor)):
            continue
        if not default and set(access) <= set(line_access):
            return True
        if default and set(access) & set(line_access):
            return False
    return default


@given(st.lists(rules, max_size=8), requests)
def test_program_decides_like_the_rules(rules: list[DeviceRule], request_: tuple[str, int, int, str]) -> None:
    """The program gives the verdict of a naive evaluation for every list of rules and every request."""
    kind, major, minor, access = request_
    verdict = run_device_program(
        compile_bpf(rules), kind=KINDS[kind], access=sum(BITS[a] for a in access), major=major, minor=minor
    )
    assert verdict == is_allowed(rules, kind, major, minor, access)


@given(st.lists(rules, max_size=6), requests)
def test_v1_lines_never_allow_more(rules: list[DeviceRule], request_: tuple[str, int, int, str]) -> None:
    """What version 1 is told allows nothing that the rules deny; single kinds of access agree exactly."""
    try:
        lines = v1_lines(rules)
    except UnsupportedHost:
        return
    allowed_by_v1, allowed = is_allowed_by_v1(lines, *request_), is_allowed(rules, *request_)
    assert allowed or not allowed_by_v1
    if len(request_[3]) == 1:
        assert allowed == allowed_by_v1


@pytest.mark.parametrize(
    ("kind", "major", "minor", "access", "expected"),
    [
        ("c", 1, 3, "rw", True),
        ("c", 1, 5, "rw", True),
        ("c", 136, 77, "rwm", True),
        ("c", 5, 2, "rw", True),
        ("c", 1, 1, "r", False),
        ("c", 1, 1, "m", True),
        ("b", 7, 0, "r", False),
        ("b", 7, 0, "m", True),
        ("c", 10, 229, "rw", False),
    ],
)
def test_default_rules(kind: str, major: int, minor: int, access: str, expected: bool) -> None:  # noqa: FBT001
    """By default the harmless devices can be used, all nodes made, and nothing else opened."""
    program = compile_bpf(DEFAULT_RULES)
    bits = sum(BITS[letter] for letter in access)
    assert run_device_program(program, kind=KINDS[kind], access=bits, major=major, minor=minor) == expected
    assert is_allowed_by_v1(v1_lines(DEFAULT_RULES), kind, major, minor, access) == expected


def test_v1_lines_of_defaults_start_from_nothing() -> None:
    """The first line takes everything away, so that what the parent allows does not matter."""
    lines = v1_lines(DEFAULT_RULES)
    assert lines[:3] == [("devices.deny", "a"), ("devices.allow", "c *:* m"), ("devices.allow", "b *:* m")]
    assert len(lines) == len(DEFAULT_RULES)


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ([], [("devices.deny", "a")]),
        ([ALLOW_ALL], [("devices.allow", "a")]),
        (
            [DENY_ALL, DeviceRule(True, "c", 1, 3, "rw")],
            [("devices.deny", "a"), ("devices.allow", "c 1:3 rw")],
        ),
        (
            [ALLOW_ALL, DeviceRule(False, "b", 7, None, "w")],
            [("devices.allow", "a"), ("devices.deny", "b 7:* w")],
        ),
        (
            [DENY_ALL, DeviceRule(True, "c", 1, 3), DeviceRule(False, "c", 1, None, "w")],
            [("devices.deny", "a"), ("devices.allow", "c 1:3 rm")],
        ),
        (
            [DENY_ALL, DeviceRule(True, "a", 7, 0, "r")],
            [("devices.deny", "a"), ("devices.allow", "b 7:0 r"), ("devices.allow", "c 7:0 r")],
        ),
        ([DENY_ALL, DeviceRule(True, "c", 1, 3), DeviceRule(False, "c", 1, 3)], [("devices.deny", "a")]),
    ],
)
def test_v1_lines(rules: list[DeviceRule], expected: list[tuple[str, str]]) -> None:
    """Rules are reduced to a default and exceptions from it."""
    assert v1_lines(rules) == expected


def test_v1_refuses_holes() -> None:
    """An exception from an exception, which version 1 would silently not make, is refused."""
    with pytest.raises(UnsupportedHost, match="c 1:3 w"):
        v1_lines([DENY_ALL, DeviceRule(True, "c", 1), DeviceRule(False, "c", 1, 3, "w")])


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("c 1:3 rwm", DeviceRule(True, "c", 1, 3, "rwm")),
        ("b 7:* r", DeviceRule(True, "b", 7, None, "r")),
        ("a *:* rwm", ALLOW_ALL),
    ],
)
def test_parse_rule(text: str, rule: DeviceRule) -> None:
    """Docker's text form is understood."""
    assert parse_rule(text) == rule
    assert parse_rule(text, allow=False).allow is False


@pytest.mark.parametrize(
    "text",
    [
        "",
        "c",
        "c 1:3",
        "c 1:3 x",
        "d 1:3 r",
        "c 1:3 rwmr",
        "c 1:3 r\n",
        "c -1:3 r",
        "c 99999999999:1 r",
        "C 1:3 r",
    ],
)
def test_parse_rule_refuses(text: str) -> None:
    """Any other text is refused with the value quoted."""
    with pytest.raises(InvalidOption):
        parse_rule(text)


@pytest.mark.parametrize("access", ["", "x", "rx"])
def test_rule_refuses_access(access: str) -> None:
    """A rule about no kind of access, or an unknown one, is refused."""
    with pytest.raises(InvalidOption):
        DeviceRule(True, "c", 1, 3, access)


def test_denies() -> None:
    """Only rules that take single devices away count as denying."""
    assert not denies(DEFAULT_RULES)
    assert not denies([ALLOW_ALL])
    assert denies([ALLOW_ALL, DeviceRule(False, "b", 7)])


def test_attach_asks_the_kernel_in_order() -> None:
    """The program is loaded, attached with children included, and its descriptor closed."""
    calls: list[tuple[int, bytes]] = []
    read_end, write_end = os.pipe()
    os.close(write_end)

    def bpf(command: int, attr: bytes) -> int:
        calls.append((command, attr))
        return read_end

    load_and_attach(55, compile_bpf([]), bpf_syscall=bpf)
    assert [command for command, _ in calls] == [5, 16, 8]
    assert struct.unpack_from("=II", calls[0][1]) == (15, 8)
    assert struct.unpack("=IIIII", calls[2][1]) == (55, read_end, 6, 2, 0)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.close(read_end)


def test_attach_replaces_our_own_program_only() -> None:
    """Of the programs that are attached the one of this name is replaced; all descriptors are closed."""
    calls: list[tuple[int, bytes]] = []
    opened: list[int] = []
    names = {7: b"sd_devices", 9: b"containerlib"}

    def bpf(command: int, attr: bytes) -> int:
        calls.append((command, attr))
        if command == 16:
            address = struct.unpack_from("=Q", attr, 16)[0]
            ctypes.memmove(address, struct.pack("=II", *names), 8)
        elif command == 15:
            fd, size, address = struct.unpack("=IIQ", attr)
            assert size == 80
            assert fd == opened[-1]
            name = names[[*names][len(opened) - 2]]
            ctypes.memmove(address + 64, name, len(name))
        elif command in {5, 13}:
            opened.append(os.open("/dev/null", os.O_RDONLY))
            return opened[-1]
        return 0

    load_and_attach(55, compile_bpf([]), bpf_syscall=bpf)
    assert [command for command, _ in calls] == [5, 16, 13, 15, 13, 15, 8]
    assert struct.unpack("=IIIII", calls[-1][1]) == (55, opened[0], 6, 6, opened[2])
    for fd in opened:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(fd)


def test_attach_without_the_right_to_look() -> None:
    """Whoever may not see what is attached attaches one more."""
    calls: list[tuple[int, bytes]] = []

    def bpf(command: int, attr: bytes) -> int:
        calls.append((command, attr))
        if command == 16:
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))
        return os.open("/dev/null", os.O_RDONLY) if command == 5 else 0

    load_and_attach(55, compile_bpf([]), bpf_syscall=bpf)
    assert [command for command, _ in calls] == [5, 16, 8]
    assert struct.unpack("=IIIII", calls[-1][1])[3:] == (2, 0)


def test_attach_says_what_the_kernel_refused() -> None:
    """A refusal keeps its errno and names the step."""

    def bpf(_command: int, _attr: bytes) -> int:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    with pytest.raises(CgroupError, match="load the device program") as caught:
        load_and_attach(55, compile_bpf([]), bpf_syscall=bpf)
    assert caught.value.errno == errno.EPERM
