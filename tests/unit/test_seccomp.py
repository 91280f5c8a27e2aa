from __future__ import annotations

import json
import math
import os
import struct
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.bpf_interpreter import ALLOW, errno_verdict, judge, run

if TYPE_CHECKING:
    from collections.abc import Iterator

from containerlib.errors import InvalidOption, UnsupportedHost
from containerlib.runtime import bpf, seccomp
from containerlib.runtime.capability import CAPABILITIES, DEFAULT_CAPABILITIES, DOCKER_CAPABILITIES
from containerlib.runtime.seccomp import compile_profile, load_default
from containerlib.runtime.syscalls import ARCHITECTURES, is_foreign, numbers

EPERM, ENOSYS = errno_verdict(1), errno_verdict(38)
HIGH_HALVES = (1 << 32, 0xFFFFFFFF << 32)
NO_CAPABILITIES: frozenset[str] = frozenset()
ALL_CAPABILITIES = frozenset(CAPABILITIES)

with open(os.path.join(os.path.dirname(seccomp.__file__), "seccomp_default.json"), encoding="ascii") as file:
    DEFAULT: dict[str, Any] = json.load(file)

both_architectures = pytest.mark.parametrize("arch", ARCHITECTURES)


def profile(*entries: dict[str, Any], default: str = "SCMP_ACT_ERRNO", **more: Any) -> dict[str, Any]:
    """Make a profile of these entries."""
    return {"defaultAction": default, "syscalls": list(entries), **more}


def allow(name: str, *args: tuple[int, str, int], **more: Any) -> dict[str, Any]:
    """Make an entry that allows one call under conditions of index, operator and value."""
    conditions = [{"index": index, "op": f"SCMP_CMP_{op}", "value": value} for index, op, value in args]
    return {"names": [name], "action": "SCMP_ACT_ALLOW", "args": conditions, **more}


def compiled(
    content: dict[str, Any], capabilities: frozenset[str] = NO_CAPABILITIES, arch: str = "x86_64"
) -> bytes:
    """Compile for this architecture."""
    return compile_profile(content, capabilities=capabilities, arch=arch)


def verdict(content: dict[str, Any], name: str, *args: int, arch: str = "x86_64") -> int:
    """Ask a compiled profile about one call."""
    return run(compiled(content, arch=arch), numbers(arch)[name], args, arch=arch).verdict


def interesting(value: int) -> set[int]:
    """Give arguments around a value, and the same with upper halves that are not zero."""
    near = {value, value - 1, value + 1, 0, 1, 0xFFFFFFFF, ~value}
    low = {argument % (1 << 64) for argument in near}
    return low | {argument | high for argument in low for high in HIGH_HALVES}


# --- The default profile -------------------------------------------------------------------------------


@both_architectures
@pytest.mark.parametrize(
    "capabilities", [NO_CAPABILITIES, DEFAULT_CAPABILITIES, DOCKER_CAPABILITIES, ALL_CAPABILITIES]
)
def test_default_agrees_with_a_plain_reading(arch: str, capabilities: frozenset[str]) -> None:
    """Every number from 0 to 600 and every argument near a rule gets what the profile says."""
    program = load_default(arch, capabilities)
    names = {number: name for name, number in numbers(arch).items()}
    values = {condition["value"] for entry in DEFAULT["syscalls"] for condition in entry.get("args", ())}
    arguments = set().union(*map(interesting, values))
    conditional = {name for entry in DEFAULT["syscalls"] if entry.get("args") for name in entry["names"]}
    for number in range(601):
        name = names.get(number)
        for argument in arguments if name in conditional else (0, 1 << 63):
            args = [argument] * 6
            expected = judge(DEFAULT, name, args, capabilities=capabilities)
            assert run(program, number, args, arch=arch).verdict == expected, (number, name, argument)


