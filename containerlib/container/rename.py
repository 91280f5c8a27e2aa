"""Giving a container another name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import evolve

from containerlib.container.network import note_name
from containerlib.container.state import check_state
from containerlib.errors import NameInUse
from containerlib.runtime.config import check_names

if TYPE_CHECKING:
    from containerlib.container.entry import ContainerEntry

__all__ = ["rename"]


def rename(entry: ContainerEntry, name: str) -> None:
    """Give it another name; its own is no error.

    Raises:
        InvalidOption: It is no name.
        NameInUse: Another container has it.
        InvalidState: The container was removed.
    """
    check_names(name, None, None)
    config = evolve(entry.config, name=name)
    with entry.session.naming(config), entry.exclusively():
        check_state("rename", entry.state, entry.name)
        if entry.session.is_taken(name, besides=entry):
            raise NameInUse(f"container name {name!r} is in use; remove that container or choose another")
        if entry.is_detached:
            entry.session.names.claim(name, entry.id)
        former, entry.name = entry.name, name
        former_config, entry.config = entry.config, evolve(entry.config, name=name)
        try:
            entry.write_record()
        except BaseException:
            entry.name, entry.config = former, former_config
            if entry.is_detached and former != name:
                entry.session.names.release(name, entry.id)
            raise
        if entry.is_detached and former != name:
            entry.session.names.release(former, entry.id)
        note_name(entry)
        entry.tell("rename", {"oldName": former})
