"""Whatever is wrong with a request: a typed error that names the value, and nothing left behind."""

from __future__ import annotations

import glob
import os
import re
import resource
from typing import TYPE_CHECKING, Any

import pytest
from support.engine import new_engine

import containerlib as cl
from containerlib import Device, Mount, Resources, Rlimit, Security
from containerlib.runtime.capability import CAPABILITIES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from containerlib import Container, Engine, Image

pytestmark = pytest.mark.root

Options = dict[str, Any]
HARD_FILES = resource.getrlimit(resource.RLIMIT_NOFILE)[1]


@pytest.fixture(autouse=True)
def _nothing_remains(shared_engine: Engine, image: Image) -> Iterator[None]:
    """After every test the engine has no container, the store no layer, and containers still start."""
    yield
    assert shared_engine.containers.list() == []
    assert os.listdir(f"{shared_engine.root}/containers") == []
    assert glob.glob(f"{shared_engine.run_root}/engines/*/containers/*") == []
    assert image.call(["echo", "works"]).text == "works\n"


def refuse(image: Image, kind: type[Exception], texts: tuple[str, ...], make: Callable[[], Options]) -> None:
    """Expect an error of exactly this kind, whose message has all the texts."""
    for layer in ("memory", "disk"):
        with pytest.raises(kind) as caught:
            image.call(**{"command": ["true"], "layer": layer, **make()})
        assert type(caught.value) is kind
        for text in texts:
            assert text in str(caught.value)


