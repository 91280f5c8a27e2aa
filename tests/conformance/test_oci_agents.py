"""Filters that ask an agent, and what the kernel is told beside them, by our runtime, runc and crun alike."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import select
import socket
import struct
import threading
from typing import TYPE_CHECKING, Any

import pytest
from support.oci import OURS, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from support.oci import Bundle, OciRuntime

pytestmark = [pytest.mark.root, pytest.mark.cgroup, pytest.mark.peers]

DEVIATIONS = {
    **{
        f"test_flags[runc-SECCOMP_FILTER_FLAG_{name}]": "its version knows no flags yet"
        for name in ("TSYNC", "LOG", "SPEC_ALLOW", "WAIT_KILLABLE_RECV")
    },
    "test_path_that_nobody_needs[crun]": "it gives the descriptor to whoever is named",
}

# struct seccomp_notif and struct seccomp_notif_resp of linux/seccomp.h, and the requests that take them.
NOTIFICATION, ANSWER = struct.Struct("=QIIiIQ6Q"), struct.Struct("=QqiI")
RECEIVE, SEND = 0xC0502100, 0xC0182101
DEADLINE_S = 60.0
FLAGS = ("TSYNC", "LOG", "SPEC_ALLOW", "WAIT_KILLABLE_RECV")


class Agent:
    """Refuses what it is asked about with EDQUOT, and keeps what it was told of the containers."""

    def __init__(self, path: str) -> None:
        self.documents: list[dict[str, Any]] = []
        self.answers = 0
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(path)
        self._listener.listen()
        self._threads = [threading.Thread(target=self._serve)]
        self._threads[0].start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection:
                connection.settimeout(DEADLINE_S)
                data, fds, _, _ = socket.recv_fds(connection, 65536, 4)
                # Other runtimes leave the connection open until they end.
                while not self._is_complete(data):
                    data += connection.recv(65536)
            self.documents.append(json.loads(data))
            assert len(fds) == 1
            self._threads.append(threading.Thread(target=self._answer, args=(fds[0],)))
            self._threads[-1].start()

    def _answer(self, fd: int) -> None:
        with open(fd, "rb", closefd=True):
            while True:
                asked = bytearray(NOTIFICATION.size)
                try:
                    fcntl.ioctl(fd, RECEIVE, asked)
                except OSError as error:
                    # Nobody has the filter any more, or whoever asked has been killed meanwhile.
                    if error.errno != errno.ENOENT:
                        return
                    if not self._has_more(fd):
                        return
                    continue
                self.answers += 1
                answer = ANSWER.pack(NOTIFICATION.unpack(asked)[0], 0, -errno.EDQUOT, 0)
                fcntl.ioctl(fd, SEND, answer)

    @staticmethod
    def _is_complete(data: bytes) -> bool:
        try:
            json.loads(data)
        except ValueError:
            return False
        return True

    @staticmethod
    def _has_more(fd: int) -> bool:
        watch = select.poll()
        watch.register(fd, select.POLLIN)
        return not any(event & select.POLLHUP for _, event in watch.poll(1000))

    def close(self) -> None:
        """Wait until no container asks any more."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join()


@pytest.fixture
def agent(bundle: Bundle) -> Iterator[Agent]:
    """Return an agent that the bundle's filter asks when a pipe is to be made."""
    path = str(bundle.path / "agent")
    bundle.config["linux"]["seccomp"] = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "listenerPath": path,
        "listenerMetadata": "what it is about",
        "syscalls": [{"names": ["mknod", "mknodat"], "action": "SCMP_ACT_NOTIFY"}],
    }
    found = Agent(path)
    yield found
    found.close()


