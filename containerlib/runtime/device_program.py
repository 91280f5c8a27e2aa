"""Device rules for cgroup v2: an eBPF program, its assembler, and its attachment to a cgroup.

The program decides each kind of access by the last rule that names it (see `device_rules`). The whole program
is straight-line code with forward jumps, so the verifier accepts any number of rules. In: rules. Out: the
bytes of a ``struct bpf_insn[]``.
"""

from __future__ import annotations

import contextlib
import os
import platform
import struct
from array import array
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from containerlib.errors import CgroupError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from containerlib.runtime.device_rules import DeviceRule

__all__ = ["BpfSyscall", "compile_bpf", "load_and_attach"]

BpfSyscall = Callable[[int, bytes], int]
"""``bpf(cmd, attr)``: returns a non-negative number, or raises `OSError`."""

# linux/bpf.h and linux/bpf_common.h. Opcodes are class | size-or-source | mode-or-operation.
_LOAD_WORD: Final = 0x61
_MOVE_32_CONSTANT: Final = 0xB4
_AND_32_CONSTANT: Final = 0x54
_SHIFT_RIGHT_32_CONSTANT: Final = 0x74
_MOVE_32_REGISTER: Final = 0xBC
_JUMP_IF_NOT_EQUAL_32: Final = 0x56
_JUMP_IF_EQUAL_32: Final = 0x16
_EXIT: Final = 0x95

_PROG_LOAD: Final = 5
_PROG_ATTACH: Final = 8
_TYPE_CGROUP_DEVICE: Final = 15
_ATTACH_CGROUP_DEVICE: Final = 6
_ALLOW_MULTI: Final = 2
_REPLACE: Final = 4  # Linux 5.6
_PROG_GET_FD_BY_ID: Final = 13
_GET_INFO_BY_FD: Final = 15
_PROG_QUERY: Final = 16
_MOST_PROGRAMS: Final = 64  # of one cgroup, by the kernel's own limit
_INFO_BYTES, _INFO_NAME = 80, 64  # struct bpf_prog_info up to its field `name`, which is the last of these
_NAME: Final = b"containerlib"

_KIND_NUMBER: Final = {"b": 1, "c": 2}
_ACCESS_BIT: Final = {"m": 1, "r": 2, "w": 4}

_R0, _R1, _KIND, _WANTED, _MAJOR, _MINOR = range(6)
_INSTRUCTION: Final = struct.Struct("<BBhi")

_Code = list[tuple[int, int, int, int, int]]  # opcode, destination, source, offset, constant


def compile_bpf(rules: Sequence[DeviceRule]) -> bytes:
    """Translate rules into a program of type ``BPF_PROG_TYPE_CGROUP_DEVICE``.

    The rules are tested in reverse; an allowing rule ticks off its kinds of access from those still wanted,
    and a denying rule that meets a wanted one ends in refusal.

    Source: struct bpf_cgroup_dev_ctx in linux/bpf.h.
    """
    code: _Code = [
        (_LOAD_WORD, _KIND, _R1, 0, 0),  # access_type: access << 16 | kind
        (_MOVE_32_REGISTER, _WANTED, _KIND, 0, 0),
        (_AND_32_CONSTANT, _KIND, 0, 0, 0xFFFF),
        (_SHIFT_RIGHT_32_CONSTANT, _WANTED, 0, 0, 16),
        (_LOAD_WORD, _MAJOR, _R1, 4, 0),
        (_LOAD_WORD, _MINOR, _R1, 8, 0),
    ]
    for rule in _relevant(rules):
        code += _compile_rule(rule)
    code += _verdict(allow=False)
    return b"".join(_encode(*instruction) for instruction in code)


def _relevant(rules: Sequence[DeviceRule]) -> Iterable[DeviceRule]:
    """Yield the rules last first, up to the one that makes all earlier ones void."""
    for rule in reversed(rules):
        yield rule
        if rule.is_total:
            return


def _verdict(*, allow: bool) -> _Code:
    return [(_MOVE_32_CONSTANT, _R0, 0, 0, int(allow)), (_EXIT, 0, 0, 0, 0)]


def _compile_rule(rule: DeviceRule) -> _Code:
    bits = sum(_ACCESS_BIT[letter] for letter in set(rule.access))
    if rule.allow:
        body: _Code = [
            (_AND_32_CONSTANT, _WANTED, 0, 0, ~bits),
            (_JUMP_IF_NOT_EQUAL_32, _WANTED, 0, 2, 0),
            *_verdict(allow=True),
        ]
    else:
        body = [
            (_MOVE_32_REGISTER, _R1, _WANTED, 0, 0),
            (_AND_32_CONSTANT, _R1, 0, 0, bits),
            (_JUMP_IF_EQUAL_32, _R1, 0, 2, 0),
            *_verdict(allow=False),
        ]
    tests: list[tuple[int, int]] = []
    if rule.kind != "a":
        tests.append((_KIND, _KIND_NUMBER[rule.kind]))
    if rule.major is not None:
        tests.append((_MAJOR, rule.major))
    if rule.minor is not None:
        tests.append((_MINOR, rule.minor))
    for register, value in reversed(tests):
        body.insert(0, (_JUMP_IF_NOT_EQUAL_32, register, 0, len(body), value))
    return body


