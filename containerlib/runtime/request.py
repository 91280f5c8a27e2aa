"""The request for a process, with everything that goes with it, open for as long as it takes to send it."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from containerlib._native.path import kernel_features
from containerlib._native.spawn import SpawnRequest
from containerlib.errors import ContainerlibError, InvalidOption

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from containerlib._native.spec import NativeSpec
    from containerlib.runtime.bind import Binds
    from containerlib.runtime.cgroup_container import ContainerCgroup
    from containerlib.runtime.cgroup_exec import ExecCgroup
    from containerlib.runtime.files import JoinedNetwork

__all__ = ["joined_fds", "requested"]


def joined_fds(network: JoinedNetwork | None) -> tuple[int, ...]:
    """The namespaces that a new container joins."""
    return () if network is None else (network.namespace_fd,)


@contextlib.contextmanager
def requested(
    native: NativeSpec,
    stdio: tuple[int, int, int],
    cgroup: ContainerCgroup | ExecCgroup | None,
    binds: Binds,
    namespace_fds: Sequence[int] = (),
) -> Iterator[SpawnRequest]:
    """The request for a process, and everything that goes with it, open for the length of a block.

    Raises:
        InvalidOption: A text holds a NUL character.
    """
    try:
        with _ways_in(cgroup) as (join_fds, cgroup_fd):
            yield SpawnRequest(
                spec=native,
                stdio=stdio,
                join_fds=join_fds,
                cgroup_fd=cgroup_fd,
                mount_fds=binds.fds,
                namespace_fds=namespace_fds,
            )
    except ValueError as error:
        if isinstance(error, ContainerlibError):
            raise
        raise InvalidOption("text", str(error), "no option may hold a NUL character") from None


@contextlib.contextmanager
def _ways_in(cgroup: ContainerCgroup | ExecCgroup | None) -> Iterator[tuple[list[int], int | None]]:
    """Descriptors by which the process joins its control groups, and the one of the group it is born in.

    Without clone3 nobody is born in a group of version 2; it is then joined like the others.
    """
    if cgroup is None:
        yield [], None
        return
    if cgroup.cgroup2_fd is None or "clone3" in kernel_features():
        yield cgroup.join_fds, cgroup.cgroup2_fd
        return
    fd = os.open("cgroup.procs", os.O_WRONLY | os.O_CLOEXEC, dir_fd=cgroup.cgroup2_fd)
    try:
        yield [*cgroup.join_fds, fd], None
    finally:
        os.close(fd)
