"""Making a container: a layer of its own, a record, nothing running yet."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

from containerlib._native.path import kernel_features
from containerlib._util.atomic_file import make_directory, remove_file
from containerlib._util.remove_tree import remove_tree
from containerlib.container.detached import DetachedRecord, config_text
from containerlib.container.detached_entry import DetachedEntry
from containerlib.container.entry import ContainerEntry
from containerlib.container.frozen import RootLook, make_upper, write_base
from containerlib.container.names import new_id, new_name
from containerlib.container.network import require_network
from containerlib.container.recovery import write_owner
from containerlib.errors import NameInUse, UnsupportedHost
from containerlib.runtime.runner import Layers

if TYPE_CHECKING:
    from containerlib.container.session import Session
    from containerlib.image.image_record import ImageRecord
    from containerlib.runtime.config import ContainerConfig

__all__ = ["create"]


def _make_layer(session: Session, container_id: str, base: tuple[str, ...]) -> str:
    directory = session.stores.layout.container(container_id)
    make_directory(directory)
    # Until a detached container has its record, it is this engine's to clean up.
    write_owner(directory, session.directory, session.lease.id)
    if base:
        write_base(directory, base)
    uppers = session.frozen.uppers(base)
    make_upper(f"{directory}/upper", RootLook.of(uppers[0]) if uppers else None)
    make_directory(f"{directory}/work")
    return directory


def _enter(
    session: Session, image: ImageRecord, config: ContainerConfig, base: tuple[str, ...]
) -> ContainerEntry:
    """A new entry of the session; a name that was made up and is taken is made up once more."""
    forked = session.frozen.uppers(base)
    while True:
        container_id = new_id()
        on_disk = config.layer == "disk"
        directory = session.stores.layout.container(container_id) if on_disk else None
        make = _detached_entry if config.lifetime == "detached" else ContainerEntry
        entry = make(
            session=session,
            id=container_id,
            name=config.name or new_name(container_id),
            image_id=str(image.id),
            image_name=image.references[0] if image.references else str(image.id),
            config=config,
            layers=Layers(lowers=(*forked, *image.lowers), directory=directory, forked=len(forked)),
        )
        try:
            session.add(entry)
        except NameInUse:
            if config.name is not None:
                raise
            continue
        return entry


def _detached_entry(**values: Any) -> ContainerEntry:
    names = ("id", "name", "image_id", "image_name")
    record = DetachedRecord(
        **{name: values[name] for name in names},
        config_text=config_text(values["config"]),
        created_at=time.time(),
    )
    return DetachedEntry(**values, record=record, created_at=record.created_at, fault=values["config"].fault)


def create(
    session: Session,
    image: ImageRecord,
    config: ContainerConfig,
    *,
    starts_now: bool = False,
    base: tuple[str, ...] = (),
) -> ContainerEntry:
    """Make a container of `image`.

    After a failure nothing of it is left.

    Args:
        session: The engine.
        image: What it is made of.
        config: What it shall be.
        starts_now: The caller starts it at once, which tells other processes of it.
        base: Frozen layers between the image and its own, top-most first; something keeps them meanwhile.

    Raises:
        ImageNotFound: The image has been removed meanwhile.
        NameInUse: Another container of this engine has the name.
        NetworkNotFound, ContainerNotFound: The network that it is to be in does not exist.
        EngineClosed: The engine is closed.
        UnsupportedHost: It shall outlive this process, and the kernel has no descriptors of processes.

    Cost: with the layer in memory, one small file; on disk, four directories more.
    """
    session.enter()
    _require_pidfds(config)
    require_network(session, config.network, config.networks)
    with session.holds.holding(image), session.naming(config):
        entry = _enter(session, image, config, base)
        return _make(entry, base, starts_now=starts_now)


def _require_pidfds(config: ContainerConfig) -> None:
    """A process that is not our child is known for sure, and waited for, by such a descriptor alone."""
    if config.lifetime == "detached" and "pidfd_open" not in kernel_features():
        raise UnsupportedHost(
            "a container that outlives its process", needed="pidfd_open (Linux 5.3)", found="none"
        )


def _make(entry: ContainerEntry, base: tuple[str, ...], *, starts_now: bool) -> ContainerEntry:
    session, directory = entry.session, entry.layers.directory
    try:
        if directory is not None:
            _make_layer(session, entry.id, base)
        if isinstance(entry, DetachedEntry):
            session.names.claim(entry.name, entry.id)
            entry.create_record()
            remove_file(f"{directory}/engine")
        elif not starts_now:
            entry.write_record()
        entry.tell("create")
    except BaseException:
        session.drop(entry)
        if directory is not None and os.path.isdir(directory):
            remove_tree(directory)
        if entry.is_detached:
            session.names.release(entry.name, entry.id)
        raise
    return entry