@both_architectures
def test_upper_halves_change_no_verdict(arch: str) -> None:
    """Bits in the upper half of an argument change no verdict in any rule of the default profile."""
    checked = 0
    for capabilities in (NO_CAPABILITIES, ALL_CAPABILITIES):
        program = load_default(arch, capabilities)
        for name, condition in default_conditions():
            for value in (condition["value"], condition["value"] ^ 1, condition.get("valueTwo", 0)):
                arguments = (value, *(value | high for high in HIGH_HALVES))
                args = [
                    [argument if i == condition["index"] else 0 for i in range(6)] for argument in arguments
                ]
                number = numbers(arch)[name]
                assert len({run(program, number, each, arch=arch).verdict for each in args}) == 1, (
                    name,
                    value,
                )
                checked += 1
    assert checked > 50


def default_conditions() -> Iterator[tuple[str, dict[str, Any]]]:
    """Give every comparison of the default profile, with each name that it is for."""
    for entry in DEFAULT["syscalls"]:
        for condition in entry.get("args", ()):
            for name in entry["names"]:
                yield name, condition


@both_architectures
def test_default_runs_few_instructions(arch: str) -> None:
    """The search tree is balanced: a call without argument rules takes a dozen instructions at most."""
    program = load_default(arch, DEFAULT_CAPABILITIES)
    conditional = {numbers(arch)[name] for name, _ in default_conditions()}
    steps = [run(program, number, arch=arch).steps for number in range(601) if number not in conditional]
    assert max(steps) <= 12
    assert max(run(program, number, arch=arch).steps for number in conditional) <= 22
    assert len(program) // 8 < 400


@both_architectures
@pytest.mark.parametrize("capabilities", [NO_CAPABILITIES, DEFAULT_CAPABILITIES])
@pytest.mark.parametrize(
    ("name", "args", "expected"),
    [
        ("clone", (0x01200011,), ALLOW),
        ("clone", (0x10000000,), EPERM),
        ("clone", (0x00020000,), EPERM),
        ("clone3", (), ENOSYS),
        ("socket", (1,), ALLOW),
        ("socket", (2,), ALLOW),
        ("socket", (10,), ALLOW),
        ("socket", (16,), ALLOW),
        ("socket", (17,), EPERM),
        ("socket", (38,), EPERM),
        ("socket", (40,), EPERM),
        ("socketpair", (1,), ALLOW),
        ("socketpair", (38,), EPERM),
        ("personality", (0xFFFFFFFF,), ALLOW),
        ("personality", (0x0040000,), EPERM),
        ("ioctl", (0, 0x5401), ALLOW),
        ("ioctl", (0, 0x5412), EPERM),
        ("ioctl", (0, 0x5413), ALLOW),
        ("ioctl", (0, 0x541B), ALLOW),
        ("ioctl", (0, 0x541C), EPERM),
        ("ioctl", (0, 0x541D), ALLOW),
        ("file_getattr", (), ENOSYS),
        *[
            (name, (), EPERM)
            for name in (
                *(
                    "io_uring_setup",
                    "io_uring_enter",
                    "io_uring_register",
                    "keyctl",
                    "add_key",
                    "request_key",
                ),
                *(
                    "userfaultfd",
                    "bpf",
                    "perf_event_open",
                    "open_by_handle_at",
                    "mount",
                    "umount2",
                    "pivot_root",
                ),
                *("fsopen", "fsmount", "open_tree", "open_tree_attr", "move_mount", "mount_setattr", "setns"),
                *("unshare", "kexec_load", "init_module", "finit_module", "swapon", "reboot", "move_pages"),
                *(
                    "settimeofday",
                    "syslog",
                    "quotactl",
                    "acct",
                    "sethostname",
                    "pidfd_getfd",
                    "fanotify_init",
                ),
            )
        ],
    ],
)
def test_default_policy(
    arch: str, capabilities: frozenset[str], name: str, args: tuple[int, ...], expected: int
) -> None:
    """What the default profile promises, call by call."""
    assert run(load_default(arch, capabilities), numbers(arch)[name], args, arch=arch).verdict == expected


