"""config.json: what is read of it, and what is refused, by the name of the field."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from containerlib.oci.runtime_config import InvalidConfig, parse_config, parse_process
from containerlib.oci.runtime_spec import Capabilities, DeviceNode, Hook, PosixRlimit, SpecMount, User

SMALLEST: dict[str, Any] = {
    "ociVersion": "1.0.2",
    "process": {"args": ["sh"], "cwd": "/"},
    "root": {"path": "rootfs"},
    "linux": {"namespaces": [{"type": "mount"}]},
}


def changed(path: str, value: Any) -> dict[str, Any]:
    """The smallest configuration with another value at a path such as ``process.args``."""
    document = copy.deepcopy(SMALLEST)
    place = document
    *parents, last = path.split(".")
    for name in parents:
        place = place.setdefault(name, {})
    place[last] = value
    return document


def test_smallest() -> None:
    """What may be left out is what the specification says then."""
    spec = parse_config(SMALLEST)
    assert spec.process.args == ("sh",)
    assert spec.process.user == User(uid=0, gid=0, umask=0o022)
    assert spec.process.capabilities == Capabilities()
    assert spec.process.oom_score_adj is None
    assert (spec.root.path, spec.root.readonly) == ("rootfs", False)
    assert spec.linux.namespaces == {"mount"}
    assert (spec.mounts, spec.hooks, spec.annotations) == ((), {}, {})
    assert spec.seccomp is None


def test_full() -> None:
    """Every field goes where it belongs."""
    document = copy.deepcopy(SMALLEST)
    document["hostname"], document["domainname"] = "host", "domain"
    document["annotations"] = {"a": "b"}
    document["process"] |= {
        "terminal": True,
        "consoleSize": {"width": 80, "height": 24},
        "user": {"uid": 1, "gid": 2, "additionalGids": [3], "umask": 0o77},
        "env": ["A=B"],
        "capabilities": {"bounding": ["CAP_KILL"], "ambient": ["CAP_CHOWN"]},
        "rlimits": [{"type": "RLIMIT_CORE", "soft": 1, "hard": 2**64 - 1}],
        "noNewPrivileges": True,
        "oomScoreAdj": -5,
    }
    document["mounts"] = [{"destination": "there", "type": "tmpfs", "source": "x", "options": ["ro"]}]
    document["hooks"] = {"poststop": [{"path": "/p", "args": ["a"], "env": ["B=C"], "timeout": 3}]}
    document["linux"] |= {
        "namespaces": [{"type": "mount"}, {"type": "network", "path": "/n"}],
        "devices": [{"path": "/dev/x", "type": "u", "major": 1, "minor": 2, "fileMode": 0o100640, "uid": 4}],
        "sysctl": {"net.x": "1"},
        "maskedPaths": ["/m"],
        "readonlyPaths": ["/r"],
        "rootfsPropagation": "rslave",
        "cgroupsPath": "/c",
        "resources": {"pids": {"limit": 3}},
        "seccomp": {"defaultAction": "SCMP_ACT_ALLOW"},
        "personality": {"domain": "LINUX"},
    }
    spec = parse_config(document)
    process, linux = spec.process, spec.linux
    assert (spec.hostname, spec.domainname, spec.annotations) == ("host", "domain", {"a": "b"})
    assert (process.terminal, process.console_size) == (True, (80, 24))
    assert process.user == User(uid=1, gid=2, additional_gids=(3,), umask=0o77)
    assert process.env == ("A=B",)
    assert process.capabilities.bounding == {"CAP_KILL"}
    assert process.capabilities.ambient == {"CAP_CHOWN"}
    assert process.rlimits == (PosixRlimit(type="RLIMIT_CORE", soft=1, hard=2**64 - 1),)
    assert (process.no_new_privileges, process.oom_score_adj) == (True, -5)
    assert spec.mounts == (SpecMount(destination="/there", type="tmpfs", source="x", options=("ro",)),)
    assert spec.hooks == {"poststop": (Hook(path="/p", args=("a",), env=("B=C",), timeout_s=3),)}
    assert (linux.namespaces, linux.namespace_paths) == ({"mount"}, (("network", "/n"),))
    assert linux.devices == (DeviceNode(path="/dev/x", type="c", major=1, minor=2, file_mode=0o640, uid=4),)
    assert linux.sysctl == (("net.x", "1"),)
    assert (linux.masked_paths, linux.readonly_paths) == (("/m",), ("/r",))
    assert (linux.rootfs_propagation, linux.cgroups_path) == ("rslave", "/c")
    assert spec.resources == {"pids": {"limit": 3}}
    assert spec.seccomp == {"defaultAction": "SCMP_ACT_ALLOW"}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("ociVersion", None),
        ("ociVersion", "2.0.0"),
        ("ociVersion", 1),
        ("process", None),
        ("process", []),
        ("process.args", []),
        ("process.args", "sh"),
        ("process.args", ["a\0b"]),
        ("process.cwd", ""),
        ("process.cwd", "relative"),
        ("process.env", [1]),
        ("process.terminal", "yes"),
        ("process.user.uid", -1),
        ("process.user.uid", 2**32 - 1),
        ("process.user.uid", True),
        ("process.user.additionalGids", ["a"]),
        ("process.user.umask", 0o1000),
        ("process.capabilities.bounding", "CAP_KILL"),
        ("process.rlimits", [{"type": "RLIMIT_CORE", "soft": 1}]),
        ("process.rlimits", [{"type": "RLIMIT_CORE", "soft": 0, "hard": 0}] * 2),
        ("process.oomScoreAdj", 1001),
        ("process.selinuxLabel", "label"),
        ("process.scheduler", {"policy": "SCHED_FAST"}),
        ("process.ioPriority", {"class": "IOPRIO_CLASS_RT"}),
        ("root", None),
        ("root.path", ""),
        ("root.readonly", 1),
        ("mounts", [{"type": "tmpfs"}]),
        ("mounts", [{"destination": "/a", "uidMappings": [{}]}]),
        ("mounts", {}),
        ("hooks.prestart", [{"path": "relative"}]),
        ("hooks.prestart", [{"path": "/a", "timeout": 0}]),
        ("annotations", {"a": 1}),
        ("annotations", {"": "b"}),
        ("linux.namespaces", [{"type": "user"}]),
        ("linux.namespaces", [{"type": "mount"}, {"type": "moon"}]),
        ("linux.namespaces", [{"type": "mount"}, {"type": "mount"}]),
        ("linux.namespaces", [{"type": "mount"}, {"type": "pid", "path": "relative"}]),
        ("linux.uidMappings", [{"containerID": 0, "hostID": 0, "size": 0}]),
        ("linux.gidMappings", [{"containerID": 0, "hostID": 2**32 - 2, "size": 3}]),
        ("linux.devices", [{"path": "/dev/x", "type": "q", "major": 1, "minor": 1}]),
        ("linux.devices", [{"path": "/", "type": "c", "major": 1, "minor": 1}]),
        ("linux.devices", [{"path": "/dev/../x", "type": "c", "major": 1, "minor": 1}]),
        ("linux.devices", [{"path": "/dev/x", "type": "c"}]),
        ("linux.maskedPaths", ["relative"]),
        ("linux.readonlyPaths", [3]),
        ("linux.sysctl", {"a": 1}),
        ("linux.rootfsPropagation", "sideways"),
        ("linux.personality", {"domain": "LINUX64"}),
        ("linux.intelRdt", {"closID": "x"}),
        ("linux.mountLabel", "label"),
        ("linux.timeOffsets", {"boottime": {"secs": 1}}),
        ("linux.resources", []),
    ],
)
def test_refused(path: str, value: Any) -> None:
    """The message names the field."""
    field = path.rpartition(".")[2]
    with pytest.raises(InvalidConfig, match=rf"config\.json: .*{field}"):
        parse_config(changed(path, value))


@pytest.mark.parametrize("document", [None, [], "text", 3])
def test_no_object(document: object) -> None:
    """Anything but an object is refused."""
    with pytest.raises(InvalidConfig, match="is not an object"):
        parse_config(document)


def test_process_alone() -> None:
    """A process is read by itself as well."""
    process = parse_process({"args": ["a", "b"], "cwd": "/c"})
    assert (process.args, process.cwd) == (("a", "b"), "/c")
    with pytest.raises(InvalidConfig, match=r"process\.args"):
        parse_process({"cwd": "/"})
