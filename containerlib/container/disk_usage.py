"""How much room a store takes: images, containers, volumes."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

import attrs

from containerlib.container.listing import list_records
from containerlib.image.usage import ImagesUsage, images_usage

if TYPE_CHECKING:
    from collections.abc import Collection

    from containerlib.container.session import Session
    from containerlib.container.state import ContainerState

__all__ = ["ContainerUsage", "DiskUsage", "VolumeUsage", "measure", "tree_bytes"]


@attrs.frozen
class ContainerUsage:
    """How much room one container takes, its image not counted.

    Attributes:
        id: 64 hexadecimal digits.
        name: Its name; unique within its engine only.
        image: A name of its image, or the image's id.
        state: Where it stands.
        size_bytes: Size of the files in its own layer; 0 if that is in memory.
    """

    id: str
    name: str
    image: str
    state: ContainerState
    size_bytes: int


@attrs.frozen
class VolumeUsage:
    """How much room one volume takes.

    Attributes:
        name: Its name.
        size_bytes: Size of its files.
        containers: How many containers use it.
    """

    name: str
    size_bytes: int
    containers: int


@attrs.frozen
class DiskUsage:
    """How much room a store takes.

    Attributes:
        images: Images, and content that none needs.
        containers: The containers of all running engines, and detached ones.
        volumes: Volumes; there are none in this version.
    """

    images: ImagesUsage
    containers: tuple[ContainerUsage, ...]
    volumes: tuple[VolumeUsage, ...] = ()

    @property
    def containers_bytes(self) -> int:
        """Size of the layers of all containers."""
        return sum(container.size_bytes for container in self.containers)

    @property
    def containers_reclaimable_bytes(self) -> int:
        """Size of the layers of containers that do not run."""
        stopped = (one for one in self.containers if not one.state.is_alive)
        return sum(container.size_bytes for container in stopped)

    @property
    def size_bytes(self) -> int:
        """All of it."""
        images = self.images.size_bytes + self.images.unneeded_bytes
        return images + self.containers_bytes + sum(volume.size_bytes for volume in self.volumes)


def measure(session: Session) -> DiskUsage:
    """Measure the store of an engine.

    Cost: looks at each blob, each snapshot, and each file in the layers of containers.
    """
    containers = _containers(session)

    def count(names: Collection[str]) -> int:
        return sum(container.image in names for container in containers)

    return DiskUsage(images_usage(session.stores, count), tuple(containers))


def _containers(session: Session) -> list[ContainerUsage]:
    layout = session.stores.layout
    own = [(entry.id, entry.name, entry.image_id, entry.refresh()) for entry in session.entries()]
    known = {fields[0] for fields in own}
    others = [
        (record.id, record.name, record.image, record.state)
        for record in list_records(layout)
        if record.id not in known
    ]
    return [
        ContainerUsage(*fields, size_bytes=tree_bytes(f"{layout.container(fields[0])}/upper"))
        for fields in (*own, *others)
    ]


def tree_bytes(path: str) -> int:
    """Return the size of all files below `path`, each once; 0 if there is nothing."""
    total = 0
    seen: set[tuple[int, int]] = set()
    pending = [path]
    while pending:
        try:
            with os.scandir(pending.pop()) as listing:
                entries = list(listing)
        except OSError:
            continue  # it is being removed, or was never made
        for entry in entries:
            try:
                info = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue
            if stat.S_ISDIR(info.st_mode):
                pending.append(entry.path)
            elif (info.st_dev, info.st_ino) not in seen:
                seen.add((info.st_dev, info.st_ino))
                total += info.st_size
    return total
