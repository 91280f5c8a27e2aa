"""What a configuration asks for and a container gets, by our runtime, runc and crun alike.

Each test is one or several MUSTs of config.md or config-linux.md of the runtime specification. A runtime that
does otherwise is in `DEVIATIONS`, with how; it is never ours.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from support.oci import OURS, until

from containerlib.runtime.cgroup_host import CgroupHost

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from support.oci import Bundle, OciRuntime

pytestmark = [pytest.mark.root, pytest.mark.cgroup, pytest.mark.peers]

# By the names of tests: what the Debian version of another runtime does otherwise.
DEVIATIONS = {
    "test_domainname[runc]": "it does not know the field yet",
    "test_hooks[runc]": "it runs poststart hooks when the container is created",
    "test_version[runc-]": "it takes any version",
    "test_version[runc-one]": "it takes any version",
    "test_version[runc-7.0.0]": "it takes any version",
    "test_required_fields[crun-args]": "it fails when the container is started",
    **{
        f"test_the_last_hooks_of_a_creation_that_fails[crun-{kind}]": "it runs none"
        for kind in ("prestart", "createRuntime", "createContainer")
    },
    "test_mode_of_memory[runc-mode=711]": "the directory's mode counts in any case",
    "test_memory_with_a_copy[crun]": "the directory itself has the kernel's mode",
    "test_mode_of_memory[crun-]": "it has that of the kernel",
    "test_wrong_filters[runc-errno]": "it takes a number that means nothing",
    "test_wrong_filters[runc-no-names]": "it takes that",
    "test_wrong_filters[crun-no-names]": "it takes that",
    "test_controllers_that_are_missing[crun-rdma]": "the limit is left out",
    "test_relative_directory[crun]": "it takes any path",
    "test_wrong_rlimits[runc-twice]": "the last one counts",
    "test_wrong_rlimits[crun-twice]": "the last one counts",
    "test_wrong_namespaces[crun-twice]": "it takes that",
    "test_the_later_option_counts[crun-nosuid-suid]": "an option is not taken back",
    "test_the_later_option_counts[crun-noexec-exec]": "an option is not taken back",
    "test_the_later_option_counts[crun-nodev-dev]": "an option is not taken back",
    "test_every_word_is_taken[runc-defaults]": "it tells the file system",
    **{
        f"test_every_word_is_taken[crun-{word}]": "the file system refuses it"
        for word in ("iversion", "loud", "noiversion", "silent")
    },
    **{
        f"test_every_word_is_taken[crun-{word}]": "propagation is for binds"
        for word in ("shared", "rshared", "unbindable", "runbindable")
    },
    "test_what_a_bind_takes_along[crun-bind-False]": "every bind is recursive",
    "test_the_callers_processes[crun]": "it leaves what still runs",
    "test_propagation_of_the_root[runc-shared]": "the root is a slave",
    # In the mount namespace that it needs here nothing reaches the host's mounts.
    "test_propagation[crun-rshared-True-True]": "its mounts are those of a namespace of its own",
    "test_propagation[crun-rslave-True-False]": "its mounts are those of a namespace of its own",
}


def line_of(text: str, start: str) -> str:
    """The line that begins so."""
    return next(line for line in text.splitlines() if line.startswith(start))


def mount_of(text: str, target: str) -> tuple[set[str], set[str]]:
    """The options of a mount in a text of mountinfo, and what it propagates."""
    for line in reversed(text.splitlines()):
        fields = line.split()
        if len(fields) > 6 and fields[4] == target:
            end = fields.index("-")
            return {*fields[5].split(","), *fields[end + 3].split(",")}, set(fields[6:end])
    raise AssertionError(f"{target} is not mounted: {text}")


# The document


@pytest.mark.parametrize("version", ["", "one", "7.0.0"])
def test_version(runtime: OciRuntime, bundle: Bundle, version: str) -> None:
    """A version that is none, or not understood, is an error."""
    bundle.config["ociVersion"] = version
    assert runtime.refuse(bundle)


def test_no_configuration(runtime: OciRuntime, bundle: Bundle) -> None:
    """Without config.json there is an error that says so."""
    done = runtime.call("create", "--bundle", str(bundle.path), "c1", check=False)
    assert done.returncode != 0
    assert b"config.json" in done.stderr
    assert runtime.call("state", "c1", check=False).returncode != 0


def test_root(runtime: OciRuntime, bundle: Bundle) -> None:
    """The root must be a directory; a relative path is below the bundle."""
    bundle.config["root"]["path"] = "missing"
    assert "missing" in runtime.refuse(bundle)
    bundle.config["root"]["path"] = str(bundle.rootfs)
    bundle.script("ls /bin/busybox")
    assert runtime.run(bundle) == "/bin/busybox\n"


def test_readonly_root(runtime: OciRuntime, bundle: Bundle) -> None:
    """A root that is read-only is."""
    bundle.config["root"]["readonly"] = True
    bundle.script("(: > /file) 2>/dev/null || echo refused")
    assert runtime.run(bundle) == "refused\n"
    bundle.config["root"]["readonly"] = False
    assert runtime.run(bundle) == ""
    assert (bundle.rootfs / "file").exists()


# The process


def test_arguments_environment_and_directory(runtime: OciRuntime, bundle: Bundle) -> None:
    """The command has exactly these, and is found by PATH."""
    bundle.script('pwd; echo "$ONE|$TWO"; echo "$0" "$@"; tr "\\0" "\\n" < /proc/1/environ | sort')
    bundle.config["process"]["args"] += ["zero", "first", "second word"]
    bundle.config["process"]["env"] += ["ONE=1", "TWO=a b"]
    bundle.config["process"]["cwd"] = "/tmp"
    lines = runtime.run(bundle).splitlines()
    assert lines[:3] == ["/tmp", "1|a b", "zero first second word"]
    found = dict(line.split("=", 1) for line in lines[3:])
    assert set(found) <= {"PATH", "ONE", "TWO", "HOME"}
    assert found["ONE"] == "1"


@pytest.mark.parametrize("field", ["args", "cwd"])
def test_required_fields(runtime: OciRuntime, bundle: Bundle, field: str) -> None:
    """What has to be there is missed."""
    del bundle.config["process"][field]
    assert runtime.refuse(bundle)


def test_relative_directory(runtime: OciRuntime, bundle: Bundle) -> None:
    """The working directory is an absolute path."""
    bundle.config["process"]["cwd"] = "tmp"
    assert "cwd" in runtime.refuse(bundle).lower()


def test_user(runtime: OciRuntime, bundle: Bundle) -> None:
    """User, group, further groups and umask are as given."""
    bundle.config["process"]["user"] = {"uid": 12, "gid": 34, "additionalGids": [56, 78], "umask": 0o027}
    bundle.script("grep -E '^(Uid|Gid|Groups):' /proc/self/status; umask")
    found = runtime.run(bundle)
    assert line_of(found, "Uid").split()[1:] == ["12"] * 4
    assert line_of(found, "Gid").split()[1:] == ["34"] * 4
    assert sorted(line_of(found, "Groups").split()[1:]) == ["56", "78"]
    assert found.splitlines()[-1] == "0027"


def test_capabilities(runtime: OciRuntime, bundle: Bundle) -> None:
    """Each of the five sets is as given."""
    sets = {
        "bounding": ["CAP_KILL", "CAP_CHOWN", "CAP_SETUID"],
        "permitted": ["CAP_KILL", "CAP_CHOWN"],
        "inheritable": ["CAP_KILL"],
        "effective": ["CAP_KILL", "CAP_CHOWN"],
        "ambient": ["CAP_KILL"],
    }
    bundle.config["process"]["capabilities"] = sets
    bundle.config["process"]["user"] = {"uid": 12, "gid": 34}
    bundle.script("grep ^Cap /proc/self/status")
    found = {line.split(":")[0]: int(line.split()[1], 16) for line in runtime.run(bundle).splitlines()}
    # What another user keeps across the execution is what is ambient.
    kill, chown, setuid = 1 << 5, 1 << 0, 1 << 7
    assert found == {
        "CapInh": kill,
        "CapPrm": kill,
        "CapEff": kill,
        "CapBnd": kill | chown | setuid,
        "CapAmb": kill,
    }


def test_no_capabilities(runtime: OciRuntime, bundle: Bundle) -> None:
    """Without any set there is none."""
    del bundle.config["process"]["capabilities"]
    bundle.script("grep -E '^Cap(Eff|Prm|Bnd)' /proc/self/status")
    assert {int(line.split()[1], 16) for line in runtime.run(bundle).splitlines()} == {0}


def test_rlimits(runtime: OciRuntime, bundle: Bundle) -> None:
    """Limits are as given."""
    bundle.config["process"]["rlimits"] = [
        {"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200},
        {"type": "RLIMIT_CORE", "soft": 0, "hard": 0},
    ]
    bundle.script("ulimit -Sn; ulimit -Hn; ulimit -c")
    assert runtime.run(bundle).split() == ["100", "200", "0"]


@pytest.mark.parametrize("kind", ["twice", "unknown"])
def test_wrong_rlimits(runtime: OciRuntime, bundle: Bundle, kind: str) -> None:
    """One that is there twice, or that there is not, is an error."""
    names = ["RLIMIT_CORE", "RLIMIT_CORE"] if kind == "twice" else ["RLIMIT_NONE"]
    bundle.config["process"]["rlimits"] = [{"type": name, "soft": 0, "hard": 0} for name in names]
    assert runtime.refuse(bundle)


def test_no_new_privileges(runtime: OciRuntime, bundle: Bundle) -> None:
    """It is set if asked for, else not."""
    bundle.script("grep NoNewPrivs /proc/self/status")
    for wanted in (True, False):
        bundle.config["process"]["noNewPrivileges"] = wanted
        assert runtime.run(bundle).split()[1] == str(int(wanted))


def test_oom_score(runtime: OciRuntime, bundle: Bundle) -> None:
    """It is as given, and untouched if not given."""
    bundle.script("cat /proc/self/oom_score_adj")
    before = Path("/proc/self/oom_score_adj").read_text(encoding="ascii")
    assert runtime.run(bundle) == before
    bundle.config["process"]["oomScoreAdj"] = 321
    assert runtime.run(bundle) == "321\n"


def test_host_name(runtime: OciRuntime, bundle: Bundle) -> None:
    """The container has its own."""
    before = os.uname().nodename
    bundle.script("hostname")
    assert runtime.run(bundle) == "bundle\n"
    assert os.uname().nodename == before


def test_domainname(runtime: OciRuntime, bundle: Bundle) -> None:
    """So has it a domain."""
    bundle.config["domainname"] = "some.domain"
    bundle.script("cat /proc/sys/kernel/domainname")
    assert runtime.run(bundle) == "some.domain\n"


# Mounts


def test_order_of_mounts(runtime: OciRuntime, bundle: Bundle) -> None:
    """They are made in their order: a later one may lie in an earlier one, or over it."""
    (bundle.path / "data").mkdir()
    (bundle.path / "data/file").write_text("inner", encoding="ascii")
    bundle.config["mounts"] += [
        {"destination": "/outer", "type": "tmpfs", "source": "tmpfs"},
        {"destination": "/outer/inner", "type": "bind", "source": "data", "options": ["bind"]},
    ]
    bundle.script("cat /outer/inner/file; grep -c ' /outer' /proc/self/mountinfo")
    assert runtime.run(bundle) == "inner2\n"


@pytest.mark.parametrize(
    "option", ["ro", "nosuid", "nodev", "noexec", "noatime", "nodiratime", "relatime", "sync", "dirsync"]
)
def test_options_of_mounts(runtime: OciRuntime, bundle: Bundle, option: str) -> None:
    """Options of a new mount are in force."""
    bundle.config["mounts"].append(
        {"destination": "/here", "type": "tmpfs", "source": "tmpfs", "options": ["size=1m", option]}
    )
    bundle.script("cat /proc/self/mountinfo")
    options, _ = mount_of(runtime.run(bundle), "/here")
    assert option in options
    assert "size=1024k" in options


@pytest.mark.parametrize(
    "option",
    [
        *("async", "atime", "defaults", "dev", "diratime", "exec", "iversion", "lazytime", "loud", "mand"),
        *("noiversion", "nolazytime", "nomand", "norelatime", "nostrictatime", "rw", "silent", "strictatime"),
        *("suid", "private", "rprivate", "shared", "rshared", "slave", "rslave", "unbindable", "runbindable"),
    ],
)
def test_every_word_is_taken(runtime: OciRuntime, bundle: Bundle, option: str) -> None:
    """No option of a mount that the specification demands is told to the file system, or refused."""
    bundle.config["mounts"].append(
        {"destination": "/here", "type": "tmpfs", "source": "tmpfs", "options": ["size=1m", option]}
    )
    bundle.script("cat /proc/self/mountinfo")
    options, spread = mount_of(runtime.run(bundle), "/here")
    assert {"rw", "size=1024k"} <= options
    assert "lazytime" in options or option != "lazytime"
    assert "relatime" not in options or option != "strictatime"
    assert any(word.startswith("shared:") for word in spread) or option not in {"shared", "rshared"}
    assert "unbindable" in spread or option not in {"unbindable", "runbindable"}


def test_remount_of_a_bind(runtime: OciRuntime, bundle: Bundle) -> None:
    """The flags of the mount are others then, and what is mounted is as it was."""
    (bundle.path / "data").mkdir()
    bundle.config["mounts"] += [
        {"destination": "/here", "type": "bind", "source": "data", "options": ["bind", "nodev"]},
        {
            "destination": "/here",
            "type": "bind",
            "source": "data",
            "options": ["bind", "remount", "ro", "nosuid"],
        },
        {
            "destination": "/sys",
            "type": "none",
            "source": "/sys",
            "options": ["bind", "remount", "ro", "noexec"],
        },
    ]
    bundle.script("cat /proc/self/mountinfo; (: > /here/file) 2>/dev/null || echo refused")
    told = runtime.run(bundle)
    assert told.endswith("refused\n")
    assert {"ro", "nosuid"} <= mount_of(told, "/here")[0]
    assert {"ro", "noexec"} <= mount_of(told, "/sys")[0]
    (bundle.path / "data/still").write_text("writable", encoding="ascii")


def test_remount_of_a_file_system(runtime: OciRuntime, bundle: Bundle) -> None:
    """It has other options then, and its content."""
    bundle.config["mounts"] += [
        {"destination": "/here", "type": "tmpfs", "source": "tmpfs", "options": ["size=1m"]},
        {"destination": "/here/data", "type": "bind", "source": "rootfs/etc", "options": ["bind"]},
        {
            "destination": "/here",
            "type": "tmpfs",
            "source": "tmpfs",
            "options": ["remount", "size=2m", "noexec"],
        },
    ]
    bundle.script("cat /proc/self/mountinfo; ls -d /here/data; df -k /here | tail -1")
    told = runtime.run(bundle)
    assert {"noexec", "size=2048k", "rw"} <= mount_of(told, "/here")[0]
    assert "\n/here/data\n" in told
    assert " 2048 " in told


@pytest.mark.parametrize("kind", ["nothing-there", "of-the-host"])
def test_remounts_that_cannot_be(oci: Callable[[str], OciRuntime], bundle: Bundle, kind: str) -> None:
    """What would change the host, or nothing at all."""
    place = "/sys" if kind == "of-the-host" else "/other"
    bundle.config["mounts"].append(
        {"destination": place, "type": "none", "source": "none", "options": ["remount", "ro"]}
    )
    message = oci(OURS).refuse(bundle)
    assert ("add 'bind'" if kind == "of-the-host" else "mount it first") in message


@pytest.mark.parametrize(("first", "then"), [("nosuid", "suid"), ("noexec", "exec"), ("nodev", "dev")])
def test_the_later_option_counts(runtime: OciRuntime, bundle: Bundle, first: str, then: str) -> None:
    """Of two that contradict each other."""
    bundle.config["mounts"].append(
        {"destination": "/here", "type": "tmpfs", "source": "tmpfs", "options": [first, then, "ro", "rw"]}
    )
    bundle.script("cat /proc/self/mountinfo")
    options, _ = mount_of(runtime.run(bundle), "/here")
    assert first not in options
    assert "ro" not in options


@pytest.mark.parametrize("option", ["ro", "nosuid", "nodev", "noexec"])
def test_options_of_binds(runtime: OciRuntime, bundle: Bundle, option: str) -> None:
    """They are those of the mount, and not of what is mounted."""
    (bundle.path / "data").mkdir()
    bundle.config["mounts"].append(
        {"destination": "/here", "type": "bind", "source": "data", "options": ["rbind", option]}
    )
    bundle.script("cat /proc/self/mountinfo")
    assert option in mount_of(runtime.run(bundle), "/here")[0]
    (bundle.path / "data/still").write_text("writable", encoding="ascii")


def test_bind_of_a_file(runtime: OciRuntime, bundle: Bundle) -> None:
    """A file can be bound, by an absolute path as well, on one that is not there yet."""
    (bundle.path / "one").write_text("content", encoding="ascii")
    bundle.config["mounts"].append(
        {
            "destination": "/new/place",
            "type": "none",
            "source": str(bundle.path / "one"),
            "options": ["bind", "ro"],
        }
    )
    bundle.script("cat /new/place; (: > /new/place) 2>/dev/null || echo refused")
    assert runtime.run(bundle) == "contentrefused\n"


def test_two_mounts_on_one_place(runtime: OciRuntime, bundle: Bundle) -> None:
    """The later one lies over the earlier, whatever kinds they are."""
    for name in ("one", "two"):
        (bundle.path / name).mkdir()
        (bundle.path / name / "file").write_text(name, encoding="ascii")
    bundle.config["mounts"] += [
        {"destination": "/a", "type": "bind", "source": "one", "options": ["bind"]},
        {"destination": "/a", "type": "bind", "source": "two", "options": ["bind"]},
        {"destination": "/b", "type": "bind", "source": "one", "options": ["bind"]},
        {"destination": "/b", "type": "tmpfs", "source": "tmpfs"},
    ]
    bundle.script("cat /a/file; ls /b | wc -l")
    assert runtime.run(bundle) == "two0\n"


@pytest.mark.parametrize("option", ["", "mode=711"])
def test_mode_of_memory(runtime: OciRuntime, bundle: Bundle, option: str) -> None:
    """Without a mode of its own a tmpfs has that of the directory that it lies over."""
    (bundle.rootfs / "over").mkdir()
    (bundle.rootfs / "over").chmod(0o750)
    options = ["nosuid", option] if option else ["nosuid"]
    bundle.config["mounts"].append(
        {"destination": "/over", "type": "tmpfs", "source": "tmpfs", "options": options}
    )
    bundle.script("stat -c %a /over")
    assert runtime.run(bundle) == ("711\n" if option else "750\n")


def test_memory_with_a_copy(runtime: OciRuntime, bundle: Bundle) -> None:
    """It begins with what it lies over: files, links, owners, modes; and what is written stays in it."""
    over = bundle.rootfs / "over"
    (over / "deep/er").mkdir(parents=True)
    (over / "deep/er/file").write_text("content", encoding="ascii")
    os.chown(over / "deep/er/file", 12, 34)
    (over / "deep/er/file").chmod(0o4644)
    os.chown(over / "deep", 56, 0)
    (over / "link").symlink_to("/etc/passwd")
    over.chmod(0o750)
    bundle.config["mounts"].append(
        {"destination": "/over", "type": "tmpfs", "source": "tmpfs", "options": ["tmpcopyup", "nodev"]}
    )
    bundle.script(
        "cd /over; stat -c %a:%u:%g . deep deep/er/file; readlink link; cat deep/er/file; echo;"
        ": > new; grep ' /over ' /proc/self/mountinfo"
    )
    *lines, mount = runtime.run(bundle).splitlines()
    assert lines == ["750:0:0", "755:56:0", "4644:12:34", "/etc/passwd", "content"]
    assert "nodev" in mount_of(mount, "/over")[0]
    assert not (over / "new").exists()


def test_memory_with_a_copy_of_nothing(runtime: OciRuntime, bundle: Bundle) -> None:
    """Where there is no directory it begins empty."""
    bundle.config["mounts"].append(
        {"destination": "/over", "type": "tmpfs", "source": "tmpfs", "options": ["tmpcopyup"]}
    )
    bundle.script("ls /over; : > /over/new")
    assert runtime.run(bundle) == ""


@pytest.mark.parametrize("problem", ["no-room", "covered", "bind", "too-deep"])
def test_copies_that_cannot_be(oci: Callable[[str], OciRuntime], bundle: Bundle, problem: str) -> None:
    """What cannot be copied is an error, and nothing is left."""
    over = bundle.rootfs / "over"
    over.mkdir()
    (over / "file").write_bytes(bytes(1 << 20))
    mount: dict[str, Any] = {"destination": "/over", "type": "tmpfs", "source": "tmpfs"}
    mount["options"] = ["tmpcopyup"]
    if problem == "no-room":
        mount["options"].append("size=64k")
    elif problem == "covered":
        above = {"destination": "/over", "type": "bind", "source": str(over), "options": ["bind"]}
        bundle.config["mounts"].append(above)
        mount["destination"] = "/over/below"
    elif problem == "bind":
        mount |= {"type": "bind", "source": str(over), "options": ["bind", "tmpcopyup"]}
    else:
        over.joinpath(*"d" * 200).mkdir(parents=True)
    bundle.config["mounts"].append(mount)
    message = oci(OURS).refuse(bundle)
    assert "/over" in message


@pytest.fixture
def tree(bundle: Bundle) -> Iterator[Path]:
    """Return a shared mount with a further one in it."""
    top = bundle.path / "tree"
    top.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(top)], check=True)
    subprocess.run(["mount", "--make-shared", str(top)], check=True)
    (top / "below").mkdir()
    (top / "later").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(top / "below")], check=True)
    (top / "below/file").write_text("below", encoding="ascii")
    yield top
    subprocess.run(["umount", "--recursive", str(top)], check=True)


@pytest.mark.parametrize(("option", "is_there"), [("bind", False), ("rbind", True)])
def test_what_a_bind_takes_along(
    runtime: OciRuntime,
    bundle: Bundle,
    tree: Path,
    option: str,
    is_there: bool,  # noqa: FBT001
) -> None:
    """One that is recursive has the mounts below it."""
    bundle.config["mounts"].append(
        {"destination": "/here", "type": "bind", "source": str(tree), "options": [option, "rprivate"]}
    )
    bundle.script("ls /here/below")
    assert runtime.run(bundle) == ("file\n" if is_there else "")


@pytest.mark.parametrize(
    ("option", "sees", "shows"),
    [("rprivate", False, False), ("rslave", True, False), ("rshared", True, True)],
)
def test_propagation(
    runtime: OciRuntime,
    bundle: Bundle,
    tree: Path,
    option: str,
    sees: bool,  # noqa: FBT001
    shows: bool,  # noqa: FBT001
) -> None:
    """Slaves see inside what the host mounts later; what is shared shows outside what is mounted inside."""
    if runtime.name != OURS:
        bundle.config["linux"]["rootfsPropagation"] = option
    bundle.config["mounts"].append(
        {"destination": "/here", "type": "bind", "source": str(tree), "options": ["rbind", option]}
    )
    sets = {name: ["CAP_SYS_ADMIN"] for name in ("bounding", "effective", "permitted")}
    bundle.config["process"]["capabilities"] = sets
    script = "mkdir -p /here/inside; mount -t tmpfs tmpfs /here/inside; echo ready; while :; do sleep 1; done"
    bundle.script(script)
    runtime.create(bundle)
    runtime.call("start", "c1")
    until(lambda: "ready" in (bundle.path / "output").read_text(encoding="ascii"))
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(tree / "later")], check=True)
    pid = runtime.state()["pid"]
    inside = Path(f"/proc/{pid}/mountinfo").read_text(encoding="utf-8")
    outside = Path("/proc/self/mountinfo").read_text(encoding="utf-8")
    assert (" /here/later " in inside) is sees
    assert (f" {tree}/inside " in outside) is shows


# Namespaces


def test_new_namespaces(runtime: OciRuntime, bundle: Bundle) -> None:
    """Those that are listed are new, the others are the caller's."""
    bundle.config["linux"]["namespaces"] = [{"type": kind} for kind in ("mount", "uts", "pid")]
    bundle.script("cd /proc/self/ns; for n in mnt uts pid ipc net cgroup user; do readlink $n; done")
    inside = dict(text.split(":") for text in runtime.run(bundle).split())
    names = ("mnt", "uts", "pid", "ipc", "net", "cgroup", "user")
    outside = dict(os.readlink(f"/proc/self/ns/{name}").split(":") for name in names)
    same = {name for name in names if inside[name] == outside[name]}
    # runc and crun run in a mount namespace of ours, or in none of their own; either way it is another one.
    assert same == {"ipc", "net", "cgroup", "user"}


