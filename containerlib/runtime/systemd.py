"""Asks systemd for a scope: a control group that it makes around a process of ours and leaves to us.

Speaks D-Bus on the socket on which systemd serves root directly, so no bus need be running. In: a process and
a slice. Out: the path of the group. The scope ends by itself when nothing runs in it any more; systemd then
removes whatever is below it.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any, Final

from containerlib._util.failpoint import reach
from containerlib.errors import CgroupError, OperationTimeout

if TYPE_CHECKING:
    import socket

__all__ = ["SOCKET", "find_problem", "start_scope"]

SOCKET: Final = "/run/systemd/private"

_BUS_NAME: Final = "org.freedesktop.systemd1"
_PATH: Final = "/org/freedesktop/systemd1"
_MANAGER: Final = "org.freedesktop.systemd1.Manager"
_READ_BYTES: Final = 65536
_STOP_US: Final = 10_000_000
_UNLIMITED: Final = 2**64 - 1


def find_problem(path: str = SOCKET) -> str | None:
    """Say why systemd cannot be asked on this host, `None` if it can be.

    Cost: two system calls.
    Source: sd_booted(3).
    """
    if not os.path.isdir("/run/systemd/system"):
        return "the host was not booted by systemd"
    if not os.access(path, os.W_OK, effective_ids=True):
        return f"{path} is not there, or not to be used by user {os.geteuid()}"
    return None


def start_scope(
    name: str, pid: int, *, slice_name: str, description: str, path: str = SOCKET, timeout_s: float = 25.0
) -> None:
    """Have a scope made around a process, and wait until the process is in it.

    All controllers that systemd knows are passed on to the scope, and it is left to us (``Delegate=yes``).

    Args:
        name: Of the unit; must end in ``.scope`` and not be in use.
        pid: The process.
        slice_name: The slice that the scope goes into.
        description: What ``systemctl status`` shows.
        path: Socket of systemd.
        timeout_s: How long it may take.

    Raises:
        CgroupError: systemd refused, or is not to be reached.
        OperationTimeout: It did not answer in time.

    Cost: two messages each way; systemd starts a job, which takes it some milliseconds.
    Source: org.freedesktop.systemd1(5), StartTransientUnit; systemd.resource-control(5), Delegate=.
    """
    from jeepney import DBusAddress, new_method_call  # noqa: PLC0415 - only on hosts that systemd runs

    properties: list[tuple[str, tuple[str, Any]]] = [
        ("Description", ("s", description)),
        ("Slice", ("s", slice_name)),
        ("PIDs", ("au", [pid])),
        ("Delegate", ("b", True)),
        ("TasksMax", ("t", _UNLIMITED)),
        ("TimeoutStopUSec", ("t", _STOP_US)),
        ("CollectMode", ("s", "inactive-or-failed")),
    ]
    call = new_method_call(
        DBusAddress(_PATH, bus_name=_BUS_NAME, interface=_MANAGER),
        "StartTransientUnit",
        "ssa(sv)a(sa(sv))",
        (name, "fail", properties, []),
    )
    reach("ask systemd for a scope", name)
    try:
        _call_and_wait(call, path, time.monotonic() + timeout_s)
    except TimeoutError:
        raise OperationTimeout(
            f"systemd did not make {name} within {timeout_s:g} s", timeout_s=timeout_s
        ) from None
    except (OSError, ValueError, LookupError) as error:
        if isinstance(error, CgroupError):
            raise
        raise CgroupError(f"cannot ask systemd for {name}: {error}", controller="", path=path) from error


def _call_and_wait(call: Any, path: str, deadline: float) -> None:
    """Send a call that starts a job, and wait for the end of the job."""
    from jeepney import Parser  # noqa: PLC0415
    from jeepney.io.blocking import prep_socket  # noqa: PLC0415

    with prep_socket(path, timeout=max(deadline - time.monotonic(), 0)) as connection:
        connection.settimeout(max(deadline - time.monotonic(), 0))
        connection.sendall(call.serialise(serial=1))
        job = None
        ended: dict[str, str] = {}
        parser = Parser()
        while job is None or job not in ended:
            message = _receive(connection, parser, deadline)
            job = _job_of(message) or job
            ended.update(_ended_job(message))
    if ended[job] != "done":
        raise CgroupError(f"systemd says that its job is {ended[job]!r}", controller="", path=path)


def _receive(connection: socket.socket, parser: Any, deadline: float) -> Any:
    while (message := parser.get_next_message()) is None:
        connection.settimeout(max(deadline - time.monotonic(), 1e-6))
        data = connection.recv(_READ_BYTES)
        if not data:
            raise ConnectionResetError("it has closed the connection")
        parser.add_data(data)
    return message


def _job_of(message: Any) -> str | None:
    """The job that a reply to our call names."""
    from jeepney import HeaderFields, MessageType  # noqa: PLC0415

    if message.header.fields.get(HeaderFields.reply_serial) != 1:
        return None
    if message.header.message_type is MessageType.error:
        name = message.header.fields.get(HeaderFields.error_name, "an error")
        text = message.body[0] if message.body else ""
        raise CgroupError(f"systemd refused: {text or name}", controller="", path=SOCKET)
    return str(message.body[0])


def _ended_job(message: Any) -> dict[str, str]:
    """The job that a signal tells the end of, and how it ended."""
    from jeepney import HeaderFields, MessageType  # noqa: PLC0415

    is_end = (
        message.header.message_type is MessageType.signal
        and message.header.fields.get(HeaderFields.member) == "JobRemoved"
    )
    return {str(message.body[1]): str(message.body[3])} if is_end else {}
