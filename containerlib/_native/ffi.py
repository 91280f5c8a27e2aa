"""Loads the compiled module and checks that it belongs to this package. The only module that imports it."""

from __future__ import annotations

import os

from containerlib._native._ctr import ffi, lib

__all__ = ["PROGRAM_PATH", "check", "ffi", "lib"]

PROGRAM_PATH = os.path.join(os.path.dirname(os.path.abspath(__file__)), "ctr-spawner")
"""The static program that becomes spawner and init; built together with the module."""


def check(result: int, what: str) -> int:
    """Return `result`, or raise the `OSError` that a negative one stands for.

    Args:
        result: What a C function returned: 0 or a descriptor, or -errno.
        what: What the call was about, for the message.
    """
    if result < 0:
        raise OSError(-result, os.strerror(-result), what)
    return result
