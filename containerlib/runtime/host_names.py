"""What a caller says of names and addresses: whether it can be meant. Pure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["HOST_GATEWAY", "are_addresses", "are_hosts", "are_words", "is_address"]

HOST_GATEWAY = "host-gateway"
"""Stands for the host's address in the container's network."""

# Compiled when they are used, which is seldom.
_HOST = r"[A-Za-z0-9_]([A-Za-z0-9_.-]{0,252})"
_WORD = r"[A-Za-z0-9_.:-]{1,253}"


def is_address(value: object) -> bool:
    """Whether it is an address of version 4 or 6."""
    import ipaddress  # noqa: PLC0415 - few containers are told of any

    try:
        ipaddress.ip_address(value if isinstance(value, str) else "")
    except ValueError:
        return False
    return True


def are_hosts(value: object) -> bool:
    """Whether they are addresses by names, as /etc/hosts can have them."""
    return isinstance(value, dict) and all(
        isinstance(name, str)
        and re.fullmatch(_HOST, name) is not None
        and (address == HOST_GATEWAY or is_address(address))
        for name, address in value.items()
    )


def are_addresses(value: object) -> bool:
    """Whether they are addresses, as resolv.conf(5) can have them."""
    return _are(value, is_address)


def are_words(value: object) -> bool:
    """Whether they are domains or options, as resolv.conf(5) can have them."""
    return _are(value, lambda word: isinstance(word, str) and re.fullmatch(_WORD, word) is not None)


def _are(value: object, check: Callable[[object], bool]) -> bool:
    return isinstance(value, (list, tuple)) and all(map(check, value))
