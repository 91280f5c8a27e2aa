"""``containerlib registry serve``: a registry of one's own."""

from __future__ import annotations

import contextlib
import signal
from typing import TYPE_CHECKING, Any

import click

from containerlib.api.engine import Engine
from containerlib.api.registry_server import serve as serve_registry

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["serve"]

_ENDING = frozenset({signal.SIGHUP, signal.SIGINT, signal.SIGTERM})


@contextlib.contextmanager
def _held_signals() -> Iterator[None]:
    """Hold back the signals that end a program, in this thread and all that it starts, to wait for one."""
    old = signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, old)


def _serve(*, store: bool, upload_limit: int | None, no_delete: bool, **options: Any) -> None:
    if upload_limit is not None:
        options["max_blob_bytes"] = upload_limit
    with contextlib.ExitStack() as stack:
        stack.enter_context(_held_signals())
        engine = stack.enter_context(Engine()) if store else None
        server = stack.enter_context(serve_registry(engine=engine, allow_delete=not no_delete, **options))
        click.echo(server.url)
        signal.sigwait(_ENDING)


serve = click.Command(
    "serve",
    callback=_serve,
    params=[
        click.Option(["--host"], default="127.0.0.1", show_default=True, help="Address to bind to."),
        click.Option(
            ["-p", "--port"],
            type=click.IntRange(0, 65535),
            default=5000,
            show_default=True,
            help="Port to bind to; 0 for a free one.",
        ),
        click.Option(
            ["--directory"],
            type=click.Path(file_okay=False),
            help="Keep images in DIRECTORY; without it and --store they go when the registry ends.",
        ),
        click.Option(["--store"], is_flag=True, help="Serve the images of the engine, and push into it."),
        click.Option(
            ["--htpasswd"], type=click.Path(dir_okay=False), help="File of users, made by 'htpasswd -B'."
        ),
        click.Option(["--token-auth"], is_flag=True, help="Give users short-lived tokens for passwords."),
        click.Option(["--tls-cert"], type=click.Path(dir_okay=False), help="Certificate and chain, PEM."),
        click.Option(["--tls-key"], type=click.Path(dir_okay=False), help="Key of the certificate, PEM."),
        click.Option(["--allow-anonymous"], is_flag=True, help="Let everybody in on any address."),
        click.Option(["--public-url"], metavar="URL", help="Scheme and host by which clients come."),
        click.Option(["--read-only"], is_flag=True, help="Refuse pushes and deletions."),
        click.Option(["--no-delete"], is_flag=True, help="Refuse deletions."),
        click.Option(["--upstream"], metavar="HOST", help="Be a cache of the registry HOST."),
        click.Option(
            ["--max-blob-bytes", "upload_limit"],
            type=click.IntRange(1),
            metavar="BYTES",
            help="Largest blob that is taken.",
        ),
    ],
    help="Serve a registry until interrupted; prints its URL when clients can connect.",
    short_help="Serve a registry.",
)
