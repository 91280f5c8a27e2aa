from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from attrs import evolve

from containerlib.errors import CgroupError, InvalidOption, UnsupportedHost
from containerlib.options import Resources
from containerlib.runtime.cgroup import ContainerCgroup, EngineCgroup
from containerlib.runtime.cgroup_host import CgroupHost, Controller, Hierarchy
from containerlib.runtime.cgroup_recovery import collect_orphans
from containerlib.runtime.device_rules import ALLOW_ALL, DEFAULT_RULES, DENY_ALL, DeviceRule

pytestmark = [pytest.mark.root, pytest.mark.cgroup, pytest.mark.guest]

MIB = 1024 * 1024

# The child joins by itself, as a new container does; without clone3 it has to migrate on version 2.
JOIN = """
import os, sys
for fd in sys.argv[1].split(",")[:-1]:
    os.write(int(fd), b"0")
if sys.argv[2] != "None":
    with open(f"/proc/self/fd/{sys.argv[2]}/cgroup.procs", "w") as file:
        file.write("0")
"""
SLEEP = "print('ready', flush=True); import time; time.sleep(600)"
COUNT = """
import time
for number in range(10**9):
    print(number, flush=True)
    time.sleep(0.005)
"""
ALLOCATE = """
blocks = []
while True:
    blocks.append(bytearray(b"x") * (1 << 20))
"""
FORK = """
children = []
try:
    while len(children) < 50:
        pid = os.fork()
        if pid == 0:
            import time; time.sleep(600)
        children.append(pid)
except BlockingIOError:
    pass
print(len(children), flush=True)
for pid in children:
    os.kill(pid, 9)
    os.waitpid(pid, 0)
"""
OPEN = """
import errno
for path in sys.argv[3:]:
    try:
        os.close(os.open(path, os.O_RDWR))
        print("open")
    except OSError as error:
        print(errno.errorcode[error.errno])
"""

Spawn = Callable[..., "subprocess.Popen[str]"]


def without(host: CgroupHost, *names: str, unified: bool = True) -> CgroupHost:
    """Return the host as if it did not have these controllers, or no version 2 at all."""
    left = {name: c for name, c in host.controllers.items() if name not in names}
    return evolve(host, controllers=left, unified=host.unified if unified else None)


@pytest.fixture
def host() -> CgroupHost:
    """The control groups of this host."""
    return CgroupHost.probe()


@pytest.fixture
def make_engine() -> Iterator[Callable[[CgroupHost], EngineCgroup]]:
    """Make engines that must have nothing left in them at the end."""
    engines: list[EngineCgroup] = []

    def make(host: CgroupHost) -> EngineCgroup:
        engines.append(EngineCgroup.create(host, f"test-{os.getpid()}-{len(engines)}"))
        return engines[-1]

    yield make
    for engine in engines:
        assert engine.close() == []


@pytest.fixture
def engine(host: CgroupHost, make_engine: Callable[[CgroupHost], EngineCgroup]) -> EngineCgroup:
    """An engine with all that this host offers."""
    return make_engine(host)


@pytest.fixture
def spawn() -> Iterator[Spawn]:
    """Start Python children that join a container's control groups first; they do not outlive the test."""
    children: list[subprocess.Popen[str]] = []

    def start(
        cgroup: ContainerCgroup, code: str, *arguments: str, inherit: list[int] | None = None
    ) -> subprocess.Popen[str]:
        fds = (inherit or []) + cgroup.join_fds
        joined = "".join(f"{fd}," for fd in fds)
        passed = [*fds, *([] if cgroup.cgroup2_fd is None else [cgroup.cgroup2_fd])]
        children.append(
            subprocess.Popen(
                [sys.executable, "-ISc", JOIN + code, joined, str(cgroup.cgroup2_fd), *arguments],
                stdout=subprocess.PIPE,
                pass_fds=passed,
                text=True,
            )
        )
        return children[-1]

    yield start
    for child in children:
        child.kill()
        child.wait()
        assert child.stdout is not None
        child.stdout.close()


def is_limited_by(host: CgroupHost, name: str) -> bool:
    """Whether this controller can be used here."""
    found = host.find(name)
    return found is not None and found.problem is None


