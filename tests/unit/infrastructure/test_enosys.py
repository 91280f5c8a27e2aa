"""The filter of ``--enosys`` hides what it is told to hide, and nothing else."""

from __future__ import annotations

import subprocess
import sys

import pytest
from support.checkout import CHECKOUT
from support.enosys import ACTIVE, GROUPS
from support.inner import prepare

pytestmark = pytest.mark.root

# The filter stays for good, so it is installed in a process of its own; the grandchild inherits it.
_PROBE = """
import subprocess, sys
sys.path.insert(0, sys.argv[1])
from support.enosys import GROUPS, answers_enosys, install
names = sorted({name for group in GROUPS.values() for name in group})
if len(sys.argv) > 2:
    install(sys.argv[2].split(","))
    sys.exit(subprocess.run([sys.executable, "-I", "-c", sys.argv[3], sys.argv[1]]).returncode)
print(*[name for name in names if answers_enosys(name)])
"""


def _hidden(groups: str = "") -> set[str]:
    """Return which system calls answer ENOSYS in a process with these groups."""
    arguments = [groups, _PROBE] if groups else []
    command = [sys.executable, "-I", "-c", _PROBE, str(CHECKOUT / "tests"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


@pytest.mark.parametrize("group", sorted(group for group in GROUPS if GROUPS[group]))
def test_group_is_hidden_from_children(group: str) -> None:
    """The calls of a group answer ENOSYS in a child of the process with the filter; others do not."""
    assert _hidden(group) == _hidden() | set(GROUPS[group])


def test_groups_add_up() -> None:
    """Several groups are hidden at once."""
    assert _hidden("openat2,clone3") == _hidden() | {"openat2", "clone3"}


def test_option_reaches_the_header(pytester: pytest.Pytester) -> None:
    """The session says what it hides."""
    prepare(pytester, "support.enosys")
    result = pytester.runpytest_subprocess("--enosys=openat2")
    result.stdout.fnmatch_lines(["enosys: openat2"])


def test_unknown_group_is_refused(pytester: pytest.Pytester) -> None:
    """A misspelt group ends the session at once, as it would hide nothing."""
    prepare(pytester, "support.enosys")
    result = pytester.runpytest_subprocess("--enosys=openat3")
    result.stderr.fnmatch_lines(["*--enosys: no such group: openat3*"])
    assert result.ret == pytest.ExitCode.USAGE_ERROR


def test_this_session_hides_what_it_says() -> None:
    """What the session was asked to hide is hidden here too."""
    assert {name for group in ACTIVE for name in GROUPS[group]} <= _hidden()
