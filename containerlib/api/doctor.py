"""What this host can and cannot give containers: found by looking, and where that proves nothing, by trying.

In: an engine, for its directories and its way to make root file systems. Out: `Finding` values. Nothing is
changed, and what is made to try something is gone afterwards.
"""

from __future__ import annotations

import os
import re
import tempfile
from typing import TYPE_CHECKING, Literal

from attrs import frozen

from containerlib._native.path import kernel_features
from containerlib.errors import ContainerlibError
from containerlib.runtime import seccomp
from containerlib.runtime.capability import CAPABILITIES, DEFAULT_CAPABILITIES
from containerlib.runtime.cgroup import EngineCgroup
from containerlib.runtime.cgroup_host import CgroupHost
from containerlib.runtime.cgroup_manager import CgroupManager
from containerlib.runtime.host import HostFacts

if TYPE_CHECKING:
    from collections.abc import Iterator

    from containerlib.api.engine import Engine
    from containerlib.api.image import Image
    from containerlib.runtime.runner import RootKind

__all__ = ["Finding", "examine"]

State = Literal["present", "missing", "degraded"]

_KERNEL_NEEDED = (5, 4)
_KERNEL_WANTED = (5, 12)
_PROBE = "/bin/true"
_LARGEST_TEXT = 65536

_AS_ROOT = "run as root, or in a container with this capability"
_NEWER_KERNEL = "use a newer kernel, or a system call filter around this process that knows the call"

_CALLS = (
    ("openat2", "5.6", "paths inside containers are walked step by step, with several calls for each mount"),
    (
        "clone3",
        "5.3",
        "on cgroup v2 no container can be started in a control group, so none has limits there",
    ),
    (
        "mount_api",
        "5.2",
        "the options of an overlay must fit into one page, which bounds the number of layers",
    ),
    ("mount_setattr", "5.12", "a read-only bind mount cannot take the mounts below its source along"),
    ("close_range", "5.9", "each start closes descriptors one by one"),
    (
        "pidfd_open",
        "5.3",
        "no container can outlive its process, whose end is seen by looking at /proc instead of by an event",
    ),
)

_CONTROLLERS = (
    (("memory",), "memory limits, and counting what a container uses"),
    (("pids",), "limits on the number of processes; without one, a container can use up all of the host's"),
    (("cpu",), "cpus, cpu_shares and cpu_quota_us"),
    (("cpuset",), "cpuset_cpus and cpuset_mems"),
    (("io", "blkio"), "io_weight and the device_* rates"),
    (("devices",), "device rules on cgroup v1"),
    (("freezer",), "pausing containers on cgroup v1"),
)
_ONLY_V1 = frozenset({"devices", "freezer"})


@frozen(kw_only=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        name: What was looked at.
        state: ``"present"``, ``"missing"``, or ``"degraded"`` if something slower or weaker stands in.
        found: What is there.
        needed: What it is for.
        cost: What it costs to do without it.
        remedy: What can be done about that.
        is_essential: Whether no container can be started without it.
    """

    name: str
    state: State
    found: str
    needed: str
    cost: str
    remedy: str
    is_essential: bool = False


def examine(engine: Engine) -> list[Finding]:
    """Look at everything. What cannot be found out counts as missing, and nothing is raised for it.

    Cost: some ten milliseconds; starts up to four containers in directories of their own.
    """
    facts = HostFacts.probe()
    return [
        *_privileges(),
        _kernel(facts),
        *_system_calls(),
        *_start(engine),
        _seccomp(facts),
        *_control_groups(),
        *_rootless(),
        _security_modules(),
        *_directories(engine),
    ]


def _read(path: str) -> str:
    """A small file; empty if it cannot be read."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read(_LARGEST_TEXT).strip()
    except OSError:
        return ""


def _reason(error: Exception) -> str:
    if isinstance(error, ContainerlibError) or not isinstance(error, OSError):
        return str(error)
    return (error.strerror or str(error)).lower()


def _status_field(name: str) -> str:
    """A field of what the kernel says about this process; empty if the kernel does not know it."""
    lines = _read("/proc/self/status").splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(f"{name}:")), "")


# Privileges


