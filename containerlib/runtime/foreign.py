"""Creates and joins containers that somebody else's configuration describes: `runtime.lower` with a gate.

Knows no ids and no state on disk. In: a fitted `Spec`, a root, control groups. Out: a `Channel` of a process
that stands before its command.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from typing import TYPE_CHECKING

from attrs import evolve, field, frozen

from containerlib._native.channel import close_all
from containerlib._native.creator import Creator, end
from containerlib._native.path import map_ids as map_mount_ids
from containerlib._native.spawn import SpawnRequest
from containerlib.errors import EngineClosed, InvalidOption, UnsupportedHost
from containerlib.runtime.bind import Binds
from containerlib.runtime.identity import pid_of
from containerlib.runtime.lower import NAMESPACE_FLAGS, RootPlan, lower, lower_exec
from containerlib.runtime.mount_options import is_bind, read_options
from containerlib.runtime.scheduling import processors
from containerlib.runtime.seccomp_agent import read_filter
from containerlib.runtime.tmpfs import as_bind, copied, copies_up
from containerlib.runtime.user_namespace import check_ids, host_id, map_ids, mapped_namespace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from typing import Any

    from containerlib._native.channel import Channel
    from containerlib.oci.runtime_spec import Linux, Process, Spec, SpecMount
    from containerlib.runtime.cgroup_path import PathCgroup
    from containerlib.runtime.host import HostFacts
    from containerlib.runtime.seccomp_agent import Filter

__all__ = ["Creation", "create", "join"]

# Of a container to join: from the mount namespace on names are its own, from the user namespace on nothing
# of the host's may be done.
_JOINED = ("pid", "ipc", "uts", "net", "cgroup", "time", "mnt", "user")
_HELD = frozenset({"pivot", "user_namespace", "seccomp_listener"})
_MAX_MOUNTS = 180
_GET_TYPE = 0xB703  # NS_GET_NSTYPE of linux/nsfs.h: a flag of clone(2)
_NAMESPACE_TYPES = {**NAMESPACE_FLAGS, "cgroup": 0x02000000, "time": 0x00000080}
_NULL_DEVICE = os.makedev(1, 3)
_START_LIMIT_S = 60.0


@frozen(kw_only=True)
class Creation:
    """What a container is created from, beside its configuration.

    Attributes:
        bundle: Directory that relative sources are in.
        root: The root file system.
        staging: An empty directory of ours, over which the root is assembled.
        cgroup: Its control groups, made.
        stdio: Standard streams.
        kept_fds: What the command has open from 3 up.
        gate_fd: What it waits at for a byte.
        flags: Further CTR_SPEC_* flags.
        on_hold: Called while the process stands before the switch of its root, with its pidfd.
        on_listener: Called with a filter that asks somebody, its descriptor and the pidfd of the process.
        timeout_s: How long the steps between two such places may take.
    """

    bundle: str
    root: str
    staging: str
    cgroup: PathCgroup
    stdio: tuple[int, int, int]
    kept_fds: Sequence[int] = ()
    gate_fd: int
    flags: int = 0
    on_hold: Callable[[int], None] = field(default=lambda _pid: None)
    on_listener: Callable[[Filter, int, int], None] = field(default=lambda _filter, _fd, _pid: None)
    timeout_s: float = _START_LIMIT_S


def create(spec: Spec, host: HostFacts, creation: Creation) -> Channel:
    """Create the container's process, and return when it stands before its command.

    After a failure nothing of it runs.

    Raises:
        InvalidOption, UnsupportedHost: What the configuration asks for cannot be.
        SpawnError: The kernel refused a step.
        OperationTimeout: A step took too long.
    """
    with contextlib.ExitStack() as undo:
        check_ids(spec.linux, spec.process)
        spec = _with_sources(spec, creation.bundle)
        binds = undo.enter_context(_open_binds(spec))
        spec = _with_copies(spec, creation.root, binds)
        rules = _filter_of(spec.seccomp, spec.process, host)
        native = lower(
            spec,
            root=RootPlan(staging=creation.staging, copied=creation.root),
            sources=binds.sources,
            files={},
            seccomp=rules.code,
            seccomp_flags=rules.flags,
            init=False,
            gate=True,
            flags=creation.flags,
        )
        namespaces = undo.enter_context(_named(spec))
        group = _birth_group(spec, creation.cgroup)
        request = SpawnRequest(
            spec=native,
            stdio=creation.stdio,
            join_fds=undo.enter_context(_closing(_join_fds(creation.cgroup, all_versions=group is None))),
            cgroup_fd=None if group is None else undo.enter_context(_opened(group)),
            mount_fds=binds.fds,
            namespace_fds=namespaces,
            kept_fds=creation.kept_fds,
            gate_fd=creation.gate_fd,
        )
        _give_streams(creation.stdio, _owner(spec.linux, spec.process))
        creator = Creator()
        undo.callback(creator.close)
        channel = creator.spawn(request)
        try:
            while (step := channel.wait_held(native, creation.timeout_s)) in _HELD:
                if step == "pivot":
                    creation.on_hold(channel.pidfd)
                elif step == "user_namespace":
                    _map_ids(spec.linux, channel.pidfd)
                else:
                    creation.on_listener(rules, channel.listener_fd, channel.pidfd)
                channel.release()
        except BaseException:
            end(channel)
            raise
        return channel


def join(
    process: Process,
    host: HostFacts,
    profile: Mapping[str, Any] | None,
    pid: int,
    *,
    linux: Linux,
    stdio: tuple[int, int, int],
    join_fds: Sequence[int],
    kept_fds: Sequence[int] = (),
    on_listener: Callable[[Filter, int, int], None],
) -> Channel:
    """Start a further process in a container, and return when its command was executed.

    Args:
        process: What to start.
        host: Facts.
        profile: The container's filter.
        pid: The container's first process.
        linux: What the container was created with.
        stdio: Standard streams.
        join_fds: What it writes itself into to be in the container's control groups.
        kept_fds: What it has open from 3 up.
        on_listener: See `Creation`.

    Raises:
        See `create`.
    """
    with contextlib.ExitStack() as undo:
        fds = undo.enter_context(_closing(_namespaces_of(pid)))
        roots = undo.enter_context(_closing(_root_of(pid, linux)))
        rules = _filter_of(profile, process, host)
        native = lower_exec(
            process,
            seccomp=rules.code,
            seccomp_flags=rules.flags,
            has_user_namespace=not _is_shared(pid, "user"),
            has_own_root=bool(roots),
            personality=linux.personality,
        )
        _give_streams(stdio, _owner(linux, process))
        creator = Creator()
        undo.callback(creator.close)
        _bind_processors(creator, process.exec_affinity[0])
        channel = creator.spawn(
            SpawnRequest(
                spec=native,
                stdio=stdio,
                join_fds=join_fds,
                mount_fds=roots,
                namespace_fds=fds,
                kept_fds=kept_fds,
            )
        )
        try:
            while channel.wait_held(native, _START_LIMIT_S):
                on_listener(rules, channel.listener_fd, channel.pidfd)
                channel.release()
        except BaseException:
            end(channel)
            raise
        return channel


def _filter_of(profile: Mapping[str, Any] | None, process: Process, host: HostFacts) -> Filter:
    return read_filter(profile, capabilities=process.capabilities.bounding, arch=host.architecture)


def _bind_processors(creator: Creator, text: str) -> None:
    """Source: config.md, "execCPUAffinity": where the way into the container's control group begins."""
    pid = pid_of(creator.pidfd) if text else None
    if pid is None:
        return
    option = "process.execCPUAffinity.initial"
    try:
        os.sched_setaffinity(pid, processors(text, option))
    except OSError as error:
        raise InvalidOption(option, text, (error.strerror or "").lower()) from None


