"""Two independent readings of a seccomp profile, to hold the compiler against.

`run` executes a packed filter as the kernel does and knows nothing of profiles. `judge` reads a profile
straight from its JSON, for one call, slowly and without a thought for instructions. Where the two disagree,
the compiler is wrong.
"""

from __future__ import annotations

import operator
import struct
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = ["ALLOW", "AUDIT_ARCH", "Outcome", "errno_verdict", "judge", "run"]

ALLOW = 0x7FFF0000
AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7, "i386": 0x40000003, "arm": 0x40000028}
ENOSYS = 38

_INSTRUCTION = struct.Struct("<HBBI")
_MAX_INSTRUCTIONS = 4096
_JUMPS: dict[int, Callable[[int, int], bool]] = {
    0x15: operator.eq,
    0x25: operator.gt,
    0x35: operator.ge,
    0x45: lambda left, right: bool(left & right),
}


class Outcome(NamedTuple):
    """What a filter says about a call.

    Attributes:
        verdict: The returned SECCOMP_RET_* word.
        steps: How many instructions ran.
    """

    verdict: int
    steps: int


def errno_verdict(number: int) -> int:
    """Give the verdict that makes a call fail with an error number."""
    return 0x00050000 | number


def run(program: bytes, nr: int, args: Sequence[int] = (), *, arch: str = "x86_64") -> Outcome:
    """Execute a packed filter on one call, refusing whatever the kernel's verifier would refuse."""
    code = list(_INSTRUCTION.iter_unpack(program))
    assert 0 < len(code) <= _MAX_INSTRUCTIONS
    padded = [*args, *[0] * (6 - len(args))]
    data = struct.pack("<IIQ6Q", nr & 0xFFFFFFFF, AUDIT_ARCH[arch], 0, *padded)
    accumulator, position, steps = 0, 0, 0
    while True:
        operation, if_true, if_false, constant = code[position]
        position, steps = position + 1, steps + 1
        if operation == 0x06:
            return Outcome(constant, steps)
        if operation == 0x20:
            assert constant % 4 == 0
            (accumulator,) = struct.unpack_from("<I", data, constant)
        elif operation == 0x54:
            accumulator &= constant
        elif operation == 0x05:
            position += constant
        else:
            position += if_true if _JUMPS[operation](accumulator, constant) else if_false


_ACTIONS = {
    "SCMP_ACT_KILL": 0,
    "SCMP_ACT_KILL_THREAD": 0,
    "SCMP_ACT_KILL_PROCESS": 0x80000000,
    "SCMP_ACT_TRAP": 0x00030000,
    "SCMP_ACT_ERRNO": 0x00050000,
    "SCMP_ACT_TRACE": 0x7FF00000,
    "SCMP_ACT_LOG": 0x7FFC0000,
    "SCMP_ACT_ALLOW": ALLOW,
}
_STRICTEST_FIRST = [0x80000000, 0, 0x00030000, 0x00050000, 0x7FF00000, 0x7FFC0000, ALLOW]
_COMPARISONS = {
    "SCMP_CMP_EQ": operator.eq,
    "SCMP_CMP_NE": operator.ne,
    "SCMP_CMP_LT": operator.lt,
    "SCMP_CMP_LE": operator.le,
    "SCMP_CMP_GT": operator.gt,
    "SCMP_CMP_GE": operator.ge,
}


def judge(
    profile: Mapping[str, Any], name: str | None, args: Sequence[int] = (), *, capabilities: frozenset[str]
) -> int:
    """Say what a profile means for one native call; None is a number that is no known system call."""
    default = _verdict(profile["defaultAction"], profile.get("defaultErrnoRet"))
    if name is None:
        permissive = profile["defaultAction"] in {"SCMP_ACT_ALLOW", "SCMP_ACT_LOG", "SCMP_ACT_TRACE"}
        return default if permissive else errno_verdict(ENOSYS)
    entries = [
        entry
        for entry in profile.get("syscalls", ())
        if name in entry["names"]
        and capabilities.issuperset(entry.get("includes", {}).get("caps", ()))
        and capabilities.isdisjoint(entry.get("excludes", {}).get("caps", ()))
        and _verdict(entry["action"], entry.get("errnoRet")) != default
    ]
    for entry in entries:
        if not entry.get("args"):
            return _verdict(entry["action"], entry.get("errnoRet"))
    matching = [
        _verdict(entry["action"], entry.get("errnoRet"))
        for entry in entries
        if all(_holds(condition, args[condition["index"]]) for condition in entry["args"])
    ]
    return min(matching, key=_strictness, default=default)


def _strictness(verdict: int) -> int:
    return _STRICTEST_FIRST.index(verdict & 0xFFFF0000)


def _verdict(action: str, number: int | None) -> int:
    base = _ACTIONS[action]
    if action in {"SCMP_ACT_ERRNO", "SCMP_ACT_TRACE"}:
        return base | (1 if number is None else number)
    return base


def _holds(condition: Mapping[str, Any], argument: int) -> bool:
    value, two = condition["value"], condition.get("valueTwo", 0)
    if value < 1 << 32:
        argument %= 1 << 32
    if condition["op"] == "SCMP_CMP_MASKED_EQ":
        return bool(argument & value == two)
    return bool(_COMPARISONS[condition["op"]](argument, value))
