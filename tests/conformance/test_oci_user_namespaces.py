"""User and time namespaces, and mounts with other owners, by our runtime, runc and crun alike.

Each test is one or several MUSTs of config.md or config-linux.md of the runtime specification; see
`test_oci_config`.
"""

from __future__ import annotations

import os
import stat
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
from support.oci import OURS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from support.oci import Bundle, OciRuntime

pytestmark = [pytest.mark.root, pytest.mark.cgroup, pytest.mark.peers, pytest.mark.userns]

FIRST = 100_000
COUNT = 65_536
MAPPINGS = [{"containerID": 0, "hostID": FIRST, "size": COUNT}]

DEVIATIONS = {
    **dict.fromkeys(
        (
            "test_clocks[runc]",
            "test_clocks_of_a_further_process[runc]",
            "test_mounts_with_other_owners[runc-own]",
            "test_mounts_with_other_owners[runc-containers]",
        ),
        "its version does not know it yet",
    ),
    **dict.fromkeys(
        ("test_clocks[crun]", "test_clocks_of_a_further_process[crun]"), "it wants a user namespace as well"
    ),
}


def unshare(bundle: Bundle, *mappings: dict[str, int]) -> None:
    """Give a bundle a user namespace, and its root file system to who is root there."""
    linux = bundle.config["linux"]
    linux["namespaces"].append({"type": "user"})
    linux["uidMappings"] = linux["gidMappings"] = list(mappings)
    owner = mappings[0]["hostID"] if mappings else 0
    for path in (bundle.rootfs, *bundle.rootfs.rglob("*")):
        os.chown(path, owner, owner, follow_symlinks=False)


@pytest.fixture
def mapped(bundle: Bundle) -> Bundle:
    """Return a bundle whose root is nobody outside."""
    unshare(bundle, *MAPPINGS)
    return bundle


def test_who_is_who(runtime: OciRuntime, mapped: Bundle) -> None:
    """Root inside is the first of the mapping outside, and makes files as that one."""
    mapped.script("id -u; id -g; cat /proc/self/uid_map /proc/self/gid_map; : > /made")
    user, group, *maps = runtime.run(mapped).splitlines()
    assert (user, group) == ("0", "0")
    assert [line.split() for line in maps] == [["0", str(FIRST), str(COUNT)]] * 2
    made = (mapped.rootfs / "made").stat()
    assert (made.st_uid, made.st_gid) == (FIRST, FIRST)


def test_several_ranges(runtime: OciRuntime, bundle: Bundle) -> None:
    """Each range counts for itself."""
    unshare(bundle, *MAPPINGS, {"containerID": COUNT, "hostID": 5_000_000, "size": 10})
    bundle.config["process"]["user"] = {"uid": COUNT + 3, "gid": COUNT + 4, "additionalGids": [7]}
    (bundle.rootfs / "open").mkdir()
    (bundle.rootfs / "open").chmod(0o777)
    bundle.script("id -u; id -g; id -G; : > /open/made")
    assert runtime.run(bundle).split() == [str(COUNT + 3), str(COUNT + 4), str(COUNT + 4), "7"]
    made = (bundle.rootfs / "open" / "made").stat()
    assert (made.st_uid, made.st_gid) == (5_000_003, 5_000_004)


def test_without_mappings(oci: Callable[[str], OciRuntime], bundle: Bundle) -> None:
    """A namespace without mappings has those of the host. The others refuse it or map one number only."""
    unshare(bundle)
    bundle.script("cat /proc/self/uid_map; id -u; readlink /proc/self/ns/user")
    line, user, namespace = oci(OURS).run(bundle).splitlines()
    assert line.split() == ["0", "0", str(2**32 - 1)]
    assert user == "0"
    assert namespace != os.readlink("/proc/self/ns/user")


@pytest.mark.parametrize(
    "problem", ["overlap", "no-namespace", "no-root", "no-user", "one-sided", "too-large"]
)
def test_wrong_mappings(oci: Callable[[str], OciRuntime], mapped: Bundle, problem: str) -> None:
    """What cannot be is an error that names the field, and nothing is left."""
    linux = mapped.config["linux"]
    if problem == "overlap":
        linux["uidMappings"] = [*MAPPINGS, {"containerID": 5, "hostID": 1, "size": 2}]
    elif problem == "no-namespace":
        linux["namespaces"].pop()
    elif problem == "no-root":
        linux["uidMappings"] = [{"containerID": 1, "hostID": FIRST, "size": COUNT}]
    elif problem == "no-user":
        mapped.config["process"]["user"]["uid"] = COUNT
    elif problem == "too-large":
        linux["uidMappings"] = [{"containerID": 0, "hostID": 2**32 - 2, "size": 3}]
    else:
        mapped.config["mounts"].append(
            {"destination": "/in", "type": "bind", "source": "rootfs", "options": ["bind"]}
            | {"uidMappings": MAPPINGS}
        )
    message = oci(OURS).refuse(mapped)
    assert "Mappings" in message, message