def test_namespaces_by_path(runtime: OciRuntime, bundle: Bundle) -> None:
    """One that is named is joined, and its kind is checked."""
    with subprocess.Popen(
        ["unshare", "--net", "--uts", "--ipc", "sh", "-c", "hostname other; echo; exec sleep 600"],
        stdout=subprocess.PIPE,
    ) as other:
        try:
            assert other.stdout is not None
            other.stdout.readline()
            bundle.config["linux"]["namespaces"] = [
                {"type": "mount"},
                {"type": "pid"},
                *(
                    {"type": kind, "path": f"/proc/{other.pid}/ns/{file}"}
                    for kind, file in (("network", "net"), ("uts", "uts"), ("ipc", "ipc"))
                ),
            ]
            del bundle.config["hostname"]
            bundle.script("hostname; readlink /proc/self/ns/net; readlink /proc/self/ns/ipc")
            expected = [os.readlink(f"/proc/{other.pid}/ns/{name}") for name in ("net", "ipc")]
            assert runtime.run(bundle).splitlines() == ["other", *expected]
        finally:
            other.kill()


def test_the_callers_processes(runtime: OciRuntime, bundle: Bundle) -> None:
    """Without a PID namespace of its own it sees them; what it leaves behind is ended with it."""
    bundle.config["linux"]["namespaces"] = [{"type": "mount"}]
    del bundle.config["hostname"]
    bundle.script("sleep 600 >/dev/null 2>&1 & echo $!; exit 0")
    pid = int(runtime.run(bundle).strip())
    fd = os.pidfd_open(pid) if Path(f"/proc/{pid}/stat").exists() else -1
    try:
        assert fd < 0 or select.select([fd], [], [], 1)[0]
    finally:
        if fd >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(fd, signal.SIGKILL)
            os.close(fd)


