"""Bundles, and the runtimes that run them: ours, and Debian's runc and crun as the measure of it."""

from __future__ import annotations

import contextlib
import copy
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from support.engine import BUSYBOX, busybox_tree
from support.session import base_directory, temporary_directory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

__all__ = ["OURS", "RUNTIMES", "Bundle", "OciRuntime", "configuration", "until"]

OURS = "containerlib-oci"
RUNTIMES = (OURS, "runc", "crun")
# It refuses cgroup2 beside the old hierarchies, and so gets a mount namespace without it.
_WITHOUT_CGROUP2 = 'mountpoint -q /sys/fs/cgroup/unified && umount /sys/fs/cgroup/unified; exec crun "$@"'
_SCRIPT = Path(sys.executable).with_name(OURS)
_COMMANDS: Mapping[str, tuple[str, ...]] = {
    # A guest has the package and no scripts.
    OURS: (str(_SCRIPT),)
    if _SCRIPT.exists()
    else (sys.executable, "-c", "from containerlib.oci_cli.main import main; main()"),
    "runc": ("runc",),
    "crun": ("unshare", "--mount", "sh", "-c", _WITHOUT_CGROUP2, "crun"),
}
_DEADLINE_S = 60.0
_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_MOUNTS: list[dict[str, Any]] = [
    {"destination": "/proc", "type": "proc", "source": "proc"},
    {
        "destination": "/dev",
        "type": "tmpfs",
        "source": "tmpfs",
        "options": ["nosuid", "strictatime", "mode=755", "size=65536k"],
    },
    {
        "destination": "/dev/pts",
        "type": "devpts",
        "source": "devpts",
        "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
    },
    {
        "destination": "/sys",
        "type": "sysfs",
        "source": "sysfs",
        "options": ["nosuid", "noexec", "nodev", "ro"],
    },
]


def configuration(*args: str) -> dict[str, Any]:
    """A configuration that all runtimes accept, with a command; it has no terminal."""
    capabilities = ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]
    return {
        "ociVersion": "1.0.2",
        "process": {
            "user": {"uid": 0, "gid": 0},
            "args": list(args),
            "env": [_PATH],
            "cwd": "/",
            "capabilities": dict.fromkeys(("bounding", "effective", "permitted"), capabilities),
            "noNewPrivileges": True,
        },
        "root": {"path": "rootfs"},
        "hostname": "bundle",
        "mounts": copy.deepcopy(_MOUNTS),
        "linux": {
            "resources": {"devices": [{"allow": False, "access": "rwm"}]},
            "namespaces": [{"type": kind} for kind in ("pid", "network", "ipc", "uts", "mount")],
        },
    }


