"""``containerlib exec``: a further command in a running container."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Any

import click

from containerlib.api.engine import Engine
from containerlib.cli.foreground import Foreground
from containerlib.container.streams import DEVNULL

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from containerlib.api.container import Container
    from containerlib.api.exec import ExecProcess
    from containerlib.runtime.usage import ExitStatus

__all__ = ["exec_"]

_UNKNOWN = 125


class _Command:
    """A command in a container, as `Foreground` waits for it."""

    def __init__(self, process: ExecProcess) -> None:
        self._process = process

    @property
    def exit_status(self) -> ExitStatus | None:
        """How it ended; None before."""
        return self._process.status

    def fileno(self) -> int:
        """A descriptor that becomes readable at the end."""
        return self._process.fileno()

    def kill(self, signal: int | str = "KILL") -> None:
        """Pass a signal on to the command alone."""
        self._process.send_signal(signal)


def _with_terminal(
    container: Container, command: Sequence[str], *, interactive: bool, options: Mapping[str, Any]
) -> int | None:
    """Run a command with a terminal of its own, connected with ours."""
    from containerlib.cli import terminal  # noqa: PLC0415 - only with -t

    size = terminal.window_size(terminal.find_terminal())
    with contextlib.ExitStack() as stack:
        loop = stack.enter_context(Foreground())
        process = container.popen(
            command, stdin=DEVNULL, stdout=DEVNULL, stderr=DEVNULL, tty=True, console_size=size, **options
        )
        stack.callback(process.close)
        stack.enter_context(terminal.TerminalProxy(loop, process.take_console(), has_input=interactive))
        status = loop.wait(_Command(process))
    return None if status is None else status.exit_code


def _without_terminal(
    container: Container, command: Sequence[str], *, interactive: bool, options: Mapping[str, Any]
) -> int | None:
    process = container.popen(command, stdin=None if interactive else DEVNULL, **options)
    try:
        return process.wait()
    finally:
        process.close()


def _exec(*, name: str, command: Sequence[str], interactive: bool, tty: bool, **values: Any) -> int:
    options = {"env": list(values["env"]), "workdir": values["workdir"], "user": values["user"]}
    if tty and interactive and not os.isatty(0):
        raise click.ClickException("the input device is not a TTY")
    with Engine() as engine:
        container = engine.containers.get(name)
        if tty:
            code = _with_terminal(container, command, interactive=interactive, options=options)
        else:
            code = _without_terminal(container, command, interactive=interactive, options=options)
    return _UNKNOWN if code is None else code


exec_ = click.Command(
    "exec",
    callback=_exec,
    context_settings={"allow_interspersed_args": False, "ignore_unknown_options": False},
    params=[
        click.Option(["-i", "--interactive"], is_flag=True, help="Pass standard input on."),
        click.Option(["-t", "--tty"], is_flag=True, help="Give the command a terminal."),
        click.Option(["-e", "--env"], multiple=True, metavar="NAME=VALUE", help="Set a variable."),
        click.Option(["-w", "--workdir"], metavar="DIR", help="Working directory in the container."),
        click.Option(["-u", "--user"], metavar="USER[:GROUP]", help="User, by name or number."),
        click.Argument(["name"], metavar="CONTAINER"),
        click.Argument(["command"], nargs=-1, required=True, type=click.UNPROCESSED, metavar="COMMAND..."),
    ],
    help="Run a command in a running container.",
)