@pytest.mark.parametrize("problem", ["unknown", "twice", "missing path", "other kind", "no namespace"])
def test_wrong_namespaces(runtime: OciRuntime, bundle: Bundle, problem: str) -> None:
    """A kind that there is not, one that is there twice, a path that leads nowhere or to another kind."""
    entry = {
        "unknown": {"type": "nothing"},
        "twice": {"type": "pid"},
        "missing path": {"type": "cgroup", "path": "/proc/1/ns/nothing"},
        "other kind": {"type": "cgroup", "path": "/proc/1/ns/uts"},
        "no namespace": {"type": "cgroup", "path": "/etc/passwd"},
    }[problem]
    bundle.config["linux"]["namespaces"].append(entry)
    assert runtime.refuse(bundle)


# Devices and kernel files


def test_devices(runtime: OciRuntime, bundle: Bundle) -> None:
    """Devices are made with number, mode and owner; those that every container has are there as well."""
    bundle.config["linux"]["devices"] = [
        {
            "path": "/dev/sub/fuse",
            "type": "c",
            "major": 10,
            "minor": 229,
            "fileMode": 0o640,
            "uid": 5,
            "gid": 6,
        }
    ]
    bundle.script(
        "stat -c '%t:%T %a %u:%g' /dev/sub/fuse; cd /dev"
        "; stat -c '%n %t:%T %a' null zero full random urandom tty"
        "; for n in fd stdin stdout stderr ptmx; do readlink $n; done; echo x > /dev/null"
    )
    lines = runtime.run(bundle).splitlines()
    assert lines[0] == "a:e5 640 5:6"
    assert lines[1:7] == [
        "null 1:3 666",
        "zero 1:5 666",
        "full 1:7 666",
        "random 1:8 666",
        "urandom 1:9 666",
        "tty 5:0 666",
    ]
    assert lines[7:11] == [f"/proc/self/fd{end}" for end in ("", "/0", "/1", "/2")]
    assert lines[11] in {"pts/ptmx", "/dev/pts/ptmx"}


