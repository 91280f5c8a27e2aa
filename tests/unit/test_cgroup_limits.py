from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import pytest

from containerlib.errors import InvalidOption, UnsupportedHost
from containerlib.options import Resources
from containerlib.runtime import cgroup_limits
from containerlib.runtime.cgroup_limits import (
    asked_controllers,
    check_against_host,
    io_weight_from_blkio,
    parse_cpu_list,
    translate,
    weight_from_shares,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

MIB = 1024 * 1024
V1 = dict.fromkeys(("memory", "pids", "cpu", "cpuset", "io"), 1)
V2 = dict.fromkeys(V1, 2)
SWAP = {"memory.memsw.limit_in_bytes", "memory.swap.max"}


class FakeLimits:
    """A host with given versions and files."""

    def __init__(self, versions: Mapping[str, int], files: set[str]) -> None:
        self.versions = versions
        self.files = files

    def version(self, controller: str) -> Literal[1, 2] | None:
        """Look the version up."""
        number = self.versions.get(controller)
        return None if number is None else 1 if number == 1 else 2

    def has_file(self, controller: str, file: str) -> bool:
        """Look the file up."""
        del controller
        return file in self.files


def writes(resources: Resources, versions: Mapping[str, int], files: set[str] = SWAP) -> list[str]:
    """Return what is written, as "file=value"."""
    return [f"{s.file}={s.value}" for s in translate(resources, FakeLimits(versions, files))]


CASES: list[tuple[dict[str, object], list[str], list[str]]] = [
    ({}, ["pids.max=2048"], ["pids.max=2048"]),
    ({"pids": None}, [], []),
    ({"pids": -1}, [], []),
    ({"pids": 10}, ["pids.max=10"], ["pids.max=10"]),
    (
        {"memory_bytes": 64 * MIB},
        ["memory.limit_in_bytes=67108864", "memory.memsw.limit_in_bytes=134217728"],
        ["memory.max=67108864", "memory.swap.max=67108864"],
    ),
    (
        {"memory_bytes": 64 * MIB, "memory_swap_bytes": 64 * MIB},
        ["memory.limit_in_bytes=67108864", "memory.memsw.limit_in_bytes=67108864"],
        ["memory.max=67108864", "memory.swap.max=0"],
    ),
    (
        {"memory_bytes": 64 * MIB, "memory_swap_bytes": 96 * MIB},
        ["memory.limit_in_bytes=67108864", "memory.memsw.limit_in_bytes=100663296"],
        ["memory.max=67108864", "memory.swap.max=33554432"],
    ),
    (
        {"memory_bytes": 64 * MIB, "memory_swap_bytes": -1},
        ["memory.limit_in_bytes=67108864", "memory.memsw.limit_in_bytes=-1"],
        ["memory.max=67108864", "memory.swap.max=max"],
    ),
    ({"memory_swap_bytes": -1}, ["memory.memsw.limit_in_bytes=-1"], ["memory.swap.max=max"]),
    (
        {"memory_reservation_bytes": 8 * MIB},
        ["memory.soft_limit_in_bytes=8388608"],
        ["memory.low=8388608"],
    ),
    (
        {"cpus": 1.5},
        ["cpu.cfs_period_us=100000", "cpu.cfs_quota_us=150000"],
        ["cpu.max=150000 100000"],
    ),
    ({"cpus": 0.01}, ["cpu.cfs_period_us=100000", "cpu.cfs_quota_us=1000"], ["cpu.max=1000 100000"]),
    ({"cpu_quota_us": 20000}, ["cpu.cfs_quota_us=20000"], ["cpu.max=20000 100000"]),
    ({"cpu_quota_us": -1}, ["cpu.cfs_quota_us=-1"], ["cpu.max=max 100000"]),
    ({"cpu_period_us": 50000}, ["cpu.cfs_period_us=50000"], ["cpu.max=max 50000"]),
    (
        {"cpu_quota_us": 20000, "cpu_period_us": 50000},
        ["cpu.cfs_period_us=50000", "cpu.cfs_quota_us=20000"],
        ["cpu.max=20000 50000"],
    ),
    ({"cpu_shares": 1024}, ["cpu.shares=1024"], ["cpu.weight=100"]),
    (
        {"cpuset_cpus": "0-1", "cpuset_mems": "0"},
        ["cpuset.cpus=0-1", "cpuset.mems=0"],
        ["cpuset.cpus=0-1", "cpuset.mems=0"],
    ),
]


@pytest.mark.parametrize(("given", "v1", "v2"), CASES)
def test_translation(given: dict[str, object], v1: list[str], v2: list[str]) -> None:
    """Each limit becomes the files of either version, with their units, in the order of writing."""
    resources = Resources(**{"pids": None} | given) if given else Resources()  # type: ignore[arg-type] # a table of mixed options
    assert writes(resources, V1) == v1
    assert writes(resources, V2) == v2


def test_mixed_versions() -> None:
    """On a hybrid host each controller is translated for the version that it has there."""
    resources = Resources(memory_bytes=64 * MIB, cpus=1)
    assert writes(resources, {"memory": 2, "cpu": 1, "pids": 1}) == [
        "memory.max=67108864",
        "memory.swap.max=67108864",
        "pids.max=2048",
        "cpu.cfs_period_us=100000",
        "cpu.cfs_quota_us=100000",
    ]


def test_unusable_controllers_are_left_out() -> None:
    """What the host cannot do is left out here; whether that is allowed is decided elsewhere."""
    assert writes(Resources(memory_bytes=64 * MIB), {}) == []


@pytest.mark.parametrize("versions", [V1, V2])
def test_missing_swap_accounting(versions: Mapping[str, int]) -> None:
    """Without swap accounting, a swap limit is refused if asked for, and left out if only implied."""
    assert len(writes(Resources(memory_bytes=64 * MIB, pids=None), versions, set())) == 1
    with pytest.raises(UnsupportedHost, match="swapaccount=1"):
        writes(Resources(memory_bytes=64 * MIB, memory_swap_bytes=-1), versions, set())


@pytest.mark.parametrize(
    ("shares", "weight"),
    [(2, 1), (3, 2), (512, 59), (1024, 100), (2048, 174), (262143, 10000), (262144, 10000)],
)
def test_weight_from_shares(shares: int, weight: int) -> None:
    """The default of either version is the default of the other, and so are the ends of the ranges."""
    assert weight_from_shares(shares) == weight


@pytest.mark.parametrize(("weight", "expected"), [(10, 1), (500, 4950), (1000, 10000)])
def test_io_weight(weight: int, expected: int) -> None:
    """The range of block weights is stretched to that of version 2."""
    assert io_weight_from_blkio(weight) == expected


@pytest.mark.parametrize(
    ("versions", "files", "expected"),
    [
        (V1, {"blkio.weight"}, "blkio.weight=500"),
        (V1, {"blkio.bfq.weight"}, "blkio.bfq.weight=500"),
        (V2, {"io.weight"}, "io.weight=4950"),
        (V2, {"io.weight", "io.bfq.weight"}, "io.bfq.weight=500"),
    ],
)
def test_io_weight_file(versions: Mapping[str, int], files: set[str], expected: str) -> None:
    """The weight goes to the file that the kernel has."""
    assert writes(Resources(io_weight=500, pids=None), versions, files) == [expected]


@pytest.mark.parametrize("versions", [V1, V2])
def test_io_weight_unsupported(versions: Mapping[str, int]) -> None:
    """A kernel without weights refuses them by name."""
    with pytest.raises(UnsupportedHost, match="io_weight=500"):
        writes(Resources(io_weight=500), versions, set())


def test_device_rates(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rates are written with the number of the device, one write each."""
    monkeypatch.setattr(cgroup_limits, "_device_number", lambda _option, _path: "8:16")
    resources = Resources(
        pids=None, device_read_bps=(("/dev/sdb", 1000),), device_write_iops=(("/dev/sdb", 20),)
    )
    assert writes(resources, V1) == [
        "blkio.throttle.read_bps_device=8:16 1000",
        "blkio.throttle.write_iops_device=8:16 20",
    ]
    assert writes(resources, V2) == ["io.max=8:16 rbps=1000", "io.max=8:16 wiops=20"]


@pytest.mark.parametrize("path", ["/dev/null", "/nonexistent"])
def test_device_rates_need_a_block_device(path: str) -> None:
    """A path that is no block device is refused by name."""
    with pytest.raises(InvalidOption, match="device_read_bps"):
        writes(Resources(device_read_bps=((path, 1),)), V1)


def test_unified() -> None:
    """Files of version 2 are passed through, one write per line."""
    resources = Resources(pids=None, unified={"memory.high": "1000", "io.max": "8:0 rbps=1\n8:16 rbps=2"})
    assert writes(resources, V2, {"memory.high", "io.max"}) == [
        "memory.high=1000",
        "io.max=8:0 rbps=1",
        "io.max=8:16 rbps=2",
    ]
    with pytest.raises(UnsupportedHost, match="cgroup v1"):
        writes(resources, V1)
    with pytest.raises(UnsupportedHost, match=r"memory\.high"):
        writes(resources, V2, set())


@pytest.mark.parametrize(
    ("resources", "expected"),
    [
        (Resources(), []),
        (Resources(pids=None), []),
        (Resources(pids=-1), []),
        (Resources(pids=5), [("pids", "pids")]),
        (Resources(memory_reservation_bytes=8 * MIB), [("memory", "memory_reservation_bytes")]),
        (Resources(cpu_quota_us=2000, io_weight=10), [("cpu", "cpu_quota_us"), ("io", "io_weight")]),
        (Resources(unified={"hugetlb.2MB.max": "0"}), [("hugetlb", "unified")]),
    ],
)
def test_asked_controllers(resources: Resources, expected: list[tuple[str, str]]) -> None:
    """The default number of processes is no request; everything else is."""
    assert asked_controllers(resources) == expected


BAD: list[tuple[str, object]] = [
    ("memory_bytes", 6 * MIB - 1),
    ("memory_bytes", 0),
    ("memory_bytes", -1),
    ("memory_swap_bytes", 0),
    ("memory_swap_bytes", -2),
    ("memory_swap_bytes", 64 * MIB),
    ("memory_reservation_bytes", 1),
    ("pids", 0),
    ("pids", -2),
    ("cpus", 0),
    ("cpus", -1.0),
    ("cpus", 0.009),
    ("cpus", float("nan")),
    ("cpu_shares", 1),
    ("cpu_shares", 262145),
    ("cpu_quota_us", 999),
    ("cpu_quota_us", 0),
    ("cpu_period_us", 999),
    ("cpu_period_us", 1_000_001),
    ("io_weight", 9),
    ("io_weight", 1001),
    ("oom_score_adj", -1001),
    ("oom_score_adj", 1001),
    ("device_read_bps", (("sda", 1),)),
    ("device_write_iops", (("/dev/sda", 0),)),
    ("unified", {"cgroup.procs": "1"}),
    ("unified", {"../memory.max": "1"}),
    ("unified", {"memory./x": "1"}),
    ("unified", {"memory": "1"}),
]


@pytest.mark.parametrize(("option", "value"), BAD)
def test_bad_values(option: str, value: object) -> None:
    """A value that no host could honour is refused with its name, itself and the remedy."""
    with pytest.raises(InvalidOption) as caught:
        Resources(**{option: value})  # type: ignore[arg-type] # a table of mixed options
    assert caught.value.option == option
    assert str(caught.value).startswith(f"{option}=")


@pytest.mark.parametrize(
    ("given", "option"),
    [
        ({"memory_bytes": 64 * MIB, "memory_swap_bytes": 63 * MIB}, "memory_swap_bytes"),
        ({"memory_bytes": 64 * MIB, "memory_reservation_bytes": 65 * MIB}, "memory_reservation_bytes"),
        ({"cpus": 1, "cpu_quota_us": 2000}, "cpus"),
        ({"cpus": 1, "cpu_period_us": 2000}, "cpus"),
    ],
)
def test_contradictions(given: dict[str, int], option: str) -> None:
    """Limits that contradict each other are refused."""
    with pytest.raises(InvalidOption) as caught:
        Resources(**given)  # type: ignore[arg-type] # a table of mixed options
    assert caught.value.option == option


@pytest.mark.parametrize(
    ("resources", "option"),
    [
        (Resources(cpus=2.5), "cpus"),
        (Resources(cpuset_cpus="0,2"), "cpuset_cpus"),
        (Resources(cpuset_cpus="x"), "cpuset_cpus"),
        (Resources(cpuset_cpus=""), "cpuset_cpus"),
        (Resources(cpuset_cpus="3-1"), "cpuset_cpus"),
        (Resources(cpuset_cpus="0-99999"), "cpuset_cpus"),
        (Resources(cpuset_mems="1"), "cpuset_mems"),
    ],
)
def test_more_than_the_host_has(resources: Resources, option: str) -> None:
    """Absent processors and nodes are refused before anything is made."""
    with pytest.raises(InvalidOption) as caught:
        check_against_host(resources, cpu_count=2, cpus="0-1\n", mems="0\n")
    assert caught.value.option == option


def test_what_the_host_has() -> None:
    """All that there is may be asked for."""
    resources = Resources(cpus=2, cpuset_cpus="0-1", cpuset_mems="0")
    check_against_host(resources, cpu_count=2, cpus="0-1\n", mems="0\n")
    check_against_host(resources, cpu_count=2, cpus=None, mems=None)


@pytest.mark.parametrize(("text", "expected"), [("0", {0}), ("0-2,4", {0, 1, 2, 4}), ("7,7", {7})])
def test_parse_cpu_list(text: str, expected: set[int]) -> None:
    """Numbers and ranges are understood."""
    assert parse_cpu_list("cpuset_cpus", text) == expected


def test_resources_are_values() -> None:
    """Equal limits are equal and have equal hashes, so that what they mean is worked out once."""
    assert Resources(unified={"memory.high": "1"}) == Resources(unified={"memory.high": "1"})
    assert hash(Resources(memory_bytes=64 * MIB)) == hash(Resources(memory_bytes=64 * MIB))
    assert Resources(pids=1) != Resources(pids=2)
