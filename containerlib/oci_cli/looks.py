"""``state``, ``list``, ``ps``, ``events``, ``features``, ``spec``: what there is, as JSON or as a table."""

from __future__ import annotations

import json
import os
import sys
import time
from typing import TYPE_CHECKING, Any

from containerlib.oci.runtime_spec import HOOK_KINDS, OCI_VERSION
from containerlib.oci_cli.errors import OciError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from containerlib.oci_cli.store import Container, Store

__all__ = ["show_events", "show_features", "show_list", "show_processes", "show_state", "write_spec"]


def _say(text: str, end: str = "\n") -> None:
    sys.stdout.write(text + end)
    sys.stdout.flush()


def show_state(store: Store, container_id: str) -> None:
    """Print a container's state."""
    _say(json.dumps(store.get(container_id).state(), indent=2))


def show_list(store: Store, *, style: str, quiet: bool) -> None:
    """Print all containers."""
    containers = store.list()
    if quiet:
        _say("".join(f"{each.id}\n" for each in containers), end="")
    elif style == "json":
        _say(json.dumps([each.state() for each in containers]))
    else:
        rows = [("ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER")]
        for each in containers:
            state = each.state()
            rows.append(
                (each.id, str(state["pid"]), state["status"], each.bundle, each.created, state["owner"])
            )
        _table(rows)


def _table(rows: Sequence[Sequence[str]]) -> None:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        _say("   ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())


def show_processes(store: Store, container_id: str, *, style: str, options: Sequence[str]) -> None:
    """Print the processes of a container: their numbers, or what ps(1) says of them."""
    pids = sorted(store.get(container_id).cgroup.pids())
    if style == "json":
        _say(json.dumps(pids))
        return
    import subprocess  # noqa: PLC0415 - for this style only

    done = subprocess.run(["ps", *(options or ["-ef"])], capture_output=True, text=True, check=False)
    if done.returncode:
        raise OciError(f"ps: {done.stderr.strip()}")
    lines = done.stdout.splitlines()
    titles = lines[0].split()
    if "PID" not in titles:
        raise OciError("couldn't find PID field in ps output")
    column, wanted = titles.index("PID"), {str(pid) for pid in pids}
    _say(lines[0])
    for line in lines[1:]:
        fields = line.split()
        if len(fields) > column and fields[column] in wanted:
            _say(line)


def show_events(store: Store, container_id: str, *, once: bool, interval_s: float) -> None:
    """Print what a container uses, once or again and again until it ends."""
    while True:
        container = store.get(container_id)
        if container.status == "stopped":
            raise OciError(f"container {container_id} is not running")
        line = {"type": "stats", "id": container.id, "data": _stats(container)}
        _say(json.dumps(line))
        if once:
            return
        time.sleep(interval_s)


def _stats(container: Container) -> dict[str, Any]:
    group = container.cgroup
    is_v2 = group.version("memory") != 1
    usage = group.read("memory", "memory.current" if is_v2 else "memory.usage_in_bytes")
    limit = group.read("memory", "memory.max" if is_v2 else "memory.limit_in_bytes")
    peak = group.read("memory", "memory.peak" if is_v2 else "memory.max_usage_in_bytes")
    raw = _pairs(group.read("memory", "memory.stat"))
    cpu = _pairs(group.read("cpu", "cpu.stat"))
    total = (
        cpu["usage_usec"] * 1000 if "usage_usec" in cpu else _integer(group.read("cpuacct", "cpuacct.usage"))
    )
    return {
        "cpu": {
            "usage": {"total": total},
            "throttling": {
                "periods": cpu.get("nr_periods", 0),
                "throttledPeriods": cpu.get("nr_throttled", 0),
                "throttledTime": cpu.get("throttled_time", cpu.get("throttled_usec", 0) * 1000),
            },
        },
        "memory": {
            "usage": {"usage": _integer(usage), "limit": _integer(limit), "max": _integer(peak)},
            "cache": raw.get("cache", raw.get("file", 0)),
            "raw": raw,
        },
        "pids": {
            "current": _integer(group.read("pids", "pids.current")),
            "limit": _integer(group.read("pids", "pids.max")),
        },
        "blkio": {},
        "hugetlb": {},
        "intel_rdt": {},
        "network_interfaces": None,
    }


def _pairs(text: str) -> dict[str, int]:
    found = {}
    for line in text.splitlines():
        key, _, value = line.partition(" ")
        if value.isdecimal():
            found[key] = int(value)
    return found


def _integer(text: str) -> int:
    return int(text) if text.isdecimal() else 0


def show_features() -> None:
    """Print what this runtime can do. Source: runtime-spec, features.md and features-linux.md."""
    from containerlib.oci_cli.features import features  # noqa: PLC0415 - for this command only
    from containerlib.runtime.capability import CAPABILITIES  # noqa: PLC0415

    _say(json.dumps(features(OCI_VERSION, HOOK_KINDS, sorted(CAPABILITIES)), indent=4))


def write_spec(bundle: str) -> None:
    """Write a configuration to begin with.

    Raises:
        OciError: There is one.
    """
    from containerlib.oci_cli.template import template  # noqa: PLC0415 - for this command only

    path = os.path.join(bundle or ".", "config.json")
    try:
        with open(path, "x", encoding="utf-8") as file:
            json.dump(template(OCI_VERSION), file, indent=4)
            file.write("\n")
    except FileExistsError:
        raise OciError(f"file {path} exists; remove it first") from None
    except OSError as error:
        raise OciError(f"open {path}: {(error.strerror or '').lower()}") from None
