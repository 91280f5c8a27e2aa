"""Containers that outlive their maker: a lasting record each, from which any process finds them again.

The record lies beside the container's layer. Nothing but `remove` takes it away. Who changes it
holds its lock.
"""

from __future__ import annotations

import os
from functools import lru_cache
from typing import TYPE_CHECKING, Any, cast

from attrs import asdict, frozen

from containerlib._util import strict_json
from containerlib._util.atomic_file import write_atomic
from containerlib.container.config_document import config_document, parse_config
from containerlib.errors import InvalidInputError, StoreCorrupted
from containerlib.runtime.identity import ProcessIdentity
from containerlib.runtime.usage import ExitStatus, Usage

if TYPE_CHECKING:
    from containerlib.runtime.config import ContainerConfig
    from containerlib.store.layout import Layout

__all__ = [
    "DetachedRecord",
    "Run",
    "config_text",
    "list_detached",
    "read_record",
    "record_path",
    "write_record",
]

_FORMAT = 1
_LIMIT = 16 << 20


@frozen(kw_only=True)
class Run:
    """One start of a container, and how it ended.

    Attributes:
        supervisor: The parent of its first process.
        generation: What the supervisor says has a greater one.
        cgroup_paths: Where its control groups were made.
    """

    supervisor: ProcessIdentity
    generation: int
    cgroup_paths: tuple[str, ...] = ()


@frozen(kw_only=True)
class DetachedRecord:
    """What is known of a detached container without the process that made it.

    Attributes:
        config_text: What it shall be, as JSON; `config` has it as a value.
        run: The last start that was begun.
        ended_generation: Of which generation of the supervisor's word `exit_status` is.
        exit_status: How the last run ended that anybody has looked at.
        finished_at: When that was, in seconds since the epoch.
    """

    id: str
    name: str
    image_id: str
    image_name: str
    config_text: str
    created_at: float
    run: Run | None = None
    ended_generation: int = 0
    exit_status: ExitStatus | None = None
    finished_at: float | None = None

    @property
    def config(self) -> ContainerConfig:
        """What it shall be.

        Raises:
            StoreCorrupted: The text cannot be read as that.

        Cost: some 0.1 ms the first time, so that who lists many containers does not pay it.
        """
        try:
            return _config(self.config_text)
        except (InvalidInputError, KeyError, TypeError, ValueError) as error:
            reason = f"record of container {self.id} has no configuration ({error}); remove its directory"
            raise StoreCorrupted(self.id, reason) from None


def config_text(config: ContainerConfig) -> str:
    """A configuration as a record has it."""
    return strict_json.dumps(config_document(config)).decode()


@lru_cache(maxsize=256)
def _config(text: str) -> ContainerConfig:
    return parse_config(strict_json.loads_object(text.encode(), limit=_LIMIT))


def record_path(layout: Layout, container_id: str) -> str:
    """The file with the record of a container."""
    return f"{layout.container(container_id)}/record.json"


def write_record(layout: Layout, record: DetachedRecord, *, durable: bool = False) -> None:
    """Write the record; it is whole or as before at any time.

    Args:
        layout: The store.
        record: The record.
        durable: Whether it must survive a power loss once this returns.
    """
    document = asdict(record, recurse=True) | {"format": _FORMAT}
    write_atomic(record_path(layout, record.id), strict_json.dumps(document), durable=durable)


def _run(value: Any) -> Run | None:
    if value is None:
        return None
    supervisor = value["supervisor"]
    return Run(
        supervisor=ProcessIdentity(
            int(supervisor["pid"]), int(supervisor["start_ticks"]), str(supervisor["boot_id"])
        ),
        generation=int(value["generation"]),
        cgroup_paths=tuple(map(str, value["cgroup_paths"])),
    )


def _exit_status(value: Any) -> ExitStatus | None:
    if value is None:
        return None
    return ExitStatus(**{**value, "usage": Usage(**value["usage"])})


def _parse(data: dict[str, Any]) -> DetachedRecord:
    """Raises KeyError, TypeError or ValueError if it is not what `write_record` writes."""
    finished_at = data["finished_at"]
    return DetachedRecord(
        id=str(data["id"]),
        name=str(data["name"]),
        image_id=str(data["image_id"]),
        image_name=str(data["image_name"]),
        config_text=str(data["config_text"]),
        created_at=float(data["created_at"]),
        run=_run(data["run"]),
        ended_generation=int(data["ended_generation"]),
        exit_status=_exit_status(data["exit_status"]),
        finished_at=None if finished_at is None else float(finished_at),
    )


def read_record(layout: Layout, container_id: str) -> DetachedRecord | None:
    """The record of a container, or None if there is none.

    Raises:
        StoreCorrupted: It cannot be read as one.
    """
    path = record_path(layout, container_id)
    try:
        with open(path, "rb", buffering=0) as file:
            text = file.read(_LIMIT + 1) or b""
        data = strict_json.loads_object(text, limit=_LIMIT, what="container record")
        if data["format"] != _FORMAT:
            found = str(data["format"])[:20]
            raise StoreCorrupted(path, f"has format {found}: it needs a newer version of containerlib")
        return _parse(cast("dict[str, Any]", data))
    except (FileNotFoundError, NotADirectoryError):
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
    return [name for name in names if name.isalnum() and os.path.exists(record_path(layout, name))]
