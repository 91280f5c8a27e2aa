"""The rules of the specification that are left: relative places, texts that mean nothing, devices anywhere.

Each test is a MUST of config.md or config-linux.md, and runs with our runtime, runc and crun. A runtime that
does otherwise is in `DEVIATIONS`, with how; it is never ours.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from support.oci import OURS, until

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.oci import Bundle, OciRuntime

pytestmark = [pytest.mark.root, pytest.mark.cgroup, pytest.mark.peers]

# By the names of tests: what the Debian version of another runtime does otherwise.
DEVIATIONS = {
    **{
        f"test_half_of_the_mappings[runc-{field}]": "it does not know them"
        for field in ("uidMappings", "gidMappings")
    },
    "test_wrong_annotations[runc-annotations0]": "it takes that",
    "test_wrong_annotations[crun-annotations0]": "it takes that",
    "test_wrong_annotations[crun-annotations2]": "it takes that",
    "test_wrong_hooks[crun-hook1]": "it takes that",
    **{
        f"test_relative_paths[{name}-{field}]": "it takes any path"
        for name in ("runc", "crun")
        for field in ("maskedPaths", "readonlyPaths")
    },
    **{
        f"test_other_files_in_the_place_of_devices[{name}-{kind}]": "it takes what is there"
        for name in ("runc", "crun")
        for kind in ("file", "other")
    },
    "test_cache_allocation[crun]": "it does not look",
    "test_wrong_resources[runc-listener]": "it takes that",
    "test_wrong_resources[runc-burst]": "it does not know it",
    "test_wrong_resources[runc-weight]": "it takes that",
    "test_wrong_resources[crun-listener]": "it takes that",
    "test_wrong_resources[crun-burst]": "it does not know it",
}


def test_relative_destination(runtime: OciRuntime, bundle: Bundle) -> None:
    """A mount on a relative place is below the root, wherever the command begins."""
    bundle.config["process"]["cwd"] = "/tmp"
    bundle.config["mounts"].append({"destination": "one/two", "type": "tmpfs", "source": "tmpfs"})
    bundle.script("cut -d ' ' -f 5 /proc/self/mountinfo")
    assert "/one/two" in runtime.run(bundle).split()


@pytest.mark.parametrize("field", ["uidMappings", "gidMappings"])
def test_half_of_the_mappings(runtime: OciRuntime, bundle: Bundle, field: str) -> None:
    """A mount has both mappings or none."""
    bundle.config["mounts"].append(
        {
            "destination": "/here",
            "type": "bind",
            "source": "rootfs",
            "options": ["bind"],
            field: [{"containerID": 0, "hostID": 1000, "size": 1}],
        }
    )
    assert runtime.refuse(bundle)


@pytest.mark.parametrize("annotations", [{"": "value"}, {"key": 1}, ["key"]])
def test_wrong_annotations(runtime: OciRuntime, bundle: Bundle, annotations: object) -> None:
    """They are texts by names."""
    bundle.config["annotations"] = annotations
    assert runtime.refuse(bundle)


def test_annotations(runtime: OciRuntime, bundle: Bundle) -> None:
    """Those that nobody knows are kept, and told by state."""
    bundle.config["annotations"] = {"com.example.one": "1", "org.opencontainers.image.stopSignal": "TERM"}
    bundle.command("sleep", "600")
    runtime.create(bundle)
    assert bundle.config["annotations"].items() <= runtime.state()["annotations"].items()


@pytest.mark.parametrize("hook", [{"path": "bin/true"}, {"path": "/bin/true", "timeout": 0}, {"args": ["x"]}])
def test_wrong_hooks(runtime: OciRuntime, bundle: Bundle, hook: dict[str, Any]) -> None:
    """A hook has an absolute path, and a time to end that is not over at once."""
    bundle.config["hooks"] = {"createRuntime": [hook]}
    assert runtime.refuse(bundle)


def test_relative_namespace(runtime: OciRuntime, bundle: Bundle) -> None:
    """The path of a namespace is absolute."""
    bundle.config["linux"]["namespaces"].append({"type": "cgroup", "path": "proc/1/ns/cgroup"})
    assert runtime.refuse(bundle)


@pytest.mark.parametrize("field", ["maskedPaths", "readonlyPaths"])
def test_relative_paths(runtime: OciRuntime, bundle: Bundle, field: str) -> None:
    """What is hidden or read-only has an absolute path."""
    bundle.config["linux"][field] = ["proc/kcore"]
    assert runtime.refuse(bundle)


def test_devices_anywhere(runtime: OciRuntime, bundle: Bundle) -> None:
    """A device can lie in any directory, which is made if it is missing."""
    bundle.config["linux"]["devices"] = [
        {"path": path, "type": "c", "major": 1, "minor": 5, "fileMode": 0o646, "uid": 5, "gid": 6}
        for path in ("/devices/one", "/tmp/two")
    ]
    bundle.config["linux"]["resources"]["devices"].append(
        {"allow": True, "type": "c", "major": 1, "minor": 5, "access": "rwm"}
    )
    bundle.script("stat -c '%t:%T %a %u:%g' /devices/one /tmp/two; head -c 2 /devices/one | wc -c")
    assert runtime.run(bundle).splitlines() == ["1:5 646 5:6", "1:5 646 5:6", "2"]


def test_devices_without_a_mount(runtime: OciRuntime, bundle: Bundle) -> None:
    """Where nothing is mounted on /dev they are made in the root file system."""
    bundle.config["mounts"] = [
        mount for mount in bundle.config["mounts"] if not mount["destination"].startswith("/dev")
    ]
    bundle.config["linux"]["devices"] = [{"path": "/dev/one", "type": "c", "major": 1, "minor": 5}]
    bundle.script(
        "cd /dev; stat -c '%n %t:%T' null zero full random urandom tty one; readlink fd; readlink stdin"
    )
    assert runtime.run(bundle).splitlines() == [
        *("null 1:3", "zero 1:5", "full 1:7", "random 1:8", "urandom 1:9", "tty 5:0", "one 1:5"),
        *("/proc/self/fd", "/proc/self/fd/0"),
    ]


def test_devices_that_are_there(runtime: OciRuntime, bundle: Bundle) -> None:
    """One that is there and the right one stays."""
    (bundle.rootfs / "devices").mkdir()
    subprocess.run(["mknod", "-m", "600", str(bundle.rootfs / "devices/one"), "c", "1", "5"], check=True)
    bundle.config["linux"]["devices"] = [{"path": "/devices/one", "type": "c", "major": 1, "minor": 5}]
    bundle.script("stat -c '%t:%T' /devices/one")
    assert runtime.run(bundle) == "1:5\n"


@pytest.mark.parametrize("kind", ["file", "other"])
def test_other_files_in_the_place_of_devices(runtime: OciRuntime, bundle: Bundle, kind: str) -> None:
    """What is there and is something else is an error."""
    place = bundle.rootfs / "devices/one"
    place.parent.mkdir()
    if kind == "file":
        place.write_text("content", encoding="ascii")
    else:
        subprocess.run(["mknod", str(place), "c", "1", "7"], check=True)
    bundle.config["linux"]["devices"] = [{"path": "/devices/one", "type": "c", "major": 1, "minor": 5}]
    assert runtime.refuse(bundle)
    assert kind != "file" or place.read_text(encoding="ascii") == "content"


def test_pipes(runtime: OciRuntime, bundle: Bundle) -> None:
    """A named pipe is a device as well."""
    bundle.config["linux"]["devices"] = [{"path": path, "type": "p"} for path in ("/dev/pipe", "/tmp/pipe")]
    bundle.script("stat -c %F /dev/pipe /tmp/pipe")
    assert runtime.run(bundle).split("\n") == ["fifo", "fifo", ""]


def test_a_bound_dev(oci: Callable[[str], OciRuntime], bundle: Bundle) -> None:
    """Whoever brings a /dev of its own finds nothing made in it; the terminal has its place there."""
    (bundle.path / "dev").mkdir()
    bundle.config["mounts"] = [
        {"destination": "/proc", "type": "proc", "source": "proc"},
        {"destination": "/dev", "type": "bind", "source": "dev", "options": ["bind"]},
    ]
    bundle.script("ls /dev")
    assert oci(OURS).run(bundle) == ""


def test_the_callers_mounts(oci: Callable[[str], OciRuntime], bundle: Bundle) -> None:
    """Without a mount namespace of its own it is in the caller's; its mounts go with it, and no file does."""
    runtime = oci(OURS)
    bundle.config["linux"]["namespaces"] = [{"type": "pid"}]
    bundle.config["linux"]["maskedPaths"] = ["/proc/kcore"]
    bundle.config["mounts"].append({"destination": "/here", "type": "tmpfs", "source": "tmpfs"})
    del bundle.config["hostname"]
    before = mounts()
    bundle.script(
        "readlink /proc/self/ns/mnt; ls / | tr '\\n' ' '; : > /here/file; : > /file; exec sleep 600"
    )
    runtime.create(bundle)
    runtime.call("start", "c1")
    until((bundle.rootfs / "file").exists)
    told = runtime.call(
        "exec", "c1", "sh", "-c", "readlink /proc/self/ns/mnt; ls / /here; ls /proc/1/root/here"
    )
    assert told.stdout.decode().split()[0] == os.readlink("/proc/self/ns/mnt")
    assert told.stdout.decode().split().count("file") == 3
    runtime.call("kill", "c1", "KILL")
    until(lambda: runtime.state()["status"] == "stopped")
    runtime.call("delete", "c1")
    output = (bundle.path / "output").read_text(encoding="ascii").split()
    assert output[0] == os.readlink("/proc/self/ns/mnt")
    assert {"here", "bin", "proc"} <= set(output[1:])
    assert mounts() == before
    assert (bundle.rootfs / "file").exists()
    assert (bundle.rootfs / "bin/busybox").exists()


