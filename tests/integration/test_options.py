"""Options of a container that concern its processes: user, privileges, limits, network, terminal, command."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import struct
import termios
from typing import TYPE_CHECKING

import pytest
from support import enosys
from support.cgroups import named_directories
from support.engine import busybox_tree
from support.processes import GROUP_PREFIX
from support.session import temporary_directory

import containerlib as cl
from containerlib.runtime.capability import DEFAULT_CAPABILITIES, mask

if TYPE_CHECKING:
    from pathlib import Path

    from containerlib import CompletedRun, Container, Engine, Image

pytestmark = pytest.mark.root

CAP_NET_RAW = 1 << 13
CAP_CHOWN = 1


def sh(image: Image, script: str, **options: object) -> CompletedRun:
    """Run a script."""
    return image.call(["sh", "-c", script], **options)  # type: ignore[arg-type]


def status_of(image: Image, **options: object) -> dict[str, str]:
    """Return what the kernel says of a process in a container."""
    lines = image.call(["cat", "/proc/self/status"], **options).text.splitlines()  # type: ignore[arg-type]
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


@pytest.fixture(scope="module")
def configured_image(shared_engine: Engine, busybox_image: Image) -> Image:
    """Return an image with users, groups and defaults of its own."""
    del busybox_image  # made first, so that nothing of the engine is made here
    config = cl.ImageDefaults(
        entrypoint=("echo", "E"),
        cmd=("C", "D"),
        env=("FROM=image", "PATH=/bin"),
        labels={"a": "image", "b": "image"},
        stop_signal="SIGUSR1",
        user="alice",
        working_dir="/srv/data",
    )
    with temporary_directory("o") as tree:
        busybox_tree(tree)
        (tree / "srv" / "data").mkdir(parents=True)
        accounts = "root:x:0:0::/root:/bin/sh\nalice:x:1000:1001::/home/alice:\nbob:x:1002:1002::/:/bin/sh\n"
        (tree / "etc" / "passwd").write_text(accounts, encoding="ascii")
        group = "root:x:0:\nwheel:x:10:alice,bob\nstaff:x:50:alice\nalice:x:1001:\n"
        (tree / "etc" / "group").write_text(group, encoding="ascii")
        return shared_engine.images.from_directory(tree, config=config)


@pytest.mark.parametrize(
    ("options", "uid", "gid", "groups"),
    [
        ({}, 1000, 1001, "10 50 1001"),
        ({"user": ""}, 0, 0, "0"),
        ({"user": "root"}, 0, 0, "0"),
        ({"user": "alice"}, 1000, 1001, "10 50 1001"),
        ({"user": "1000"}, 1000, 1001, "10 50 1001"),
        ({"user": "alice:staff"}, 1000, 50, "50"),
        ({"user": "1000:50"}, 1000, 50, "50"),
        ({"user": "bob:4711"}, 1002, 4711, "4711"),
        ({"user": "4711"}, 4711, 0, "0"),
        ({"user": "4711:4712"}, 4711, 4712, "4712"),
        ({"user": "4294967294:4294967294"}, 4294967294, 4294967294, "4294967294"),
        ({"user": "bob", "group_add": ["staff", "99"]}, 1002, 1002, "10 50 99 1002"),
        ({"user": "4711:4712", "group_add": ["wheel"]}, 4711, 4712, "10 4712"),
    ],
)
def test_user(configured_image: Image, options: dict[str, object], uid: int, gid: int, groups: str) -> None:
    """A user is a name or a number, with a group or without, and further groups can be added."""
    status = status_of(configured_image, entrypoint=[], **options)
    assert status["Uid"].split() == [str(uid)] * 4
    assert status["Gid"].split() == [str(gid)] * 4
    assert status["Groups"] == groups


@pytest.mark.parametrize(
    ("options", "output"),
    [
        ({}, "E C D"),
        ({"command": ["X"]}, "E X"),
        ({"command": []}, "E"),
        ({"entrypoint": ["echo", "N"]}, "N"),
        ({"entrypoint": ["echo", "N"], "command": ["X"]}, "N X"),
        ({"entrypoint": [], "command": ["echo", "X"]}, "X"),
        ({"entrypoint": [], "command": ["sh", "-c", "pwd; echo $FROM $PATH"]}, "/srv/data\nimage /bin"),
        ({"entrypoint": [], "command": ["pwd"], "workdir": "/etc"}, "/etc"),
        ({"entrypoint": [], "command": ["sh", "-c", "echo $FROM"], "env": {"FROM": "caller"}}, "caller"),
        ({"entrypoint": ["/bin/busybox", "echo"], "command": ["a  b", "$x", ""]}, "a  b $x "),
    ],
)
def test_defaults_of_the_image(configured_image: Image, options: dict[str, object], output: str) -> None:
    """What the caller does not say is as in the image; a new entrypoint discards the image's command."""
    assert configured_image.call(**options).text == f"{output}\n"  # type: ignore[arg-type]


