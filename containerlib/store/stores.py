"""The handles to all stores of one root, opened together and passed around as one value."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from containerlib._util.disk_error import translated
from containerlib._util.failpoint import reach
from containerlib._util.memo import Memo
from containerlib.store.content import ContentStore
from containerlib.store.journal import Journal
from containerlib.store.layout import Layout
from containerlib.store.lease import LeaseStore
from containerlib.store.reference import ReferenceStore
from containerlib.store.snapshot import SnapshotStore

if TYPE_CHECKING:
    from collections.abc import Iterable

    from containerlib.oci.digest import ChainId, Digest

__all__ = ["Stores"]


@attrs.frozen
class Stores:
    """Content, snapshots, references and leases below one root. Holds no descriptor and needs no closing.

    Attributes:
        durable: Whether what was committed must survive a power loss.
        image_devices: Whether layers may hold device nodes.
        derived: Values computed from immutable content, by digest, for those who read the same often.
    """

    layout: Layout
    content: ContentStore
    snapshots: SnapshotStore
    references: ReferenceStore
    leases: LeaseStore
    durable: bool = True
    image_devices: bool = False
    derived: Memo[Digest, object] = attrs.field(factory=Memo, eq=False, repr=False)

    @classmethod
    def open(cls, root: str, run_root: str, *, durable: bool = True, image_devices: bool = False) -> Stores:
        """Return the stores below `root`; nothing is made on disk before the first write.

        Args:
            root: Directory of lasting state.
            run_root: Directory of state that a reboot may take.
            durable: Whether what was committed must survive a power loss. Without it only the death of
                processes is survived, and nothing is ever synced.
            image_devices: Whether layers may hold device nodes.
        """
        layout = Layout(root, run_root)
        return cls(
            layout=layout,
            content=ContentStore(layout),
            snapshots=SnapshotStore(layout, durable),
            references=ReferenceStore(layout, durable),
            leases=LeaseStore(layout),
            durable=durable,
            image_devices=image_devices,
        )

    @property
    def journal(self) -> Journal:
        """Where all processes write down what happens."""
        return Journal(self.layout.events)

    def settle(self, names: Iterable[ChainId]) -> None:
        """Make everything durable that was stored up to here; to be done before a reference is set to it.

        Args:
            names: The snapshots of the image.

        Cost: one sync of the file system, whatever the size of the image; none if this is not durable.
        """
        if self.durable:
            from containerlib._native.path import sync_filesystem  # noqa: PLC0415 - not there in unit tests

            with translated(self.layout.root):
                reach("sync file system", self.layout.root)
                sync_filesystem(self.layout.root)
            self.snapshots.mark_durable(names)
