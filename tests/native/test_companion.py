"""Programs that stay when their starter ends: what they have, and whose they are."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest

from containerlib._native.companion import start_companion

SCRIPT = """
import os, signal, socket
peer = socket.socket(fileno=0)
fds = sorted(int(name) for name in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{name}"))
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
print(fds, os.readlink("/proc/self/fd/1"), os.getsid(0) == os.getpid(), os.getcwd(), dict(os.environ),
      int(status["SigBlk"], 16), os.getppid(), file=peer.makefile("w"), flush=True)
peer.recv(1)
"""


def told(*, leak: int = -1) -> tuple[socket.socket, str]:
    """Start a program that says what it finds; a connection to it, and what it has said."""
    ours, theirs = socket.socketpair()
    if leak >= 0:
        os.set_inheritable(leak, True)
    with theirs:
        start_companion([sys.executable, "-I", "-S", "-c", SCRIPT], [theirs.fileno()])
    ours.settimeout(30)
    with ours.makefile("r") as file:
        return ours, file.readline()


def test_what_it_has() -> None:
    """Its standard streams, and nothing else that this process has open; no environment but the locale."""
    with open("/dev/null", "rb") as leak:
        ours, said = told(leak=leak.fileno())
    with ours:
        assert said.startswith("[0, 1, 2] /dev/null True / {'LC_ALL': 'C.UTF-8'} 0 ")
        assert int(said.split()[-1]) != os.getpid()
        with pytest.raises(ChildProcessError):
            os.waitpid(-1, os.WNOHANG)


def test_it_outlives_its_starter() -> None:
    """It goes on when the process has ended that has started it."""
    ours, theirs = socket.socketpair()
    program = (
        "import sys\n"
        "from containerlib._native.companion import start_companion\n"
        f"start_companion([sys.executable, '-I', '-S', '-c', {SCRIPT!r}], [int(sys.argv[1])])\n"
    )
    with ours, theirs:
        number = str(theirs.fileno())
        subprocess.run([sys.executable, "-c", program, number], pass_fds=[theirs.fileno()], check=True)
        theirs.close()
        ours.settimeout(30)
        with ours.makefile("r") as file:
            assert file.readline().startswith("[0, 1, 2]")


def test_what_cannot_be_executed() -> None:
    """The error is that of execve(2), with the path."""
    for path, error in (("/nonexistent", FileNotFoundError), ("/etc/passwd", PermissionError)):
        with pytest.raises(error, match=path):
            start_companion([path], [0])