def _owner(linux: Linux, process: Process) -> int | None:
    """Who a process' user is outside; None if this process cannot tell."""
    if any(kind == "user" for kind, _ in linux.namespace_paths):
        return None
    return host_id(linux.uid_mappings, process.user.uid)


def _give_streams(fds: Sequence[int], owner: int | None) -> None:
    """Let a process open its streams anew, as /dev/stderr. What all share stays as it is."""
    for fd in fds:
        info = os.fstat(fd)
        if owner is None or info.st_uid == owner or info.st_rdev == _NULL_DEVICE:
            continue
        with contextlib.suppress(OSError):
            os.fchown(fd, owner, -1)


def _map_ids(linux: Linux, pidfd: int) -> None:
    pid = pid_of(pidfd)
    if pid is None:
        raise EngineClosed("the container's process was killed before its ids were mapped")
    map_ids(pid, linux.uid_mappings, linux.gid_mappings)


def _birth_group(spec: Spec, cgroup: PathCgroup) -> str | None:
    """The group of version 2 to be born in; None to move there, from a namespace that cannot see it."""
    if any(kind == "cgroup" for kind, _ in spec.linux.namespace_paths):
        return None
    return next((tree.path for tree in cgroup.trees if tree.version != 1), None)


def _with_sources(spec: Spec, bundle: str) -> Spec:
    """Source: config.md, "mounts": a relative source of a bind mount is below the bundle."""
    mounts = (
        evolve(mount, source=os.path.join(bundle, mount.source)) if is_bind(mount) else mount
        for mount in spec.mounts
    )
    return evolve(spec, mounts=tuple(mounts))


@contextlib.contextmanager
def _open_binds(spec: Spec) -> Iterator[Binds]:
    wanted = [mount for mount in spec.mounts if is_bind(mount)]
    if len(wanted) > _MAX_MOUNTS:
        raise InvalidOption("mounts", len(wanted), f"one container can have {_MAX_MOUNTS} bind mounts")
    binds = Binds()
    try:
        for mount in wanted:
            options = read_options(mount)
            tree = binds.add(
                mount.destination,
                mount.source,
                recursive=options.is_tree,
            )
            if options.id_mapped:
                _show_mapped(mount, tree, spec.linux, recursive=options.id_mapped == "ridmap")
        yield binds
    finally:
        binds.close()