def _privileges() -> Iterator[Finding]:
    uid = os.geteuid()
    yield Finding(
        name="root",
        state="present" if uid == 0 else "missing",
        found=f"user id {uid}",
        needed="making namespaces, mounts and control groups",
        cost="no container can be started",
        remedy="run as root; rootless containers are not supported yet",
        is_essential=True,
    )
    bits = int(_status_field("CapEff") or "0", 16)
    has = {name for name, number in CAPABILITIES.items() if bits >> number & 1}
    yield Finding(
        name="CAP_SYS_ADMIN",
        state="present" if "CAP_SYS_ADMIN" in has else "missing",
        found="effective" if "CAP_SYS_ADMIN" in has else "not effective",
        needed="making namespaces and mounts",
        cost="no container can be started",
        remedy=_AS_ROOT,
        is_essential=True,
    )
    yield Finding(
        name="CAP_SYS_RESOURCE",
        state="present" if "CAP_SYS_RESOURCE" in has else "degraded",
        found="effective" if "CAP_SYS_RESOURCE" in has else "not effective",
        needed="hard resource limits above this process's own, and a lower oom_score_adj",
        cost="default limits are lowered to this process's own; asking for higher ones is an error",
        remedy=_AS_ROOT,
    )
    yield _other_capabilities(has)


def _other_capabilities(has: set[str]) -> Finding:
    known_last = int(_read("/proc/sys/kernel/cap_last_cap") or len(CAPABILITIES) - 1)
    known = {name for name, number in CAPABILITIES.items() if number <= known_last}
    lost = known - has - {"CAP_SYS_ADMIN", "CAP_SYS_RESOURCE"}
    is_default_whole = not lost & DEFAULT_CAPABILITIES
    return Finding(
        name="other capabilities",
        state="present" if not lost else "degraded",
        found=f"all but {', '.join(sorted(lost))}" if lost else "all that the kernel knows",
        needed="giving them to containers",
        cost="cap_add cannot give them"
        if is_default_whole
        else "root in a container has less than by default",
        remedy=_AS_ROOT,
    )


# Kernel


def _kernel(facts: HostFacts) -> Finding:
    match = re.match(r"(\d+)\.(\d+)", facts.kernel_release)
    version = (int(match[1]), int(match[2])) if match is not None else (0, 0)
    state: State = "present" if version >= _KERNEL_WANTED else "degraded"
    return Finding(
        name="kernel",
        state="missing" if version < _KERNEL_NEEDED else state,
        found=f"Linux {facts.kernel_release} on {facts.architecture}",
        needed="everything; Linux 5.4 is the least, and from 5.12 on nothing needs a fallback",
        cost="older calls stand in, see the system calls; before 5.4 nothing is tested",
        remedy="use a newer kernel",
        is_essential=True,
    )


def _system_calls() -> Iterator[Finding]:
    features = kernel_features()
    for name, since, cost in _CALLS:
        is_there = name in features
        yield Finding(
            name=name,
            state="present" if is_there else "degraded",
            found="answers" if is_there else "not implemented, or filtered",
            needed=f"the fast way to start containers (Linux {since})",
            cost=cost,
            remedy=_NEWER_KERNEL,
        )


# A container


def _existing(path: str) -> str:
    """The nearest directory on the way to `path` that exists already."""
    while not os.path.isdir(path):
        path = os.path.dirname(path)
    return path


def _start(engine: Engine) -> Iterator[Finding]:
    """Start real containers on the store's file system."""
    problems: dict[str, str | None] = dict.fromkeys(("memory", "disk", "copy"), "not tried")
    try:
        with (
            tempfile.TemporaryDirectory(prefix=".doctor-", dir=_existing(engine.root)) as root,
            tempfile.TemporaryDirectory(prefix=".doctor-", dir=_existing(engine.run_root)) as run_root,
        ):
            problems = _try_roots(type(engine), root, run_root)
    except (ContainerlibError, OSError) as error:
        problems = dict.fromkeys(problems, _reason(error))
    works = [name for name, problem in problems.items() if problem is None]
    yield Finding(
        name="start",
        state="present" if works else "missing",
        found=f"{_PROBE} ran in a container" if works else str(problems["copy"]),
        needed="anything",
        cost="no container can be started",
        remedy="see the other findings",
        is_essential=True,
    )
    yield _overlay(engine.root, problems)


