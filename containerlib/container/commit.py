"""Making an image of a container, and an archive of its files."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, BinaryIO

from attrs import evolve

from containerlib.container.frozen import read_base
from containerlib.container.pause import pause, unpause
from containerlib.container.state import ContainerState, check_state
from containerlib.errors import InvalidState, UnsupportedHost
from containerlib.image.commit import commit_layer
from containerlib.image.config_change import changed
from containerlib.image.export import Exported
from containerlib.image.held import held_layers
from containerlib.image.output import opened_output
from containerlib.image.resolve import get_image
from containerlib.layer.archive import LATEST
from containerlib.layer.diff import write_merged

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from containerlib.container.entry import ContainerEntry
    from containerlib.image.image_record import ImageRecord
    from containerlib.oci.image_config import Config

__all__ = ["commit", "export"]


def commit(
    entry: ContainerEntry,
    *,
    reference: str | None,
    changes: Sequence[str],
    author: str,
    message: str,
    pauses: bool,
    created: str,
    latest_mtime: int | None,
) -> ImageRecord:
    """Make an image of the container's image and what the container has changed.

    Raises:
        InvalidState: It was removed, or its layer is in memory.
        UnsupportedHost: Its root was copied, for lack of overlays.
        InvalidOption: A change is no instruction.
        InvalidReference: The name is none.
        ImageNotFound: The container's image is gone.
    """
    directory = _directory(entry, "commit")
    if os.path.isdir(f"{entry.layers.directory}/root"):
        raise UnsupportedHost("commit", needed="overlayfs", found="a root that was copied for the container")
    stores = entry.session.stores
    base = get_image(stores, entry.image_id)
    config = changed(_config_of(entry, base.config.config), changes)
    with _standing_still(entry, pauses=pauses), _same_layers(entry, directory) as uppers:
        made = commit_layer(
            stores,
            base,
            uppers,
            config=config,
            reference=reference,
            author=author,
            comment=message,
            created=created,
            latest_mtime=latest_mtime,
        )
    entry.tell("commit", {"imageID": str(made.id), "imageRef": reference or ""})
    return made


def export(entry: ContainerEntry, out: str | BinaryIO, *, latest_mtime: int | None) -> Exported:
    """Write what the container finds below its root, but for what is mounted there, as one archive.

    Raises:
        InvalidState: It was removed, or its layer is in memory.
        InvalidInputError: `out` cannot be a file, or a file changed while it was read.
        ImageNotFound: The container's image is gone.
    """
    directory = _directory(entry, "export")
    stores = entry.session.stores
    image = get_image(stores, entry.image_id)
    copied = f"{directory}/root"
    with (
        held_layers(stores, "export container", image) as (lowers,),
        _same_layers(entry, directory) as uppers,
        opened_output(out) as sink,
    ):
        stack = [copied] if os.path.isdir(copied) else [*uppers, *lowers]
        written = write_merged(stack, sink, latest_mtime=LATEST if latest_mtime is None else latest_mtime)
    entry.tell("export")
    return Exported(str(written.diff_id), written.size, written.entries)


@contextlib.contextmanager
def _same_layers(entry: ContainerEntry, directory: str) -> Iterator[list[str]]:
    """The layers above its image, top-most first, none of which may become another one in the block.

    Raises:
        InvalidState: Somebody made a snapshot of it meanwhile.
    """
    entry.find_layers()  # which sees what has become of them
    base = read_base(directory)
    yield [f"{directory}/upper", *entry.session.frozen.uppers(base)]
    if read_base(directory) != base:
        raise InvalidState(
            f"a snapshot of container {entry.name!r} was made meanwhile; try again",
            expected="at rest",
            actual="changed",
        )


def _directory(entry: ContainerEntry, verb: str) -> str:
    """Where its layer is."""
    check_state(verb, entry.refresh(), entry.name)
    if entry.layers.directory is None:
        raise InvalidState(
            f"cannot {verb} container {entry.name!r}: its layer is in memory; create it with layer='disk'",
            expected="layer=disk",
            actual="layer=memory",
        )
    return entry.layers.directory


def _config_of(entry: ContainerEntry, image: Config) -> Config:
    """The image's configuration with what the container was given, but for command and entrypoint."""
    config = entry.config
    return evolve(
        image,
        env=tuple(f"{name}={value}" for name, value in config.env.items()),
        working_dir=config.workdir,
        user=config.user.text,
        labels=dict(config.labels),
    )


@contextlib.contextmanager
def _standing_still(entry: ContainerEntry, *, pauses: bool) -> Iterator[None]:
    """Pause the container for the length of a block if it runs."""
    if not pauses or entry.refresh() != ContainerState.RUNNING:
        yield
        return
    try:
        pause(entry)
    except InvalidState:
        # It has ended meanwhile, which is as good.
        yield
        return
    try:
        yield
    finally:
        with contextlib.suppress(InvalidState):
            unpause(entry)
