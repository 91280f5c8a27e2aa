"""The OCI runtime with ``--systemd-cgroup``, on a host that systemd runs: scopes, limits and their end."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.oci import OURS, OciRuntime, until

from containerlib.runtime import systemd
from containerlib.runtime.cgroup_host import CgroupHost

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.oci import Bundle

pytestmark = [pytest.mark.root, pytest.mark.cgroup, pytest.mark.guest]

TREE = Path("/sys/fs/cgroup")
MIB = 1 << 20


def problem() -> str | None:
    """Why systemd cannot be asked here."""
    return systemd.find_problem() or (None if CgroupHost.probe().mode == "v2" else "not version 2 alone")


class Scene:
    """A bundle whose control group is a scope, and the runtime."""

    def __init__(self, bundle: Bundle, runtime: OciRuntime) -> None:
        self.bundle = bundle
        self.runtime = runtime
        self.unit = f"clt-{bundle.path.name}.scope"
        self.group = TREE / "system.slice" / self.unit
        bundle.config["linux"]["cgroupsPath"] = f"system.slice:clt:{bundle.path.name}"
        bundle.command("sleep", "600")

    def call(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[bytes]:
        """Run a command of the runtime."""
        return self.runtime.call("--systemd-cgroup", *words, check=check)

    def create(self, *, check: bool = True) -> subprocess.CompletedProcess[bytes]:
        """Create the container."""
        self.bundle.write()
        self.runtime.created.append("c1")
        with (self.bundle.path / "output").open("ab") as output:
            words = ("--systemd-cgroup", "create", "--bundle", str(self.bundle.path), "c1")
            done = self.runtime.call(*words, check=False, stdout=output, stderr=output)
        said = (self.bundle.path / "output").read_text(encoding="utf-8")
        assert not check or done.returncode == 0, said
        return done

    def property(self, name: str) -> str:
        """What systemd says of the scope."""
        words = ["systemctl", "show", "--value", "-p", name, self.unit]
        return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()

    def file(self, name: str) -> str:
        """A control file."""
        return (self.group / name).read_text(encoding="ascii").strip()

    def is_gone(self) -> bool:
        """Whether systemd knows of no such unit."""
        return not self.group.exists() and self.property("LoadState") == "not-found"


@pytest.fixture
def scene(bundle: Bundle, oci: Callable[[str], OciRuntime]) -> Scene:
    """Return a bundle with a scope."""
    found = problem()
    if found is not None:
        pytest.skip(f"systemd is not the first process, with version 2 alone: {found}")
    return Scene(bundle, oci(OURS))


def test_without_systemd(bundle: Bundle, oci: Callable[[str], OciRuntime]) -> None:
    """Where systemd cannot be asked that is said, and nothing is left."""
    if problem() is None:
        pytest.skip("systemd is the first process")
    runtime = oci(OURS)
    bundle.config["linux"]["cgroupsPath"] = "system.slice:clt:c1"
    bundle.write()
    done = runtime.call("--systemd-cgroup", "create", "--bundle", str(bundle.path), "c1", check=False)
    assert done.returncode == 1
    assert b"--systemd-cgroup needs systemd as the first process" in done.stderr
    assert runtime.call("state", "c1", check=False).returncode != 0


def test_life(scene: Scene) -> None:
    """A scope for the container alone, from its creation to its end."""
    scene.create()
    pid = scene.runtime.state()["pid"]
    assert scene.file("cgroup.procs").split() == [str(pid)]
    assert scene.property("Delegate") == "yes"
    assert scene.property("Description") == "Container c1"
    scene.call("start", "c1")
    scene.call("exec", "c1", "true")
    scene.call("pause", "c1")
    assert scene.runtime.state()["status"] == "paused"
    scene.call("resume", "c1")
    assert str(pid).encode() in scene.call("ps", "c1").stdout
    scene.call("kill", "c1", "KILL")
    until(lambda: scene.runtime.state()["status"] == "stopped")
    scene.call("delete", "c1")
    until(scene.is_gone)


def test_limits_outlast_a_reload(scene: Scene) -> None:
    """What the group is limited to, systemd knows as well; so does it of changes."""
    scene.bundle.config["linux"]["resources"] |= {
        "memory": {"limit": 64 * MIB, "reservation": 16 * MIB},
        "pids": {"limit": 30},
        "cpu": {"quota": 50_000, "period": 100_000, "shares": 2048, "cpus": "0"},
    }
    scene.create()
    scene.call("start", "c1")
    files = ("memory.max", "memory.low", "pids.max", "cpu.max", "cpu.weight", "cpuset.cpus")
    before = {name: scene.file(name) for name in files}
    assert before["memory.max"] == str(64 * MIB)
    assert before["pids.max"] == "30"
    assert before["cpu.max"] == "50000 100000"
    subprocess.run(["systemctl", "daemon-reload"], check=True)
    assert {name: scene.file(name) for name in files} == before
    scene.call("update", "--pids-limit", "40", "--memory", str(80 * MIB), "c1")
    subprocess.run(["systemctl", "daemon-reload"], check=True)
    assert (scene.file("pids.max"), scene.file("memory.max")) == ("40", str(80 * MIB))
    assert scene.property("TasksMax") == "40"
    scene.call("delete", "--force", "c1")
    until(scene.is_gone)


def test_devices_outlast_a_reload(scene: Scene) -> None:
    """The rules for devices hold whatever systemd does."""
    names = ["CAP_MKNOD"]
    scene.bundle.config["process"]["capabilities"] = {
        "bounding": names,
        "effective": names,
        "permitted": names,
    }
    scene.create()
    scene.call("start", "c1")
    attempt = "rm -f /tmp/n; mknod /tmp/n b 1 0 && head -c 1 /tmp/n"
    assert scene.call("exec", "c1", "sh", "-c", attempt, check=False).returncode != 0
    subprocess.run(["systemctl", "daemon-reload"], check=True)
    assert scene.call("exec", "c1", "sh", "-c", attempt, check=False).returncode != 0
    assert scene.call("exec", "c1", "sh", "-c", "echo > /dev/null").returncode == 0
    scene.call("delete", "--force", "c1")


def test_other_devices(scene: Scene) -> None:
    """Rules can become wider as well as narrower: the new program takes the place of the old one."""
    names = ["CAP_MKNOD"]
    scene.bundle.config["process"]["capabilities"] = {
        "bounding": names,
        "effective": names,
        "permitted": names,
    }
    scene.create()
    scene.call("start", "c1")
    scene.call("exec", "c1", "mknod", "/tmp/k", "c", "1", "11")
    attempt = ("exec", "c1", "sh", "-c", ": > /tmp/k")
    assert scene.call(*attempt, check=False).returncode != 0
    deny = {"allow": False, "access": "rwm"}
    for rules, is_allowed in (
        ([deny, {"allow": True, "type": "c", "major": 1, "minor": 11, "access": "w"}], True),
        ([deny], False),
    ):
        file = scene.bundle.path / "resources.json"
        file.write_text(json.dumps({"devices": rules}), encoding="ascii")
        scene.call("update", "--resources", str(file), "c1")
        assert (scene.call(*attempt, check=False).returncode == 0) == is_allowed
        assert scene.call("exec", "c1", "sh", "-c", ": > /dev/null").returncode == 0
    scene.call("delete", "--force", "c1")


def test_properties_by_annotation(scene: Scene) -> None:
    """What a configuration says to systemd itself."""
    scene.bundle.config["annotations"] = {
        "org.systemd.property.TimeoutStopUSec": "uint64 3000000",
        "org.systemd.property.CollectMode": "'inactive-or-failed'",
    }
    scene.create()
    assert scene.property("TimeoutStopUSec") == "3s"
    scene.call("delete", "--force", "c1")
    until(scene.is_gone)


def test_a_unit_that_is_there(scene: Scene) -> None:
    """A scope of somebody else's is left alone."""
    other = subprocess.Popen(["systemd-run", "--scope", f"--unit={scene.unit}", "sleep", "600"])
    try:
        until(scene.group.exists)
        assert scene.create(check=False).returncode == 1
        assert scene.unit in (scene.bundle.path / "output").read_text(encoding="utf-8")
        assert scene.property("ActiveState") == "active"
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()
    until(scene.is_gone)


