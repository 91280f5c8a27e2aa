"""The leak check sees what it is there to see."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.cgroups import hierarchies, try_write
from support.inner import prepare
from support.leaks import Snapshot, wait_until_clean
from support.mounts import detach
from support.processes import COMM_PREFIX, GROUP_PREFIX
from support.session import other_sessions, temporary_directory, tracked_root

Leak = Callable[[], contextlib.AbstractContextManager[str]]


@contextlib.contextmanager
def _descriptor() -> Iterator[str]:
    """Leak a descriptor."""
    number = os.open("/dev/null", os.O_RDONLY)
    yield f"descriptor: {number} -> /dev/null"
    os.close(number)


@contextlib.contextmanager
def _pipe() -> Iterator[str]:
    """Leak both ends of a pipe; each pipe has a name of its own, which must not matter."""
    ends = os.pipe()
    yield f"descriptor: {ends[0]} -> pipe:["
    for end in ends:
        os.close(end)


@contextlib.contextmanager
def _mount() -> Iterator[str]:
    """Leak a mount."""
    libc = ctypes.CDLL(None, use_errno=True)
    with temporary_directory("leak") as target:
        assert libc.mount(b"leaked", os.fsencode(target), b"tmpfs", 0, None) == 0, ctypes.get_errno()
        yield f"mount: {target} (tmpfs leaked "
        detach(str(target))


@contextlib.contextmanager
def _child() -> Iterator[str]:
    """Leak a running child."""
    child = subprocess.Popen(["sleep", "60"])
    yield f"process: sleep, pid {child.pid}, child of {os.getpid()}"
    child.kill()
    child.wait()


@contextlib.contextmanager
def _zombie() -> Iterator[str]:
    """Leak a child that nobody has waited for."""
    pid = os.posix_spawn("/bin/true", ["true"], {})
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    yield f"process: true (zombie), pid {pid}"
    os.waitpid(pid, 0)


@contextlib.contextmanager
def _orphan() -> Iterator[str]:
    """Leak a supervisor that has no parent of ours any more."""
    code = f"""
import os, signal, sys
if os.fork():
    os._exit(0)
os.setsid()
open("/proc/self/comm", "w").write("{COMM_PREFIX}test")
print(os.getpid(), flush=True)
os.close(1)
signal.pause()
"""
    done = subprocess.run([sys.executable, "-I", "-c", code], stdout=subprocess.PIPE, text=True, check=True)
    pid = int(done.stdout)
    yield f"process: {COMM_PREFIX}test, pid {pid}"
    os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + 10
    while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
        time.sleep(0.005)


@contextlib.contextmanager
def _thread() -> Iterator[str]:
    """Leak a thread."""
    release = threading.Event()
    thread = threading.Thread(target=release.wait, name="leaked")
    thread.start()
    yield f"thread: leaked (thread {thread.native_id})"
    release.set()
    thread.join()


@contextlib.contextmanager
def _control_group() -> Iterator[str]:
    """Leak a control group."""
    own = next(hierarchy.own for hierarchy in hierarchies() if try_write(hierarchy.own) is None)
    path = own / f"{GROUP_PREFIX}test-{os.getpid()}"
    path.mkdir()
    yield f"cgroup: {path}"
    path.rmdir()


@contextlib.contextmanager
def _network_namespace() -> Iterator[str]:
    """Leak a network namespace in a child."""
    code = """
