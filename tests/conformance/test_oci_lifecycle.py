"""What runtime.md says of a container's life, and config.md of documents, by all three runtimes.

See `test_oci_config` and `test_oci_commands` for the rest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from support.oci import until

if TYPE_CHECKING:
    from support.oci import Bundle, OciRuntime

pytestmark = [pytest.mark.root, pytest.mark.cgroup, pytest.mark.peers]

DEVIATIONS = {
    "test_a_start_whose_hooks_fail[runc-startContainer]": "its start ends before these hooks do",
    "test_a_start_whose_hooks_fail[runc-poststart]": "it runs poststart hooks when the container is created",
    "test_a_start_whose_hooks_fail[crun-startContainer]": "its start ends before these hooks do",
    "test_a_start_whose_hooks_fail[crun-poststart]": "what goes wrong in them is no error",
}


def test_properties_that_nobody_knows(runtime: OciRuntime, bundle: Bundle) -> None:
    """They are ignored, wherever they are."""
    config = bundle.config
    for place in (config, config["process"], config["process"]["user"], config["root"], config["linux"]):
        place["org.example.unknown"] = {"deep": [1, None]}
    config["annotations"] = {"org.example.unknown": "value"}
    bundle.script("echo ran")
    assert runtime.run(bundle) == "ran\n"


def test_a_configuration_that_changes(runtime: OciRuntime, bundle: Bundle) -> None:
    """Once a container is created nothing that is written into the bundle counts."""
    bundle.script("echo first; cat /proc/sys/kernel/hostname")
    runtime.create(bundle)
    bundle.script("echo second")
    bundle.config["hostname"] = "other"
    bundle.config["hooks"] = {"poststart": [{"path": "/bin/false"}]}
    bundle.write()
    runtime.call("start", "c1")
    until(lambda: runtime.state()["status"] == "stopped")
    assert (bundle.path / "output").read_text(encoding="utf-8") == "first\nbundle\n"


def test_nothing_runs_before_the_start(runtime: OciRuntime, bundle: Bundle) -> None:
    """What is configured is there, and the command has not begun."""
    bundle.config["hostname"] = "prepared"
    bundle.script(": > /began")
    runtime.create(bundle)
    assert runtime.state()["status"] == "created"
    assert not (bundle.rootfs / "began").exists()
    done = runtime.call("exec", "c1", "hostname")
    assert done.stdout == b"prepared\n"
    runtime.call("start", "c1")
    until(lambda: runtime.state()["status"] == "stopped")
    assert (bundle.rootfs / "began").exists()


def test_size_of_no_terminal(runtime: OciRuntime, bundle: Bundle) -> None:
    """Without a terminal its size means nothing."""
    bundle.config["process"] |= {"terminal": False, "consoleSize": {"width": 5, "height": 6}}
    bundle.script("tty; echo ran")
    assert runtime.run(bundle).splitlines()[-1] == "ran"


def test_no_process(runtime: OciRuntime, bundle: Bundle) -> None:
    """Nothing can be started without one; that is said at the latest then."""
    del bundle.config["process"]
    assert runtime.refuse(bundle)


@pytest.mark.parametrize("kind", ["startContainer", "poststart"])
def test_a_start_whose_hooks_fail(runtime: OciRuntime, bundle: Bundle, kind: str) -> None:
    """It is an error, the container does not run on, and the last hooks run when it is gone."""
    bundle.command("sleep", "600")
    path = "/bin/false"
    hooks: dict[str, Any] = {kind: [{"path": path}]}
    hooks["poststop"] = [
        {"path": "/bin/sh", "args": ["sh", "-c", f"cat > {bundle.path}/last"], "env": ["PATH=/bin"]}
    ]
    bundle.config["hooks"] = hooks
    runtime.create(bundle)
    assert runtime.call("start", "c1", check=False).returncode != 0
    if runtime.call("state", "c1", check=False).returncode == 0:
        until(lambda: runtime.state()["status"] == "stopped")
        runtime.call("delete", "c1", check=False)
    assert (bundle.path / "last").exists()
    assert runtime.call("state", "c1", check=False).returncode != 0
