"""What this host can do, found out by trying, and the marks that depend on it.

A test with a mark whose probe fails is skipped with the probe's reason. ``--require=root,cgroup`` turns such
skips into errors, so that a continuous integration cannot go green by skipping. The number of skips by
reason is printed at the end of every session.
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import pytest
from support.cgroups import hierarchies, try_write

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["GUEST_PROGRAMS", "MARKS", "PEERS", "missing", "need", "skip_or_fail"]

CAP_NET_ADMIN = 12
CAP_SYS_ADMIN = 21
CAP_SYS_RESOURCE = 24
GUEST_PROGRAMS = ("qemu-system-x86_64", "mmdebstrap", "mke2fs", "setpriv")
"""Programs from Debian's packages qemu-system-x86, mmdebstrap, e2fsprogs and util-linux."""
PEERS = ("bwrap", "busybox", "crun", "runc")
"""Programs from Debian's packages bubblewrap, busybox-static, crun and runc."""

# Runs in a process of its own: an unshared namespace cannot be left again. A failed mount after a granted
# unshare means that a security module takes the capabilities away, as on some distributions.
_USERNS_PROBE = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
def check(result, what):
    if result != 0:
        sys.exit(f"{what}: {os.strerror(ctypes.get_errno())}")
uid = os.getuid()
check(libc.unshare(0x10020000), "unshare(CLONE_NEWUSER | CLONE_NEWNS)")
try:
    open("/proc/self/setgroups", "w").write("deny")
    open("/proc/self/uid_map", "w").write(f"0 {uid} 1")
except OSError as error:
    sys.exit(str(error))
check(libc.mount(b"none", b"/", None, 0x44000, None), "mount in the new user namespace")
"""
_NETNS_PROBE = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
if libc.unshare(0x40000000) != 0:
    sys.exit(f"unshare(CLONE_NEWNET): {os.strerror(ctypes.get_errno())}")
"""


def _has_capability(number: int) -> bool:
    """Tell whether a capability is effective in this process."""
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("CapEff:"):
            return bool(int(line.split()[1], 16) >> number & 1)
    return False


def _run_probe(code: str) -> str | None:
    """Run a probe in a child; its exit message is the reason."""
    child = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=False)
    if child.returncode == 0:
        return None
    return child.stderr.strip() or f"the probe ended with status {child.returncode}"


def _probe_root() -> str | None:
    """Look for uid 0 with CAP_SYS_ADMIN."""
    if os.geteuid() != 0:
        return f"needs uid 0, is {os.geteuid()}"
    return None if _has_capability(CAP_SYS_ADMIN) else "uid 0 has no CAP_SYS_ADMIN"


def _probe_userns() -> str | None:
    """Make a user namespace and mount in it."""
    reason = _run_probe(_USERNS_PROBE)
    return reason and f"no user namespaces: {reason}"


def _probe_cgroup() -> str | None:
    """Make a group in any hierarchy."""
    reasons = [try_write(hierarchy.own) for hierarchy in hierarchies()]
    if None in reasons:
        return None
    return f"no writable cgroup hierarchy ({'; '.join(map(str, reasons)) or 'none is mounted'})"


def _probe_cgroup2() -> str | None:
    """Make a group in the version 2 hierarchy, which must have controllers."""
    unified = next((hierarchy for hierarchy in hierarchies() if hierarchy.version == 2), None)
    if unified is None:
        return "no cgroup2 hierarchy is mounted"
    if not unified.controllers:
        return f"the cgroup2 hierarchy {unified.mountpoint} has no controllers"
    reason = try_write(unified.own)
    return reason and f"the cgroup2 hierarchy is not writable ({reason})"


def _probe_netadmin() -> str | None:
    """Look for CAP_NET_ADMIN and make a network namespace."""
    if not _has_capability(CAP_NET_ADMIN):
        return "no CAP_NET_ADMIN"
    return _run_probe(_NETNS_PROBE)


def _probe_resource() -> str | None:
    """Look for CAP_SYS_RESOURCE."""
    return None if _has_capability(CAP_SYS_RESOURCE) else "no CAP_SYS_RESOURCE"


def _probe_peers(programs: Iterable[str]) -> str | None:
    """Look for the programs on PATH."""
    absent = [program for program in programs if shutil.which(program) is None]
    return f"not installed: {', '.join(absent)}" if absent else None


def _probe_vm() -> str | None:
    """Look for what makes and boots the guest, which is of one architecture."""
    if os.uname().machine != "x86_64":
        return f"the guest is for x86_64, and this is {os.uname().machine}"
    return _probe_peers(GUEST_PROGRAMS)


_PROBES: dict[str, Callable[[], str | None]] = {
    "root": _probe_root,
    "userns": _probe_userns,
    "cgroup": _probe_cgroup,
    "cgroup2": _probe_cgroup2,
    "netadmin": _probe_netadmin,
    "resource": _probe_resource,
    "peers": functools.partial(_probe_peers, PEERS),
    "vm": _probe_vm,
}
MARKS = tuple(_PROBES)


@functools.cache
def missing(mark: str, programs: tuple[str, ...] = ()) -> str | None:
    """Return why the host does not have what `mark` stands for, or None if it has.

    Args:
        mark: One of `MARKS`.
        programs: Only for ``peers``: the programs that are needed, by default all of `PEERS`.
    """
    reason = _probe_peers(programs) if programs else _PROBES[mark]()
    return reason and f"{mark}: {reason}"


def _required(config: pytest.Config) -> frozenset[str]:
    """Return the marks given to ``--require``."""
    return frozenset(name for name in config.getoption("--require").split(",") if name)


def need(config: pytest.Config, mark: str, programs: tuple[str, ...] = ()) -> None:
    """Skip, or fail under ``--require``, unless the host has what `mark` stands for. For fixtures."""
    reason = missing(mark, programs)
    if reason is not None:
        skip_or_fail(config, mark, reason)


def skip_or_fail(config: pytest.Config, mark: str, reason: str) -> NoReturn:
    """Skip for this reason, or fail if what `mark` stands for is required."""
    if mark in _required(config):
        pytest.fail(f"required by --require={mark}, but {reason}", pytrace=False)
    pytest.skip(reason)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option."""
    parser.addoption(
        "--require",
        default="",
        metavar="MARKS",
        help=f"fail instead of skipping where the host lacks one of these: {', '.join(MARKS)}",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Refuse unknown names: a misspelt requirement would require nothing."""
    unknown = _required(config) - set(MARKS)
    if unknown:
        raise pytest.UsageError(f"--require: no such mark: {', '.join(sorted(unknown))}")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Probe what the marks of the test stand for, before any fixture is made."""
    for mark in item.iter_markers():
        if mark.name in _PROBES:
            need(item.config, mark.name, mark.args)


def pytest_report_header(config: pytest.Config) -> list[str]:
    """Say which marks must not be skipped."""
    required = sorted(_required(config))
    return [f"require: {', '.join(required)}"] if required else []


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print how many tests were skipped for each reason."""
    reasons: Counter[str] = Counter()
    for report in terminalreporter.getreports("skipped"):
        longrepr = report.longrepr
        text = longrepr[2] if isinstance(longrepr, tuple) else str(longrepr)
        reasons[text.removeprefix("Skipped: ")] += 1
    if not reasons:
        return
    terminalreporter.section("skips by reason")
    for reason, count in reasons.most_common():
        terminalreporter.write_line(f"{count:5d}  {reason}")