def need(host: CgroupHost, *names: str) -> None:
    """Skip without these controllers."""
    missing = [name for name in names if not is_limited_by(host, name)]
    if missing:
        pytest.skip(f"no usable cgroup controller: {', '.join(missing)}")


def finish(cgroup: ContainerCgroup) -> None:
    """Close and remove, which must succeed at once."""
    cgroup.close()
    assert cgroup.remove()


def test_a_child_joins(engine: EngineCgroup, spawn: Spawn) -> None:
    """A process that joins is in the expected cgroup of every tree, and in no other."""
    with engine.make("c1", Resources()) as cgroup:
        child = spawn(cgroup, "print(open('/proc/self/cgroup').read())")
        shown, _ = child.communicate()
        expected = cgroup.paths()
    found = {name: line.split(":", 2)[2] for line in shown.split() for name in line.split(":")[1].split(",")}
    assert expected
    assert {name: found[name] for name in expected} == expected
    assert not any("c1" in path for name, path in found.items() if name not in expected)


def test_pids_limit(engine: EngineCgroup, host: CgroupHost, spawn: Spawn) -> None:
    """The kernel refuses the process after the last one allowed, and the peak is counted."""
    need(host, "pids")
    cgroup = engine.make("c1", Resources(pids=5))
    assert spawn(cgroup, FORK).communicate()[0] == "4\n"
    assert cgroup.usage().pids_peak in (5, None)
    finish(cgroup)


def test_memory_limit(engine: EngineCgroup, host: CgroupHost, spawn: Spawn) -> None:
    """A process that takes too much memory is killed, which is counted as such; the peak is the limit."""
    need(host, "memory")
    cgroup = engine.make("c1", Resources(memory_bytes=32 * MIB, memory_swap_bytes=32 * MIB))
    child = spawn(cgroup, ALLOCATE)
    assert child.wait() == -signal.SIGKILL
    usage = cgroup.usage()
    assert usage.oom_kills == 1
    assert usage.memory_peak_bytes is not None
    assert 30 * MIB < usage.memory_peak_bytes <= 32 * MIB
    finish(cgroup)


def test_a_plain_kill_is_no_oom_kill(engine: EngineCgroup, spawn: Spawn) -> None:
    """Being killed by someone is not being out of memory."""
    cgroup = engine.make("c1", Resources())
    child = spawn(cgroup, SLEEP)
    assert child.stdout is not None
    child.stdout.readline()
    child.kill()
    child.wait()
    assert cgroup.usage().oom_kills == 0
    finish(cgroup)


def test_cpu_time_is_counted(engine: EngineCgroup, host: CgroupHost, spawn: Spawn) -> None:
    """Processor time is known after the end wherever version 2 is mounted."""
    if host.unified is None or host.unified.problem is not None:
        pytest.skip("no usable cgroup2 tree")
    cgroup = engine.make("c1", Resources())
    spawn(cgroup, "while os.times()[0] < 0.2: pass").wait()
    used_ns = cgroup.usage().cpu_ns
    assert used_ns is not None
    assert 100_000_000 < used_ns < 5_000_000_000
    finish(cgroup)


def test_cpu_and_cpuset(engine: EngineCgroup, host: CgroupHost, spawn: Spawn) -> None:
    """A share of one processor and the choice of processor take effect."""
    need(host, "cpu", "cpuset")
    cgroup = engine.make("c1", Resources(cpus=0.2, cpu_shares=512, cpuset_cpus="0", cpuset_mems="0"))
    code = (
        "import time; begin = time.monotonic()\n"
        "while os.times()[0] < 0.2: pass\n"
        "print(time.monotonic() - begin, os.sched_getaffinity(0))"
    )
    elapsed_s, affinity = spawn(cgroup, code).communicate()[0].split(" ", 1)
    assert float(elapsed_s) > 0.5
    assert affinity.strip() == "{0}"
    finish(cgroup)


def test_cpuset_is_inherited(engine: EngineCgroup, host: CgroupHost, spawn: Spawn) -> None:
    """Who asks for nodes only keeps all processors, and the other way round."""
    need(host, "cpuset")
    cgroup = engine.make("c1", Resources(cpuset_mems="0"))
    shown, _ = spawn(cgroup, "print(len(os.sched_getaffinity(0)))").communicate()
    assert int(shown) == len(os.sched_getaffinity(0))
    finish(cgroup)


