"""The programs containerlib is compared with, made to work on this kind of host with equivalent isolation.

Equivalent means: new mount, pid, uts, ipc, net and cgroup namespaces, no network, the same eleven
capabilities, no_new_privs, a seccomp filter, a hostname, limits of open files and core size, Docker's masked
and read-only paths, at most 2048 processes. What a peer cannot do is left out in its favour: bubblewrap has
no cgroups; bubblewrap, crun and runc write to the root directory itself, not to a layer of their own. Two
limits of such hosts are worked around: crun refuses cgroup2 mounted next to the old hierarchies, so crun and
podman run in a mount namespace without it, made once; and no limit may be above the host's hard limit.

It must not know how time is taken or reported. In: a `Place`. Out: a `Peer`, or `MissingRowError`.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from measure import MissingRowError, worker_argv

if TYPE_CHECKING:
    import contextlib
    from collections.abc import Callable, Mapping

__all__ = [
    "LOOK_INSIDE",
    "NO_CGROUP2",
    "PEERS",
    "SEEN_INSIDE",
    "Peer",
    "Place",
    "make_bundle",
    "program",
    "run",
    "start_docker",
]

HOSTNAME = "bench"
_NAMES = "CHOWN DAC_OVERRIDE FOWNER FSETID KILL NET_BIND_SERVICE SETFCAP SETGID SETPCAP SETUID SYS_CHROOT"
CAPABILITIES = [f"CAP_{name}" for name in _NAMES.split()]
MASKED = [
    f"/proc/{n}" for n in ("acpi", "asound", "interrupts", "kcore", "keys", "latency_stats", "sched_debug")
]
MASKED += [
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
]
READ_ONLY = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]
PROFILE = "/usr/share/containers/seccomp.json"
FILES_LIMIT = resource.getrlimit(resource.RLIMIT_NOFILE)[1]

_LOOK = """echo pid $$; echo host $(hostname); echo links $(grep -c : /proc/net/dev)
echo timers $(wc -c < /proc/timer_list); echo files $(ulimit -n); echo core $(ulimit -c)
echo sysctl $( (: > /proc/sys/kernel/hostname) 2>&1 | grep -o Read-only)
grep -E '^(CapEff|NoNewPrivs|Seccomp):' /proc/self/status"""
LOOK_INSIDE = ["/bin/sh", "-c", _LOOK]
SEEN_INSIDE = {"pid": "1", "host": HOSTNAME, "links": "1", "timers": "0", "files": "1024", "core": "0"}
SEEN_INSIDE |= {"sysctl": "Read-only", "CapEff:": "00000000800405fb", "NoNewPrivs:": "1", "Seccomp:": "2"}

NO_CGROUP2 = "if mountpoint -q /sys/fs/cgroup/unified; then umount /sys/fs/cgroup/unified; fi"
_NO_CGROUPS = "umount --lazy --recursive /sys/fs/cgroup"
_ONLY_CGROUP2 = f"{_NO_CGROUPS}; mount -t cgroup2 none /sys/fs/cgroup"


@dataclass(frozen=True)
class Place:
    """Where everything of one benchmark lives, and what all rows have in common."""

    directory: str
    rootfs: str
    seccomp_file: str
    cgroup: str
    stack: contextlib.ExitStack

    def path(self, name: str) -> str:
        """Return a path in the temporary directory."""
        return os.path.join(self.directory, name)

    def make(self, name: str) -> str:
        """Return a directory in the temporary directory, made if need be."""
        os.makedirs(self.path(name), exist_ok=True)
        return self.path(name)


@dataclass(frozen=True)
class Peer:
    """A command that runs a program in a container, and where that command must be run."""

    command: Callable[[list[str]], list[str]]
    namespace: str = ""
    opened: Mapping[int, str] = field(default_factory=dict)
    variables: Mapping[str, str] = field(default_factory=dict)
    worker: tuple[str, ...] = ()

    @property
    def prefix(self) -> list[str]:
        """The command that enters the mount namespace this peer needs."""
        shell = ["sh", "-c", f'{self.namespace}; exec "$@"', "sh"]
        return [program("unshare"), "--mount", "--propagation", "private", *shell] if self.namespace else []

    def worker_argv(self) -> list[str]:
        """Return the command of the worker that runs /bin/true by this peer."""
        if self.worker:
            return worker_argv(*self.worker)
        opened = [f"{number}={path}" for number, path in self.opened.items()]
        return [*self.prefix, *worker_argv("exec", *opened, "--", *self.command(["/bin/true"]), small=True)]


def program(name: str) -> str:
    """Return the path of an installed program."""
    if path := shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin"):
        return path
    raise MissingRowError(f"{name} is not installed")


def run(argv: list[str], variables: Mapping[str, str] | None = None) -> str:
    """Run a command with these environment variables added, and return its output."""
    env = os.environ | dict(variables or {})
    done = subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False, env=env)
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip() or "silent").splitlines()
        raise MissingRowError(f"exit status {done.returncode}: {said[-1]}")
    return done.stdout.strip()


def _bubblewrap(place: Place) -> Peer:
    flags = f"""--unshare-pid --unshare-uts --unshare-ipc --unshare-net --unshare-cgroup --hostname {HOSTNAME}
        --as-pid-1 --new-session --clearenv --seccomp 9 --bind {place.rootfs} / --proc /proc
        --ro-bind /sys /sys --dev /dev --size {64 << 20} --tmpfs /dev/shm --mqueue /dev/mqueue""".split()
    for path in filter(os.path.exists, MASKED):
        empty = ["--tmpfs", path, "--remount-ro", path]
        flags += empty if os.path.isdir(path) else ["--dev-bind", "/dev/null", path]
    for path in filter(os.path.exists, READ_ONLY):
        flags += ["--ro-bind", path, path]
    flags += ["--cap-drop", "ALL"]
    for name in CAPABILITIES:
        flags += ["--cap-add", name]
    bwrap = program("bwrap")
    return Peer(
        command=lambda argv: [bwrap, *flags, "--", *argv],
        namespace=f"ulimit -Sn 1024; ulimit -c 0; {_NO_CGROUPS}",
        opened={9: place.seccomp_file},
    )


def _oci_filter() -> dict[str, Any]:
    """Return Docker's seccomp profile as the runtime specification has it."""
    with open(PROFILE, encoding="utf-8") as text:
        rules = json.load(text)["syscalls"]
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, "")
    fitting = []
    for rule in rules:
        needs, excludes = rule.get("includes") or {}, rule.get("excludes") or {}
        here = machine in needs.get("arches", [machine]) and machine not in excludes.get("arches", [])
        allowed = set(needs.get("caps", [])) <= set(CAPABILITIES)
        if here and allowed and not set(excludes.get("caps", [])) & set(CAPABILITIES):
            fitting.append(
                {key: rule[key] for key in ("names", "action", "args", "errnoRet") if rule.get(key)}
            )
    return {"defaultAction": "SCMP_ACT_ERRNO", "syscalls": fitting}


