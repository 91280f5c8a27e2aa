"""How the kernel schedules a process of an OCI configuration: from words to what system calls take. Pure.

Source: runtime-spec 1.2, config.md, "Linux Process"; sched_setattr(2), ioprio_set(2), sched_setaffinity(2).
"""

from __future__ import annotations

import re
import struct
from typing import TYPE_CHECKING

from containerlib.errors import InvalidOption
from containerlib.oci.runtime_words import IO_CLASSES, SCHEDULER_FLAGS, SCHEDULER_POLICIES

if TYPE_CHECKING:
    from containerlib.oci.runtime_spec import IoPriority, Scheduler

__all__ = ["io_priority_value", "processors", "processors_mask", "scheduler_bytes"]

# struct sched_attr of linux/sched/types.h: size, policy, flags, nice, priority, runtime, deadline,
# period, and two bounds of utilization, for which a configuration has no words.
_SCHED_ATTR = struct.Struct("=IIQiIQQQII")
_CLASS_SHIFT = 13
_LIST = re.compile(r"[0-9]{1,5}(-[0-9]{1,5})?(,[0-9]{1,5}(-[0-9]{1,5})?)*", re.ASCII)
_MOST_PROCESSORS = 8192


def scheduler_bytes(scheduler: Scheduler | None) -> bytes:
    """A struct sched_attr; empty for none."""
    if scheduler is None:
        return b""
    return _SCHED_ATTR.pack(
        _SCHED_ATTR.size,
        SCHEDULER_POLICIES[scheduler.policy],
        sum(SCHEDULER_FLAGS[flag] for flag in set(scheduler.flags)),
        scheduler.nice,
        scheduler.priority,
        scheduler.runtime_ns,
        scheduler.deadline_ns,
        scheduler.period_ns,
        0,
        0,
    )


def io_priority_value(priority: IoPriority | None) -> int | None:
    """What ioprio_set(2) takes; None for none."""
    return None if priority is None else IO_CLASSES[priority.kind] << _CLASS_SHIFT | priority.level


def processors(text: str, option: str) -> frozenset[int]:
    """The numbers of a list such as ``0-3,7``.

    Raises:
        InvalidOption: It is none, or has a number that no kernel has.
    """
    if not _LIST.fullmatch(text):
        raise InvalidOption(option, text, "is no list of processors such as 0-3,7")
    ends = [part.partition("-")[::2] for part in text.split(",")]
    found = frozenset(n for low, high in ends for n in range(int(low), int(high or low) + 1))
    if not found or max(found) >= _MOST_PROCESSORS:
        raise InvalidOption(option, text, f"names none, or one beyond {_MOST_PROCESSORS - 1}")
    return found


def processors_mask(numbers: frozenset[int]) -> bytes:
    """The numbers as bits, the lowest first."""
    mask = sum(1 << number for number in numbers)
    return mask.to_bytes((mask.bit_length() + 63) // 64 * 8, "little")
