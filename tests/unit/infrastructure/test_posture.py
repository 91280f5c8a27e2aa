"""What `Posture` says about processes whose posture is known."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest
from support.posture import ANY, Posture, partial

if TYPE_CHECKING:
    from collections.abc import Iterator

# Changes what it is told to, says so, and waits to be ended.
_SUBJECT = """
import ctypes, os, signal, sys
libc = ctypes.CDLL(None, use_errno=True)
{setup}
print("ready", flush=True)
sys.stdin.read()
"""


class Subject:
    """A process that has set itself up and is waiting."""

    def __init__(self, setup: str, **options: object) -> None:
        arguments = [sys.executable, "-I", "-c", _SUBJECT.format(setup=setup)]
        self._process = subprocess.Popen(
            arguments,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            **options,  # type: ignore[call-overload]
        )
        self.pid = self._process.pid

    def __enter__(self) -> Posture:
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n"
        return Posture.collect(self.pid)

    def __exit__(self, *_exception: object) -> None:
        self._process.communicate()


@pytest.fixture
def own() -> Posture:
    """Return the posture of this process."""
    return Posture.collect(os.getpid())


@pytest.fixture
def opened() -> Iterator[int]:
    """Return a descriptor of a directory that stays open on exec."""
    number = os.open("/tmp", os.O_RDONLY | os.O_DIRECTORY)
    os.set_inheritable(number, True)
    yield number
    os.close(number)


def test_own_credentials(own: Posture) -> None:
    """Credentials, groups and identities agree with what Python says about this process."""
    real, effective, saved = os.getresuid()
    expected = partial(
        uids=(real, effective, saved, effective),
        gids=(*os.getresgid(), os.getegid()),
        groups=tuple(sorted(os.getgroups())),
        session=os.getsid(0),
        process_group=os.getpgid(0),
        cwd=os.getcwd(),
        root="/",
        exe=os.readlink("/proc/self/exe"),
    )
    assert own.diff(expected) == []


def test_own_namespaces(own: Posture) -> None:
    """Namespace inodes are those of the namespace files."""
    assert own.namespaces["mnt"] == os.stat("/proc/self/ns/mnt").st_ino
    assert own.namespaces.keys() >= {"cgroup", "ipc", "mnt", "net", "pid", "user", "uts"}


def test_own_limits(own: Posture) -> None:
    """Limits are read from fixed columns, names with blanks included."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert own.limits["Max open files"] == (str(soft), str(hard))
    assert "Max realtime timeout" in own.limits


def test_own_umask(own: Posture) -> None:
    """The umask is an octal number."""
    current = os.umask(0o22)
    os.umask(current)
    assert own.umask == current


def test_own_mounts(own: Posture) -> None:
    """The mount table has the file system that /proc comes from."""
    assert [mount.fstype for mount in own.mounts if mount.target == "/proc"][-1] == "proc"


def test_posture_equals_itself(own: Posture) -> None:
    """A posture has no difference to itself."""
    assert own.diff(own) == []


def test_descriptor_of_a_directory(opened: int) -> None:
    """A descriptor shows its target, its flags, whether it is a directory, and whether it closes on exec."""
    found = {descriptor.number: descriptor for descriptor in Posture.collect(os.getpid()).descriptors}
    assert found[opened].target == "/tmp"
    assert found[opened].is_directory
    assert not found[opened].cloexec
    os.set_inheritable(opened, False)
    found = {descriptor.number: descriptor for descriptor in Posture.collect(os.getpid()).descriptors}
    assert found[opened].cloexec


def test_signals() -> None:
    """Blocked, ignored and caught signals are sets of their numbers."""
    setup = """
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
signal.signal(signal.SIGUSR2, signal.SIG_IGN)
signal.signal(signal.SIGHUP, print)
"""
    with Subject(setup) as posture:
        assert posture.blocked == {signal.SIGUSR1}
        assert signal.SIGUSR2 in posture.ignored
        assert signal.SIGHUP in posture.caught


def test_no_new_privs() -> None:
    """The attribute is seen when it is set, and only then."""
    with Subject("") as posture:
        before = posture.no_new_privs
    with Subject("libc.prctl(38, 1, 0, 0, 0)") as posture:
        assert posture.no_new_privs
    assert not before or Posture.collect(os.getpid()).no_new_privs


