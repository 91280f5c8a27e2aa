"""Docker's verbs for containers that are there: the detached ones of the store, by name or id."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from containerlib.api.engine import Engine
from containerlib.cli.until import parse_until
from containerlib.errors import ContainerlibError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from containerlib.api.container import Container

__all__ = [
    "commit",
    "diff",
    "for_each",
    "kill",
    "logs",
    "pause",
    "rename",
    "restart",
    "rm",
    "stop",
    "unpause",
    "wait",
]

_FAILED = 1
_UNKNOWN = 125
_CHANGES = {"added": "A", "deleted": "D", "modified": "C"}


def for_each(names: Sequence[str], action: Callable[[Container], object]) -> int:
    """Do the same to several; what fails is told, and the others go on."""
    code = 0
    with Engine() as engine:
        for name in names:
            try:
                result = action(engine.containers.get(name))
            except ContainerlibError as error:
                click.echo(f"containerlib: {error}", err=True)
                code = _FAILED
            else:
                print(name if result is None else result)
    return code


def _verb(name: str, action: Callable[..., object], text: str, *options: click.Parameter) -> click.Command:
    """A command for any number of containers; its options are those of `action`."""

    def call(names: Sequence[str], **values: Any) -> int:
        return for_each(names, lambda container: action(container, **values))

    names = click.Argument(["names"], nargs=-1, required=True, metavar="CONTAINER...")
    return click.Command(name, callback=call, params=[*options, names], help=text)


def _seconds() -> click.Option:
    return click.Option(
        ["-t", "--time", "timeout_s"], type=click.FloatRange(min=0), help="Seconds to end by itself."
    )


def _stop(container: Container, timeout_s: float | None) -> None:
    container.stop(timeout_s=timeout_s)


def _restart(container: Container, timeout_s: float | None) -> None:
    container.restart(timeout_s=timeout_s)


def _wait(container: Container) -> int:
    code = container.wait().exit_code
    return _UNKNOWN if code is None else code


stop = _verb("stop", _stop, "Stop containers: by their stop signal, then by SIGKILL.", _seconds())
restart = _verb("restart", _restart, "Stop containers and start them again.", _seconds())
kill = _verb(
    "kill",
    lambda container, signal: container.kill(signal),
    "Send a signal to containers.",
    click.Option(["-s", "--signal"], default="KILL", help="Instead of SIGKILL."),
)
pause = _verb("pause", lambda container: container.pause(), "Stop all processes of containers for now.")
unpause = _verb("unpause", lambda container: container.unpause(), "Let paused containers go on.")
wait = _verb("wait", _wait, "Wait until containers have ended, and print their exit codes.")
rm = _verb(
    "rm",
    lambda container, force: container.remove(force=force),
    "Remove containers that do not run.",
    click.Option(["-f", "--force"], is_flag=True, help="Kill those that run."),
)


def _rename(*, name: str, new_name: str) -> None:
    with Engine() as engine:
        engine.containers.get(name).rename(new_name)


rename = click.Command(
    "rename",
    callback=_rename,
    params=[click.Argument(["name"], metavar="CONTAINER"), click.Argument(["new_name"])],
    help="Give a container another name.",
)


def _diff(*, name: str) -> None:
    with Engine() as engine:
        for change in engine.containers.get(name).changes():
            print(_CHANGES[change.kind], change.path)


diff = click.Command(
    "diff",
    callback=_diff,
    params=[click.Argument(["name"], metavar="CONTAINER")],
    help="Show what a container has changed of its image's files: A added, C changed, D deleted.",
)


def _logs(
    *, name: str, follow: bool, since: str | None, until: str | None, tail: str, timestamps: bool
) -> None:
    if tail != "all" and not tail.isdigit():
        raise click.UsageError(f"--tail {tail!r}: give a number of lines, or all")
    with Engine() as engine:
        lines = engine.containers.get(name).logs(
            follow=follow,
            since=None if since is None else parse_until(since, "--since"),
            until=None if until is None else parse_until(until, "--until"),
            tail=None if tail == "all" else int(tail),
        )
        for line in lines:
            head = f"{line.time:%Y-%m-%dT%H:%M:%S.%f}Z " if timestamps else ""
            target = sys.stdout if line.stream == "stdout" else sys.stderr
            target.buffer.write(head.encode() + line.data + (b"" if line.is_partial else b"\n"))
            target.buffer.flush()


logs = click.Command(
    "logs",
    callback=_logs,
    params=[
        click.Option(["-f", "--follow"], is_flag=True, help="Go on until the container ends."),
        click.Option(["--since"], metavar="TIME", help="From this time on, such as 10m or 2026-01-02."),
        click.Option(["--until"], metavar="TIME", help="Up to this time."),
        click.Option(["-n", "--tail"], default="all", metavar="N", help="Only the last lines."),
        click.Option(["-t", "--timestamps"], is_flag=True, help="Show when each line was written."),
        click.Argument(["name"], metavar="CONTAINER"),
    ],
    help="Show what a container has written.",
)


def _commit(*, name: str, reference: str | None, **values: Any) -> None:
    with Engine() as engine:
        image = engine.containers.get(name).commit(reference, **values)
        print(image.id)


commit = click.Command(
    "commit",
    callback=_commit,
    params=[
        click.Option(["-a", "--author"], default="", help="Who has made the image."),
        click.Option(["-m", "--message"], default="", help="What it is."),
        click.Option(["-c", "--change", "changes"], multiple=True, help="Apply a Dockerfile's instruction."),
        click.Option(["-p", "--pause/--no-pause"], default=True, help="Pause a running container meanwhile."),
        click.Argument(["name"], metavar="CONTAINER"),
        click.Argument(["reference"], required=False, metavar="[IMAGE]"),
    ],
    help="Make an image of what a container has changed.",
)
