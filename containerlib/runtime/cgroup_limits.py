"""Translation of `Resources` into files of control groups, controller by controller, for both versions.

Knows file names, units and formulas; opens nothing but device nodes, for their numbers. In: `Resources` and a
`HostLimits` that says which version each controller has. Out: `Setting` values in the order of writing.
"""

from __future__ import annotations

import math
import os
import re
import stat
from typing import TYPE_CHECKING, Final, Literal, Protocol

from attrs import field, frozen

from containerlib.errors import InvalidOption, UnsupportedHost
from containerlib.options import DEFAULT_PIDS, UNLIMITED

if TYPE_CHECKING:
    from collections.abc import Iterator

    from containerlib.options import Resources

__all__ = [
    "HostLimits",
    "Setting",
    "asked_controllers",
    "check_against_host",
    "io_weight_from_blkio",
    "parse_cpu_list",
    "translate",
    "weight_from_shares",
]

Version = Literal[1, 2]

DEFAULT_PERIOD_US: Final = 100_000
_LARGEST_CPU: Final = 65535


@frozen
class Setting:
    """One write into one file.

    Attributes:
        controller: Name as in `Resources`: memory, pids, cpu, cpuset or io.
        file: Name of the file.
        value: What is written.
        reset: What takes the limit away again; empty for what the parent has, `None` if nothing can.
        option: Field of `Resources` that asked for it.
    """

    controller: str
    file: str
    value: str
    reset: str | None
    option: str = field(eq=False)


class HostLimits(Protocol):
    """What a translation has to know of the host."""

    def version(self, controller: str) -> Version | None:
        """Return the version under which a controller can be used, `None` if it cannot."""

    def has_file(self, controller: str, file: str) -> bool:
        """Whether a cgroup of this controller has this file."""


def asked_controllers(resources: Resources) -> list[tuple[str, str]]:
    """Return the controllers that the caller asked for, with the first option that needs each.

    The default number of processes is a precaution and counts as not asked for.
    """
    needs: dict[str, str] = {}
    for controller, options in _OPTIONS.items():
        for option in options:
            if getattr(resources, option) not in (None, ()):
                needs.setdefault(controller, option)
    if resources.pids in (DEFAULT_PIDS, UNLIMITED):
        needs.pop("pids", None)
    for file in resources.unified:
        needs.setdefault(file.partition(".")[0], "unified")
    return list(needs.items())


_OPTIONS: Final = {
    "memory": ("memory_bytes", "memory_swap_bytes", "memory_reservation_bytes"),
    "pids": ("pids",),
    "cpu": ("cpus", "cpu_shares", "cpu_quota_us", "cpu_period_us"),
    "cpuset": ("cpuset_cpus", "cpuset_mems"),
    "io": ("io_weight", "device_read_bps", "device_write_bps", "device_read_iops", "device_write_iops"),
}


def check_against_host(resources: Resources, *, cpu_count: int, cpus: str | None, mems: str | None) -> None:
    """Refuse what no cgroup of this host could grant.

    Args:
        resources: The limits.
        cpu_count: Number of processors of the host.
        cpus: Processors that may be given away, as a list such as ``"0-3"``; `None` if unknown.
        mems: Memory nodes, likewise.

    Raises:
        InvalidOption: More processors than there are, or absent processors or nodes.
    """
    if resources.cpus is not None and resources.cpus > cpu_count:
        raise InvalidOption(
            "cpus", resources.cpus, f"give 0.01 to {cpu_count}; this host has no more processors"
        )
    for option, text, present in (
        ("cpuset_cpus", resources.cpuset_cpus, cpus),
        ("cpuset_mems", resources.cpuset_mems, mems),
    ):
        if text is None:
            continue
        wanted = parse_cpu_list(option, text)
        if present and not wanted <= parse_cpu_list(option, present):
            raise InvalidOption(option, text, f"choose from {present}, which is all there is")


def parse_cpu_list(option: str, text: str) -> frozenset[int]:
    """Parse the kernel's list format, such as ``"0-2,4"``.

    Raises:
        InvalidOption: The text is empty or malformed.
    """
    numbers: set[int] = set()
    for part in text.strip().split(","):
        match = re.fullmatch(r"([0-9]{1,5})(?:-([0-9]{1,5}))?", part)
        low, high = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if low > high or high > _LARGEST_CPU:
            raise InvalidOption(option, text, "write numbers and ranges, such as '0-2,4'")
        numbers.update(range(low, high + 1))
    return frozenset(numbers)


