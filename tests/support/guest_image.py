"""The virtual machine of the test guest: Debian's own kernel and userland, made once and kept.

Whether systemd is its first process or our own is chosen when it boots.

What is made depends on nothing but the archive that apt of this host is set up for, the requirements in
pyproject.toml, and what stands here and in tests/vm/guest/init; all that is in the name it is kept under.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

from attrs import frozen
from support.checkout import CHECKOUT
from support.debian_image import DebianArchiveError, apt_sources, cached

__all__ = ["GuestImage", "guest_image"]

_PACKAGES = (
    *("python3", "kmod", "iproute2", "nftables", "uidmap", "procps", "linux-image-cloud-amd64"),
    *("busybox-static", "strace", "attr", "libcap2-bin", "e2fsprogs", "fdisk"),
    *("systemd", "dbus", "libpam-systemd", "apparmor"),
)
_INIT = CHECKOUT / "tests/vm/guest/init"
_DISK_SIZE = "4G"  # sparse
_EXTRAS = ("cli", "serve", "test", "socks")


@frozen
class GuestImage:
    """What qemu boots.

    Attributes:
        kernel: Debian's kernel.
        initrd: Its initial file system.
        disk: The root file system, which is never written to.
    """

    kernel: Path
    initrd: Path
    disk: Path


def guest_image() -> GuestImage:
    """Return the image, made now if it is not in the cache.

    Raises:
        DebianArchiveError: It cannot be made; the message is what the program said that could not.

    Cost: a minute for the first time.
    """
    suite = platform.freedesktop_os_release().get("VERSION_CODENAME", "")
    sources = apt_sources(suite)
    requirements = _requirements()
    recipe = Path(__file__).read_text(encoding="utf-8")
    inputs = [suite, sources, requirements, recipe, _INIT.read_text(encoding="utf-8")]

    def make(path: Path) -> None:
        root = path / "root"
        root.mkdir(parents=True)
        _make_root(root, suite, sources)
        _install(root, requirements)
        shutil.copy(_INIT, root / "vm-init")
        (root / "vm-init").chmod(0o755)
        for name in ("vmlinuz", "initrd.img"):
            (found,) = (root / "boot").glob(f"{name}-*")
            shutil.move(found, path / name)
        _run(["mke2fs", "-q", "-t", "ext4", "-d", str(root), str(path / "root.img"), _DISK_SIZE])
        shutil.rmtree(root)

    made = cached("guest", inputs, make)
    return GuestImage(made / "vmlinuz", made / "initrd.img", made / "root.img")


def _requirements() -> list[str]:
    with (CHECKOUT / "pyproject.toml").open("rb") as file:
        project = tomllib.load(file)["project"]
    extras = [each for extra in _EXTRAS for each in project["optional-dependencies"][extra]]
    return [each for each in (*project["dependencies"], *extras) if not each.startswith("containerlib")]


def _make_root(root: Path, suite: str, sources: list[str]) -> None:
    options = ["--quiet", "--variant=minbase", f"--include={','.join(_PACKAGES)}"]
    _run(["mmdebstrap", *options, suite, str(root), "-"], "\n".join(sources))


def _install(root: Path, requirements: list[str]) -> None:
    """Put wheels for the guest's Python, which need not be ours, where the payload looks for them."""
    (python,) = (root / "usr/bin").glob("python3.*[0-9]")
    version = python.name.removeprefix("python")
    platforms = [f"--platform={name}" for name in ("manylinux_2_28_x86_64", "manylinux2014_x86_64", "any")]
    command = [sys.executable, "-m", "pip", "install", "-q", "--target", str(root / "opt/site")]
    command += ["--python-version", version, "--implementation", "cp", "--only-binary=:all:", *platforms]
    _run([*command, *requirements])


def _run(command: list[str], text: str = "") -> None:
    environment = {**os.environ, "LC_ALL": "C.UTF-8", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    done = subprocess.run(
        command, input=text, capture_output=True, text=True, check=False, env=environment, umask=0o022
    )
    if done.returncode:
        raise DebianArchiveError(f"{command[0]}: {done.stderr.strip()[-500:]}")