def test_device_rules(runtime: OciRuntime, bundle: Bundle) -> None:
    """A device that is not allowed cannot be opened; one that is, can."""
    bundle.config["linux"]["devices"] = [
        {"path": "/dev/one", "type": "c", "major": 10, "minor": 237},  # loop-control
        {"path": "/dev/other", "type": "c", "major": 10, "minor": 237},
        {"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229},
    ]
    bundle.config["linux"]["resources"]["devices"].append(
        {"allow": True, "type": "c", "major": 10, "minor": 229, "access": "r"}
    )
    bundle.script(
        "for n in one other fuse; do (: < /dev/$n) 2>/dev/null && echo $n; done"
        "; (: > /dev/fuse) 2>/dev/null && echo writable; true"
    )
    assert runtime.run(bundle) == "fuse\n"


def test_hidden_and_readonly_paths(runtime: OciRuntime, bundle: Bundle) -> None:
    """Files that are masked are empty, directories have nothing in them; what is read-only is."""
    bundle.config["linux"]["maskedPaths"] = ["/proc/timer_list", "/proc/bus", "/proc/there/is/none"]
    bundle.config["linux"]["readonlyPaths"] = ["/proc/sys", "/proc/there/is/none"]
    bundle.script(
        "wc -c < /proc/timer_list; ls /proc/bus | wc -l"
        "; (echo 1 > /proc/sys/kernel/domainname) 2>/dev/null || echo refused"
    )
    assert runtime.run(bundle).split() == ["0", "0", "refused"]


def test_sysctls(runtime: OciRuntime, bundle: Bundle) -> None:
    """Settings of the container's namespaces are made; those of the host are refused."""
    bundle.config["linux"]["sysctl"] = {"net.ipv4.ip_forward": "1", "kernel.shm_rmid_forced": "1"}
    bundle.script("cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/shm_rmid_forced")
    assert runtime.run(bundle).split() == ["1", "1"]
    bundle.config["linux"]["sysctl"] = {"kernel.panic": "77"}
    assert runtime.refuse(bundle)
    assert Path("/proc/sys/kernel/panic").read_text(encoding="ascii") != "77\n"


@pytest.mark.parametrize("word", ["private", "slave", "shared", "rprivate"])
def test_propagation_of_the_root(runtime: OciRuntime, bundle: Bundle, word: str) -> None:
    """The root propagates as asked for."""
    bundle.config["linux"]["rootfsPropagation"] = word
    bundle.script("cat /proc/self/mountinfo")
    _, propagation = mount_of(runtime.run(bundle), "/")
    assert any(each.startswith("shared:") for each in propagation) is (word == "shared")


# Filters


@pytest.mark.parametrize(
    ("operator", "value", "two", "is_refused"),
    [
        ("SCMP_CMP_EQ", 7, 0, True),
        ("SCMP_CMP_EQ", 8, 0, False),
        ("SCMP_CMP_NE", 8, 0, True),
        ("SCMP_CMP_LT", 8, 0, True),
        ("SCMP_CMP_LE", 7, 0, True),
        ("SCMP_CMP_GT", 6, 0, True),
        ("SCMP_CMP_GE", 8, 0, False),
        ("SCMP_CMP_MASKED_EQ", 3, 3, True),
    ],
)
def test_filter(
    runtime: OciRuntime,
    bundle: Bundle,
    operator: str,
    value: int,
    two: int,
    is_refused: bool,  # noqa: FBT001
) -> None:
    """A call whose argument the rule is about gets its errno, any other goes through."""
    argument = {"index": 1, "value": value, "valueTwo": two, "op": operator}
    bundle.config["linux"]["seccomp"] = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        "syscalls": [
            {
                "names": ["fchmodat", "chmod", "there_is_no_such_call"],
                "action": "SCMP_ACT_ERRNO",
                "errnoRet": 28,
                "args": [argument],
            }
        ],
    }
    bundle.script("chmod 7 /tmp 2>&1")
    bundle.write()
    done = runtime.call("run", "--bundle", str(bundle.path), "c1", check=False)
    assert (b"No space left" in done.stdout) is is_refused


