"""What a container has changed of its image's files."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from containerlib.container.state import check_state
from containerlib.errors import InvalidState
from containerlib.layer import marks
from containerlib.layer.compare import Change, compare

if TYPE_CHECKING:
    from containerlib.container.entry import ContainerEntry

__all__ = ["Change", "container_changes"]

# Where the engine itself mounts something; for that it makes what the image lacks, always empty.
_MOUNT_TARGETS = frozenset(
    {
        "/dev",
        "/proc",
        "/sys",
        "/etc",
        "/etc/hostname",
        "/etc/hosts",
        "/etc/resolv.conf",
    }
)


def container_changes(entry: ContainerEntry) -> list[Change]:
    """Return how the container's files differ from its image's, by path.

    Raises:
        InvalidState: It was removed, or its layer is in memory.
        InvalidInputError: A file was exchanged while it was read.
        ImageNotFound: The image was removed meanwhile.
    """
    check_state("compare", entry.refresh(), entry.name)
    directory = entry.layers.directory
    if directory is None:
        raise InvalidState(
            f"cannot compare container {entry.name!r}: its layer is in memory; create it with layer='disk'",
            expected="layer=disk",
            actual="layer=memory",
        )
    layers = entry.find_layers()
    lowers = layers.lowers[layers.forked :]
    copied = f"{directory}/root"
    own = (copied,) if os.path.isdir(copied) else (f"{directory}/upper", *layers.lowers)
    # Marks of unprivileged overlays are the container's own affair: its mount does not heed them.
    found = compare(own, lowers, prefixes=(marks.TRUSTED,))
    return [change for change in found if not _is_mount_target(change)]


def _is_mount_target(change: Change) -> bool:
    return change.kind == "added" and change.path in _MOUNT_TARGETS and change.size_bytes == 0
