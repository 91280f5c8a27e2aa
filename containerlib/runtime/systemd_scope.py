"""The scope of one container on a host that systemd runs, as an OCI configuration names and limits it.

Limits are written into the files of the group as well; systemd is told of them, or it would take them back
whenever it reads its units anew. In: ``linux.cgroupsPath``, ``linux.resources``, annotations. Out: a
`PathCgroup`, and what `systemd.start_scope` takes.

Source: systemd.resource-control(5), org.freedesktop.systemd1(5); runc, docs/systemd.md.
"""

from __future__ import annotations

import contextlib
import os
import re
from typing import TYPE_CHECKING, Any, Final

from attrs import evolve, frozen

from containerlib._native.creator import Creator
from containerlib.errors import CgroupError, InvalidOption, OperationTimeout, UnsupportedHost
from containerlib.runtime import systemd
from containerlib.runtime.cgroup_limits import io_weight_from_blkio, weight_from_shares
from containerlib.runtime.cgroup_path import PathCgroup, Tree
from containerlib.runtime.cgroup_resources import number_of
from containerlib.runtime.identity import pid_of
from containerlib.runtime.scheduling import processors, processors_mask

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from containerlib.runtime.cgroup_host import CgroupHost

__all__ = ["Scope", "properties_of"]

Properties = dict[str, tuple[str, Any]]

_DEFAULT_SLICE: Final = "system.slice"
_PARTS: Final = 3
_UNIT: Final = re.compile(r"[A-Za-z0-9:_.\\@-]{1,255}")
_UNLIMITED: Final = 2**64 - 1
_SECOND_US: Final = 1_000_000
_PERCENT_US: Final = 10_000
_PERIOD_US: Final = 100_000
_ANNOTATION: Final = "org.systemd.property."


@frozen
class Scope:
    """A unit, and the slice that it goes into."""

    unit: str
    slice_name: str

    @classmethod
    def parse(cls, path: str, container_id: str) -> Scope:
        """Read ``linux.cgroupsPath`` in systemd's form, ``slice:prefix:name``.

        Raises:
            InvalidOption: It has another form, or names what is no scope.
        """
        parts = path.split(":") if path else [_DEFAULT_SLICE, "containerlib", container_id]
        if len(parts) != _PARTS or not parts[2]:
            raise InvalidOption("linux.cgroupsPath", path, "give slice:prefix:name, or do without systemd")
        slice_name, prefix, name = parts
        slice_name = slice_name or _DEFAULT_SLICE
        unit = f"{prefix}-{name}.scope" if prefix else f"{name}.scope"
        if name.endswith(".slice") or not slice_name.endswith(".slice") or "--" in slice_name:
            raise InvalidOption(
                "linux.cgroupsPath", path, "a container is a scope in a slice such as a-b.slice"
            )
        if not _UNIT.fullmatch(unit) or not _UNIT.fullmatch(slice_name):
            raise InvalidOption("linux.cgroupsPath", path, "has characters that no unit's name may have")
        return cls(unit, slice_name)

    @property
    def path(self) -> str:
        """Where the group is, from the top: a slice lies in the one whose name ends a dash earlier."""
        words = self.slice_name.removesuffix(".slice").strip("-").split("-")
        slices = ["-".join(words[: end + 1]) + ".slice" for end in range(len(words)) if words[0]]
        return "/".join(["", *slices, self.unit])

    def locate(self, host: CgroupHost) -> PathCgroup:
        """Say where the group is to be. Makes nothing.

        Raises:
            UnsupportedHost: systemd does not run this host, or not with version 2 alone.
        """
        problem = systemd.find_problem() or (
            None if host.mode == "v2" else f"control groups of mode {host.mode!r}"
        )
        if problem is not None or host.unified is None:
            raise UnsupportedHost(
                "--systemd-cgroup",
                needed="systemd as the first process and cgroup v2 alone",
                found=f"something else: {problem}",
            )
        mount_point = host.unified.mount_point
        return PathCgroup((Tree(2, (), mount_point, f"{mount_point.rstrip('/')}{self.path}"),))

    @contextlib.contextmanager
    def made(self, cgroup: PathCgroup, container_id: str, properties: Properties) -> Iterator[PathCgroup]:
        """Have systemd make it, around a process of ours that is in it as long as the block lasts.

        Once nothing is in it any more systemd takes it away.

        Args:
            cgroup: From `locate`.
            container_id: For the description.
            properties: From `properties_of`.

        Raises:
            CgroupError: There is such a unit already, or systemd has refused.
            OperationTimeout: It did not answer in time.

        Cost: a process and a job of systemd's, some milliseconds.
        """
        holder = Creator()
        try:
            pid = pid_of(holder.pidfd)
            if pid is None:
                raise CgroupError(f"there is no process for {self.unit}", controller="", path=self.path)
            systemd.start_scope(
                self.unit,
                pid,
                slice_name=self.slice_name,
                description=f"Container {container_id}",
                properties=properties,
            )
            try:
                yield _with_controllers(cgroup, pid)
            except BaseException:
                # It might not notice that a group has become empty when that is removed so soon.
                holder.close()
                with contextlib.suppress(CgroupError, OperationTimeout):
                    systemd.stop_unit(self.unit, is_gone=cgroup.is_gone)
                raise
        finally:
            holder.close()


