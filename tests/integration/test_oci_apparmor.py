"""Profiles of AppArmor for what the OCI runtime starts, where the host has AppArmor."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest
from support.oci import OURS

from containerlib.runtime.host import HostFacts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from support.oci import Bundle, OciRuntime

pytestmark = [pytest.mark.root, pytest.mark.cgroup, pytest.mark.guest]

PROFILE = """
profile {name} flags=(attach_disconnected,mediate_deleted) {{
  file,
  capability,
  network,
  signal,
  ptrace,
  deny /secret r,
}}
"""


@pytest.fixture
def profile(bundle: Bundle) -> Iterator[str]:
    """Return the name of a loaded profile by which one file cannot be read."""
    parser = shutil.which("apparmor_parser", path="/sbin:/usr/sbin")
    if not HostFacts.probe().has_apparmor or parser is None:
        pytest.skip("no AppArmor with apparmor_parser")
    name = f"clt-{bundle.path.name}"
    text = PROFILE.format(name=name).encode()
    policy = bundle.path / "securityfs"
    policy.mkdir()
    subprocess.run(["mount", "-t", "securityfs", "none", policy], check=True)
    command = [parser, "--skip-cache", "--subdomainfs", str(policy / "apparmor")]
    subprocess.run([*command, "--add"], input=text, check=True)
    bundle.config["process"]["apparmorProfile"] = name
    (bundle.rootfs / "secret").write_text("secret\n", encoding="ascii")
    yield name
    subprocess.run([*command, "--remove"], input=text, check=True)
    subprocess.run(["umount", policy], check=True)


LOOK = "cat /proc/self/attr/apparmor/current; cat /secret 2>/dev/null || echo refused"


@pytest.mark.parametrize("no_new_privileges", [True, False])
def test_profile(
    oci: Callable[[str], OciRuntime],
    bundle: Bundle,
    profile: str,
    no_new_privileges: bool,  # noqa: FBT001
) -> None:
    """The command is confined by it."""
    bundle.config["process"]["noNewPrivileges"] = no_new_privileges
    bundle.script(LOOK)
    assert oci(OURS).run(bundle) == f"{profile} (enforce)\nrefused\n"


def test_profile_of_a_further_process(oci: Callable[[str], OciRuntime], bundle: Bundle, profile: str) -> None:
    """What joins is confined, too, whatever lies over the files of proc."""
    bundle.config["mounts"].append(
        {"destination": "/proc/1/attr", "type": "tmpfs", "source": "tmpfs", "options": ["ro"]}
    )
    bundle.command("sleep", "1000")
    runtime = oci(OURS)
    runtime.create(bundle)
    runtime.call("start", "c1")
    done = runtime.call("exec", "c1", "sh", "-c", LOOK)
    assert done.stdout.decode() == f"{profile} (enforce)\nrefused\n"
    runtime.call("delete", "--force", "c1")


def test_a_profile_that_is_not_loaded(oci: Callable[[str], OciRuntime], bundle: Bundle, profile: str) -> None:
    """The error names it."""
    bundle.config["process"]["apparmorProfile"] = f"{profile}-other"
    said = oci(OURS).refuse(bundle)
    assert f"'{profile}-other'" in said
    assert "apparmor_parser" in said


def test_without_apparmor(oci: Callable[[str], OciRuntime], bundle: Bundle) -> None:
    """A profile is not left out silently."""
    if HostFacts.probe().has_apparmor:
        pytest.skip("this host has AppArmor")
    bundle.config["process"]["apparmorProfile"] = "default"
    assert "process.apparmorProfile='default' needs AppArmor" in oci(OURS).refuse(bundle)