def test_labels_and_stop_signal_of_the_image(configured_image: Image) -> None:
    """Labels are merged, and `stop` sends the image's signal."""
    script = "trap 'exit 5' USR1; sleep 1000 & echo ready; wait"
    with configured_image.run(
        ["-c", script], entrypoint=["sh"], labels={"b": "own"}, stdin=cl.DEVNULL, stdout=cl.PIPE
    ) as container:
        assert container.labels == {"a": "image", "b": "own"}
        assert container.stdout is not None
        assert container.stdout.readline() == b"ready\n"
        status = container.stop(timeout_s=60)
        assert status is not None
        assert status.exit_code == 5


@pytest.mark.parametrize("path", ["/tmp", "/usr/../tmp/.", "/link"])
def test_working_directory(image: Image, path: str, tmp_path: Path) -> None:
    """The command starts in its working directory, also by way of a link."""
    (tmp_path / "link").symlink_to("/tmp")
    if path == "/link":
        path, mounts = "/data/link", [cl.Mount.bind(str(tmp_path), "/data")]
    else:
        mounts = []
    assert image.call(["pwd", "-P"], workdir=path, mounts=mounts).text == "/tmp\n"


@pytest.mark.parametrize(
    ("add", "drop", "expected"),
    [
        ([], [], mask(DEFAULT_CAPABILITIES)),
        (["NET_RAW"], [], mask(DEFAULT_CAPABILITIES) | CAP_NET_RAW),
        (["cap_net_raw"], ["CAP_CHOWN"], (mask(DEFAULT_CAPABILITIES) | CAP_NET_RAW) & ~CAP_CHOWN),
        ([], ["ALL"], 0),
        (["CHOWN"], ["all"], CAP_CHOWN),
    ],
)
def test_capabilities(image: Image, add: list[str], drop: list[str], expected: int) -> None:
    """Root has the default capabilities, and what was added and dropped; another user has none."""
    security = cl.Security(cap_add=add, cap_drop=drop)  # type: ignore[arg-type]
    status = status_of(image, security=security)
    assert [int(status[name], 16) for name in ("CapEff", "CapPrm", "CapBnd")] == [expected] * 3
    assert [int(status[name], 16) for name in ("CapInh", "CapAmb")] == [0, 0]
    other = status_of(image, security=security, user="4711")
    assert [int(other[name], 16) for name in ("CapEff", "CapPrm", "CapBnd")] == [0, 0, expected]


def test_all_capabilities(image: Image) -> None:
    """Adding all gives what this process has itself, and no error for what it has not."""
    with open("/proc/self/status", encoding="ascii") as file:
        own = next(int(line.split()[1], 16) for line in file if line.startswith("CapBnd"))
    assert int(status_of(image, security=cl.Security(cap_add=["ALL"]))["CapEff"], 16) == own  # type: ignore[arg-type]


@pytest.mark.parametrize(("refused", "uid"), [(True, "4711"), (False, "0")])
def test_no_new_privileges(image: Image, tmp_path: Path, refused: bool, uid: str) -> None:  # noqa: FBT001
    """A set-user-id program gives privileges only when that was allowed."""
    program = tmp_path / "id"
    shutil.copy("/usr/bin/id", program)
    program.chmod(0o4755)
    options: dict[str, object] = {
        "security": cl.Security(no_new_privileges=refused),
        "mounts": [cl.Mount.bind(str(program), "/own-id")],
        "user": "4711",
    }
    assert sh(image, "/own-id -u", **options).text == f"{uid}\n"
    assert status_of(image, **options)["NoNewPrivs"] == str(int(refused))


DENY_MKDIR = {
    "defaultAction": "SCMP_ACT_ALLOW",
    "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": errno.EPERM}],
}


