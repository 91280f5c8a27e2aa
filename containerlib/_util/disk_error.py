"""What the disk says when it is full or must not be written, as errors of ours.

For the few modules that write to the store; other errors of the disk stay what they are.
"""

from __future__ import annotations

import contextlib
import errno
from typing import TYPE_CHECKING

from containerlib.errors import ReadOnlyStore, StoreFull

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["translated", "typed"]

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


def typed(error: OSError, path: str) -> OSError:
    """Return what to raise for `error`, which came while `path` was written."""
    if isinstance(error, (StoreFull, ReadOnlyStore)):
        return error
    if error.errno in _FULL:
        return StoreFull(path, error.errno or errno.ENOSPC)
    return ReadOnlyStore(path) if error.errno == errno.EROFS else error


@contextlib.contextmanager
def translated(path: str) -> Iterator[None]:
    """Raise what the disk says within a block that writes `path` as errors of ours."""
    try:
        yield
    except OSError as error:
        better = typed(error, path)
        if better is error:
            raise
        raise better from error
