"""A tiny interpreter of eBPF, for the few instructions that device programs consist of."""

from __future__ import annotations

import struct

__all__ = ["run_device_program"]

_WORD = 2**32 - 1


def run_device_program(program: bytes, *, kind: int, access: int, major: int, minor: int) -> int:
    """Run a program of type ``BPF_PROG_TYPE_CGROUP_DEVICE`` and return its verdict.

    Fails on anything that the kernel's verifier would refuse: unknown instructions, registers read before
    they were written, jumps out of the program or backwards, and a missing end.

    Args:
        program: A ``struct bpf_insn[]``.
        kind: 1 for a block, 2 for a character device.
        access: Sum of 1 (create), 2 (read) and 4 (write).
        major: Major number.
        minor: Minor number.
    """
    context = struct.pack("=III", access << 16 | kind, major, minor)
    registers: dict[int, int] = {1: 0}
    code = list(struct.iter_unpack("<BBhi", program))
    position = 0
    while True:
        opcode, pair, offset, signed = code[position]
        target, source, constant = pair & 15, pair >> 4, signed & _WORD
        position += 1
        match opcode:
            case 0x61:
                assert source == 1
                assert registers[1] == 0, "the context pointer was overwritten"
                registers[target] = struct.unpack_from("=I", context, offset)[0]
            case 0xB4:
                registers[target] = constant
            case 0xBC:
                registers[target] = registers[source] & _WORD
            case 0x54:
                registers[target] = registers[target] & constant
            case 0x74:
                registers[target] = (registers[target] & _WORD) >> constant
            case 0x16 | 0x56:
                assert offset >= 0, "a jump backwards"
                if (registers[target] & _WORD == constant) == (opcode == 0x16):
                    position += offset
            case 0x95:
                return registers[0]
            case _:
                raise AssertionError(f"unknown instruction {opcode:#x} at {position - 1}")