def test_update(engine: EngineCgroup, host: CgroupHost, spawn: Spawn) -> None:
    """Limits are raised, lowered, added and taken away under a running container."""
    need(host, "memory", "pids", "cpu", "cpuset")
    cgroup = engine.make("c1", Resources(memory_bytes=64 * MIB))
    child = spawn(cgroup, SLEEP)
    assert child.stdout is not None
    child.stdout.readline()
    for memory in (128 * MIB, 32 * MIB, 256 * MIB):
        cgroup.update(Resources(memory_bytes=memory))
    cgroup.update(Resources(cpus=0.5, pids=7, cpuset_cpus="0"))
    assert os.sched_getaffinity(child.pid) == {0}
    cgroup.update(Resources(cpus=0.5, pids=7))
    assert len(os.sched_getaffinity(child.pid)) == len(os.sched_getaffinity(0))
    values = {
        path.name: path.read_text(encoding="ascii").split()
        for hierarchy in host.hierarchies()
        for path in Path(hierarchy.own_path, engine.name).glob("**/c1/*")
        if path.name in ("memory.limit_in_bytes", "memory.max", "pids.max", "cpu.cfs_quota_us", "cpu.max")
    }
    assert values["pids.max"] == ["7"]
    assert values.get("memory.max", ["max"]) == ["max"]
    assert int(values.get("memory.limit_in_bytes", [str(2**62)])[0]) > 2**60
    assert values.get("cpu.cfs_quota_us", ["50000"]) == values.get("cpu.max", ["50000"])[:1] == ["50000"]
    assert cgroup.kill()
    child.wait()
    finish(cgroup)


def test_update_puts_back(engine: EngineCgroup, host: CgroupHost, spawn: Spawn) -> None:
    """When the kernel refuses one limit, those set before it have their former values."""
    need(host, "memory", "pids")
    if host.controllers["memory"].hierarchy.version != 1:
        pytest.skip("version 2 reclaims and kills rather than refuse")
    cgroup = engine.make("c1", Resources(pids=9))
    code = "import mmap; block = mmap.mmap(-1, 64 << 20, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)\n"
    child = spawn(cgroup, code + "block.write(b'x' * (64 << 20));" + SLEEP)
    assert child.stdout is not None
    child.stdout.readline()
    with pytest.raises(CgroupError, match=r"memory\.limit_in_bytes"):
        cgroup.update(Resources(pids=10, memory_bytes=16 * MIB))
    assert cgroup.resources == Resources(pids=9)
    pids = Path(host.controllers["pids"].hierarchy.own_path, engine.name, "c1/pids.max")
    assert pids.read_text(encoding="ascii") == "9\n"
    cgroup.kill()
    child.wait()
    finish(cgroup)


def device_hosts() -> list[Callable[[CgroupHost], CgroupHost]]:
    """The host as it is, and one that has to use a program of version 2."""
    return [lambda host: host, lambda host: without(host, "devices")]


@pytest.mark.parametrize("view", device_hosts(), ids=["as is", "program"])
def test_default_devices(
    host: CgroupHost,
    make_engine: Callable[[CgroupHost], EngineCgroup],
    view: Callable[[CgroupHost], CgroupHost],
    spawn: Spawn,
) -> None:
    """By default null and zero can be opened and a loop device cannot, on either version."""
    engine = make_engine(view(host))
    inherited = engine.spawner_join_fds()
    if engine.device_problem is not None:
        pytest.skip(engine.device_problem)
    cgroup = engine.make("c1", Resources())
    child = spawn(cgroup, OPEN, "/dev/null", "/dev/zero", "/dev/kmsg", inherit=inherited)
    assert child.communicate()[0].split() == ["open", "open", "EPERM"]
    for fd in inherited:
        os.close(fd)
    finish(cgroup)


