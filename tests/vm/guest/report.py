"""Plug-in of pytest in the guest: says of every test how it ended, one JSON object a line, as it happens."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest

PORT = "/dev/vport0p1"


class Reporter:
    """Writes the lines to the host."""

    def __init__(self) -> None:
        self._fd = os.open(PORT, os.O_WRONLY | os.O_CLOEXEC)

    def _say(self, **words: object) -> None:
        data = json.dumps(words).encode() + b"\n"
        while data:
            data = data[os.write(self._fd, data) :]

    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        """Keep what the host wants, in its order; the host learns what is not here."""
        wanted = (config.rootpath / "tests.txt").read_text(encoding="utf-8").splitlines()
        known = {item.nodeid: item for item in items}
        items[:] = [known[test] for test in wanted if test in known]

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Say which tests will run."""
        self._say(kind="collected", tests=[item.nodeid for item in session.items])

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        """Say which test begins."""
        self._say(kind="began", test=nodeid)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Say how a phase of a test ended."""
        is_skip = isinstance(report.longrepr, tuple)
        reason = report.longrepr[2] if is_skip else report.longreprtext  # type: ignore[index]
        self._say(
            kind="phase",
            test=report.nodeid,
            when=report.when,
            outcome=report.outcome,
            seconds=report.duration,
            text=reason,
            sections=[list(section) for section in report.sections],
        )

    def pytest_sessionfinish(self, exitstatus: int) -> None:
        """Say that it is over."""
        self._say(kind="over", status=int(exitstatus))


def pytest_configure(config: pytest.Config) -> None:
    """Begin."""
    config.pluginmanager.register(Reporter(), "guest-reporter")