@pytest.mark.parametrize("problem", ["errno", "no-names", "action", "operator"])
def test_wrong_filters(runtime: OciRuntime, bundle: Bundle, problem: str) -> None:
    """What means nothing in a filter is an error."""
    entry: dict[str, Any] = {"names": ["mkdir"], "action": "SCMP_ACT_ERRNO"}
    if problem == "errno":
        entry |= {"action": "SCMP_ACT_LOG", "errnoRet": 5}
    elif problem == "no-names":
        entry["names"] = []
    elif problem == "action":
        entry["action"] = "SCMP_ACT_SOMETIMES"
    else:
        entry["args"] = [{"index": 0, "value": 1, "op": "SCMP_CMP_ALMOST"}]
    bundle.config["linux"]["seccomp"] = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [entry]}
    assert runtime.refuse(bundle)


# Control groups


def test_path_of_control_groups(runtime: OciRuntime, bundle: Bundle) -> None:
    """They are where the configuration says, and gone with the container."""
    path = f"/oci-test-{os.getpid()}/c1"
    bundle.config["linux"]["cgroupsPath"] = path
    bundle.config["linux"]["resources"]["pids"] = {"limit": 17}
    bundle.script("cat /proc/self/cgroup")
    found = runtime.run(bundle)
    parent = Path(path).parent.name
    made = list(Path("/sys/fs/cgroup").glob(f"**/{parent}"))
    try:
        places = [
            line.split(":")[2] for line in found.splitlines() if ":pids:" in line or line.startswith("0::/o")
        ]
        assert path in places
        assert not [each for each in made if (each / "c1").exists()]
    finally:
        for each in made:
            each.rmdir()