def make_bundle(place: Place, runtime: str, argv: list[str], name: str, resources: dict[str, Any]) -> str:
    """Write a bundle that runs `argv`, from the runtime's own example. Returns its directory."""
    bundle = place.make(name)
    run(["sh", "-c", 'cd "$1" && exec "$2" spec', "sh", bundle, runtime])
    path = os.path.join(bundle, "config.json")
    with open(path, encoding="utf-8") as example:
        config = json.load(example)
    limits = {"RLIMIT_NOFILE": (1024, FILES_LIMIT), "RLIMIT_CORE": (0, 0)}
    process, linux = config["process"], config["linux"]
    process |= {"terminal": False, "args": argv, "noNewPrivileges": True}
    process["capabilities"] = dict.fromkeys(("bounding", "effective", "permitted"), CAPABILITIES)
    process["rlimits"] = [{"type": kind, "soft": soft, "hard": hard} for kind, (soft, hard) in limits.items()]
    config |= {"hostname": HOSTNAME, "root": {"path": place.rootfs, "readonly": False}}
    config["mounts"] = [mount for mount in config["mounts"] if mount["type"] != "cgroup"]
    linux["namespaces"] = [{"type": kind} for kind in ("mount", "pid", "uts", "ipc", "network", "cgroup")]
    linux |= {"maskedPaths": MASKED, "readonlyPaths": READ_ONLY, "seccomp": _oci_filter()}
    linux |= {"cgroupsPath": f"/{place.cgroup}/{name}", "resources": resources}
    with open(path, "w", encoding="utf-8") as text:
        json.dump(config, text)
    return bundle


def _oci_runtime(place: Place, name: str, namespace: str = "", *, limited: bool = True) -> Peer:
    """Return crun or runc on a bundle of its own; not `limited`: where cgroup2 has no controllers."""
    runtime, key = program(name), f"{name}-{'limited' if limited else 'free'}"
    devices = [{"allow": False, "access": "rwm"}]
    resources: dict[str, Any] = {"pids": {"limit": 2048}, "devices": devices} if limited else {}
    state = place.make(f"{key}-state")
    true = make_bundle(place, runtime, ["/bin/true"], f"{key}-true", resources)
    look = make_bundle(place, runtime, LOOK_INSIDE, f"{key}-look", resources)

    def command(argv: list[str]) -> list[str]:
        bundle = look if argv == LOOK_INSIDE else true
        container = f"{place.cgroup}-{os.path.basename(bundle)}"
        return [runtime, "--root", state, "run", "--bundle", bundle, container]

    return Peer(command=command, namespace=namespace)


def _tar(place: Place) -> str:
    """Return the root directory as a tar file."""
    run([program("tar"), "--create", "--file", place.path("rootfs.tar"), "--directory", place.rootfs, "."])
    return place.path("rootfs.tar")


