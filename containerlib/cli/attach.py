"""``containerlib attach``, and ``exec`` with a terminal: our streams connected with those of a container."""

from __future__ import annotations

import os
import termios
import tty
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from containerlib.api.engine import Engine
from containerlib.cli.foreground import Foreground, leaving_on_signals
from containerlib.cli.terminal import find_terminal, window_size

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from containerlib.api.attachment import Attachment

__all__ = ["DETACH_KEYS_OPTION", "AttachedStreams", "Detached", "attach", "keys_of", "parse_keys"]

_CHUNK = 1 << 16
_UNKNOWN = 125
_DETACH_KEYS = "ctrl-p,ctrl-q"


def parse_keys(text: str) -> bytes:
    """The keys in Docker's form: single letters, or ``ctrl-`` with one, with commas between them.

    Raises:
        ValueError: A key is none.
    """
    keys = b""
    for word in text.split(","):
        if word.startswith("ctrl-") and len(word) == len("ctrl-") + 1:
            code = ord(word[-1].upper()) - ord("@")
            if not 0 <= code < 32:  # noqa: PLR2004 - the control characters
                raise ValueError(f"{word!r} is no key")
        elif len(word) == 1 and word.isascii():
            code = ord(word)
        else:
            raise ValueError(f"{word!r} is no key")
        keys += bytes([code])
    return keys


class Detached(Exception):
    """The user has typed the keys for that."""


class AttachedStreams:
    """Passes our input on, and shows the container's output, while it is open as a context manager."""

    def __init__(self, loop: Foreground, streams: Attachment, *, has_input: bool, keys: bytes) -> None:
        """Take over the streams.

        Args:
            loop: Tells when something is ready.
            streams: Of the container; closed at the end.
            has_input: Whether our standard input goes to the container.
            keys: What ends this, typed on a terminal.
        """
        self._loop = loop
        self._streams = streams
        self._has_input = has_input and streams.stdin is not None
        self._keys = keys
        self._typed = b""
        self._saved: list[Any] | None = None

    def __enter__(self) -> Self:
        for source, target in ((self._streams.stdout, 1), (self._streams.stderr, 2)):
            os.set_blocking(source.fileno(), False)
            self._loop.watch(source.fileno(), partial(self._show, source.fileno(), target))
        if self._streams.is_terminal:
            self._loop.on_resize = self._resize
            self._resize()
        if self._has_input:
            if self._streams.is_terminal and os.isatty(0):
                self._saved = termios.tcgetattr(0)
                tty.setraw(0, termios.TCSANOW)
            self._loop.watch(0, self._read_input)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                for source, target in ((self._streams.stdout, 1), (self._streams.stderr, 2)):
                    os.set_blocking(source.fileno(), True)
                    while self._show(source.fileno(), target):
                        pass
        finally:
            self._loop.on_resize = None
            if self._saved is not None:
                termios.tcsetattr(0, termios.TCSANOW, self._saved)
            self._streams.close()

    def _resize(self) -> None:
        columns, rows = window_size(find_terminal())
        if columns and rows:
            self._streams.resize(columns, rows)

    def _show(self, fd: int, target: int) -> bool:
        """Show one chunk; whether there may be more."""
        try:
            data = os.read(fd, _CHUNK)
        except BlockingIOError:
            return False
        view = memoryview(data)
        while view:
            view = view[os.write(target, view) :]
        if not data:
            self._loop.unwatch(fd)
        return bool(data)

    def _read_input(self) -> None:
        data = os.read(0, _CHUNK)
        stdin = self._streams.stdin
        if not data or stdin is None:
            self._loop.unwatch(0)
            if stdin is not None and not self._streams.is_terminal:
                stdin.close()
            return
        if self._saved is not None:
            data = self._without_keys(data)
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(stdin.fileno(), view) :]
        except (BrokenPipeError, OSError):
            self._loop.unwatch(0)  # nobody in the container reads any more

    def _without_keys(self, data: bytes) -> bytes:
        """What was typed, as far as it cannot be the beginning of the keys.

        Raises:
            Detached: The keys were typed.
        """
        typed = self._typed + data
        if self._keys and self._keys in typed:
            raise Detached
        kept = next(
            (n for n in range(len(self._keys) - 1, 0, -1) if typed.endswith(self._keys[:n])),
            0,
        )
        self._typed = typed[len(typed) - kept :]
        return typed[: len(typed) - kept]


def keys_of(text: str) -> bytes:
    """The value of the option ``--detach-keys``, as the bytes that a terminal sends."""
    try:
        return parse_keys(text)
    except ValueError as error:
        raise click.UsageError(f"--detach-keys {text!r}: {error}") from None


def DETACH_KEYS_OPTION() -> click.Option:  # noqa: N802 - a constant, but each command needs its own
    """The option ``--detach-keys``."""
    return click.Option(
        ["--detach-keys"],
        default=_DETACH_KEYS,
        metavar="KEYS",
        help="Keys that end this and leave the container running; ctrl-p,ctrl-q if left out.",
    )


def _attach(*, name: str, no_stdin: bool, detach_keys: str) -> int:
    keys = keys_of(detach_keys)
    with leaving_on_signals(), Engine() as engine:
        container = engine.containers.get(name)
        with Foreground() as loop:
            try:
                with AttachedStreams(loop, container.attach(), has_input=not no_stdin, keys=keys):
                    status = loop.wait(container)
            except Detached:
                return 0
    code = None if status is None else status.exit_code
    return _UNKNOWN if code is None else code


attach = click.Command(
    "attach",
    callback=_attach,
    params=[
        click.Option(["--no-stdin"], is_flag=True, help="Pass no input on."),
        DETACH_KEYS_OPTION(),
        click.Argument(["name"], metavar="CONTAINER"),
    ],
    help="Show what a container writes from now on, and pass input and signals on, until it ends.",
    short_help="Connect with the streams of a running container.",
)
