"""The container programs that images are exchanged with, each with a store of its own that is thrown away.

What they have in common is the interface `Peer`: pull, push, run, and show the file system as they see it.
What they need on hosts like this one is worked around here: limits below the host's hard limits, no network
for containers, and control groups by the file system.
"""

from __future__ import annotations

import abc
import contextlib
import json
import os
import resource
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import pytest
from support.capabilities import need
from support.mounts import detach, read_mounts
from support.session import temporary_directory
from support.trees import overlay

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

__all__ = [
    "NAMES",
    "Buildah",
    "Docker",
    "Peer",
    "Podman",
    "Umoci",
    "digest_of",
    "dockerd",
    "invoke",
    "raw_of",
    "stacked",
]

EXTRACT = ("--numeric-owner", "--xattrs", "--xattrs-include=*")
_PATIENCE_S = 60.0
_SETTINGS = """[containers]
default_ulimits = ["nofile=1024:{files}", "nproc=4096:4096", "core=0:0"]
default_sysctls = []
[engine]
cgroup_manager = "cgroupfs"
events_logger = "none"
lock_type = "file"
runtime = "runc"
"""


def invoke(*command: str, variables: Mapping[str, str] | None = None, stdin: bytes = b"") -> str:
    """Run a command and return its output, without the white space at its ends."""
    environment = {**os.environ, **(variables or {})}
    done = subprocess.run(command, input=stdin, capture_output=True, check=False, env=environment)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr.decode(errors='replace').strip()}"
    return done.stdout.decode().strip()


def _detach_below(base: Path) -> None:
    for mount in reversed(read_mounts()):
        if Path(mount.target).is_relative_to(base):
            detach(mount.target)


@contextlib.contextmanager
def stacked(target: Path, lowers: Sequence[str]) -> Iterator[Path]:
    """Show what a stack of layer directories is, top-most first, at `target`."""
    empty = target.with_name("empty")  # one directory alone is no overlay
    empty.mkdir(exist_ok=True)
    with overlay(target, [*map(Path, lowers), empty]) as root:
        yield root


def digest_of(name: str) -> str:
    """Return the digest that skopeo sees under a name of a registry."""
    return invoke("skopeo", "inspect", "--tls-verify=false", "--format={{.Digest}}", f"docker://{name}")


def raw_of(name: str) -> str:
    """Return the document that skopeo sees under a name of a registry."""
    return invoke("skopeo", "inspect", "--tls-verify=false", "--raw", f"docker://{name}")


class Peer(abc.ABC):
    """Another engine. Names are those of registries on loopback, which are trusted without TLS."""

    name: ClassVar[str]
    checks_certificates = False

    def __init__(self, base: Path) -> None:
        self.base = base
        self.credentials = {"REGISTRY_AUTH_FILE": str(base / "auth.json")}
        """Environment in which another program finds what `login` has written."""

    def tls(self, prefix: str = "") -> list[str]:
        """Return the options of the containers tools that go with `checks_certificates`."""
        return [] if self.checks_certificates else [f"--{prefix}tls-verify=false"]

    @abc.abstractmethod
    def call(self, *arguments: str) -> str:
        """Run one of its own commands, and return what it prints."""

    @abc.abstractmethod
    def login(self, host: str, user: str, password: str) -> None:
        """Let the peer remember credentials."""

    @abc.abstractmethod
    def pull(self, name: str) -> str:
        """Pull an image, and return the digest of its manifest."""

    @abc.abstractmethod
    def push(self, name: str, target: str, *options: str) -> None:
        """Push the image that is called `name` here."""

    @abc.abstractmethod
    def run(self, name: str, *command: str) -> str:
        """Run a command in a container of an image, and return what it prints."""

    @abc.abstractmethod
    def tree(self, name: str) -> contextlib.AbstractContextManager[Path]:
        """Give the root directory of an image."""

    @abc.abstractmethod
    def make(self, name: str, archive: Path, script: str) -> None:
        """Make an image of two layers: an archive, and what a shell script changes in a container of it."""

    def close(self) -> None:  # noqa: B027 - most have nothing
        """Leave nothing behind but files."""


