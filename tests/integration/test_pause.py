"""Pausing containers, and changing the limits of running ones."""

from __future__ import annotations

import os
import select
import threading
from typing import TYPE_CHECKING

import pytest

import containerlib as cl

if TYPE_CHECKING:
    from collections.abc import Iterator

    from containerlib import Container, Image

pytestmark = [pytest.mark.root, pytest.mark.cgroup, pytest.mark.guest]

TALK = ["sh", "-c", "setsid sh -c 'while :; do echo child; done' & while :; do echo first; done"]


@pytest.fixture
def talker(busybox_image: Image) -> Iterator[Container]:
    """Give a container whose two processes write without end, in sessions of their own."""
    with busybox_image.run(TALK, stdin=cl.DEVNULL, stdout=cl.PIPE, layer="memory") as container:
        yield container


def says(container: Container, timeout_ms: int) -> bytes:
    """Take what has been written; wait at most so long if that is nothing."""
    assert container.stdout is not None
    fd = container.stdout.fileno()
    poller = select.poll()
    poller.register(fd, select.POLLIN)
    taken = b""
    while poller.poll(0 if taken else timeout_ms):
        taken += os.read(fd, 1 << 20)
        if len(taken) > 1 << 22:
            break
    return taken


def test_nothing_goes_on_while_it_is_paused(talker: Container) -> None:
    """No process of a paused container runs, and all go on afterwards."""
    assert says(talker, 60_000)
    talker.pause()
    assert talker.state == "paused"
    says(talker, 0)
    assert says(talker, 300) == b""
    talker.unpause()
    assert talker.state == "running"
    assert says(talker, 60_000)


def test_the_states_in_between(talker: Container) -> None:
    """A paused container cannot be paused, joined, or started; one that runs cannot be unpaused."""
    with pytest.raises(cl.InvalidState, match="it is running, not paused"):
        talker.unpause()
    talker.pause()
    for verb in (talker.pause, talker.start, lambda: talker.exec(["true"]), talker.remove):
        with pytest.raises(cl.InvalidState, match="it is paused"):
            verb()
    with pytest.raises(cl.OperationTimeout):
        talker.wait(timeout_s=0)


def test_a_paused_container_is_killed(talker: Container) -> None:
    """SIGKILL ends it where it stands."""
    talker.pause()
    talker.kill("KILL")
    assert talker.wait(timeout_s=60).exit_code == 137


def test_a_paused_container_is_stopped(busybox_image: Image) -> None:
    """It goes on, so that it can handle the signal."""
    command = ["sh", "-c", "trap 'exit 4' TERM; echo ready; while :; do sleep 0.01; done"]
    with busybox_image.run(command, stdin=cl.DEVNULL, stdout=cl.PIPE, layer="memory") as container:
        assert container.stdout is not None
        assert container.stdout.readline() == b"ready\n"
        container.pause()
        status = container.stop(timeout_s=60)
    assert status is not None
    assert status.exit_code == 4


def test_a_paused_container_is_removed(talker: Container) -> None:
    """By force, and with all that belongs to it."""
    talker.pause()
    talker.remove(force=True)
    assert talker.state == "removed"


def test_limits_change_while_it_runs(busybox_image: Image) -> None:
    """A new limit holds at once, for the processes that are there and for new ones."""
    with busybox_image.run(["sleep", "1000"], stdin=cl.DEVNULL, layer="memory") as container:
        many = ["sh", "-c", "for i in 1 2 3 4 5 6; do sleep 0.2 & done; wait"]
        assert container.exec(many).stderr == b""
        container.update(cl.Resources(pids=4))
        assert b"can't fork" in container.exec(many).stderr
        container.update(cl.Resources(pids=100))
        assert container.exec(many).stderr == b""
        with pytest.raises((cl.CgroupError, cl.InvalidOption)):
            container.update(cl.Resources(memory_bytes=4096))
    with pytest.raises(cl.InvalidState, match="it is removed"):
        container.update(cl.Resources(pids=5))


def test_commands_that_begin_while_it_is_paused(busybox_image: Image) -> None:
    """A command either begins before the pause and goes on after it, or is refused; nobody waits forever."""
    with busybox_image.run(["sleep", "60"]) as container:
        ended = threading.Event()
        outcomes: list[str] = []

        def join_again_and_again() -> None:
            while not ended.is_set():
                try:
                    assert container.exec(["true"]).exit_code == 0
                except cl.InvalidState:
                    outcomes.append("refused")
                else:
                    outcomes.append("done")

        threads = [threading.Thread(target=join_again_and_again) for _ in range(2)]
        for thread in threads:
            thread.start()
        for _ in range(100):
            container.pause()
            container.unpause()
        ended.set()
        for thread in threads:
            thread.join(60)
            assert not thread.is_alive()
        assert "done" in outcomes
