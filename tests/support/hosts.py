"""Processes that start containers and then die in some way, and what has to be gone afterwards.

The containers hold the write end of a pipe whose read end the test has: end of file on it means that not one
of their processes is left.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from support.cgroups import named_directories
from support.engine import new_engine
from support.faults import DEADLINE_S
from support.probe import probe_image
from support.processes import GROUP_PREFIX
from support.session import temporary_directory

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from containerlib import Engine

__all__ = ["CLINGING", "DyingHost", "Store", "dying_host", "new_store", "read_exactly", "wait_for_end"]

CLINGING = 3
"""Processes in a container that runs the probe's command `cling`; each of them says so once."""

_PRELUDE = """
import os, signal, sys, time
import containerlib as cl
root, run_root, image_id, out = sys.argv[1:5]
out = int(out)
engine = cl.Engine(root, run_root)
image = engine.images.get(image_id)
def start(**options):
    options = {"command": ["/bin/probe", "cling"], "stdout": out, **options}
    return image.run(stdin=cl.DEVNULL, stderr=cl.DEVNULL, **options)
def until_told():
    sys.stdin.readline()
"""


@dataclass(frozen=True)
class Store:
    """A store of its own, with one image that has the probe.

    Attributes:
        root: Of lasting state.
        run_root: Of the engines.
        image_id: The image.
    """

    root: Path
    run_root: Path
    image_id: str

    def open(self) -> Engine:
        """Make a further engine on this store."""
        return new_engine(self.root, self.run_root)

    def leftovers(self) -> list[str]:
        """List what engines have left: marks, layers of containers, control groups."""
        containers = self.root / "containers"
        engines = self.run_root / "engines"
        names = [path.name for path in engines.iterdir()] if engines.exists() else []
        found = [f"mark {name}" for name in names]
        found += [f"layer {path.name}" for path in containers.iterdir()] if containers.exists() else []
        groups = {f"{GROUP_PREFIX}{name}" for name in names}
        found += [f"control group {path}" for name, path in named_directories(GROUP_PREFIX) if name in groups]
        return found

    def check_recovery(self) -> None:
        """The next engine on the store works, and with it everything of the dead ones is gone."""
        dead = {line.split()[1] for line in self.leftovers() if line.startswith("mark ")}
        with self.open() as engine:
            assert engine.images.get(self.image_id).call(["/bin/true"]).exit_code == 0
            assert not dead & {path.name for path in (self.run_root / "engines").iterdir()}
            names = {
                name.split("/")[0].removeprefix(GROUP_PREFIX) for name, _ in named_directories(GROUP_PREFIX)
            }
            assert not dead & names
        assert self.leftovers() == []


@contextlib.contextmanager
def new_store() -> Iterator[Store]:
    """Make a store with an image."""
    with temporary_directory("h") as base:
        root, run_root = base / "r", base / "n"
        with new_engine(root, run_root) as engine:
            image = probe_image(engine)
            image.call(["/bin/true"])
        yield Store(root, run_root, image.id)


def read_exactly(fd: int, size: int) -> bytes:
    """Read so many bytes, or fail when they do not come."""
    data = b""
    poller = select.poll()
    poller.register(fd, select.POLLIN)
    while len(data) < size:
        assert poller.poll(DEADLINE_S * 1000), f"{len(data)} of {size} bytes came"
        chunk = os.read(fd, size - len(data))
        assert chunk, f"the end came after {len(data)} of {size} bytes"
        data += chunk
    return data


def wait_for_end(fd: int) -> bytes:
    """Read until nobody holds the other end any more, or fail when somebody still does."""
    data = b""
    poller = select.poll()
    poller.register(fd, select.POLLIN)
    while True:
        assert poller.poll(DEADLINE_S * 1000), "somebody still holds the pipe"
        chunk = os.read(fd, 4096)
        if not chunk:
            return data
        data += chunk


@dataclass
class DyingHost:
    """A Python process with containers.

    Attributes:
        process: It.
        read_end: Of the pipe that its containers hold.
    """

    process: subprocess.Popen[str]
    read_end: int

    def wait_for_containers(self, count: int) -> None:
        """Wait until so many containers with clinging processes are up."""
        assert read_exactly(self.read_end, count * CLINGING) == b"r" * count * CLINGING

    def tell(self) -> None:
        """Let the script go on that waits to be told."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def line(self) -> str:
        """Read a line that the script has printed."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def check_containers_are_gone(self) -> None:
        """Not one process of the containers is left."""
        assert wait_for_end(self.read_end) == b""

    def end(self) -> None:
        """Kill it, if it still runs, and reap it."""
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGKILL)
        self.process.communicate()
        os.close(self.read_end)


@contextlib.contextmanager
def dying_host(store: Store, script: str) -> Iterator[DyingHost]:
    """Run a script that has an engine, `image`, `start`, `until_told` and `out`, the pipe's write end."""
    read_end, write_end = os.pipe()
    arguments = [str(store.root), str(store.run_root), store.image_id, str(write_end)]
    process = subprocess.Popen(
        [sys.executable, "-c", _PRELUDE + script, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        pass_fds=[write_end],
    )
    os.close(write_end)
    host = DyingHost(process, read_end)
    try:
        yield host
    finally:
        host.end()
