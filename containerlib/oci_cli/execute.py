"""``exec``: a further process in a running container."""

from __future__ import annotations

import contextlib
import json
import os
from typing import TYPE_CHECKING

from attrs import evolve, frozen

from containerlib._native.channel import close_all
from containerlib._native.creator import end
from containerlib._native.path import open_in_root
from containerlib.oci.runtime_config import parse_config, parse_process
from containerlib.oci_cli.create import identity_of, kept_fds, send_console, write_pid_file
from containerlib.oci_cli.errors import OciError
from containerlib.runtime.foreign import join
from containerlib.runtime.foreign_spec import fit_process, host_of
from containerlib.runtime.host import HostFacts

if TYPE_CHECKING:
    from containerlib._native.channel import Channel
    from containerlib.oci.runtime_spec import Process, Spec
    from containerlib.oci_cli.log import Log
    from containerlib.oci_cli.store import Container, Store

__all__ = ["ExecOptions", "execute"]

_PASSWD_LIMIT = 10 << 20


@frozen(kw_only=True)
class ExecOptions:
    """What ``exec`` is told.

    Attributes:
        process_file: A file that describes the process; then the options of the process itself do not count.
        args: The command.
        cwd: Its working directory; empty for that of the container's process.
        env: Further variables.
        terminal: Whether it has a terminal.
        user: Its user, ``uid[:gid]``; empty for that of the container's process.
        additional_gids: Further groups.
        caps: Further capabilities.
        no_new_privs: Whether it can gain no privileges.
        console_socket: Path of the socket that takes the terminal.
        pid_file: Where the process id is written.
        preserve_fds: How many descriptors from 3 up it has.
        ignore_paused: Whether it is started in a paused container, too, where it stands still.
        takes_terminal: Whether the caller relays the terminal itself.
    """

    process_file: str = ""
    args: tuple[str, ...] = ()
    cwd: str = ""
    env: tuple[str, ...] = ()
    terminal: bool = False
    user: str = ""
    additional_gids: tuple[int, ...] = ()
    caps: tuple[str, ...] = ()
    no_new_privs: bool = False
    console_socket: str = ""
    pid_file: str = ""
    preserve_fds: int = 0
    ignore_paused: bool = False
    takes_terminal: bool = False


def execute(store: Store, container_id: str, options: ExecOptions, log: Log) -> Channel:
    """Start a process in a container, and return when its command was executed.

    Raises:
        ContainerlibError: The container does not run, or the host refused.
    """
    container = store.get(container_id)
    status = container.status
    if status == "stopped":
        raise OciError("cannot exec in a stopped container")
    if status == "paused" and not options.ignore_paused:
        raise OciError("cannot exec in a paused container (use --ignore-paused to override)")
    spec = parse_config(container.config())
    process = _process(spec, options)
    if process.terminal and not (options.takes_terminal or options.console_socket):
        raise OciError("the process has a terminal: name a socket that takes it, by --console-socket")
    host = HostFacts.probe()
    fitted = fit_process(process, host_of(spec, host), lambda path: _read(container, path), log.warning)
    with contextlib.ExitStack() as undo:
        null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        undo.callback(os.close, null)
        joins = container.cgroup.open_join_fds()
        undo.callback(close_all, joins)
        channel = join(
            fitted,
            host,
            spec.seccomp,
            container.process.pid,
            linux=spec.linux,
            stdio=(null, null, null) if fitted.terminal else (0, 1, 2),
            join_fds=joins,
            kept_fds=kept_fds(options.preserve_fds),
            on_listener=lambda rules, fd, pidfd: rules.tell_agent(
                fd, identity_of(pidfd).pid, container.state()
            ),
        )
    try:
        if options.console_socket:
            send_console(options.console_socket, channel.console_fd)
        # One that is over so soon has a number as long as nobody has waited for it.
        write_pid_file(options.pid_file, identity_of(channel.pidfd).pid)
    except BaseException:
        end(channel)
        raise
    return channel


def _process(spec: Spec, options: ExecOptions) -> Process:
    if options.process_file:
        try:
            with open(options.process_file, "rb") as file:
                return parse_process(json.load(file))
        except (OSError, ValueError) as error:
            if isinstance(error, OSError) or type(error) is json.JSONDecodeError:
                raise OciError(f"{options.process_file}: {error}") from None
            raise
    if not options.args:
        raise OciError("process args cannot be empty")
    process = spec.process
    capabilities = process.capabilities
    if options.caps:
        more = frozenset(options.caps)
        capabilities = evolve(
            capabilities,
            bounding=capabilities.bounding | more,
            effective=capabilities.effective | more,
            permitted=capabilities.permitted | more,
        )
    user = process.user
    if options.user:
        uid, _, gid = options.user.partition(":")
        if not uid.isdecimal() or (gid and not gid.isdecimal()):
            raise OciError(f"--user {options.user}: give uid[:gid], both as numbers")
        user = evolve(user, uid=int(uid), gid=int(gid) if gid else user.gid)
    return evolve(
        process,
        args=options.args,
        cwd=options.cwd or process.cwd,
        env=(*process.env, *options.env),
        terminal=options.terminal,
        user=evolve(user, additional_gids=(*user.additional_gids, *options.additional_gids)),
        capabilities=capabilities,
        no_new_privileges=options.no_new_privs or process.no_new_privileges,
    )


def _read(container: Container, path: str) -> bytes | None:
    """A file as the container sees it."""
    root = os.open(f"/proc/{container.process.pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fd = open_in_root(root, path, os.O_RDONLY | os.O_NONBLOCK)
    finally:
        os.close(root)
    with open(fd, "rb") as file:
        return file.read(_PASSWD_LIMIT)
