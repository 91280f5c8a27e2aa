"""Signals by name or number, as ``kill`` takes them."""

from __future__ import annotations

import signal

from containerlib.oci_cli.errors import OciError

__all__ = ["parse_signal"]

_MOST = 64


def parse_signal(text: str) -> int:
    """The number of a signal.

    Raises:
        OciError: There is no such signal.
    """
    if text.isdecimal():
        number = int(text)
        if 0 < number <= _MOST:
            return number
    else:
        name = text.upper().removeprefix("SIG")
        if name.startswith(("RTMIN+", "RTMAX-")):
            base, _, offset = name.partition(name[5])
            if offset.isdecimal():
                start = signal.SIGRTMIN if base == "RTMIN" else signal.SIGRTMAX
                return int(start) + int(offset) * (1 if base == "RTMIN" else -1)
        found = getattr(signal, f"SIG{name}", None)
        if isinstance(found, signal.Signals):
            return int(found)
    raise OciError(f"unknown signal {text!r}; give a name such as SIGTERM or a number")
