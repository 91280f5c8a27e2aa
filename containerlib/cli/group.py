"""The commands by name. Each lives in a module of its own, which is loaded only when it is called."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import click

import containerlib
from containerlib.cli.lazy_group import LazyGroup

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["place_of", "run_group"]

_COMMANDS = {
    "attach": "containerlib.cli.attach:attach",
    "commit": "containerlib.cli.containers:commit",
    "container": "containerlib.cli.container:container",
    "cp": "containerlib.cli.copy:cp",
    "create": "containerlib.cli.create:create",
    "diff": "containerlib.cli.containers:diff",
    "doctor": "containerlib.cli.doctor:doctor",
    "events": "containerlib.cli.events:events",
    "exec": "containerlib.cli.exec:exec_",
    "export": "containerlib.cli.export:export",
    "history": "containerlib.cli.history:history",
    "image": "containerlib.cli.image:image",
    "images": "containerlib.cli.images:images",
    "import": "containerlib.cli.archives:import_",
    "inspect": "containerlib.cli.inspect:inspect",
    "kill": "containerlib.cli.containers:kill",
    "load": "containerlib.cli.archives:load",
    "lock": "containerlib.cli.lock:lock",
    "login": "containerlib.cli.login:login",
    "logout": "containerlib.cli.login:logout",
    "logs": "containerlib.cli.containers:logs",
    "network": "containerlib.cli.network:network",
    "port": "containerlib.cli.ports:port",
    "pause": "containerlib.cli.containers:pause",
    "prune": "containerlib.cli.prune:prune",
    "ps": "containerlib.cli.ps:ps",
    "pull": "containerlib.cli.pull:pull",
    "push": "containerlib.cli.push:push",
    "registry": "containerlib.cli.registry:registry",
    "rename": "containerlib.cli.containers:rename",
    "restart": "containerlib.cli.containers:restart",
    "rm": "containerlib.cli.containers:rm",
    "rmi": "containerlib.cli.images:remove",
    "run": "containerlib.cli.run:run",
    "save": "containerlib.cli.archives:save",
    "start": "containerlib.cli.start:start",
    "stats": "containerlib.cli.looks:stats",
    "stop": "containerlib.cli.containers:stop",
    "system": "containerlib.cli.system:system",
    "tag": "containerlib.cli.images:tag",
    "top": "containerlib.cli.looks:top",
    "unpause": "containerlib.cli.containers:unpause",
    "update": "containerlib.cli.create:update",
    "version": "containerlib.cli.version:version",
    "wait": "containerlib.cli.containers:wait",
}
_PROGRAM = "containerlib"
_USAGE_ERROR = 125
_INTERRUPTED = 130
_BROKEN_PIPE = 141


def place_of(name: str) -> str | None:
    """Where the command called `name` is, as ``module:name``; None if there is no such command."""
    return _COMMANDS.get(name)


class _MainGroup(LazyGroup):
    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            # Nobody reads the output any more; click would make a general failure of it.
            ctx.exit(_BROKEN_PIPE)


def _set_environment(*, offline: bool, lock_file: str | None, locked: bool) -> None:
    """Let every engine of this process have these settings: each command makes its own."""
    given = {
        "CONTAINERLIB_OFFLINE": "1" if offline else None,
        "CONTAINERLIB_LOCK_FILE": lock_file,
        "CONTAINERLIB_LOCKED": "1" if locked else None,
    }
    os.environ.update({name: value for name, value in given.items() if value is not None})


_group = _MainGroup(
    _COMMANDS,
    name=_PROGRAM,
    help="Containers without a daemon: each ends with the command that runs it, or is detached from it.",
    epilog="Images and state are below CONTAINERLIB_ROOT and CONTAINERLIB_RUN_ROOT, if these are set.",
    params=[
        click.Option(
            ["--version"],
            is_flag=True,
            expose_value=False,
            is_eager=True,
            help="Show the version and exit.",
            callback=lambda ctx, _param, value: _show_version(ctx) if value else None,
        ),
        click.Option(["--offline"], is_flag=True, help="Never contact a registry; CONTAINERLIB_OFFLINE=1."),
        click.Option(
            ["--lock-file"],
            metavar="FILE",
            help="Let names mean what this file says; CONTAINERLIB_LOCK_FILE.",
        ),
        click.Option(
            ["--locked"], is_flag=True, help="Refuse names that are not in it; CONTAINERLIB_LOCKED=1."
        ),
    ],
    callback=_set_environment,
)


def _show_version(ctx: click.Context) -> None:
    click.echo(f"containerlib {containerlib.__version__}")
    ctx.exit()


def run_group(args: Sequence[str], complain: Callable[[str, str], None]) -> int:
    """Run the command that the arguments name, and return its exit code.

    Args:
        args: Arguments; none ask for help.
        complain: Called with a message and a hint if the arguments are wrong.
    """
    try:
        code = _group.main(list(args) or ["--help"], prog_name=_PROGRAM, standalone_mode=False)
    except click.Abort:
        return _INTERRUPTED
    except click.UsageError as error:
        path = error.ctx.command_path if error.ctx is not None else _PROGRAM
        complain(error.format_message(), f"try '{path} --help'")
        return _USAGE_ERROR
    except click.ClickException as error:
        complain(error.format_message(), "")
        return _USAGE_ERROR
    return code if isinstance(code, int) else 0
