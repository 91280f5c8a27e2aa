"""Makes an entry of this engine from the record of a detached container that another process has made."""

from __future__ import annotations

from typing import TYPE_CHECKING

from containerlib._native.channel import read_exit_record
from containerlib.container.entry import ContainerEntry
from containerlib.container.state import ContainerState
from containerlib.runtime.adopted import AdoptedProcess
from containerlib.runtime.config import ContainerConfig
from containerlib.runtime.process import exit_status
from containerlib.runtime.runner import Layers

if TYPE_CHECKING:
    from containerlib.container.detached import DetachedRecord
    from containerlib.container.session import Session

__all__ = ["adopt"]


def adopt(session: Session, record: DetachedRecord) -> ContainerEntry:
    """The entry for `record`. What its process does is seen from now on."""
    config = ContainerConfig(
        args=record.args,
        labels=record.labels,
        name=record.name,
        stop_signal=record.stop_signal,
        stop_timeout_s=record.stop_timeout_s,
        lifetime="detached",
        remove=record.remove,
    )
    directory = session.stores.layout.container(record.id)
    entry = ContainerEntry(
        session=session,
        id=record.id,
        name=record.name,
        image_id=record.image_id,
        image_name=record.image_name,
        config=config,
        layers=Layers(lowers=(), directory=directory),
        created_at=record.created_at,
        is_adopted=True,
    )
    if record.process is not None and record.supervisor is not None:
        entry.state = ContainerState.RUNNING
        entry.process = AdoptedProcess(
            record.process, record.supervisor, f"{directory}/exit", record.cgroup_paths, entry.on_exit
        )
    elif (ended := read_exit_record(f"{directory}/exit")) is not None:
        # It was over before its maker could say which process it was.
        entry.state = ContainerState.EXITED
        entry.exit_status = exit_status(ended, None)
    return entry
