"""``run`` and ``exec`` that stay: pass signals on, relay the terminal, end with the process's status."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import sys
import termios
import tty
from typing import TYPE_CHECKING

from containerlib._native.creator import reap
from containerlib.oci_cli.create import create, create_options, start
from containerlib.oci_cli.execute import ExecOptions, execute
from containerlib.oci_cli.life import delete

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Iterator

    from containerlib._native.channel import Channel
    from containerlib.oci_cli.log import Log
    from containerlib.oci_cli.store import Store

__all__ = ["exec_command", "run_command"]

_CHUNK = 65536
# Those that the kernel sends for what happens here, or that cannot be caught.
_OWN = frozenset(
    {signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD, signal.SIGPIPE, signal.SIGURG, signal.SIGWINCH}
)


def run_command(store: Store, options: Namespace, log: Log) -> int:
    """Create and start a container; unless it is detached, wait for its end and remove it."""
    takes_terminal = not options.detach and not options.console_socket
    chosen = create_options(options, takes_terminal=takes_terminal)
    _, channel = create(store, options.id, options.bundle, chosen, log)
    is_kept = False
    try:
        start(store, options.id)
        is_kept = options.keep or options.detach
        return 0 if options.detach else _follow(channel)
    finally:
        channel.close()
        if not is_kept:
            delete(store, options.id, log, force=True)


def exec_command(store: Store, options: Namespace, log: Log) -> int:
    """Start a further process; unless it is detached, wait for its end."""
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
    channel = execute(store, options.id, chosen, log)
    try:
        return 0 if options.detach else _follow(channel)
    finally:
        channel.close()


def _follow(channel: Channel) -> int:
    with _forwarded(channel):
        if channel.console_fd >= 0:
            _relay(channel)
        status = reap(channel)
    return 255 if status is None else status


@contextlib.contextmanager
def _forwarded(channel: Channel) -> Iterator[None]:
    """Hand the signals that come for this command on to the process."""
    channel.exit = None  # nobody tells us of its end: it is our child

    def forward(number: int, _frame: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(channel.pidfd, number)

    before = {}
    for number in set(signal.Signals) - _OWN:
        with contextlib.suppress(OSError, ValueError):
            before[number] = signal.signal(number, forward)
    try:
        yield
    finally:
        for number, handler in before.items():
            with contextlib.suppress(TypeError):
                signal.signal(number, handler)


def _relay(channel: Channel) -> None:
    """Between our terminal, or what stands in for it, and the process's, until that is closed."""
    console = channel.console_fd
    with _raw(console):
        os.set_blocking(console, True)
        poller = select.poll()
        poller.register(console, select.POLLIN)
        poller.register(0, select.POLLIN)
        poller.register(channel.pidfd, select.POLLIN)
        while True:
            ready = [fd for fd, _ in poller.poll()]
            if channel.pidfd in ready:
                # What else has the terminal open is not waited for.
                os.set_blocking(console, False)
                while _pass_on(console, 1):
                    pass
                return
            if console in ready and not _pass_on(console, 1):
                return
            if 0 in ready and not _pass_on(0, console):
                poller.unregister(0)


def _pass_on(source: int, target: int) -> bool:
    """Pass on what can be read at once; say whether there was something."""
    try:
        data = os.read(source, _CHUNK)
    except OSError:  # the other side of a terminal is closed, or nothing is left
        return False
    rest = data
    while rest:
        rest = rest[os.write(target, rest) :]
    return bool(data)


@contextlib.contextmanager
def _raw(console: int) -> Iterator[None]:
    """Our terminal as a mere wire, with its size kept; where there is none, nothing."""
    if not sys.stdin.isatty():
        yield
        return
    before = termios.tcgetattr(0)

    def resize(*_arguments: object) -> None:
        fcntl.ioctl(console, termios.TIOCSWINSZ, fcntl.ioctl(0, termios.TIOCGWINSZ, bytes(8)))

    former = signal.signal(signal.SIGWINCH, resize)
    resize()
    tty.setraw(0)
    try:
        yield
    finally:
        termios.tcsetattr(0, termios.TCSANOW, before)
        signal.signal(signal.SIGWINCH, former)
