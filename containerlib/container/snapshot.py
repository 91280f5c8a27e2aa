"""Snapshots of containers: what one had written at a moment, as the start of others.

Nothing is copied of a container that does not run: its layer becomes a frozen one, on which it and the others
stand from then on.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from attrs import define, evolve, field

from containerlib._util.atomic_file import remove_file
from containerlib.container.create import create
from containerlib.container.frozen import RootLook, read_base
from containerlib.container.recovery import write_owner
from containerlib.container.state import ContainerState, check_state
from containerlib.errors import InvalidOption, InvalidState, ReadOnlyStore, UnsupportedHost
from containerlib.image.resolve import get_image
from containerlib.runtime.config import check_names

if TYPE_CHECKING:
    from containerlib.container.entry import ContainerEntry
    from containerlib.container.session import Session
    from containerlib.image.image_record import ImageRecord
    from containerlib.runtime.config import ContainerConfig

__all__ = ["SnapshotEntry", "fork", "snapshot"]

# OVL_MAX_STACK of the kernel, less the layer of a container itself.
_MAX_LAYERS = 499


@define(eq=False)
class SnapshotEntry:
    """One open snapshot.

    Attributes:
        session: The engine that has made it.
        id: Names its directory.
        base: The frozen layers that a container of it stands on, top-most first.
        image: Below them.
        config: What the container was.
    """

    session: Session
    id: str
    base: tuple[str, ...]
    image: ImageRecord
    config: ContainerConfig
    container_name: str
    is_open: bool = True
    undo: contextlib.ExitStack = field(factory=contextlib.ExitStack)

    def fork(self, name: str | None) -> ContainerEntry:
        """Make a container as the first one was, with what it had written; see `create`."""
        check_names(name, None, None)
        return self.create(evolve(self.config, name=name), starts_now=False)

    def create(self, config: ContainerConfig, *, starts_now: bool) -> ContainerEntry:
        """Make a container with what the snapshot holds.

        Raises:
            InvalidState: The snapshot was removed.
            InvalidOption: The container would have its layer in memory.
            NameInUse, ImageNotFound, EngineClosed: See `container.create`.
        """
        if not self.is_open:
            raise InvalidState(
                f"the snapshot of container {self.container_name!r} was removed; make another one",
                expected="open",
                actual="removed",
            )
        if config.layer != "disk":
            raise InvalidOption("layer", config.layer, "what stands on a snapshot has its layer on disk")
        return create(self.session, self.image, config, starts_now=starts_now, base=self.base)

    def remove(self) -> None:
        """Give it up; containers that were made of it stay. Again does nothing."""
        if not self.is_open:
            return
        self.is_open = False
        self.session.snapshots.discard(self)
        self.undo.close()
        with contextlib.suppress(OSError, ReadOnlyStore):
            remove_file(f"{self.session.frozen.directory(self.id)}/engine")
        self.session.sweep_frozen()


def snapshot(entry: ContainerEntry) -> SnapshotEntry:
    """Keep what a container has written, which does not run or is paused.

    Raises:
        InvalidState: It runs, was removed, or has its layer in memory.
        UnsupportedHost: Its root was copied, for lack of overlays; or it would stand on too many layers.
        ImageNotFound: Its image is gone.
        InvalidInputError: It is paused, and a file cannot be copied.
        StoreFull: It is paused, and there is no room.
    """
    session = entry.session
    session.enter()
    with contextlib.ExitStack() as undo, entry.exclusively():
        check_state("snapshot", entry.state, entry.name, "pause or stop it first")
        directory = _directory(entry)
        entry.find_layers()  # which sees what has become of them
        image = get_image(session.stores, entry.image_id)
        undo.enter_context(session.holds.holding(image))
        name, base = _freeze(entry, directory, len(image.lowers))
        made = SnapshotEntry(session, name, base, image, entry.config, entry.name)
        made.undo = undo.pop_all()
    session.snapshots.add(made)
    entry.tell("snapshot", {"snapshotID": name})
    return made


def fork(entry: ContainerEntry, name: str | None) -> ContainerEntry:
    """Make a container like `entry`, with what that has written; see `snapshot` and `create`."""
    check_names(name, None, None)
    made = snapshot(entry)
    try:
        return made.fork(name)
    finally:
        made.remove()


def _freeze(entry: ContainerEntry, directory: str, below: int) -> tuple[str, tuple[str, ...]]:
    """Id of the snapshot, and what containers of it stand on."""
    session, frozen = entry.session, entry.session.frozen
    base = read_base(directory)
    upper = f"{directory}/upper"
    is_new = bool(os.listdir(upper)) or RootLook.of(upper) != _look_of(session, base)
    if is_new and len(base) + below >= _MAX_LAYERS:
        raise UnsupportedHost(
            f"a snapshot of container {entry.name!r}",
            needed=f"at most {_MAX_LAYERS} layers below a container; commit it to an image of fewer",
            found=f"{len(base) + below} already",
        )
    name = frozen.make(base, lambda path: write_owner(path, session.directory, session.lease.id))
    if not is_new:
        return name, base
    try:
        if entry.state == ContainerState.PAUSED:
            frozen.copy(upper, name)
        else:
            frozen.move(directory, name, base)
            entry.restack()
    except BaseException:
        # Swept away with the next one, unless the container stands on it already.
        with contextlib.suppress(OSError, ReadOnlyStore):
            remove_file(f"{frozen.directory(name)}/engine")
        raise
    return name, (name, *base)


def _look_of(session: Session, base: tuple[str, ...]) -> RootLook:
    """How the root looks that a container on `base` begins with."""
    uppers = session.frozen.uppers(base)
    return RootLook.of(uppers[0]) if uppers else RootLook()


def _directory(entry: ContainerEntry) -> str:
    directory = entry.layers.directory
    if directory is None:
        raise InvalidState(
            f"cannot snapshot container {entry.name!r}: its layer is in memory; create it with layer='disk'",
            expected="layer=disk",
            actual="layer=memory",
        )
    if os.path.isdir(f"{directory}/root"):
        raise UnsupportedHost(
            "a snapshot", needed="overlayfs", found="a root that was copied for the container"
        )
    return directory
