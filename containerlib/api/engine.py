"""The engine: one store, one set of containers, in this process."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

from attrs import frozen

from containerlib.api.container import Containers
from containerlib.api.images import Images
from containerlib.api.locks import Locks
from containerlib.api.remote import Remote
from containerlib.container.session import Session
from containerlib.errors import InvalidOption

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Collection, Iterator, Mapping
    from types import TracebackType
    from typing import Self

    from containerlib.api.doctor import Finding
    from containerlib.api.network import Networks
    from containerlib.api.registry import Registry
    from containerlib.container.disk_usage import DiskUsage
    from containerlib.container.events import Event
    from containerlib.container.prune import SystemPruneReport
    from containerlib.container.restore import RecoveryReport
    from containerlib.image.repair import RepairReport
    from containerlib.runtime.cgroup_manager import ManagerKind
    from containerlib.runtime.runner import RootKind
    from containerlib.store.damage import Damage

__all__ = ["Engine", "EngineConfig", "default_engine"]


@frozen(kw_only=True)
class EngineConfig:
    """Settings of an engine.

    Attributes:
        root_kind: How root file systems are made: ``"overlay"``, ``"copy"``, or ``"auto"`` for overlay with
            copying as the fallback.
        start_timeout_s: How long the kernel may take for all steps of a container's start.
        offline: Whether registries are never contacted.
        insecure_registries: Hosts, with their ports, that need no valid certificate and may speak plain http.
            This machine's own always may.
        trusted_token_services: Hosts, with their ports, of token services that registries may name although
            they are on this machine or its network and the registry is not.
        lock_file: Path of a lock file, as `Images.lock` writes it. A name that it has means exactly
            the locked image, wherever it is found, pulled or run.
        locked: Whether names that `lock_file` does not have are refused.
        image_devices: Whether images may hold device nodes. Opening one stays subject to the device rules
            of the container; a host without such rules (see `Engine.doctor`) has nothing else in the way.
        cgroup_manager: Who makes the directory below which control groups are made: ``"systemd"``, which is
            asked for a scope with ``Delegate=yes`` for the engine and for each detached container;
            ``"cgroupfs"`` for this process; or ``"auto"`` for systemd where it is the first process, runs
            on cgroup v2 alone, and no limit on this process would be left behind. See `Engine.doctor`.
    """

    root_kind: RootKind = "auto"
    start_timeout_s: float = 60.0
    offline: bool = False
    insecure_registries: tuple[str, ...] = ()
    trusted_token_services: tuple[str, ...] = ()
    lock_file: str | os.PathLike[str] | None = None
    locked: bool = False
    image_devices: bool = False
    cgroup_manager: ManagerKind = "auto"

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] | None = None) -> Self:
        """Settings as the environment has them, and the defaults for the rest.

        ``CONTAINERLIB_OFFLINE``, ``CONTAINERLIB_LOCKED`` and ``CONTAINERLIB_IMAGE_DEVICES`` are ``1`` or
        ``0``; ``CONTAINERLIB_LOCK_FILE`` is a path; ``CONTAINERLIB_CGROUP_MANAGER`` is a name.

        Args:
            environ: Instead of the environment of this process.

        Raises:
            InvalidOption: A variable is something else.
        """
        environ = os.environ if environ is None else environ
        return cls(
            offline=_flag(environ, "CONTAINERLIB_OFFLINE"),
            lock_file=environ.get("CONTAINERLIB_LOCK_FILE") or None,
            locked=_flag(environ, "CONTAINERLIB_LOCKED"),
            image_devices=_flag(environ, "CONTAINERLIB_IMAGE_DEVICES"),
            cgroup_manager=_manager(environ.get("CONTAINERLIB_CGROUP_MANAGER") or "auto"),
        )

    def __attrs_post_init__(self) -> None:
        if self.root_kind not in {"auto", "overlay", "copy"}:
            raise InvalidOption("root_kind", self.root_kind, "give 'auto', 'overlay' or 'copy'")
        _manager(self.cgroup_manager)
        for option in ("offline", "locked", "image_devices"):
            value = getattr(self, option)
            if not isinstance(value, bool):
                raise InvalidOption(option, value, "give True or False")
        if not self.start_timeout_s > 0:
            raise InvalidOption("start_timeout_s", self.start_timeout_s, "give more than 0 seconds")
        if self.locked and self.lock_file is None:
            raise InvalidOption("locked", self.locked, "name the lock file as well: lock_file")


def _flag(environ: Mapping[str, str], name: str) -> bool:
    value = environ.get(name, "").lower()
    if value not in {"", "0", "1", "false", "true"}:
        raise InvalidOption(name, value, "give 1 or 0")
    return value in {"1", "true"}


def _manager(value: str) -> ManagerKind:
    """Who makes control groups, by name."""
    names: tuple[ManagerKind, ...] = ("auto", "systemd", "cgroupfs")
    for name in names:
        if name == value:
            return name
    raise InvalidOption("cgroup_manager", value, "give 'auto', 'systemd' or 'cgroupfs'")


def _default_root() -> str:
    if os.geteuid() == 0:
        return "/var/lib/containerlib"
    data = os.environ.get("XDG_DATA_HOME") or os.path.expanduser("~/.local/share")
    return f"{data}/containerlib"


def _default_run_root() -> str:
    if os.geteuid() == 0:
        return "/run/containerlib"
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    return f"{runtime}/containerlib" if runtime else f"/tmp/containerlib-{os.getuid()}"  # noqa: S108


class Engine:
    """Images and containers in this process; no daemon, no socket.

    Making one does no I/O. As a context manager it ends all its containers. Any number of engines, in any
    number of processes, may use one store.
    """

    def __init__(
        self,
        root: str | os.PathLike[str] | None = None,
        run_root: str | os.PathLike[str] | None = None,
        config: EngineConfig | None = None,
    ) -> None:
        """Prepare an engine.

        Args:
            root: Directory of images and of other state that lasts; ``CONTAINERLIB_ROOT`` or
                /var/lib/containerlib (below the user's data directory without root) if None.
            run_root: Directory of state that a reboot may take; ``CONTAINERLIB_RUN_ROOT`` or
                /run/containerlib if None.
            config: Settings; if None, those of `EngineConfig.from_environment`.
        """
        self._config = config or EngineConfig.from_environment()
        chosen_root = os.fspath(root or os.environ.get("CONTAINERLIB_ROOT") or _default_root())
        chosen_run_root = os.fspath(
            run_root or os.environ.get("CONTAINERLIB_RUN_ROOT") or _default_run_root()
        )
        for option, path in (("root", chosen_root), ("run_root", chosen_run_root)):
            if not path.startswith("/") or "\0" in path:
                raise InvalidOption(option, path, "give an absolute path")
        self._session = Session(
            chosen_root,
            chosen_run_root,
            root_kind=self._config.root_kind,
            start_timeout_s=self._config.start_timeout_s,
            image_devices=self._config.image_devices,
            cgroup_manager=self._config.cgroup_manager,
        )
        lock_file = self._config.lock_file
        self._remote = Remote(
            offline=self._config.offline,
            insecure_registries=self._config.insecure_registries,
            trusted_token_services=self._config.trusted_token_services,
            locks=Locks(os.path.abspath(lock_file) if lock_file else "", self._config.locked),
        )

    def __repr__(self) -> str:
        state = "open" if self._session.is_open else "closed"
        return f"<Engine {self.root} {state}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def is_open(self) -> bool:
        """Whether `close` has not been called."""
        return self._session.is_open

    @property
    def root(self) -> str:
        """Directory of lasting state."""
        return self._session.stores.layout.root

    @property
    def run_root(self) -> str:
        """Directory of state that a reboot may take."""
        return self._session.stores.layout.run_root

    @property
    def images(self) -> Images:
        """The images of the store."""
        return Images(self._session, self._remote)

    @property
    def containers(self) -> Containers:
        """The containers of this engine."""
        return Containers(self._session, self._remote)

    @property
    def networks(self) -> Networks:
        """The networks of the store."""
        from containerlib.api.network import Networks  # noqa: PLC0415 - needed by few

        return Networks(self._session)

    def registry(self, host: str) -> Registry:
        """The registry at `host`, such as ``localhost:5000`` or ``docker.io``. Contacts nobody.

        Raises:
            InvalidReference: It is not of the form host or host:port.
        """
        from containerlib.api.registry import Registry  # noqa: PLC0415 - needed by few

        return Registry(self._remote, host)

    def events(
        self,
        *,
        since: dt.datetime | dt.timedelta | None = None,
        until: dt.datetime | dt.timedelta | None = None,
        follow: bool = True,
        types: Collection[str] = (),
        actions: Collection[str] = (),
        containers: Collection[str] = (),
        images: Collection[str] = (),
        labels: Mapping[str, str | None] | None = None,
    ) -> Iterator[Event]:
        """What happens to the images and containers of the store, whichever process brings it about.

        The stream begins when this is called, not when it is first read. Closing the iterator ends it. The
        journal behind it lies below the run root, reaches some thousand events back, and a reboot takes it.
        An engine that is killed cannot tell of it; its containers' ends are told by the next one.

        Args:
            since: From this time on, or from so long ago on; None for what happens from now on, or without
                `follow` for everything that is known.
            until: Up to this time, or up to so long ago; a time to come ends the stream then.
            follow: Whether to wait for what happens from now on.
            types: Only of these kinds of objects, such as ``"container"``.
            actions: Only these, such as ``"die"``.
            containers: Only of containers with these names or ids, or beginnings of ids.
            images: Only of images with these names, and of containers made of them.
            labels: Only of containers with all of these labels; None for any value.

        Cost: reads the journal once, a few milliseconds; waiting costs nothing.
        """
        from containerlib.api.event_reader import event_reader  # noqa: PLC0415 - needed by few
        from containerlib.container.events import read_events  # noqa: PLC0415

        return read_events(
            event_reader(
                self.root,
                self.run_root,
                since=since,
                until=until,
                follow=follow,
                types=types,
                actions=actions,
                containers=containers,
                images=images,
                labels=labels,
            )
        )

    def doctor(self) -> list[Finding]:
        """What this host can and cannot give containers, what that costs, and the remedies.

        Cost: some ten milliseconds; starts a container to be sure that one starts.
        """
        from containerlib.api.doctor import examine  # noqa: PLC0415 - needed by few, and probes the host

        return examine(self)

    def disk_usage(self) -> DiskUsage:
        """How much room the store takes, and how much of that pruning would free.

        Cost: reads each manifest; looks at each blob and snapshot, and at each file in layers of containers.
        """
        from containerlib.container.disk_usage import measure  # noqa: PLC0415 - needed by few

        return measure(self._session)

    def prune(
        self,
        *,
        all: bool = False,  # noqa: A002 - Docker's word
        until: dt.datetime | dt.timedelta | None = None,
        labels: Mapping[str, str | None] | None = None,
        without_labels: Mapping[str, str | None] | None = None,
    ) -> SystemPruneReport:
        """Remove what nobody uses: containers that do not run, networks, images, leftovers of dead processes.

        Containers are those of this engine, and detached ones. Volumes are never removed.

        Args:
            all: Whether to remove images with names, too; only those without one otherwise.
            until: Only what was made before that time, or longer ago than that; for images see
                `Images.prune`.
            labels: Only what has all of these labels; None for any value.
            without_labels: Only what has none of these.

        Raises:
            InvalidOption: `until` lies before 1970.
            StoreCorrupted: The file of a name is damaged; see `repair`.
        """
        from containerlib.container.prune import prune_system  # noqa: PLC0415 - needed by few
        from containerlib.image.prune import ImageFilter  # noqa: PLC0415

        chosen = ImageFilter.make(all=all, until=until, labels=labels, without_labels=without_labels)
        return prune_system(self._session, chosen)

    def check(self, *, deep: bool = False) -> tuple[Damage, ...]:
        """Everything that is wrong with the store, the worst first; nothing is changed.

        Safe while others use the store: what they are just making or removing is no finding.

        Args:
            deep: Also read each blob to its end, and compare each unpacked layer with its blob, file by file.

        Raises:
            ReadOnlyStore: With `deep`: layers to compare with must be unpacked somewhere.

        Cost: without `deep` a look at each file of the store itself, not at those in layers. With it, reading
            and unpacking everything once, and room for the largest layer.
        """
        from containerlib.container.check import check_store  # noqa: PLC0415 - needed by few

        return check_store(self._session.stores, deep=deep)

    def repair(self, *, deep: bool = False, forget: bool = False) -> RepairReport:
        """Mend what `check` finds. Volumes and the layers of containers are never touched.

        Damaged layers are unpacked again if their blobs are intact and no running engine uses them; damaged
        blobs are deleted; files of references that cannot be read go to the directory ``quarantine`` of the
        store, and their images stay without a name. Leftovers are collected. Whatever else is found stays,
        and is in the report: what only pulling brings back, and what only a person can judge.

        Args:
            deep: As for `check`.
            forget: Whether to give up images that are not whole: to remove their names, and what only they
                need.

        Raises:
            ReadOnlyStore: Nothing can be mended.
            StoreFull: There is no room to unpack a layer; what was mended by then stays so.
        """
        from containerlib.container.check import repair_store  # noqa: PLC0415 - needed by few

        return repair_store(self._session.stores, deep=deep, forget=forget)

    def recover(self, *, restart: bool = True) -> RecoveryReport:
        """Put things right after a reboot or a kill, and say what was done; without need it does nothing.

        What dead engines have left is removed; that happens by itself as well when an engine makes its first
        container. Then detached containers are started again whose policy asks for it: after a reboot all
        that have ``always`` and were ever started, and whenever the supervisor of one is gone without having
        seen its end, those with any policy but ``no``. One that was stopped before that stays stopped, unless
        it has ``always``. To be called when the host has started: there is no daemon that would do it.

        Args:
            restart: Whether to start any.

        Raises:
            EngineClosed: The engine was closed.
            ReadOnlyStore: Nothing can be written.

        Cost: a few directory listings, a look at each detached container, and each start.
        """
        from containerlib.container.restore import restore  # noqa: PLC0415 - needed by few

        return restore(self._session, restart=restart)

    def close(self) -> None:
        """End and remove all containers of this engine, and its spawner. Calling it again does nothing."""
        self._session.close()


_default: Engine | None = None
_default_lock = threading.Lock()


def default_engine() -> Engine:
    """The engine that `run` and `Popen` use, made on first use; a closed one is replaced."""
    global _default  # noqa: PLW0603 - the one process-wide object, made on demand
    with _default_lock:
        if _default is None or not _default.is_open:
            _default = Engine()
        return _default
