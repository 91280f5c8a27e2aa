from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from containerlib.runtime.cgroup_host import CgroupHost, Disk

if TYPE_CHECKING:
    from collections.abc import Mapping

HYBRID_MOUNTS = """\
23 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid shared:9 - cgroup cgroup rw,cpu,cpuacct
34 31 0:31 / /sys/fs/cgroup/cpuset rw,relatime - cgroup cgroup rw,cpuset,clone_children
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
39 31 0:36 / /sys/fs/cgroup/pids rw,relatime - cgroup cgroup rw,pids
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
"""
HYBRID_OWN = """\
9:name=systemd:/user.slice/session-1.scope
8:pids:/user.slice/a:b
4:memory:/user.slice/user-0.slice
3:cpuset:/
1:cpu,cpuacct:/user.slice
0::/user.slice/session-1.scope
"""
V2_MOUNTS = "30 23 0:26 / /sys/fs/cgroup rw,nosuid,nodev shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
SESSION = "/user.slice/user-0.slice/session-1.scope"
AVAILABLE = "cpuset cpu io memory pids\n"


class FakeDisk(Disk):
    """Answers from a table of files; directories exist unless a problem is given."""

    def __init__(
        self, files: Mapping[str, str] | None = None, problems: Mapping[str, str] | None = None
    ) -> None:
        self.files = files or {}
        self.problems = problems or {}
        self.asked: list[tuple[str, str, int]] = []

    def find_problem(self, path: str, device: str, version: int) -> str | None:
        """Look the path up, and remember what was asked."""
        self.asked.append((path, device, version))
        return self.problems.get(path)

    def is_writable(self, path: str) -> bool:
        """Whether no problem is known."""
        return path not in self.problems

    def read(self, path: str) -> str | None:
        """Look the file up."""
        return self.files.get(path)