def test_the_callers_mounts_after_a_failure(oci: Callable[[str], OciRuntime], bundle: Bundle) -> None:
    """What was mounted until then is gone, and no file is."""
    bundle.config["linux"]["namespaces"] = [{"type": "pid"}]
    del bundle.config["hostname"]
    before = mounts()
    bundle.config["mounts"].append({"destination": "/here", "type": "nosuch", "source": "none"})
    assert oci(OURS).refuse(bundle)
    bundle.config["mounts"].pop()
    bundle.command("/missing")
    done = oci(OURS).call("run", "--bundle", str(bundle.path), "c2", check=False)
    assert done.returncode != 0
    assert mounts() == before
    assert (bundle.rootfs / "bin/busybox").exists()


@pytest.mark.parametrize("kind", ["own", "with a user namespace", "none with a user namespace"])
def test_mount_namespaces_that_cannot_be(oci: Callable[[str], OciRuntime], bundle: Bundle, kind: str) -> None:
    """That of the runtime would lose its root; in that of another nobody else may mount."""
    namespaces: list[dict[str, str]] = [{"type": "pid"}]
    if kind != "own":
        namespaces.append({"type": "user"})
    if not kind.startswith("none"):
        path = "/proc/self/ns/mnt" if kind == "own" else "/proc/1/ns/uts"
        namespaces.append({"type": "mount", "path": path})
    bundle.config["linux"]["namespaces"] = namespaces
    del bundle.config["hostname"]
    expected = "is this runtime's own" if kind == "own" else "mount namespace"
    assert expected in oci(OURS).refuse(bundle)


