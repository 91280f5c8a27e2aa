"""Putting things right after a reboot or a kill: what is gone is cleaned up, what shall run is started again.

An engine cleans up by itself when it makes its first container. Starting again is asked for: without a daemon
somebody has to be there who does it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import frozen

from containerlib.container.detached_entry import DetachedEntry
from containerlib.container.recovery import recover, tidy
from containerlib.container.start import start
from containerlib.container.state import ContainerState
from containerlib.errors import ContainerlibError, InvalidState
from containerlib.store.boot import boot_id

if TYPE_CHECKING:
    from containerlib.container.session import Session

__all__ = ["RecoveryReport", "restore"]


@frozen(kw_only=True)
class RecoveryReport:
    """What `Engine.recover` has found and done.

    Attributes:
        engines: Ids of engines that ended without cleaning up, which was done now.
        ended: Names of containers that ended with those engines.
        lost: Names of detached containers of which nobody knows how they ended: the host went down, or their
            supervisor was killed with them.
        started: Names of detached containers that were started again, as their policies say.
        failed: Name and reason for those that could not be started.
    """

    engines: tuple[str, ...] = ()
    ended: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()
    started: tuple[str, ...] = ()
    failed: tuple[tuple[str, str], ...] = ()


def restore(session: Session, *, restart: bool) -> RecoveryReport:
    """Clean up what dead engines have left, find out how all containers stand, start those that shall run.

    Args:
        session: The engine that does it.
        restart: Whether to start any.
    """
    session.enter()
    cleaned = session.take_recovered() + recover(session.stores.layout)
    tidy(session.stores.layout)
    entries = [entry for entry in session.entries() if isinstance(entry, DetachedEntry)]
    lost = tuple(entry.name for entry in entries if _is_lost(entry))
    started: list[str] = []
    failed: list[tuple[str, str]] = []
    for entry in entries if restart else ():
        if not _shall_run(entry):
            continue
        try:
            start(entry)
            started.append(entry.name)
        except InvalidState:
            continue  # somebody else has started or removed it
        except (ContainerlibError, OSError) as error:
            failed.append((entry.name, str(error)))
    return RecoveryReport(
        engines=cleaned.engines,
        ended=cleaned.containers,
        lost=lost,
        started=tuple(started),
        failed=tuple(failed),
    )


def _is_lost(entry: DetachedEntry) -> bool:
    """Whether it has ended without anybody's seeing how."""
    status = entry.exit_status
    return entry.state == ContainerState.EXITED and status is not None and status.exit_code is None


def _shall_run(entry: DetachedEntry) -> bool:
    """Whether its policy wants it back, as Docker's daemon reads that when it is started."""
    policy = entry.config.restart.name
    if entry.state != ContainerState.EXITED or policy == "no":
        return False
    run = entry.record.run
    is_of_another_boot = run is not None and run.supervisor.boot_id != boot_id()
    return _is_lost(entry) or (policy == "always" and is_of_another_boot)