@pytest.fixture
def tools(tmp_path: Path) -> Mount:
    """Return a mount of files that cannot be executed, each in its own way."""
    files = {
        "plain": (0o644, b"#!/bin/sh\n"),
        "garbage": (0o755, b"\x01\x02\x03\x04"),
        "empty": (0o755, b""),
        "script": (0o755, b"#!/no/such/interpreter\n"),
        "foreign": (0o755, b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x02\0\xf7\0" + bytes(100)),
    }
    for name, (mode, content) in files.items():
        (tmp_path / name).write_bytes(content)
        (tmp_path / name).chmod(mode)
    (tmp_path / "loop").symlink_to("loop")
    return Mount.bind(str(tmp_path), "/tools")


@pytest.mark.parametrize("init", [False, True])
@pytest.mark.parametrize(
    ("command", "kind", "text"),
    [
        ("no-such-command", cl.CommandNotFound, "not found in the container's PATH"),
        ("/no/such/command", cl.CommandNotFound, "not found in the container"),
        ("/etc/passwd/command", cl.CommandNotFound, "not found"),
        ("/tools/script", cl.CommandNotFound, "interpreter"),
        ("/tools/plain", cl.CommandNotExecutable, "permission denied"),
        ("/etc", cl.CommandNotExecutable, "permission denied"),
        ("/tools/garbage", cl.CommandNotExecutable, "exec format error"),
        ("/tools/empty", cl.CommandNotExecutable, "exec format error"),
        ("/tools/foreign", cl.CommandNotExecutable, "exec format error"),
        ("/tools/loop", cl.CommandNotExecutable, "symbolic links"),
        ("/" + "x" * 300, cl.SpawnError, "name too long"),
    ],
)
def test_command(
    image: Image,
    tools: Mount,
    command: str,
    kind: type[Exception],
    text: str,
    init: bool,  # noqa: FBT001
) -> None:
    """A command that cannot be executed is an error of the start, with the reaper before it as well."""
    refuse(
        image, kind, (repr(command), text), lambda: {"command": [command], "mounts": [tools], "init": init}
    )


def test_program_without_its_loader(busybox_image: Image) -> None:
    """A program whose loader is not in the image is told from one that is missing."""
    mounts = [Mount.bind("/bin/true", "/bin/dynamic")]
    refuse(busybox_image, cl.CommandNotFound, ("loader",), lambda: {"command": ["dynamic"], "mounts": mounts})


def test_arguments_that_are_too_long(image: Image) -> None:
    """More arguments than the kernel takes are an error of the start."""
    refuse(image, cl.SpawnError, ("argument list too long",), lambda: {"command": ["true", "x" * (4 << 20)]})


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"command": "echo hello"}, "command='echo hello': give a list"),
        ({"entrypoint": "echo hello"}, "entrypoint='echo hello': give a list"),
        ({"command": []}, "name one"),
        ({"command": None}, "name one"),
        ({"command": [""]}, "command=['']"),
        ({"command": ["echo", "a\0b"]}, r"command='a\x00b'"),
        ({"command": ["echo", 1]}, "command=1"),
        ({"command": ["echo", b"x"]}, "command=b'x'"),
        ({"command": ["echo", "\ud800"]}, r"\ud800"),
        ({"workdir": "relative"}, "workdir='relative': give an absolute path"),
        ({"workdir": ""}, "workdir=''"),
        ({"workdir": "/a\0b"}, r"workdir='/a\x00b'"),
        ({"workdir": "/no/such"}, "workdir='/no/such': is not a directory"),
        ({"workdir": "/etc/passwd"}, "workdir='/etc/passwd': is not a directory"),
        ({"workdir": "/proc/self/fd/0"}, "workdir='/proc/self/fd/0'"),
        ({"user": "nobody-here"}, "/etc/passwd has no 'nobody-here'"),
        ({"user": "root:no-group"}, "/etc/group has no 'no-group'"),
        ({"user": "4294967295"}, "user='4294967295': numbers"),
        ({"user": "0:4294967295"}, "user='0:4294967295': numbers"),
        ({"user": "99999999999999999999"}, "99999999999999999999"),
        ({"user": "-1"}, "user='-1'"),
        ({"user": "0x0"}, "user='0x0'"),
        ({"user": "+0"}, "user='+0'"),
        ({"user": " root"}, "user=' root'"),
        ({"user": "root\n"}, r"user='root\n'"),
        ({"user": ":0"}, "user=':0'"),
        ({"user": "0:"}, "user='0:'"),
        ({"user": "0:0:0"}, "user='0:0:0'"),
        ({"user": 1000}, "user=1000"),
        ({"group_add": ["no-group"]}, "/etc/group has no 'no-group'"),
        ({"group_add": [1000]}, "group_add=1000"),
        ({"env": ["NAME"]}, "env='NAME': write NAME=VALUE"),
        ({"env": "A=1"}, "env='A=1'"),
        ({"env": ["=x"]}, "env=''"),
        ({"env": {"A=B": "x"}}, "env='A=B'"),
        ({"env": {"A\nB": "x"}}, r"env='A\nB'"),
        ({"env": {"A\0B": "x"}}, r"env='A\x00B'"),
        ({"env": {"A": "x\0y"}}, r"env='A=x\x00y'"),
        ({"env": {"A": 1}}, "env={'A': 1}"),
        ({"env": [("A", "1")]}, "env=('A', '1')"),
        ({"hostname": ""}, "hostname=''"),
        ({"hostname": "-a"}, "hostname='-a'"),
        ({"hostname": "a b"}, "hostname='a b'"),
        ({"hostname": "a\n"}, r"hostname='a\n'"),
        ({"hostname": "x" * 65}, "at most 64"),
        ({"domainname": "a/b"}, "domainname='a/b'"),
        ({"name": ""}, "name=''"),
        ({"name": "-x"}, "name='-x'"),
        ({"name": "../x"}, "name='../x'"),
        ({"name": "x" * 256}, "name='xxx"),
        ({"labels": {"a": 1}}, "labels={'a': 1}"),
        ({"stop_signal": "NOPE"}, "signal='NOPE'"),
        ({"stop_signal": 0}, "signal=0"),
        ({"stop_signal": 65}, "signal=65"),
        ({"stop_timeout_s": -1}, "stop_timeout_s=-1"),
        ({"network": "a b"}, "network='a b'"),
        ({"lifetime": "for ever"}, "lifetime='for ever'"),
        ({"lifetime": "detached", "layer": "memory"}, "lifetime='detached'"),
        ({"layer": "cloud"}, "layer='cloud'"),
        ({"read_only": "no"}, "read_only='no': give True or False"),
        ({"shm_size_bytes": 100}, "shm_size_bytes=100"),
        ({"shm_size_bytes": "64m"}, "shm_size_bytes='64m'"),
        ({"console_size": (80,)}, "console_size=(80,)"),
        ({"console_size": (80, -1)}, "console_size=(80, -1)"),
        ({"mounts": ["/a:/b"]}, "mounts='/a:/b': give a list of Mount objects"),
        ({"devices": ["/dev/fuse"]}, "devices='/dev/fuse': give a list of Device objects"),
        ({"rlimits": ["nofile=1"]}, "rlimits='nofile=1'"),
        ({"resources": {"pids": 1}}, "resources={'pids': 1}"),
        ({"security": "unconfined"}, "security='unconfined'"),
        ({"sysctls": {"vm.swappiness": "1"}}, "sysctls='vm.swappiness'"),
        ({"sysctls": {"kernel.core_pattern": "|/x"}}, "sysctls='kernel.core_pattern'"),
        ({"sysctls": {"net.ipv4/../../vm/swappiness": "1"}}, "sysctls='net.ipv4/../../vm/swappiness'"),
        ({"sysctls": {"nonsense": "1"}}, "sysctls='nonsense'"),
        ({"sysctls": {"net.ipv4.ip_forward": "1"}, "network": "host"}, "would change others"),
        ({"sysctls": {"net.ipv4.ip_forward": "1\n0"}}, r"sysctls='net.ipv4.ip_forward=1\n0'"),
        ({"sysctls": {"net.ipv4.ip_forward": 1}}, "sysctls={'net.ipv4.ip_forward': 1}"),
    ],
)
def test_values(image: Image, options: Options, text: str) -> None:
    """A value that no host could honour, or that does not fit the image, is refused with the value."""
    if "command" in options and not options["command"]:
        options = {**options, "entrypoint": []}
    refuse(image, cl.InvalidOption, (text,), lambda: options)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: {"mounts": [Mount.bind("relative", "/a")]}, "source='relative'"),
        (lambda: {"mounts": [Mount.bind("/a\0b", "/a")]}, r"source='/a\x00b'"),
        (
            lambda: {"mounts": [Mount.bind("/no/such/source", "/a")]},
            "'/no/such/source': cannot be mounted on /a",
        ),
        (lambda: {"mounts": [Mount.bind("/etc", "relative")]}, "target='relative'"),
        (lambda: {"mounts": [Mount.bind("/etc", "")]}, "target=''"),
        (lambda: {"mounts": [Mount.bind("/etc", "/")]}, "target='/'"),
        (lambda: {"mounts": [Mount.tmpfs("//.")]}, "target='//.'"),
        (lambda: {"mounts": [Mount.bind("/etc", "/a/../b")]}, "target='/a/../b'"),
        (lambda: {"mounts": [Mount.bind("/etc", "/proc")]}, "target='/proc'"),
        (lambda: {"mounts": [Mount.bind("/etc", "/proc/sys/kernel")]}, "target='/proc/sys/kernel'"),
        (lambda: {"mounts": [Mount.bind("/etc", "//proc/self")]}, "/proc/self"),
        (lambda: {"mounts": [Mount.tmpfs("/sys/fs/cgroup")]}, "target='/sys/fs/cgroup'"),
        (lambda: {"mounts": [Mount.tmpfs("/dev")]}, "mounts='/dev'"),
        (lambda: {"mounts": [Mount.tmpfs("//dev/.")]}, "'/dev'"),
        (lambda: {"mounts": [Mount.tmpfs("/a"), Mount.tmpfs("/a/")]}, "mounts='/a/': two mounts"),
        (lambda: {"mounts": [Mount.tmpfs("/a/b"), Mount.bind("/etc", "//a/./b")]}, "two mounts"),
        (lambda: {"mounts": [Mount.tmpfs("/a", size_bytes=1)]}, "size_bytes=1"),
        (lambda: {"mounts": [Mount.tmpfs("/a", mode=0o10000)]}, "mode=4096"),
        (lambda: {"mounts": [Mount.bind("/etc", f"/{n}") for n in range(201)]}, "mounts=201"),
        (lambda: {"devices": [Device(source="/dev/no-such")]}, "devices='/dev/no-such'"),
        (lambda: {"devices": [Device(source="/etc/passwd", target="/dev/x")]}, "devices='/etc/passwd'"),
        (lambda: {"devices": [Device(source="/dev/fuse", target="/etc/x")]}, "devices='/etc/x'"),
        (lambda: {"devices": [Device(source="/dev/fuse", target="/dev/../x")]}, "devices='/x'"),
        (lambda: {"devices": [Device(source="/dev/fuse", access="rx")]}, "access='rx'"),
        (
            lambda: {"security": Security(cap_add=("NET_ADMN",))},
            "'NET_ADMN': there is no such capability; did",
        ),
        (lambda: {"security": Security(cap_drop=("CHOWNS",))}, "mean CHOWN?"),
        (lambda: {"security": Security(cap_add=("ALL",), cap_drop=("ALL",))}, "cap_drop='ALL'"),
        (lambda: {"security": Security(seccomp="off")}, "seccomp='off'"),  # type: ignore[arg-type]
        (lambda: {"security": Security(seccomp={"defaultAction": "SCMP_ACT_NONE"})}, "SCMP_ACT_NONE"),
        (lambda: {"security": Security(seccomp=profile_for("no_such_call"))}, "no_such_call"),
        (lambda: {"resources": Resources(memory_bytes=4096)}, "memory_bytes=4096"),
        (lambda: {"resources": Resources(memory_bytes=-1)}, "memory_bytes=-1"),
        (
            lambda: {"resources": Resources(memory_bytes=1 << 25, memory_swap_bytes=1 << 24)},
            "memory_swap_bytes",
        ),
        (lambda: {"resources": Resources(memory_swap_bytes=1 << 24)}, "memory_swap_bytes=16777216"),
        (lambda: {"resources": Resources(cpus=10_000.0)}, "cpus=10000.0"),
        (lambda: {"resources": Resources(cpus=0)}, "cpus=0"),
        (lambda: {"resources": Resources(cpus=float("nan"))}, "cpus=nan"),
        (lambda: {"resources": Resources(cpuset_cpus="4095")}, "cpuset_cpus='4095'"),
        (lambda: {"resources": Resources(cpuset_cpus="all")}, "cpuset_cpus='all'"),
        (lambda: {"resources": Resources(cpuset_mems="99")}, "cpuset_mems='99'"),
        (lambda: {"resources": Resources(pids=0)}, "pids=0"),
        (lambda: {"rlimits": [Rlimit(name="files", soft=1, hard=1)]}, "rlimits='files'"),
        (lambda: {"rlimits": [Rlimit(name="nofile", soft=2, hard=1)]}, "soft=2"),
    ],
)
def test_value_objects(image: Image, make: Callable[[], Options], text: str) -> None:
    """A value object with a bad value is refused when it is made or when it is used."""
    refuse(image, cl.InvalidOption, (text,), make)


