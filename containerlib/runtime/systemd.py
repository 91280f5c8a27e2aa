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
    from collections.abc import Callable, Mapping

__all__ = ["SOCKET", "find_problem", "set_properties", "start_scope", "stop_unit"]

SOCKET: Final = "/run/systemd/private"

_BUS_NAME: Final = "org.freedesktop.systemd1"
_PATH: Final = "/org/freedesktop/systemd1"
_MANAGER: Final = "org.freedesktop.systemd1.Manager"
_READ_BYTES: Final = 65536
_STOP_US: Final = 10_000_000
_UNLIMITED: Final = 2**64 - 1
_NO_UNIT: Final = "not loaded"
_LOOK_S: Final = 0.05


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
    name: str,
    pid: int,
    *,
    slice_name: str,
    description: str,
    properties: Mapping[str, tuple[str, Any]] | None = None,
    path: str = SOCKET,
    timeout_s: float = 25.0,
) -> None:
    """Have a scope made around a process, and wait until the process is in it.

    All controllers that systemd knows are passed on to the scope, and it is left to us (``Delegate=yes``).

    Args:
        name: Of the unit; must end in ``.scope`` and not be in use.
        pid: The process.
        slice_name: The slice that the scope goes into.
        description: What ``systemctl status`` shows.
        properties: Further ones by name, each with its D-Bus signature; they go before our own.
        path: Socket of systemd.
        timeout_s: How long it may take.

    Raises:
        CgroupError: systemd refused, or is not to be reached.
        OperationTimeout: It did not answer in time.

    Cost: two messages each way; systemd starts a job, which takes it some milliseconds.
    Source: org.freedesktop.systemd1(5), StartTransientUnit; systemd.resource-control(5), Delegate=.
    """
    wanted: dict[str, tuple[str, Any]] = {
        "Description": ("s", description),
        "Slice": ("s", slice_name),
        "PIDs": ("au", [pid]),
        "Delegate": ("b", True),
        "TasksMax": ("t", _UNLIMITED),
        "TimeoutStopUSec": ("t", _STOP_US),
        "CollectMode": ("s", "inactive-or-failed"),
        **(properties or {}),
    }
    reach("ask systemd for a scope", name)
    _ask(
        "StartTransientUnit",
        "ssa(sv)a(sa(sv))",
        (name, "fail", list(wanted.items()), []),
        path,
        timeout_s,
        starts_job=True,
    )


def set_properties(
    name: str, properties: Mapping[str, tuple[str, Any]], *, path: str = SOCKET, timeout_s: float = 25.0
) -> None:
    """Give a unit that is there other properties, until it ends.

    Args:
        name: Of the unit.
        properties: By name, each with its D-Bus signature.
        path: Socket of systemd.
        timeout_s: How long it may take.

    Raises:
        CgroupError: systemd refused, or is not to be reached.
        OperationTimeout: It did not answer in time.

    Source: org.freedesktop.systemd1(5), SetUnitProperties.
    """
    reach("set properties of a unit", name)
    body = (name, True, list(properties.items()))
    _ask("SetUnitProperties", "sba(sv)", body, path, timeout_s, starts_job=False)


def stop_unit(name: str, *, is_gone: Callable[[], bool], path: str = SOCKET, timeout_s: float = 25.0) -> None:
    """End a unit, and wait until systemd has. One that is not there any more is none to end.

    Args:
        name: Of the unit; what still runs in it is killed.
        is_gone: Whether what systemd has made is gone: of a unit that has just ended by itself, some versions
            (252) answer nothing at all.
        path: Socket of systemd.
        timeout_s: How long it may take.

    Raises:
        CgroupError: systemd refused, or is not to be reached.
        OperationTimeout: It did not answer in time.

    Source: org.freedesktop.systemd1(5), StopUnit.
    """
    reach("end a unit", name)
    if is_gone():
        return
    try:
        _ask("StopUnit", "ss", (name, "replace"), path, timeout_s, starts_job=True, is_over=is_gone)
    except CgroupError as error:
        if _NO_UNIT not in str(error):
            raise


def _never() -> bool:
    return False


def _ask(
    method: str,
    signature: str,
    body: tuple[Any, ...],
    path: str,
    timeout_s: float,
    *,
    starts_job: bool,
    is_over: Callable[[], bool] = _never,
) -> None:
    from jeepney import DBusAddress, new_method_call  # noqa: PLC0415 - only on hosts that systemd runs

    name = body[0]
    address = DBusAddress(_PATH, bus_name=_BUS_NAME, interface=_MANAGER)
    call = new_method_call(address, method, signature, body)
    try:
        _call_and_wait(call, path, time.monotonic() + timeout_s, starts_job=starts_job, is_over=is_over)
    except TimeoutError:
        raise OperationTimeout(
            f"systemd did not answer about {name} within {timeout_s:g} s", timeout_s=timeout_s
        ) from None
    except (OSError, ValueError, LookupError) as error:
        if isinstance(error, CgroupError):
            raise
        raise CgroupError(f"cannot ask systemd for {name}: {error}", controller="", path=path) from error


def _call_and_wait(
    call: Any, path: str, deadline: float, *, starts_job: bool, is_over: Callable[[], bool]
) -> None:
    """Send a call, and wait for the answer, and for the end of the job if it starts one."""
    from jeepney import Parser  # noqa: PLC0415
    from jeepney.io.blocking import prep_socket  # noqa: PLC0415

    with prep_socket(path, timeout=max(deadline - time.monotonic(), 0)) as connection:
        connection.settimeout(max(deadline - time.monotonic(), 0))
        connection.sendall(call.serialise(serial=1))
        job = None
        ended: dict[str, str] = {}
        parser = Parser()
        while job is None or (starts_job and job not in ended):
            message = _receive(connection, parser, deadline, is_over)
            if message is None:
                return
            job = _job_of(message) if job is None else job
            ended.update(_ended_job(message))
    if starts_job and ended[job] != "done":
        raise CgroupError(f"systemd says that its job is {ended[job]!r}", controller="", path=path)


def _receive(
    connection: socket.socket, parser: Any, deadline: float, is_over: Callable[[], bool]
) -> Any | None:
    """The next message; None if what it would be about is over."""
    while (message := parser.get_next_message()) is None:
        left = deadline - time.monotonic()
        connection.settimeout(max(min(left, _LOOK_S), 1e-6))
        try:
            data = connection.recv(_READ_BYTES)
        except TimeoutError:
            if is_over():
                return None
            if left <= _LOOK_S:
                raise
            continue
        if not data:
            raise ConnectionResetError("it has closed the connection")
        parser.add_data(data)
    return message


def _job_of(message: Any) -> str | None:
    """The job that a reply to our call names; empty if it names none."""
    from jeepney import HeaderFields, MessageType  # noqa: PLC0415

    if message.header.fields.get(HeaderFields.reply_serial) != 1:
        return None
    if message.header.message_type is MessageType.error:
        name = message.header.fields.get(HeaderFields.error_name, "an error")
        text = message.body[0] if message.body else ""
        raise CgroupError(f"systemd refused: {text or name}", controller="", path=SOCKET)
    return str(message.body[0]) if message.body else ""


def _ended_job(message: Any) -> dict[str, str]:
    """The job that a signal tells the end of, and how it ended."""
    from jeepney import HeaderFields, MessageType  # noqa: PLC0415

    is_end = (
        message.header.message_type is MessageType.signal
        and message.header.fields.get(HeaderFields.member) == "JobRemoved"
    )
    return {str(message.body[1]): str(message.body[3])} if is_end else {}
