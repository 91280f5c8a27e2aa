"""Capabilities: their names, their numbers, and what `--cap-add` and `--cap-drop` make of a default set.

Names are written as in the OCI runtime specification, ``CAP_NET_ADMIN``; what people type is turned into
that form by `parse_capability`. This module does not know which capabilities the host has.

Source: linux/capability.h of Linux 6.18; capabilities(7).
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

from containerlib.errors import InvalidOption

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = [
    "ALL",
    "CAPABILITIES",
    "DEFAULT_CAPABILITIES",
    "DOCKER_CAPABILITIES",
    "apply",
    "mask",
    "parse_capability",
]

# The position is the number.
_NAMES = """
    CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE
    NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT
    SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE
    AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ
    PERFMON BPF CHECKPOINT_RESTORE
"""

CAPABILITIES = MappingProxyType({f"CAP_{name}": number for number, name in enumerate(_NAMES.split())})

ALL = "ALL"

# Podman's set: without the three that Docker gives and hardly any program needs.
DEFAULT_CAPABILITIES = frozenset(
    {
        "CAP_CHOWN",
        "CAP_DAC_OVERRIDE",
        "CAP_FOWNER",
        "CAP_FSETID",
        "CAP_KILL",
        "CAP_NET_BIND_SERVICE",
        "CAP_SETFCAP",
        "CAP_SETGID",
        "CAP_SETPCAP",
        "CAP_SETUID",
        "CAP_SYS_CHROOT",
    }
)

DOCKER_CAPABILITIES = DEFAULT_CAPABILITIES | {"CAP_AUDIT_WRITE", "CAP_MKNOD", "CAP_NET_RAW"}


def parse_capability(text: str, *, option: str = "capability") -> str:
    """Turn what somebody typed into the name of a capability.

    Args:
        text: ``NET_ADMIN``, ``CAP_NET_ADMIN`` or ``ALL``, in any case.
        option: What to call the option in an error message.

    Returns:
        The name with its prefix, or `ALL`.

    Raises:
        InvalidOption: There is no such capability; the message has the nearest name.
    """
    # Other alphabets have letters whose upper case is an ASCII one; such a name is none of ours.
    upper = text.upper() if text.isascii() else text
    if upper == ALL:
        return ALL
    name = upper if upper.startswith("CAP_") else f"CAP_{upper}"
    if name not in CAPABILITIES:
        raise InvalidOption(option, text, f"there is no such capability{_suggestion(name)}")
    return name


def _suggestion(name: str) -> str:
    from difflib import get_close_matches  # noqa: PLC0415  # only errors pay for this import

    nearest = get_close_matches(name, CAPABILITIES, n=1)
    return f"; did you mean {nearest[0].removeprefix('CAP_')}?" if nearest else ""


def apply(default: frozenset[str], add: Iterable[str] = (), drop: Iterable[str] = ()) -> frozenset[str]:
    """Change a set of capabilities as Docker does.

    The order in which names are given has no meaning. Without `ALL`, what is dropped goes first and what
    is added comes then, so a name in both is kept. Adding `ALL` gives everything but the dropped names.
    Dropping `ALL` gives the added names alone. `ALL` in both is refused, although Docker gives everything:
    whoever writes that cannot have meant it.

    Args:
        default: Names to begin with.
        add: What to add, in any spelling that `parse_capability` takes.
        drop: What to drop.

    Returns:
        Names with their prefix.

    Raises:
        InvalidOption: A name is unknown, or all are both added and dropped.
    """
    added = {parse_capability(text, option="cap_add") for text in add}
    dropped = {parse_capability(text, option="cap_drop") for text in drop}
    if ALL in added and ALL in dropped:
        raise InvalidOption("cap_drop", ALL, "cap_add has ALL too; name the capabilities that are needed")
    if ALL in added:
        return frozenset(CAPABILITIES) - dropped
    if ALL in dropped:
        return frozenset(added)
    return (default - dropped) | added


def mask(names: Iterable[str]) -> int:
    """Give the bits of `names`, as capset(2) and /proc/PID/status have them.

    Raises:
        InvalidOption: A name is unknown.
    """
    bits = 0
    for name in names:
        parsed = parse_capability(name)
        bits |= (1 << len(CAPABILITIES)) - 1 if parsed == ALL else 1 << CAPABILITIES[parsed]
    return bits
