"""Starts containers for one engine: opens what has to be opened, builds the spec, asks the spawner.

In: a `ContainerConfig`, layer directories, standard streams. Out: a `RunningProcess`. Knows no images and no
names.
"""

from __future__ import annotations

import contextlib
import os
import threading
from typing import TYPE_CHECKING, Literal

from attrs import frozen

from containerlib._native.spawn import Spawner, SpawnRequest
from containerlib._util.atomic_file import make_directory
from containerlib._util.failpoint import reach
from containerlib._util.remove_tree import remove_tree
from containerlib.errors import (
    EngineClosed,
    InvalidInputError,
    InvalidState,
    SpawnError,
)
from containerlib.runtime import seccomp, spec
from containerlib.runtime.bind import Binds, open_binds, open_devices
from containerlib.runtime.cgroup import ENGINE_PREFIX, EngineCgroup
from containerlib.runtime.cgroup_host import CgroupHost
from containerlib.runtime.cgroup_manager import CgroupManager
from containerlib.runtime.copy_root import copy_root
from containerlib.runtime.device_rules import DEFAULT_RULES
from containerlib.runtime.files import small_files
from containerlib.runtime.host import HostFacts
from containerlib.runtime.join import joined_user, namespaces
from containerlib.runtime.lower import RootPlan, lower, lower_exec
from containerlib.runtime.process import RunningProcess
from containerlib.runtime.request import joined_fds, requested
from containerlib.runtime.user import resolve_user
from containerlib.store.view import read_file

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from containerlib._native.channel import Channel
    from containerlib._native.spec import NativeSpec
    from containerlib.oci.runtime_spec import Spec
    from containerlib.runtime.cgroup_container import ContainerCgroup
    from containerlib.runtime.cgroup_exec import ExecCgroup
    from containerlib.runtime.cgroup_manager import ManagerKind
    from containerlib.runtime.config import ContainerConfig
    from containerlib.runtime.detached import DetachedProcess
    from containerlib.runtime.files import JoinedNetwork
    from containerlib.runtime.usage import ExitStatus
    from containerlib.runtime.user import ResolvedUser

__all__ = ["Layers", "Prepared", "RootKind", "Runner"]

RootKind = Literal["auto", "overlay", "copy"]

_PASSWD_LIMIT = 10 << 20
_CACHED_STACKS = 64
_NO_BINDS = Binds()


@frozen(kw_only=True)
class Layers:
    """Where a container's root file system comes from.

    Attributes:
        lowers: Directories of the layers below its own, top-most first.
        directory: Where the container keeps its own layer; None to keep it in memory.
        forked: How many of `lowers`, the top-most ones, other containers have written; the image's follow.
    """

    lowers: tuple[str, ...]
    directory: str | None = None
    forked: int = 0


@frozen
class Prepared:
    """What a container is started from, and by whom.

    Attributes:
        container_id: Its id; host name and control groups are named after it.
        config: What it shall be.
        layers: Its root file system.
        stdio: Descriptors of its standard streams.
        open_cgroup: Says where its control groups are made; called once for each attempt.
        staging: Directory over which its root is assembled.
        spawn: Has the process made, and waits until its command was executed.
        network: What was made for it to join, if it is neither alone nor in the host's.
    """

    container_id: str
    config: ContainerConfig
    layers: Layers
    stdio: tuple[int, int, int]
    open_cgroup: Callable[[], EngineCgroup]
    staging: str
    spawn: Callable[[SpawnRequest, NativeSpec, Spec], Channel]
    network: JoinedNetwork | None = None


