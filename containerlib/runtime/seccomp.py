"""Compiling seccomp profiles into filters that the kernel loads.

A filter looks at the architecture first, then finds the number of the system call in a balanced search
tree whose leaves are verdicts or comparisons of arguments. So every call costs the same ten or so
instructions, and the kernel can see for most numbers that they are always allowed and skip the filter
(since 5.11). This module does not load filters. In: a profile; out: packed `struct sock_filter`.

Source: Documentation/userspace-api/seccomp_filter.rst; kernel/seccomp.c.
"""

from __future__ import annotations

import json
import os
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from containerlib.runtime import bpf
from containerlib.runtime.seccomp_profile import ENOSYS_VERDICT, Condition, Policy, Rule, read_policy
from containerlib.runtime.syscalls import numbers

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["compile_profile", "load_default"]

_AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}

# The x32 ABI of x86_64 marks its calls with this bit, under the same AUDIT_ARCH.
_X32 = 0x40000000

_DEFAULT_PATH = os.path.join(os.path.dirname(__file__), "seccomp_default.json")


# Where a range of system calls with the same rules begins; it ends where the next one begins.
_Range = tuple[int, tuple[Rule, ...]]


def compile_profile(
    profile: Mapping[str, Any],
    *,
    capabilities: frozenset[str],
    arch: str,
    skip_unknown: bool = False,
    has_agent: bool = False,
) -> bytes:
    """Compile `profile` for a container with these capabilities.

    Only calls of the native ABI are judged by the profile. Those of another one (i386, x32, 32-bit arm)
    get ENOSYS: their numbers mean other calls, and i386 hides the arguments of socket(2) in memory.

    Arguments are compared on their low 32 bits wherever the value of the rule fits 32 bits, because the
    kernel takes most arguments that a rule can be about (flags, commands, families) as int and drops the
    upper half; see `containerlib.runtime.bpf.compare`. So a rule cannot limit an argument that really has
    64 bits, such as a length, to a small value.

    Args:
        profile: Decoded JSON of the shape that `containerlib.runtime.seccomp_profile` describes.
        capabilities: Names such as ``CAP_NET_RAW``; `includes` and `excludes` are about these.
        arch: ``"x86_64"`` or ``"aarch64"``.
        skip_unknown: Whether names of system calls that nobody here knows are left out.
        has_agent: Whether somebody answers for the kernel; see `containerlib.runtime.seccomp_agent`.

    Returns:
        An array of `struct sock_filter`, 8 bytes each, for PR_SET_SECCOMP.

    Raises:
        InvalidOption: The profile is malformed, or its filter is longer than 4096 instructions.
        UnsupportedHost: The profile or the architecture is not supported.

    Cost: about a millisecond for a profile of the size of the default one.
    """
    policy = read_policy(
        profile,
        capabilities=capabilities,
        arch=arch,
        kernel=_kernel_version(),
        skip_unknown=skip_unknown,
        has_agent=has_agent,
    )
    return bpf.pack(
        [
            *bpf.load(bpf.ARCH),
            *bpf.expect(_AUDIT_ARCH[arch], otherwise=ENOSYS_VERDICT),
            *bpf.load(bpf.NR),
            *_search(_ranges(policy, arch)),
        ]
    )


def load_default(arch: str, capabilities: frozenset[str]) -> bytes:
    """Give the compiled default profile. It is compiled once for each set of capabilities that matters.

    Args:
        arch: ``"x86_64"`` or ``"aarch64"``.
        capabilities: Names such as ``CAP_NET_RAW`` that the container has.

    Returns:
        The same as `compile_profile`.

    Raises:
        UnsupportedHost: There is no filter for this architecture.
    """
    return _compile_default(arch, capabilities & _deciding_capabilities())


@lru_cache(maxsize=64)
def _compile_default(arch: str, capabilities: frozenset[str]) -> bytes:
    return compile_profile(_default_profile(), capabilities=capabilities, arch=arch)


@lru_cache(maxsize=1)
def _default_profile() -> dict[str, Any]:
    with open(_DEFAULT_PATH, encoding="ascii") as file:
        profile: dict[str, Any] = json.load(file)
    return profile


@lru_cache(maxsize=1)
def _deciding_capabilities() -> frozenset[str]:
    return frozenset(
        name
        for entry in _default_profile()["syscalls"]
        for key in ("includes", "excludes")
        for name in entry.get(key, {}).get("caps", ())
    )


def _kernel_version() -> tuple[int, int]:
    major, minor = os.uname().release.split(".")[:2]
    digits = minor[: len(minor) - len(minor.lstrip("0123456789"))]
    return int(major), int(digits)


def _ranges(policy: Policy, arch: str) -> list[_Range]:
    """Cut the space of numbers into ranges with the same rules."""
    default: tuple[Rule, ...] = ((policy.default, ()),)
    unknown: tuple[Rule, ...] = ((policy.unknown, ()),)
    ranges: list[_Range] = []
    after = 0
    for number in sorted(numbers(arch).values()):
        if number != after:
            _append(ranges, after, unknown)
        _append(ranges, number, policy.rules.get(number, default))
        after = number + 1
    _append(ranges, after, unknown)
    if arch == "x86_64":
        _append(ranges, _X32, ((ENOSYS_VERDICT, ()),))
    return ranges


def _append(ranges: list[_Range], start: int, rules: tuple[Rule, ...]) -> None:
    if not ranges or ranges[-1][1] != rules:
        ranges.append((start, rules))


def _search(ranges: list[_Range]) -> bpf.Code:
    """Make the search tree: the number of the system call is in the accumulator."""
    if len(ranges) == 1:
        return _decide(ranges[0][1])
    middle = len(ranges) // 2
    return bpf.split(ranges[middle][0], _search(ranges[:middle]), _search(ranges[middle:]))


def _decide(rules: tuple[Rule, ...]) -> bpf.Code:
    """Try the rules in order. The last one has no conditions, so this never runs into its end."""
    code: bpf.Code = []
    loaded: int | None = None
    for verdict, conditions in rules:
        block = _block(verdict, conditions)
        # A rule of one plain comparison leaves the argument in the accumulator for the next.
        alone = conditions[0][0] if len(conditions) == 1 and len(block) == _PLAIN else None
        code += block[1:] if alone is not None and alone == loaded else block
        loaded = alone
    return code


_PLAIN = 3  # load, jump, return


def _block(verdict: int, conditions: tuple[Condition, ...]) -> bpf.Code:
    """Give `verdict` if all conditions hold, else run into the end."""
    code = bpf.give(verdict)
    for condition in reversed(conditions):
        code = [*bpf.compare(*condition, fail=len(code)), *code]
    return code
