"""What a user without rights has of the engine in a login session: answers, and errors with a remedy."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import containerlib as cl
from containerlib.runtime.cgroup_host import CgroupHost
from containerlib.runtime.cgroup_manager import CgroupManager

pytestmark = pytest.mark.guest


@pytest.fixture(autouse=True)
def _session() -> None:
    own = Path("/proc/self/cgroup").read_text(encoding="ascii")
    if os.geteuid() == 0 or "/session-" not in own:
        pytest.skip("not a login session of an unprivileged user")


def test_control_groups() -> None:
    """The session's group belongs to root, and the reason names it."""
    host = CgroupHost.probe()
    assert host.mode == "none"
    assert host.unified is not None
    assert host.unified.own_cgroup.startswith(f"/user.slice/user-{os.getuid()}.slice/session-")
    assert f"is not writable for user {os.getuid()}" in str(host.unified.problem)
    manager = CgroupManager.choose(host, "auto")
    assert manager.slice_name is None
    with pytest.raises(cl.UnsupportedHost, match="cgroup_manager='systemd'"):
        CgroupManager.choose(host, "systemd")


def test_doctor() -> None:
    """It says what is missing, and that root would have it."""
    with cl.Engine() as engine:
        found = {each.name: each for each in engine.doctor()}
    assert found["control groups"].state == "missing"
    assert any("run as root" in each.remedy for each in found.values() if each.state == "missing")
    command = [sys.executable, "-m", "containerlib", "doctor"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "run as root" in done.stdout


def test_image(tmp_path: Path) -> None:
    """Nothing can be unpacked, which the error says with what it needs; nothing stays behind."""
    with cl.Engine(tmp_path / "r", tmp_path / "n") as engine:
        with pytest.raises(cl.UnsupportedHost, match="CAP_SYS_CHROOT"):
            engine.images.from_host(["/bin/true"])
        assert engine.images.list() == []
        assert engine.check() == ()