@pytest.mark.parametrize(
    ("capability", "name", "args"),
    [
        ("CAP_NET_RAW", "socket", (17,)),
        ("CAP_SYS_ADMIN", "mount", ()),
        ("CAP_SYS_ADMIN", "clone", (0x10000000,)),
        ("CAP_SYS_ADMIN", "clone3", ()),
        ("CAP_SYS_ADMIN", "unshare", ()),
        ("CAP_BPF", "bpf", ()),
        ("CAP_PERFMON", "perf_event_open", ()),
        ("CAP_DAC_READ_SEARCH", "open_by_handle_at", ()),
        ("CAP_SYS_CHROOT", "chroot", ()),
        ("CAP_SYSLOG", "syslog", ()),
    ],
)
def test_default_opens_what_a_capability_is_for(capability: str, name: str, args: tuple[int, ...]) -> None:
    """A capability opens its system calls, which stay closed with every other one."""
    number = numbers("x86_64")[name]
    others = ALL_CAPABILITIES - {capability, "CAP_SYS_ADMIN"}
    assert run(load_default("x86_64", frozenset({capability})), number, args).verdict == ALLOW
    assert run(load_default("x86_64", others), number, args).verdict != ALLOW


def test_default_is_compiled_once_for_each_relevant_set() -> None:
    """Capabilities that no rule asks for do not make another program."""
    first = load_default("x86_64", frozenset({"CAP_CHOWN", "CAP_NET_RAW"}))
    assert load_default("x86_64", frozenset({"CAP_KILL", "CAP_NET_RAW"})) is first
    assert load_default("x86_64", frozenset({"CAP_KILL"})) != first


# --- Architectures and unknown numbers -----------------------------------------------------------------


@pytest.mark.parametrize("default", ["SCMP_ACT_ERRNO", "SCMP_ACT_ALLOW", "SCMP_ACT_KILL_PROCESS"])
@pytest.mark.parametrize(("arch", "foreign"), [("x86_64", "i386"), ("x86_64", "aarch64"), ("aarch64", "arm")])
def test_foreign_architectures_get_enosys(default: str, arch: str, foreign: str) -> None:
    """A call of another ABI is not there, whatever the profile says."""
    program = compiled(profile(default=default), arch=arch)
    assert {run(program, number, arch=foreign).verdict for number in range(500)} == {ENOSYS}


@pytest.mark.parametrize("default", ["SCMP_ACT_ERRNO", "SCMP_ACT_ALLOW", "SCMP_ACT_KILL"])
def test_x32_calls_get_enosys(default: str) -> None:
    """Numbers with the x32 bit are not there, although the kernel reports them as x86_64."""
    program = compiled(profile(default=default))
    for number in (0x40000000, 0x40000000 | 59, 0x40000000 | 520, 0x7FFFFFFF, 0xFFFFFFFF):
        assert run(program, number).verdict == ENOSYS


@pytest.mark.parametrize(
    ("default", "expected"),
    [
        ("SCMP_ACT_ERRNO", ENOSYS),
        ("SCMP_ACT_KILL_PROCESS", ENOSYS),
        ("SCMP_ACT_ALLOW", ALLOW),
        ("SCMP_ACT_LOG", 0x7FFC0000),
        ("SCMP_ACT_TRACE", 0x7FF00001),
    ],
)
def test_unknown_numbers(default: str, expected: int) -> None:
    """A number newer than our tables is ENOSYS, unless the default is to let calls through."""
    program = compiled(profile(default=default))
    assert {run(program, number).verdict for number in (400, 470, 511, 4095, 0x3FFFFFFF)} == {expected}


def test_tables_have_the_landmarks() -> None:
    """Both tables agree with the kernel's at numbers that programs have compiled in."""
    landmarks = {
        "x86_64": {"read": 0, "clone": 56, "execve": 59, "seccomp": 317, "rseq": 334, "uretprobe": 335},
        "aarch64": {
            "io_setup": 0,
            "read": 63,
            "clone": 220,
            "execve": 221,
            "seccomp": 277,
            "kexec_file_load": 294,
        },
    }
    for arch, expected in landmarks.items():
        table = numbers(arch)
        shared = {
            "pidfd_send_signal": 424,
            "clone3": 435,
            "cachestat": 451,
            "mseal": 462,
            "file_setattr": 469,
        }
        assert {name: table[name] for name in expected | shared} == expected | shared
        assert len(set(table.values())) == len(table)
        assert max(table.values()) == 469


