"""linux.resources as files of control groups, on both versions."""

from __future__ import annotations

from typing import Any

import pytest

from containerlib.errors import InvalidOption, UnsupportedHost
from containerlib.runtime.cgroup_resources import device_rules, settings_of
from containerlib.runtime.device_rules import DEFAULT_RULES, DeviceRule


class Host:
    """A host with all controllers on one version, and these files besides."""

    def __init__(self, version: int | None, *files: str) -> None:
        self._version = version
        self._files = files

    def version(self, controller: str) -> Any:
        """The version of a controller."""
        return None if controller == "nothing" else self._version

    def has_file(self, controller: str, file: str) -> bool:
        """Whether there is a file."""
        del controller
        return file in self._files


def written(resources: dict[str, Any], version: int, *files: str) -> dict[str, str]:
    """What is written, by file."""
    return {each.file: each.value for each in settings_of(resources, Host(version, *files))}


@pytest.mark.parametrize(
    ("resources", "first", "second"),
    [
        ({"memory": {"limit": 0}}, {}, {}),
        ({"memory": {"limit": 9}}, {"memory.limit_in_bytes": "9"}, {"memory.max": "9"}),
        ({"memory": {"limit": -1}}, {"memory.limit_in_bytes": "-1"}, {"memory.max": "max"}),
        (
            {"memory": {"limit": 9, "swap": 20, "reservation": 4}},
            {
                "memory.limit_in_bytes": "9",
                "memory.memsw.limit_in_bytes": "20",
                "memory.soft_limit_in_bytes": "4",
            },
            {"memory.max": "9", "memory.swap.max": "11", "memory.low": "4"},
        ),
        (
            {"cpu": {"shares": 1024, "quota": 5000, "period": 10000, "idle": 1, "cpus": "0-1", "mems": "0"}},
            {
                "cpu.shares": "1024",
                "cpu.cfs_period_us": "10000",
                "cpu.cfs_quota_us": "5000",
                "cpu.idle": "1",
                "cpuset.cpus": "0-1",
                "cpuset.mems": "0",
            },
            {
                "cpu.weight": "100",
                "cpu.max": "5000 10000",
                "cpu.idle": "1",
                "cpuset.cpus": "0-1",
                "cpuset.mems": "0",
            },
        ),
        ({"cpu": {"quota": -1}}, {"cpu.cfs_quota_us": "-1"}, {"cpu.max": "max 100000"}),
        ({"cpu": {"burst": 5}}, {"cpu.cfs_burst_us": "5"}, {"cpu.max.burst": "5"}),
        ({"pids": {"limit": 3}}, {"pids.max": "3"}, {"pids.max": "3"}),
        ({"pids": {"limit": -1}}, {"pids.max": "max"}, {"pids.max": "max"}),
        (
            {"hugepageLimits": [{"pageSize": "2MB", "limit": 4}]},
            {"hugetlb.2MB.limit_in_bytes": "4"},
            {"hugetlb.2MB.max": "4"},
        ),
        (
            {"blockIO": {"throttleReadBpsDevice": [{"major": 8, "minor": 1, "rate": 7}]}},
            {"blkio.throttle.read_bps_device": "8:1 7"},
            {"io.max": "8:1 rbps=7"},
        ),
        (
            {"rdma": {"mlx5_1": {"hcaHandles": 3, "hcaObjects": 4}}},
            {"rdma.max": "mlx5_1 hca_handle=3 hca_object=4"},
            {"rdma.max": "mlx5_1 hca_handle=3 hca_object=4"},
        ),
    ],
)
def test_settings(resources: dict[str, Any], first: dict[str, str], second: dict[str, str]) -> None:
    """Each field is the file of its version; zero is nothing."""
    assert written(resources, 1) == first
    assert written(resources, 2) == second


def test_only_on_version_1() -> None:
    """What version 2 does not have is refused there."""
    block = {"memory": {"swappiness": 0, "disableOOMKiller": True}}
    assert written(block, 1) == {"memory.swappiness": "0", "memory.oom_control": "1"}
    for key, field, value in (
        ("memory", "swappiness", 0),
        ("memory", "disableOOMKiller", True),
        ("cpu", "realtimeRuntime", 5),
    ):
        with pytest.raises(UnsupportedHost, match=rf"linux\.resources\.{key}\.{field}"):
            written({key: {field: value}}, 2)


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize(
    ("key", "field"),
    [
        ("memory", "kernel"),
        ("memory", "kernelTCP"),
        ("memory", "checkBeforeUpdate"),
        ("blockIO", "leafWeight"),
    ],
)
def test_on_no_version(key: str, field: str, version: int) -> None:
    """What nobody sets any more is refused, unless it is nothing."""
    assert written({key: {field: 0}}, version) == {}
    with pytest.raises(UnsupportedHost, match=rf"linux\.resources\.{key}\.{field}"):
        written({key: {field: 5}}, version)


def test_weights() -> None:
    """The weight of a disk goes into the file that there is."""
    block = {"blockIO": {"weight": 500, "weightDevice": [{"major": 8, "minor": 0, "weight": 10}]}}
    assert written(block, 1, "blkio.bfq.weight") == {
        "blkio.bfq.weight": "500",
        "blkio.bfq.weight_device": "8:0 10",
    }
    assert written({"blockIO": {"weight": 500}}, 2, "io.weight") == {"io.weight": "4950"}
    with pytest.raises(UnsupportedHost, match=r"io\.bfq\.weight or io\.weight"):
        written({"blockIO": {"weight": 500}}, 2)


def test_unified() -> None:
    """Files of version 2 are written as they are, line by line; there they must be."""
    assert written({"unified": {"memory.high": "5"}}, 2, "memory.high") == {"memory.high": "5"}
    for version, files in ((1, ("memory.high",)), (2, ())):
        with pytest.raises(UnsupportedHost, match=r"unified\['memory\.high'\]"):
            written({"unified": {"memory.high": "5"}}, version, *files)


@pytest.mark.parametrize(
    "resources",
    [
        {"memory": [1]},
        {"memory": {"limit": "9"}},
        {"pids": 3},
        {"hugepageLimits": {"limit": 1}},
        {"cpu": {"quota": 1.5}},
    ],
)
def test_wrong_types(resources: dict[str, Any]) -> None:
    """The field is named."""
    with pytest.raises(InvalidOption, match=rf"linux\.resources\.{next(iter(resources))}"):
        written(resources, 1)


def test_a_missing_controller() -> None:
    """It is named with its file."""
    with pytest.raises(UnsupportedHost, match=r"pids\.limit.*'pids' \(file pids\.max\)"):
        settings_of({"pids": {"limit": 3}}, Host(None))


def test_device_rules() -> None:
    """They keep their order, those that every container has come behind them; a wrong one is refused."""
    assert device_rules({}) is None
    found = device_rules(
        {
            "devices": [
                {"allow": False, "access": "rwm"},
                {"allow": True, "type": "c", "major": 1, "access": "r"},
            ]
        }
    )
    assert found is not None
    assert found[:2] == (DeviceRule(False, "a"), DeviceRule(True, "c", 1, None, "r"))
    assert set(found[2:]) == {rule for rule in DEFAULT_RULES if rule.allow}
    for wrong in ([{}], [3], [{"allow": True, "access": "x"}], [{"allow": True, "major": 2**40}]):
        with pytest.raises(InvalidOption):
            device_rules({"devices": wrong})
