"""``kill``, ``delete``, ``pause``, ``resume``: what ends a container, or holds it up."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import time
from typing import TYPE_CHECKING

from containerlib.oci.runtime_config import parse_config
from containerlib.oci_cli.errors import OciError
from containerlib.oci_cli.signals import parse_signal
from containerlib.runtime.hooks import run_last_hooks

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Iterator

    from containerlib.oci_cli.log import Log
    from containerlib.oci_cli.store import Container, Status, Store

__all__ = [
    "delete",
    "delete_command",
    "kill",
    "kill_command",
    "pause",
    "pause_command",
    "resume",
    "resume_command",
]

_END_LIMIT_S = 10.0
_PAUSE_S = 0.001


def kill(store: Store, container_id: str, number: int, *, everything: bool) -> None:
    """Send a signal to a container's first process, or to all of them.

    Raises:
        OciError: There is none, or it has ended.
    """
    container = store.get(container_id)
    status = container.status
    if everything or (number == signal.SIGKILL and not _has_own_pids(container)):
        # Without a PID namespace of its own nothing else ends the rest.
        container.cgroup.signal(number)
        if number == signal.SIGKILL and status == "paused":
            container.cgroup.thaw()
        if status != "stopped" or everything:
            return
    if status == "stopped":
        raise OciError("container not running")
    fd = container.process.open()
    if fd < 0:
        raise OciError("container not running")
    try:
        signal.pidfd_send_signal(fd, number)
    except ProcessLookupError:
        raise OciError("container not running") from None
    finally:
        os.close(fd)
    if number == signal.SIGKILL and status == "paused":
        container.cgroup.thaw()


def _has_own_pids(container: Container) -> bool:
    namespaces = container.config().get("linux", {}).get("namespaces", [])
    return any(each.get("type") == "pid" for each in namespaces)


def delete(store: Store, container_id: str, log: Log, *, force: bool) -> None:
    """Remove what is left of a container; with `force`, end it before.

    Raises:
        OciError: There is none (unless forced), or it has not ended.
    """
    if force and not os.path.isdir(store.directory(container_id)):
        return
    with store.locked(container_id):
        if force and not store.has(container_id):
            store.remove(container_id)  # its creation was killed before anything else was made
            return
        container = store.get(container_id)
        status = container.status
        if status != "stopped" and not force and status != "created":
            raise OciError(f"cannot delete container {container_id} that is not stopped: {status}")
        if container.owns_groups:
            container.cgroup.kill()
        _end(container)
        if container.unit and container.owns_groups:
            from containerlib.runtime.systemd import stop_unit  # noqa: PLC0415 - on hosts that systemd runs

            stop_unit(container.unit, is_gone=container.cgroup.is_gone)
        if not container.cgroup.remove() and container.owns_groups:
            raise OciError(f"cannot remove the control groups of {container_id}: something stays in them")
        _poststop(container, log)
        store.remove(container_id)


def _end(container: Container) -> None:
    """Kill the first process, and wait until it is gone; who is told of its end is its parent."""
    fd = container.process.open() if container.process.is_alive else -1
    if fd < 0:
        return
    try:
        signal.pidfd_send_signal(fd, signal.SIGKILL)
        watch = select.poll()
        watch.register(fd, select.POLLIN)
        if not watch.poll(_END_LIMIT_S * 1000):
            raise OciError(f"process {container.process.pid} does not end")
    except ProcessLookupError:
        return
    finally:
        os.close(fd)


def _poststop(container: Container, log: Log) -> None:
    hooks = parse_config(container.config()).hooks.get("poststop", ())
    run_last_hooks(hooks, json.dumps(container.state("stopped")).encode(), log.warning)


@contextlib.contextmanager
def _locked_in(store: Store, container_id: str, states: set[Status], verb: str) -> Iterator[Container]:
    """A container, locked, that is in one of these states."""
    with store.locked(container_id):
        container = store.get(container_id)
        status = container.status
        if status not in states:
            raise OciError(f"cannot {verb} a container in the {status} state")
        yield container


def pause(store: Store, container_id: str) -> None:
    """Stop all processes of a container.

    Raises:
        OciError: It does not run.
    """
    with _locked_in(store, container_id, {"running", "created"}, "pause") as container:
        container.cgroup.freeze()


def resume(store: Store, container_id: str) -> None:
    """Let all processes of a paused container go on.

    Raises:
        OciError: It is not paused.
    """
    with _locked_in(store, container_id, {"paused"}, "resume") as container:
        container.cgroup.thaw()
        deadline = time.monotonic() + _END_LIMIT_S
        while container.cgroup.is_frozen and time.monotonic() < deadline:
            time.sleep(_PAUSE_S)


def kill_command(store: Store, options: Namespace, log: Log) -> None:
    """Do what ``kill`` asks for."""
    del log
    kill(store, options.id, parse_signal(options.signal), everything=options.all)


def delete_command(store: Store, options: Namespace, log: Log) -> None:
    """Do what ``delete`` asks for."""
    delete(store, options.id, log, force=options.force)


def pause_command(store: Store, options: Namespace, log: Log) -> None:
    """Do what ``pause`` asks for."""
    del log
    pause(store, options.id)


def resume_command(store: Store, options: Namespace, log: Log) -> None:
    """Do what ``resume`` asks for."""
    del log
    resume(store, options.id)