def translate(resources: Resources, host: HostLimits) -> tuple[Setting, ...]:
    """Return everything that has to be written for `resources`, in order.

    Controllers that the host cannot use are left out; whether that is allowed is the caller's decision
    (`asked_controllers`).

    Raises:
        UnsupportedHost: A file is missing, such as that for swap.
        InvalidOption: A device path is not a block device.
    """
    settings: list[Setting] = []
    for controller, (first, second) in _TRANSLATIONS.items():
        version = host.version(controller)
        if version is not None:
            settings += (first if version == 1 else second)(resources, host)
    settings += _unified(resources, host)
    return tuple(settings)


def weight_from_shares(shares: int) -> int:
    """Convert ``cpu.shares`` to ``cpu.weight``: 2 to 1, 1024 to 100, 262144 to 10000.

    Source: crun 1.23 and runc 1.3.2, which replaced the linear formula that made 39 of 1024.
    """
    exponent = math.log2(shares)
    return min(10000, max(1, math.ceil(10 ** ((exponent**2 + 125 * exponent) / 612 - 7 / 34))))


def io_weight_from_blkio(weight: int) -> int:
    """Convert a ``blkio.weight`` of 10 to 1000 to an ``io.weight`` of 1 to 10000, as crun and runc do."""
    return 1 + (weight - 10) * 9999 // 990


def _text(limit: int, unlimited: str) -> str:
    return unlimited if limit == UNLIMITED else str(limit)


def _swap_total(resources: Resources) -> int | None:
    """Return memory and swap together; Docker's rule is twice the memory if only that is given."""
    if resources.memory_swap_bytes is not None or resources.memory_bytes is None:
        return resources.memory_swap_bytes
    return 2 * resources.memory_bytes


def _missing_file(option: str, value: object, file: str, remedy: str) -> UnsupportedHost:
    return UnsupportedHost(
        f"{option}={value!r}", needed=f"the cgroup file {file}", found=f"no such file; {remedy}"
    )


def _require_swap(resources: Resources, file: str) -> None:
    if resources.memory_swap_bytes is not None:
        raise _missing_file(
            "memory_swap_bytes",
            resources.memory_swap_bytes,
            file,
            "boot with swapaccount=1, or leave the option out",
        )


def _memory_v1(resources: Resources, host: HostLimits) -> Iterator[Setting]:
    if resources.memory_bytes is not None:
        yield Setting("memory", "memory.limit_in_bytes", str(resources.memory_bytes), "-1", "memory_bytes")
    total, file = _swap_total(resources), "memory.memsw.limit_in_bytes"
    if total is not None:
        if host.has_file("memory", file):
            yield Setting("memory", file, str(total), "-1", "memory_swap_bytes")
        else:
            _require_swap(resources, file)
    if resources.memory_reservation_bytes is not None:
        value = str(resources.memory_reservation_bytes)
        yield Setting("memory", "memory.soft_limit_in_bytes", value, "-1", "memory_reservation_bytes")


def _memory_v2(resources: Resources, host: HostLimits) -> Iterator[Setting]:
    if resources.memory_bytes is not None:
        yield Setting("memory", "memory.max", str(resources.memory_bytes), "max", "memory_bytes")
    total, file = _swap_total(resources), "memory.swap.max"
    if total is not None:
        if host.has_file("memory", file):
            swap = total if total == UNLIMITED else total - (resources.memory_bytes or 0)
            yield Setting("memory", file, _text(swap, "max"), "max", "memory_swap_bytes")
        else:
            _require_swap(resources, file)
    if resources.memory_reservation_bytes is not None:
        value = str(resources.memory_reservation_bytes)
        yield Setting("memory", "memory.low", value, "0", "memory_reservation_bytes")


def _pids(resources: Resources, _host: HostLimits) -> Iterator[Setting]:
    if resources.pids not in (None, UNLIMITED):
        yield Setting("pids", "pids.max", str(resources.pids), "max", "pids")


def _quota_and_period(resources: Resources) -> tuple[int | None, int | None, str]:
    if resources.cpus is not None:
        return round(resources.cpus * DEFAULT_PERIOD_US), DEFAULT_PERIOD_US, "cpus"
    option = "cpu_period_us" if resources.cpu_quota_us is None else "cpu_quota_us"
    return resources.cpu_quota_us, resources.cpu_period_us, option


