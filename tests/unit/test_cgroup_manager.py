"""Whether systemd is asked for scopes, and in which slice they go."""

from __future__ import annotations

import os

import pytest

from containerlib.errors import UnsupportedHost
from containerlib.runtime import systemd
from containerlib.runtime.cgroup_host import CgroupHost, Disk, Hierarchy
from containerlib.runtime.cgroup_manager import CgroupManager

SLICE = "/user.slice/user-0.slice"
SESSION = f"{SLICE}/session-1.scope"


class Limits(Disk):
    """A tree in which some groups have a limit."""

    def __init__(self, *limited: str) -> None:
        self._limited = limited

    def read(self, path: str) -> str | None:
        """A file of it."""
        group, _, file = path.removeprefix("/sys/fs/cgroup").rpartition("/")
        return "1000000\n" if group in self._limited and file == "memory.max" else None


@pytest.fixture
def booted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host that systemd runs."""
    monkeypatch.setattr(systemd, "find_problem", lambda: None)


def host(caller: str = SESSION) -> CgroupHost:
    """A host of version 2."""
    unified = Hierarchy(2, frozenset({"memory"}), "/sys/fs/cgroup", "/sys/fs/cgroup", "/", None)
    return CgroupHost("v2", {}, unified, caller)


@pytest.mark.usefixtures("booted")
@pytest.mark.parametrize(
    ("limited", "expected"),
    [((), "system.slice"), ((SLICE,), "user-0.slice"), (("/user.slice", SLICE), "user-0.slice")],
)
def test_slice(limited: tuple[str, ...], expected: str) -> None:
    """Scopes go beside those of the system, unless the caller lives in a slice with limits."""
    manager = CgroupManager.choose(host(), "auto", disk=Limits(*limited))
    assert (manager.slice_name, manager.problem) == (expected, "")


@pytest.mark.usefixtures("booted")
def test_limits_are_not_left_behind() -> None:
    """A scope cannot be made below another one or a service, so their limits keep us there."""
    manager = CgroupManager.choose(host(), "auto", disk=Limits(SESSION))
    assert manager.slice_name is None
    assert SESSION in manager.problem
    with pytest.raises(UnsupportedHost, match=r"cgroup_manager='systemd'.*would be left behind"):
        CgroupManager.choose(host(), "systemd", disk=Limits(SESSION))


@pytest.mark.usefixtures("booted")
def test_by_name() -> None:
    """Who wants to do without gets it; who wants systemd gets no silent replacement."""
    assert CgroupManager.choose(host(), "cgroupfs", disk=Limits()) == CgroupManager(None)
    manager = CgroupManager.choose(host(), "systemd", disk=Limits())

    def ask(*arguments: object, **options: object) -> None:
        del arguments, options
        raise OSError(5, "no")

    pidfd = os.pidfd_open(os.getpid())
    try:
        with pytest.raises(OSError, match="no"):
            manager.enter(host(), "x", pidfd, ask=ask)
        auto = CgroupManager.choose(host(), "auto", disk=Limits())
        assert auto.enter(host(), "x", pidfd, ask=ask) == host()
    finally:
        os.close(pidfd)


@pytest.mark.parametrize("mode", ["v1", "hybrid", "none"])
def test_other_versions(mode: str) -> None:
    """Version 1 is not delegated."""
    found = CgroupHost(mode)  # type: ignore[arg-type]
    assert CgroupManager.choose(found, "auto").slice_name is None
    with pytest.raises(UnsupportedHost, match=f"mode '{mode}'"):
        CgroupManager.choose(found, "systemd")
