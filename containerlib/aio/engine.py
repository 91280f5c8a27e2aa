"""The engine: one store, one set of containers, in this process."""

# made by containerlib.aio.generate; change the module of the same name in containerlib.api
# ruff: noqa: A002
from __future__ import annotations

from typing import TYPE_CHECKING

from containerlib.aio import waiting, wrap
from containerlib.aio.loop import call
from containerlib.api import engine as sync_module

if TYPE_CHECKING:
    import datetime as dt
    import os
    from collections.abc import AsyncIterator, Collection, Mapping
    from types import TracebackType
    from typing import Self

    from containerlib.aio.container import Containers
    from containerlib.aio.images import Images
    from containerlib.aio.network import Networks
    from containerlib.aio.registry import Registry
    from containerlib.api.doctor import Finding
    from containerlib.api.engine import EngineConfig
    from containerlib.container.disk_usage import DiskUsage
    from containerlib.container.events import Event
    from containerlib.container.prune import SystemPruneReport
    from containerlib.container.restore import RecoveryReport
    from containerlib.image.repair import RepairReport
    from containerlib.store.damage import Damage
__all__ = ["Engine"]


class Engine:
    """Images and containers in this process; no daemon, no socket.

    Making one does no I/O. As a context manager it ends all its containers. Any number of engines, in any
    number of processes, may use one store.
    """

    sync: sync_module.Engine

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
        self.sync = sync_module.Engine(root, run_root, config)

    def __repr__(self) -> str:
        return f"<aio {self.sync!r}>"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await call(lambda: self.sync.__exit__(kind, error, trace))

    @property
    def is_open(self) -> bool:
        """Whether `close` has not been called."""
        return self.sync.is_open

    @property
    def root(self) -> str:
        """Directory of lasting state."""
        return self.sync.root

    @property
    def run_root(self) -> str:
        """Directory of state that a reboot may take."""
        return self.sync.run_root

    @property
    def images(self) -> Images:
        """The images of the store."""
        return wrap.images(self.sync.images)

    @property
    def containers(self) -> Containers:
        """The containers of this engine."""
        return wrap.containers(self.sync.containers)

    @property
    def networks(self) -> Networks:
        """The networks of the store."""
        return wrap.networks(self.sync.networks)

    def registry(self, host: str) -> Registry:
        """The registry at `host`, such as ``localhost:5000`` or ``docker.io``. Contacts nobody.

        Raises:
            InvalidReference: It is not of the form host or host:port.
        """
        return wrap.registry(self.sync.registry(host))

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
    ) -> AsyncIterator[Event]:
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
        return waiting.engine_events(
            self.sync,
            since=since,
            until=until,
            follow=follow,
            types=types,
            actions=actions,
            containers=containers,
            images=images,
            labels=labels,
        )

    async def doctor(self) -> list[Finding]:
        """What this host can and cannot give containers, what that costs, and the remedies.

        Cost: some ten milliseconds; starts a container to be sure that one starts.
        """
        return await call(self.sync.doctor)

    async def disk_usage(self) -> DiskUsage:
        """How much room the store takes, and how much of that pruning would free.

        Cost: reads each manifest; looks at each blob and snapshot, and at each file in layers of containers.
        """
        return await call(self.sync.disk_usage)

    async def prune(
        self,
        *,
        all: bool = False,
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
        return await call(
            lambda: self.sync.prune(all=all, until=until, labels=labels, without_labels=without_labels)
        )

    async def check(self, *, deep: bool = False) -> tuple[Damage, ...]:
        """Everything that is wrong with the store, the worst first; nothing is changed.

        Safe while others use the store: what they are just making or removing is no finding.

        Args:
            deep: Also read each blob to its end, and compare each unpacked layer with its blob, file by file.

        Raises:
            ReadOnlyStore: With `deep`: layers to compare with must be unpacked somewhere.

        Cost: without `deep` a look at each file of the store itself, not at those in layers. With it, reading
            and unpacking everything once, and room for the largest layer.
        """
        return await call(lambda: self.sync.check(deep=deep))

    async def repair(self, *, deep: bool = False, forget: bool = False) -> RepairReport:
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
        return await call(lambda: self.sync.repair(deep=deep, forget=forget))

    async def recover(self, *, restart: bool = True) -> RecoveryReport:
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
        return await call(lambda: self.sync.recover(restart=restart))

    async def close(self) -> None:
        """End and remove all containers of this engine, and its spawner. Calling it again does nothing."""
        await call(self.sync.close)