def _cpu_v1(resources: Resources, _host: HostLimits) -> Iterator[Setting]:
    if resources.cpu_shares is not None:
        yield Setting("cpu", "cpu.shares", str(resources.cpu_shares), "1024", "cpu_shares")
    quota, period, option = _quota_and_period(resources)
    if period is not None:
        yield Setting("cpu", "cpu.cfs_period_us", str(period), str(DEFAULT_PERIOD_US), option)
    if quota is not None:
        yield Setting("cpu", "cpu.cfs_quota_us", str(quota), "-1", option)


def _cpu_v2(resources: Resources, _host: HostLimits) -> Iterator[Setting]:
    if resources.cpu_shares is not None:
        yield Setting("cpu", "cpu.weight", str(weight_from_shares(resources.cpu_shares)), "100", "cpu_shares")
    quota, period, option = _quota_and_period(resources)
    if quota is not None or period is not None:
        limit = "max" if quota in (None, UNLIMITED) else str(quota)
        value = f"{limit} {period or DEFAULT_PERIOD_US}"
        yield Setting("cpu", "cpu.max", value, f"max {DEFAULT_PERIOD_US}", option)


def _cpuset(resources: Resources, _host: HostLimits) -> Iterator[Setting]:
    if resources.cpuset_cpus is not None:
        yield Setting("cpuset", "cpuset.cpus", resources.cpuset_cpus, "", "cpuset_cpus")
    if resources.cpuset_mems is not None:
        yield Setting("cpuset", "cpuset.mems", resources.cpuset_mems, "", "cpuset_mems")


def _io_v1(resources: Resources, host: HostLimits) -> Iterator[Setting]:
    weight = resources.io_weight
    if weight is not None:
        file = next((f for f in ("blkio.weight", "blkio.bfq.weight") if host.has_file("io", f)), None)
        if file is None:
            raise _missing_file("io_weight", weight, "blkio.bfq.weight", "use the I/O scheduler bfq")
        yield Setting("io", file, str(weight), "500" if file == "blkio.weight" else "100", "io_weight")
    for option, file, _ in _RATES:
        for path, rate in getattr(resources, option):
            device = _device_number(option, path)
            yield Setting("io", f"blkio.throttle.{file}", f"{device} {rate}", f"{device} 0", option)


def _io_v2(resources: Resources, host: HostLimits) -> Iterator[Setting]:
    weight = resources.io_weight
    if weight is not None:
        if host.has_file("io", "io.bfq.weight"):
            yield Setting("io", "io.bfq.weight", str(weight), "100", "io_weight")
        elif host.has_file("io", "io.weight"):
            yield Setting("io", "io.weight", str(io_weight_from_blkio(weight)), "100", "io_weight")
        else:
            raise _missing_file("io_weight", weight, "io.weight", "use the I/O scheduler bfq or iocost")
    for option, _, key in _RATES:
        for path, rate in getattr(resources, option):
            device = _device_number(option, path)
            yield Setting("io", "io.max", f"{device} {key}={rate}", f"{device} {key}=max", option)


_RATES: Final = (
    ("device_read_bps", "read_bps_device", "rbps"),
    ("device_write_bps", "write_bps_device", "wbps"),
    ("device_read_iops", "read_iops_device", "riops"),
    ("device_write_iops", "write_iops_device", "wiops"),
)


def _device_number(option: str, path: str) -> str:
    try:
        status = os.stat(path)
    except OSError as error:
        raise InvalidOption(option, path, f"{error.strerror}; give the path of a block device") from error
    if not stat.S_ISBLK(status.st_mode):
        raise InvalidOption(option, path, "this is not a block device")
    return f"{os.major(status.st_rdev)}:{os.minor(status.st_rdev)}"


def _unified(resources: Resources, host: HostLimits) -> Iterator[Setting]:
    """Pass the caller's own files through, one write per line as multi-line files need it."""
    for file, text in resources.unified.items():
        controller = file.partition(".")[0]
        if host.version(controller) != 2:  # noqa: PLR2004 (a version)
            raise UnsupportedHost(
                f"unified={{{file!r}: ...}}",
                needed=f"the controller {controller!r} on cgroup v2",
                found="it on cgroup v1" if host.version(controller) else "none that is usable",
            )
        if not host.has_file(controller, file):
            raise _missing_file("unified", {file: text}, file, "check its name and the version of the kernel")
        for line in text.splitlines():
            yield Setting(controller, file, line, None, "unified")


_TRANSLATIONS: Final = {
    "memory": (_memory_v1, _memory_v2),
    "pids": (_pids, _pids),
    "cpu": (_cpu_v1, _cpu_v2),
    "cpuset": (_cpuset, _cpuset),
    "io": (_io_v1, _io_v2),
}