@pytest.mark.root
def test_seccomp() -> None:
    """One more filter is one more in the posture."""
    setup = """
import struct
code = struct.pack("=HBBI", 0x06, 0, 0, 0x7FFF0000)
class Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_char_p)]
assert libc.prctl(22, ctypes.c_ulong(2), ctypes.byref(Program(1, code))) == 0
"""
    with Subject("") as posture:
        before = posture.seccomp_filters
    with Subject(setup) as posture:
        assert posture.seccomp_mode == 2
        assert posture.seccomp_filters == before + 1


@pytest.mark.root
@pytest.mark.parametrize("dumpable", [True, False])
@pytest.mark.parametrize("user", [0, 65534])
def test_dumpable(user: int, *, dumpable: bool) -> None:
    """The dumpable attribute is found out for root and for other users."""
    setup = f"os.setresuid({user}, {user}, {user})\nlibc.prctl(4, {int(dumpable)}, 0, 0, 0)"
    with Subject(setup) as posture:
        assert posture.uids == (user,) * 4
        assert posture.dumpable is dumpable


def test_new_session() -> None:
    """A process that leads a session has its own number as session and as group, and no terminal."""
    with Subject("pid = os.getpid()", start_new_session=True) as posture:
        assert posture.session == posture.process_group
        assert posture.terminal == 0


def test_sealed_executable() -> None:
    """A program that runs from a sealed memfd shows the seals."""
    memory = os.memfd_create("program", os.MFD_ALLOW_SEALING)
    try:
        with open("/bin/sleep", "rb") as program:
            os.sendfile(memory, program.fileno(), 0, os.fstat(program.fileno()).st_size)
        libc = ctypes.CDLL(None, use_errno=True)
        assert libc.fcntl(memory, 1033, 0xF) == 0
        child = subprocess.Popen([f"/proc/self/fd/{memory}", "60"], pass_fds=[memory])
        try:
            posture = Posture.collect(child.pid)
        finally:
            child.kill()
            child.wait()
    finally:
        os.close(memory)
    assert posture.exe == "/memfd:program (deleted)"
    assert posture.exe_seals == 0xF


@pytest.mark.root
def test_threads_that_differ() -> None:
    """A thread with other credentials than its process is named."""
    setup = """
import threading
def change():
    assert libc.syscall(117 if os.uname().machine == "x86_64" else 147, 65534, 65534, 65534) == 0
    ready.set()
    signal.pause()
ready = threading.Event()
threading.Thread(target=change, daemon=True).start()
ready.wait()
"""
    with Subject(setup) as posture:
        assert posture.threads == 2
        assert [difference.split(": ")[1] for difference in posture.thread_differences][:1] == ["Uid"]


def test_threads_that_agree() -> None:
    """Threads that share everything make no difference."""
    release = threading.Event()
    thread = threading.Thread(target=release.wait)
    thread.start()
    try:
        posture = Posture.collect(os.getpid())
    finally:
        release.set()
        thread.join()
    assert posture.threads >= 2
    assert posture.thread_differences == ()


def test_difference_names_value_and_expectation(own: Posture) -> None:
    """Each differing field is one sentence."""
    assert own.diff(partial(umask=-1)) == [f"umask: is {own.umask!r}, expected -1"]


def test_difference_of_a_mapping_names_the_key(own: Posture) -> None:
    """In a mapping only the keys that differ are shown, and a key may be missing on either side."""
    expected = {**own.namespaces, "mnt": 1, "new": 2}
    assert own.diff(partial(namespaces=expected)) == [
        f"namespaces: mnt is {own.namespaces['mnt']!r}, expected 1; new is None, expected 2"
    ]


def test_predicate_decides(own: Posture) -> None:
    """A predicate gets the value, and its name is in the sentence when it is not true."""

    def is_negative(value: int) -> bool:
        return value < 0

    assert own.diff(partial(threads=lambda count: count > 0)) == []
    assert own.diff(partial(threads=is_negative)) == [f"threads: is_negative is not true of {own.threads}"]


def test_expectation_has_to_name_every_field(own: Posture) -> None:
    """A field that is forgotten is a difference, and so is one that does not exist."""
    expected = partial()
    del expected["uids"]
    expected["uid"] = ANY
    assert own.diff(expected) == [
        "uid: there is no such field",
        "uids: the expectation does not name it",
    ]


def test_missing_process() -> None:
    """A process that has ended raises, and does not look harmless."""
    with Subject("") as posture:
        assert posture.comm.startswith("python")
    with pytest.raises((FileNotFoundError, ProcessLookupError)):
        Posture.collect(2**22 - 1)
