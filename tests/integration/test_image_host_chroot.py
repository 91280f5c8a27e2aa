"""Host programs run from the collected files alone."""

from __future__ import annotations

import glob
import os
import shutil
import subprocess
import tarfile
import tempfile
from typing import TYPE_CHECKING

import pytest

from containerlib.image.host import DEFAULT_COMMANDS, collect
from containerlib.layer.archive import LayerEntry, write_layer

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(
        shutil.which("chroot", path="/usr/sbin:/usr/bin") is None, reason="chroot is not installed"
    ),
]


def materialise(entries: list[LayerEntry], root: Path) -> None:
    """Write the layer of `entries` and unpack it below `root`."""
    with tempfile.TemporaryFile() as archive:
        write_layer(entries, archive, mtime=2**32)
        archive.seek(0)
        with tarfile.open(fileobj=archive) as unpacked:
            # This very test wrote it. Older releases of Python have no filters, and trust everything.
            options = {"filter": "fully_trusted"} if hasattr(tarfile, "fully_trusted_filter") else {}
            unpacked.extractall(root, **options)  # type: ignore[arg-type]  # noqa: S202


def run_in(root: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a command with `root` as its root directory and an empty environment."""
    return subprocess.run(
        [
            "/usr/bin/env",
            "-i",
            "PATH=/usr/sbin:/usr/bin:/sbin:/bin",
            shutil.which("chroot") or "chroot",
            root,
            *command,
        ],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=20,
        check=False,
    )


@pytest.fixture(scope="module")
def userland(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Unpack the default userland of this host."""
    root = tmp_path_factory.mktemp("userland")
    materialise(collect(), root)
    return root


def test_shell_pipeline_works(userland: Path) -> None:
    """A shell starts programs, pipes between them, and users are found."""
    script = "ls / | wc -l; date; grep root /etc/passwd; id -un; test -w /tmp"
    result = run_in(userland, "sh", "-c", script)
    assert (result.returncode, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert int(lines[0]) == len(os.listdir(userland))
    assert lines[2:] == ["root:x:0:0:root:/root:/bin/sh", "root"]


@pytest.mark.parametrize("name", DEFAULT_COMMANDS)
def test_each_program_starts(userland: Path, name: str) -> None:
    """No program of the default list lacks a library or an interpreter."""
    if shutil.which(name, path="/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin") is None:
        pytest.skip(f"{name} is not installed on this host")
    result = run_in(userland, name, "--version")
    assert "shared librar" not in result.stderr
    assert result.returncode not in (126, 127), result.stderr


def test_python_runs_with_its_library(tmp_path: Path) -> None:
    """An interpreter and the directory of its modules are a working Python, extension modules included."""
    libraries = sorted(
        path for path in glob.glob("/usr/lib/python3.*") if os.path.isdir(f"{path}/lib-dynload")
    )
    python = f"/usr/bin/{os.path.basename(libraries[-1])}" if libraries else ""
    if not os.path.exists(python):
        pytest.skip("this host has no Python of its distribution")
    materialise(collect([python, libraries[-1]]), tmp_path)
    script = "import bz2, ctypes, hashlib, json, lzma, pwd, socket; print(pwd.getpwuid(0).pw_name)"
    result = run_in(tmp_path, python, "-E", "-s", "-c", script)
    assert (result.returncode, result.stderr, result.stdout) == (0, "", "root\n")


def test_library_in_a_configured_directory_is_found(tmp_path: Path) -> None:
    """The real loader reads the generated cache: a library that only the host's cache leads to is found."""
    ldconfig = shutil.which("ldconfig", path="/sbin:/usr/sbin")
    if ldconfig is None:
        pytest.skip("this host has no ldconfig")
    if shutil.which("gcc") is None:
        pytest.skip("peers: not installed: gcc")
    host, image = tmp_path / "host", tmp_path / "image"
    host.mkdir()
    image.mkdir()
    materialise(collect(["sh"]), host)
    (host / "opt/special/lib").mkdir(parents=True)
    names = [f"libspecial{number}.so.{number}" for number in (1, 2, 9, 10, 11, 100)]
    for number, name in enumerate(names):
        source = tmp_path / "library.c"
        source.write_text(f"int answer{number}(void) {{ return {number}; }}\n")
        library = host / "opt/special/lib" / name
        subprocess.run(["gcc", "-shared", f"-Wl,-soname,{name}", "-o", library, source], check=True)
    calls = " + ".join(f"answer{number}()" for number in range(len(names)))
    program = tmp_path / "main.c"
    declarations = "".join(f"int answer{number}(void);" for number in range(len(names)))
    program.write_text(f"{declarations} int main(void) {{ return 20 + {calls}; }}\n")
    libraries = sorted((host / "opt/special/lib").iterdir())
    subprocess.run(["gcc", "-o", host / "usr/bin/main", program, *libraries], check=True)
    (host / "etc/ld.so.conf").write_text("/opt/special/lib\n")
    subprocess.run([ldconfig, "-r", host], check=True)
    entries = collect(["/usr/bin/main"], root=str(host))
    assert "etc/ld.so.cache" in {entry.path for entry in entries}
    materialise(entries, image)
    assert run_in(image, "/usr/bin/main").returncode == 20 + sum(range(len(names)))
    (image / "etc/ld.so.cache").unlink()
    assert run_in(image, "/usr/bin/main").returncode == 127
