"""A cross-section of everything, for kernels without the newer system calls (--enosys).

What is particular to one subject is in that subject's module, marked `enosys` as well.
"""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, Any

import pytest
from support import enosys
from support.faults import children, failing, held
from support.probe import probe_image
from support.session import temporary_directory

from containerlib import (
    DEVNULL,
    PIPE,
    CommandNotFound,
    Mount,
    OperationTimeout,
    Resources,
    Rlimit,
    Security,
    SpawnError,
    UnsupportedHost,
)
from containerlib._native.path import kernel_features
from containerlib.runtime.cgroup_host import CgroupHost

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from containerlib import Engine, Image

pytestmark = [pytest.mark.root, pytest.mark.cgroup, pytest.mark.guest, pytest.mark.enosys]

FEATURES = {"mount-api": "mount_api"}


@pytest.fixture
def shared() -> Iterator[Path]:
    """Return a directory of the host with a file, a directory and a link in it."""
    with temporary_directory("shared") as path:
        path.chmod(0o755)
        (path / "file").write_text("of the host\n", encoding="ascii")
        (path / "sub").mkdir()
        (path / "link").symlink_to("file")
        yield path


def shell(image: Image, script: str, **options: Any) -> str:
    """Run a script and return what it writes; it must succeed."""
    result = image.call(["/bin/sh", "-c", script], **options)
    assert result.exit_code == 0, result.stderr
    return result.text


def test_the_calls_are_missing() -> None:
    """The session runs without what it says that it runs without."""
    wanted = {FEATURES.get(group, group) for group in enosys.ACTIVE if group != enosys.CGROUP_KILL}
    assert not wanted & kernel_features()


@pytest.mark.parametrize("layer", ["memory", "disk"])
@pytest.mark.parametrize("init", [False, True])
def test_run(busybox_image: Image, layer: str, init: bool) -> None:  # noqa: FBT001
    """Streams, exit codes, signals and the environment work."""
    options: dict[str, Any] = {"layer": layer, "init": init}
    result = busybox_image.call(
        ["/bin/sh", "-c", "cat; echo $A >&2; exit 7"], stdin=b"in", env={"A": "b"}, **options
    )
    assert (result.stdout, result.stderr, result.exit_code) == (b"in", b"b\n", 7)
    assert busybox_image.call(["/bin/sh", "-c", "kill -9 $$"], init=True, layer=layer).exit_code == 137
    with pytest.raises(CommandNotFound):
        busybox_image.call(["/bin/missing"], **options)


def test_a_detached_container(busybox_image: Image, engine: Engine) -> None:
    """It works, or is refused before anything of it was made."""
    if "pidfd_open" in enosys.ACTIVE:
        with pytest.raises(UnsupportedHost, match="outlives its process needs pidfd_open"):
            engine.containers.run(busybox_image, ["/bin/true"], lifetime="detached")
        assert engine.containers.list() == []
        return
    container = engine.containers.run(busybox_image, ["/bin/sh", "-c", "exit 3"], lifetime="detached")
    assert container.wait(timeout_s=60).exit_code == 3
    container.remove()


def test_a_layer_on_disk_is_kept(busybox_image: Image) -> None:
    """What a container wrote is there when it is started again."""
    script = "cat /new || echo x >/new; rm /etc/passwd"
    with busybox_image.run(["/bin/sh", "-c", script], stdout=DEVNULL, stderr=DEVNULL) as container:
        container.wait(timeout_s=60)
        container.start(stdout=PIPE, stderr=DEVNULL)
        assert container.stdout is not None
        assert container.stdout.read() == b"x\n"
        container.wait(timeout_s=60)


def test_a_volume_is_shared(busybox_image: Image, shared: Path) -> None:
    """Both sides see what the other one writes, in a directory and in a single file."""
    mounts = [Mount.bind(str(shared), "/v"), Mount.bind(str(shared / "file"), "/etc/one")]
    text = shell(busybox_image, "cat /v/link /etc/one; echo y >/v/sub/new; echo z >/etc/one", mounts=mounts)
    assert text == "of the host\nof the host\n"
    assert (shared / "sub" / "new").read_text(encoding="ascii") == "y\n"
    assert (shared / "file").read_text(encoding="ascii") == "z\n"


