"""A start request that uses every part of the message, for tests that damage it."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from containerlib._native.spec import NativeSpec

__all__ = ["BOUNDARIES", "full_spec", "overwritten", "with_word"]

BOUNDARIES = (0, 1, 0x7FFFFFFF, 0xFFFFFFFF)
"""Values that break sums and comparisons; the size of the message and its neighbours come on top."""

_WORD = 4


def full_spec() -> NativeSpec:
    """Return a request in which no array is empty and no text is missing.

    It can be checked, but not started: its directories do not exist.
    """
    from containerlib._native.ffi import lib  # noqa: PLC0415 - unit tests have no compiled extension
    from containerlib._native.spec import (  # noqa: PLC0415
        NativeFile,
        NativeFixed,
        NativeMount,
        NativeNode,
        NativeRlimit,
        NativeSpec,
    )

    fixed = NativeFixed(
        root_options=("volatile",),
        scratch_options=("mode=0755", "size=4096"),
        mounts=(
            NativeMount(
                kind=lib.CTR_MOUNT_FILESYSTEM, target="/t", type="tmpfs", options=("mode=755", "size=1")
            ),
            NativeMount(kind=lib.CTR_MOUNT_BIND, target="/b", source="/clt-missing", device=1, inode=2),
            NativeMount(kind=lib.CTR_MOUNT_BIND, target="/c", fd=0),
        ),
        nodes=(
            NativeNode(kind=lib.CTR_NODE_CHAR, name="null", mode=0o666, major=1, minor=3),
            NativeNode(kind=lib.CTR_NODE_SYMLINK, name="fd", target="/proc/self/fd"),
        ),
        sysctls=(("net/a", "0"), ("net/b", "1")),
        readonly_paths=("proc/bus",),
        masked_paths=("proc/keys", "proc/kcore"),
        rlimits=(NativeRlimit(resource=7, soft=1024, hard=1024),),
        seccomp=bytes(24),
    )
    return NativeSpec(
        fixed=fixed,
        flags=0,
        namespaces=0x00020000 | 0x20000000,
        staging="/clt-missing/s",
        root_source="/clt-missing/r",
        root_upper="/clt-missing/u",
        root_work="/clt-missing/w",
        root_lowers=("/clt-missing/l1", "/clt-missing/l2"),
        files=(NativeFile(target="/etc/hosts", content=b"hosts\n"), NativeFile(target="/e", content=b"")),
        groups=(0, 5),
        args=("true", "x"),
        env=("PATH=/bin", "A=b"),
        programs=("/bin/true",),
        hostname="h",
        domainname="d",
        workdir="/",
        bounding=1,
        permitted=1,
        effective=1,
        uid=0,
        gid=0,
    )


def with_word(message: bytes, offset: int, value: int) -> bytes:
    """Return the message with the 32-bit word at `offset` replaced."""
    return message[:offset] + struct.pack("=I", value & 0xFFFFFFFF) + message[offset + _WORD :]


def overwritten(message: bytes) -> Iterator[bytes]:
    """Yield the message with each of its words replaced by each boundary value."""
    values = (*BOUNDARIES, len(message) - 1, len(message), len(message) + 1)
    for offset in range(0, len(message) - _WORD + 1, _WORD):
        for value in values:
            yield with_word(message, offset, value)
