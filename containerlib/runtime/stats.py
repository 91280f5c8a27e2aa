"""What a running container uses: values, and where control groups and /proc have them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Protocol

from attrs import evolve, field, frozen

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from containerlib.runtime.process_table import ProcessInfo

__all__ = ["ContainerStats", "CpuStats", "IoStats", "MemoryStats", "NetworkStats", "PidsStats", "read_stats"]

_NET_DEV_LIMIT = 1 << 20
# What version 1 says where there is no limit: the greatest number of pages.
_NO_LIMIT = 1 << 60


@frozen(kw_only=True)
class CpuStats:
    """Processor time since the start.

    Attributes:
        total_ns: In all.
        user_ns: In user mode; None where that is not told apart.
        system_ns: In the kernel.
        periods: Periods in which a limit could have held it up; None without such a limit.
        throttled_periods: Those in which it did.
        throttled_ns: For how long.
    """

    total_ns: int
    user_ns: int | None = None
    system_ns: int | None = None
    periods: int | None = None
    throttled_periods: int | None = None
    throttled_ns: int | None = None


@frozen(kw_only=True)
class MemoryStats:
    """Memory.

    Attributes:
        usage_bytes: What it has now, page cache included.
        inactive_file_bytes: Page cache that can be taken away at once; None where it is not counted.
        peak_bytes: Most that it has had at one moment.
        limit_bytes: Most that it may have; None without a limit.
        swap_bytes: What of it lies in swap space.
        oom_kills: How many of its processes were killed for lack of memory.
        is_exact: Whether a control group counts it. Otherwise it is the sum of the processes' resident
            memory, in which shared pages count several times.
    """

    usage_bytes: int
    inactive_file_bytes: int | None = None
    peak_bytes: int | None = None
    limit_bytes: int | None = None
    swap_bytes: int | None = None
    oom_kills: int = 0
    is_exact: bool = True

    @property
    def working_set_bytes(self) -> int:
        """What it needs, page cache that can be taken away left out; what ``docker stats`` shows."""
        return max(0, self.usage_bytes - (self.inactive_file_bytes or 0))


@frozen(kw_only=True)
class IoStats:
    """Reads and writes of block devices since the start, of all devices together."""

    read_bytes: int = 0
    write_bytes: int = 0
    reads: int = 0
    writes: int = 0


@frozen(kw_only=True)
class PidsStats:
    """Processes and threads.

    Attributes:
        current: How many there are.
        peak: Most at one moment; None where the host does not count that.
        limit: Most that there may be; None without a limit.
    """

    current: int
    peak: int | None = None
    limit: int | None = None


@frozen(kw_only=True)
class PressureStats:
    """How much of the time something was wanted and not to be had.

    Attributes:
        some_percent: Share of the last 10 seconds in which at least one process waited for it.
        full_percent: Share in which all waited; None where the kernel does not say.
        some_ns: Time in which at least one waited, since the start.
        full_ns: Time in which all did; None where the kernel does not say.

    Source: Documentation/accounting/psi.rst of the kernel.
    """

    some_percent: float
    full_percent: float | None = None
    some_ns: int
    full_ns: int | None = None


@frozen(kw_only=True)
class NetworkStats:
    """What has gone through one network interface, as the container sees it."""

    rx_bytes: int = 0
    rx_packets: int = 0
    rx_errors: int = 0
    rx_dropped: int = 0
    tx_bytes: int = 0
    tx_packets: int = 0
    tx_errors: int = 0
    tx_dropped: int = 0


@frozen(kw_only=True)
class ContainerStats:
    """What a container used at one moment.

    Attributes:
        time: When that was, in seconds since the epoch.
        cpu: Processor time.
        memory: Memory.
        io: Block devices; None where no control group of the container counts them.
        pids: Processes and threads.
        networks: Its interfaces by name, the loopback interface left out; none with the host's network.
        pressure: Waiting for ``"cpu"``, ``"memory"`` and ``"io"``, where the host has version 2 of control
            groups and a kernel that measures it.
        cpu_percent: Share of one processor that it used since the stats before; None for the first.
    """

    time: float
    cpu: CpuStats
    memory: MemoryStats
    io: IoStats | None = None
    pids: PidsStats
    networks: Mapping[str, NetworkStats] = field(factory=dict)
    pressure: Mapping[str, PressureStats] = field(factory=dict)
    cpu_percent: float | None = None

    def since(self, before: ContainerStats) -> ContainerStats:
        """The same, with `cpu_percent` for the time from `before` on."""
        used_ns, elapsed_s = self.cpu.total_ns - before.cpu.total_ns, self.time - before.time
        # One that was started again meanwhile begins counting anew.
        return evolve(self, cpu_percent=max(0.0, used_ns / 1e7 / elapsed_s) if elapsed_s > 0 else None)


class CountingGroup(Protocol):
    """What statistics need from control groups."""

    def version_of(self, controller: str) -> int | None:
        """The version that a controller has there; None if it has none."""

    def read(self, controller: str, file: str) -> str | None:
        """A control file; None if there is none. Of no controller: one of version 2 itself."""


def read_stats(
    cgroup: CountingGroup | None, processes: Sequence[ProcessInfo], *, network_pid: int | None
) -> ContainerStats:
    """Read what a container uses now.

    Args:
        cgroup: Its control groups, if it has some.
        processes: Its processes, for what no control group counts.
        network_pid: A process in its network; None if that is the host's.
    """
    return ContainerStats(
        time=time.time(),
        cpu=_cpu(cgroup, processes),
        memory=_memory(cgroup, processes),
        io=_io(cgroup),
        pids=_pids(cgroup, processes),
        networks={} if network_pid is None else _networks(network_pid),
        pressure=_pressure(cgroup),
    )


def _cpu(cgroup: CountingGroup | None, processes: Sequence[ProcessInfo]) -> CpuStats:
    if cgroup is not None:
        throttled = _flat(cgroup.read("cpu", "cpu.stat"))
        unified = _flat(cgroup.read("", "cpu.stat"))
        limits = {
            "periods": throttled.get("nr_periods"),
            "throttled_periods": throttled.get("nr_throttled"),
            "throttled_ns": throttled.get("throttled_time", throttled.get("throttled_usec", 0) * 1000)
            if throttled
            else None,
        }
        if "usage_usec" in unified:
            return CpuStats(
                total_ns=unified["usage_usec"] * 1000,
                user_ns=unified.get("user_usec", 0) * 1000,
                system_ns=unified.get("system_usec", 0) * 1000,
                **limits,
            )
        total = _number(cgroup.read("cpuacct", "cpuacct.usage"))
        if total is not None:
            return CpuStats(
                total_ns=total,
                user_ns=_number(cgroup.read("cpuacct", "cpuacct.usage_user")),
                system_ns=_number(cgroup.read("cpuacct", "cpuacct.usage_sys")),
                **limits,
            )
    return CpuStats(total_ns=int(sum(each.cpu_s for each in processes) * 1e9))


def _memory(cgroup: CountingGroup | None, processes: Sequence[ProcessInfo]) -> MemoryStats:
    version = None if cgroup is None else cgroup.version_of("memory")
    if cgroup is None or version is None:
        return MemoryStats(usage_bytes=sum(each.resident_bytes for each in processes), is_exact=False)
    if version == 1:
        usage = _number(cgroup.read("memory", "memory.usage_in_bytes")) or 0
        both = _number(cgroup.read("memory", "memory.memsw.usage_in_bytes"))
        return MemoryStats(
            usage_bytes=usage,
            inactive_file_bytes=_flat(cgroup.read("memory", "memory.stat")).get("total_inactive_file"),
            peak_bytes=_number(cgroup.read("memory", "memory.max_usage_in_bytes")),
            limit_bytes=_limit(cgroup.read("memory", "memory.limit_in_bytes")),
            swap_bytes=None if both is None else max(0, both - usage),
            oom_kills=_flat(cgroup.read("memory", "memory.oom_control")).get("oom_kill", 0),
        )
    return MemoryStats(
        usage_bytes=_number(cgroup.read("memory", "memory.current")) or 0,
        inactive_file_bytes=_flat(cgroup.read("memory", "memory.stat")).get("inactive_file"),
        peak_bytes=_number(cgroup.read("memory", "memory.peak")),
        limit_bytes=_limit(cgroup.read("memory", "memory.max")),
        swap_bytes=_number(cgroup.read("memory", "memory.swap.current")),
        oom_kills=_flat(cgroup.read("memory", "memory.events")).get("oom_kill", 0),
    )


def _io(cgroup: CountingGroup | None) -> IoStats | None:
    if cgroup is None:
        return None
    if cgroup.version_of("io") is not None:
        counted = [_assignments(line) for line in (cgroup.read("io", "io.stat") or "").splitlines()]
        return IoStats(
            read_bytes=sum(int(device.get("rbytes", 0)) for device in counted),
            write_bytes=sum(int(device.get("wbytes", 0)) for device in counted),
            reads=sum(int(device.get("rios", 0)) for device in counted),
            writes=sum(int(device.get("wios", 0)) for device in counted),
        )
    if cgroup.version_of("blkio") is None:
        return None
    moved = cgroup.read("blkio", "blkio.throttle.io_service_bytes_recursive")
    served = cgroup.read("blkio", "blkio.throttle.io_serviced_recursive")
    return IoStats(
        read_bytes=_of_devices(moved, "Read"),
        write_bytes=_of_devices(moved, "Write"),
        reads=_of_devices(served, "Read"),
        writes=_of_devices(served, "Write"),
    )


def _pids(cgroup: CountingGroup | None, processes: Sequence[ProcessInfo]) -> PidsStats:
    current = None if cgroup is None else _number(cgroup.read("pids", "pids.current"))
    if cgroup is None or current is None:
        return PidsStats(current=sum(each.threads for each in processes))
    return PidsStats(
        current=current,
        peak=_number(cgroup.read("pids", "pids.peak")),
        limit=_limit(cgroup.read("pids", "pids.max")),
    )


def _pressure(cgroup: CountingGroup | None) -> dict[str, PressureStats]:
    """What lines such as "some avg10=1.00 avg60=0.50 avg300=0.10 total=9" of each file say."""
    found: dict[str, PressureStats] = {}
    if cgroup is None:
        return found
    for what in ("cpu", "memory", "io"):
        try:
            text = cgroup.read("", f"{what}.pressure")
        except OSError:  # the kernel was started with psi=0
            continue
        lines = {line.partition(" ")[0]: _assignments(line) for line in (text or "").splitlines()}
        some, full = lines.get("some"), lines.get("full")
        if some is not None:
            found[what] = PressureStats(
                some_percent=float(some["avg10"]),
                full_percent=None if full is None else float(full["avg10"]),
                some_ns=int(some["total"]) * 1000,
                full_ns=None if full is None else int(full["total"]) * 1000,
            )
    return found


def _assignments(line: str) -> dict[str, str]:
    return dict(word.split("=", 1) for word in line.split() if "=" in word)


def _networks(pid: int) -> dict[str, NetworkStats]:
    """The interfaces of a process's network; none if it is gone."""
    try:
        with open(f"/proc/{pid}/net/dev", "rb") as file:
            text = file.read(_NET_DEV_LIMIT).decode("utf-8", "replace")
    except OSError:
        return {}
    found = {}
    for line in text.splitlines()[2:]:
        name, _, rest = line.rpartition(":")
        values = [int(word) for word in rest.split()]
        if name.strip() != "lo":
            found[name.strip()] = NetworkStats(
                rx_bytes=values[0],
                rx_packets=values[1],
                rx_errors=values[2],
                rx_dropped=values[3],
                tx_bytes=values[8],
                tx_packets=values[9],
                tx_errors=values[10],
                tx_dropped=values[11],
            )
    return found


def _flat(text: str | None) -> dict[str, int]:
    """The numbers of a file with lines of "name number"."""
    words = [line.split() for line in (text or "").splitlines()]
    return {pair[0]: int(pair[1]) for pair in words if len(pair) == 2 and pair[1].isdecimal()}  # noqa: PLR2004


def _number(text: str | None) -> int | None:
    word = (text or "").strip()
    return int(word) if word.isdecimal() else None


def _limit(text: str | None) -> int | None:
    """A limit; version 2 says "max" where there is none, version 1 a very great number."""
    number = _number(text)
    return None if number is None or number >= _NO_LIMIT else number


def _of_devices(text: str | None, word: str) -> int:
    """The sum of lines such as "8:0 Read 4096"."""
    lines = [line.split() for line in (text or "").splitlines()]
    return sum(int(line[2]) for line in lines if len(line) == 3 and line[1] == word)  # noqa: PLR2004
