"""What a container is kept from: credentials, devices, terminals, keys, settings of the host.

The mistakes are those of other engines; each test is named after what it was that went wrong there.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from support.engine import busybox_tree, new_engine
from support.faults import failing, process_id
from support.probe import PROBE, probe, probe_image, syscall_number
from support.session import temporary_directory, tracked_root

from containerlib import (
    DEVNULL,
    ImageDefaults,
    InvalidManifest,
    InvalidOption,
    Security,
    SpawnError,
    UnsupportedHost,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from containerlib import Engine, Image

pytestmark = [pytest.mark.root, pytest.mark.cgroup]

EPERM = str(-errno.EPERM)
HIGH = 1 << 32
UNCONFINED = Security(seccomp="unconfined")
ACCOUNTS = "root:x:0:0:root:/root:/bin/sh\nalice:x:1000:1000::/home/alice:/bin/sh\n"
TRAPS = [
    "4294967295",
    "4294967296",
    "18446744073709551616",
    "-1",
    "0x0",
    "+0",
    " 0",
    "0 ",
    "1e3",
    "00x",
    "1000",
]
GROUP = "root:x:0:\nalice:x:1000:\none:x:2000:alice\ntwo:x:2001:bob,alice\nthree:x:2002:bob\n"


def furnish(tree: Path) -> None:
    """Give an image users, groups, and a file that its own group may not read."""
    traps = "".join(f"{name}:x:0:0::/:/bin/sh\n" for name in TRAPS)
    (tree / "etc" / "passwd").write_text(ACCOUNTS + traps, encoding="ascii")
    (tree / "etc" / "group").write_text(GROUP, encoding="ascii")
    secret = tree / "secret"
    secret.write_text("not for group one", encoding="ascii")
    secret.chmod(0o604)
    os.chown(secret, 0, 2000)
    shutil.copy(tree / "bin" / "probe", tree / "bin" / "suid")
    (tree / "bin" / "suid").chmod(0o4755)


@pytest.fixture(scope="module")
def box(shared_engine: Engine) -> Image:
    """Return an image with busybox, the probe and some users."""
    image = probe_image(shared_engine, furnish)
    image.call(["/bin/true"])
    return image


def shell(image: Image, script: str, **options: Any) -> str:
    """Run a script and return its output; it must succeed."""
    result = image.call(["/bin/sh", "-c", script], **options)
    assert result.exit_code == 0, result.stderr
    return result.stdout.decode()


def console_output(image: Image, command: list[str], **options: Any) -> str:
    """Run a command on a terminal and return what it wrote there."""
    with image.run(command, tty=True, stdin=DEVNULL, stdout=DEVNULL, stderr=DEVNULL, **options) as container:
        master = container.take_console()
        written = b""
        # The last slave that is closed makes reads of the master fail.
        with contextlib.suppress(OSError):
            while data := os.read(master, 4096):
                written += data
        os.close(master)
        assert container.wait(timeout_s=60).exit_code == 0, written
    return written.decode()


CWD = [f"/proc/self/fd/{number}" for number in range(3, 65)]
CWD += [f"/proc/1/fd/{number}" for number in range(3, 24)]
CWD += [
    "/proc/self/cwd",
    "/proc/1/cwd",
    "/proc/self/root",
    "/proc/thread-self/cwd",
    "/proc/self/fd/3/../../..",
]


def test_no_working_directory_behind_a_descriptor(box: Image) -> None:
    """A working directory named by a link of /proc is refused, whatever descriptor is behind it."""
    for init in (False, True):
        for path in CWD:
            with pytest.raises(InvalidOption, match="is not a directory in the container"):
                box.call(["/bin/true"], workdir=path, init=init)
    assert probe(box, [("cwd",)], workdir="/proc/self/../../tmp/../etc") == ["/etc"]


@pytest.mark.parametrize("options", [{}, {"init": True}, {"network": "host"}, {"user": "1000"}])
def test_three_descriptors(box: Image, options: dict[str, Any]) -> None:
    """A command has its streams and no other descriptor, however many the host has open."""
    opened = [os.open("/", os.O_RDONLY) for _ in range(20)]
    for fd in opened:
        os.set_inheritable(fd, True)
    try:
        assert probe(box, [("fds",)], **options) == ["0 1 2 "]
    finally:
        for fd in opened:
            os.close(fd)


DEFAULT = 0x800405FB
NET_ADMIN = 1 << 12
CHOWN = 1 << 0


@pytest.mark.parametrize("init", [False, True])
@pytest.mark.parametrize(
    ("user", "security", "held", "bounding"),
    [
        ("0", Security(), DEFAULT, DEFAULT),
        ("1000", Security(), 0, DEFAULT),
        ("0", Security(cap_add=["NET_ADMIN"]), DEFAULT | NET_ADMIN, DEFAULT | NET_ADMIN),
        ("1000", Security(cap_add=["NET_ADMIN"]), 0, DEFAULT | NET_ADMIN),
        ("0", Security(cap_drop=["CHOWN"]), DEFAULT & ~CHOWN, DEFAULT & ~CHOWN),
        ("0", Security(cap_drop=["ALL"]), 0, 0),
        ("0", Security(cap_drop=["ALL"], cap_add=["CHOWN"]), CHOWN, CHOWN),
        ("1000:1000", Security(no_new_privileges=False), 0, DEFAULT),
    ],
)
def test_capability_sets(
    box: Image,
    user: str,
    security: Security,
    held: int,
    bounding: int,
    init: bool,  # noqa: FBT001
) -> None:
    """Nothing is ever inheritable or ambient; root has what is bounding, other users have nothing."""
    text = shell(box, "grep Cap /proc/self/status", user=user, security=security, init=init)
    found = {name: int(value, 16) for name, value in (line.split(":") for line in text.splitlines())}
    assert found == {"CapInh": 0, "CapPrm": held, "CapEff": held, "CapBnd": bounding, "CapAmb": 0}


@pytest.mark.parametrize(
    ("user", "uid"), [("0", 0), ("1000", 1000), ("4294967294", 4294967294), ("alice", 1000)]
)
def test_numbers_are_users(box: Image, user: str, uid: int) -> None:
    """A number is that user, also when a line of the passwd file has it as a name."""
    assert shell(box, "id -u", user=user) == f"{uid}\n"


@pytest.mark.parametrize("user", [trap for trap in TRAPS if trap != "1000"])
def test_what_looks_like_a_number_is_no_name(box: Image, user: str) -> None:
    """A number out of range, or in another spelling, is refused and never looked up."""
    with pytest.raises(InvalidOption):
        box.call(["/bin/id"], user=user)


def test_supplementary_groups(box: Image) -> None:
    """The groups are the image's for this user and the primary one, and files see them."""
    assert shell(box, "grep Groups /proc/self/status", user="alice").split() == [
        "Groups:",
        "1000",
        "2000",
        "2001",
    ]
    assert shell(box, "grep Groups /proc/self/status", user="alice:three").split() == ["Groups:", "2002"]
    assert shell(box, "grep Groups /proc/self/status").split() == ["Groups:", "0"]
    assert shell(box, "cat /secret || echo denied", user="alice") == "denied\n"
    assert shell(box, "cat /secret", user="1001:1001") == "not for group one"


