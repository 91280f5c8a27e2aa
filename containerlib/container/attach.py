"""Getting hold of the streams of a detached container."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Literal

from attrs import frozen

from containerlib.container.log_files import LOST, START, STDERR, LogFiles
from containerlib.container.state import check_state
from containerlib.errors import InvalidState
from containerlib.runtime.detached import DetachedProcess

if TYPE_CHECKING:
    from containerlib.container.entry import ContainerEntry

__all__ = ["Attached", "Stream", "attach", "written_before"]

Stream = Literal["stdout", "stderr"]


@frozen(kw_only=True)
class Attached:
    """Descriptors, all of them the caller's to close.

    Attributes:
        stdin: To write to; -1 if the container reads nothing.
        stdout: To read from.
        stderr: To read from.
        is_terminal: Whether `stdin` is the container's terminal.
        log_ns: The time of the last record in the log that does not come out of `stdout` or `stderr`.
    """

    stdin: int
    stdout: int
    stderr: int
    is_terminal: bool
    log_ns: int = 0


def attach(entry: ContainerEntry) -> Attached:
    """Have the output of a detached container passed on from now on.

    Raises:
        InvalidState: It does not run, is not detached, or its supervisor was killed.
    """
    check_state("attach to", entry.refresh(), entry.name)
    control = entry.process.connect() if isinstance(entry.process, DetachedProcess) else None
    if control is None:
        is_alone = entry.is_detached
        raise InvalidState(
            f"cannot attach to container {entry.name!r}: "
            + ("its supervisor was killed" if is_alone else "its streams were given to it at its start"),
            expected="supervised",
            actual="alone" if is_alone else "lifetime=process",
        )
    opened: list[int] = []
    with control:
        try:
            opened += os.pipe2(os.O_CLOEXEC)
            opened += os.pipe2(os.O_CLOEXEC)
            stdin, is_terminal, log_ns = control.attach(opened[1], opened[3])
        except BaseException:
            for fd in opened[::2]:
                os.close(fd)
            raise
        finally:
            for fd in opened[1::2]:
                os.close(fd)
    entry.tell("attach")
    return Attached(stdin=stdin, stdout=opened[0], stderr=opened[2], is_terminal=is_terminal, log_ns=log_ns)


def written_before(entry: ContainerEntry, until_ns: int | None = None) -> list[tuple[Stream, bytes]]:
    """What the log has of a container's last start, in the pieces in which it came.

    Args:
        entry: A detached container.
        until_ns: The time of the last record that counts; None for all there are.

    Raises:
        StoreCorrupted: The log is damaged.

    Cost: reads the whole log.
    """
    found: list[tuple[Stream, bytes]] = []
    files = LogFiles(f"{entry.layers.directory}/log")
    try:
        for piece in files.read():
            if until_ns is not None and piece.time_ns > until_ns:
                break
            if piece.stream == START:
                found.clear()
            elif piece.stream != LOST:
                found.append(("stderr" if piece.stream == STDERR else "stdout", piece.data))
    finally:
        files.close()
    return found
