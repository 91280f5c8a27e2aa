"""Filters of an OCI configuration with what the kernel is told beside them, and agents that answer for it.

In: ``linux.seccomp``. Out: what is loaded; and for ``SCMP_ACT_NOTIFY`` a message to the agent's socket.

Source: OCI runtime-spec 1.2, config-linux.md, "Seccomp"; seccomp(2), seccomp_unotify(2).
"""

from __future__ import annotations

import array
import json
import socket
from typing import TYPE_CHECKING, Any

from attrs import frozen

from containerlib.errors import ContainerlibError, InvalidOption
from containerlib.oci.runtime_spec import OCI_VERSION
from containerlib.runtime import seccomp

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["FLAGS", "AgentUnreachable", "Filter", "read_filter"]

FLAGS = {
    # The process has one thread, so that there is nothing to synchronize.
    "SECCOMP_FILTER_FLAG_TSYNC": 0x00,
    "SECCOMP_FILTER_FLAG_LOG": 0x02,
    "SECCOMP_FILTER_FLAG_SPEC_ALLOW": 0x04,
    "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV": 0x20,
}
"""What is supported of ``linux.seccomp.flags``, with SECCOMP_FILTER_FLAG_* bits."""

_NEW_LISTENER = 0x08
_WAIT_KILLABLE = 0x20
_NOTIFY = "SCMP_ACT_NOTIFY"
# By these the process gives the descriptor away, and says that it waits for somebody to have it.
_NEEDED = ("sendmsg", "write")


class AgentUnreachable(ContainerlibError):
    """The agent that a filter wants to be asked does not take the descriptor."""


@frozen(kw_only=True)
class Filter:
    """A compiled filter. `listener_path` is empty where nobody is asked."""

    code: bytes = b""
    flags: int = 0
    listener_path: str = ""
    listener_metadata: str = ""

    def tell_agent(self, fd: int, pid: int, state: Mapping[str, Any]) -> None:
        """Hand the descriptor of a loaded filter over, with the state of the container.

        Args:
            fd: The descriptor.
            pid: The process that has loaded it.
            state: The container's.

        Raises:
            AgentUnreachable: Nobody listens at the socket.
        """
        document = {
            "ociVersion": OCI_VERSION,
            "fds": ["seccompFd"],
            "pid": pid,
            "metadata": self.listener_metadata,
            "state": dict(state),
        }
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))]
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.connect(self.listener_path)
                data = json.dumps(document).encode()
                sent = connection.sendmsg([data], rights)
                connection.sendall(data[sent:])
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise AgentUnreachable(f"linux.seccomp.listenerPath {self.listener_path}: {reason}") from None


def read_filter(profile: Mapping[str, Any] | None, *, capabilities: frozenset[str], arch: str) -> Filter:
    """Compile ``linux.seccomp``.

    Args:
        profile: The object; None for no filter.
        capabilities: Of the container.
        arch: ``"x86_64"`` or ``"aarch64"``.

    Raises:
        InvalidOption: A field means nothing, or an agent is wanted and not named.
        UnsupportedHost: See `containerlib.runtime.seccomp.compile_profile`.
    """
    if profile is None:
        return Filter()
    code = seccomp.compile_profile(
        profile, capabilities=capabilities, arch=arch, skip_unknown=True, has_agent=True
    )
    path, metadata = profile.get("listenerPath") or "", profile.get("listenerMetadata") or ""
    if metadata and not path:
        raise InvalidOption("linux.seccomp.listenerMetadata", metadata, "needs a listenerPath")
    flags = _flags(profile)
    if not _asks(profile):
        return Filter(code=code, flags=flags & ~_WAIT_KILLABLE)
    if not isinstance(path, str) or not path.startswith("/"):
        raise InvalidOption(
            "linux.seccomp.listenerPath", path, f"{_NOTIFY} needs the path of an agent's socket"
        )
    return Filter(code=code, flags=flags | _NEW_LISTENER, listener_path=path, listener_metadata=str(metadata))


def _flags(profile: Mapping[str, Any]) -> int:
    asked = profile.get("flags") or []
    if not isinstance(asked, list) or not all(isinstance(flag, str) for flag in asked):
        raise InvalidOption("linux.seccomp.flags", asked, "must be a list of texts")
    unknown = [flag for flag in asked if flag not in FLAGS]
    if unknown:
        raise InvalidOption("linux.seccomp.flags", unknown[0], f"is none of {', '.join(FLAGS)}")
    return sum(FLAGS[flag] for flag in set(asked))


def _asks(profile: Mapping[str, Any]) -> bool:
    """Whether the kernel asks anybody.

    Raises:
        InvalidOption: It would about what the process needs to get that far.
    """
    if profile.get("defaultAction") == _NOTIFY:
        raise InvalidOption(
            "linux.seccomp.defaultAction", _NOTIFY, "would hold up the process before it begins"
        )
    asked = [
        name
        for entry in profile.get("syscalls") or ()
        if entry["action"] == _NOTIFY
        for name in entry.get("names") or [entry["name"]]
    ]
    for name in _NEEDED:
        if name in asked:
            raise InvalidOption(
                "linux.seccomp.syscalls", name, f"{_NOTIFY} would hold up the process before it begins"
            )
    return bool(asked)