class _ContainersTool(Peer):
    """Podman and buildah: programs on the same library, with the same options."""

    def __init__(self, base: Path) -> None:
        super().__init__(base)
        (base / "auth.json").write_text("{}", encoding="ascii")
        settings = base / "containers.conf"
        files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        settings.write_text(_SETTINGS.format(files=files), encoding="ascii")
        self.variables = {
            "CONTAINERS_CONF": str(settings),
            "HOME": str(base),
            **self.credentials,
        }
        self.options = ["--root", str(base / "r"), "--runroot", str(base / "n"), "--storage-driver=overlay"]

    def call(self, *arguments: str) -> str:
        """See `Peer.call`."""
        return invoke(self.name, *self.options, *arguments, variables=self.variables)

    def login(self, host: str, user: str, password: str) -> None:
        """See `Peer.login`."""
        self.call("login", *self.tls(), "--username", user, "--password", password, host)

    def pull(self, name: str) -> str:
        """See `Peer.pull`."""
        self.call("pull", "--quiet", *self.tls(), name)
        return self.digest(name)

    def close(self) -> None:
        """Take away what the storage library leaves mounted."""
        _detach_below(self.base)

    @abc.abstractmethod
    def digest(self, name: str) -> str:
        """Return the digest of the manifest of an image that is here."""

    def push(self, name: str, target: str, *options: str) -> None:
        """See `Peer.push`."""
        self.call("push", "--quiet", *self.tls(), *options, name, f"docker://{target}")


def make_by_commit(peer: Peer, name: str, archive: Path, script: str) -> None:
    """Make an image as podman and docker do: import the archive, run the script, commit the container."""
    peer.call("import", str(archive), "made:base")
    flags = ("--name=changed", "--network=none")
    peer.call("run", *flags, "made:base", "/bin/busybox", "sh", "-c", script)
    peer.call("commit", "--change", "ENV PATH=/bin", "changed", name)
    peer.call("rm", "changed")


class Podman(_ContainersTool):
    """Debian's podman."""

    name = "podman"

    def __init__(self, base: Path) -> None:
        super().__init__(base)
        self.options += ["--tmpdir", str(base / "t")]

    def digest(self, name: str) -> str:
        """See `_ContainersTool.digest`."""
        return self.call("image", "inspect", "--format={{.Digest}}", name)

    def run(self, name: str, *command: str) -> str:
        """See `Peer.run`."""
        return self.call("run", "--rm", "--pull=never", "--network=none", name, *command)

    def make(self, name: str, archive: Path, script: str) -> None:
        """See `Peer.make`."""
        make_by_commit(self, name, archive, script)

    @contextlib.contextmanager
    def tree(self, name: str) -> Iterator[Path]:
        """See `Peer.tree`."""
        yield Path(self.call("image", "mount", name))
        self.call("image", "umount", name)


class Buildah(_ContainersTool):
    """Debian's buildah, which has containers only to build from."""

    name = "buildah"

    def digest(self, name: str) -> str:
        """See `_ContainersTool.digest`."""
        return str(json.loads(self.call("inspect", "--type=image", name))["FromImageDigest"])

    def run(self, name: str, *command: str) -> str:
        """See `Peer.run`."""
        with self.container(name) as container:
            return self.call("run", "--isolation=chroot", container, "--", *command)

    def make(self, name: str, archive: Path, script: str) -> None:
        """See `Peer.make`."""
        with self.container("scratch") as container:
            root = self.call("mount", container)
            invoke("tar", "-C", root, *EXTRACT, "-xf", str(archive))
            self.call("commit", container, "made:base")
        with self.container("made:base") as container:
            self.call("run", "--isolation=chroot", container, "--", "/bin/busybox", "sh", "-c", script)
            self.call("config", "--env=PATH=/bin", container)
            self.call("commit", container, name)

    @contextlib.contextmanager
    def container(self, name: str) -> Iterator[str]:
        """Give a working container of an image, or of ``scratch``."""
        container = self.call("from", "--pull-never", name)
        yield container
        self.call("rm", container)

    @contextlib.contextmanager
    def tree(self, name: str) -> Iterator[Path]:
        """See `Peer.tree`."""
        with self.container(name) as container:
            yield Path(self.call("mount", container))
            self.call("umount", container)


