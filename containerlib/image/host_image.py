"""Making an image of programs of this host."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from containerlib.image import host
from containerlib.image.assemble import assemble_image
from containerlib.layer.archive import LATEST
from containerlib.oci import timestamp
from containerlib.oci.image_config import Config

if TYPE_CHECKING:
    from collections.abc import Sequence

    from containerlib.image.image_record import ImageRecord
    from containerlib.store.stores import Stores

__all__ = ["from_host"]

_DEFAULT_SHELLS = ("bin/sh", "usr/bin/sh", "bin/bash")


def from_host(
    stores: Stores, commands: Sequence[str] | None, *, reference: str | None, epoch: int | None
) -> ImageRecord:
    """Make an image of `commands` with the libraries that they need; its command is a shell if it has one.

    Args:
        stores: Where it goes.
        commands: Paths or names of programs; None for a small userland.
        reference: A name for it.
        epoch: Its date, and the latest time of its files, in seconds since 1970; None keeps the files' own.

    Raises:
        InvalidOption: A program does not exist.
        UnsupportedHost: There is not even a shell.
    """
    entries = [attrs.evolve(entry, mtime=entry.mtime or 0) for entry in host.collect(commands)]
    names = {entry.path for entry in entries}
    shell = next((f"/{path}" for path in _DEFAULT_SHELLS if path in names), None)
    return assemble_image(
        stores,
        entries,
        config=Config(cmd=(shell,)) if shell else Config(),
        reference=reference,
        latest_mtime=LATEST if epoch is None else epoch,
        created="" if epoch is None else timestamp.text(timestamp.from_seconds(epoch)),
    )