def test_foreign_names() -> None:
    """A name of another architecture is told from a name of none."""
    assert is_foreign("open", arch="aarch64")
    assert is_foreign("socketcall", arch="x86_64")
    assert not is_foreign("open", arch="x86_64")
    assert not is_foreign("opne", arch="x86_64")


def test_unknown_architecture_is_refused() -> None:
    """There is no filter for an architecture without a table."""
    with pytest.raises(UnsupportedHost, match="riscv64"):
        load_default("riscv64", NO_CAPABILITIES)


# --- Rules ---------------------------------------------------------------------------------------------

OPERATORS = ("EQ", "NE", "LT", "LE", "GT", "GE", "MASKED_EQ")
VALUES = st.one_of(
    st.integers(0, 8),
    st.integers(0, 2**64 - 1),
    st.sampled_from([2**31, 2**32 - 1, 2**32, 2**32 + 1, 2**33 - 1, 2**64 - 1]),
)
ACTIONS = st.sampled_from(
    [
        "SCMP_ACT_ALLOW",
        "SCMP_ACT_ERRNO",
        "SCMP_ACT_LOG",
        "SCMP_ACT_TRAP",
        "SCMP_ACT_KILL",
        "SCMP_ACT_KILL_PROCESS",
        "SCMP_ACT_KILL_THREAD",
        "SCMP_ACT_TRACE",
    ]
)
NAMES = ("read", "write", "openat", "mseal")


