"""An assembler for the classic BPF programs that seccomp runs.

Programs are put together from the leaves up, so that every jump distance is known when its instruction
is made; there are no labels and no second pass. This module knows instructions and `struct seccomp_data`,
but neither names of system calls nor profiles. In: numbers; out: packed `struct sock_filter`.

Source: linux/filter.h, linux/seccomp.h, Documentation/userspace-api/seccomp_filter.rst.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from containerlib.errors import InvalidOption

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["ARCH", "MAX_INSTRUCTIONS", "NR", "Code", "compare", "expect", "give", "load", "pack", "split"]

# Operation, jump if true, jump if false, constant: the fields of struct sock_filter in their order.
Instruction = tuple[int, int, int, int]
Code = list[Instruction]

MAX_INSTRUCTIONS = 4096  # BPF_MAXINSNS
_MAX_JUMP = 255  # conditional jumps have one byte of distance

_LOAD = 0x20  # BPF_LD | BPF_W | BPF_ABS
_AND = 0x54  # BPF_ALU | BPF_AND | BPF_K
_JUMP = 0x05  # BPF_JMP | BPF_JA
_JEQ = 0x15  # BPF_JMP | BPF_JEQ | BPF_K
_JGT = 0x25
_JGE = 0x35
_RETURN = 0x06  # BPF_RET | BPF_K

# Offsets in struct seccomp_data: int nr; u32 arch; u64 instruction_pointer; u64 args[6]. Little endian,
# as both of our architectures are: the low half of an argument comes first.
NR = 0
ARCH = 4
_ARGS = 16
_LOW = 0xFFFFFFFF


def _argument(index: int, *, high: bool = False) -> int:
    """Give the offset of one half of argument `index`."""
    return _ARGS + 8 * index + (4 if high else 0)


def load(offset: int) -> Code:
    """Load the word at `offset` of `struct seccomp_data`."""
    return [(_LOAD, 0, 0, offset)]


def give(verdict: int) -> Code:
    """End the program with `verdict`."""
    return [(_RETURN, 0, 0, verdict)]


def expect(value: int, *, otherwise: int) -> Code:
    """Go on if the loaded word is `value`, else end with the verdict `otherwise`."""
    return [(_JEQ, 1, 0, value), *give(otherwise)]


def split(bound: int, below: Code, from_bound: Code) -> Code:
    """Run `below` if the loaded word is less than `bound`, else `from_bound`.

    Neither part may run into its end. A far jump is made when `below` is too long to be jumped over by a
    conditional jump.
    """
    distance = len(below)
    if distance <= _MAX_JUMP:
        return [(_JGE, distance, 0, bound), *below, *from_bound]
    return [(_JGE, 0, 1, bound), (_JUMP, 0, 0, distance), *below, *from_bound]


def compare(index: int, operator: str, value: int, value_two: int, *, fail: int) -> Code:
    """Go on if argument `index` satisfies the comparison, else skip `fail` more instructions.

    Values that fit 32 bits are compared with the low half of the argument, and the upper half is ignored.
    The kernel does the same with arguments of type int: with a comparison of all 64 bits a caller could
    hide a forbidden value behind a set upper half. Larger values are compared with both halves.

    Args:
        index: Number of the argument, 0 to 5.
        operator: One of `EQ`, `NE`, `LT`, `LE`, `GT`, `GE`, `MASKED_EQ`.
        value: What to compare with; for `MASKED_EQ` the mask.
        value_two: For `MASKED_EQ` what the masked argument must be; not used otherwise.
        fail: How many instructions follow that are to be skipped if the comparison fails.
    """
    if operator == "MASKED_EQ":
        return _compare_masked(index, value, value_two, fail)
    low = [*load(_argument(index)), _test(operator, value & _LOW, fail)]
    if value <= _LOW:
        return low
    high = load(_argument(index, high=True))
    return [*high, *_settle_high(operator, value >> 32, fail), *low]


def _compare_masked(index: int, mask: int, wanted: int, fail: int) -> Code:
    low = [*load(_argument(index)), (_AND, 0, 0, mask & _LOW), _test("EQ", wanted & _LOW, fail)]
    if mask <= _LOW and wanted <= _LOW:
        return low
    high = [*load(_argument(index, high=True)), (_AND, 0, 0, mask >> 32)]
    return [*high, _test("EQ", wanted >> 32, fail + len(low)), *low]


def _test(operator: str, value: int, fail: int) -> Instruction:
    """Make one jump: fall through if the comparison holds."""
    match operator:
        case "EQ":
            return (_JEQ, 0, fail, value)
        case "NE":
            return (_JEQ, fail, 0, value)
        case "GT":
            return (_JGT, 0, fail, value)
        case "GE":
            return (_JGE, 0, fail, value)
        case "LE":
            return (_JGT, fail, 0, value)
        case _:
            return (_JGE, fail, 0, value)


def _settle_high(operator: str, high: int, fail: int) -> Code:
    """Decide by the upper half; fall through into the two instructions for the lower one if it is equal."""
    passed, failed = 2, 2 + fail
    match operator:
        case "EQ":
            return [(_JEQ, 0, failed, high)]
        case "NE":
            return [(_JEQ, 0, passed, high)]
        case "GT" | "GE":
            return [(_JGT, passed + 1, 0, high), (_JEQ, 0, failed, high)]
        case _:
            return [(_JGT, failed + 1, 0, high), (_JEQ, 0, passed, high)]


def pack(code: Sequence[Instruction]) -> bytes:
    """Encode `code` as an array of `struct sock_filter`, 8 bytes each.

    Raises:
        InvalidOption: The program is longer than the kernel allows.
    """
    if len(code) > MAX_INSTRUCTIONS:
        reason = f"the profile needs {len(code)} instructions and the kernel runs {MAX_INSTRUCTIONS} at most"
        raise InvalidOption("seccomp", "profile", reason)
    fields = [field for instruction in code for field in instruction]
    return struct.pack("<" + "HBBI" * len(code), *fields)
