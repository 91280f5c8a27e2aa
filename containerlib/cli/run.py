"""``containerlib run``: one container in the foreground, with Docker's options."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Any

import click

from containerlib.api.engine import Engine
from containerlib.cli.foreground import Foreground, leaving_on_signals
from containerlib.cli.run_image import chosen_image
from containerlib.cli.run_options import RUN_OPTIONS, by_flag, check_detached, given, run_options
from containerlib.container.streams import DEVNULL
from containerlib.errors import EngineClosed, InvalidOption

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from containerlib.api.container import Container
    from containerlib.api.image import Image
    from containerlib.runtime.usage import ExitStatus

__all__ = ["run"]


def _run_detached(engine: Engine, values: Mapping[str, Any]) -> int:
    """Start the container, and leave it to itself."""
    with chosen_image(engine, values) as (image, command):
        print(image.run(command, **run_options(values)).id)
    return 0


def _start(image: Image, command: Sequence[str] | None, values: Mapping[str, Any]) -> Container:
    options = run_options(values)
    if values["tty"]:
        from containerlib.cli.terminal import find_terminal, window_size  # noqa: PLC0415 - only with -t

        options["console_size"] = window_size(find_terminal())
        return image.run(command, stdin=DEVNULL, stdout=DEVNULL, stderr=DEVNULL, **options)
    return image.run(command, stdin=None if values["interactive"] else DEVNULL, **options)


def _run_to_end(engine: Engine, values: Mapping[str, Any]) -> tuple[ExitStatus, bool]:
    """Run the container until its end, or until the time is up, and then end it; also say which."""
    with contextlib.ExitStack() as stack:
        image, command = stack.enter_context(chosen_image(engine, values))
        loop = stack.enter_context(Foreground())
        container = _start(image, command, values)
        if values["tty"]:
            from containerlib.cli.terminal import TerminalProxy  # noqa: PLC0415 - only with -t

            master = container.take_console()
            stack.enter_context(TerminalProxy(loop, master, has_input=values["interactive"]))
        status = loop.wait(container, timeout_s=values["timeout_s"])
        if status is not None:
            return status, False
        return _end(loop, container, is_asked=bool(given(values, ("stop_signal", "stop_timeout_s")))), True


def _end(loop: Foreground, container: Container, *, is_asked: bool) -> ExitStatus:
    """End a container whose time is up: at once, or politely first if the caller said how."""
    status = None
    if is_asked:
        config = container.entry.config
        container.kill(config.stop_signal)
        status = loop.wait(container, timeout_s=config.stop_timeout_s)
    if status is None:
        container.kill()
        status = container.wait()
    return status


def _check(values: Mapping[str, Any]) -> None:
    if not values["arguments"]:
        raise click.UsageError("name a command" if values["from_host"] else "name an image")
    if values["detach"] and values["timeout_s"] is not None:
        raise click.UsageError("--timeout needs somebody who waits; leave it out with --detach")
    check_detached(values, is_detached=values["detach"])
    if values["tty"] and values["interactive"] and not values["detach"] and not os.isatty(0):
        raise click.ClickException("the input device is not a TTY")


def _run(**values: Any) -> int:
    _check(values)
    try:
        with leaving_on_signals(), Engine() as engine:
            if values["detach"]:
                return _run_detached(engine, values)
            status, is_late = _run_to_end(engine, values)
    except InvalidOption as error:
        raise click.UsageError(by_flag(error), ctx=click.get_current_context()) from None
    if is_late:
        click.echo(f"containerlib: ended, because it took longer than {values['timeout_s']:g} s", err=True)
    if status.oom_killed:
        click.echo("containerlib: a process was killed for lack of memory; raise --memory", err=True)
    if status.exit_code is None:
        raise EngineClosed("the spawner was lost, and nobody knows how the command ended")
    return status.exit_code


run = click.Command(
    "run",
    callback=_run,
    params=RUN_OPTIONS,
    help="Run a command in a new container, and wait for its end.\n\n"
    "The container never outlives this command. "
    "Options behind IMAGE belong to the command in the container.",
    short_help="Run a command in a new container.",
    context_settings={"allow_interspersed_args": False},
)