@pytest.mark.parametrize("view", device_hosts(), ids=["as is", "program"])
@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ([ALLOW_ALL], ["open", "open", "open"]),
        ([*DEFAULT_RULES, DeviceRule(True, "c", 1, 11, "rw")], ["open", "open", "open"]),
        ([*DEFAULT_RULES, DeviceRule(True, "c", 1, 11, "r")], ["open", "open", "EPERM"]),
        ([DENY_ALL, DeviceRule(True, "c", 1, 3)], ["open", "EPERM", "EPERM"]),
        ([ALLOW_ALL, DeviceRule(False, "c", 1, 5, "w")], ["open", "EPERM", "open"]),
    ],
)
def test_own_devices(
    host: CgroupHost,
    make_engine: Callable[[CgroupHost], EngineCgroup],
    view: Callable[[CgroupHost], CgroupHost],
    spawn: Spawn,
    rules: list[DeviceRule],
    expected: list[str],
) -> None:
    """A container may be given more or fewer devices than the default, which the spawner has."""
    engine = make_engine(view(host))
    inherited = engine.spawner_join_fds()
    if engine.device_problem is not None:
        pytest.skip(engine.device_problem)
    cgroup = engine.make("c1", Resources(), devices=rules)
    child = spawn(cgroup, OPEN, "/dev/null", "/dev/zero", "/dev/kmsg", inherit=inherited)
    assert child.communicate()[0].split() == expected
    for fd in inherited:
        os.close(fd)
    finish(cgroup)


def test_unenforceable_devices(host: CgroupHost, make_engine: Callable[[CgroupHost], EngineCgroup]) -> None:
    """Where devices cannot be controlled, that is said; taking one away is refused, granting one is not."""
    engine = make_engine(without(host, "devices", unified=False))
    assert engine.spawner_join_fds() == []
    assert engine.device_problem is not None
    with pytest.raises(UnsupportedHost, match="denying devices"):
        engine.make("c1", Resources(), devices=[ALLOW_ALL, DeviceRule(False, "b", 7)])
    finish(engine.make("c1", Resources(), devices=[*DEFAULT_RULES, DeviceRule(True, "b", 7)]))


def freezing_hosts() -> list[Callable[[CgroupHost], CgroupHost]]:
    """The host as it is, and one with version 1 only, which makes a freezer when it is needed."""
    return [lambda host: host, lambda host: without(host, unified=False)]


@pytest.mark.parametrize("view", freezing_hosts(), ids=["as is", "v1"])
@pytest.mark.parametrize("end", ["thaw", "kill"])
def test_freeze(
    host: CgroupHost,
    make_engine: Callable[[CgroupHost], EngineCgroup],
    view: Callable[[CgroupHost], CgroupHost],
    spawn: Spawn,
    end: str,
) -> None:
    """A frozen container stands still, goes on when thawed, and can be killed while frozen."""
    seen = view(host)
    if seen.unified is None:
        need(host, "freezer", "pids")
    cgroup = make_engine(seen).make("c1", Resources())
    child = spawn(cgroup, COUNT)
    assert child.stdout is not None
    child.stdout.readline()
    cgroup.freeze()
    cgroup.freeze()
    output_fd = child.stdout.fileno()
    while select.select([output_fd], [], [], 0)[0]:
        os.read(output_fd, 65536)
    assert not select.select([output_fd], [], [], 0.1)[0]
    if end == "thaw":
        cgroup.thaw()
        cgroup.thaw()
        assert select.select([output_fd], [], [], 5)[0]
    assert cgroup.kill()
    assert child.wait(5) == -signal.SIGKILL
    finish(cgroup)


def test_no_freezer(host: CgroupHost, make_engine: Callable[[CgroupHost], EngineCgroup]) -> None:
    """Without any way to freeze, pausing is refused."""
    if host.mode == "v2":
        pytest.skip("all that there is is version 2, which freezes without a controller")
    cgroup = make_engine(without(host, "freezer", unified=False)).make("c1", Resources())
    with pytest.raises(UnsupportedHost, match="freezer"):
        cgroup.freeze()
    finish(cgroup)


@pytest.mark.parametrize("view", freezing_hosts(), ids=["as is", "v1"])
def test_kill(
    host: CgroupHost,
    make_engine: Callable[[CgroupHost], EngineCgroup],
    view: Callable[[CgroupHost], CgroupHost],
    spawn: Spawn,
) -> None:
    """Everything in a container is killed, grandchildren and what ignores signals included."""
    seen = view(host)
    if seen.unified is None:
        need(host, "pids")
    cgroup = make_engine(seen).make("c1", Resources())
    code = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); os.fork(); os.setsid;" + SLEEP
    child = spawn(cgroup, code)
    assert child.stdout is not None
    child.stdout.readline()
    child.stdout.readline()
    assert len(cgroup.pids()) == 2
    assert cgroup.kill()
    assert child.wait(5) == -signal.SIGKILL
    deadline = time.monotonic() + 5
    while cgroup.pids() and time.monotonic() < deadline:
        time.sleep(0.001)
    assert cgroup.kill()
    finish(cgroup)