def _with_copies(spec: Spec, root: str, binds: Binds) -> Spec:
    """Make those file systems that begin with a copy, which are then bound like anything that there is."""
    mounts = list(spec.mounts)
    for number, mount in enumerate(spec.mounts):
        if copies_up(mount):
            fd = copied(mount, root, spec.mounts[:number])
            binds.take(mount.destination, mount.source, fd)
            mounts[number] = as_bind(mount)
    return evolve(spec, mounts=tuple(mounts))


def _show_mapped(mount: SpecMount, tree: int, linux: Linux, *, recursive: bool) -> None:
    """Source: config.md, "idmap": with the mappings of the mount, or those of the container."""
    uids = mount.uid_mappings or linux.uid_mappings
    gids = mount.gid_mappings or linux.gid_mappings
    joined = dict(linux.namespace_paths).get("user") if not mount.uid_mappings else None
    if not uids and joined is None:
        raise InvalidOption("mounts", mount.destination, "has its ids mapped, and nothing says to what")
    try:
        with mapped_namespace(uids, gids) if joined is None else _opened(joined) as fd:
            map_mount_ids(tree, fd, recursive=recursive)
    except OSError as error:
        raise UnsupportedHost(
            f"other ids for the mount of {mount.source!r} on {mount.destination}",
            needed="Linux 5.12 and a file system that can do it",
            found=(error.strerror or "").lower(),
        ) from None


@contextlib.contextmanager
def _closing(fds: list[int]) -> Iterator[list[int]]:
    try:
        yield fds
    finally:
        close_all(fds)


@contextlib.contextmanager
def _opened(path: str) -> Iterator[int]:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


def _join_fds(cgroup: PathCgroup, *, all_versions: bool) -> list[int]:
    """Of version 2 it is born in its group, where there is one."""
    if all_versions:
        return cgroup.open_join_fds()
    return evolve(cgroup, trees=tuple(tree for tree in cgroup.trees if tree.version == 1)).open_join_fds()


@contextlib.contextmanager
def _named(spec: Spec) -> Iterator[list[int]]:
    """The namespaces that the configuration names by their paths."""
    fds: list[int] = []
    try:
        # See _JOINED.
        rank = {"mount": 1, "user": 2}
        for kind, path in sorted(spec.linux.namespace_paths, key=lambda named: rank.get(named[0], 0)):
            if kind == "mount":
                _check_mounts(spec, path)
            try:
                fds.append(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC))
                is_one = fcntl.ioctl(fds[-1], _GET_TYPE) == _NAMESPACE_TYPES[kind]
            except OSError as error:
                reason = f"is no namespace of type {kind}: {(error.strerror or '').lower()}"
                raise InvalidOption("linux.namespaces", path, reason) from None
            if not is_one:
                raise InvalidOption("linux.namespaces", path, f"is no namespace of type {kind}")
        yield fds
    finally:
        close_all(fds)


def _check_mounts(spec: Spec, path: str) -> None:
    """All that is in a mount namespace gets the container's root, and may not be the caller itself."""
    with contextlib.suppress(OSError):
        if os.stat(path).st_ino == os.stat("/proc/self/ns/mnt").st_ino:
            reason = "is this runtime's own, which would lose its root; leave the namespace out to share it"
            raise InvalidOption("linux.namespaces", path, reason)
    if spec.linux.has_namespace("user"):
        raise UnsupportedHost(
            "a mount namespace by its path together with a user namespace",
            needed="a new mount namespace, in which it may mount",
            found=path,
        )


def _root_of(pid: int, linux: Linux) -> list[int]:
    """The root of a container that shares the caller's mounts; nothing for one that does not."""
    if linux.has_namespace("mount"):
        return []
    return [os.open(f"/proc/{pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)]


def _namespaces_of(pid: int) -> list[int]:
    """The namespaces of a process that are not those of this one, in an order to join them."""
    fds: list[int] = []
    try:
        wanted = [name for name in _JOINED if name == "mnt" or not _is_shared(pid, name)]
        fds.extend(os.open(f"/proc/{pid}/ns/{name}", os.O_RDONLY | os.O_CLOEXEC) for name in wanted)
    except OSError as error:
        close_all(fds)
        raise InvalidOption(
            "container", pid, f"its process is gone: {(error.strerror or '').lower()}"
        ) from None
    return fds


def _is_shared(pid: int, name: str) -> bool:
    """Whether a process is in this one's namespace; a kind that the kernel has not is everybody's."""
    try:
        own = os.stat(f"/proc/self/ns/{name}").st_ino
    except FileNotFoundError:
        return True
    return os.stat(f"/proc/{pid}/ns/{name}").st_ino == own
