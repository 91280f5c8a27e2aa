"""The compiled default filter in the kernel: what it stops, and what it must not disturb.

Each test runs a program of its own, because a filter cannot be taken off again. The programs have the
privileges of the test run, so that under root it is the filter that says no and nothing else.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from typing import Any

import pytest

from containerlib.runtime.capability import DEFAULT_CAPABILITIES
from containerlib.runtime.seccomp import load_default
from containerlib.runtime.syscalls import ARCHITECTURES, numbers

MACHINE = os.uname().machine

pytestmark = pytest.mark.skipif(MACHINE not in ARCHITECTURES, reason=f"there is no filter for {MACHINE}")

# Reads the filter and a task from standard input, loads the filter, runs the task, prints what it found.
PRELUDE = """
import ctypes, json, os, sys
request = json.load(sys.stdin)
libc = ctypes.CDLL(None, use_errno=True)
class Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_char_p)]
def load_filter():
    code = bytes.fromhex(request["filter"])
    program = Program(len(code) // 8, code)
    assert libc.prctl(38, 1, 0, 0, 0) == 0, ctypes.get_errno()
    assert libc.prctl(22, 2, ctypes.byref(program)) == 0, ctypes.get_errno()
"""

PROBES = """
def probe(number, args):
    padded = [ctypes.c_ulong(arg) for arg in args] + [ctypes.c_ulong(0)] * (6 - len(args))
    ctypes.set_errno(0)
    result = libc.syscall(ctypes.c_long(number), *padded)
    if request["clone"] == number and result == 0:
        os._exit(0)
    return ctypes.get_errno() if result == -1 else 0
if request["filter"]:
    load_filter()
print(json.dumps([probe(*each) for each in request["probes"]]))
"""

WORK = """
import mmap, select, signal, socket, subprocess, threading, time
load_filter()
subprocess.run(["/bin/true"], check=True)
pid = os.fork()
if pid == 0:
    os._exit(7)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
found = []
threads = [threading.Thread(target=found.append, args=(i,)) for i in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
assert sorted(found) == list(range(8))
left, right = socket.socketpair()
left.send(b"x")
assert right.recv(1) == b"x"
server = socket.create_server(("127.0.0.1", 0))
client = socket.create_connection(server.getsockname())
server.accept()[0].send(b"y")
assert client.recv(1) == b"y"
socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0).close()
poll = select.epoll()
poll.register(right, select.EPOLLIN)
left.send(b"z")
assert poll.poll(1)
os.memfd_create("m")
os.urandom(8)
os.isatty(0)
mmap.mmap(-1, 4096)
signal.setitimer(signal.ITIMER_REAL, 0)
time.sleep(0.001)
os.sched_setaffinity(0, os.sched_getaffinity(0))
assert libc.personality(0xFFFFFFFF) >= 0
print(json.dumps("done"))
"""

# int 0x80 with the number of getpid(2) on i386.
FOREIGN = """
import mmap
code = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
code.write(bytes.fromhex("b814000000cd80c3"))
call = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(code)))
before = call()
load_filter()
print(json.dumps([before == os.getpid(), call()]))
"""

HIGH = 1 << 32
DENIED: list[tuple[str, tuple[int, ...], int]] = [
    ("socket", (38, 5, 0), errno.EPERM),
    ("socket", (38 | HIGH, 5, 0), errno.EPERM),
    ("socket", (40, 1, 0), errno.EPERM),
    ("socket", (40 | HIGH, 1, 0), errno.EPERM),
    ("socket", (17, 3, 0), errno.EPERM),
    ("socketpair", (38, 5, 0), errno.EPERM),
    ("personality", (0x0040000,), errno.EPERM),
    ("personality", (0x0040000 | HIGH,), errno.EPERM),
    ("clone", (0x10000000 | 17,), errno.EPERM),
    ("clone", (0x00020000 | 17 | HIGH,), errno.EPERM),
    ("clone3", (), errno.ENOSYS),
    ("unshare", (0x10000000,), errno.EPERM),
    ("setns", (2**32 - 1, 0), errno.EPERM),
    ("ioctl", (2**32 - 1, 0x5412), errno.EPERM),
    ("ioctl", (2**32 - 1, 0x5412 | HIGH), errno.EPERM),
    ("ioctl", (2**32 - 1, 0x541C), errno.EPERM),
    ("ioctl", (2**32 - 1, 0x541C | 0xFFFFFFFF << 32), errno.EPERM),
    ("io_uring_setup", (1, 0), errno.EPERM),
    ("keyctl", (0, 2**32 - 3), errno.EPERM),
    ("add_key", (), errno.EPERM),
    ("bpf", (0, 0, 0), errno.EPERM),
    ("userfaultfd", (0,), errno.EPERM),
    ("perf_event_open", (), errno.EPERM),
    ("open_by_handle_at", (), errno.EPERM),
    ("mount", (), errno.EPERM),
    ("open_tree", (), errno.EPERM),
    ("fsopen", (), errno.EPERM),
    ("kexec_load", (), errno.EPERM),
    ("file_getattr", (), errno.ENOSYS),
]


def execute(task: str, **more: Any) -> Any:
    """Run one of the programs above and return what it printed."""
    request = {"filter": load_default(MACHINE, DEFAULT_CAPABILITIES).hex(), **more}
    child = subprocess.run(
        [sys.executable, "-c", PRELUDE + task],
        input=json.dumps(request),
        capture_output=True,
        text=True,
        check=False,
    )
    if task == FOREIGN and child.returncode == -signal.SIGSEGV:
        pytest.skip("this kernel runs no i386 programs")
    assert child.returncode == 0, child.stderr
    return json.loads(child.stdout)


def probe(calls: list[tuple[str, tuple[int, ...], int]], **more: Any) -> list[int]:
    """Make the calls in a child and return their error numbers, 0 for success."""
    table = numbers(MACHINE)
    probes = [(table[name], args) for name, args, _ in calls]
    found: list[int] = execute(PROBES, probes=probes, clone=table["clone"], **more)
    return found


def test_the_filter_stops_what_it_should() -> None:
    """Each dangerous call gets the error of the filter, with and without bits in upper halves."""
    found = probe(DENIED)
    wrong = [(call, error) for call, error in zip(DENIED, found, strict=True) if error != call[2]]
    assert not wrong


def test_it_is_the_filter_that_stops_it() -> None:
    """Without the filter the same calls end otherwise, so the test above proves something."""
    harmless = [call for call in DENIED if call[0] in {"personality", "ioctl", "clone3"}]
    found = probe(harmless, filter="")
    assert all(error != call[2] for call, error in zip(harmless, found, strict=True))


def test_unknown_numbers_are_enosys() -> None:
    """A number that is no system call, and an x32 call, answer like a kernel that lacks them."""
    found = execute(PROBES, probes=[(470, ()), (999, ()), (0x40000000 | 39, ())], clone=0)
    assert found == [errno.ENOSYS] * 3


def test_normal_work_is_not_disturbed() -> None:
    """Processes, threads, sockets, timers and memory work under the filter."""
    assert execute(WORK) == "done"


@pytest.mark.skipif(MACHINE != "x86_64", reason="the machine code is for x86_64")
def test_i386_calls_are_not_there() -> None:
    """A system call by int 0x80, whose arguments the filter cannot judge, gets ENOSYS."""
    worked_before, result = execute(FOREIGN)
    assert worked_before
    assert result == -errno.ENOSYS
