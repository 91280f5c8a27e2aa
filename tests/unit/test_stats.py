"""What a container uses, from files of either version of control groups and from none."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import pytest

from containerlib.runtime.process_table import ProcessInfo
from containerlib.runtime.stats import CpuStats, IoStats, MemoryStats, PidsStats, PressureStats, read_stats

if TYPE_CHECKING:
    from containerlib.runtime.cgroup_container import ContainerCgroup

PROCESS = ProcessInfo(
    pid=7,
    container_pid=1,
    parent_pid=2,
    uid=0,
    state="sleeping",
    command=("sleep",),
    started_at=1.0,
    cpu_s=1.5,
    resident_bytes=4096,
    threads=3,
)


class Files:
    """Stands for the control groups of a container."""

    def __init__(self, version: int, files: dict[tuple[str, str], str]) -> None:
        self._version = version
        self._files = files

    def version_of(self, controller: str) -> int | None:
        """The version, for controllers of which there is a file."""
        return self._version if controller in {name for name, _ in self._files} else None

    def read(self, controller: str, file: str) -> str | None:
        """A file."""
        return self._files.get((controller, file))


def test_version_2() -> None:
    """All files of version 2, with limits."""
    cgroup = Files(
        2,
        {
            ("", "cpu.stat"): "usage_usec 50\nuser_usec 30\nsystem_usec 20\n",
            ("cpu", "cpu.stat"): "usage_usec 50\nnr_periods 4\nnr_throttled 2\nthrottled_usec 9\n",
            ("", "cpu.pressure"): "some avg10=1.50 avg60=0.00 avg300=0.00 total=7\n",
            ("", "io.pressure"): "some avg10=2.00 avg60=0.00 avg300=0.00 total=8\n"
            "full avg10=1.00 avg60=0.00 avg300=0.00 total=4\n",
            ("memory", "memory.current"): "1000\n",
            ("memory", "memory.stat"): "anon 1\ninactive_file 300\n",
            ("memory", "memory.peak"): "2000\n",
            ("memory", "memory.max"): "4000\n",
            ("memory", "memory.swap.current"): "5\n",
            ("memory", "memory.events"): "oom 3\noom_kill 2\n",
            (
                "io",
                "io.stat",
            ): "8:0 rbytes=10 wbytes=20 rios=1 wios=2 dbytes=0 dios=0\n8:16 rbytes=1 wios=1\n",
            ("pids", "pids.current"): "3\n",
            ("pids", "pids.peak"): "5\n",
            ("pids", "pids.max"): "9\n",
        },
    )
    found = read_stats(cast("ContainerCgroup", cgroup), [PROCESS], network_pid=None)
    assert found.cpu == CpuStats(
        total_ns=50_000, user_ns=30_000, system_ns=20_000, periods=4, throttled_periods=2, throttled_ns=9000
    )
    assert found.memory == MemoryStats(
        usage_bytes=1000,
        inactive_file_bytes=300,
        peak_bytes=2000,
        limit_bytes=4000,
        swap_bytes=5,
        oom_kills=2,
    )
    assert found.memory.working_set_bytes == 700
    assert found.io == IoStats(read_bytes=11, write_bytes=20, reads=1, writes=3)
    assert found.pids == PidsStats(current=3, peak=5, limit=9)
    assert found.networks == {}
    assert found.pressure == {
        "cpu": PressureStats(some_percent=1.5, some_ns=7000),
        "io": PressureStats(some_percent=2.0, full_percent=1.0, some_ns=8000, full_ns=4000),
    }


def test_version_1() -> None:
    """All files of version 1, where no limit is a very great number."""
    cgroup = Files(
        1,
        {
            ("cpuacct", "cpuacct.usage"): "50\n",
            ("cpuacct", "cpuacct.usage_user"): "30\n",
            ("cpuacct", "cpuacct.usage_sys"): "20\n",
            ("cpu", "cpu.stat"): "nr_periods 4\nnr_throttled 2\nthrottled_time 9\n",
            ("memory", "memory.usage_in_bytes"): "1000\n",
            ("memory", "memory.memsw.usage_in_bytes"): "1005\n",
            ("memory", "memory.stat"): "total_inactive_file 300\n",
            ("memory", "memory.max_usage_in_bytes"): "2000\n",
            ("memory", "memory.limit_in_bytes"): "9223372036854771712\n",
            ("memory", "memory.oom_control"): "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n",
            ("blkio", "blkio.throttle.io_service_bytes_recursive"): "8:0 Read 10\n8:0 Write 20\nTotal 30\n",
            ("blkio", "blkio.throttle.io_serviced_recursive"): "8:0 Read 1\n8:0 Write 2\nTotal 3\n",
            ("pids", "pids.current"): "3\n",
            ("pids", "pids.max"): "max\n",
        },
    )
    found = read_stats(cast("ContainerCgroup", cgroup), [PROCESS], network_pid=None)
    assert found.cpu == CpuStats(
        total_ns=50, user_ns=30, system_ns=20, periods=4, throttled_periods=2, throttled_ns=9
    )
    assert found.memory == MemoryStats(
        usage_bytes=1000,
        inactive_file_bytes=300,
        peak_bytes=2000,
        limit_bytes=None,
        swap_bytes=5,
        oom_kills=2,
    )
    assert found.io == IoStats(read_bytes=10, write_bytes=20, reads=1, writes=2)
    assert found.pids == PidsStats(current=3)


@pytest.mark.parametrize("cgroup", [None, Files(1, {})])
def test_no_control_groups(cgroup: Files | None) -> None:
    """The processes' own numbers are added up, and said not to be exact."""
    found = read_stats(cast("ContainerCgroup | None", cgroup), [PROCESS, PROCESS], network_pid=None)
    assert found.cpu == CpuStats(total_ns=3_000_000_000)
    assert found.memory == MemoryStats(usage_bytes=8192, is_exact=False)
    assert (found.io, found.pids) == (None, PidsStats(current=6))


def test_share_of_a_processor() -> None:
    """The share is of the time between two looks; a counter that began anew is no negative share."""
    one = read_stats(
        cast("ContainerCgroup", Files(2, {("", "cpu.stat"): "usage_usec 0\n"})), [], network_pid=None
    )
    used = read_stats(
        cast("ContainerCgroup", Files(2, {("", "cpu.stat"): "usage_usec 500000\n"})), [], network_pid=None
    )
    assert one.cpu_percent is None
    later = type(used)(time=one.time + 1, cpu=used.cpu, memory=used.memory, pids=used.pids)
    assert later.since(one).cpu_percent == pytest.approx(50)
    again = type(one)(time=later.time + 1, cpu=one.cpu, memory=one.memory, pids=one.pids)
    assert again.since(later).cpu_percent == 0
    assert one.since(one).cpu_percent is None
