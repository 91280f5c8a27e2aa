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
from containerlib.runtime.cgroup import ENGINE_PREFIX, EngineCgroup
from containerlib.runtime.cgroup_host import CgroupHost
from containerlib.runtime.cgroup_manager import CgroupManager
from containerlib.runtime.cgroup_v1 import DEFAULT_NAME
from containerlib.runtime.detached import cgroup_name
from containerlib.runtime.detached_order import health_order
from containerlib.runtime.lower import lower_exec
from containerlib.runtime.runner import Prepared

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Self

    from containerlib._native.channel import Channel
    from containerlib._native.spawn import SpawnRequest
    from containerlib._native.spec import NativeSpec
    from containerlib._native.supervisor import HealthOrder, Order
    from containerlib.oci.runtime_spec import Spec
    from containerlib.runtime.cgroup_manager import ManagerKind
    from containerlib.runtime.config import ContainerConfig
    from containerlib.runtime.files import JoinedNetwork
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
    network: JoinedNetwork | None = None,
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
        network: See `Prepared`; its supervisor keeps the namespace for all starts.
        begin: Called before the start, with the supervisor's pid and the directories of control groups.

    Raises:
        InvalidOption, UnsupportedHost, SpawnError, OperationTimeout, EngineClosed: See `Runner.start`.

    Cost: two processes more than `Runner.start`.
    """
    directory = layers.directory or ""
    staging = f"{directory}/staging"
    make_directory(staging)
    with contextlib.ExitStack() as undo:
        attempt = undo.enter_context(_Attempt(runner.cgroup_manager, cgroup_name(container_id)))

        def spawn(request: SpawnRequest, native: NativeSpec, built: Spec) -> Channel:
            paths = attempt.cgroup.directories()
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
            supervisor = attempt.supervisor()
            begin(supervisor.pid, paths)
            return runner.finish(_supervise(supervisor, request, full, directory, open_journal), native)

        prepared = Prepared(container_id, config, layers, stdio, attempt.begin, staging, spawn, network)
        channel, _ = runner.start_prepared(prepared)
        channel.close()
        undo.pop_all()
        attempt.leave()


class _Attempt:
    """Control groups and supervisor, of one attempt after the other; gone at the end of the block."""

    def __init__(self, kind: ManagerKind, name: str) -> None:
        self._kind: ManagerKind = kind
        self._name = name
        self._cgroup: EngineCgroup | None = None
        self._supervisor: Supervisor | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._end()

    def begin(self) -> EngineCgroup:
        """Say where the control groups are made; systemd makes them around the supervisor."""
        self._end()
        host = CgroupHost.probe()
        manager = CgroupManager.choose(host, self._kind)
        if manager.slice_name is not None:
            self._supervisor = _launch([])
            host = manager.enter(host, f"{ENGINE_PREFIX}{self._name}", self._supervisor.pidfd)
        self._cgroup = EngineCgroup.create(host, self._name)
        return self._cgroup

    @property
    def cgroup(self) -> EngineCgroup:
        """What `begin` has returned."""
        assert self._cgroup is not None  # noqa: S101 (only between `begin` and the end)
        return self._cgroup

    def supervisor(self) -> Supervisor:
        """The supervisor, launched now unless it had to be before."""
        if self._supervisor is None:
            fds = self.cgroup.spawner_join_fds()
            try:
                self._supervisor = _launch(fds)
            finally:
                close_all(fds)
        return self._supervisor

    def leave(self) -> None:
        """Let both go on without us."""
        assert self._supervisor is not None  # noqa: S101 (it has started the container)
        self._supervisor.close()
        self.cgroup.release()

    def _end(self) -> None:
        supervisor, self._supervisor = self._supervisor, None
        cgroup, self._cgroup = self._cgroup, None
        try:
            if supervisor is not None:
                supervisor.wait()
                supervisor.close()
        finally:
            if cgroup is not None:
                cgroup.close()


def _launch(join_fds: Sequence[int]) -> Supervisor:
    reach("start supervisor", "")
    return Supervisor(join_fds)


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
