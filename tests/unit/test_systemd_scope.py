"""What an OCI configuration says to systemd: the unit, where its group is, its properties."""

from __future__ import annotations

from typing import Any

import pytest

from containerlib.errors import InvalidOption
from containerlib.runtime.systemd_scope import Scope, properties_of

UNLIMITED = 2**64 - 1


@pytest.mark.parametrize(
    ("path", "unit", "place"),
    [
        ("", "containerlib-c1.scope", "/system.slice/containerlib-c1.scope"),
        ("user.slice:runc:x", "runc-x.scope", "/user.slice/runc-x.scope"),
        (":runc:x", "runc-x.scope", "/system.slice/runc-x.scope"),
        ("machine.slice::x", "x.scope", "/machine.slice/x.scope"),
        ("a-b-c.slice:p:x", "p-x.scope", "/a.slice/a-b.slice/a-b-c.slice/p-x.scope"),
        ("-.slice:p:x", "p-x.scope", "/p-x.scope"),
    ],
)
def test_path(path: str, unit: str, place: str) -> None:
    """Slice, prefix and name; a slice lies in those that its name says."""
    scope = Scope.parse(path, "c1")
    assert (scope.unit, scope.path) == (unit, place)


@pytest.mark.parametrize(
    "path",
    [
        *("/a/b", "a.slice:b", "a.slice:b:", "a:b:c", "a.slice:b:c.slice", "a.slice:b:c d", "a/b.slice:b:c"),
        *("a--b.slice:b:c", "a.slice:b:c:d", "a.slice:b:../c"),
    ],
)
def test_wrong_path(path: str) -> None:
    """What is no scope in a slice is an error that shows it."""
    with pytest.raises(InvalidOption) as caught:
        Scope.parse(path, "c1")
    assert (caught.value.option, caught.value.value) == ("linux.cgroupsPath", path)


@pytest.mark.parametrize(
    ("resources", "expected"),
    [
        ({}, {}),
        ({"memory": {"limit": 5, "reservation": 4}}, {"MemoryMax": ("t", 5), "MemoryLow": ("t", 4)}),
        ({"memory": {"limit": -1}}, {"MemoryMax": ("t", UNLIMITED)}),
        ({"memory": {"limit": 5, "swap": 7}}, {"MemoryMax": ("t", 5), "MemorySwapMax": ("t", 2)}),
        ({"memory": {"limit": 5, "swap": -1}}, {"MemoryMax": ("t", 5), "MemorySwapMax": ("t", UNLIMITED)}),
        ({"pids": {"limit": 9}}, {"TasksMax": ("t", 9)}),
        ({"pids": {"limit": 0}}, {}),
        ({"cpu": {"shares": 1024}}, {"CPUWeight": ("t", 100)}),
        ({"cpu": {"quota": 50_000}}, {"CPUQuotaPerSecUSec": ("t", 500_000)}),
        (
            {"cpu": {"quota": 1234, "period": 10_000}},
            {"CPUQuotaPerSecUSec": ("t", 130_000), "CPUQuotaPeriodUSec": ("t", 10_000)},
        ),
        ({"cpu": {"quota": -1}}, {"CPUQuotaPerSecUSec": ("t", UNLIMITED)}),
        (
            {"cpu": {"cpus": "0-2,9", "mems": "0"}},
            {"AllowedCPUs": ("ay", [7, 2]), "AllowedMemoryNodes": ("ay", [1])},
        ),
        ({"blockIO": {"weight": 1000}}, {"IOWeight": ("t", 10_000)}),
    ],
)
def test_properties(resources: dict[str, Any], expected: dict[str, Any]) -> None:
    """Each limit that systemd has a word for."""
    assert properties_of(resources, {}) == expected


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("KillSignal", "15", ("KillSignal", ("i", 15))),
        ("TimeoutStopUSec", "uint64 10", ("TimeoutStopUSec", ("t", 10))),
        ("TimeoutStopSec", "3", ("TimeoutStopUSec", ("t", 3_000_000))),
        ("CollectMode", "'inactive'", ("CollectMode", ("s", "inactive"))),
        ("SendSIGHUP", "true", ("SendSIGHUP", ("b", True))),
        ("After", "['a.service', \"b.service\"]", ("After", ("as", ["a.service", "b.service"]))),
    ],
)
def test_annotations(name: str, text: str, expected: tuple[str, Any]) -> None:
    """Properties by annotation are in the text form of GVariant; others mean nothing here."""
    annotations = {f"org.systemd.property.{name}": text, "other": "1"}
    assert properties_of({}, annotations) == dict([expected])


@pytest.mark.parametrize("text", ["", "word", "(1, 2)", "[1, 2]", "byte 1"])
def test_wrong_annotation(text: str) -> None:
    """What cannot be understood is not guessed."""
    with pytest.raises(InvalidOption, match=r"org\.systemd\.property\.X"):
        properties_of({}, {"org.systemd.property.X": text})


@pytest.mark.parametrize(
    "resources",
    [
        {"memory": [1]},
        {"memory": {"limit": "5"}},
        {"cpu": {"shares": [1]}},
        {"cpu": {"cpus": 3.5}},
        {"blockIO": {"weight": True}},
    ],
)
def test_other_types(resources: dict[str, Any]) -> None:
    """What is of another type is an error that names the field."""
    with pytest.raises(InvalidOption, match=r"linux\.resources\."):
        properties_of(resources, {})


def test_wrong_processors() -> None:
    """No list of numbers."""
    with pytest.raises(InvalidOption, match=r"linux\.resources\.cpu\.cpus"):
        properties_of({"cpu": {"cpus": "all"}}, {})
