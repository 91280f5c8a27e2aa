"""An archive written again with no time later than a given one; everything else in it stays.

Members keep their order. Times are cut to whole seconds, and names of users are left out, as in every archive
that is written here.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, BinaryIO, get_args

from containerlib.layer.archive import ArchiveWriter, EntryKind, LayerEntry
from containerlib.layer.names import clean
from containerlib.layer.tar_reader import TarReader

if TYPE_CHECKING:
    from containerlib.layer.archive import Sink
    from containerlib.layer.tar_reader import TarEntry

__all__ = ["clamp_times"]

_NANOSECONDS = 1_000_000_000
_KINDS: dict[str, EntryKind] = {kind: kind for kind in get_args(EntryKind)}


def clamp_times(stream: BinaryIO, out: Sink, *, latest_mtime: int) -> None:
    """Write the archive `stream` to `out`, with later times replaced.

    Args:
        stream: An uncompressed archive, best with a large buffer. It is read to its end mark.
        out: Where the new one goes.
        latest_mtime: Later times become this one, in seconds since 1970.

    Raises:
        UnsafePath: A name leads outside.
        UnsupportedLayer: The archive is damaged, or of a kind that is not read.
        InvalidInputError: A member cannot be written.
    """
    reader = TarReader(stream)
    writer = ArchiveWriter(out, latest_mtime)
    for entry in reader:
        writer.add_stream(clean(entry.name), _entry(entry), entry.size, reader.read)
    writer.finish()


def _entry(entry: TarEntry) -> LayerEntry:
    linkname = clean(entry.linkname) if entry.kind == "hardlink" else entry.linkname
    return LayerEntry(
        entry.shown_name,
        _KINDS[entry.kind],
        mode=entry.mode,
        uid=entry.uid,
        gid=entry.gid,
        linkname=os.fsdecode(linkname),
        mtime=entry.mtime_ns // _NANOSECONDS,
        xattrs=entry.xattrs,
        device=(entry.major, entry.minor),
    )
