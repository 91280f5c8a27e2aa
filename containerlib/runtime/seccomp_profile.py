"""Reading a seccomp profile: from JSON to what holds for each system call of one architecture.

The shape is `linux.seccomp` of the OCI runtime specification, with what Docker and Podman add to it:
`includes` and `excludes` (`caps`, `arches`, `minKernel`), `archMap`, `comment`, `errno`, `name`. Whatever
else is in a profile is refused, because a misspelt restriction is a missing one. This module knows what
a rule means but not how a filter is made of it. In: a mapping; out: a `Policy`.

Source: runtime-spec config-linux.md "Seccomp"; libseccomp seccomp_rule_add(3).
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any, NoReturn

from containerlib.errors import InvalidOption, UnsupportedHost
from containerlib.runtime.capability import CAPABILITIES, parse_capability
from containerlib.runtime.syscalls import is_foreign, numbers

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["ACTION_NAMES", "ENOSYS_VERDICT", "OPERATORS", "Condition", "Policy", "Rule", "read_policy"]

_ACTION = 0xFFFF0000
_ERRNO = 0x00050000
_TRACE = 0x7FF00000
_NOTIFY = 0x7FC00000

# SECCOMP_RET_*: the upper half is the action, the lower half its data.
_ACTIONS = {
    "SCMP_ACT_KILL": 0x00000000,
    "SCMP_ACT_KILL_THREAD": 0x00000000,
    "SCMP_ACT_KILL_PROCESS": 0x80000000,
    "SCMP_ACT_TRAP": 0x00030000,
    "SCMP_ACT_ERRNO": _ERRNO,
    "SCMP_ACT_NOTIFY": _NOTIFY,
    "SCMP_ACT_TRACE": _TRACE,
    "SCMP_ACT_LOG": 0x7FFC0000,
    "SCMP_ACT_ALLOW": 0x7FFF0000,
}
ACTION_NAMES = tuple(_ACTIONS)
_PERMISSIVE = (_ACTIONS["SCMP_ACT_LOG"], _ACTIONS["SCMP_ACT_ALLOW"])
_MAX_ERRNO = 4095  # the kernel caps larger ones

ENOSYS_VERDICT = _ERRNO | errno.ENOSYS

OPERATORS = frozenset(f"SCMP_CMP_{name}" for name in ("NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ"))
_PREFIX = len("SCMP_CMP_")

_ARCHITECTURES = {"x86_64": "SCMP_ARCH_X86_64", "aarch64": "SCMP_ARCH_AARCH64"}
_GO_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}

_PROFILE_KEYS = frozenset(
    {"defaultAction", "defaultErrnoRet", "defaultErrno", "architectures", "archMap", "syscalls"}
    | {"flags", "listenerPath", "listenerMetadata"}
)
_ENTRY_KEYS = frozenset(
    {"names", "name", "action", "errnoRet", "errno", "args", "comment", "includes", "excludes"}
)
_ARG_KEYS = frozenset({"index", "value", "valueTwo", "op"})
_FILTER_KEYS = frozenset({"caps", "arches", "minKernel"})

_MAX_ARGS = 6
_WORD_64 = 1 << 64


# Plain tuples and slots instead of NamedTuple: making four such classes takes longer than compiling a filter.

# Number of the argument, operator without its prefix, `value`, `valueTwo`.
Condition = tuple[int, str, int, int]

# A verdict (`SECCOMP_RET_*` with its data), and the conditions that must all hold for it.
Rule = tuple[int, tuple[Condition, ...]]


class Policy:
    """What a profile says about one architecture.

    Attributes:
        default: Verdict on a known system call without rules.
        unknown: Verdict on a number that is no known system call.
        rules: Rules by number of the system call. The first that holds decides, and the last of each has
            no conditions.
    """

    __slots__ = ("default", "rules", "unknown")

    def __init__(self, default: int, unknown: int, rules: dict[int, tuple[Rule, ...]]) -> None:
        self.default = default
        self.unknown = unknown
        self.rules = rules


class _Host:
    """What `includes` and `excludes` can ask for."""

    __slots__ = ("arch", "capabilities", "kernel")

    def __init__(self, capabilities: frozenset[str], arch: str, kernel: tuple[int, int]) -> None:
        self.capabilities = capabilities
        self.arch = arch
        self.kernel = kernel


def read_policy(
    profile: Mapping[str, Any],
    *,
    capabilities: frozenset[str],
    arch: str,
    kernel: tuple[int, int],
    skip_unknown: bool = False,
    has_agent: bool = False,
) -> Policy:
    """Check `profile` and pick what holds on this host with these capabilities.

    Several rules for one system call are alternatives, the conditions within one rule hold together. A
    rule without conditions beats those that have some, and the first such rule beats the later ones. If
    several rules with conditions hold, the most restrictive action is taken, and of several rules with that
    the first. Rules that say the same as `defaultAction` are ignored. All this is what libseccomp does. New
    system calls, which no profile can know, get ENOSYS unless the default is to let calls through: programs
    then try an older one.

    Args:
        profile: The decoded JSON.
        capabilities: Names with prefix that the container has.
        arch: The only architecture whose calls are let through.
        kernel: Version of the running kernel, for `minKernel`.
        skip_unknown: Whether unknown names of system calls are left out, as other runtimes do it.
        has_agent: Whether somebody answers for the kernel where the profile says so; then the settings for
            that are accepted, and not looked at here.

    Raises:
        InvalidOption: The profile is malformed, names an unknown system call, or is for other
            architectures only.
        UnsupportedHost: It needs an agent that answers for the kernel (`SCMP_ACT_NOTIFY`).
    """
    _check_keys(profile, _PROFILE_KEYS, "the profile")
    _check_architectures(profile, arch)
    for key in ("flags", "listenerPath", "listenerMetadata"):
        if profile.get(key) and not has_agent:
            _refuse(key, "this setting is not supported")
    default = _verdict(profile, "defaultAction", "defaultErrnoRet", "defaultErrno", has_agent=has_agent)
    host = _Host(capabilities, arch, kernel)
    found: dict[int, list[Rule]] = {}
    for entry in _list(profile, "syscalls"):
        _check_keys(entry, _ENTRY_KEYS, "an entry of syscalls")
        # Entries that do not apply are checked all the same: an error must not wait for another host.
        applies = _applies(entry, host)
        verdict = _verdict(entry, "action", "errnoRet", "errno", has_agent=has_agent)
        rule = (verdict, tuple(_conditions(entry)))
        for number in _numbers(entry, arch, skip_unknown=skip_unknown):
            if applies and verdict != default:
                found.setdefault(number, []).append(rule)
    permissive = default in _PERMISSIVE or default & _ACTION == _TRACE
    rules = {number: _in_order(alternatives, default) for number, alternatives in found.items()}
    return Policy(default, default if permissive else ENOSYS_VERDICT, rules)


def _in_order(rules: list[Rule], default: int) -> tuple[Rule, ...]:
    for rule in rules:
        if not rule[1]:
            return (rule,)
    # The kernel's own order of strictness is that of the action as a signed number.
    return (*sorted(rules, key=lambda rule: (rule[0] & _ACTION) ^ 0x80000000), (default, ()))


def _numbers(entry: Mapping[str, Any], arch: str, *, skip_unknown: bool) -> Iterator[int]:
    table = numbers(arch)
    for name in _names(entry):
        number = table.get(name)
        if number is not None:
            yield number
        elif not skip_unknown and not is_foreign(name, arch=arch):
            _refuse_name(name, table)


def _names(entry: Mapping[str, Any]) -> list[str]:
    names = _list(entry, "names")
    single = entry.get("name")
    if bool(names) == bool(single):
        _refuse(single or names, "an entry of syscalls needs either names or name")
    names = names or [single]
    for name in names:
        if not isinstance(name, str):
            _refuse(name, "the name of a system call must be a string")
    return names


def _refuse_name(name: str, table: Mapping[str, int]) -> NoReturn:
    from difflib import get_close_matches  # noqa: PLC0415  # only errors pay for this import

    nearest = get_close_matches(name, table, n=1)
    _refuse(name, "there is no such system call" + (f"; did you mean {nearest[0]}?" if nearest else ""))


def _verdict(
    holder: Mapping[str, Any], action_key: str, number_key: str, name_key: str, *, has_agent: bool
) -> int:
    action = holder.get(action_key)
    if action == "SCMP_ACT_NOTIFY" and not has_agent:
        raise UnsupportedHost("SCMP_ACT_NOTIFY", needed="a seccomp agent", found="none")
    if not isinstance(action, str) or action not in _ACTIONS:
        _refuse(action, f"{action_key} must be one of {', '.join(_ACTIONS)}")
    base = _ACTIONS[action]
    number = _errno(holder, number_key, name_key)
    if base in (_ERRNO, _TRACE):
        return base | (errno.EPERM if number is None else number)
    if number is not None:
        _refuse(number, f"{number_key} has no meaning for {action}")
    return base


def _errno(holder: Mapping[str, Any], number_key: str, name_key: str) -> int | None:
    number, name = holder.get(number_key), holder.get(name_key)
    if name:
        known = {text: value for value, text in errno.errorcode.items()}
        if name not in known or number not in (None, known[name]):
            _refuse(name, f"{name_key} is unknown or contradicts {number_key}")
        return known[name]
    if number is None:
        return None
    return _integer(number, number_key, _MAX_ERRNO + 1)


def _conditions(entry: Mapping[str, Any]) -> Iterator[Condition]:
    seen = set()
    for arg in _list(entry, "args"):
        _check_keys(arg, _ARG_KEYS, "an entry of args")
        index = _integer(arg.get("index"), "index", _MAX_ARGS)
        value = _integer(arg.get("value"), "value", _WORD_64)
        two = _integer(arg.get("valueTwo") or 0, "valueTwo", _WORD_64)
        operator = arg.get("op")
        if not isinstance(operator, str) or operator not in OPERATORS:
            _refuse(operator, f"op must be one of {', '.join(sorted(OPERATORS))}")
        masked = operator == "SCMP_CMP_MASKED_EQ"
        if two & ~value if masked else two:
            _refuse(
                two, "valueTwo has no meaning for this op" if not masked else "the mask in value clears it"
            )
        if index in seen:
            # runc takes these as alternatives, which is neither the letter of the specification nor safe.
            _refuse(index, "args has this index twice; write one entry of syscalls for each alternative")
        seen.add(index)
        yield index, operator[_PREFIX:], value, two


def _applies(entry: Mapping[str, Any], host: _Host) -> bool:
    includes, excludes = _filter(entry, "includes"), _filter(entry, "excludes")
    arch = _GO_ARCHITECTURES[host.arch]
    if arch in _list(excludes, "arches") or not host.capabilities.isdisjoint(_caps(excludes)):
        return False
    arches, wanted = _list(includes, "arches"), _minimal_kernel(includes)
    return (
        (not arches or arch in arches)
        and host.capabilities.issuperset(_caps(includes))
        and host.kernel >= wanted
    )


def _filter(entry: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = entry.get(key) or {}
    _check_keys(value, _FILTER_KEYS, key)
    if key == "excludes" and value.get("minKernel"):
        _refuse(value, "minKernel has a meaning in includes only")
    return value


def _caps(holder: Mapping[str, Any]) -> list[str]:
    names = _list(holder, "caps")
    for name in names:
        if not isinstance(name, str) or name not in CAPABILITIES:
            parse_capability(str(name), option="seccomp")
            _refuse(name, "write the name of a capability as CAP_NAME")
    return names


def _minimal_kernel(holder: Mapping[str, Any]) -> tuple[int, int]:
    text = holder.get("minKernel") or "0.0"
    major, _, minor = str(text).partition(".")
    if not (major.isdecimal() and minor.isdecimal()):
        _refuse(text, "minKernel must be two numbers, such as 4.8")
    return int(major), int(minor)


def _check_architectures(profile: Mapping[str, Any], arch: str) -> None:
    listed, mapped = _list(profile, "architectures"), _list(profile, "archMap")
    if listed and mapped:
        _refuse("archMap", "a profile has either architectures or archMap")
    for item in mapped:
        _check_keys(item, frozenset({"architecture", "subArchitectures"}), "archMap")
        listed = [*listed, item.get("architecture"), *_list(item, "subArchitectures")]
    numbers(arch)  # refuses an architecture that we have no table for
    if listed and _ARCHITECTURES[arch] not in listed:
        _refuse(listed, f"the profile does not list {_ARCHITECTURES[arch]}")


def _check_keys(value: object, known: frozenset[str], what: str) -> None:
    if not isinstance(value, dict):
        _refuse(value, f"{what} must be an object")
    if not known.issuperset(value):
        _refuse(sorted(map(str, value.keys() - known)), f"{what} has keys that have no meaning there")


def _list(holder: Mapping[str, Any], key: str) -> list[Any]:
    value = holder.get(key)
    if value is None:
        return []
    if not isinstance(value, list):
        _refuse(value, f"{key} must be a list")
    return value


def _integer(value: object, what: str, limit: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < limit:
        _refuse(value, f"{what} must be a whole number from 0 to {limit - 1}")
    return value


def _refuse(value: object, reason: str) -> NoReturn:
    raise InvalidOption("seccomp", value, reason)
