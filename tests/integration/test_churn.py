"""A thousand containers leave as little behind as one."""

from __future__ import annotations

import gc
import os
import resource
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from support.faults import failing
from support.leaks import Snapshot, wait_until_clean

from containerlib import DEVNULL, Mount, OperationTimeout, SpawnError

if TYPE_CHECKING:
    from collections.abc import Callable

    from containerlib import Image

pytestmark = [pytest.mark.root, pytest.mark.cgroup, pytest.mark.slow]

WARM, ROUNDS, THREADS = 200, 1000, 10
MOST_GROWTH_BYTES = 8 << 20
NOWHERE: dict[str, Any] = {"stdin": DEVNULL, "stdout": DEVNULL, "stderr": DEVNULL}


def plain(image: Image) -> None:
    """Run a command to its end."""
    assert image.call(["/bin/echo", "x"]).stdout == b"x\n"


def with_options(image: Image) -> None:
    """Run one with an init, on disk, with mounts."""
    mounts = [Mount.bind("/usr", "/u", read_only=True), Mount.tmpfs("/t")]
    assert image.call(["/bin/sh", "-c", "exit 3"], init=True, layer="disk", mounts=mounts).exit_code == 3


def with_a_terminal(image: Image) -> None:
    """Run one on a terminal."""
    with image.run(["/bin/true"], tty=True, **NOWHERE) as container:
        os.close(container.take_console())
        assert container.wait(timeout_s=60).exit_code in {0, 129}


def that_is_killed(image: Image) -> None:
    """Kill one that runs."""
    with image.run(["/bin/sleep", "1000"], **NOWHERE) as container:
        container.kill()
        assert container.wait(timeout_s=60).exit_code == 137


def that_times_out(image: Image) -> None:
    """Run one into its timeout."""
    with pytest.raises(OperationTimeout):
        image.call(["/bin/sleep", "1000"], timeout_s=0.001)


def that_fails(image: Image) -> None:
    """Start one that cannot be started."""
    with pytest.raises(SpawnError):
        image.call(["/bin/true"], **failing("pivot"))
    with pytest.raises(SpawnError):
        image.call(["/bin/missing"])


KINDS: tuple[Callable[[Image], None], ...] = (
    *(plain,) * 3,
    with_options,
    with_a_terminal,
    that_is_killed,
    that_times_out,
    that_fails,
)


def resident_bytes() -> int:
    """Read how much memory this process has."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * resource.getpagesize()


def detached(image: Image) -> None:
    """Run one that outlives its process, and join it."""
    with image.run(["/bin/sleep", "1000"], lifetime="detached", init=True) as container:
        assert container.exec(["/bin/true"]).exit_code == 0


def test_a_hundred_times_ten_at_once(busybox_image: Image) -> None:
    """Ten threads that each run a hundred leave every countable thing as it was, too."""
    kinds = (*KINDS[:5], that_fails, detached)

    def work(first: int, rounds: int) -> None:
        for number in range(first, first + rounds):
            kinds[number % len(kinds)](busybox_image)

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(work, range(THREADS), [20] * THREADS))
        before, terminals, memory = Snapshot.take(), len(os.listdir("/dev/pts")), resident_bytes()
        list(pool.map(work, range(THREADS), [100] * THREADS))
        assert wait_until_clean(before) == []
        assert len(os.listdir("/dev/pts")) <= terminals
        # The allocator of C has a heap for each of several threads, and each of them may grow a little.
        assert resident_bytes() - memory < 2 * MOST_GROWTH_BYTES


def test_a_thousand_containers(busybox_image: Image) -> None:
    """After a thousand runs of every kind every countable thing is as it was after two hundred."""
    for number in range(WARM):
        KINDS[number % len(KINDS)](busybox_image)
    before, terminals, memory = Snapshot.take(), len(os.listdir("/dev/pts")), resident_bytes()
    for number in range(WARM, ROUNDS):
        KINDS[number % len(KINDS)](busybox_image)
    assert wait_until_clean(before) == []
    assert len(os.listdir("/dev/pts")) <= terminals
    assert resident_bytes() - memory < MOST_GROWTH_BYTES
