"""Turns a `NativeSpec` into the flat message of csrc/ctr.h. The only module that builds C structures."""

from __future__ import annotations

import os
from array import array
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from containerlib._native.ffi import ffi, lib

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from containerlib._native.spec import NativeFixed, NativeSpec

__all__ = ["encode"]

_ALIGNMENT = 8
_HEAD_SIZE = ffi.sizeof("struct ctr_spec")
_FIXED = ("root_options", "scratch_options", "readonly_paths", "masked_paths")


class _Writer:
    """Grows one buffer; every structure and string in it is referred to by its offset."""

    def __init__(self, start: bytes = bytes(_HEAD_SIZE), offsets: Mapping[str, int] | None = None) -> None:
        self.buffer = bytearray(start)
        self.offsets: dict[str, int] = dict(offsets or ())

    def text(self, value: str | None) -> int:
        """Offset of `value` as a terminated string; 0 for None. The same text is stored once."""
        if value is None:
            return 0
        offset = self.offsets.get(value)
        if offset is None:
            encoded = os.fsencode(value)
            if 0 in encoded:
                raise ValueError(f"embedded NUL in {value!r}")
            offset = self.offsets[value] = len(self.buffer)
            self.buffer += encoded + b"\0"
        return offset

    def block(self, data: Any) -> int:
        """Offset of `data`, aligned for every C type."""
        self.buffer += bytes(-len(self.buffer) % _ALIGNMENT)
        offset = len(self.buffer)
        self.buffer += data
        return offset

    def data(self, value: bytes) -> tuple[int, int]:
        """An array of bytes."""
        return (self.block(value), len(value)) if value else (0, 0)

    def words(self, values: Sequence[int]) -> tuple[int, int]:
        """An array of 32-bit words."""
        return (self.block(array("I", values).tobytes()), len(values)) if values else (0, 0)

    def texts(self, values: Iterable[str]) -> tuple[int, int]:
        """An array of strings."""
        return self.words([self.text(value) for value in values])

    def structures(self, structures: Any, count: int) -> tuple[int, int]:
        """An array of C structures."""
        return (self.block(ffi.buffer(structures)), count) if count else (0, 0)


def _mounts(writer: _Writer, spec: NativeFixed, first_fd: int) -> tuple[int, int]:
    rows = ffi.new("struct ctr_mount[]", len(spec.mounts))
    for row, mount in zip(rows, spec.mounts, strict=True):
        row.kind = mount.kind
        row.flags = mount.flags
        row.source = writer.text(mount.source)
        row.target = writer.text(mount.target)
        row.type = writer.text(mount.type)
        row.options = writer.texts(mount.options)
        row.attributes = mount.attributes
        row.propagation = mount.propagation
        row.fd = first_fd + mount.fd if mount.fd >= 0 else -1
        row.device = mount.device
        row.inode = mount.inode
    return writer.structures(rows, len(spec.mounts))


def _nodes(writer: _Writer, spec: NativeFixed) -> tuple[int, int]:
    rows = ffi.new("struct ctr_node[]", len(spec.nodes))
    for row, node in zip(rows, spec.nodes, strict=True):
        row.kind = node.kind
        row.name = writer.text(node.name)
        row.target = writer.text(node.target)
        row.mode = node.mode
        row.major = node.major
        row.minor = node.minor
        row.uid = node.uid
        row.gid = node.gid
    return writer.structures(rows, len(spec.nodes))


def _files(writer: _Writer, spec: NativeSpec) -> tuple[int, int]:
    rows = ffi.new("struct ctr_file[]", len(spec.files))
    for row, file in zip(rows, spec.files, strict=True):
        row.target = writer.text(file.target)
        row.mode = file.mode
        row.content = writer.data(file.content)
    return writer.structures(rows, len(spec.files))


def _pairs(writer: _Writer, spec: NativeFixed) -> tuple[int, int]:
    rows = ffi.new("struct ctr_pair[]", len(spec.sysctls))
    for row, (key, value) in zip(rows, spec.sysctls, strict=True):
        row.key = writer.text(key)
        row.value = writer.text(value)
    return writer.structures(rows, len(spec.sysctls))


def _rlimits(writer: _Writer, spec: NativeFixed) -> tuple[int, int]:
    rows = ffi.new("struct ctr_rlimit[]", len(spec.rlimits))
    for row, limit in zip(rows, spec.rlimits, strict=True):
        row.resource = limit.resource
        row.soft = limit.soft
        row.hard = limit.hard
    return writer.structures(rows, len(spec.rlimits))