def test_a_read_only_volume_is_read_only(busybox_image: Image, shared: Path) -> None:
    """No way of writing to it works, and the same directory can be there writable as well."""
    mounts = [
        Mount.bind(str(shared), "/r", read_only=True),
        Mount.bind(str(shared / "file"), "/etc/one", read_only=True),
        Mount.bind(str(shared), "/w"),
    ]
    script = (
        "for f in /r/file /r/new /r/sub/new /r/link /etc/one; do echo x 2>/dev/null >$f && echo $f; done; "
        "rm /r/file 2>/dev/null; mkdir /r/d 2>/dev/null; chmod 0 /r/file 2>/dev/null; "
        "touch -d @0 /etc/one 2>/dev/null; mount -o remount,rw /r 2>/dev/null; "
        "echo x >/w/written; cat /r/written"
    )
    assert shell(busybox_image, script, mounts=mounts) == "x\n"
    assert sorted(path.name for path in shared.iterdir()) == ["file", "link", "sub", "written"]
    assert (shared / "file").read_text(encoding="ascii") == "of the host\n"


def test_a_read_only_volume_with_a_mount_below(busybox_image: Image, tmp_path: Path) -> None:
    """What is mounted below the source is read-only as well, or the start is refused."""
    mounts = [Mount.bind("/dev", "/d", read_only=True)]
    script = "touch /d/shm/$1 2>/dev/null && rm /d/shm/$1 && echo written; true"
    command = ["/bin/sh", "-c", script, "sh", tmp_path.name + str(os.getpid())]
    if "mount_setattr" in kernel_features():
        assert busybox_image.call(command, mounts=mounts).text == ""
    else:
        with pytest.raises(UnsupportedHost, match="mounts below it"):
            busybox_image.call(command, mounts=mounts)


def test_flags_of_mounts(busybox_image: Image, shared: Path) -> None:
    """Options of every kind of mount are in the mount table."""
    mounts = [
        Mount.tmpfs("/t", size_bytes=8192, mode=0o700),
        Mount.tmpfs("/x", exec=True),
        Mount.bind(str(shared), "/r", read_only=True),
    ]
    lines = shell(busybox_image, "cat /proc/self/mountinfo", mounts=mounts, read_only=True).splitlines()
    options = {line.split()[4]: set(line.split()[5].split(",")) for line in lines}
    assert options["/"] >= {"ro"}
    assert options["/t"] >= {"nosuid", "nodev", "noexec", "rw"}
    assert options["/x"] >= {"nosuid", "nodev", "rw"}
    assert "noexec" not in options["/x"]
    assert "ro" in options["/r"]
    assert options["/sys"] >= {"ro", "nosuid", "nodev", "noexec"}
    assert options["/proc/sys"] >= {"ro", "nosuid", "nodev", "noexec"}
    assert not any(part.startswith(("shared:", "master:")) for line in lines for part in line.split())
    text = shell(
        busybox_image,
        "stat -c %a /t; df -k /t | tail -1 | awk '{print $2}'; echo x >/new || echo ro",
        mounts=mounts,
        read_only=True,
    )
    assert text == "700\n8\nro\n"


def test_mounts_below_links_of_the_image(shared_engine: Engine, shared: Path) -> None:
    """A target whose parent is a link lands where the link leads, for each kind of mount."""

    def change(tree: Path) -> None:
        (tree / "run").mkdir()
        (tree / "link").symlink_to("/run")

    mounts = [
        Mount.tmpfs("/link/t"),
        Mount.bind(str(shared), "/link/b", read_only=True),
        Mount.bind(str(shared / "file"), "/link/f"),
    ]
    lines = shell(probe_image(shared_engine, change), "cat /proc/mounts", mounts=mounts).splitlines()
    assert {line.split()[1] for line in lines} >= {"/run/t", "/run/b", "/run/f"}


def test_users_and_limits(busybox_image: Image) -> None:
    """Credentials, limits, umask and kernel settings are those that were asked for."""
    text = shell(
        busybox_image,
        "id -u; id -g; id -G; ulimit -n; umask; cat /proc/sys/net/ipv4/ip_forward; hostname; "
        "cat /proc/self/oom_score_adj",
        user="1000:1001",
        group_add=["7"],
        rlimits=[Rlimit(name="nofile", soft=100, hard=200)],
        sysctls={"net.ipv4.ip_forward": "1"},
        hostname="fallback",
        resources=Resources(oom_score_adj=500),
    )
    assert text.split("\n") == ["1000", "1001", "1001 7", "100", "0022", "1", "fallback", "500", ""]


