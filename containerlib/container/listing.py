"""The containers of all running engines of a store, as their engines last described them.

Reads what other processes write at any moment: what is half-written, damaged or gone by now is left out.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from attrs import field, frozen

from containerlib._util import strict_json
from containerlib.container.config_document import native_text
from containerlib.container.recovery import live_engines
from containerlib.container.state import ContainerState
from containerlib.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from containerlib.store.layout import Layout

__all__ = ["ContainerRecord", "list_records", "read_file"]

_LIMIT = 16 << 20


@frozen(kw_only=True)
class ContainerRecord:
    """One container of some engine.

    Attributes:
        id: 64 hexadecimal digits.
        name: Unique within its engine only.
        image: A reference of its image, or the image's id.
        command: What it executes.
        state: Where it stood when its engine last wrote; an end that its engine has not noticed is not known.
        created_at: Seconds since the epoch.
        exit_code: Its exit code, if it has ended and that is known.
        labels: Its labels.
        engine_id: The engine that it belongs to; empty for a detached one.
    """

    id: str
    name: str
    image: str
    command: tuple[str, ...]
    state: ContainerState
    created_at: float
    exit_code: int | None = None
    labels: Mapping[str, str] = field(factory=dict)
    engine_id: str


def _parse(document: Mapping[str, Any], engine_id: str) -> ContainerRecord:
    """Raises KeyError, TypeError or ValueError if it is not what an engine writes."""
    exit_code = document["exit_code"]
    return ContainerRecord(
        id=str(document["id"]),
        name=str(document["name"]),
        image=str(document["image"]),
        command=tuple(native_text(str(text)) for text in document["command"]),
        state=ContainerState(document["state"]),
        created_at=float(document["created_at"]),
        exit_code=None if exit_code is None else int(exit_code),
        labels={
            native_text(str(name)): native_text(str(value))
            for name, value in dict(document["labels"]).items()
        },
        engine_id=engine_id,
    )


def read_file(path: str, engine_id: str) -> ContainerRecord | None:
    """One container as its engine has described it; None if that cannot be read."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        with open(fd, "rb") as file:
            data = file.read(_LIMIT + 1)
        return _parse(strict_json.loads_object(data, limit=_LIMIT), engine_id)
    except (OSError, InvalidInputError, KeyError, TypeError, ValueError):
        return None


def list_records(layout: Layout) -> list[ContainerRecord]:
    """All containers of the running engines of a store, oldest first.

    Cost: one small file for each container, one lock for each engine.
    """
    found = []
    for directory in live_engines(layout):
        try:
            names = os.listdir(f"{directory}/containers")
        except OSError:
            continue
        engine_id = os.path.basename(directory)
        found += [read_file(f"{directory}/containers/{name}", engine_id) for name in names]
    return sorted(filter(None, found), key=lambda record: (record.created_at, record.id))
