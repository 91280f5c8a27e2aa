"""The command line, with the flags of runc: those that mean something here, and those that change nothing."""

from __future__ import annotations

import argparse
import re
import sys
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["parse"]

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)?")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, None: 1.0}


class _Parser(argparse.ArgumentParser):
    """Ends with status 1 where argparse would end with 2, as callers expect it."""

    def error(self, message: str) -> NoReturn:
        self.exit(1, f"{self.prog}: {message}\n")


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Read a command line; ends the process after ``--help``, ``--version`` and what is wrong."""
    top = _Parser(prog="containerlib-oci", allow_abbrev=False, description="Runs OCI bundles.")
    _global_flags(top)
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    # Each parser costs half a millisecond: only those are made of which one can be meant.
    wanted = set(arguments)
    named = [name for name in _COMMANDS if name in wanted] or list(_COMMANDS)
    for name in named if not wanted & {"-h", "--help"} else _COMMANDS:
        summary, fill = _COMMANDS[name]
        fill(commands.add_parser(name, help=summary, allow_abbrev=False))
    return top.parse_args(arguments)


def _global_flags(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--root", default="/run/containerlib-oci", help="directory of the containers' state")
    add("--log", default="", help="file for messages")
    add("--log-format", default="text", choices=("text", "json"))
    add("--debug", action="store_true")
    add("--systemd-cgroup", action="store_true")
    add("--rootless", default="auto", choices=("true", "false", "auto"))
    add("--criu", default="", help=argparse.SUPPRESS)
    add("-v", "--version", action=_Version)


class _Version(argparse.Action):
    """Prints lines as they are; argparse's own action folds them into one."""

    def __init__(self, option_strings: Sequence[str], dest: str) -> None:
        super().__init__(option_strings, dest, nargs=0)

    def __call__(self, parser: argparse.ArgumentParser, *_arguments: object) -> NoReturn:
        from containerlib import __version__  # noqa: PLC0415 - for this flag only
        from containerlib.oci.runtime_spec import OCI_VERSION  # noqa: PLC0415

        sys.stdout.write(f"containerlib-oci version {__version__}\ncommit: \nspec: {OCI_VERSION}\n")
        parser.exit(0)


def _identified(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("id", metavar="CONTAINER-ID")


def _create(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--bundle", "-b", default=".", help="directory with config.json")
    add("--console-socket", default="", help="socket that takes the terminal")
    add("--pid-file", default="", help="where the process id is written")
    add("--no-pivot", action="store_true")
    add("--no-new-keyring", action="store_true")
    add("--preserve-fds", type=int, default=0, metavar="N")
    _identified(parser)


def _run(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--detach", "-d", action="store_true")
    parser.add_argument("--keep", action="store_true", help="leave the container when it has ended")
    parser.add_argument("--no-subreaper", action="store_true", help=argparse.SUPPRESS)
    _create(parser)


def _exec(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--console-socket", default="")
    add("--pid-file", default="")
    add("--process", "-p", default="", metavar="FILE", help="the process, as config.json describes one")
    add("--detach", "-d", action="store_true")
    add("--tty", "-t", action="store_true")
    add("--cwd", default="")
    add("--env", "-e", action="append", default=[], metavar="NAME=VALUE")
    add("--user", "-u", default="", metavar="UID[:GID]")
    add("--additional-gids", "-g", action="append", default=[], type=int)
    add("--cap", "-c", action="append", default=[], metavar="CAP_NAME")
    add("--no-new-privs", action="store_true")
    add("--preserve-fds", type=int, default=0, metavar="N")
    add("--ignore-paused", action="store_true")
    add("--no-subreaper", action="store_true", help=argparse.SUPPRESS)
    _identified(parser)
    add("args", nargs=argparse.REMAINDER, metavar="COMMAND")


def _kill(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--all", "-a", action="store_true", help="all processes of the container")
    _identified(parser)
    parser.add_argument("signal", nargs="?", default="SIGTERM")


def _delete(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--force", "-f", action="store_true", help="end it before; none is no error")
    _identified(parser)


def _list(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--format", "-f", default="table", choices=("table", "json"))
    parser.add_argument("--quiet", "-q", action="store_true")


def _ps(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--format", "-f", default="table", choices=("table", "json"))
    _identified(parser)
    parser.add_argument("options", nargs=argparse.REMAINDER)


def _events(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--stats", action="store_true", help="once")
    parser.add_argument("--interval", type=_duration, default=5.0)
    _identified(parser)


def _spec(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--bundle", "-b", default="")


def _update(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--resources", "-r", default="", metavar="FILE", help="linux.resources as JSON; - for standard input")
    for flag in (
        *("--blkio-weight", "--cpu-period", "--cpu-quota", "--cpu-burst", "--cpu-share", "--cpu-idle"),
        *("--memory", "--memory-reservation", "--memory-swap", "--pids-limit"),
    ):
        add(flag, type=int, default=None)
    for flag in ("--cpuset-cpus", "--cpuset-mems"):
        add(flag, default="")
    _identified(parser)


def _duration(text: str) -> float:
    found = _DURATION.fullmatch(text)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no duration such as 5s")
    return float(found[1]) * _UNITS[found[2]]


def _nothing(_parser: argparse.ArgumentParser) -> None:
    """For a command without flags."""


_COMMANDS: dict[str, tuple[str, Callable[[argparse.ArgumentParser], None]]] = {
    "create": ("everything up to the command itself", _create),
    "delete": ("remove what is left of a container", _delete),
    "events": ("what a container uses", _events),
    "exec": ("a further process in a container", _exec),
    "features": ("what this runtime can do", _nothing),
    "kill": ("send a signal", _kill),
    "list": ("all containers", _list),
    "pause": ("stop all processes of a container", _identified),
    "ps": ("the processes of a container", _ps),
    "resume": ("let them go on", _identified),
    "run": ("create and start", _run),
    "spec": ("write a configuration to begin with", _spec),
    "start": ("let a created container go", _identified),
    "state": ("what a container does", _identified),
    "update": ("change limits", _update),
}