def test_a_creation_that_fails(scene: Scene) -> None:
    """It leaves no unit."""
    scene.bundle.config["hooks"] = {"createRuntime": [{"path": "/bin/false"}]}
    assert scene.create(check=False).returncode == 1
    until(scene.is_gone)


def test_a_property_that_there_is_not(scene: Scene) -> None:
    """The message says which one, in the words of systemd."""
    scene.bundle.config["annotations"] = {"org.systemd.property.Nonsense": "1"}
    assert scene.create(check=False).returncode == 1
    assert "Nonsense" in (scene.bundle.path / "output").read_text(encoding="utf-8")
    until(scene.is_gone)


def test_who_owns_the_group(scene: Scene) -> None:
    """With a namespace and a mount of its own, root of a user namespace can make groups there."""
    linux = scene.bundle.config["linux"]
    linux["namespaces"] += [{"type": "user"}, {"type": "cgroup"}]
    linux["uidMappings"] = linux["gidMappings"] = [{"containerID": 0, "hostID": 100_000, "size": 65_536}]
    mount = {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup"}
    scene.bundle.config["mounts"].append(mount)
    scene.create()
    scene.call("start", "c1")
    assert scene.group.stat().st_uid == 100_000
    assert (scene.group / "cgroup.procs").stat().st_uid == 100_000
    assert (scene.group / "pids.max").stat().st_uid == 0
    script = "cd /sys/fs/cgroup && mkdir inner && echo 1 > inner/cgroup.procs && cat /proc/1/cgroup"
    assert scene.call("exec", "c1", "sh", "-c", script).stdout == b"0::/inner\n"
    scene.call("delete", "--force", "c1")
    until(scene.is_gone)


def test_a_group_that_is_looked_at_only(scene: Scene) -> None:
    """A mount that is read-only changes no owner."""
    linux = scene.bundle.config["linux"]
    linux["namespaces"] += [{"type": "user"}, {"type": "cgroup"}]
    linux["uidMappings"] = linux["gidMappings"] = [{"containerID": 0, "hostID": 100_000, "size": 65_536}]
    mount = {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["ro"]}
    scene.bundle.config["mounts"].append(mount)
    scene.create()
    assert scene.group.stat().st_uid == 0
    scene.call("delete", "--force", "c1")
