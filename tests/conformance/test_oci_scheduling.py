"""How the kernel schedules what a configuration describes, by our runtime, runc and crun alike."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from support.oci import OURS

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.oci import Bundle, OciRuntime

pytestmark = [pytest.mark.root, pytest.mark.cgroup, pytest.mark.peers]

DEVIATIONS = dict.fromkeys(
    (
        *(
            f"test_scheduler[{name}-{kind}]"
            for name in ("runc", "crun")
            for kind in ("batch", "idle", "other")
        ),
        *("test_io_priority[runc]", "test_io_priority[crun]", "test_personality[runc-LINUX32-8]"),
    ),
    "its version does not know it yet",
)

SCHED_DEADLINE = 6
SCHEDULERS: dict[str, tuple[dict[str, Any], int, int, int]] = {
    # What is asked for; policy, priority and nice value that come of it.
    "batch": ({"policy": "SCHED_BATCH", "nice": 5}, os.SCHED_BATCH, 0, 5),
    "idle": ({"policy": "SCHED_IDLE"}, os.SCHED_IDLE, 0, 0),
    "other": (
        {"policy": "SCHED_OTHER", "nice": -3, "flags": ["SCHED_FLAG_RESET_ON_FORK"]},
        os.SCHED_OTHER | os.SCHED_RESET_ON_FORK,
        0,
        -3,
    ),
}


@pytest.fixture
def started(runtime: OciRuntime, bundle: Bundle) -> Callable[[], int]:
    """Return what starts the bundle as it is by then, and gives the number of its process."""

    def start() -> int:
        bundle.command("sleep", "1000")
        runtime.create(bundle)
        runtime.call("start", "c1")
        pid: int = runtime.state()["pid"]
        return pid

    return start


@pytest.mark.parametrize("kind", SCHEDULERS)
def test_scheduler(started: Callable[[], int], bundle: Bundle, kind: str) -> None:
    """Policy, priority, nice value and flags are as given."""
    asked, policy, priority, nice = SCHEDULERS[kind]
    bundle.config["process"]["scheduler"] = asked
    pid = started()
    assert os.sched_getscheduler(pid) == policy
    assert os.sched_getparam(pid).sched_priority == priority
    assert os.getpriority(os.PRIO_PROCESS, pid) == nice


@pytest.mark.parametrize(
    ("asked", "policy"),
    [
        ({"policy": "SCHED_FIFO", "priority": 3}, os.SCHED_FIFO),
        (
            {"policy": "SCHED_DEADLINE", "runtime": 10**6, "deadline": 10**7, "period": 2 * 10**7},
            SCHED_DEADLINE,
        ),
    ],
)
def test_real_time(
    oci: Callable[[str], OciRuntime], bundle: Bundle, asked: dict[str, Any], policy: int
) -> None:
    """Where the kernel gives no such share to the container's group, its refusal names the step."""
    bundle.config["process"]["scheduler"] = asked
    runtime = oci(OURS)
    bundle.command("sleep", "1000")
    bundle.write()
    runtime.created.append("c1")
    with (bundle.path / "output").open("wb") as output:
        words = ("create", "--bundle", str(bundle.path), "c1")
        done = runtime.call(*words, check=False, stdout=output, stderr=output)
    said = (bundle.path / "output").read_text(encoding="utf-8")
    if done.returncode:
        assert "scheduler: operation not permitted" in said or "scheduler: device or resource busy" in said
        return
    runtime.call("start", "c1")
    assert os.sched_getscheduler(runtime.state()["pid"]) == policy


