"""Which boot of the machine this is: what was not synced by its end may be gone, whatever its name says."""

from __future__ import annotations

import functools

__all__ = ["boot_id"]


@functools.cache
def boot_id() -> str:
    """Return the id of the present boot."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()
