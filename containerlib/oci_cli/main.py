"""``containerlib-oci``: the commands of the OCI runtime specification, with runc's flags.

Only what a command needs is imported, because an engine waits for each of them.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from containerlib.errors import ContainerlibError
from containerlib.oci_cli.arguments import parse
from containerlib.oci_cli.errors import OciError, message_of
from containerlib.oci_cli.log import Log

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Callable, Sequence

    from containerlib.oci_cli.create import CreateOptions
    from containerlib.oci_cli.store import Store

__all__ = ["main", "run"]

_FAILED = 1


def main() -> None:
    """Run the command of this process's arguments, and end with its status."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run one command.

    Returns:
        Its exit status: 0, 1 after a failure, that of the process for ``run`` and ``exec`` in the foreground.
    """
    options = parse(arguments)
    log = Log(options.log, options.log_format == "json", options.debug)
    try:
        _check(options)
        return _COMMANDS[options.command](options, log) or 0
    except (ContainerlibError, OSError, ValueError) as error:
        log.fail(message_of(error))
    return _FAILED


def _check(options: Namespace) -> None:
    if options.systemd_cgroup:
        raise OciError("--systemd-cgroup: is not supported; let the engine use the cgroup manager 'cgroupfs'")
    if options.rootless == "true" or (options.rootless == "auto" and os.geteuid() != 0):
        raise OciError("rootless containers are not supported; run as root")


def _store(options: Namespace) -> Store:
    from containerlib.oci_cli.store import Store  # noqa: PLC0415

    return Store(options.root)


def _create(options: Namespace, log: Log) -> None:
    from containerlib.oci_cli.create import create  # noqa: PLC0415

    _, channel = create(_store(options), options.id, options.bundle, _create_options(options), log)
    channel.close()


def _create_options(options: Namespace, *, takes_terminal: bool = False) -> CreateOptions:
    from containerlib.oci_cli.create import CreateOptions  # noqa: PLC0415

    return CreateOptions(
        console_socket=options.console_socket,
        pid_file=options.pid_file,
        no_pivot=options.no_pivot,
        no_new_keyring=options.no_new_keyring,
        preserve_fds=options.preserve_fds,
        takes_terminal=takes_terminal,
    )


def _start(options: Namespace, _log: Log) -> None:
    from containerlib.oci_cli.create import start  # noqa: PLC0415

    start(_store(options), options.id)


def _run(options: Namespace, log: Log) -> int:
    from containerlib.oci_cli.foreground import run_container  # noqa: PLC0415

    foreground = not options.detach and not options.console_socket
    chosen = _create_options(options, takes_terminal=foreground)
    return run_container(
        _store(options), options.id, options.bundle, chosen, log, detach=options.detach, keep=options.keep
    )


def _exec(options: Namespace, log: Log) -> int:
    from containerlib.oci_cli.execute import ExecOptions  # noqa: PLC0415
    from containerlib.oci_cli.foreground import run_process  # noqa: PLC0415

    chosen = ExecOptions(
        process_file=options.process,
        args=tuple(options.args),
        cwd=options.cwd,
        env=tuple(options.env),
        terminal=options.tty,
        user=options.user,
        additional_gids=tuple(options.additional_gids),
        caps=tuple(options.cap),
        no_new_privs=options.no_new_privs,
        console_socket=options.console_socket,
        pid_file=options.pid_file,
        preserve_fds=options.preserve_fds,
        ignore_paused=options.ignore_paused,
        takes_terminal=not options.detach and not options.console_socket,
    )
    return run_process(_store(options), options.id, chosen, log, detach=options.detach)


def _kill(options: Namespace, _log: Log) -> None:
    from containerlib.oci_cli.life import kill  # noqa: PLC0415
    from containerlib.oci_cli.signals import parse_signal  # noqa: PLC0415

    kill(_store(options), options.id, parse_signal(options.signal), everything=options.all)


def _delete(options: Namespace, log: Log) -> None:
    from containerlib.oci_cli.life import delete  # noqa: PLC0415

    delete(_store(options), options.id, log, force=options.force)


def _pause(options: Namespace, _log: Log) -> None:
    from containerlib.oci_cli.life import pause  # noqa: PLC0415

    pause(_store(options), options.id)


def _resume(options: Namespace, _log: Log) -> None:
    from containerlib.oci_cli.life import resume  # noqa: PLC0415

    resume(_store(options), options.id)


def _update(options: Namespace, _log: Log) -> None:
    from containerlib.oci_cli.update import update  # noqa: PLC0415

    update(_store(options), options.id, options)


def _state(options: Namespace, _log: Log) -> None:
    from containerlib.oci_cli.looks import show_state  # noqa: PLC0415

    show_state(_store(options), options.id)


def _list(options: Namespace, _log: Log) -> None:
    from containerlib.oci_cli.looks import show_list  # noqa: PLC0415

    show_list(_store(options), style=options.format, quiet=options.quiet)


def _ps(options: Namespace, _log: Log) -> None:
    from containerlib.oci_cli.looks import show_processes  # noqa: PLC0415

    show_processes(_store(options), options.id, style=options.format, options=options.options)


def _events(options: Namespace, _log: Log) -> None:
    from containerlib.oci_cli.looks import show_events  # noqa: PLC0415

    show_events(_store(options), options.id, once=options.stats, interval_s=options.interval)


def _features(_options: Namespace, _log: Log) -> None:
    from containerlib.oci_cli.looks import show_features  # noqa: PLC0415

    show_features()


def _spec(options: Namespace, _log: Log) -> None:
    from containerlib.oci_cli.looks import write_spec  # noqa: PLC0415

    write_spec(options.bundle)


_COMMANDS: dict[str, Callable[[Namespace, Log], int | None]] = {
    "create": _create,
    "delete": _delete,
    "events": _events,
    "exec": _exec,
    "features": _features,
    "kill": _kill,
    "list": _list,
    "pause": _pause,
    "ps": _ps,
    "resume": _resume,
    "run": _run,
    "spec": _spec,
    "start": _start,
    "state": _state,
    "update": _update,
}
