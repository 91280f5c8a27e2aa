"""Starts a container that outlives this process, below a supervisor of its own."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from attrs import evolve

from containerlib._native.channel import close_all
from containerlib._native.supervisor import Supervisor
from containerlib._util.atomic_file import make_directory
from containerlib._util.failpoint import reach
from containerlib.runtime.cgroup import EngineCgroup
from containerlib.runtime.cgroup_host import CgroupHost
from containerlib.runtime.cgroup_v1 import DEFAULT_NAME
from containerlib.runtime.detached import cgroup_name
from containerlib.runtime.detached_order import health_order
from containerlib.runtime.lower import lower_exec
from containerlib.runtime.runner import Prepared

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from containerlib._native.channel import Channel
    from containerlib._native.spawn import SpawnRequest
    from containerlib._native.spec import NativeSpec
    from containerlib._native.supervisor import HealthOrder, Order
    from containerlib.oci.runtime_spec import Spec
    from containerlib.runtime.config import ContainerConfig
    from containerlib.runtime.runner import Layers, Runner

__all__ = ["start_detached"]


def start_detached(
    runner: Runner,
    container_id: str,
    config: ContainerConfig,
    layers: Layers,
    stdio: tuple[int, int, int],
    *,
    order: Order,
    begin: Callable[[int, tuple[str, ...]], None],
    open_journal: Callable[[], int],
) -> None:
    """Start a container that outlives this process, and return when its command was executed.

    After a failure nothing of it is left.

    Args:
        runner: The engine's.
        container_id: See `Runner.start`.
        config: See `Runner.start`.
        layers: See `Runner.start`; on disk.
        stdio: See `Runner.start`; what the order lets the supervisor have instead is not used.
        order: What its supervisor does; its check and its control groups are filled in.
        open_journal: Opens the directory of the journal; -1 if there is none.
        begin: Called before the start, with the supervisor's pid and the directories of control groups.

    Raises:
        InvalidOption, UnsupportedHost, SpawnError, OperationTimeout, EngineClosed: See `Runner.start`.

    Cost: two processes more than `Runner.start`.
    """
    directory = layers.directory or ""
    staging = f"{directory}/staging"
    make_directory(staging)
    with contextlib.ExitStack() as undo:
        engine_cgroup = EngineCgroup.create(CgroupHost.probe(), cgroup_name(container_id))
        undo.callback(engine_cgroup.close)

        def spawn(request: SpawnRequest, native: NativeSpec, built: Spec) -> Channel:
            paths = engine_cgroup.directories()
            full = evolve(
                order,
                container_id=container_id,
                # From the inside out, as they can be removed.
                cgroups=(
                    *(f"{path}/{container_id}" for path in paths),
                    *(f"{path}/{DEFAULT_NAME}/{container_id}" for path in paths),
                    *(f"{path}/{DEFAULT_NAME}" for path in paths),
                    *paths,
                ),
                health=_health(runner, config, built),
            )
            with _supervisor(engine_cgroup) as supervisor:
                begin(supervisor.pid, paths)
                return runner.finish(_supervise(supervisor, request, full, directory, open_journal), native)

        prepared = Prepared(container_id, config, layers, stdio, engine_cgroup, staging, spawn)
        channel, _ = runner.start_prepared(prepared)
        channel.close()
        undo.pop_all()
        engine_cgroup.release()


@contextlib.contextmanager
def _supervisor(engine_cgroup: EngineCgroup) -> Iterator[Supervisor]:
    """A supervisor for the length of a block; if that fails, it has ended afterwards, else it goes on."""
    fds = engine_cgroup.spawner_join_fds()
    try:
        reach("start supervisor", "")
        supervisor = Supervisor(fds)
    finally:
        for fd in fds:
            os.close(fd)
    try:
        yield supervisor
    except BaseException:
        supervisor.wait()
        raise
    finally:
        supervisor.close()


def _supervise(
    supervisor: Supervisor,
    request: SpawnRequest,
    order: Order,
    directory: str,
    open_journal: Callable[[], int],
) -> Channel:
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW
    opened = [os.open(directory, flags)]
    try:
        opened.append(open_journal())
        reach("supervise", directory)
        return supervisor.supervise(request, order, *opened)
    finally:
        close_all([fd for fd in opened if fd >= 0])


def _health(runner: Runner, config: ContainerConfig, built: Spec) -> HealthOrder | None:
    """The check, as the same user and with the same rights as the container's own command."""
    if config.health is None:
        return None
    process = evolve(built.process, args=config.health.command, terminal=False)
    return health_order(config.health, lower_exec(process, seccomp=runner.filter_of(config, built)))
