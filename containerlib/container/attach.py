"""Getting hold of the streams of a detached container."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from attrs import frozen

from containerlib.container.state import check_state
from containerlib.errors import InvalidState
from containerlib.runtime.detached import DetachedProcess

if TYPE_CHECKING:
    from containerlib.container.entry import ContainerEntry

__all__ = ["Attached", "attach"]


@frozen(kw_only=True)
class Attached:
    """Descriptors, all of them the caller's to close.

    Attributes:
        stdin: To write to; -1 if the container reads nothing.
        stdout: To read from.
        stderr: To read from.
        is_terminal: Whether `stdin` is the container's terminal.
    """

    stdin: int
    stdout: int
    stderr: int
    is_terminal: bool


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
            stdin, is_terminal = control.attach(opened[1], opened[3])
        except BaseException:
            for fd in opened[::2]:
                os.close(fd)
            raise
        finally:
            for fd in opened[1::2]:
                os.close(fd)
    entry.tell("attach")
    return Attached(stdin=stdin, stdout=opened[0], stderr=opened[2], is_terminal=is_terminal)
