"""Removing everything that nobody uses: containers that do not run, images, leftovers."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

import attrs

from containerlib.container.disk_usage import tree_bytes
from containerlib.container.recovery import recover
from containerlib.container.remove import remove
from containerlib.container.state import ContainerState
from containerlib.errors import InvalidState, NetworkNotFound, ResourceInUse
from containerlib.image.prune import ImageFilter, PruneReport, has_labels, prune_images

if TYPE_CHECKING:
    from containerlib.container.session import Session

__all__ = ["SystemPruneReport", "prune_containers", "prune_networks", "prune_system"]


@attrs.frozen
class SystemPruneReport:
    """What pruning removed.

    Attributes:
        containers: Ids of containers.
        images: Images, content that nothing needed, leftovers.
        freed_bytes: How much room all of that made.
        networks: Names of networks that nobody was in.
    """

    containers: tuple[str, ...] = ()
    images: PruneReport = PruneReport()  # noqa: RUF009 - it is frozen
    freed_bytes: int = 0
    networks: tuple[str, ...] = ()


def prune_containers(session: Session, chosen: ImageFilter) -> tuple[tuple[str, ...], int]:
    """Remove the containers that do not run and are chosen; return their ids, and how much room that made."""
    removed: list[str] = []
    freed = 0
    for entry in session.entries():
        if entry.refresh() not in {ContainerState.CREATED, ContainerState.EXITED}:
            continue
        if chosen.until is not None and entry.created_at >= chosen.until:
            continue
        if not has_labels(entry.config.labels, chosen.labels, chosen.without_labels):
            continue
        size_bytes = tree_bytes(f"{session.stores.layout.container(entry.id)}/upper")
        try:
            remove(entry)
        except InvalidState:
            continue  # somebody has started it
        removed.append(entry.id)
        freed += size_bytes
    return tuple(removed), freed


def prune_system(session: Session, chosen: ImageFilter) -> SystemPruneReport:
    """Remove containers that do not run, networks and images that none uses then, and all leftovers."""
    containers, freed = prune_containers(session, chosen)
    networks = prune_networks(session, chosen)
    recover(session.stores.layout)
    session.holds.release_idle()
    images = prune_images(session.stores, chosen, in_use=session.containers_of)
    return SystemPruneReport(containers, images, freed + images.freed_bytes, networks)


def prune_networks(session: Session, chosen: ImageFilter) -> tuple[str, ...]:
    """Remove the networks that no container is in and that are chosen; return their names."""
    if not os.path.isdir(session.stores.layout.networks):
        return ()
    from containerlib.container import named_network  # noqa: PLC0415 - needed by few

    removed = []
    for record in named_network.list_all(session):
        if chosen.until is not None and record.created_at >= chosen.until:
            continue
        if not has_labels(record.labels, chosen.labels, chosen.without_labels):
            continue
        with contextlib.suppress(NetworkNotFound, ResourceInUse):
            named_network.discard(session, record)
            removed.append(record.name)
    return tuple(removed)