@pytest.mark.parametrize(
    ("field", "value", "word"),
    [
        ("scheduler", {}, "policy"),
        ("scheduler", {"policy": "SCHED_BEST"}, "policy"),
        ("scheduler", {"policy": "SCHED_OTHER", "nice": 20}, "nice"),
        ("scheduler", {"policy": "SCHED_OTHER", "flags": ["SCHED_FLAG_ALL"]}, "flags"),
        ("scheduler", {"policy": "SCHED_FIFO", "priority": 100}, "priority"),
        ("scheduler", {"policy": "SCHED_ISO"}, "scheduler"),
        ("ioPriority", {"class": "IOPRIO_CLASS_BE"}, "priority"),
        ("ioPriority", {"class": "IOPRIO_CLASS_BE", "priority": 8}, "priority"),
        ("ioPriority", {"class": "best", "priority": 1}, "class"),
    ],
)
def test_wrong_values(
    oci: Callable[[str], OciRuntime], bundle: Bundle, field: str, value: dict[str, Any], word: str
) -> None:
    """What means nothing is an error that names it."""
    bundle.config["process"][field] = value
    assert word in oci(OURS).refuse(bundle)


def test_io_priority(started: Callable[[], int], bundle: Bundle) -> None:
    """Class and level are as given."""
    bundle.config["process"]["ioPriority"] = {"class": "IOPRIO_CLASS_BE", "priority": 6}
    done = subprocess.run(["ionice", "-p", str(started())], capture_output=True, text=True, check=True)
    assert done.stdout == "best-effort: prio 6\n"


@pytest.mark.parametrize(("domain", "value"), [("LINUX", 0), ("LINUX32", 8)])
def test_personality(started: Callable[[], int], bundle: Bundle, domain: str, value: int) -> None:
    """The machine shows itself as it is, or as one of 32 bits."""
    bundle.config["linux"]["personality"] = {"domain": domain}
    pid = started()
    assert int(Path(f"/proc/{pid}/personality").read_text(encoding="ascii"), 16) & 0xFF == value


def test_personality_of_a_further_process(oci: Callable[[str], OciRuntime], bundle: Bundle) -> None:
    """It is that of the container."""
    bundle.config["linux"]["personality"] = {"domain": "LINUX32"}
    bundle.command("sleep", "1000")
    runtime = oci(OURS)
    runtime.create(bundle)
    runtime.call("start", "c1")
    assert runtime.call("exec", "c1", "cat", "/proc/self/personality").stdout == b"00000008\n"


@pytest.mark.parametrize("domain", ["", "LINUX64"])
def test_wrong_personality(oci: Callable[[str], OciRuntime], bundle: Bundle, domain: str) -> None:
    """There are two."""
    bundle.config["linux"]["personality"] = {"domain": domain}
    assert "linux.personality.domain" in oci(OURS).refuse(bundle)


def test_processors_of_a_further_process(oci: Callable[[str], OciRuntime], bundle: Bundle) -> None:
    """It runs where it is told to, and the container's own process where it was."""
    processors = sorted(os.sched_getaffinity(0))
    runtime = oci(OURS)
    bundle.command("sleep", "1000")
    runtime.create(bundle)
    runtime.call("start", "c1")
    last = processors[-1]
    file = bundle.path / "process.json"
    process = {"cwd": "/", "args": ["/bin/grep", "Cpus_allowed_list", "/proc/self/status"]}
    for affinity, expected in (
        ({"final": f"{last}"}, str(last)),
        ({"initial": f"{last}", "final": f"0-{last}"}, None),
    ):
        file.write_text(json.dumps(process | {"execCPUAffinity": affinity}), encoding="ascii")
        found = runtime.call("exec", "--process", str(file), "c1").stdout.decode().split()[-1]
        assert expected in {None, found}
    assert os.sched_getaffinity(runtime.state()["pid"]) == set(processors)


@pytest.mark.parametrize("key", ["initial", "final"])
@pytest.mark.parametrize("text", ["all", "3-1", "9999", "1,,2"])
def test_wrong_processors(oci: Callable[[str], OciRuntime], bundle: Bundle, key: str, text: str) -> None:
    """What is no list is an error that shows it."""
    runtime = oci(OURS)
    bundle.command("sleep", "1000")
    runtime.create(bundle)
    runtime.call("start", "c1")
    file = bundle.path / "process.json"
    process = {"cwd": "/", "args": ["/bin/true"], "execCPUAffinity": {key: text}}
    file.write_text(json.dumps(process), encoding="ascii")
    done = runtime.call("exec", "--process", str(file), "c1", check=False)
    assert done.returncode != 0
    assert f"execCPUAffinity.{key}".encode() in done.stderr
