"""The variable by which builds are told which time it is; see https://reproducible-builds.org/specs/source-date-epoch."""

from __future__ import annotations

import os
import re

from containerlib.errors import InvalidOption
from containerlib.layer.archive import LATEST

__all__ = ["created_text", "source_date_epoch"]

_VARIABLE = "SOURCE_DATE_EPOCH"
_SECONDS = re.compile(r"[0-9]{1,10}")


def source_date_epoch() -> int | None:
    """Return what SOURCE_DATE_EPOCH says, in seconds since 1970; None if it is not set or empty.

    Raises:
        InvalidOption: It is no such number, or later than an archive can hold.
    """
    value = os.environ.get(_VARIABLE)
    if not value:
        return None
    if _SECONDS.fullmatch(value) is None or int(value) > LATEST:
        raise InvalidOption(_VARIABLE, value, f"give seconds since 1970, from 0 to {LATEST}, or unset it")
    return int(value)


def created_text(seconds: int | None) -> str:
    """Return `seconds` as an image has its time; empty for None, because then the image shall have none."""
    from containerlib.oci import timestamp  # noqa: PLC0415 - most images are made without a time

    return "" if seconds is None else timestamp.text(timestamp.from_seconds(seconds))