def test_privileges_inside(runtime: OciRuntime, mapped: Bundle) -> None:
    """All capabilities are to be had, for what belongs to the namespace and for nothing else."""
    sets = ("bounding", "effective", "permitted")
    names = ["CAP_SYS_ADMIN", "CAP_SYS_RESOURCE", "CAP_NET_ADMIN", "CAP_MKNOD", "CAP_SYS_CHROOT"]
    mapped.config["process"]["capabilities"] = dict.fromkeys(sets, names)
    mapped.script(
        "grep CapEff /proc/self/status; mount -t tmpfs none /tmp && echo mounted;"
        "mknod /tmp/sda b 8 0 2>/dev/null || echo no node; hostname other && hostname;"
        "ip link set lo mtu 1000 && cat /sys/class/net/lo/mtu"
    )
    caps, *rest = runtime.run(mapped).splitlines()
    assert int(caps.split()[1], 16) == 1 << 21 | 1 << 24 | 1 << 12 | 1 << 27 | 1 << 18
    assert rest == ["mounted", "no node", "other", "1000"]


def test_devices_and_mounts(runtime: OciRuntime, mapped: Bundle) -> None:
    """The devices that have to be there are, and work; so do the other mounts and what is hidden."""
    mapped.config["linux"]["maskedPaths"] = ["/proc/timer_list", "/proc/acpi", "/proc/missing"]
    mapped.config["linux"]["readonlyPaths"] = ["/proc/sys"]
    mapped.script(
        "for name in null zero full random urandom tty; do stat -c '%n %t %T' /dev/$name; done;"
        "head -c 2 /dev/zero | wc -c; echo x > /dev/null && ls /dev/pts;"
        "cat /proc/timer_list; echo 1 2>/dev/null > /proc/sys/kernel/domainname || echo locked"
    )
    lines = runtime.run(mapped).splitlines()
    numbers = {"null": "1 3", "zero": "1 5", "full": "1 7", "random": "1 8", "urandom": "1 9", "tty": "5 0"}
    assert lines[:6] == [f"/dev/{name} {number}" for name, number in numbers.items()]
    assert lines[6:] == ["2", "ptmx", "locked"]


def test_a_device_that_the_host_has_not(oci: Callable[[str], OciRuntime], mapped: Bundle) -> None:
    """The host's own is shown, so it has to be there, and to be that one."""
    device: dict[str, Any] = {"path": "/dev/null2", "type": "c", "major": 1, "minor": 3}
    mapped.config["linux"]["devices"] = [device]
    assert "/dev/null2" in oci(OURS).refuse(mapped)
    mapped.config["linux"]["devices"] = [device | {"path": "/dev/null", "minor": 5}]
    assert "/dev/null" in oci(OURS).refuse(mapped)