def _podman(place: Place) -> Peer:
    settings = place.path("containers.conf")
    with open(settings, "w", encoding="utf-8") as text:
        text.write(f"""[containers]
default_ulimits = ["nofile=1024:{FILES_LIMIT}", "nproc=4096:4096", "core=0:0"]
default_capabilities = {json.dumps(CAPABILITIES)}
default_sysctls = []
log_driver = "none"
pids_limit = 2048
[engine]
cgroup_manager = "cgroupfs"
events_logger = "none"
lock_type = "file"
runtime = "crun"
""")
    podman = f"""{program("podman")} --root {place.make("podman")} --runroot {place.make("podman-run")}
        --tmpdir {place.make("podman-tmp")} --storage-driver overlay""".split()
    flags = f"""run --rm --pull never --network none --hostname {HOSTNAME} --no-hosts
        --cgroup-parent /{place.cgroup} --security-opt no-new-privileges bench""".split()
    namespace = f"{NO_CGROUP2}; mount -t tmpfs none /var/lib"  # it caches there, whatever its options say
    peer = Peer(lambda argv: [*podman, *flags, *argv], namespace, variables={"CONTAINERS_CONF": settings})
    run([*peer.prefix, *podman, "import", _tar(place), "bench"], peer.variables)
    return peer


def start_docker(directory: str, stack: contextlib.ExitStack) -> str:
    """Start a dockerd whose files are all below `directory`, until `stack` is left. Returns its address.

    Its network is the host's, for nothing but registries; containers get none.
    """
    socket, log = os.path.join(directory, "docker.sock"), os.path.join(directory, "docker.log")
    os.makedirs(directory, exist_ok=True)
    with open(os.path.join(directory, "daemon.json"), "w", encoding="utf-8") as settings:
        settings.write("{}")
    argv = f"""{program("dockerd")} --host unix://{socket} --data-root {directory}/docker
        --exec-root {directory}/docker-run --pidfile {directory}/docker.pid
        --config-file {settings.name} --bridge none --iptables=false --ip6tables=false --ip-forward=false
        --ip-masq=false --storage-driver overlay2 --exec-opt native.cgroupdriver=cgroupfs
        --oom-score-adjust 0""".split()
    with open(log, "wb") as output:
        daemon = subprocess.Popen(argv, stdout=output, stderr=output, stdin=subprocess.DEVNULL)
    stack.callback(_stop, daemon)
    deadline = time.monotonic() + 60
    while not os.path.exists(socket):
        if daemon.poll() is not None or time.monotonic() > deadline:
            with open(log, encoding="utf-8", errors="replace") as output:
                raise MissingRowError(f"dockerd did not start: {output.read().strip()[-200:]}")
        time.sleep(0.1)
    return f"unix://{socket}"


def _docker_host(place: Place) -> str:
    """Return the address of a dockerd of our own with the image in it, started on the first call."""
    if os.path.exists(place.path("docker.log")):
        return f"unix://{place.path('docker.sock')}"
    host = start_docker(place.directory, place.stack)
    run([program("docker"), "--host", host, "import", _tar(place), "bench"])
    return host


def _stop(daemon: subprocess.Popen[bytes]) -> None:
    daemon.terminate()
    try:
        daemon.wait(timeout=30)
    except subprocess.TimeoutExpired:
        daemon.kill()
        daemon.wait()


def _docker(place: Place) -> Peer:
    flags = f"""{program("docker")} --host {_docker_host(place)} run --rm --pull never --network none
        --hostname {HOSTNAME} --cgroup-parent /{place.cgroup} --security-opt no-new-privileges
        --pids-limit 2048 --log-driver none --ulimit nofile=1024:{FILES_LIMIT} --ulimit core=0 --cap-drop ALL
        """.split()
    flags += [f"--cap-add={name}" for name in CAPABILITIES]
    variables = {"DOCKER_CONFIG": place.path("docker-client")}
    return Peer(lambda argv: [*flags, "bench", *argv], variables=variables)


def _docker_py(place: Place) -> Peer:
    docker = _docker(place)
    options: dict[str, Any] = {
        "network_mode": "none",
        "hostname": HOSTNAME,
        "cgroup_parent": f"/{place.cgroup}",
    }
    options |= {"cap_drop": ["ALL"], "cap_add": CAPABILITIES}
    options |= {"security_opt": ["no-new-privileges"], "pids_limit": 2048}
    return Peer(docker.command, worker=("docker-py", _docker_host(place), "bench", json.dumps(options)))


PEERS: dict[str, Callable[[Place], Peer]] = {
    "bubblewrap": _bubblewrap,
    "crun": lambda place: _oci_runtime(place, "crun", NO_CGROUP2),
    "crun-cgroup2": lambda place: _oci_runtime(place, "crun", _ONLY_CGROUP2, limited=False),
    "runc": lambda place: _oci_runtime(place, "runc"),
    "docker": _docker,
    "docker-py": _docker_py,
    "podman": _podman,
}
