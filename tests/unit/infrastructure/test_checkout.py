"""A clone does not hide the installed package from its own tests."""

from __future__ import annotations

import importlib.machinery
import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from support.checkout import CHECKOUT

if TYPE_CHECKING:
    from pathlib import Path

_TEST = """
import subprocess, sys

def test_package():
    import containerlib
    code = "import containerlib; print(containerlib.WHICH)"
    child = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE)
    print(f"package {containerlib.WHICH}, child {child.stdout.decode().strip()}.")
"""


def _package(parent: Path, which: str, *, is_built: bool) -> None:
    """Make a package that knows which one it is."""
    native = parent / "containerlib" / "_native"
    native.mkdir(parents=True)
    native.parent.joinpath("__init__.py").write_text(f"WHICH = {which!r}\n", encoding="ascii")
    if is_built:
        native.joinpath(f"_ctr{importlib.machinery.EXTENSION_SUFFIXES[-1]}").touch()


@pytest.mark.parametrize(
    "command", [["-m", "pytest"], ["-P", "-m", "pytest"]], ids=["with-cwd", "without-cwd"]
)
@pytest.mark.parametrize(("is_built", "expected"), [(False, "installed"), (True, "clone")])
def test_package_under_test(tmp_path: Path, command: list[str], expected: str, *, is_built: bool) -> None:
    """Without an extension in the clone the installed package is tested, in child processes too."""
    clone, site = tmp_path / "clone", tmp_path / "site"
    _package(clone, "clone", is_built=is_built)
    _package(site, "installed", is_built=True)
    tests = clone / "tests"
    shutil.copytree(CHECKOUT / "tests" / "support", tests / "support")
    tests.joinpath("conftest.py").write_text("pytest_plugins = ['support.checkout']\n", encoding="ascii")
    tests.joinpath("test_which.py").write_text(_TEST, encoding="ascii")
    settings = "[pytest]\ntestpaths = tests\npythonpath = tests\naddopts = --import-mode=importlib\n"
    clone.joinpath("pytest.ini").write_text(settings, encoding="ascii")
    environment = {
        key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "PYTEST"))
    }
    done = subprocess.run(
        [sys.executable, *command, "-s", "-p", "no:cacheprovider"],
        cwd=clone,
        env={**environment, "PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert f"package {expected}, child {expected}." in done.stdout, done.stdout + done.stderr
    assert f"under test: {(site if expected == 'installed' else clone) / 'containerlib'}" in done.stdout