@st.composite
def conditions(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Comparisons of distinct arguments of one call."""
    found = []
    for index in draw(st.lists(st.sampled_from([0, 0, 0, 1, 5]), unique=True, max_size=3)):
        op, value = draw(st.sampled_from(OPERATORS)), draw(VALUES)
        condition = {"index": index, "value": value, "op": f"SCMP_CMP_{op}"}
        if op == "MASKED_EQ":
            condition["valueTwo"] = value & draw(VALUES)
        found.append(condition)
    return found


@st.composite
def profiles(draw: st.DrawFn) -> dict[str, Any]:
    """Profiles over a few names, so that rules meet each other."""
    entries = []
    for _ in range(draw(st.integers(0, 8))):
        entry = {
            "names": draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=3)),
            "action": draw(ACTIONS),
            "args": draw(conditions()),
        }
        if entry["action"] in {"SCMP_ACT_ERRNO", "SCMP_ACT_TRACE"} and draw(st.booleans()):
            entry["errnoRet"] = draw(st.integers(0, 200))
        for key in ("includes", "excludes"):
            if draw(st.integers(0, 4)) == 0:
                entry[key] = {"caps": draw(st.lists(st.sampled_from(["CAP_KILL", "CAP_CHOWN"]), max_size=2))}
        entries.append(entry)
    return profile(*entries, default=draw(ACTIONS))


@settings(max_examples=100, deadline=None)
@given(content=profiles(), arch=st.sampled_from(ARCHITECTURES), data=st.data())
def test_any_profile_agrees_with_a_plain_reading(
    content: dict[str, Any], arch: str, data: st.DataObject
) -> None:
    """Whatever the profile, the program says of each call what a plain reading says."""
    capabilities = data.draw(
        st.sampled_from([NO_CAPABILITIES, frozenset({"CAP_KILL"}), DEFAULT_CAPABILITIES])
    )
    program = compiled(content, capabilities, arch)
    seen = [c["value"] for entry in content["syscalls"] for c in entry["args"]]
    near = sorted(set().union({0, 5}, *map(interesting, seen)))
    for name in NAMES:
        for _ in range(5):
            args = data.draw(st.lists(st.one_of(VALUES, st.sampled_from(near)), min_size=6, max_size=6))
            expected = judge(content, name, args, capabilities=capabilities)
            assert run(program, numbers(arch)[name], args, arch=arch).verdict == expected


@pytest.mark.parametrize("op", OPERATORS)
@pytest.mark.parametrize("value", [0, 7, 2**31, 2**32 - 1, 2**32, 2**32 + 7, 2**64 - 1])
def test_operators(op: str, value: int) -> None:
    """Each operator holds where it should, with values of one and of two halves."""
    content = profile(allow("read", (3, op, value)))
    if op == "MASKED_EQ":
        content["syscalls"][0]["args"][0]["valueTwo"] = value & 0x1_0000_0005
    program = compiled(content)
    for argument in interesting(value):
        args = [0, 0, 0, argument, 0, 0]
        assert run(program, 0, args).verdict == judge(content, "read", args, capabilities=NO_CAPABILITIES)


def test_of_equal_actions_the_first_counts() -> None:
    """Two rules that hold and differ in the error they give only: the first one's is given."""
    args = [{"index": 0, "value": 0, "op": "SCMP_CMP_EQ"}]
    entries = [
        {"names": ["write"], "action": "SCMP_ACT_ERRNO", "errnoRet": number, "args": args}
        for number in (5, 0)
    ]
    content = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": entries}
    assert verdict(content, "write", 0) == 0x00050005


def test_conditions_of_a_rule_hold_together_and_rules_are_alternatives() -> None:
    """Within one entry all comparisons must hold; any of several entries is enough."""
    content = profile(allow("read", (0, "EQ", 1), (1, "EQ", 2)), allow("read", (0, "EQ", 9)))
    assert verdict(content, "read", 1, 2) == ALLOW
    assert verdict(content, "read", 1, 3) == EPERM
    assert verdict(content, "read", 9, 3) == ALLOW


@pytest.mark.parametrize(
    "first",
    [
        [{"index": 0, "value": 0xF0, "valueTwo": 0x10, "op": "SCMP_CMP_MASKED_EQ"}],
        [{"index": 0, "value": 1 << 32, "op": "SCMP_CMP_EQ"}],
        [{"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}, {"index": 1, "value": 5, "op": "SCMP_CMP_EQ"}],
        [{"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}],
    ],
)
def test_a_rule_sees_the_whole_argument_after_another_rule(first: list[dict[str, Any]]) -> None:
    """What one rule leaves in the accumulator is not taken for the argument of the next."""
    content = profile(
        allow("read", args=first), allow("read", (0, "EQ", 0x25)), allow("read", (1, "EQ", 0x20))
    )
    program = compiled(content)
    for args in (
        [0x25, 0],
        [0x20, 0],
        [5, 0],
        [1, 0x25],
        [1, 5],
        [0x20, 0x20],
        [0x25 | 1 << 32, 0],
        [0, 0x20],
    ):
        assert run(program, 0, args).verdict == judge(content, "read", args, capabilities=NO_CAPABILITIES), (
            args
        )


def test_an_unconditional_rule_wins() -> None:
    """A rule without comparisons beats those that have some, and the first of two such rules holds."""
    deny = {"names": ["read"], "action": "SCMP_ACT_ERRNO", "errnoRet": 5}
    conditional = deny | {"args": [{"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}]}
    assert verdict(profile(conditional, allow("read")), "read", 1) == ALLOW
    assert verdict(profile(allow("read"), deny), "read") == ALLOW
    assert verdict(profile(deny, allow("read")), "read") == errno_verdict(5)


def test_the_strictest_of_several_matching_rules_wins() -> None:
    """The order of entries does not decide between rules with comparisons."""
    kill = allow("read", (0, "GE", 5), action="SCMP_ACT_KILL_PROCESS")
    for entries in ([kill, allow("read", (0, "LE", 9))], [allow("read", (0, "LE", 9)), kill]):
        assert verdict(profile(*entries), "read", 3) == ALLOW
        assert verdict(profile(*entries), "read", 7) == 0x80000000


@pytest.mark.parametrize(
    ("action", "extra", "expected"),
    [
        ("SCMP_ACT_KILL", {}, 0),
        ("SCMP_ACT_KILL_THREAD", {}, 0),
        ("SCMP_ACT_KILL_PROCESS", {}, 0x80000000),
        ("SCMP_ACT_TRAP", {}, 0x00030000),
        ("SCMP_ACT_ERRNO", {"errnoRet": 13}, 0x0005000D),
        ("SCMP_ACT_ERRNO", {"errnoRet": 0}, 0x00050000),
        ("SCMP_ACT_ERRNO", {"errno": "EACCES"}, 0x0005000D),
        ("SCMP_ACT_TRACE", {"errnoRet": 7}, 0x7FF00007),
        ("SCMP_ACT_LOG", {}, 0x7FFC0000),
        ("SCMP_ACT_ALLOW", {"comment": "as Docker writes it", "args": None}, ALLOW),
    ],
)
def test_actions(action: str, extra: dict[str, Any], expected: int) -> None:
    """Every action becomes the kernel's word for it."""
    assert verdict(profile({"names": ["read"], "action": action, **extra}), "read") == expected


def test_many_ranges_are_searched_over_far_jumps() -> None:
    """A tree whose halves are too long for a conditional jump finds every call nevertheless."""
    names = sorted(numbers("x86_64"), key=numbers("x86_64").__getitem__)
    entries = [
        {"names": [name], "action": "SCMP_ACT_ERRNO", "errnoRet": 100 + i, "args": [condition]}
        for i, name in enumerate(names)
        for condition in [{"index": 0, "value": i, "op": "SCMP_CMP_EQ"}]
    ]
    program = compiled(profile(*entries))
    assert len(program) // 8 > 4 * 255
    for i, name in enumerate(names):
        found = run(program, numbers("x86_64")[name], [i])
        assert found.verdict == errno_verdict(100 + i)
        assert found.steps <= 3 + 2 * math.ceil(math.log2(len(names) + 10)) + 3
        assert run(program, numbers("x86_64")[name], [i + 1]).verdict == EPERM


def test_a_program_that_is_too_long_is_refused() -> None:
    """The kernel's limit is an error of the option, not of the start."""
    entries = [allow("read", (0, "EQ", value), (1, "EQ", value)) for value in range(900)]
    with pytest.raises(InvalidOption, match="4096"):
        compiled(profile(*entries))


def test_instructions_are_packed_as_the_kernel_reads_them() -> None:
    """A sock_filter is 16 bits, two bytes, 32 bits, little endian."""
    assert bpf.pack(bpf.give(ALLOW)) == struct.pack("<HBBI", 6, 0, 0, ALLOW)
    assert len(compiled(profile())) % 8 == 0


# --- Docker's and Podman's additions -------------------------------------------------------------------


def test_kernel_and_architecture_filters() -> None:
    """Entries for other architectures or newer kernels do not apply."""
    entries = [
        allow("read", includes={"arches": ["amd64", "x32"]}),
        allow("write", includes={"arches": ["s390x"]}),
        allow("close", excludes={"arches": ["amd64"]}),
        allow("openat", includes={"minKernel": "4.8"}),
        allow("mseal", includes={"minKernel": "999.0"}),
    ]
    content = profile(
        *entries, archMap=[{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]}]
    )
    expected = {"read": ALLOW, "write": EPERM, "close": EPERM, "openat": ALLOW, "mseal": EPERM}
    assert {name: verdict(content, name) for name in expected} == expected


@pytest.mark.parametrize(
    ("release", "expected"), [("6.18.44-fc", (6, 18)), ("5.10-rc1", (5, 10)), ("7.0+", (7, 0))]
)
def test_kernel_version(monkeypatch: pytest.MonkeyPatch, release: str, expected: tuple[int, int]) -> None:
    """The version is read from whatever distributions append to it."""
    monkeypatch.setattr(os, "uname", lambda: type("Uname", (), {"release": release}))
    assert seccomp._kernel_version() == expected


def test_names_of_other_architectures_are_skipped() -> None:
    """One profile serves several architectures; what is missing here does not apply."""
    content = profile(allow("open"), allow("socketcall"), {"name": "read", "action": "SCMP_ACT_ALLOW"})
    assert verdict(content, "read", arch="aarch64") == ALLOW
    assert verdict(content, "open") == ALLOW


# --- Bad profiles --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "defaultAction"),
        (profile(default="ALLOW"), "defaultAction"),
        (profile(syscals=[]), "syscals"),
        (profile(allow("opennat")), "did you mean openat"),
        (profile(allow("qqqqqq")), "no such system call"),
        (profile(allow("read", colour="red")), "colour"),
        (profile({"names": ["read"]}), "action"),
        (profile({"action": "SCMP_ACT_ALLOW"}), "names or name"),
        (profile({"names": ["read"], "name": "read", "action": "SCMP_ACT_ALLOW"}), "names or name"),
        (profile({"names": "read", "action": "SCMP_ACT_ALLOW"}), "must be a list"),
        (profile({"names": [3], "action": "SCMP_ACT_ALLOW"}), "must be a string"),
        (profile("read"), "must be an object"),
        (profile(allow("read", errnoRet=1)), "no meaning"),
        (profile(allow("read", action="SCMP_ACT_ERRNO", errnoRet=4096)), "errnoRet"),
        (profile(allow("read", action="SCMP_ACT_ERRNO", errnoRet=True)), "errnoRet"),
        (profile(allow("read", action="SCMP_ACT_ERRNO", errno="EWHAT")), "errno"),
        (profile(allow("read", action="SCMP_ACT_ERRNO", errno="EPERM", errnoRet=2)), "contradicts"),
        (profile(allow("read", action=["SCMP_ACT_ALLOW"])), "action"),
        (profile(allow("read", (6, "EQ", 1))), "index"),
        (profile(allow("read", (0, "EQ", 1 << 64))), "value"),
        (profile(allow("read", (0, "EQ", -1))), "value"),
        (profile(allow("read", (0, "ABOUT", 1))), "op must be"),
        (profile(allow("read", (0, "NE", 1), (0, "NE", 2))), "twice"),
        (
            profile(allow("read", args=[{"index": 0, "value": 1, "op": "SCMP_CMP_EQ", "valueTwo": 3}])),
            "valueTwo",
        ),
        (
            profile(
                allow("read", args=[{"index": 0, "value": 1, "op": "SCMP_CMP_MASKED_EQ", "valueTwo": 3}])
            ),
            "mask",
        ),
        (profile(allow("read", args=[{"index": 0, "value": 1, "op": "SCMP_CMP_EQ", "size": 4}])), "size"),
        (profile(allow("read", includes={"caps": ["CAP_NET_ADMN"]})), "NET_ADMIN"),
        (profile(allow("read", includes={"caps": ["NET_ADMIN"]})), "CAP_NAME"),
        (profile(allow("read", includes={"caps": "CAP_KILL"})), "must be a list"),
        (profile(allow("read", includes={"cap": []})), "cap"),
        (profile(allow("read", includes={"minKernel": "4"})), "minKernel"),
        (profile(allow("read", excludes={"minKernel": "4.8"})), "minKernel"),
        (profile(architectures=["SCMP_ARCH_S390X"]), "SCMP_ARCH_X86_64"),
        (
            profile(architectures=["SCMP_ARCH_X86_64"], archMap=[{"architecture": "SCMP_ARCH_X86_64"}]),
            "either",
        ),
        (profile(flags=["SECCOMP_FILTER_FLAG_LOG"]), "not supported"),
        (profile(listenerPath="/run/agent.sock"), "not supported"),
        (profile(defaultErrnoRet="1"), "defaultErrnoRet"),
    ],
)
def test_bad_profiles_are_refused(content: dict[str, Any], message: str) -> None:
    """A mistake in a profile is an error that names it, not a weaker filter."""
    with pytest.raises(InvalidOption, match=message):
        compiled(content)


def test_a_bad_entry_is_refused_even_if_it_does_not_apply() -> None:
    """A mistake must not wait for the host on which the entry counts."""
    with pytest.raises(InvalidOption, match="did you mean read"):
        compiled(profile(allow("raed", includes={"caps": ["CAP_SYS_ADMIN"]})))


def test_notify_is_not_supported() -> None:
    """A profile that needs an agent is refused, not weakened."""
    with pytest.raises(UnsupportedHost, match="agent"):
        compiled(profile(allow("read", action="SCMP_ACT_NOTIFY")))
