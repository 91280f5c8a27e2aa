"""User namespaces: which numbers of users and groups inside are which outside.

In: mappings of a configuration. Out: what /proc takes, numbers of the host, and namespaces by descriptor.

Source: user_namespaces(7); OCI runtime-spec 1.2, config-linux.md.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from containerlib._native.spawn import Starter
from containerlib._util.failpoint import reach
from containerlib.errors import InvalidOption
from containerlib.oci.runtime_spec import IdMapping
from containerlib.runtime.identity import pid_of
from containerlib.runtime.lower import NAMESPACE_FLAGS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from containerlib.oci.runtime_spec import Linux, Process

__all__ = ["IDENTITY", "check_ids", "host_id", "map_ids", "mapped_namespace"]

IDENTITY = (IdMapping(container_id=0, host_id=0, size=2**32 - 1),)
"""What a namespace without mappings gets: every number is itself."""

_MAP_BYTES = 4096


def host_id(mappings: Sequence[IdMapping], number: int) -> int | None:
    """What a number of the container's is outside; None for nothing. Without mappings it is itself."""
    for each in mappings or IDENTITY:
        if each.container_id <= number < each.container_id + each.size:
            return each.host_id + number - each.container_id
    return None


def check_ids(linux: Linux, process: Process) -> None:
    """Refuse mappings that no container could start with.

    Raises:
        InvalidOption: There are mappings and no namespace for them, or somebody who is needed is not in them.
    """
    for name, mappings in (("uid", linux.uid_mappings), ("gid", linux.gid_mappings)):
        option = f"linux.{name}Mappings"
        if not linux.has_namespace("user"):
            if mappings:
                raise InvalidOption(option, _text(mappings).strip(), "needs a namespace of type user")
            continue
        if "user" not in linux.namespaces:
            continue
        if host_id(mappings, 0) is None:
            raise InvalidOption(
                option, _text(mappings).strip(), "must map 0, to whom the container's mounts belong"
            )
        if len(_text(mappings)) >= _MAP_BYTES:
            raise InvalidOption(
                option, f"{len(mappings)} entries", "are more than the kernel takes, about 340"
            )
        wanted = (process.user.uid,) if name == "uid" else (process.user.gid, *process.user.additional_gids)
        for number in wanted:
            if host_id(mappings, number) is None:
                raise InvalidOption(f"process.user.{name}", number, f"is not in {option}")


def map_ids(pid: int, uids: Sequence[IdMapping], gids: Sequence[IdMapping]) -> None:
    """Say who is who in the user namespace of a process that was born in a new one.

    Raises:
        InvalidOption: The kernel refuses the mappings.

    Source: user_namespaces(7), "Defining user and group ID mappings".
    """
    for name, mappings in (("gid", gids), ("uid", uids)):
        text = _text(mappings or IDENTITY)
        reach("write id map", name)
        try:
            fd = os.open(f"/proc/{pid}/{name}_map", os.O_WRONLY | os.O_CLOEXEC)
            try:
                os.write(fd, text.encode())
            finally:
                os.close(fd)
        except OSError as error:
            reason = f"the kernel refuses it: {(error.strerror or '').lower()}; entries may not overlap"
            raise InvalidOption(f"{name}Mappings", text.strip(), reason) from None


@contextlib.contextmanager
def mapped_namespace(uids: Sequence[IdMapping], gids: Sequence[IdMapping]) -> Iterator[int]:
    """A user namespace with these mappings, in which nobody is, for mounts that show them.

    Raises:
        InvalidOption: The kernel refuses the mappings.
        UnsupportedHost: There are no user namespaces here.

    Cost: a process, about a millisecond.
    """
    holder = _Holder()
    try:
        pid = pid_of(holder.pidfd)
        if pid is None:
            raise InvalidOption("uidMappings", _text(uids).strip(), "the process to map them for is gone")
        map_ids(pid, uids, gids)
        fd = os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        holder.close()
    try:
        yield fd
    finally:
        os.close(fd)


class _Holder(Starter):
    """A process that does nothing but be in a user namespace."""

    def __init__(self) -> None:
        super().__init__("ctr-creator", -1, (), namespaces=NAMESPACE_FLAGS["user"])

    def close(self) -> None:
        self._end()


def _text(mappings: Sequence[IdMapping]) -> str:
    return "".join(f"{each.container_id} {each.host_id} {each.size}\n" for each in mappings)
