"""Containers that outlive their maker: a lasting record each, from which any process finds them again.

The record lies beside the container's layer. Nothing but `remove` takes it away.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, cast

from attrs import asdict, frozen

from containerlib._util import strict_json
from containerlib._util.atomic_file import write_atomic
from containerlib.errors import InvalidInputError, StoreCorrupted
from containerlib.runtime.adopted import ProcessIdentity

if TYPE_CHECKING:
    from containerlib.store.layout import Layout

__all__ = ["DetachedRecord", "list_detached", "read_record", "write_record"]

_LIMIT = 4 << 20


@frozen(kw_only=True)
class DetachedRecord:
    """What is known of a detached container without the process that made it.

    Attributes:
        process: Its first process, once it was started.
        supervisor: That process's parent.
        cgroup_paths: Directories to remove when it has ended.
    """

    id: str
    name: str
    image_id: str
    image_name: str
    args: tuple[str, ...]
    labels: dict[str, str]
    stop_signal: int
    stop_timeout_s: float
    created_at: float
    remove: bool = False
    process: ProcessIdentity | None = None
    supervisor: ProcessIdentity | None = None
    cgroup_paths: tuple[str, ...] = ()


def _path(layout: Layout, container_id: str) -> str:
    return f"{layout.container(container_id)}/record.json"


def write_record(layout: Layout, record: DetachedRecord) -> None:
    """Write the record; it is whole or as before at any time."""
    write_atomic(_path(layout, record.id), strict_json.dumps(asdict(record)), durable=True)


def _identity(value: object) -> ProcessIdentity | None:
    if value is None:
        return None
    fields = cast("dict[str, object]", value)
    return ProcessIdentity(int(str(fields["pid"])), int(str(fields["start_ticks"])), str(fields["boot_id"]))


def read_record(layout: Layout, container_id: str) -> DetachedRecord | None:
    """The record of a container, or None if there is none.

    Raises:
        StoreCorrupted: It cannot be read as one.
    """
    path = _path(layout, container_id)
    try:
        with open(path, "rb") as file:
            data = strict_json.loads_object(file.read(_LIMIT + 1), limit=_LIMIT, what="container record")
        return DetachedRecord(
            id=str(data["id"]),
            name=str(data["name"]),
            image_id=str(data["image_id"]),
            image_name=str(data["image_name"]),
            args=tuple(map(str, cast("list[object]", data["args"]))),
            labels={key: str(value) for key, value in cast("dict[str, object]", data["labels"]).items()},
            stop_signal=int(str(data["stop_signal"])),
            stop_timeout_s=float(str(data["stop_timeout_s"])),
            created_at=float(str(data["created_at"])),
            remove=data["remove"] is True,
            process=_identity(data["process"]),
            supervisor=_identity(data["supervisor"]),
            cgroup_paths=tuple(map(str, cast("list[object]", data["cgroup_paths"]))),
        )
    except FileNotFoundError:
        return None
    except (InvalidInputError, KeyError, TypeError, ValueError) as error:
        raise StoreCorrupted(path, f"is not a container record ({error}); remove its directory") from None


def list_detached(layout: Layout) -> list[str]:
    """Ids of all detached containers of a store."""
    try:
        names = sorted(os.listdir(layout.containers))
    except FileNotFoundError:
        return []
    # Other names are those of trees that somebody is removing.
    return [name for name in names if name.isalnum() and os.path.exists(_path(layout, name))]