def v2_files(tree: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """Build the files of a version 2 tree from `{cgroup: {file: text}}`."""
    return {
        f"/sys/fs/cgroup{path}/{file}": text for path, files in tree.items() for file, text in files.items()
    }


def test_hybrid() -> None:
    """Every controller is found in its own tree, below the caller's own cgroup, by device number."""
    disk = FakeDisk()
    host = CgroupHost.probe(mountinfo=HYBRID_MOUNTS, own_cgroups=HYBRID_OWN, disk=disk)
    assert host.mode == "hybrid"
    assert {name: c.hierarchy.own_path for name, c in host.controllers.items()} == {
        "pids": "/sys/fs/cgroup/pids/user.slice/a:b",
        "memory": "/sys/fs/cgroup/memory/user.slice/user-0.slice",
        "cpuset": "/sys/fs/cgroup/cpuset",
        "cpu": "/sys/fs/cgroup/cpu,cpuacct/user.slice",
        "cpuacct": "/sys/fs/cgroup/cpu,cpuacct/user.slice",
    }
    assert all(c.problem is None and c.hierarchy.version == 1 for c in host.controllers.values())
    assert host.controllers["cpu"].hierarchy is host.controllers["cpuacct"].hierarchy
    assert host.unified is not None
    assert host.unified.own_path == "/sys/fs/cgroup/unified/user.slice/session-1.scope"
    assert host.unified.own_cgroup == "/user.slice/session-1.scope"
    assert ("/sys/fs/cgroup/memory/user.slice/user-0.slice", "0:32", 1) in disk.asked
    assert len(list(host.hierarchies())) == 5


def test_v1_only() -> None:
    """Without a mounted version 2 tree there is no unified hierarchy, though the kernel lists one."""
    mounts = "".join(line + "\n" for line in HYBRID_MOUNTS.splitlines() if "cgroup2" not in line)
    host = CgroupHost.probe(mountinfo=mounts, own_cgroups=HYBRID_OWN, disk=FakeDisk())
    assert host.mode == "v1"
    assert host.unified is None
    assert host.find("io", "blkio") is None
    assert host.find("memory") is host.controllers["memory"]


def test_named_hierarchies_are_not_ours() -> None:
    """Trees without controllers, such as systemd's, are left alone."""
    host = CgroupHost.probe(mountinfo=HYBRID_MOUNTS, own_cgroups=HYBRID_OWN, disk=FakeDisk())
    assert not any("systemd" in path for path in (h.mount_point for h in host.hierarchies()))


def test_none() -> None:
    """Where nothing is mounted or nothing is writable, the mode says so and the reasons are kept."""
    assert CgroupHost.probe(mountinfo="", own_cgroups=HYBRID_OWN, disk=FakeDisk()).mode == "none"
    assert CgroupHost.probe(mountinfo=HYBRID_MOUNTS, own_cgroups="", disk=FakeDisk()).mode == "none"

    class ReadOnly(FakeDisk):
        def find_problem(self, path: str, device: str, version: int) -> str | None:
            """Refuse everything."""
            del device, version
            return f"{path} is mounted read-only"

    host = CgroupHost.probe(mountinfo=HYBRID_MOUNTS, own_cgroups=HYBRID_OWN, disk=ReadOnly())
    assert host.mode == "none"
    assert host.controllers["pids"].problem == "/sys/fs/cgroup/pids/user.slice/a:b is mounted read-only"
    assert list(host.hierarchies()) == []


@pytest.mark.parametrize(
    ("root", "own", "expected"),
    [
        ("/docker/c1", "/docker/c1", "/sys/fs/cgroup/pids"),
        ("/docker/c1", "/docker/c1/inner", "/sys/fs/cgroup/pids/inner"),
        ("/", "/", "/sys/fs/cgroup/pids"),
        ("/docker/c1", "/docker/c10", None),
        ("/docker/c1", "/", None),
        ("/", "/../..", None),
        ("/", "/..", None),
        ("/../..", "/", None),
        ("/", "/gone (deleted)", None),
    ],
)
def test_docker_in_docker(root: str, own: str, expected: str | None) -> None:
    """A bind-mounted part of a tree is followed; a cgroup outside of it, or of the namespace, is not."""
    host = CgroupHost.probe(
        mountinfo=f"39 31 0:36 {root} /sys/fs/cgroup/pids rw,relatime - cgroup cgroup rw,pids\n",
        own_cgroups=f"8:pids:{own}\n",
        disk=FakeDisk(),
    )
    found = host.controllers["pids"]
    assert (found.hierarchy.own_path or None) == expected
    assert (found.problem is None) == (expected is not None)


def test_octal_escapes() -> None:
    """Spaces and backslashes of a mount point arrive as themselves."""
    host = CgroupHost.probe(
        mountinfo="39 31 0:36 /a\\040b /mnt/my\\040pids\\134x rw - cgroup cgroup rw,pids\n",
        own_cgroups="8:pids:/a b/c\n",
        disk=FakeDisk(),
    )
    assert host.controllers["pids"].hierarchy.own_path == "/mnt/my pids\\x/c"


def test_a_usable_mount_is_preferred() -> None:
    """Of several mounts of one tree, the one that can be used is taken."""
    mounts = (
        "38 31 0:36 /other /mnt/other rw - cgroup cgroup rw,pids\n"
        "39 31 0:36 / /mnt/hidden rw - cgroup cgroup rw,pids\n"
        "40 31 0:36 / /mnt/good rw - cgroup cgroup rw,pids\n"
    )
    disk = FakeDisk(problems={"/mnt/hidden/a": "/mnt/hidden/a is covered by another mount"})
    host = CgroupHost.probe(mountinfo=mounts, own_cgroups="8:pids:/a\n", disk=disk)
    assert host.controllers["pids"].hierarchy.own_path == "/mnt/good/a"


def test_v2_root() -> None:
    """The root passes on what it has, processes or not."""
    disk = FakeDisk(v2_files({"": {"cgroup.controllers": AVAILABLE, "cgroup.subtree_control": ""}}))
    host = CgroupHost.probe(mountinfo=V2_MOUNTS, own_cgroups="0::/\n", disk=disk)
    assert host.mode == "v2"
    assert {n for n, c in host.controllers.items() if c.problem is None} == set(AVAILABLE.split())


def systemd_tree(**session: str) -> dict[str, str]:
    """Build a session as systemd sets it up: slices pass controllers on, the scope has processes."""
    slice_files = {"cgroup.type": "domain\n", "cgroup.controllers": AVAILABLE, "cgroup.procs": ""}
    return v2_files(
        {
            "": {"cgroup.controllers": AVAILABLE, "cgroup.subtree_control": AVAILABLE},
            "/user.slice": {**slice_files, "cgroup.subtree_control": AVAILABLE},
            "/user.slice/user-0.slice": {**slice_files, "cgroup.subtree_control": "memory pids\n"},
            SESSION: {
                "cgroup.type": "domain\n",
                "cgroup.controllers": "memory pids\n",
                "cgroup.subtree_control": "",
                "cgroup.procs": "77\n",
                "memory.max": "max\n",
                **session,
            },
        }
    )


def test_v2_session_climbs_to_the_root() -> None:
    """A populated scope cannot pass controllers on; the root has all of them, if it may be written."""
    host = CgroupHost.probe(mountinfo=V2_MOUNTS, own_cgroups=f"0::{SESSION}\n", disk=FakeDisk(systemd_tree()))
    assert host.unified is not None
    assert (host.unified.own_path, host.unified.own_cgroup) == ("/sys/fs/cgroup", "/")
    assert {name for name, found in host.controllers.items() if not found.problem} == set(AVAILABLE.split())


def test_v2_session_climbs_to_the_slice() -> None:
    """Where the root is not to be had, directories are made beside the scope."""
    disk = FakeDisk(systemd_tree(), {"/sys/fs/cgroup": "not yours", "/sys/fs/cgroup/user.slice": "not yours"})
    host = CgroupHost.probe(mountinfo=V2_MOUNTS, own_cgroups=f"0::{SESSION}\n", disk=disk)
    assert host.unified is not None
    assert host.unified.own_path == "/sys/fs/cgroup/user.slice/user-0.slice"
    assert host.unified.own_cgroup == "/user.slice/user-0.slice"
    assert host.controllers["memory"].problem is None


@pytest.mark.parametrize(
    "limit",
    [
        {"memory.max": "1000000\n"},
        {"memory.high": "1000000\n"},
        {"cpu.max": "50000 100000\n"},
        {"cpuset.cpus": "0\n"},
    ],
)
def test_v2_never_climbs_out_of_a_limit(limit: dict[str, str]) -> None:
    """A limit on the caller's own cgroup is not evaded: containers run there without limits of their own."""
    disk = FakeDisk(systemd_tree(**limit))
    host = CgroupHost.probe(mountinfo=V2_MOUNTS, own_cgroups=f"0::{SESSION}\n", disk=disk)
    assert host.mode == "v2"
    assert host.unified is not None
    assert host.unified.own_path == f"/sys/fs/cgroup{SESSION}"
    assert "does not pass 'memory' on" in (host.controllers["memory"].problem or "")


def test_v2_does_not_climb_to_what_is_not_writable() -> None:
    """An ancestor of someone else is no place for our directories."""
    disk = FakeDisk(
        systemd_tree(),
        {
            "/sys/fs/cgroup/user.slice/user-0.slice/cgroup.procs": "not yours",
            "/sys/fs/cgroup/user.slice": "not yours",
            "/sys/fs/cgroup": "not yours",
        },
    )
    host = CgroupHost.probe(mountinfo=V2_MOUNTS, own_cgroups=f"0::{SESSION}\n", disk=disk)
    assert host.unified is not None
    assert host.unified.own_path == f"/sys/fs/cgroup{SESSION}"


@pytest.mark.parametrize("kind", ["threaded", "domain threaded", "domain invalid"])
def test_v2_threaded(kind: str) -> None:
    """Below a threaded cgroup none can hold processes: an ancestor is used, or the reason is that."""
    files = systemd_tree(**{"cgroup.type": f"{kind}\n", "cgroup.controllers": "pids\n"})
    host = CgroupHost.probe(mountinfo=V2_MOUNTS, own_cgroups=f"0::{SESSION}\n", disk=FakeDisk(files))
    assert host.unified is not None
    assert (host.unified.own_path, host.unified.problem) == ("/sys/fs/cgroup", None)
    assert host.controllers["memory"].problem is None
    alone = {
        f"/sys/fs/cgroup{above}": "not yours" for above in ("", "/user.slice", "/user.slice/user-0.slice")
    }
    host = CgroupHost.probe(mountinfo=V2_MOUNTS, own_cgroups=f"0::{SESSION}\n", disk=FakeDisk(files, alone))
    assert host.mode == "none"
    assert host.unified is not None
    assert f"/sys/fs/cgroup{SESSION} is threaded" in (host.unified.problem or "")
    assert "is threaded" in (host.controllers["pids"].problem or "")


def test_v2_parent_by_name() -> None:
    """An empty cgroup named by the caller replaces its own, and may be told to pass controllers on."""
    files = systemd_tree() | v2_files(
        {
            "/containers": {
                "cgroup.type": "domain\n",
                "cgroup.controllers": AVAILABLE,
                "cgroup.subtree_control": "",
                "cgroup.procs": "",
            }
        }
    )
    host = CgroupHost.probe(
        mountinfo=V2_MOUNTS,
        own_cgroups=f"0::{SESSION}\n",
        unified_parent="/containers",
        disk=FakeDisk(files),
    )
    assert host.unified is not None
    assert host.unified.own_path == "/sys/fs/cgroup/containers"
    assert all(c.problem is None for c in host.controllers.values())


def test_this_host() -> None:
    """The probe of the real host answers, whatever it finds."""
    host = CgroupHost.probe()
    assert host.mode in ("v1", "hybrid", "v2", "none")
    assert all(h.problem is None and h.own_path.startswith("/") for h in host.hierarchies())