def _try_roots(kind: type[Engine], root: str, run_root: str) -> dict[str, str | None]:
    from containerlib.api.engine import EngineConfig  # noqa: PLC0415 - the engine loads us, when it is asked

    problems: dict[str, str | None] = {}
    ways: tuple[tuple[RootKind, Literal["memory", "disk"], str], ...] = (
        ("overlay", "memory", "memory"),
        ("overlay", "disk", "disk"),
        ("copy", "memory", "copy"),
    )
    for root_kind, layer, name in ways:
        with kind(root, run_root, EngineConfig(root_kind=root_kind)) as tried:
            problems[name] = _try(tried.images.from_host([_PROBE]), layer)
    return problems


def _try(image: Image, layer: Literal["memory", "disk"]) -> str | None:
    """Run the probe; why that fails, or None."""
    try:
        image.call([_PROBE], layer=layer, check=True, timeout_s=30.0)
    except (ContainerlibError, OSError) as error:
        return _reason(error)
    return None


def _overlay(root: str, problems: dict[str, str | None]) -> Finding:
    filesystem = _filesystem(_existing(root))
    state: State = "present"
    found = f"works on {filesystem}"
    if None not in problems.values():
        state, found = "missing", "nobody knows, because no container can be started"
    elif problems["memory"] is not None:
        state, found = "missing", f"not on {filesystem}: {problems['memory']}"
    elif problems["disk"] is not None:
        state, found = "degraded", f"for layers in memory only, not on {filesystem}: {problems['disk']}"
    return Finding(
        name="overlayfs",
        state=state,
        found=found,
        needed="sharing image layers between containers",
        cost="images are copied for each container, at a cost of time and space that grows with their size",
        remedy="load the kernel module overlay; keep the store on ext4, xfs or tmpfs, not on an overlay",
    )


def _seccomp(facts: HostFacts) -> Finding:
    problem = "" if _status_field("Seccomp") else "the kernel has none"
    if not problem:
        try:
            seccomp.load_default(facts.architecture, DEFAULT_CAPABILITIES)
        except ContainerlibError as error:
            problem = str(error)
    return Finding(
        name="seccomp",
        state="missing" if problem else "present",
        found=problem or f"filters work, with the default profile for {facts.architecture}",
        needed="keeping containers from calls that they do not need",
        cost="containers start only with seccomp='unconfined', and can use every system call",
        remedy="use a kernel with CONFIG_SECCOMP_FILTER",
    )


# Control groups


def _control_groups() -> Iterator[Finding]:
    try:
        host = CgroupHost.probe()
    except OSError as error:
        host, problem = CgroupHost("none"), f"none: {_reason(error)}"
    else:
        problem = "none is usable"
    yield Finding(
        name="control groups",
        state="missing" if host.mode == "none" else "present",
        found=problem if host.mode == "none" else f"mode {host.mode}, {_maker(host)}",
        needed="limits, and counting what a container uses",
        cost="containers run without limits, and asking for one is an error",
        remedy="mount a cgroup hierarchy that this process may write",
    )
    for names, needed in _CONTROLLERS:
        if not (host.mode == "v2" and names[0] in _ONLY_V1):
            yield _controller(host, names, needed)
    yield _device_rules(host)


def _maker(host: CgroupHost) -> str:
    manager = CgroupManager.choose(host, "auto")
    if manager.slice_name is not None:
        return f"made by systemd in {manager.slice_name}"
    return f"made by this process ({manager.problem})"


def _controller(host: CgroupHost, names: tuple[str, ...], needed: str) -> Finding:
    controller = host.find(*names)
    if controller is None:
        found = "not in any hierarchy"
    else:
        found = controller.problem or f"cgroup v{controller.hierarchy.version}"
    return Finding(
        name=f"controller {names[0]}",
        state="present" if controller is not None and controller.problem is None else "missing",
        found=found,
        needed=needed,
        cost="asking for such a limit is an error" if names[0] not in _ONLY_V1 else "these do not work",
        remedy="have the controller enabled and passed on to a cgroup that this process may write",
    )


