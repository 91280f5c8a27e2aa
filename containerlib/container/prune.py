"""Removing everything that nobody uses: containers that do not run, images, leftovers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from containerlib.container.disk_usage import tree_bytes
from containerlib.container.recovery import recover
from containerlib.container.remove import remove
from containerlib.container.state import ContainerState
from containerlib.errors import InvalidState
from containerlib.image.prune import ImageFilter, PruneReport, has_labels, prune_images

if TYPE_CHECKING:
    from containerlib.container.session import Session

__all__ = ["SystemPruneReport", "prune_containers", "prune_system"]


@attrs.frozen
class SystemPruneReport:
    """What pruning removed.

    Attributes:
        containers: Ids of containers.
        images: Images, content that nothing needed, leftovers.
        freed_bytes: How much room all of that made.
    """

    containers: tuple[str, ...] = ()
    images: PruneReport = PruneReport()  # noqa: RUF009 - it is frozen
    freed_bytes: int = 0


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
    """Remove containers that do not run, then images that no container uses, then all leftovers."""
    containers, freed = prune_containers(session, chosen)
    recover(session.stores.layout)
    session.holds.release_idle()
    images = prune_images(session.stores, chosen, in_use=session.containers_of)
    return SystemPruneReport(containers, images, freed + images.freed_bytes)