@pytest.mark.parametrize(
    ("block", "key", "value", "controller", "files"),
    [
        ("pids", "limit", 17, "pids", ("pids.max",)),
        ("memory", "limit", 33554432, "memory", ("memory.limit_in_bytes", "memory.max")),
        ("memory", "reservation", 16777216, "memory", ("memory.soft_limit_in_bytes", "memory.low")),
        ("cpu", "quota", 50000, "cpu", ("cpu.cfs_quota_us", "cpu.max")),
        ("cpu", "cpus", "0", "cpuset", ("cpuset.cpus",)),
        ("cpu", "mems", "0", "cpuset", ("cpuset.mems",)),
    ],
)
def test_limits(
    runtime: OciRuntime,
    bundle: Bundle,
    block: str,
    key: str,
    value: Any,
    controller: str,
    files: tuple[str, ...],
) -> None:
    """A limit is in force, on whichever version the host has."""
    bundle.config["linux"]["resources"][block] = {key: value}
    bundle.config["linux"]["cgroupsPath"] = f"/oci-test-{os.getpid()}-limits"
    bundle.command("sleep", "600")
    runtime.create(bundle)
    lines = Path(f"/proc/{runtime.state()['pid']}/cgroup").read_text(encoding="ascii").splitlines()
    rows = [line.split(":", 2) for line in lines]
    place = next((row for row in rows if controller in row[1].split(",")), None) or next(
        row for row in rows if row[0] == "0"
    )
    base = Path("/sys/fs/cgroup", *([place[1]] if place[1] else []))
    directory = base / place[2].lstrip("/")
    found = next(
        (directory / file).read_text(encoding="ascii") for file in files if (directory / file).exists()
    )
    assert found.split()[0] == str(value)