class _FixedBytes(NamedTuple):
    """The beginning of a message: a blank head, the fixed arrays, and where its arrays and strings lie."""

    data: bytes
    offsets: dict[str, int]
    arrays: dict[str, tuple[int, int]]


@lru_cache(maxsize=64)
def _encode_fixed(fixed: NativeFixed, first_mount_fd: int) -> _FixedBytes:
    writer = _Writer()
    arrays = {name: writer.texts(getattr(fixed, name)) for name in _FIXED}
    arrays["mounts"] = _mounts(writer, fixed, first_mount_fd)
    arrays["nodes"] = _nodes(writer, fixed)
    arrays["sysctls"] = _pairs(writer, fixed)
    arrays["rlimits"] = _rlimits(writer, fixed)
    if fixed.seccomp:
        arrays["seccomp"] = (writer.block(fixed.seccomp), len(fixed.seccomp) // 8)
    return _FixedBytes(bytes(writer.buffer), writer.offsets, arrays)


def _fill_arrays(writer: _Writer, head: Any, spec: NativeSpec, fixed: _FixedBytes) -> None:
    for name, array_of in fixed.arrays.items():
        setattr(head, name, array_of)
    head.root_lowers = writer.texts(spec.root_lowers)
    head.files = _files(writer, spec)
    head.groups = writer.words(spec.groups)
    head.args = writer.texts(spec.args)
    head.env = writer.texts(spec.env)
    head.programs = writer.texts(spec.programs)
    head.scheduler = writer.data(spec.scheduler)
    head.affinity = writer.data(spec.affinity)


def _fill_scalars(writer: _Writer, head: Any, spec: NativeSpec) -> None:
    head.magic = lib.CTR_MAGIC
    head.version = lib.CTR_VERSION
    head.flags = spec.flags
    head.namespaces = spec.namespaces
    head.staging = writer.text(spec.staging)
    head.root_source = writer.text(spec.root_source)
    head.root_upper = writer.text(spec.root_upper)
    head.root_work = writer.text(spec.root_work)
    head.hostname = writer.text(spec.hostname)
    head.domainname = writer.text(spec.domainname)
    head.workdir = writer.text(spec.workdir)
    head.bounding = spec.bounding
    head.permitted = spec.permitted
    head.effective = spec.effective
    head.inheritable = spec.inheritable
    head.ambient = spec.ambient
    head.uid = spec.uid
    head.gid = spec.gid
    head.umask = spec.umask
    head.oom_score_adj = spec.oom_score_adj
    head.console_rows = spec.console_rows
    head.console_columns = spec.console_columns
    head.root_propagation = spec.root_propagation
    head.time_offsets = writer.text(spec.time_offsets)
    head.seccomp_flags = spec.seccomp_flags
    head.apparmor = writer.text(spec.apparmor)
    for value, name, flag in (
        (spec.io_priority, "io_priority", lib.CTR_SPEC_IO_PRIORITY),
        (spec.personality, "personality", lib.CTR_SPEC_PERSONALITY),
    ):
        if value is not None:
            setattr(head, name, value)
            head.flags |= flag
    head.fault_action, head.fault_step, head.fault_errno, head.fault_index = spec.fault


def encode(
    spec: NativeSpec, *, join_count: int, cgroup_fd: bool, namespace_count: int = 0, kept_count: int = 0
) -> bytes:
    """The message for `spec`.

    Args:
        spec: What to start. Texts must hold no NUL; the makers of a spec have checked that.
        join_count: Number of cgroup descriptors that follow the fixed ones.
        cgroup_fd: Whether a cgroup2 directory descriptor follows those. Those of mounts come then.
        namespace_count: Number of namespaces to join, whose descriptors come behind those of mounts.
        kept_count: Number of descriptors for the command, which come behind those.

    Raises:
        ValueError: A text holds a NUL.
    """
    fixed = _encode_fixed(spec.fixed, lib.CTR_FD_FIRST_FREE + join_count + int(cgroup_fd))
    writer = _Writer(fixed.data, fixed.offsets)
    head = ffi.new("struct ctr_spec *")
    _fill_scalars(writer, head, spec)
    _fill_arrays(writer, head, spec, fixed)
    head.join_count = join_count
    head.namespace_count = namespace_count
    head.kept_count = kept_count
    head.cgroup_fd = lib.CTR_FD_FIRST_FREE + join_count if cgroup_fd else -1
    if cgroup_fd:
        head.flags |= lib.CTR_SPEC_CGROUP_FD
    writer.buffer.append(0)
    head.size = len(writer.buffer)
    writer.buffer[:_HEAD_SIZE] = ffi.buffer(head)
    return bytes(writer.buffer)
