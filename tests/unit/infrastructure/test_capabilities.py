"""Marks skip by probing, and ``--require`` turns such skips into failures."""

from __future__ import annotations

import os

import pytest
from support.capabilities import MARKS, missing
from support.inner import prepare

_TESTS = """
import pytest

@pytest.mark.peers("no-such-program")
def test_marked():
    raise AssertionError("must not run")

def test_unmarked():
    pass
"""


@pytest.fixture
def session(pytester: pytest.Pytester) -> pytest.Pytester:
    """Return a session with one test that needs what no host has."""
    prepare(pytester, "support.capabilities", markers=("peers: needs programs",))
    pytester.makepyfile(_TESTS)
    return pytester


def test_failed_probe_skips(session: pytest.Pytester) -> None:
    """The test is skipped with the probe's reason, which is counted at the end."""
    result = session.runpytest_subprocess()
    result.assert_outcomes(passed=1, skipped=1)
    result.stdout.fnmatch_lines(["*skips by reason*", "*1  peers: not installed: no-such-program"])


def test_requirement_fails(session: pytest.Pytester) -> None:
    """Under ``--require`` the same test is an error."""
    result = session.runpytest_subprocess("--require=root,peers")
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["*required by --require=peers, but peers: not installed: no-such-program*"])


def test_requirement_of_another_mark_does_not(session: pytest.Pytester) -> None:
    """A requirement is for the marks that it names."""
    session.runpytest_subprocess("--require=root").assert_outcomes(passed=1, skipped=1)


def test_unknown_requirement_is_refused(session: pytest.Pytester) -> None:
    """A misspelt requirement ends the session at once, as it would require nothing."""
    result = session.runpytest_subprocess("--require=roots")
    result.stderr.fnmatch_lines(["*--require: no such mark: roots*"])
    assert result.ret == pytest.ExitCode.USAGE_ERROR


@pytest.mark.parametrize("mark", MARKS)
def test_probe_gives_a_reason_or_nothing(mark: str) -> None:
    """Every probe comes to a result, and names its mark when it says no."""
    reason = missing(mark)
    assert reason is None or reason.startswith(f"{mark}: ")


def test_root_is_root() -> None:
    """The probe for root never says yes to another user."""
    assert missing("root") is not None or os.geteuid() == 0