def test_block_io(runtime: OciRuntime, bundle: Bundle) -> None:
    """A rate of a device is in force."""
    number = os.stat("/").st_dev
    disk = next(
        (p for p in Path("/sys/block").iterdir() if (p / "dev").read_text().strip() == device_text(number)),
        None,
    )
    tree = Path("/sys/fs/cgroup/blkio")
    if disk is None or not tree.is_dir():
        pytest.skip("no usable cgroup controller: blkio")
    rate = {"major": os.major(number), "minor": os.minor(number), "rate": 1048576}
    bundle.config["linux"]["resources"]["blockIO"] = {"throttleReadBpsDevice": [rate]}
    bundle.command("sleep", "600")
    runtime.create(bundle)
    lines = Path(f"/proc/{runtime.state()['pid']}/cgroup").read_text(encoding="ascii").splitlines()
    place = next(line.split(":", 2)[2] for line in lines if ":blkio:" in line)
    file = tree / place.lstrip("/") / "blkio.throttle.read_bps_device"
    assert file.read_text(encoding="ascii") == f"{device_text(number)} 1048576\n"


def test_huge_pages(oci: Callable[[str], OciRuntime], bundle: Bundle) -> None:
    """They are limited by whichever tree has the controller; where none has, the limit is refused."""
    runtime = oci(OURS)
    bundle.config["linux"]["resources"]["hugepageLimits"] = [{"pageSize": "2MB", "limit": 2097152}]
    if CgroupHost.probe().find("hugetlb") is None:
        assert "hugetlb" in runtime.refuse(bundle)
        return
    bundle.command("sleep", "600")
    runtime.create(bundle)
    group = bundle.config["linux"]["cgroupsPath"].strip("/")
    names = ("hugetlb.2MB.max", "hugetlb.2MB.limit_in_bytes")
    found = [path for name in names for path in Path("/sys/fs/cgroup").glob(f"**/{group}/{name}")]
    assert [path.read_text(encoding="ascii") for path in found] == ["2097152\n"]


def device_text(number: int) -> str:
    """A device as files of control groups name it."""
    return f"{os.major(number)}:{os.minor(number)}"