class Bundle:
    """A directory with a root file system of busybox, and a configuration to be changed at will."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rootfs = path / "rootfs"
        self.config = configuration("true")
        # So that what one runtime leaves is in nobody's way.
        self.config["linux"]["cgroupsPath"] = f"/{path.parent.name}-{path.name}"
        busybox_tree(self.rootfs)

    def command(self, *args: str) -> None:
        """Set what it runs."""
        self.config["process"]["args"] = list(args)

    def script(self, text: str) -> None:
        """Set a shell script as what it runs."""
        self.command("sh", "-c", text)

    def write(self) -> None:
        """Write the configuration."""
        (self.path / "config.json").write_text(json.dumps(self.config), encoding="utf-8")


class OciRuntime:
    """One runtime, with a state directory of its own."""

    def __init__(self, name: str, root: Path) -> None:
        self.name = name
        self.root = root
        self.created: list[str] = []

    def command(self) -> list[str]:
        """The words that it is called by."""
        return [*_COMMANDS[self.name]]

    def call(
        self, *arguments: str, check: bool = True, stdin: bytes = b"", **options: Any
    ) -> subprocess.CompletedProcess[bytes]:
        """Run one command of it."""
        command = [*_COMMANDS[self.name], "--root", str(self.root), *arguments]
        options.setdefault("stdout", subprocess.PIPE)
        options.setdefault("stderr", subprocess.PIPE)
        done = subprocess.run(command, input=stdin, check=False, timeout=120, **options)
        if check:
            assert done.returncode == 0, f"{' '.join(arguments)}: {(done.stderr or b'').decode()}"
        return done

    def run(self, bundle: Bundle, container_id: str = "c1") -> str:
        """Run a bundle to its end, and return what it wrote."""
        bundle.write()
        done = self.call("run", "--bundle", str(bundle.path), container_id, check=False)
        assert done.returncode == 0, (done.stderr.decode(), done.stdout.decode())
        return done.stdout.decode()

    def _create(self, bundle: Bundle, container_id: str, options: tuple[str, ...]) -> tuple[int, str]:
        """Try to create a container; its output, and what the command says, go to the file ``output``."""
        bundle.write()
        self.created.append(container_id)
        with (bundle.path / "output").open("ab") as output:
            words = ("create", "--bundle", str(bundle.path), *options, container_id)
            done = self.call(*words, check=False, stdout=output, stderr=output)
        return done.returncode, (bundle.path / "output").read_text(encoding="utf-8")

    def refuse(self, bundle: Bundle, container_id: str = "c1") -> str:
        """Expect that a bundle is refused; return the message. Nothing is left of it."""
        code, text = self._create(bundle, container_id, ())
        assert code != 0
        assert self.call("state", container_id, check=False).returncode != 0
        return text

    def create(self, bundle: Bundle, container_id: str = "c1", *options: str) -> None:
        """Create a container, whose output goes to the file ``output`` of the bundle."""
        code, text = self._create(bundle, container_id, options)
        assert code == 0, text

    def state(self, container_id: str = "c1") -> dict[str, Any]:
        """What it says of a container."""
        found: dict[str, Any] = json.loads(self.call("state", container_id).stdout)
        return found

    def close(self) -> None:
        """Leave nothing behind."""
        for container_id in self.created:
            self.call("delete", "--force", container_id, check=False)


@pytest.fixture
def bundle() -> Iterator[Bundle]:
    """Return a new bundle."""
    if not BUSYBOX.exists():
        pytest.skip("peers: not installed: busybox")
    with temporary_directory("b") as path:
        yield Bundle(path)


@pytest.fixture
def oci() -> Iterator[Callable[[str], OciRuntime]]:
    """Return what gives a runtime by its name; its containers are gone afterwards."""
    made: list[OciRuntime] = []
    with temporary_directory("o") as root:

        def find(name: str) -> OciRuntime:
            runtime = OciRuntime(name, root / name)
            made.append(runtime)
            return runtime

        yield find
        for runtime in made:
            runtime.close()
        # Those who are handed orphans have to bury them.
        while _bury():
            pass
        if all(runtime.name != OURS for runtime in made):  # what ours leaves is for the leak check to tell
            _remove_groups()


@pytest.fixture(params=RUNTIMES)
def runtime(request: pytest.FixtureRequest, oci: Callable[[str], OciRuntime]) -> OciRuntime:
    """Return one runtime after the other; what it does otherwise is in `DEVIATIONS` of the test's module."""
    reason = request.module.DEVIATIONS.get(request.node.name)
    if reason is not None:
        assert request.param != OURS
        request.applymarker(pytest.mark.xfail(reason=reason, strict=True))
    return oci(request.param)


def until(is_so: Callable[[], bool]) -> None:
    """Look until something is so that nobody tells."""
    deadline = time.monotonic() + _DEADLINE_S
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def _remove_groups() -> None:
    """End and remove what other runtimes leave behind."""
    top = Path("/sys/fs/cgroup")
    name = f"{base_directory().name}-b*"
    deadline = time.monotonic() + _DEADLINE_S
    while groups := [each for place in (top, *top.iterdir()) if place.is_dir() for each in place.glob(name)]:
        assert time.monotonic() < deadline, groups
        for group in groups:
            with contextlib.suppress(OSError):
                for pid in (group / "cgroup.procs").read_text(encoding="ascii").split():
                    os.kill(int(pid), signal.SIGKILL)
                group.rmdir()
        while _bury():
            pass


def _bury() -> bool:
    try:
        return os.waitpid(-1, os.WNOHANG)[0] > 0
    except ChildProcessError:
        return False