def test_socket_families_by_their_low_half(box: Image) -> None:
    """Families that the filter refuses are refused with bits above the 32 that the kernel looks at."""
    refused = [(family | high) for family in (38, 40) for high in (0, HIGH, 0xFFFFFFFF << 32)]
    calls = [("call", "socket", family, 1, 0) for family in refused]
    assert probe(box, calls) == [EPERM] * len(calls)
    assert all(int(line) > 2 for line in probe(box, [("call", "socket", 1, 1, 0)]))


TERMINAL_CALLS = [
    ("call", "ioctl", 0, number | high, "b:8") for number in (0x5412, 0x541C) for high in (0, HIGH)
]


@pytest.mark.enosys
def test_no_terminal_unless_asked_for(box: Image) -> None:
    """Without a terminal there is no controlling one, and nothing can be typed into any."""
    lines = probe(box, [("open", "/dev/tty"), ("call", "getsid", 0), ("call", "getpid"), *TERMINAL_CALLS])
    assert lines == [str(-errno.ENXIO), "1", "1", *[EPERM] * 4]


@pytest.mark.enosys
def test_a_terminal_cannot_be_typed_into(box: Image) -> None:
    """With a terminal the command leads its session, and TIOCSTI and TIOCLINUX are refused."""
    ioctl = str(syscall_number("ioctl"))
    command = [PROBE, "open", "/dev/tty", "--", "call", str(syscall_number("getsid")), "0"]
    for call in TERMINAL_CALLS:
        command += ["--", "call", ioctl, *map(str, call[2:])]
    command += ["--", "stat", "/dev/console", "--", "fds"]
    lines = console_output(box, command).splitlines()
    # Nothing has been typed, so a read that does not wait gives EAGAIN.
    assert lines == [str(-errno.EAGAIN), "1", *[EPERM] * 4, "char 136:0 620 0", "0 1 2 "]