def _encode(opcode: int, destination: int, source: int, offset: int, constant: int) -> bytes:
    # Device numbers are unsigned and masks negative; the field is 32 signed bits.
    signed = (constant + 2**31) % 2**32 - 2**31
    return _INSTRUCTION.pack(opcode, source << 4 | destination, offset, signed)


def load_and_attach(cgroup_fd: int, program: bytes, *, bpf_syscall: BpfSyscall | None = None) -> None:
    """Load a program and attach it to a cgroup of version 2, for that cgroup and everything below.

    A program of a parent stays in force: an access needs the consent of all. One of ours that is attached to
    this cgroup is replaced, in one step, so that there is no moment without either. The attachment ends with
    the cgroup; nothing else has to be kept.

    Args:
        cgroup_fd: The directory, opened for reading (not ``O_PATH``).
        program: From `compile_bpf`.
        bpf_syscall: Makes the system call; the C library's `syscall` by default.

    Raises:
        CgroupError: The kernel refused; `errno` is ``EPERM`` without ``CAP_BPF`` or ``CAP_SYS_ADMIN`` in the
            initial user namespace.
    """
    bpf = bpf_syscall or _bpf
    code, licence = array("B", program), array("B", b"Apache-2.0\0")
    attr = struct.pack(
        "=IIQQIIQII16s",
        _TYPE_CGROUP_DEVICE,
        len(program) // _INSTRUCTION.size,
        code.buffer_info()[0],
        licence.buffer_info()[0],
        0,
        0,
        0,
        0,
        0,
        _NAME,
    )
    step = "load"
    try:
        program_fd = bpf(_PROG_LOAD, attr)
        step = "attach"
        try:
            _attach(cgroup_fd, program_fd, bpf)
        finally:
            os.close(program_fd)
    except OSError as error:
        refused = CgroupError(
            f"cannot {step} the device program: {error.strerror}", controller="devices", path="bpf"
        )
        refused.errno = error.errno
        raise refused from error


def _attach(cgroup_fd: int, program_fd: int, bpf: BpfSyscall) -> None:
    old = None
    # To look takes rights over networks as well, without which there is one program more.
    with contextlib.suppress(OSError):
        old = _find_own(cgroup_fd, bpf)
    flags = _ALLOW_MULTI if old is None else _ALLOW_MULTI | _REPLACE
    attr = struct.pack("=IIIII", cgroup_fd, program_fd, _ATTACH_CGROUP_DEVICE, flags, old or 0)
    try:
        bpf(_PROG_ATTACH, attr)
    finally:
        if old is not None:
            os.close(old)


def _find_own(cgroup_fd: int, bpf: BpfSyscall) -> int | None:
    """Open the program of ours that is attached to a cgroup; the caller closes it.

    Source: linux/bpf.h, BPF_PROG_QUERY and struct bpf_prog_info.
    """
    ids = array("I", bytes(4 * _MOST_PROGRAMS))
    query = struct.pack("=IIIIQII", cgroup_fd, _ATTACH_CGROUP_DEVICE, 0, 0, ids.buffer_info()[0], len(ids), 0)
    bpf(_PROG_QUERY, query)
    for number in filter(None, ids):
        fd = bpf(_PROG_GET_FD_BY_ID, struct.pack("=III", number, 0, 0))
        is_own = False
        try:
            info = array("B", bytes(_INFO_BYTES))
            bpf(_GET_INFO_BY_FD, struct.pack("=IIQ", fd, len(info), info.buffer_info()[0]))
            is_own = info.tobytes()[_INFO_NAME:].rstrip(b"\0") == _NAME
        finally:
            if not is_own:
                os.close(fd)
        if is_own:
            return fd
    return None


def _bpf(command: int, attr: bytes) -> int:
    """Call bpf(2), for which neither Python nor the C library has a function."""
    import ctypes  # noqa: PLC0415 (slow to import, and only hosts with pure cgroup v2 come here)

    number = 280 if platform.machine() == "aarch64" else 321
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    # The kernel writes into some of them.
    memory = ctypes.create_string_buffer(attr, len(attr))
    result = libc.syscall(ctypes.c_long(number), ctypes.c_int(command), memory, ctypes.c_uint(len(attr)))
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return int(result)