@pytest.mark.parametrize("no_new_privileges", [True, False])
@pytest.mark.parametrize(
    ("profile", "mode", "made"), [("default", "2", True), ("unconfined", "0", True), (DENY_MKDIR, "2", False)]
)
def test_system_call_filter(
    image: Image,
    profile: object,
    mode: str,
    made: bool,  # noqa: FBT001
    no_new_privileges: bool,  # noqa: FBT001
) -> None:
    """There is a filter unless it was switched off, and a profile of one's own does what it says."""
    security = cl.Security(seccomp=profile, no_new_privileges=no_new_privileges)  # type: ignore[arg-type]
    # A filter of the test run itself is inherited.
    assert status_of(image, security=security)["Seccomp"] == ("2" if enosys.ACTIVE else mode)
    result = sh(image, "mkdir /tmp/new", security=security)
    assert (result.exit_code == 0) == made
    assert made or b"Operation not permitted" in result.stderr


def test_filter_holds_below_the_reaper(image: Image) -> None:
    """With `init` the payload and the reaper itself are filtered."""
    script = "grep -h ^Seccomp: /proc/1/status /proc/self/status"
    assert sh(image, script, init=True).text == "Seccomp:\t2\nSeccomp:\t2\n"


SERVE = "nc -ll -p 80 -e echo $0 & until nc 127.0.0.1 80 2>/dev/null; do :; done; read line"


def test_no_network(busybox_image: Image) -> None:
    """By default there is a loopback interface, which is up, and nothing else."""
    assert sh(busybox_image, "ls /sys/class/net; cat /sys/class/net/lo/flags").text == "lo\n0x9\n"
    own = os.readlink("/proc/self/ns/net")
    assert sh(busybox_image, "readlink /proc/self/ns/net").text != f"{own}\n"


def test_networks_are_separate(busybox_image: Image) -> None:
    """Two containers can listen on one port, a low one without being root, and each reaches itself."""
    pipes = {"stdin": cl.PIPE, "stdout": cl.PIPE, "user": "4711"}
    processes = [
        cl.Popen(["sh", "-c", SERVE, word], image=busybox_image, **pipes)  # type: ignore[arg-type]
        for word in ("one", "two")
    ]
    with processes[0], processes[1]:
        lines = [process.stdout and process.stdout.readline() for process in processes]
    assert lines == [b"one\n", b"two\n"]


def test_host_network(image: Image) -> None:
    """With the host's network the container is in the host's network namespace."""
    own = os.readlink("/proc/self/ns/net")
    assert sh(image, "readlink /proc/self/ns/net", network="host").text == f"{own}\n"


def test_namespaces_are_its_own(image: Image) -> None:
    """Every other namespace is the container's own, but for that of users and of time."""
    names = ("cgroup", "ipc", "mnt", "pid", "uts", "user")
    found = sh(image, " ".join(["readlink", *(f"/proc/self/ns/{name}" for name in names)])).text.split()
    shared = [
        name for name, link in zip(names, found, strict=True) if link == os.readlink(f"/proc/self/ns/{name}")
    ]
    assert shared == ["user"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("kernel.shmmax", "1234567"),
        ("kernel.msgmax", "4096"),
        ("fs.mqueue.msg_max", "20"),
        ("net.ipv4.ip_forward", "1"),
        ("net.ipv4.ip_unprivileged_port_start", "1024"),
        ("net.ipv4.conf.lo.forwarding", "1"),
    ],
)
def test_sysctls(image: Image, name: str, value: str) -> None:
    """A kernel setting of the container's namespaces is set there and not on the host."""
    path = "/proc/sys/" + name.replace(".", "/")
    with open(path, encoding="ascii") as file:
        before = file.read()
    assert image.call(["cat", path], sysctls={name: value}).text == f"{value}\n"
    with open(path, encoding="ascii") as file:
        assert file.read() == before


def test_rlimits(image: Image) -> None:
    """Resource limits are what was asked for; no core files and a moderate number of files by default."""
    limits = [cl.Rlimit(name="nofile", soft=100, hard=200), cl.Rlimit(name="cpu", soft=60, hard=-1)]
    script = "ulimit -n; ulimit -Hn; ulimit -t; ulimit -Ht; ulimit -c"
    assert sh(image, script, rlimits=limits).text.split() == ["100", "200", "60", "unlimited", "0"]
    assert sh(image, "ulimit -n; ulimit -c; ulimit -Hc").text.split() == ["1024", "0", "0"]