def test_busy_directories_are_deferred(engine: EngineCgroup, spawn: Spawn) -> None:
    """A directory with a living process is not removed, but later, when the engine tries again."""
    cgroup = engine.make("c1", Resources())
    child = spawn(cgroup, SLEEP)
    assert child.stdout is not None
    child.stdout.readline()
    cgroup.close()
    assert not cgroup.remove()
    assert engine.retry_removals() > 0
    child.kill()
    child.wait()
    deadline = time.monotonic() + 5
    while engine.retry_removals() and time.monotonic() < deadline:
        time.sleep(0.001)
    assert engine.retry_removals() == 0
    assert cgroup.remove()


def test_nested_cgroups_are_removed(engine: EngineCgroup, host: CgroupHost) -> None:
    """Cgroups that a container made inside its own do not keep it from being removed."""
    cgroup = engine.make("c1", Resources())
    for hierarchy in host.hierarchies():
        for path in Path(hierarchy.own_path, engine.name).glob("**/c1"):
            (path / "inner/most").mkdir(parents=True)
    finish(cgroup)


def test_directories_that_somebody_removed(host: CgroupHost, engine: EngineCgroup) -> None:
    """An engine whose empty directories were taken away makes them anew, as often as that happens."""
    for number in range(3):
        cgroup = engine.make(f"c{number}", Resources(pids=9))
        assert cgroup.read("pids", "pids.max") == "9\n" or "pids" not in host.controllers
        finish(cgroup)
        for path in map(Path, engine.directories()):
            for each in (*(each for each in path.iterdir() if each.is_dir()), path):
                each.rmdir()


def test_ids_are_unique(engine: EngineCgroup) -> None:
    """A second container of the same id is refused and leaves the first alone."""
    cgroup = engine.make("c1", Resources())
    with pytest.raises(CgroupError, match="File exists"):
        engine.make("c1", Resources())
    finish(cgroup)


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "_default", "a\n", "-x", "x" * 300])
def test_ids_are_single_components(engine: EngineCgroup, name: str) -> None:
    """An id that is no plain directory name is refused."""
    with pytest.raises(InvalidOption, match="container_id"):
        engine.make(name, Resources())


@pytest.mark.parametrize(
    ("missing", "resources"),
    [
        ("memory", Resources(memory_bytes=64 * MIB)),
        ("pids", Resources(pids=10)),
        ("cpu", Resources(cpus=0.5)),
        ("cpuset", Resources(cpuset_cpus="0")),
        ("blkio", Resources(device_read_bps=(("/dev/sda", 1),))),
    ],
)
def test_a_limit_that_cannot_be_set(
    host: CgroupHost,
    make_engine: Callable[[CgroupHost], EngineCgroup],
    missing: str,
    resources: Resources,
) -> None:
    """A limit that needs a missing controller is refused by name before anything is made."""
    names = (missing, "io") if missing == "blkio" else (missing,)
    engine = make_engine(without(host, *names))
    with pytest.raises(UnsupportedHost, match=names[-1]):
        engine.make("c1", resources)
    assert not directories(host, engine, "c1")
    finish(engine.make("c1", Resources()))


def test_a_controller_with_a_problem(
    host: CgroupHost, make_engine: Callable[[CgroupHost], EngineCgroup]
) -> None:
    """The reason why a controller cannot be used reaches the caller."""
    need(host, "memory")
    found = host.controllers["memory"]
    broken = Controller("memory", found.hierarchy, "/x is mounted read-only")
    engine = make_engine(evolve(host, controllers={**host.controllers, "memory": broken}))
    with pytest.raises(UnsupportedHost, match="/x is mounted read-only"):
        engine.make("c1", Resources(memory_bytes=64 * MIB))
    finish(engine.make("c1", Resources()))