def _device_rules(host: CgroupHost) -> Finding:
    group = EngineCgroup.create(host, f"doctor-{os.urandom(8).hex()}")
    try:
        for fd in group.spawner_join_fds():
            os.close(fd)
        problem = group.device_problem
    except (ContainerlibError, OSError) as error:
        problem = _reason(error)
    finally:
        group.close()
    return Finding(
        name="device rules",
        state="present" if problem is None else "degraded",
        found=problem or "enforced",
        needed="keeping containers from devices of the host",
        cost="only the lack of CAP_MKNOD and nodev mounts keep them away; do not add that capability",
        remedy="cgroup v1 with the controller devices, or cgroup v2 and the right to load device programs",
    )


# What is not supported


def _rootless() -> Iterator[Finding]:
    most = _read("/proc/sys/user/max_user_namespaces")
    unprivileged = _read("/proc/sys/kernel/unprivileged_userns_clone")
    restricted = _read("/proc/sys/kernel/apparmor_restrict_unprivileged_userns")
    if not os.path.exists("/proc/self/ns/user") or most == "0":
        found = "the kernel has none, or allows none"
    elif unprivileged == "0" or restricted == "1":
        found = "for root only"
    else:
        found = f"up to {most or 'any number'}"
    yield Finding(
        name="user namespaces",
        state="present" if found.startswith("up to") else "degraded",
        found=found,
        needed="rootless containers, which are not supported yet",
        cost="nothing today",
        remedy="none is needed",
    )
    ranges = _read("/etc/subuid").splitlines()
    yield Finding(
        name="rootless",
        state="missing",
        found=f"not supported yet; /etc/subuid has {len(ranges)} ranges",
        needed="containers without root, and root in a container that is nobody outside",
        cost="containers need root, and root in a container has user id 0 on the host as well",
        remedy="give containers a user with user=, and keep the default capabilities and system call filter",
    )


def _security_modules() -> Finding:
    modules = []
    if _read("/sys/module/apparmor/parameters/enabled") == "Y":
        modules.append("AppArmor")
    if os.path.exists("/sys/fs/selinux/enforce"):
        modules.append("SELinux")
    return Finding(
        name="AppArmor and SELinux",
        state="degraded" if modules else "missing",
        found=f"{' and '.join(modules)}, but no profile or label is applied" if modules else "neither",
        needed="a further wall around containers",
        cost="namespaces, capabilities, the system call filter and device rules stand alone",
        remedy="none yet: containerlib applies no profile and no label",
    )


# Directories


def _filesystem(path: str) -> str:
    """Type of the file system on which `path` lies."""
    device = os.stat(path).st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    best = ("", "an unknown file system")
    for line in _read("/proc/self/mountinfo").splitlines():
        left, _, right = line.partition(" - ")
        fields = left.split(" ")
        target = fields[4].replace("\\040", " ")
        is_above = f"{path}/".startswith(f"{target.rstrip('/')}/")
        if is_above and (len(target) > len(best[0]) or fields[2] == number):
            best = (target, right.split(" ")[0])
    return best[1]


def _directories(engine: Engine) -> Iterator[Finding]:
    for name, path, variable in (
        ("store", engine.root, "CONTAINERLIB_ROOT"),
        ("run root", engine.run_root, "CONTAINERLIB_RUN_ROOT"),
    ):
        place = _existing(path)
        writable = os.access(place, os.W_OK | os.X_OK) and not os.statvfs(place).f_flag & os.ST_RDONLY
        yield Finding(
            name=name,
            state="present" if writable else "missing",
            found=f"{path} on {_filesystem(place)}" if writable else f"{place} is not writable",
            needed="images" if name == "store" else "what running engines keep",
            cost="nothing works",
            remedy=f"set {variable} to a writable place",
            is_essential=True,
        )
    filesystem = _filesystem(_existing(engine.run_root))
    yield Finding(
        name="run root in memory",
        state="present" if filesystem == "tmpfs" else "degraded",
        found=filesystem,
        needed="writing what is gone after a reboot anyway",
        cost="each container writes its record to a disk, and the next engine has to clean up after a reboot",
        remedy="set CONTAINERLIB_RUN_ROOT to a place on a tmpfs, such as /run",
    )
