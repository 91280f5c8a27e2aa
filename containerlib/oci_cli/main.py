"""``containerlib-oci``: the commands of the OCI runtime specification, with runc's flags.

Only what a command needs is imported, because an engine waits for each of them.
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import TYPE_CHECKING

from containerlib.errors import ContainerlibError
from containerlib.oci_cli.arguments import parse
from containerlib.oci_cli.errors import OciError, message_of
from containerlib.oci_cli.log import Log
from containerlib.oci_cli.store import Store

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Callable, Sequence

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
        log.debug(" ".join(arguments))
        return _find(options.command)(Store(options.root), options, log) or 0
    except (ContainerlibError, OSError, ValueError) as error:
        log.fail(message_of(error))
    return _FAILED


def _check(options: Namespace) -> None:
    if options.rootless == "true" or (options.rootless == "auto" and os.geteuid() != 0):
        raise OciError("rootless containers are not supported; run as root")


_PACKAGE = "containerlib.oci_cli"
_PLACES = {
    "create": "create:create_command",
    "delete": "life:delete_command",
    "events": "looks:events_command",
    "exec": "foreground:exec_command",
    "features": "features:features_command",
    "kill": "life:kill_command",
    "list": "looks:list_command",
    "pause": "life:pause_command",
    "ps": "looks:ps_command",
    "resume": "life:resume_command",
    "run": "foreground:run_command",
    "spec": "template:spec_command",
    "start": "create:start_command",
    "state": "looks:state_command",
    "update": "update:update_command",
}


def _find(name: str) -> Callable[[Store, Namespace, Log], int | None]:
    """The function of a command."""
    module, _, attribute = _PLACES[name].partition(":")
    found: Callable[[Store, Namespace, Log], int | None] = getattr(
        importlib.import_module(f"{_PACKAGE}.{module}"), attribute
    )
    return found