def _with_controllers(cgroup: PathCgroup, pid: int) -> PathCgroup:
    """What systemd has made, if it is where it should be."""
    (tree,) = cgroup.trees
    with open(f"/proc/{pid}/cgroup", encoding="utf-8", errors="surrogateescape") as file:
        found = next(line.rstrip("\n")[3:] for line in file if line.startswith("0::"))
    if os.path.normpath(f"{tree.mount_point}/{found}") != tree.path:
        raise CgroupError(f"systemd has put process {pid} into {found!r}", controller="", path=tree.path)
    with open(f"{tree.path}/cgroup.controllers", encoding="ascii") as file:
        return PathCgroup((evolve(tree, names=tuple(file.read().split())),))


def properties_of(resources: Mapping[str, Any], annotations: Mapping[str, str]) -> Properties:
    """What systemd is told of ``linux.resources``, and of annotations that are meant for it.

    Raises:
        InvalidOption: A value has another form.
    """
    memory, cpu, pids, block_io = (_block(resources, name) for name in ("memory", "cpu", "pids", "blockIO"))
    limits = {
        "MemoryMax": number_of(memory, "limit", "memory"),
        "MemoryLow": number_of(memory, "reservation", "memory"),
        "MemorySwapMax": _swap(memory),
        "TasksMax": number_of(pids, "limit", "pids"),
    }
    found: Properties = {name: ("t", _limit(value)) for name, value in limits.items() if value}
    shares, weight = number_of(cpu, "shares", "cpu"), number_of(block_io, "weight", "blockIO")
    if shares:
        found["CPUWeight"] = ("t", weight_from_shares(shares))
    if weight:
        found["IOWeight"] = ("t", io_weight_from_blkio(weight))
    found.update(_quota(cpu))
    for key, name in (("cpus", "AllowedCPUs"), ("mems", "AllowedMemoryNodes")):
        if cpu.get(key):
            numbers = processors(str(cpu[key]), f"linux.resources.cpu.{key}")
            found[name] = ("ay", list(processors_mask(numbers).rstrip(b"\0")))
    return found | _annotated(annotations)


def _block(resources: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = resources.get(name) or {}
    if not isinstance(found, dict):
        raise InvalidOption(f"linux.resources.{name}", found, "is of another type than it must be")
    return found


def _limit(value: int) -> int:
    return _UNLIMITED if value < 0 else value


def _swap(memory: Mapping[str, Any]) -> int:
    """Swap alone, out of memory and swap together; 0 for no limit that was asked for."""
    swap, limit = number_of(memory, "swap", "memory"), number_of(memory, "limit", "memory")
    return swap if swap <= 0 else max(swap - limit, 0)


def _quota(cpu: Mapping[str, Any]) -> Properties:
    quota, period = number_of(cpu, "quota", "cpu"), number_of(cpu, "period", "cpu")
    found: Properties = {"CPUQuotaPeriodUSec": ("t", period)} if period else {}
    period = period or _PERIOD_US
    if quota < 0:
        found["CPUQuotaPerSecUSec"] = ("t", _UNLIMITED)
    elif quota:
        # systemd counts in hundredths of a processor.
        hundredths = -(-quota * _SECOND_US // period // _PERCENT_US)
        found["CPUQuotaPerSecUSec"] = ("t", hundredths * _PERCENT_US)
    return found


_NUMBER = re.compile(r"(?:(u?int(?:32|64)) )?(-?[0-9]+)")
_QUOTED = re.compile(r"""'([^'\\]*)'|"([^"\\]*)\"""")
_SIGNATURES: Final = {None: "i", "int32": "i", "uint32": "u", "int64": "x", "uint64": "t"}


def _annotated(annotations: Mapping[str, str]) -> Properties:
    found: Properties = {}
    for key, text in annotations.items():
        name = key.removeprefix(_ANNOTATION)
        if name == key:
            continue
        signature, value = _variant(key, text)
        if name.endswith("Sec") and not name.endswith("USec") and isinstance(value, int):
            # The names of unit files; on the bus there are microseconds only.
            name, signature, value = f"{name.removesuffix('Sec')}USec", "t", value * _SECOND_US
        found[name] = (signature, value)
    return found


def _variant(key: str, text: str) -> tuple[str, Any]:
    """A value in the text form of GVariant: numbers, booleans, texts and lists of texts."""
    text = text.strip()
    number, quoted = _NUMBER.fullmatch(text), _QUOTED.fullmatch(text)
    if text in {"true", "false"}:
        return "b", text == "true"
    if number is not None:
        return _SIGNATURES[number[1]], int(number[2])
    if quoted is not None:
        return "s", quoted[1] or quoted[2] or ""
    items = [_QUOTED.fullmatch(item.strip()) for item in text.removeprefix("[").removesuffix("]").split(",")]
    if text.startswith("[") and text.endswith("]") and all(items):
        return "as", [item[1] or item[2] or "" for item in items if item is not None]
    raise InvalidOption(f"annotations[{key!r}]", text, "is no number, boolean, quoted text or list of these")
