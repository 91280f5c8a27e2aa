"""What the process of the networks is told by those who start containers, and its start if there is none."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import socket
import sys
from typing import TYPE_CHECKING, Any

from containerlib._native.companion import start_companion
from containerlib._util import file_lock
from containerlib._util.atomic_file import make_directory, open_lasting, remove_file
from containerlib._util.failpoint import reach
from containerlib.errors import ResourceInUse, UnsupportedHost
from containerlib.network.firewall import is_guarded

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from containerlib.network.record import NetworkRecord
    from containerlib.store.layout import Layout

__all__ = ["LOCK", "SERVED", "attend", "give_up_ended", "hand_over", "leave", "release"]

_CODE = """import json, sys
sys.path[:] = json.loads(sys.argv.pop())
from containerlib.network.process import main
main()"""
SERVED, LOCK = "served-", "lock"
"""Files of the process's directory: one for each network that it serves, and the lock of who changes that."""

_SOCKET, _ALIVE = "control", "alive"
_PORT, _BACKLOG = 53, 64
_MOST_FDS = 100
_DEADLINE_S = 30.0


def attend(layout: Layout, record: NetworkRecord, leases: str) -> None:
    """Have a network's names resolved from now on; the bridge and its address are there.

    Who comes first makes the sockets: what is asked from here on is answered, if the process is still on its
    way a few milliseconds later.

    Args:
        layout: Of the store.
        record: The network.
        leases: The directory of its leases, in which there is one already whose device is there.

    Raises:
        ResourceInUse: Somebody else answers on that address.
        UnsupportedHost: The process cannot be started.

    Cost: 40 us if the process is there and knows the network.
    """
    directory = _directory(layout)
    with file_lock.locked(f"{directory}/{LOCK}", shared=True):
        if _is_alive(directory) and os.path.exists(f"{directory}/{SERVED}{record.id}"):
            return
    with file_lock.locked(f"{directory}/{LOCK}"):
        _ensure_process(directory)
        served = f"{directory}/{SERVED}{record.id}"
        if os.path.exists(served):
            return
        with contextlib.ExitStack() as stack:
            sockets = [
                stack.enter_context(_bound(record, kind)) for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM)
            ]
            message = {
                "do": "serve",
                "record": record.document(),
                "leases": leases,
                "guarded": is_guarded(),
                "store": [layout.root, layout.run_root],
            }
            _tell(directory, message, sockets)
        os.close(open_lasting(served))


def hand_over(
    layout: Layout,
    record: NetworkRecord,
    container_id: str,
    address: str,
    listeners: Iterable[tuple[socket.socket, int]],
    published: Sequence[tuple[str, str, int, int]],
) -> None:
    """Have the process hold sockets that ports are published by, and pass on what comes there.

    Args:
        layout: Of the store.
        record: The container's network, which is attended.
        container_id: Whose ports they are; as long as it runs.
        address: The container's.
        listeners: Sockets, each with the port in the container; the caller closes them.
        published: The same as the kernel has it, to be taken back with them; see `translation`.
    """
    rest = list(listeners)
    while rest:
        chunk, rest = rest[:_MOST_FDS], rest[_MOST_FDS:]
        message = {
            "do": "publish",
            "network": record.id,
            "container": container_id,
            "address": address,
            "ports": [port for _, port in chunk],
            "published": published,
        }
        _tell(_directory(layout), message, [sock for sock, _ in chunk])


def release(layout: Layout, container_id: str) -> bool:
    """Have a container's ports given up, before this returns; False if there is no process that holds any."""
    return _ask(layout, {"do": "release", "container": container_id})


def give_up_ended(layout: Layout) -> None:
    """Have the ports given up of those who do not run any more, though nobody has said so yet."""
    _ask(layout, {"do": "look"})


def leave(layout: Layout, record: NetworkRecord) -> None:
    """Have a network forgotten, which is about to be removed; nothing happens if there is no process."""
    _ask(layout, {"do": "leave", "network": record.id})


def _directory(layout: Layout) -> str:
    return f"{layout.run_root}/network-process"


def _is_alive(directory: str) -> bool:
    """Whether the process is there: it holds a lock as long as it lives."""
    try:
        fd = os.open(f"{directory}/{_ALIVE}", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    else:
        return False
    finally:
        os.close(fd)


def _ensure_process(directory: str) -> None:
    """Start the process unless it is there. The caller holds the lock."""
    if _is_alive(directory):
        return
    make_directory(directory)
    for name in os.listdir(directory):
        # Of one that was killed.
        if name != LOCK:
            remove_file(f"{directory}/{name}")
    reach("start network process", directory)
    alive = open_lasting(f"{directory}/{_ALIVE}")
    try:
        fcntl.flock(alive, fcntl.LOCK_EX)
        with _listener(directory) as listener:
            start_companion(_command(directory), [listener.fileno(), alive])
    except OSError as error:
        raise UnsupportedHost(
            "names in networks", needed="a Python in sys.executable", found=f"{sys.executable!r}: {error}"
        ) from None
    finally:
        os.close(alive)


def _command(directory: str) -> Sequence[str]:
    """As this interpreter is, but with nothing of the caller's environment."""
    here = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    paths = [here, *(os.path.abspath(each) for each in sys.path if each and each != here)]
    return [_interpreter(), "-I", "-S", "-c", _CODE, directory, json.dumps(paths)]


def _interpreter() -> str:
    """The program of this interpreter, which may be part of another one: that would start itself again."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for path in (sys.executable, os.path.join(sys.base_prefix, "bin", version)):
        if path and os.path.basename(path).startswith(("python", "pypy")) and os.access(path, os.X_OK):
            return path
    raise UnsupportedHost(
        "names in networks", needed="a Python in sys.executable", found=repr(sys.executable)
    )


def _listener(directory: str) -> socket.socket:
    made = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        with _short(directory) as short:
            made.bind(f"{short}/{_SOCKET}")
        made.listen(_BACKLOG)
    except BaseException:
        made.close()
        raise
    return made


@contextlib.contextmanager
def _short(directory: str) -> Iterator[str]:
    """The directory by a name that fits into the address of a socket."""
    fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{fd}"
    finally:
        os.close(fd)


def _bound(record: NetworkRecord, kind: int) -> socket.socket:
    made = socket.socket(socket.AF_INET, kind)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, kind == socket.SOCK_STREAM)
        made.bind((str(record.gateway), _PORT))
        if kind == socket.SOCK_STREAM:
            made.listen(_BACKLOG)
    except OSError as error:
        made.close()
        if error.errno != errno.EADDRINUSE:
            raise
        raise ResourceInUse(
            f"network {record.name!r}: somebody on this host answers on port {_PORT} of all its addresses; "
            "have that listen on certain addresses only"
        ) from None
    return made


def _tell(directory: str, message: dict[str, Any], sockets: Sequence[socket.socket]) -> None:
    """Send a message; the process may be on its way still."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
        connection.settimeout(_DEADLINE_S)
        with _short(directory) as short:
            connection.connect(f"{short}/{_SOCKET}")
        socket.send_fds(connection, [json.dumps(message).encode()], [each.fileno() for each in sockets])


def _ask(layout: Layout, message: dict[str, Any]) -> bool:
    """Send a message, and wait until it is done; False if nobody is there."""
    directory = _directory(layout)
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
        connection.settimeout(_DEADLINE_S)
        with _short(directory) as short:
            connection.connect(f"{short}/{_SOCKET}")
        connection.send(json.dumps(message).encode())
        return bool(connection.recv(1))
    return False
