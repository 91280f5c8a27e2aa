"""Every path of the store, in one place.

Two directories: `root` holds what survives a reboot, `run_root` (usually on tmpfs) what does not. Nothing is
made here; the stores make their directories when they first write. Paths are built only from digests and from
names that passed `checked_name`, so none can lead elsewhere.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

import attrs

from containerlib.errors import InvalidInputError

if TYPE_CHECKING:
    from containerlib.oci.digest import Digest

__all__ = ["Layout", "checked_name"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,254}")


def checked_name(name: str, what: str = "name") -> str:
    """Return `name` if it is safe as one component of a path.

    Raises:
        InvalidInputError: It is empty, too long, begins with a sign, or holds anything but letters, digits
            and ``_.-``.
    """
    if _NAME.fullmatch(name) is None:
        raise InvalidInputError(f"{what} {name[:80]!r}: expected 1 to 255 letters, digits, '_', '.', '-'")
    return name


def _absolute(path: str) -> str:
    return os.path.abspath(path)


@attrs.frozen
class Layout:
    """Where everything lies below `root` and `run_root`, both made absolute."""

    root: str = attrs.field(converter=_absolute)
    run_root: str = attrs.field(converter=_absolute)

    @property
    def blobs(self) -> str:
        """Directory of the content store."""
        return f"{self.root}/blobs"

    def blob_directory(self, algorithm: str) -> str:
        """Directory of the blobs named by `algorithm`."""
        return f"{self.root}/blobs/{checked_name(algorithm)}"

    def blob(self, digest: Digest) -> str:
        """File that holds the content called `digest`."""
        return f"{self.root}/blobs/{digest.algorithm}/{digest.hex}"

    @property
    def ingests(self) -> str:
        """Directory of blobs that are still coming, one file each."""
        return f"{self.root}/ingest"

    def ingest(self, digest: Digest) -> str:
        """File that holds what has come of the blob `digest`."""
        return f"{self.root}/ingest/{digest.algorithm}-{digest.hex}"

    @property
    def snapshots(self) -> str:
        """Directory of active and committed snapshots."""
        return f"{self.root}/snapshots"

    def snapshot(self, name: Digest) -> str:
        """Directory of the committed snapshot `name`."""
        return f"{self.root}/snapshots/{name.algorithm}-{name.hex}"

    def active_snapshot(self, key: str) -> str:
        """Directory of the active snapshot `key`."""
        return f"{self.root}/snapshots/active-{checked_name(key, 'snapshot key')}"

    @property
    def references(self) -> str:
        """Directory of the references, one file each."""
        return f"{self.root}/references"

    @property
    def leases(self) -> str:
        """Directory of the leases, one file per operation under way."""
        return f"{self.root}/leases"

    @property
    def quarantine(self) -> str:
        """Directory of what a repair has put aside, for people to look at and to remove."""
        return f"{self.root}/quarantine"

    @property
    def locks(self) -> str:
        """Directory of lock files of objects that have no file of their own yet."""
        return f"{self.root}/locks"

    @property
    def collection_lock(self) -> str:
        """Lock held shared to begin relying on stored content, exclusively to delete content."""
        return f"{self.locks}/collection"

    @property
    def events(self) -> str:
        """Directory of the journal of events."""
        return f"{self.run_root}/events"

    @property
    def containers(self) -> str:
        """Directory with one directory per container."""
        return f"{self.root}/containers"

    @property
    def container_names(self) -> str:
        """Directory with one symbolic link per name of a container that stays."""
        return f"{self.root}/container-names"

    @property
    def frozen_layers(self) -> str:
        """Directory with one directory per layer that was a container's and that others stand on."""
        return f"{self.root}/frozen-layers"

    def container(self, container_id: str) -> str:
        """Directory of a container's lasting state."""
        return f"{self.containers}/{checked_name(container_id, 'container id')}"

    def container_run(self, container_id: str) -> str:
        """Directory of a container's state until it stops."""
        return f"{self.run_root}/containers/{checked_name(container_id, 'container id')}"

    @property
    def volumes(self) -> str:
        """Directory with one directory per volume."""
        return f"{self.root}/volumes"

    def volume(self, name: str) -> str:
        """Directory of a volume."""
        return f"{self.volumes}/{checked_name(name, 'volume name')}"

    @property
    def networks(self) -> str:
        """Directory of the network records."""
        return f"{self.root}/networks"