import ctypes, os, sys
assert ctypes.CDLL(None).unshare(0x40000000) == 0
print(os.readlink("/proc/self/ns/net"), flush=True)
sys.stdin.read()
"""
    command = [sys.executable, "-I", "-c", code]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        yield f"network namespace: {child.stdout.readline().strip()} of python"


@contextlib.contextmanager
def _link() -> Iterator[str]:
    """Leak a network link."""
    name = f"clt{os.getpid()}"
    subprocess.run(["ip", "link", "add", name, "type", "veth", "peer", "name", f"{name}p"], check=True)
    yield f"link: {name}"
    subprocess.run(["ip", "link", "delete", name], check=True)


@contextlib.contextmanager
def _key() -> Iterator[str]:
    """Leak a key of this user."""
    libc = ctypes.CDLL(None, use_errno=True)
    add_key, keyctl = {"x86_64": (248, 250), "aarch64": (217, 219)}[os.uname().machine]
    user_keyring = ctypes.c_long(-4)
    key = libc.syscall(ctypes.c_long(add_key), b"user", b"leaked", b"x", ctypes.c_long(1), user_keyring)
    assert key > 0, ctypes.get_errno()
    yield "kernel key: number "
    libc.syscall(ctypes.c_long(keyctl), ctypes.c_long(9), ctypes.c_long(key), user_keyring)


ROOT = (pytest.mark.root,)
LEAKS = [
    pytest.param(_descriptor, id="descriptor"),
    pytest.param(_pipe, id="pipe"),
    pytest.param(_mount, id="mount", marks=ROOT),
    pytest.param(_child, id="child"),
    pytest.param(_zombie, id="zombie"),
    pytest.param(_orphan, id="orphan"),
    pytest.param(_thread, id="thread"),
    pytest.param(_control_group, id="cgroup", marks=pytest.mark.cgroup),
    pytest.param(_network_namespace, id="netns", marks=pytest.mark.netadmin),
    pytest.param(_link, id="link", marks=pytest.mark.netadmin),
    pytest.param(_key, id="key", marks=ROOT),
]


@pytest.mark.parametrize("leak", LEAKS)
def test_leak_is_found_and_forgotten(leak: Leak) -> None:
    """What is left over is named, and is no leak any more once it is gone."""
    before = Snapshot.take()
    with leak() as expected:
        found = wait_until_clean(before, deadline_s=0)
    ownerless = expected.split(": ")[0] in Snapshot.OWNERLESS
    if not (ownerless and other_sessions()):
        assert [line for line in found if line.startswith(expected)], found
    assert wait_until_clean(before) == []


def test_file_in_a_run_root_is_found(tmp_path: Path) -> None:
    """A file that stays in the directory of a live engine is named; elsewhere it is nobody's business."""
    (tmp_path / "containers").mkdir()
    with tracked_root(tmp_path):
        before = Snapshot.take()
        (tmp_path / "containers" / "left").touch()
        found = wait_until_clean(before, deadline_s=0)
    assert found == [f"file: {tmp_path}/containers/left"]


@pytest.mark.root
def test_missing_mount_is_found() -> None:
    """A mount that was there before and is gone is named too."""
    with _mount() as described:
        before = Snapshot.take()
        detach(described.split()[1])
        found = wait_until_clean(before, deadline_s=0)
        libc = ctypes.CDLL(None, use_errno=True)
        assert libc.mount(b"again", described.split()[1].encode(), b"tmpfs", 0, None) == 0
    assert [line for line in found if line.startswith("mount is gone: ")] == found
    assert len(found) == 1


def test_replacement_is_no_leak() -> None:
    """A long-lived engine may replace what it holds, as long as the number stays the same."""
    with contextlib.ExitStack() as first, contextlib.ExitStack() as second:
        first.enter_context(_pipe())
        first.enter_context(_child())
        before = Snapshot.take()
        second.enter_context(_pipe())
        second.enter_context(_child())
        first.close()
        assert wait_until_clean(before, deadline_s=0) == []


def test_late_end_is_waited_for() -> None:
    """What ends a little later is no leak, and the check does not wait longer than it takes."""
    before = Snapshot.take()
    timer = threading.Timer(0.3, lambda: None)
    timer.start()
    started = time.monotonic()
    assert wait_until_clean(before, deadline_s=30) == []
    assert time.monotonic() - started < 10
    timer.join()


def test_leak_fails_the_guarded_test_alone(pytester: pytest.Pytester) -> None:
    """Below the guarded directories a leak is an error of the test that made it; elsewhere it is none."""
    prepare(pytester, "support.leaks")
    leaking = "import os\ndef test_leaking(): os.open('/dev/null', os.O_RDONLY)\ndef test_clean(): pass\n"
    for directory in ("native", "unit"):
        pytester.mkdir(directory).joinpath(f"test_{directory}.py").write_text(leaking, encoding="ascii")
    result = pytester.runpytest_subprocess("--leak-deadline=0.2")
    result.assert_outcomes(passed=4, errors=1)
    result.stdout.fnmatch_lines(
        [
            "*ERROR at teardown of test_leaking*",
            "left over after the test:",
            "*descriptor: * -> /dev/null",
            "ERROR native/test_native.py::test_leaking*",
        ]
    )


@pytest.mark.root
def test_session_is_checked_as_a_whole(pytester: pytest.Pytester) -> None:
    """What a fixture of the session leaves behind is found at the end."""
    prepare(pytester, "support.leaks")
    pytester.makepyfile("import subprocess\ndef test_starting():\n    subprocess.Popen(['sleep', '30'])\n")
    result = pytester.runpytest_subprocess("-W", "ignore", "--leak-deadline=0.2")
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["left over after the session:", "*process: sleep, pid *"])
    for line in result.stdout.lines:
        if "process: sleep" in line:
            os.kill(int(line.split("pid ")[1].split(",")[0]), signal.SIGKILL)