def mounts() -> list[str]:
    """What is mounted where in this namespace."""
    lines = Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()
    return [line.split()[4] for line in lines]


def test_a_mount_namespace_by_path(runtime: OciRuntime, bundle: Bundle) -> None:
    """The container is in the mount namespace that is named."""
    with subprocess.Popen(
        ["unshare", "--mount", "sh", "-c", "echo; exec sleep 600"], stdout=subprocess.PIPE
    ) as other:
        try:
            assert other.stdout is not None
            other.stdout.readline()
            path = f"/proc/{other.pid}/ns/mnt"
            bundle.config["linux"]["namespaces"] = [{"type": "pid"}, {"type": "mount", "path": path}]
            del bundle.config["hostname"]
            bundle.script("readlink /proc/self/ns/mnt")
            assert runtime.run(bundle).strip() == Path(path).readlink().name
        finally:
            other.kill()


@pytest.mark.parametrize("field", ["intelRdt", "netDevices"])
def test_what_there_is_not(oci: Callable[[str], OciRuntime], bundle: Bundle, field: str) -> None:
    """Cache allocation without a mounted resctrl, and network devices to be moved, are refused by name."""
    bundle.config["linux"][field] = {"closID": "one"} if field == "intelRdt" else {"eth0": {}}
    assert field in oci(OURS).refuse(bundle)


def test_cache_allocation(runtime: OciRuntime, bundle: Bundle) -> None:
    """Without a mounted resctrl there is none."""
    bundle.config["linux"]["intelRdt"] = {"closID": "one", "l3CacheSchema": "L3:0=ffff0;1=3ff"}
    assert runtime.refuse(bundle)


@pytest.mark.parametrize("problem", ["listener", "burst", "weight", "unified"])
def test_wrong_resources(runtime: OciRuntime, bundle: Bundle, problem: str) -> None:
    """A combination that means nothing."""
    resources = bundle.config["linux"]["resources"]
    if problem == "listener":
        bundle.config["linux"]["seccomp"] = {"defaultAction": "SCMP_ACT_ALLOW", "listenerMetadata": "x"}
    elif problem == "burst":
        resources["cpu"] = {"quota": 10_000, "period": 100_000, "burst": 20_000}
    elif problem == "weight":
        resources["blockIO"] = {"weightDevice": [{"major": 8, "minor": 0}]}
    else:
        resources["unified"] = {"nosuch.max": "1"}
    assert runtime.refuse(bundle)