class Runner:
    """The part of an engine that runs processes. Nothing is started or made before the first container."""

    def __init__(
        self,
        engine_id: str,
        directory: str,
        *,
        root_kind: RootKind = "auto",
        start_timeout_s: float = 60.0,
        cgroup_manager: ManagerKind = "auto",
    ) -> None:
        """Prepare, without touching the disk.

        Args:
            engine_id: Names the engine's control groups.
            directory: The engine's run-time directory; exists when the first container starts.
            root_kind: ``"overlay"``, ``"copy"``, or ``"auto"`` for overlay with copying as the fallback.
            start_timeout_s: How long the kernel may take for all steps of a start.
            cgroup_manager: Who makes the directory for control groups, see `CgroupManager`.
        """
        self.cgroup_manager: ManagerKind = cgroup_manager
        self._engine_id = engine_id
        self._staging = f"{directory}/staging"
        self._copies = f"{directory}/copies"
        self._root_kind = root_kind
        self._start_timeout_s = start_timeout_s
        self._lock = threading.Lock()
        self._spawner: Spawner | None = None
        self._cgroup: EngineCgroup | None = None
        self._is_scoped = False
        self._is_stopped = False
        self._host: HostFacts | None = None
        self._accounts: dict[tuple[str, ...], tuple[bytes | None, bytes | None]] = {}

    @property
    def host(self) -> HostFacts:
        """Facts about the host, read on first use."""
        if self._host is None:
            self._host = HostFacts.probe()
        return self._host

    @property
    def spawner_pidfd(self) -> int | None:
        """The spawner's pidfd, once there is one."""
        return None if self._spawner is None else self._spawner.pidfd

    def _ensure_spawner(self) -> tuple[Spawner, EngineCgroup]:
        with self._lock:
            if self._is_stopped:
                raise EngineClosed("this engine is closed; open a new one")
            if self._spawner is None or self._cgroup is None:
                make_directory(self._staging)
                reach("start spawner", "")
                host = CgroupHost.probe()
                manager = CgroupManager.choose(host, self.cgroup_manager)
                if manager.slice_name is None:
                    self._cgroup = self._cgroup or EngineCgroup.create(host, self._engine_id)
                    self._spawner = _launch_spawner(self._cgroup)
                else:
                    self._spawner, self._cgroup = self._launch_in_scope(manager, host)
                    self._is_scoped = True
            return self._spawner, self._cgroup

    def _launch_in_scope(self, manager: CgroupManager, host: CgroupHost) -> tuple[Spawner, EngineCgroup]:
        """A spawner in a scope of systemd, which ends with it."""
        spawner = Spawner()
        try:
            host = manager.enter(host, f"{ENGINE_PREFIX}{self._engine_id}", spawner.pidfd)
            return spawner, EngineCgroup.create(host, self._engine_id)
        except BaseException:
            spawner.close()
            raise

    def _resolve_user(self, config: ContainerConfig, layers: Layers) -> ResolvedUser:
        stack = layers.lowers
        if layers.directory is not None:
            stack = (f"{layers.directory}/upper", *stack)
        found = self._accounts.get(stack)
        if found is None:
            found = (_account_file(stack, "/etc/passwd"), _account_file(stack, "/etc/group"))
            if layers.directory is None:
                if len(self._accounts) >= _CACHED_STACKS:
                    self._accounts.clear()
                self._accounts[stack] = found
        return resolve_user(config.user, passwd=found[0], group=found[1], group_add=config.group_add)

    def filter_of(self, config: ContainerConfig, built: Spec) -> bytes:
        """The compiled filter of a process; empty for none."""
        capabilities = built.process.capabilities.bounding
        profile = config.security.seccomp
        if profile == "unconfined":
            return b""
        architecture = self.host.architecture
        if isinstance(profile, str):
            return seccomp.load_default(architecture, capabilities)
        return seccomp.compile_profile(profile, capabilities=capabilities, arch=architecture)

    def _root_plan(self, container_id: str, layers: Layers, staging: str, *, copied: bool) -> RootPlan:
        if not copied:
            if layers.directory is None:
                return RootPlan(staging=staging, lowers=layers.lowers)
            return RootPlan(
                staging=staging,
                lowers=layers.lowers,
                upper=f"{layers.directory}/upper",
                work=f"{layers.directory}/work",
            )
        place = self.copy_directory(container_id, layers)
        if layers.directory is None and os.path.isdir(place):
            remove_tree(place)
        if not os.path.isdir(place):
            make_directory(os.path.dirname(place))
            copy_root(layers.lowers, place)
        return RootPlan(staging=staging, copied=place)

    def copy_directory(self, container_id: str, layers: Layers) -> str:
        """Where the copied root of a container lies, if it has one."""
        return (
            f"{layers.directory}/root" if layers.directory is not None else f"{self._copies}/{container_id}"
        )

    def start(
        self,
        container_id: str,
        config: ContainerConfig,
        layers: Layers,
        stdio: tuple[int, int, int],
        on_exit: Callable[[ExitStatus], None],
        network: JoinedNetwork | None = None,
    ) -> RunningProcess:
        """Start a container, and return when its command was executed.

        After a failure nothing of it is left.

        Args:
            container_id: Its id; host name and control groups are named after it.
            config: What it shall be.
            layers: Its root file system.
            stdio: Descriptors of its standard streams; stay the caller's.
            on_exit: Called once when the end is learnt.
            network: See `Prepared`; stays the caller's.

        Raises:
            InvalidOption: A value that no host could honour, or that does not fit the image.
            UnsupportedHost: One that this host cannot.
            SpawnError: The kernel refused a step.
            OperationTimeout: The steps took too long.
            EngineClosed: The engine was closed meanwhile.

        Cost: one message to the spawner, and some 300 system calls of the new process, most of them mounts.
        """
        spawner, engine_cgroup = self._ensure_spawner()

        def spawn(request: SpawnRequest, native: NativeSpec, spec: Spec) -> Channel:
            del spec
            reach("spawn", container_id)
            return self.finish(spawner.spawn(request), native)

        prepared = Prepared(
            container_id, config, layers, stdio, lambda: engine_cgroup, self._staging, spawn, network
        )
        channel, cgroup = self.start_prepared(prepared)
        return RunningProcess(channel, cgroup, on_exit)

    def start_prepared(self, prepared: Prepared) -> tuple[Channel, ContainerCgroup]:
        """Start over an overlay, or with a copied root if that is how it was or how it has to be.

        Raises:
            InvalidOption, UnsupportedHost, SpawnError, OperationTimeout, EngineClosed: See `start`.
        """
        config = prepared.config
        has_upper, has_copy = _present_layer(prepared.layers)
        try:
            return self._start(prepared, copied=self._root_kind == "copy" or has_copy)
        except SpawnError as error:
            may_copy = self._root_kind == "auto" and not has_upper and not config.fault[0]
            if error.step != "root_create" or not may_copy:
                raise
        return self._start(prepared, copied=True)

    def _start(self, prepared: Prepared, *, copied: bool) -> tuple[Channel, ContainerCgroup]:
        container_id, config, layers = prepared.container_id, prepared.config, prepared.layers
        hostname = config.hostname or container_id[:12]
        nodes, rules = open_devices(config.devices)
        user = self._resolve_user(config, layers)
        built = spec.build(config, user=user, host=self.host, root="/", hostname=hostname, devices=nodes)
        program = self.filter_of(config, built)
        with contextlib.ExitStack() as undo:
            binds = open_binds(config.mounts)
            undo.callback(binds.close)
            native = lower(
                built,
                root=self._root_plan(container_id, layers, prepared.staging, copied=copied),
                sources=binds.sources,
                files=small_files(config, hostname, prepared.network),
                seccomp=program,
                init=config.init,
                fault=config.fault,
            )
            cgroup = prepared.open_cgroup().make(
                container_id, config.resources, devices=(*DEFAULT_RULES, *rules) if rules else DEFAULT_RULES
            )
            try:
                with requested(
                    native, prepared.stdio, cgroup, binds, joined_fds(prepared.network)
                ) as request:
                    channel = prepared.spawn(request, native, built)
            except BaseException:
                _discard(cgroup)
                raise
            cgroup.close()
            return channel, cgroup

    def finish(self, channel: Channel, native: NativeSpec) -> Channel:
        """Wait until the command was executed."""
        try:
            channel.finish_start(native, self._start_timeout_s)
        except BaseException:
            channel.abort()
            raise
        return channel

    def exec(
        self,
        container_id: str,
        container: RunningProcess | DetachedProcess,
        name: str,
        config: ContainerConfig,
        stdio: tuple[int, int, int],
    ) -> tuple[RunningProcess, ExecCgroup | None]:
        """Start a further process in a running container, and return when its command was executed.

        Args:
            container_id: The container's id.
            container: Its first process.
            name: Its name, for messages.
            config: What the process shall be.
            stdio: Descriptors of its standard streams; stay the caller's.

        Returns:
            The process, and its control groups where the container has some.

        Raises:
            InvalidState: The container has ended.
            InvalidOption: A value that no host could honour, or that does not fit the container.
            UnsupportedHost: One that this host cannot.
            SpawnError: The kernel refused a step.
            OperationTimeout: The steps took too long.

        Cost: one message to the spawner, and some forty system calls of two new processes.
        """
        hostname = config.hostname or container_id[:12]
        user = joined_user(container, config, name)
        built = spec.build(config, user=user, host=self.host, root="/", hostname=hostname)
        native = lower_exec(built.process, seccomp=self.filter_of(config, built), fault=config.fault)
        groups = container.cgroup
        cgroup = None if groups is None else groups.enter_exec(os.urandom(4).hex())
        try:
            with (
                namespaces(container, name) as fds,
                requested(native, stdio, cgroup, _NO_BINDS, fds) as request,
            ):
                channel = self.finish(self._join(container, name, request), native)
        except BaseException:
            if cgroup is not None:
                cgroup.close()
                cgroup.remove()
            raise
        if cgroup is not None:
            cgroup.close()
        return RunningProcess(channel, None, _ignore_end), cgroup

    def _join(self, container: RunningProcess | DetachedProcess, name: str, request: SpawnRequest) -> Channel:
        """Ask whoever has started the container: nobody else can put a process into it."""
        reach("spawn", name)
        if isinstance(container, RunningProcess):
            return self._ensure_spawner()[0].spawn(request)
        control = container.connect()
        if control is None:
            raise InvalidState(
                f"cannot exec in container {name!r}: its supervisor was killed; start it again",
                expected="supervised",
                actual="alone",
            )
        with control:
            return control.join(request)

    def stop(self) -> None:
        """End every container at once. Their ends can still be read; nothing can be started any more."""
        with self._lock:
            if self._is_scoped and self._cgroup is not None:
                # What keeps the scope goes last, or systemd would remove directories while we do.
                self._is_stopped = True
                self._cgroup.kill()
            elif self._spawner is not None:
                self._spawner.close()

    def close(self) -> bool:
        """Remove what was made for the containers, which must have been settled. Can be called again.

        Returns:
            Whether nothing is left for the next engine to remove.
        """
        self.stop()
        with self._lock:
            cgroup, self._cgroup = self._cgroup, None
        is_gone = True
        if cgroup is not None:
            cgroup.retry_removals()
            is_gone = not cgroup.close()
        if self._is_scoped and self._spawner is not None:
            self._spawner.close()
            is_gone = True  # systemd removes what is left
        return is_gone


def _launch_spawner(cgroup: EngineCgroup) -> Spawner:
    fds = cgroup.spawner_join_fds()
    try:
        return Spawner(fds)
    finally:
        for fd in fds:
            os.close(fd)


def _present_layer(layers: Layers) -> tuple[bool, bool]:
    """Whether a container has files from an earlier run: over an overlay, or in a copied root.

    It is started again as it was started before, for the other kind of root would not have them.
    """
    if layers.directory is None:
        return False, False
    has_copy = os.path.isdir(f"{layers.directory}/root")
    return bool(os.listdir(f"{layers.directory}/upper")), has_copy


def _account_file(stack: Sequence[str], path: str) -> bytes | None:
    try:
        return read_file(stack, path, limit=_PASSWD_LIMIT)
    except InvalidInputError:
        # A pipe, a device or a huge file is as good as none: names are then not found, numbers work.
        return None


def _ignore_end(status: ExitStatus) -> None:
    """Who waits for a process in a container learns of its end from the process itself."""
    del status


def _discard(cgroup: ContainerCgroup) -> None:
    cgroup.close()
    cgroup.remove()