def test_limits_and_score(runtime: OciRuntime, mapped: Bundle) -> None:
    """What takes a privilege outside is done before that is given up."""
    process = mapped.config["process"]
    process["rlimits"] = [{"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200}]
    process["oomScoreAdj"] = 123
    mapped.script("ulimit -Sn; ulimit -Hn; cat /proc/self/oom_score_adj")
    assert runtime.run(mapped).split() == ["100", "200", "123"]


def test_closed_directories(oci: Callable[[str], OciRuntime], mapped: Bundle) -> None:
    """The host's root may keep the way to the bundle to itself."""
    source = mapped.path / "source"
    source.mkdir()
    (source / "file").write_text("seen\n", encoding="utf-8")
    mapped.path.chmod(0o700)
    mapped.config["mounts"].append(
        {"destination": "/in", "type": "bind", "source": str(source), "options": ["rbind", "ro"]}
    )
    mapped.script("cat /in/file; (: > /in/file) 2>/dev/null || echo refused")
    assert oci(OURS).run(mapped) == "seen\nrefused\n"


def test_streams(oci: Callable[[str], OciRuntime], mapped: Bundle) -> None:
    """The command can open its streams by their names, also as another user."""
    mapped.config["process"]["user"] = {"uid": 12, "gid": 34}
    mapped.script("echo out > /dev/stdout")
    assert oci(OURS).run(mapped) == "out\n"


def test_a_further_process(runtime: OciRuntime, mapped: Bundle) -> None:
    """What joins is who it is inside, and can do there what the container's own can."""
    mapped.command("sleep", "1000")
    runtime.create(mapped)
    runtime.call("start", "c1")
    script = "id -u; cat /proc/self/uid_map; : > /joined;"
    script += "for n in self 1; do readlink /proc/$n/ns/user; done"
    done = runtime.call("exec", "c1", "sh", "-c", script)
    user, line, own, first = done.stdout.decode().splitlines()
    assert (user, line.split()) == ("0", ["0", str(FIRST), str(COUNT)])
    assert own == first
    assert (mapped.rootfs / "joined").stat().st_uid == FIRST
    done = runtime.call("exec", "--user", "12:34", "c1", "sh", "-c", "id -u; id -g")
    assert done.stdout.split() == [b"12", b"34"]


def test_the_terminal_of_a_further_process(oci: Callable[[str], OciRuntime], mapped: Bundle) -> None:
    """It belongs to who works at it."""
    runtime = oci(OURS)
    mapped.command("sleep", "1000")
    runtime.create(mapped)
    runtime.call("start", "c1")
    for user in ("0", "12"):
        done = runtime.call("exec", "--tty", "--user", user, "c1", "sh", "-c", "stat -c %u $(tty)")
        assert done.stdout.split() == [user.encode()]


@pytest.mark.parametrize("kind", ["user", "user+net"])
def test_a_namespace_by_path(runtime: OciRuntime, mapped: Bundle, kind: str) -> None:
    """A second container in the user namespace of a first one, and in its network."""
    bundle = mapped
    bundle.command("sleep", "1000")
    runtime.create(bundle)
    pid = runtime.state()["pid"]
    linux = bundle.config["linux"]
    linux["cgroupsPath"] += "-second"
    linux["namespaces"] = [each for each in linux["namespaces"] if each["type"] != "user"]
    linux["namespaces"].append({"type": "user", "path": f"/proc/{pid}/ns/user"})
    if kind == "user+net":
        linux["namespaces"] = [each for each in linux["namespaces"] if each["type"] != "network"]
        linux["namespaces"].insert(0, {"type": "network", "path": f"/proc/{pid}/ns/net"})
    bundle.script("id -u; for n in user net; do readlink /proc/self/ns/$n; done; : > /second")
    user, joined, network = runtime.run(bundle, "c2").splitlines()
    assert user == "0"
    assert joined == os.readlink(f"/proc/{pid}/ns/user")
    assert (network == os.readlink(f"/proc/{pid}/ns/net")) == (kind == "user+net")
    assert (bundle.rootfs / "second").stat().st_uid == FIRST


@pytest.mark.parametrize("whose", ["own", "containers"])
def test_mounts_with_other_owners(runtime: OciRuntime, bundle: Bundle, whose: str) -> None:
    """What belongs to one outside belongs to another inside, and what is made there the other way round."""
    source = bundle.path / "source"
    source.mkdir()
    os.chown(source, 0 if whose == "containers" else 7, 0)
    mount: dict[str, Any] = {"destination": "/in", "type": "bind", "source": str(source)}
    mount["options"] = ["rbind", "idmap"]
    if whose == "containers":
        unshare(bundle, *MAPPINGS)
    else:
        mount["uidMappings"] = mount["gidMappings"] = [{"containerID": 0, "hostID": 1000, "size": 10}]
    bundle.config["mounts"].append(mount)
    bundle.script("stat -c %u /in; : > /in/made; stat -c %u /in/made")
    if whose == "own":
        bundle.config["process"]["user"] = {"uid": 1007, "gid": 1000}
    assert runtime.run(bundle).split() == ["0" if whose == "containers" else "1007"] * 2
    assert (source / "made").stat().st_uid == (0 if whose == "containers" else 7)


@pytest.fixture
def nested(mapped: Bundle) -> Iterator[Path]:
    """Return a directory with a mount below it."""
    source = mapped.path / "source"
    (source / "below").mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "none", source / "below"], check=True)
    yield source
    subprocess.run(["umount", source / "below"], check=True)


def test_owners_below(oci: Callable[[str], OciRuntime], mapped: Bundle, nested: Path) -> None:
    """The word for the whole tree means the mounts below, too; the other one does not."""
    mount = {"destination": "/in", "type": "bind", "source": str(nested), "options": ["rbind", "idmap"]}
    mapped.config["mounts"].append(mount)
    mapped.script("stat -c %u /in /in/below")
    assert oci(OURS).run(mapped).split() == ["0", "65534"]
    mount["options"] = ["rbind", "ridmap"]
    assert oci(OURS).run(mapped).split() == ["0", "0"]


