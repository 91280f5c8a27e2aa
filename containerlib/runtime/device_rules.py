"""Which devices a container may open or create: rules, their text form, and what version 1 is told.

A list of rules is read from top to bottom and each kind of access is decided by the last rule that names it;
what no rule names is denied. A request for several kinds at once needs all of them. In: `DeviceRule`. Out:
the same, reduced to what cgroup v1 can express. Version 2 is in `device_program`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, Literal

from attrs import field, frozen

from containerlib.errors import InvalidOption, UnsupportedHost

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    import attrs

__all__ = [
    "ALLOW_ALL",
    "DEFAULT_RULES",
    "DENY_ALL",
    "DeviceKind",
    "DeviceRule",
    "denies",
    "parse_rule",
    "v1_lines",
]

DeviceKind = Literal["a", "b", "c"]

_RULE_TEXT: Final = re.compile(r"([abc]) ([0-9]+|\*):([0-9]+|\*) ([rwm]{1,3})")
_MOST: Final = 2**32 - 1

_Key = tuple[Literal["b", "c"], int | None, int | None]


def _check_number(_instance: object, attribute: attrs.Attribute[int | None], value: int | None) -> None:
    if value is not None and not 0 <= value <= _MOST:
        raise InvalidOption(attribute.name, value, "device numbers are 0 to 4294967295")


def _check_access(_instance: object, attribute: attrs.Attribute[str], value: str) -> None:
    if not value or set(value) - set("rwm"):
        raise InvalidOption(attribute.name, value, "give one or more of r, w and m")


@frozen
class DeviceRule:
    """Allows or denies some access to some devices.

    Attributes:
        allow: Whether the access is allowed.
        kind: ``"b"`` block, ``"c"`` character, ``"a"`` both.
        major: Major number; `None` for any.
        minor: Minor number; `None` for any.
        access: Some of ``r`` (read), ``w`` (write), ``m`` (create the node).
    """

    allow: bool
    kind: DeviceKind
    major: int | None = field(default=None, validator=_check_number)
    minor: int | None = field(default=None, validator=_check_number)
    access: str = field(default="rwm", validator=_check_access)

    @property
    def is_total(self) -> bool:
        """Whether the rule is about every access to every device, so that no earlier rule counts."""
        return self.kind == "a" and self.major is None and self.minor is None and len(set(self.access)) == 3  # noqa: PLR2004


DENY_ALL: Final = DeviceRule(allow=False, kind="a")
ALLOW_ALL: Final = DeviceRule(allow=True, kind="a")

DEFAULT_RULES: Final = (
    DENY_ALL,
    DeviceRule(True, "c", access="m"),  # nodes may be made, not used
    DeviceRule(True, "b", access="m"),
    DeviceRule(True, "c", 1, 3),  # null
    DeviceRule(True, "c", 1, 5),  # zero
    DeviceRule(True, "c", 1, 7),  # full
    DeviceRule(True, "c", 1, 8),  # random
    DeviceRule(True, "c", 1, 9),  # urandom
    DeviceRule(True, "c", 5, 0),  # tty
    DeviceRule(True, "c", 5, 1),  # console
    DeviceRule(True, "c", 5, 2),  # ptmx
    DeviceRule(True, "c", 136),  # pts
)
"""What a container may do when the caller says nothing; the set of runc and Docker."""


def parse_rule(text: str, *, allow: bool = True) -> DeviceRule:
    """Parse the text of Docker's ``--device-cgroup-rule``, such as ``"c 1:3 rwm"``.

    Raises:
        InvalidOption: The text has another form, or a number is too large.
    """
    match = _RULE_TEXT.fullmatch(text)
    if match is None:
        raise InvalidOption("device_cgroup_rule", text, "write it as 'c 1:3 rwm' or 'b 7:* r'")
    kind, major, minor, access = match.groups()
    return DeviceRule(allow, kind, _parse_number(major), _parse_number(minor), access)  # type: ignore[arg-type] # the pattern admits a, b and c only


def _parse_number(text: str) -> int | None:
    return None if text == "*" else int(text)


def denies(rules: Iterable[DeviceRule]) -> bool:
    """Whether the rules take away more than the defaults do, so that they must not go unenforced."""
    return any(not rule.allow and not rule.is_total for rule in rules)


def v1_lines(rules: Sequence[DeviceRule]) -> list[tuple[str, str]]:
    """Return what to write, as pairs of file and text, to give a v1 ``devices`` cgroup these rules.

    Version 1 keeps one default and a flat list of exceptions, and drops an exception only on an exact match.
    So the rules are reduced to their end result first.

    Raises:
        UnsupportedHost: A rule makes a hole in a wider one, which version 1 would silently not do.

    Source: Documentation/admin-guide/cgroup-v1/devices.rst.
    """
    allowed_by_default, exceptions = False, dict[_Key, set[str]]()
    for rule in rules:
        if rule.is_total:
            allowed_by_default = rule.allow
            exceptions.clear()
            continue
        for key in _keys(rule):
            if rule.allow == allowed_by_default:
                _withdraw(exceptions, key, rule)
            else:
                exceptions.setdefault(key, set()).update(rule.access)
    reset, exception = ("allow", "deny") if allowed_by_default else ("deny", "allow")
    lines = [(f"devices.{reset}", "a")]
    for (kind, major, minor), access in exceptions.items():
        if access:
            letters = "".join(letter for letter in "rwm" if letter in access)
            lines.append((f"devices.{exception}", f"{kind} {_number(major)}:{_number(minor)} {letters}"))
    return lines


def _keys(rule: DeviceRule) -> Iterator[_Key]:
    if rule.kind in ("a", "b"):
        yield "b", rule.major, rule.minor
    if rule.kind in ("a", "c"):
        yield "c", rule.major, rule.minor


def _withdraw(exceptions: dict[_Key, set[str]], key: _Key, rule: DeviceRule) -> None:
    """Take the rule's access out of every exception that it covers."""
    for other, access in exceptions.items():
        if not access.intersection(rule.access) or not _overlap(key, other):
            continue
        if not _covers(key, other):
            raise UnsupportedHost(
                f"device rule '{rule.kind} {_number(rule.major)}:{_number(rule.minor)} {rule.access}'",
                needed="cgroup v2, because it is an exception from an exception",
                found="cgroup v1 for devices",
            )
        access.difference_update(rule.access)


def _covers(wide: _Key, narrow: _Key) -> bool:
    return wide[0] == narrow[0] and all(w in (None, n) for w, n in zip(wide[1:], narrow[1:], strict=True))


def _overlap(one: _Key, two: _Key) -> bool:
    return one[0] == two[0] and all(
        a is None or b in (None, a) for a, b in zip(one[1:], two[1:], strict=True)
    )


def _number(number: int | None) -> str:
    return "*" if number is None else str(number)
