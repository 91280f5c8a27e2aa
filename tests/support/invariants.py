"""What must hold after any fault, once the next engine has put things right.

The numbers are those of the project's fault catalogue. What concerns mounts, control groups, namespaces and
processes of the host as a whole (I-4, I-5, I-11) the leak fixture compares around each test; that the rest of
the host stays as it is (I-13), the fixture `host_untouched` around each module.
"""

from __future__ import annotations

import fcntl
import os
from typing import TYPE_CHECKING

from containerlib import ContainerState

if TYPE_CHECKING:
    from containerlib import Engine

__all__ = ["check_invariants"]


def check_invariants(engine: Engine) -> None:
    """Fail unless the store and its containers are in order."""
    engine.recover(restart=False)
    found = engine.check()
    # I-2, I-3: blobs and layers are whole; what dead processes have left may lie there until it is collected.
    assert not [damage for damage in found if not damage.is_leftover], found
    engine.repair()
    # I-9, I-12: after that there is nothing left.
    assert engine.check() == (), engine.check()
    again = engine.recover(restart=False)
    assert (again.engines, again.ended) == ((), ()), again
    for container in engine.containers.list():
        _check_container(engine, container.id)
    _check_locks(f"{engine.root}/locks")
    _check_places(engine)


def _check_container(engine: Engine, container_id: str) -> None:
    container = engine.containers.get(container_id)
    state, status, pid = container.state, container.exit_status, container.pid
    # I-6: what is said to run, runs, and belongs to it.
    if state in {"running", "paused"}:
        assert pid is not None
        with open(f"/proc/{pid}/cgroup", encoding="ascii") as file:
            assert container_id in file.read()
        assert status is None or container.entry.is_detached
    # I-7: a state that exists, and an end only of what has ended.
    assert state in set(ContainerState)
    if state == "exited":
        assert status is not None
        assert status == engine.containers.get(container_id).exit_status
    if state == "created":
        assert status is None
    inspected = container.inspect()
    assert inspected.state == state
    # I-10: its layer is there.
    if container.entry.layers.directory is not None:
        assert os.path.isdir(container.entry.layers.directory)


def _check_locks(directory: str) -> None:
    """I-8: nobody holds a lock."""
    for name in os.listdir(directory):
        try:
            fd = os.open(f"{directory}/{name}", os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise AssertionError(f"somebody holds the lock {name}") from None
        finally:
            os.close(fd)


def _check_places(engine: Engine) -> None:
    """I-9: nothing unfinished lies anywhere in the places of containers."""
    for place in ("containers", "container-names", "frozen-layers"):
        try:
            names = os.listdir(f"{engine.root}/{place}")
        except FileNotFoundError:
            continue
        assert not [name for name in names if name.startswith((".tmp-", ".rm-"))], (place, names)
        for name in names if place == "containers" else ():
            below = os.listdir(f"{engine.root}/{place}/{name}")
            assert not [each for each in below if each.startswith((".tmp-", ".rm-"))], (name, below)