def test_a_session_keyring_of_its_own(box: Image) -> None:
    """No key of the host's session is reachable, and keys cannot be touched at all by default."""
    default = [("call", "keyctl", 0, -3, 0), ("call", "add_key", "s:user", "s:x", "s:y", 1, -3)]
    assert probe(box, [*default, ("call", "request_key", "s:user", "s:x", 0, 0)]) == [EPERM] * 3
    libc = ctypes.CDLL(None, use_errno=True)
    ours = libc.syscall(ctypes.c_long(syscall_number("keyctl")), 0, ctypes.c_long(-3), 0)
    theirs = [int(probe(box, [("call", "keyctl", 0, -3, 0)], security=UNCONFINED)[0]) for _ in range(2)]
    assert min(theirs) > 0
    assert len({ours, *theirs}) == 3


def test_no_control_group_can_be_mounted(box: Image) -> None:
    """Neither cgroups nor user namespaces are to be had, and no release_agent is in sight."""
    calls = [
        ("call", "mount", "s:cgroup", "s:/tmp", "s:cgroup", 0, 0),
        ("call", "mount", "s:cgroup2", "s:/tmp", "s:cgroup2", 0, 0),
        ("call", "unshare", 0x10000000),
        ("call", "unshare", 0x10020000),
        ("call", "clone", 0x10000000 | 17, 0, 0, 0, 0),
        ("call", "setns", 0, 0),
    ]
    assert probe(box, calls) == [EPERM] * len(calls)
    # Without the filter the kernel says no for want of CAP_SYS_ADMIN.
    assert probe(box, calls[:2], security=UNCONFINED) == [EPERM] * 2
    assert shell(box, "find / -xdev -name release_agent; find /sys -name release_agent") == ""


DEVICES = {
    "mem": (1, 1),
    "kmsg": (1, 11),
    "kvm": (10, 232),
    "fuse": (10, 229),
    "tun": (10, 200),
    "sda": (8, 0),
}


def test_other_devices_cannot_be_used(box: Image) -> None:
    """A node that a container makes, with the capability for it, cannot be opened."""
    nodes = [
        (
            "call",
            "mknodat",
            -100,
            f"s:/tmp/{name}",
            (0o60000 if name == "sda" else 0o20000) | 0o666,
            os.makedev(*device),
        )
        for name, device in DEVICES.items()
    ]
    allowed = [("call", "mknodat", -100, "s:/tmp/null", 0o20666, os.makedev(1, 3)), ("open", "/tmp/null")]
    assert probe(box, [*nodes, *allowed[:1]]) == [EPERM] * (len(nodes) + 1)
    opened = [("open", f"/tmp/{name}") for name in DEVICES]
    lines = probe(box, [*nodes, *opened, *allowed], security=Security(cap_add=["MKNOD"]))
    assert lines == ["0"] * len(nodes) + [EPERM] * len(opened) + ["0", "0"]


def test_the_devices_that_there_are(box: Image) -> None:
    """In /dev are the six harmless nodes, links, and file systems of the container's own."""
    listing = shell(box, "find /dev -xdev ! -type l | sort").split()
    nodes = ["full", "null", "random", "tty", "urandom", "zero"]
    directories = ["mqueue", "pts", "shm"]
    assert listing == ["/dev", *sorted(f"/dev/{name}" for name in [*nodes, *directories])]
    assert all(line.startswith("char ") for line in probe(box, [("stat", f"/dev/{name}") for name in nodes]))


def test_settings_of_the_host(box: Image) -> None:
    """Only settings of the container's own namespaces can be set, and the host keeps its value."""
    forward = Path("/proc/sys/net/ipv4/ip_forward")
    before = forward.read_text(encoding="ascii")
    other = "0" if before.strip() == "1" else "1"
    script = "cat /proc/sys/net/ipv4/ip_forward"
    assert shell(box, script, sysctls={"net.ipv4.ip_forward": other}) == f"{other}\n"
    for sysctls, network in [
        ({"kernel.core_pattern": "|/x"}, "none"),
        ({"vm.swappiness": "1"}, "none"),
        ({"net.ipv4.ip_forward": other}, "host"),
        ({"net.ipv4.ip_forward": f"{other}\nkernel.x=1"}, "none"),
        ({"net.ipv4.ip_forward=1+kernel.x": "1"}, "none"),
        ({"net/../kernel/core_pattern": "x"}, "none"),
        ({"net.ipv4...kernel": "x"}, "none"),
    ]:
        with pytest.raises(InvalidOption):
            box.call(["/bin/true"], sysctls=sysctls, network=network)
    assert forward.read_text(encoding="ascii") == before
    names = "kernel/core_pattern kernel/hostname net/ipv4/ip_forward vm/swappiness"
    script = f"for name in {names}; do echo x >/proc/sys/$name; done"
    result = box.call(["/bin/sh", "-c", script])
    assert result.stderr.count(b"Read-only file system") == 4