@pytest.mark.parametrize("problem", ["no-bind", "nothing-says-to-what"])
def test_wrong_mounts_with_other_owners(
    oci: Callable[[str], OciRuntime], bundle: Bundle, problem: str
) -> None:
    """What cannot be mapped is an error that names the mount."""
    mount = {"destination": "/in", "type": "tmpfs", "source": "tmpfs", "options": ["idmap"]}
    if problem == "nothing-says-to-what":
        mount = {"destination": "/in", "type": "bind", "source": "rootfs", "options": ["bind", "idmap"]}
    bundle.config["mounts"].append(mount)
    assert "/in" in oci(OURS).refuse(bundle)


def test_hooks_inside(runtime: OciRuntime, mapped: Bundle) -> None:
    """Hooks in the container's namespaces are in this one, too, as its root."""
    hook = mapped.rootfs / "bin" / "hook"
    hook.write_text("#!/bin/sh\nid -u > /seen; readlink /proc/self/ns/user >> /seen\n", encoding="utf-8")
    hook.chmod(0o755)
    mapped.config["hooks"] = {"startContainer": [{"path": "/bin/hook"}]}
    mapped.script("readlink /proc/self/ns/user")
    namespace = runtime.run(mapped).strip()
    assert (mapped.rootfs / "seen").read_text(encoding="utf-8").split() == ["0", namespace]


def test_groups_inside(runtime: OciRuntime, mapped: Bundle) -> None:
    """The control groups that are mounted in it are the container's own."""
    mapped.config["linux"]["namespaces"].append({"type": "cgroup"})
    mapped.config["mounts"].append(
        {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["ro"]}
    )
    mapped.script("find /sys/fs/cgroup -name cgroup.procs | head -1 | xargs cat; echo end")
    assert runtime.run(mapped).splitlines()[-1] == "end"


def test_files_of_the_host_are_out_of_reach(runtime: OciRuntime, mapped: Bundle) -> None:
    """What the host's root keeps to itself stays closed, whoever mounts it."""
    secret = mapped.path / "secret"
    secret.write_text("secret\n", encoding="utf-8")
    secret.chmod(stat.S_IRUSR)
    mapped.config["mounts"].append(
        {"destination": "/in", "type": "bind", "source": str(secret), "options": ["bind"]}
    )
    mapped.script("cat /in 2>/dev/null || echo closed")
    assert runtime.run(mapped) == "closed\n"


def clocks_of(text: str) -> tuple[str, list[list[str]]]:
    """What a namespace is called, and how its clocks are set."""
    name, *rows = text.splitlines()
    return name, [row.split() for row in rows]


def test_clocks(runtime: OciRuntime, bundle: Bundle) -> None:
    """Clocks of a time namespace run ahead as they are told."""
    bundle.config["linux"]["namespaces"].append({"type": "time"})
    bundle.config["linux"]["timeOffsets"] = {
        "boottime": {"secs": 1_000_000, "nanosecs": 5},
        "monotonic": {"secs": 2_000},
    }
    bundle.script("readlink /proc/self/ns/time; cat /proc/self/timens_offsets; cut -d. -f1 /proc/uptime")
    *lines, uptime = runtime.run(bundle).splitlines()
    name, rows = clocks_of("\n".join(lines))
    assert name != os.readlink("/proc/self/ns/time")
    assert rows == [["monotonic", "2000", "0"], ["boottime", "1000000", "5"]]
    assert int(uptime) >= 1_000_000


def test_clocks_of_a_further_process(runtime: OciRuntime, bundle: Bundle) -> None:
    """What joins has the container's clocks."""
    bundle.config["linux"]["namespaces"].append({"type": "time"})
    bundle.config["linux"]["timeOffsets"] = {"boottime": {"secs": 1_000_000}}
    bundle.command("sleep", "1000")
    runtime.create(bundle)
    runtime.call("start", "c1")
    pid = runtime.state()["pid"]
    done = runtime.call("exec", "c1", "sh", "-c", "readlink /proc/self/ns/time")
    assert done.stdout.decode().strip() == os.readlink(f"/proc/{pid}/ns/time")


def test_unknown_clock(oci: Callable[[str], OciRuntime], bundle: Bundle) -> None:
    """There are two."""
    bundle.config["linux"]["namespaces"].append({"type": "time"})
    bundle.config["linux"]["timeOffsets"] = {"realtime": {"secs": 1}}
    assert "linux.timeOffsets.realtime" in oci(OURS).refuse(bundle)