def profile_for(name: str) -> Options:
    """Return a profile that denies one system call."""
    return {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": [name], "action": "SCMP_ACT_ERRNO"}]}


@pytest.mark.parametrize(
    ("options", "texts"),
    [
        ({"sysctls": {"net.ipv4.no_such_setting": "1"}}, ("sysctl", "'net/ipv4/no_such_setting=1'")),
        ({"sysctls": {"net.ipv4.ip_forward": "many"}}, ("sysctl", "ip_forward=many", "invalid argument")),
        ({"mounts": [Mount.tmpfs("/etc/passwd")]}, ("mount", "/etc/passwd")),
        ({"mounts": [Mount.bind("/etc", "/etc/passwd/below")]}, ("mount target", "/etc/passwd/below")),
        ({"mounts": [Mount.bind("/etc/passwd", "/" + "x" * 300)]}, ("mount target", "name too long")),
        ({"devices": [Device(source="/dev/fuse", target="/dev/null")]}, ("device", "'/dev/null'", "exists")),
    ],
)
def test_what_only_the_kernel_knows(image: Image, options: Options, texts: tuple[str, ...]) -> None:
    """What the kernel refuses is told with the step and the value."""
    refuse(image, cl.SpawnError, texts, lambda: options)


@pytest.mark.parametrize("link", ["/proc", "/proc/sys/kernel", "../proc/self", "/sys", "/sys/kernel"])
@pytest.mark.parametrize("below", ["", "/new"])
def test_target_that_leads_into_a_file_system_of_the_kernel(
    image: Image, tmp_path: Path, link: str, below: str
) -> None:
    """A link of the image does not get a mount into /proc or /sys."""
    (tmp_path / "link").symlink_to(link)
    mounts = [Mount.bind(str(tmp_path), "/data"), Mount.tmpfs(f"/data/link{below}")]
    refuse(image, cl.SpawnError, ("mount target", f"/data/link{below}"), lambda: {"mounts": mounts})


@pytest.mark.parametrize("climb", ["", "/../../../../.."])
def test_target_that_leads_outside(image: Image, tmp_path: Path, climb: str) -> None:
    """A link to a host directory that the image does not have leads nowhere, and the host is untouched."""
    canary, inside = tmp_path / "canary", tmp_path / "inside"
    canary.mkdir()
    inside.mkdir()
    (inside / "link").symlink_to(f"{climb}{canary}")
    mounts = [Mount.bind(str(inside), "/data"), Mount.tmpfs("/data/link/new")]
    refuse(image, cl.SpawnError, ("mount target", "/data/link/new"), lambda: {"mounts": mounts})
    assert sorted(os.listdir(tmp_path)) == ["canary", "inside"]
    assert os.listdir(canary) == []
    assert os.listdir(inside) == ["link"]


def missing_capabilities() -> list[str]:
    """List the capabilities that this process could not pass on."""
    with open("/proc/self/status", encoding="ascii") as file:
        own = next(int(line.split()[1], 16) for line in file if line.startswith("CapBnd"))
    return [name for name, number in CAPABILITIES.items() if not own >> number & 1]


def test_capability_that_the_host_lacks(image: Image) -> None:
    """A capability that this process has not itself is refused, by name."""
    lacking = missing_capabilities()
    if not lacking:
        pytest.skip("this process has every capability")
    security = Security(cap_add=lacking)  # type: ignore[arg-type]
    refuse(image, cl.UnsupportedHost, tuple(lacking), lambda: {"security": security})


@pytest.mark.skipif("CAP_SYS_RESOURCE" not in missing_capabilities(), reason="every limit can be raised")
@pytest.mark.parametrize("hard", [HARD_FILES + 1, -1], ids=["above", "unlimited"])
def test_limit_above_the_hosts(image: Image, hard: int) -> None:
    """A hard limit above the host's own is refused where it cannot be raised."""
    limit = Rlimit(name="nofile", soft=1, hard=hard)
    texts = (f"rlimit nofile={hard}", "CAP_SYS_RESOURCE", str(HARD_FILES))
    refuse(image, cl.UnsupportedHost, texts, lambda: {"rlimits": [limit]})


@pytest.mark.parametrize("signal", ["NOPE", "SIGNOPE", 0, 65, -1, "1.5", ""])
def test_unknown_signal(image: Image, signal: int | str) -> None:
    """A signal that does not exist is refused, and the container goes on."""
    with image.run(["sleep", "1000"], stdin=cl.DEVNULL) as container:
        with pytest.raises(cl.InvalidOption, match=re.escape(f"signal={signal!r}")):
            container.kill(signal)
        assert container.state == "running"


@pytest.mark.parametrize("act", ["call", "run", "create"])
def test_closed_engine(engine: Engine, act: str) -> None:
    """A closed engine starts nothing, and says so."""
    image = engine.images.from_host(["true"])
    engine.close()
    acts: dict[str, Callable[[], Container | cl.CompletedRun]] = {
        "call": lambda: image.call(["true"]),
        "run": lambda: image.run(["true"]),
        "create": lambda: engine.containers.create(image, ["true"]),
    }
    with pytest.raises(cl.EngineClosed, match="open a new one"):
        acts[act]()


@pytest.mark.parametrize(
    "options", [{"root_kind": "magic"}, {"start_timeout_s": 0}, {"start_timeout_s": -1.0}]
)
def test_engine_settings(options: Options) -> None:
    """Settings of an engine are checked when they are made."""
    ((name, value),) = options.items()
    with pytest.raises(cl.InvalidOption, match=re.escape(f"{name}={value!r}")):
        cl.EngineConfig(**options)


def test_engine_directories(tmp_path: Path) -> None:
    """The directories of an engine are absolute paths."""
    for root, run_root in (("relative", tmp_path), (tmp_path, "relative"), ("/a\0b", tmp_path)):
        with pytest.raises(cl.InvalidOption, match="give an absolute path"):
            new_engine(root, run_root)  # type: ignore[arg-type]