def group_values(container: Container, *files: str) -> list[str]:
    """Read those of `files` that the control groups of a container have."""
    groups = [path for _, path in named_directories(GROUP_PREFIX) if path.name == container.id]
    return [(path / file).read_text().strip() for path in groups for file in files if (path / file).exists()]


@pytest.mark.cgroup
def test_limits_are_in_the_control_group(image: Image) -> None:
    """Limits of memory, processor time and processes are what the control group says while it runs."""
    limits = cl.Resources(memory_bytes=64 << 20, cpus=0.5, pids=33, cpu_shares=512)
    with image.run(["cat"], resources=limits, stdin=cl.PIPE) as container:
        assert group_values(container, "memory.limit_in_bytes", "memory.max") == [str(64 << 20)]
        assert group_values(container, "cpu.cfs_quota_us", "cpu.max") in (["50000"], ["50000 100000"])
        assert group_values(container, "pids.max") == ["33"]
        assert group_values(container, "cpu.shares") in ([], ["512"])
    assert group_values(container, "pids.max") == []


@pytest.mark.cgroup
def test_process_limit(image: Image) -> None:
    """A container cannot have more processes than it may."""
    result = sh(image, "for i in $(seq 50); do sleep 1000 & done", resources=cl.Resources(pids=10))
    assert b"Cannot fork" in result.stderr
    assert result.usage.pids_peak is None or result.usage.pids_peak <= 10


@pytest.mark.cgroup
def test_processor_set(image: Image) -> None:
    """A container runs on the processors that it was given."""
    last = max(os.sched_getaffinity(0))
    resources = cl.Resources(cpuset_cpus=str(last), cpuset_mems="0", oom_score_adj=321)
    assert status_of(image, resources=resources)["Cpus_allowed_list"] == str(last)
    assert sh(image, "nproc; cat /proc/self/oom_score_adj", resources=resources).text == "1\n321\n"


def read_console(fd: int) -> str:
    """Read a terminal until nobody in the container has it open any more, which is an error of its own."""
    chunks = []
    with contextlib.suppress(OSError):
        while chunk := os.read(fd, 4096):
            chunks.append(chunk)
    return b"".join(chunks).decode()


def run_terminal(image: Image, script: str, **options: object) -> tuple[Container, int]:
    """Start a script on a terminal; the caller closes both."""
    container = image.run(["sh", "-c", script], tty=True, stdin=cl.DEVNULL, **options)  # type: ignore[arg-type]
    return container, container.take_console()


def test_terminal(busybox_image: Image) -> None:
    """With `tty` all three streams are one terminal of the size asked for, which has a name."""
    script = (
        "tty; stty size; test -t 0 && test -t 1 && test -t 2 && echo all; echo $TERM;"
        "stat -c %t /dev/console; echo through the console > /dev/console"
    )
    container, fd = run_terminal(busybox_image, script, console_size=(132, 43))
    with container:
        name, size, *rest = read_console(fd).splitlines()
        assert container.wait().exit_code == 0
    os.close(fd)
    assert name in {"/dev/console", "/dev/pts/0"}
    assert (size, rest) == ("43 132", ["all", "xterm", "88", "through the console"])


def test_interrupt_through_the_terminal(busybox_image: Image) -> None:
    """What is typed is read, the interrupt character gives SIGINT, and a change of size is told."""
    script = (
        "read line; echo got $line; trap 'stty size' WINCH; trap 'exit 3' INT; sleep 1000 & echo ready;"
        "while :; do wait; done"
    )
    container, fd = run_terminal(busybox_image, script)
    with container, os.fdopen(fd, "r+b", buffering=0) as console:
        console.write(b"typed\n")
        assert [console.readline() for _ in range(3)] == [b"typed\r\n", b"got typed\r\n", b"ready\r\n"]
        fcntl.ioctl(console, termios.TIOCSWINSZ, struct.pack("HHHH", 11, 22, 0, 0))
        assert console.readline() == b"11 22\r\n"
        console.write(b"\x03")
        assert container.wait().exit_code == 3


def test_terminal_is_taken_once(busybox_image: Image) -> None:
    """The terminal belongs to who took it; a container without one says so."""
    container, fd = run_terminal(busybox_image, "read line")
    with container:
        with pytest.raises(cl.InvalidState):
            container.take_console()
        os.close(fd)  # hangs the terminal up
        container.wait()
    with busybox_image.run(["true"], stdin=cl.DEVNULL) as container:
        with pytest.raises(cl.InvalidState, match="tty=True"):
            container.take_console()
        container.wait()