class Docker(Peer):
    """The client of a dockerd of our own; see `dockerd`."""

    name = "docker"

    def __init__(self, base: Path, host: str) -> None:
        super().__init__(base)
        self.host = host
        self.credentials = {"DOCKER_CONFIG": str(base / "client")}

    def call(self, *arguments: str) -> str:
        """See `Peer.call`."""
        return invoke("docker", "--config", str(self.base / "client"), "--host", self.host, *arguments)

    def login(self, host: str, user: str, password: str) -> None:
        """See `Peer.login`."""
        self.call("login", "--username", user, "--password", password, host)

    def pull(self, name: str) -> str:
        """See `Peer.pull`."""
        # It may have the image under several digests, and tells only now which of them that was.
        return self.call("pull", name).partition("Digest: ")[2].split()[0]

    def push(self, name: str, target: str, *options: str) -> None:
        """See `Peer.push`."""
        if name != target:
            self.call("tag", name, target)
        self.call("push", "--quiet", *options, target)

    def run(self, name: str, *command: str) -> str:
        """See `Peer.run`."""
        return self.call("run", "--rm", "--pull=never", "--network=none", name, *command)

    def make(self, name: str, archive: Path, script: str) -> None:
        """See `Peer.make`."""
        make_by_commit(self, name, archive, script)

    @contextlib.contextmanager
    def tree(self, name: str) -> Iterator[Path]:
        """See `Peer.tree`."""
        found = json.loads(self.call("image", "inspect", "--format={{json .GraphDriver.Data}}", name))
        lowers = [found["UpperDir"], *filter(None, found.get("LowerDir", "").split(":"))]
        with stacked(self.base / "seen", lowers) as root:
            yield root