@pytest.mark.parametrize("no_new_privileges", [True, False])
def test_agent(
    runtime: OciRuntime,
    bundle: Bundle,
    agent: Agent,
    no_new_privileges: bool,  # noqa: FBT001
) -> None:
    """It gets the state and the descriptor, and what it answers is what the container sees."""
    bundle.config["process"]["noNewPrivileges"] = no_new_privileges
    bundle.script("mkfifo /made 2>&1; echo $?")
    said = runtime.run(bundle)
    assert "quota" in said.lower()
    assert said.splitlines()[-1] == "1"
    (document,) = agent.documents
    assert document["fds"] == ["seccompFd"]
    assert document["metadata"] == "what it is about"
    assert document["pid"] == document["state"]["pid"] > 0
    assert document["state"]["id"] == "c1"
    assert document["state"]["bundle"] == str(bundle.path)
    assert agent.answers == 1


def test_agent_of_a_further_process(runtime: OciRuntime, bundle: Bundle, agent: Agent) -> None:
    """It is told of each process that has the filter loaded."""
    bundle.command("sleep", "1000")
    runtime.create(bundle)
    runtime.call("start", "c1")
    done = runtime.call("exec", "c1", "mkfifo", "/made", check=False)
    assert done.returncode == 1
    assert b"quota" in done.stderr.lower()
    first, second = agent.documents
    assert first["pid"] == runtime.state()["pid"] != second["pid"]
    assert second["state"]["status"] == "running"
    runtime.call("delete", "--force", "c1")


def test_agent_that_is_asked_about_the_command(
    oci: Callable[[str], OciRuntime], bundle: Bundle, agent: Agent
) -> None:
    """It has the descriptor before the first call that it may be asked about."""
    bundle.config["linux"]["seccomp"]["syscalls"][0]["names"] = ["execve"]
    bundle.command("true")
    runtime = oci(OURS)
    runtime.create(bundle)
    runtime.call("start", "c1", check=False)
    until(lambda: runtime.state()["status"] == "stopped")
    assert agent.answers >= 1
    runtime.call("delete", "c1")


def test_no_agent(runtime: OciRuntime, bundle: Bundle, agent: Agent) -> None:
    """Nobody at the socket is an error, and nothing is left."""
    del agent
    bundle.config["linux"]["seccomp"]["listenerPath"] = str(bundle.path / "nobody")
    assert runtime.refuse(bundle)


@pytest.mark.parametrize("problem", ["no-path", "metadata-alone", "sendmsg", "default", "flag", "flags"])
def test_wrong_agents(oci: Callable[[str], OciRuntime], bundle: Bundle, agent: Agent, problem: str) -> None:
    """What cannot work is an error that names the field."""
    del agent
    filters = bundle.config["linux"]["seccomp"]
    if problem == "no-path":
        del filters["listenerPath"], filters["listenerMetadata"]
    elif problem == "metadata-alone":
        del filters["listenerPath"], filters["syscalls"]
    elif problem == "sendmsg":
        filters["syscalls"][0]["names"].append("sendmsg")
    elif problem == "default":
        filters["defaultAction"] = "SCMP_ACT_NOTIFY"
    elif problem == "flag":
        filters["flags"] = ["SECCOMP_FILTER_FLAG_NEW_LISTENER"]
    else:
        filters["flags"] = [3]
    assert "linux.seccomp." in oci(OURS).refuse(bundle)


def test_path_that_nobody_needs(runtime: OciRuntime, bundle: Bundle, agent: Agent) -> None:
    """Without the action nobody is asked."""
    filters = bundle.config["linux"]["seccomp"]
    filters["syscalls"][0] |= {"action": "SCMP_ACT_ERRNO", "errnoRet": errno.EACCES}
    bundle.script("mkfifo /made 2>&1; true")
    assert "denied" in runtime.run(bundle)
    assert agent.documents == []


@pytest.mark.parametrize("flag", [f"SECCOMP_FILTER_FLAG_{name}" for name in FLAGS])
def test_flags(runtime: OciRuntime, bundle: Bundle, flag: str) -> None:
    """Each flag that there is can be given, for a filter that works as before."""
    bundle.config["linux"]["seccomp"] = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "flags": [flag],
        "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "errnoRet": errno.EACCES}],
    }
    bundle.script("mkdir /made 2>&1; grep ^Seccomp: /proc/self/status")
    said = runtime.run(bundle)
    assert "denied" in said
    assert said.split()[-1] == "2"
    assert not os.path.exists(bundle.rootfs / "made")
