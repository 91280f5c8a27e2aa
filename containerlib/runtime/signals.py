"""Names and numbers of signals."""

from __future__ import annotations

import signal

from containerlib.errors import InvalidOption

__all__ = ["parse_signal"]


def parse_signal(value: int | str) -> int:
    """A signal's number from a number or a name, with or without ``SIG``.

    Raises:
        InvalidOption: There is no such signal.
    """
    text = str(value)
    if text.isascii() and text.isdigit():
        number = int(text)
        if 0 < number <= signal.SIGRTMAX:
            return number
    else:
        name = text.upper()
        found = getattr(signal, name if name.startswith("SIG") else f"SIG{name}", None)
        if isinstance(found, signal.Signals):
            return int(found)
    raise InvalidOption("signal", value, "give a name such as 'TERM' or a number from 1 to 64")