@contextlib.contextmanager
def dockerd(base: Path, *options: str) -> Iterator[Docker]:
    """Run a dockerd with everything below `base`, and without any network for containers.

    Args:
        base: Where.
        options: Further ones.
    """
    (base / "daemon.json").write_text("{}", encoding="ascii")
    host, log = f"unix://{base}/sock", base / "log"
    paths = [
        "--host",
        host,
        "--data-root",
        f"{base}/d",
        "--exec-root",
        f"{base}/x",
        "--pidfile",
        f"{base}/pid",
    ]
    network = [
        "--bridge=none",
        "--iptables=false",
        "--ip6tables=false",
        "--ip-forward=false",
        "--ip-masq=false",
    ]
    rest = ["--config-file", f"{base}/daemon.json", "--exec-opt=native.cgroupdriver=cgroupfs"]
    rest += ["--oom-score-adjust=0", *options]
    with log.open("wb") as output:
        daemon = subprocess.Popen(
            ["dockerd", *paths, *network, *rest], stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
    docker = Docker(base, host)
    try:
        _wait_for(docker, daemon, log)
        yield docker
    finally:
        daemon.terminate()
        daemon.wait()
        _detach_below(base)


def _wait_for(docker: Docker, daemon: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until the daemon answers, not only listens: while it starts it does not end in good order."""
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        with contextlib.suppress(AssertionError):
            docker.call("version")
            return
        ended = daemon.poll() is not None or time.monotonic() > deadline
        assert not ended, f"dockerd did not start: {log.read_text(encoding='utf-8', errors='replace')[-500:]}"


class Umoci(Peer):
    """Debian's umoci, which knows image layouts only; skopeo carries them to registries and back."""

    name = "umoci"

    def __init__(self, base: Path) -> None:
        super().__init__(base)
        self.tags: dict[str, str] = {}
        self.variables = {"HOME": str(base), **self.credentials}

    def skopeo(self, *arguments: str) -> str:
        """Run skopeo with umoci's credentials."""
        return invoke("skopeo", "--insecure-policy", *arguments, variables=self.variables)

    def call(self, *arguments: str) -> str:
        """See `Peer.call`."""
        return invoke("umoci", *arguments)

    def image(self, name: str) -> str:
        """Return what `name` is called in umoci's words."""
        return f"{self.base}/layout:{self.tags.setdefault(name, f'i{len(self.tags)}')}"

    def login(self, host: str, user: str, password: str) -> None:
        """See `Peer.login`."""
        self.skopeo("login", *self.tls(), "--username", user, "--password", password, host)

    def pull(self, name: str) -> str:
        """See `Peer.pull`."""
        layout = f"oci:{self.image(name)}"
        self.skopeo("copy", "--quiet", *self.tls("src-"), "--preserve-digests", f"docker://{name}", layout)
        return self.skopeo("inspect", "--format={{.Digest}}", layout)

    def push(self, name: str, target: str, *options: str) -> None:
        """See `Peer.push`."""
        flags = ["--quiet", *self.tls("dest-"), *options]
        self.skopeo("copy", *flags, f"oci:{self.image(name)}", f"docker://{target}")

    def run(self, name: str, *command: str) -> str:
        """See `Peer.run`."""
        with self.tree(name) as root:
            return invoke("chroot", str(root), *command, variables={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"})

    def make(self, name: str, archive: Path, script: str) -> None:
        """See `Peer.make`."""
        if not (self.base / "layout").exists():
            self.call("init", "--layout", f"{self.base}/layout")
        image, bundle = self.image(name), str(self.base / "bundle")
        self.call("new", "--image", image)
        for change in (["tar", "-C", f"{bundle}/rootfs", *EXTRACT, "-xf", str(archive)], None):
            self.call("unpack", "--image", image, bundle)
            invoke(*change or ("chroot", f"{bundle}/rootfs", "/bin/busybox", "sh", "-c", script))
            self.call("repack", "--image", image, bundle)
            invoke("rm", "-rf", bundle)
        self.call("config", "--image", image, "--config.env=PATH=/bin")

    @contextlib.contextmanager
    def tree(self, name: str) -> Iterator[Path]:
        """See `Peer.tree`."""
        bundle = self.base / "bundle"
        self.call("unpack", "--image", self.image(name), str(bundle))
        try:
            yield bundle / "rootfs"
        finally:
            invoke("rm", "-rf", str(bundle))


_PEERS: dict[str, Callable[[Path], contextlib.AbstractContextManager[Peer]]] = {
    "podman": lambda base: contextlib.closing(Podman(base)),
    "buildah": lambda base: contextlib.closing(Buildah(base)),
    "docker": dockerd,
    "umoci": lambda base: contextlib.closing(Umoci(base)),
}
NAMES = tuple(_PEERS)
"""What a test may give the fixture `peer` as its parameter."""
_PROGRAMS = {
    "podman": ("podman", "runc"),
    "buildah": ("buildah", "runc"),
    "docker": ("dockerd", "docker", "runc"),
    "umoci": ("umoci", "skopeo", "chroot"),
}


@pytest.fixture(scope="module")
def peers(request: pytest.FixtureRequest) -> Iterator[Callable[[str], Peer]]:
    """Return how the other engines are had by name: each is started once, with a store of its own."""
    started: dict[str, Peer] = {}
    with contextlib.ExitStack() as stack:

        def find(name: str) -> Peer:
            need(request.config, "peers", _PROGRAMS[name])
            if name not in started:
                base = stack.enter_context(temporary_directory("p"))
                started[name] = stack.enter_context(_PEERS[name](base))
            return started[name]

        yield find


@pytest.fixture
def peer(request: pytest.FixtureRequest, peers: Callable[[str], Peer]) -> Peer:
    """Return the other engine that the test names."""
    return peers(request.param)