@pytest.mark.parametrize(
    "resources",
    [
        {"network": {"classID": 1048577}},
        {"rdma": {"mlx5_0": {"hcaHandles": 3}}},
        {"unified": {"nothing.max": "2097152"}},
    ],
    ids=lambda resources: next(iter(resources)),
)
def test_controllers_that_are_missing(runtime: OciRuntime, bundle: Bundle, resources: dict[str, Any]) -> None:
    """A limit that nothing on the host can keep is an error, and is not left out."""
    present = Path("/proc/self/cgroup").read_text(encoding="ascii")
    if any(f":{name}:" in present for name in ("net_cls", "rdma")):
        pytest.skip("the host has these controllers")
    bundle.config["linux"]["resources"] |= resources
    assert runtime.refuse(bundle)


# Hooks

KINDS = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")


def test_hooks(runtime: OciRuntime, bundle: Bundle) -> None:
    """All kinds run in their order and namespaces, with arguments, variables and the state as input."""
    log = bundle.path / "log"
    log.write_text("", encoding="ascii")
    (bundle.rootfs / "log").mkdir()
    outside = f'(echo "$0 $1 $WORD $(readlink /proc/self/ns/mnt)"; cat; echo) >> {log}'
    bundle.config["hooks"] = {
        kind: [{"path": "/bin/sh", "args": [kind, "-c", outside, kind, "argument"], "env": ["WORD=w"]}]
        for kind in KINDS
        if kind != "startContainer"
    }
    # That one is a program of the container's, and writes there.
    inside = '(echo "$0 $1 $WORD $(readlink /proc/self/ns/mnt)"; cat; echo) >> /log/start'
    bundle.config["hooks"]["startContainer"] = [
        {"path": "/bin/sh", "args": ["sh", "-c", inside, "startContainer", "argument"], "env": ["WORD=w"]}
    ]
    bundle.config["annotations"] = {"org.example.key": "value"}
    bundle.command("sleep", "600")
    runtime.create(bundle)
    created = read_hooks(log)
    assert [each[0] for each in created] == ["prestart", "createRuntime", "createContainer"]
    pid = runtime.state()["pid"]
    runtime.call("start", "c1")
    until(lambda: runtime.state()["status"] == "running")
    runtime.call("kill", "c1", "KILL")
    until(lambda: runtime.state()["status"] == "stopped")
    runtime.call("delete", "c1")
    found = {each[0]: each for each in (*read_hooks(log), *read_hooks(bundle.rootfs / "log/start"))}
    assert set(found) == set(KINDS)
    own = os.readlink("/proc/self/ns/mnt")
    for kind, (_, argument, word, namespace, state) in found.items():
        assert (argument, word) == ("argument", "w")
        if runtime.name != "crun":  # runs in a mount namespace that is not ours
            assert (namespace != own) is (kind in {"createContainer", "startContainer"}), kind
        assert state["id"] == "c1"
        if kind in {"prestart", "createRuntime", "poststart"}:
            assert state["pid"] == pid
            assert state["bundle"] == str(bundle.path)
            assert state["annotations"] == {"org.example.key": "value"}


def read_hooks(log: Path) -> list[tuple[str, str, str, str, dict[str, Any]]]:
    """What hooks have written: two lines each, the second of which is the state."""
    lines = [line for line in log.read_text(encoding="utf-8").splitlines() if line]
    found = []
    for head, state in zip(lines[::2], lines[1::2], strict=True):
        kind, argument, word, namespace = head.split(" ")
        found.append((kind, argument, word, namespace, json.loads(state)))
    return found


@pytest.mark.parametrize("kind", ["prestart", "createRuntime", "createContainer"])
def test_a_hook_that_fails(runtime: OciRuntime, bundle: Bundle, kind: str) -> None:
    """A failing hook ends the creation, and nothing is left."""
    bundle.config["hooks"] = {kind: [{"path": "/bin/sh", "args": ["sh", "-c", "echo told you >&2; exit 3"]}]}
    bundle.command("sleep", "600")
    runtime.refuse(bundle)


@pytest.mark.parametrize("kind", ["prestart", "createRuntime", "createContainer"])
def test_the_last_hooks_of_a_creation_that_fails(runtime: OciRuntime, bundle: Bundle, kind: str) -> None:
    """They run all the same, for they undo what the first ones have done."""
    last = f"cat > {bundle.path}/last"
    bundle.config["hooks"] = {
        kind: [{"path": "/bin/sh", "args": ["sh", "-c", "exit 3"]}],
        "poststop": [{"path": "/bin/sh", "args": ["sh", "-c", last], "env": ["PATH=/bin"]}],
    }
    bundle.command("sleep", "600")
    runtime.refuse(bundle)
    state = json.loads((bundle.path / "last").read_text(encoding="utf-8"))
    assert (state["id"], state["status"]) == ("c1", "stopped")


@pytest.mark.parametrize("kind", ["prestart", "createRuntime"])
def test_a_hook_that_takes_too_long(runtime: OciRuntime, bundle: Bundle, kind: str) -> None:
    """It is killed when its time is over, and the creation fails."""
    bundle.config["hooks"] = {kind: [{"path": "/bin/sleep", "args": ["sleep", "600"], "timeout": 1}]}
    bundle.command("sleep", "600")
    runtime.refuse(bundle)


def test_a_last_hook_that_fails(runtime: OciRuntime, bundle: Bundle) -> None:
    """What goes wrong after the end does not keep the container from being deleted."""
    bundle.config["hooks"] = {"poststop": [{"path": "/bin/false"}, {"path": "/there/is/none"}]}
    runtime.create(bundle)
    runtime.call("start", "c1")
    until(lambda: runtime.state()["status"] == "stopped")

    def is_gone() -> bool:
        # Not every runtime deletes at once what it calls stopped for the first time.
        runtime.call("delete", "c1", check=False)
        return runtime.call("state", "c1", check=False).returncode != 0

    until(is_gone)
