"""Tests that run in a virtual machine appear here one by one, as tests of the file that says which.

``*.guest.toml`` names a guest and what it runs. Its tests are collected on the host, run there, and what the
guest says of each is what its test here does: pass, skip for a reason that is on the list, or fail with the
guest's own report.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from typing import TYPE_CHECKING, Any

import pytest
from support.capabilities import need
from support.checkout import CHECKOUT
from support.guest_run import GuestRun, Outcome

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

RUN = pytest.StashKey[GuestRun]()
COMMON_SKIPS: list[str] = tomllib.loads((CHECKOUT / "tests/vm/skips.toml").read_text(encoding="utf-8"))[
    "skips"
]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option."""
    parser.addoption(
        "--guest-tests",
        default="",
        metavar="PATHS",
        help="run these in the guest, in place of the tests with its mark; words as pytest takes them",
    )
    parser.addoption(
        "--guest-limit", type=float, default=0.0, metavar="SECONDS", help="how long the guest may run"
    )
    parser.addoption(
        "--guest-logs", default="", metavar="DIRECTORY", help="keep the guest's console and its words there"
    )


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """Collect a guest."""
    if file_path.name.endswith(".guest.toml"):
        return GuestFile.from_parent(parent, path=file_path)
    return None


class GuestFile(pytest.File):
    """A guest."""

    def setup(self) -> None:
        """Skip where there is no qemu."""
        need(self.config, "vm")

    def collect(self) -> Iterable[GuestItem]:
        """Ask the tests themselves which there are."""
        self.settings = tomllib.loads(self.path.read_text(encoding="utf-8"))
        if self.config.getoption("--guest-limit"):
            self.settings["limit_s"] = self.config.getoption("--guest-limit")
        marked = ["-m", "guest", *self.settings["files"]]
        wanted = str(self.config.getoption("--guest-tests")).split() or marked
        listed = _collected(wanted)
        if not listed:
            raise self.CollectError(f"no test has been chosen by: {' '.join(wanted)}")
        for test in listed:
            yield GuestItem.from_parent(self, name=test)

    def run_of(self, item: GuestItem) -> GuestRun:
        """Return the run, begun now if it is not yet: with those tests of the guest that shall run."""
        if RUN not in self.stash:
            chosen = [each.name for each in item.session.items if each.parent is self]
            self.stash[RUN] = GuestRun(self.settings, chosen)
        return self.stash[RUN]

    def teardown(self) -> None:
        """Wait until it has powered off."""
        if RUN in self.stash:
            self.stash[RUN].close(self.config.getoption("--guest-logs"))


class GuestItem(pytest.Item):
    """A test in a guest."""

    parent: GuestFile

    def runtest(self) -> None:
        """Wait for what the guest says of it."""
        outcome = self.parent.run_of(self).outcome(self.name)
        self._show(outcome)
        if outcome.failure:
            raise GuestTestFailed(outcome.failure)
        if outcome.skip is not None:
            allowed = [*COMMON_SKIPS, *self.parent.settings["skips"]]
            if not any(re.search(pattern, outcome.skip) for pattern in allowed):
                raise GuestTestFailed(f"skipped in the guest for a reason that is not listed: {outcome.skip}")
            pytest.skip(outcome.skip)

    def _show(self, outcome: Outcome) -> None:
        for name, text in outcome.sections:
            self.add_report_section("call", name, text)

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """Show the guest's own report."""
        if isinstance(excinfo.value, GuestTestFailed):
            return str(excinfo.value)
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, int | None, str]:
        """Say where it stands."""
        return self.path, None, self.name


class GuestTestFailed(Exception):
    """What the guest says of a test that failed."""


def _collected(words: list[str]) -> list[str]:
    options = ["--collect-only", "-q", "--no-header", "-p", "no:cacheprovider"]
    command = [sys.executable, "-m", "pytest", *options, *words]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False)
    if done.returncode not in {pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED}:
        raise pytest.UsageError(f"cannot collect what the guest shall run: {done.stdout[-2000:]}")
    return [line for line in done.stdout.splitlines() if "::" in line]
