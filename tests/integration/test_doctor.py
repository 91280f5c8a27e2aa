"""The doctor: what it looks at, that it tells the truth, and that it leaves nothing behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from containerlib import Engine
    from containerlib.api.doctor import Finding

pytestmark = pytest.mark.root

NAMES = frozenset({
    *("root", "CAP_SYS_ADMIN", "CAP_SYS_RESOURCE", "other capabilities", "kernel"),
    *("openat2", "clone3", "mount_api", "mount_setattr", "close_range", "pidfd_open"),
    *("start", "overlayfs", "seccomp", "control groups", "device rules", "user namespaces", "rootless"),
    *("controller memory", "controller pids", "controller cpu", "controller cpuset", "controller io"),
    *("AppArmor and SELinux", "store", "run root", "run root in memory"),
})  # fmt: skip
ESSENTIAL = frozenset({"root", "CAP_SYS_ADMIN", "kernel", "start", "store", "run root"})

# Runs the doctor with less than this process has; root gains the rest of its capabilities by the execve.
WITHOUT_CAPABILITY = """
import ctypes, os, sys
ctypes.CDLL(None).prctl(24, 21, 0, 0, 0)
os.execv(sys.executable, [sys.executable, "-m", "containerlib", "doctor", "--format", "json"])
"""


@pytest.fixture
def findings(engine: Engine) -> Iterator[dict[str, Finding]]:
    """Return what the doctor finds, by name."""
    before = sorted(os.listdir(os.path.dirname(engine.root)))
    yield {finding.name: finding for finding in engine.doctor()}
    assert sorted(os.listdir(os.path.dirname(engine.root))) == before


def test_everything_is_looked_at(findings: dict[str, Finding]) -> None:
    """There is one finding for each thing that a container may need."""
    assert findings.keys() >= NAMES
    assert findings.keys() - NAMES <= {"controller devices", "controller freezer"}


def test_findings_are_complete(findings: dict[str, Finding]) -> None:
    """Each finding says what is there, what it is for, what it costs to lack it, and what to do."""
    for finding in findings.values():
        assert finding.state in {"present", "missing", "degraded"}
        for text in (finding.found, finding.needed, finding.cost, finding.remedy):
            assert text
            assert not text.endswith(".")
            assert "\n" not in text


def test_a_host_that_starts_containers_has_the_essential(findings: dict[str, Finding]) -> None:
    """Where containers start nothing essential is missing, and only what is essential is called so."""
    assert {name for name, finding in findings.items() if finding.is_essential} == ESSENTIAL
    assert not [name for name in ESSENTIAL if findings[name].state == "missing"]


def test_capabilities_are_the_processs_own(findings: dict[str, Finding]) -> None:
    """What is said about CAP_SYS_RESOURCE is what the kernel says."""
    with open("/proc/self/status", encoding="ascii") as status:
        line = next(line for line in status if line.startswith("CapEff:"))
    has = bool(int(line.split()[1], 16) >> 24 & 1)
    assert (findings["CAP_SYS_RESOURCE"].state == "present") is has


def test_store_of_an_engine_with_state_is_left_alone(engine: Engine) -> None:
    """Examining an engine that has images and containers changes neither."""
    image = engine.images.from_host(["/bin/true"], reference="kept")
    container = engine.containers.create(image, ["/bin/true"])
    before = sorted(os.listdir(engine.root))
    assert engine.doctor()
    assert sorted(os.listdir(engine.root)) == before
    assert engine.images.get("kept") == image
    assert container.state == "created"


def test_closed_engine_can_be_examined(engine: Engine) -> None:
    """The doctor needs the directories only, and not an open engine."""
    engine.close()
    assert engine.doctor()


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Return the environment of a process with a store of its own."""
    return os.environ | {
        "CONTAINERLIB_ROOT": str(tmp_path / "r"),
        "CONTAINERLIB_RUN_ROOT": str(tmp_path / "n"),
    }


def test_command_prints_what_is_wrong(environment: dict[str, str], tmp_path: Path) -> None:
    """The command shows a line for each finding, and for what is not there the cost and the remedy."""
    done = subprocess.run(
        [sys.executable, "-m", "containerlib", "doctor"],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    assert (done.returncode, done.stderr) == (0, "")
    table, _, rest = done.stdout.partition("\n\n")
    assert table.splitlines()[0].split() == ["WHAT", "STATE", "FOUND"]
    assert "rootless is missing." in rest
    assert "Remedy: " in rest
    assert not list(tmp_path.iterdir())


def test_missing_privilege_is_found(environment: dict[str, str], tmp_path: Path) -> None:
    """Without CAP_SYS_ADMIN the exit code is 1, and the reason is told."""
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_CAPABILITY],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    found = {document["name"]: document for document in map(json.loads, done.stdout.splitlines())}
    assert (done.returncode, done.stderr) == (1, "")
    assert found["CAP_SYS_ADMIN"]["state"] == found["start"]["state"] == "missing"
    assert "CAP_SYS_ADMIN" in found["start"]["found"]
    assert not list(tmp_path.iterdir())