def test_resources_are_limited(busybox_image: Image) -> None:
    """A limit of processes holds, so the container is in its control group."""
    if CgroupHost.probe().controllers.get("pids") is None:
        pytest.skip("no pids controller")
    script = "n=0; while [ $n -lt 20 ]; do sleep 1000 & n=$((n+1)); done"
    result = busybox_image.call(["/bin/sh", "-c", script], resources=Resources(pids=5), timeout_s=60)
    assert result.exit_code == 2
    assert b"can't fork" in result.stderr


def test_a_timeout_ends_everything(busybox_image: Image) -> None:
    """A container that ignores signals is gone after its timeout, and what it wrote is told."""
    script = "trap '' TERM INT HUP; echo begun; (setsid sleep 1000 &); while :; do sleep 1000; done"
    with pytest.raises(OperationTimeout) as caught:
        busybox_image.call(["/bin/sh", "-c", script], timeout_s=0.3)
    assert caught.value.stdout in {b"begun\n", b""}


def test_an_init_reaps_and_passes_signals_on(busybox_image: Image) -> None:
    """Orphans do not stay as zombies, and a signal reaches the command."""
    script = 'trap "exit 9" USR1; (sleep 0.01 & exec true); echo ready; while :; do read x; done'
    with busybox_image.run(["/bin/sh", "-c", script], init=True, stdin=PIPE, stdout=PIPE) as container:
        assert container.stdout is not None
        assert container.stdout.read(6) == b"ready\n"
        assert container.pid is not None
        assert len(children(container.pid)) in {1, 2}
        container.kill("USR1")
        assert container.wait(timeout_s=60).exit_code == 9


def test_stop_and_kill(busybox_image: Image) -> None:
    """Containers end by signals, polite or not."""
    streams: dict[str, Any] = {"stdin": DEVNULL, "stdout": DEVNULL}
    with busybox_image.run(["/bin/sleep", "1000"], init=True, **streams) as container:
        status = container.stop(timeout_s=30)
        assert status is not None
        assert status.exit_code == 128 + signal.SIGTERM
    with busybox_image.run(["/bin/sleep", "1000"], **streams) as container:
        container.kill()
        assert container.wait(timeout_s=60).signal == signal.SIGKILL


def test_a_terminal_works(busybox_image: Image) -> None:
    """What the command writes comes out of the terminal, with the size that was asked for."""
    command = ["/bin/sh", "-c", "stty size; tty; test -c /dev/console && echo console"]
    with busybox_image.run(command, tty=True, console_size=(91, 33), stdin=DEVNULL) as container:
        master = container.take_console()
        written = b""
        while not written.endswith(b"console\r\n"):
            written += os.read(master, 1000)
        os.close(master)
        assert written == b"33 91\r\n/dev/pts/0\r\nconsole\r\n"
        container.wait(timeout_s=60)


def test_without_protections(busybox_image: Image) -> None:
    """What a caller opts out of is gone, and nothing else."""
    security = Security(seccomp="unconfined", no_new_privileges=False, cap_add=["SYS_ADMIN"])
    assert shell(busybox_image, "mount -t tmpfs x /tmp && echo mounted", security=security) == "mounted\n"
    assert shell(busybox_image, "ls /sys/class/net", network="none").split() == ["lo"]


@pytest.mark.parametrize(
    "step", ["root_create", "root_attach", "mount_attach", "device", "pivot", "close_fds", "exec"]
)
def test_a_failing_step(busybox_image: Image, step: str) -> None:
    """A step of the fallbacks fails like the one that it replaces."""
    with pytest.raises(SpawnError) as caught:
        busybox_image.call(["/bin/true"], **failing(step))
    assert caught.value.step == step


@pytest.mark.parametrize("init", [False, True])
def test_descriptors_before_exec(busybox_image: Image, init: bool) -> None:  # noqa: FBT001
    """However descriptors are closed, the last step has the streams, the error pipe and our socket."""
    with held(busybox_image, "exec", init=init) as start:
        found = [os.readlink(f"/proc/{start.pid}/fd/{name}") for name in os.listdir(f"/proc/{start.pid}/fd")]
        assert sorted(link.split(":")[0] for link in found) == ["/dev/null"] * 3 + ["pipe", "socket"]
        start.kill()