def test_a_refused_value_removes_what_was_made(engine: EngineCgroup, host: CgroupHost) -> None:
    """When the kernel refuses a value half way, nothing stays and no descriptor is left open."""
    need(host, "pids")
    before = len(os.listdir("/proc/self/fd"))
    engine.plan(Resources(pids=2**40))
    opened = len(os.listdir("/proc/self/fd")) - before
    with pytest.raises(CgroupError, match=r"pids\.max"):
        engine.make("c1", Resources(pids=2**40))
    assert len(os.listdir("/proc/self/fd")) == before + opened
    assert not directories(host, engine, "c1")


def test_nothing_writable(make_engine: Callable[[CgroupHost], EngineCgroup], spawn: Spawn) -> None:
    """Without any control group a container runs, without limits, and limits are refused."""
    engine = make_engine(CgroupHost("none"))
    assert engine.spawner_join_fds() == []
    cgroup = engine.make("c1", Resources())
    assert (cgroup.join_fds, cgroup.cgroup2_fd, cgroup.paths()) == ([], None, {})
    assert spawn(cgroup, "").wait() == 0
    assert cgroup.usage().cpu_ns is None
    assert not cgroup.kill()
    finish(cgroup)
    with pytest.raises(UnsupportedHost):
        engine.make("c1", Resources(pids=100))


def test_unified_files(engine: EngineCgroup, host: CgroupHost) -> None:
    """A file of a version 2 controller can be set directly, its controller being passed on when needed."""
    found = host.find("hugetlb")
    if found is None or found.hierarchy.version != 2 or found.problem is not None:
        pytest.skip("hugetlb is not on version 2")
    cgroup = engine.make("c1", Resources(unified={"hugetlb.2MB.max": "0"}))
    (path,) = directories(host, engine, "c1", version=2)
    assert (path / "hugetlb.2MB.max").read_text(encoding="ascii") == "0\n"
    finish(cgroup)
    with pytest.raises(UnsupportedHost, match=r"hugetlb\.none"):
        engine.make("c2", Resources(unified={"hugetlb.none": "0"}))


def test_orphans_are_collected(
    host: CgroupHost, make_engine: Callable[[CgroupHost], EngineCgroup], spawn: Spawn
) -> None:
    """What a dead engine left is killed and removed; a living engine's is not touched."""
    dead, alive = make_engine(host), make_engine(host)
    inherited = dead.spawner_join_fds()
    lost, kept = dead.make("c1", Resources(cpus=0.5)), alive.make("c1", Resources())
    lost_child = spawn(lost, SLEEP, inherit=inherited)
    kept_child = spawn(kept, SLEEP)
    for child in (lost_child, kept_child):
        assert child.stdout is not None
        child.stdout.readline()
    for fd in inherited:
        os.close(fd)
    lost.close()
    # Other test sessions may have engines here, whose lives are not ours to judge.
    orphans = collect_orphans(host, lambda engine_id: f"containerlib-{engine_id}" != dead.name)
    assert orphans.left == ()
    assert {os.path.basename(path) for path in orphans.removed} == {dead.name}
    assert lost_child.wait(5) == -signal.SIGKILL
    assert kept_child.poll() is None
    assert collect_orphans(host, lambda _engine_id: True).removed == ()
    assert not directories(host, dead, "c1")
    assert directories(host, alive, "c1")
    kept.kill()
    kept_child.wait()
    finish(kept)


def test_nothing_is_left(host: CgroupHost) -> None:
    """After removal and close no directory and no descriptor of ours is left."""
    before = len(os.listdir("/proc/self/fd"))
    engine = EngineCgroup.create(host, f"test-{os.getpid()}-last")
    for fd in engine.spawner_join_fds():
        os.close(fd)
    finish(engine.make("c1", Resources(cpus=0.5), devices=[ALLOW_ALL]))
    assert engine.close() == []
    assert engine.close() == []
    assert len(os.listdir("/proc/self/fd")) == before
    for hierarchy in host.hierarchies():
        assert not Path(hierarchy.own_path, engine.name).exists()


def directories(
    host: CgroupHost, engine: EngineCgroup, name: str, *, version: int | None = None
) -> list[Path]:
    """List a container's directories in all trees."""

    def is_wanted(hierarchy: Hierarchy) -> bool:
        return version is None or hierarchy.version == version

    return [
        path
        for hierarchy in host.hierarchies()
        if is_wanted(hierarchy)
        for path in Path(hierarchy.own_path, engine.name).glob(f"**/{name}")
    ]