def test_the_host_environment_stays_out(box: Image, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command has the variables that are listed here; a name without a value takes none from the host."""
    monkeypatch.setenv("CLT_SECRET", "of the host")
    names = {line.partition(b"=")[0] for line in box.call(["/bin/env"]).stdout.splitlines()}
    assert names == {b"PATH", b"HOSTNAME", b"HOME"}
    with pytest.raises(InvalidOption):
        box.call(["/bin/env"], env=["CLT_SECRET"])
    with pytest.raises(InvalidManifest):
        ImageDefaults(env=("CLT_SECRET",))
    # What the init was started with is nobody's business but ours, not even for root.
    result = box.call(["/bin/cat", "/proc/1/environ", "/proc/1/maps"], init=True)
    assert (result.stdout, result.stderr.count(b"Permission denied")) == (b"", 2)


def _sockets(pid: int) -> Iterator[str]:
    for name in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(OSError):
            kind, _, number = os.readlink(f"/proc/{pid}/fd/{name}").partition(":")
            if kind == "socket":
                yield number.strip("[]")


def test_no_abstract_sockets(box: Image) -> None:
    """None of our sockets has a name that a container with the host's network could connect to."""
    with box.run(["/bin/sleep", "1000"], network="host", stdin=DEVNULL) as container:
        spawner = process_id(container.entry.session.runner.spawner_pidfd or -1)
        ours = {*_sockets(os.getpid()), *_sockets(spawner)}
        table = [line.split() for line in Path("/proc/net/unix").read_text(encoding="utf-8").splitlines()[1:]]
        assert ours & {row[6] for row in table}
        assert [row for row in table if row[6] in ours and len(row) > 7] == []


def test_the_store_is_for_its_owner_alone() -> None:
    """Whatever the umask, no directory of an engine has bits for group or others."""
    before = os.umask(0)
    try:
        with (
            temporary_directory("perm") as base,
            tracked_root(base / "n"),
            new_engine(base / "r", base / "n") as made,
        ):
            with temporary_directory("tree") as tree:
                busybox_tree(tree)
                image = made.images.from_directory(tree, reference="box")
            with image.run(["/bin/sleep", "1000"], stdin=DEVNULL):
                found = {
                    str(path.relative_to(base)): path.stat().st_mode & 0o777 for path in own_directories(base)
                }
    finally:
        os.umask(before)
    assert {"r", "n", "r/snapshots", "n/engines"} <= found.keys()
    assert {path: oct(mode) for path, mode in found.items() if mode & 0o077} == {}


def own_directories(base: Path) -> Iterator[Path]:
    """Walk the directories that are ours, and not the trees of images and containers."""
    for parent, names, _files in os.walk(base):
        names[:] = [name for name in names if name not in {"fs", "upper", "work", "root"}]
        yield from (Path(parent, name) for name in names)


@pytest.mark.parametrize(("allowed", "effective"), [(False, "1000"), (True, "0")])
def test_a_program_with_the_bit_of_root(box: Image, allowed: bool, effective: str) -> None:  # noqa: FBT001
    """A set-user-id program gives nothing, unless the caller allows it."""
    command = ["/bin/suid", "call", str(syscall_number("geteuid"))]
    result = box.call(command, user="1000", security=Security(no_new_privileges=not allowed))
    assert result.text.strip() == effective


def test_a_start_that_would_lose_a_protection_is_refused(box: Image) -> None:
    """A filter that the kernel does not take is an error of the start, never a container without one."""
    with pytest.raises(UnsupportedHost):
        box.call(["/bin/true"], security=Security(seccomp={"defaultAction": "SCMP_ACT_NOTIFY"}))
    with pytest.raises(SpawnError, match="seccomp: invalid argument"):
        box.call(["/bin/true"], **failing("seccomp", number=errno.EINVAL))
