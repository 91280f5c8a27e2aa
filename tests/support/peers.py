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
from typing import TYPE_CHECKING

from support.mounts import detach, read_mounts
from support.trees import overlay

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

__all__ = ["Buildah", "Docker", "Peer", "Podman", "Umoci", "dockerd", "invoke", "stacked"]

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


@contextlib.contextmanager
def stacked(target: Path, lowers: Sequence[str]) -> Iterator[Path]:
    """Show what a stack of layer directories is, top-most first, at `target`."""
    empty = target.with_name("empty")  # one directory alone is no overlay
    empty.mkdir(exist_ok=True)
    with overlay(target, [*map(Path, lowers), empty]) as root:
        yield root


class Peer(abc.ABC):
    """Another engine. Names are those of registries on loopback, which are trusted without TLS."""

    def __init__(self, base: Path) -> None:
        self.base = base

    @abc.abstractmethod
    def call(self, *arguments: str) -> str:
        """Run one of its own commands, and return what it prints."""

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

    def close(self) -> None:  # noqa: B027 - most have nothing
        """Leave nothing behind but files."""


class _ContainersTool(Peer):
    """Podman and buildah: programs on the same library, with the same options."""

    program: str

    def __init__(self, base: Path) -> None:
        super().__init__(base)
        (base / "auth.json").write_text("{}", encoding="ascii")
        settings = base / "containers.conf"
        files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        settings.write_text(_SETTINGS.format(files=files), encoding="ascii")
        self.variables = {
            "CONTAINERS_CONF": str(settings),
            "REGISTRY_AUTH_FILE": str(base / "auth.json"),
            "HOME": str(base),
        }
        self.options = ["--root", str(base / "r"), "--runroot", str(base / "n"), "--storage-driver=overlay"]

    def call(self, *arguments: str) -> str:
        """See `Peer.call`."""
        return invoke(self.program, *self.options, *arguments, variables=self.variables)

    def pull(self, name: str) -> str:
        """See `Peer.pull`."""
        self.call("pull", "--quiet", "--tls-verify=false", name)
        return self.digest(name)

    def close(self) -> None:
        """Take away what the storage library leaves mounted."""
        for mount in reversed(read_mounts()):
            if Path(mount.target).is_relative_to(self.base):
                detach(mount.target)

    @abc.abstractmethod
    def digest(self, name: str) -> str:
        """Return the digest of the manifest of an image that is here."""

    def push(self, name: str, target: str, *options: str) -> None:
        """See `Peer.push`."""
        self.call("push", "--quiet", "--tls-verify=false", *options, name, f"docker://{target}")


class Podman(_ContainersTool):
    """Debian's podman."""

    program = "podman"

    def __init__(self, base: Path) -> None:
        super().__init__(base)
        self.options += ["--tmpdir", str(base / "t")]

    def digest(self, name: str) -> str:
        """See `_ContainersTool.digest`."""
        return self.call("image", "inspect", "--format={{.Digest}}", name)

    def run(self, name: str, *command: str) -> str:
        """See `Peer.run`."""
        return self.call("run", "--rm", "--pull=never", "--network=none", "--log-driver=none", name, *command)

    @contextlib.contextmanager
    def tree(self, name: str) -> Iterator[Path]:
        """See `Peer.tree`."""
        yield Path(self.call("image", "mount", name))
        self.call("image", "umount", name)


class Buildah(_ContainersTool):
    """Debian's buildah, which has containers only to build from."""

    program = "buildah"

    def digest(self, name: str) -> str:
        """See `_ContainersTool.digest`."""
        return str(json.loads(self.call("inspect", "--type=image", name))["FromImageDigest"])

    def run(self, name: str, *command: str) -> str:
        """See `Peer.run`."""
        with self.container(name) as container:
            return self.call("run", "--isolation=chroot", container, "--", *command)

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

    def __init__(self, base: Path, host: str) -> None:
        super().__init__(base)
        self.host = host

    def call(self, *arguments: str) -> str:
        """See `Peer.call`."""
        return invoke("docker", "--config", str(self.base / "client"), "--host", self.host, *arguments)

    def pull(self, name: str) -> str:
        """See `Peer.pull`."""
        self.call("pull", "--quiet", name)
        digests = json.loads(self.call("image", "inspect", "--format={{json .RepoDigests}}", name))
        return str(digests[0]).partition("@")[2]

    def push(self, name: str, target: str, *options: str) -> None:
        """See `Peer.push`."""
        if name != target:
            self.call("tag", name, target)
        self.call("push", "--quiet", *options, target)

    def run(self, name: str, *command: str) -> str:
        """See `Peer.run`."""
        return self.call("run", "--rm", "--pull=never", "--network=none", name, *command)

    @contextlib.contextmanager
    def tree(self, name: str) -> Iterator[Path]:
        """See `Peer.tree`."""
        found = json.loads(self.call("image", "inspect", "--format={{json .GraphDriver.Data}}", name))
        lowers = [found["UpperDir"], *filter(None, found.get("LowerDir", "").split(":"))]
        with stacked(self.base / "seen", lowers) as root:
            yield root


@contextlib.contextmanager
def dockerd(base: Path) -> Iterator[Docker]:
    """Run a dockerd with everything below `base`, and without any network for containers."""
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
    rest += ["--oom-score-adjust=0"]
    with log.open("wb") as output:
        daemon = subprocess.Popen(
            ["dockerd", *paths, *network, *rest], stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
    try:
        _wait_for(base / "sock", daemon, log)
        yield Docker(base, host)
    finally:
        daemon.terminate()
        daemon.wait()


def _wait_for(socket: Path, daemon: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while not socket.exists():
        ended = daemon.poll() is not None or time.monotonic() > deadline
        assert not ended, f"dockerd did not start: {log.read_text(encoding='utf-8', errors='replace')[-500:]}"
        time.sleep(0.05)


class Umoci(Peer):
    """Debian's umoci, which knows image layouts only; skopeo carries them to registries and back."""

    def __init__(self, base: Path) -> None:
        super().__init__(base)
        self.tags: dict[str, str] = {}

    def call(self, *arguments: str) -> str:
        """See `Peer.call`."""
        return invoke("umoci", *arguments)

    def image(self, name: str) -> str:
        """Return what `name` is called in umoci's words."""
        return f"{self.base}/layout:{self.tags.setdefault(name, f'i{len(self.tags)}')}"

    def pull(self, name: str) -> str:
        """See `Peer.pull`."""
        skopeo = ["skopeo", "--insecure-policy", "copy", "--quiet", "--src-tls-verify=false"]
        invoke(*skopeo, "--preserve-digests", f"docker://{name}", f"oci:{self.image(name)}")
        return invoke("skopeo", "inspect", "--format={{.Digest}}", f"oci:{self.image(name)}")

    def push(self, name: str, target: str, *options: str) -> None:
        """See `Peer.push`."""
        skopeo = ["skopeo", "--insecure-policy", "copy", "--quiet", "--dest-tls-verify=false", *options]
        invoke(*skopeo, f"oci:{self.image(name)}", f"docker://{target}")

    def run(self, name: str, *command: str) -> str:
        """See `Peer.run`."""
        with self.tree(name) as root:
            return invoke("chroot", str(root), *command, variables={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"})

    @contextlib.contextmanager
    def tree(self, name: str) -> Iterator[Path]:
        """See `Peer.tree`."""
        bundle = self.base / "bundle"
        self.call("unpack", "--image", self.image(name), str(bundle))
        try:
            yield bundle / "rootfs"
        finally:
            invoke("rm", "-rf", str(bundle))
